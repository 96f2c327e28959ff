#include "py/addr.h"

#include <arpa/inet.h>
#include <net/if.h>
#include <string.h>

static PyObject *
unix_to_python(const struct sockaddr_un *un, socklen_t len)
{
    size_t path_len = len - offsetof(struct sockaddr_un, sun_path);
    if (path_len > 0 && un->sun_path[0] == '\0') /* Linux's abstract names */
        return PyBytes_FromStringAndSize(un->sun_path, (Py_ssize_t)path_len);
    path_len = strnlen(un->sun_path, path_len);
    return PyUnicode_DecodeFSDefaultAndSize(un->sun_path, (Py_ssize_t)path_len);
}

PyObject *
azs_addr_to_python(const struct sockaddr *sa, socklen_t len)
{
    char host[INET6_ADDRSTRLEN];
    if (len < (socklen_t)sizeof(sa->sa_family))
        Py_RETURN_NONE;
    switch (sa->sa_family) {
    case AF_INET: {
        const struct sockaddr_in *in = (const struct sockaddr_in *)sa;
        inet_ntop(AF_INET, &in->sin_addr, host, sizeof(host));
        return Py_BuildValue("(sH)", host, ntohs(in->sin_port));
    }
    case AF_INET6: {
        const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)sa;
        inet_ntop(AF_INET6, &in6->sin6_addr, host, sizeof(host));
        return Py_BuildValue("(sHII)", host, ntohs(in6->sin6_port),
                             (unsigned)ntohl(in6->sin6_flowinfo),
                             (unsigned)in6->sin6_scope_id);
    }
    case AF_UNIX:
        return unix_to_python((const struct sockaddr_un *)sa, len);
    default:
        return Py_BuildValue("(iy#)", sa->sa_family, sa->sa_data,
                             (Py_ssize_t)(len - offsetof(struct sockaddr, sa_data)));
    }
}

static int
unix_from_python(PyObject *obj, azs_addr *out)
{
    PyObject *path = NULL;
    if (PyUnicode_Check(obj)) {
        path = PyUnicode_EncodeFSDefault(obj);
    } else if (PyBytes_Check(obj)) {
        path = Py_NewRef(obj);
    } else {
        return 0; /* a bytes-like or path object: leave it to the socket module */
    }
    if (path == NULL)
        return -1;
    size_t len = (size_t)PyBytes_GET_SIZE(path);
    const char *bytes = PyBytes_AS_STRING(path);
    /* A name in the file system needs its terminating null. Without a name it is no
     * address to send to; Linux binds it to an abstract one. */
    bool abstract = len == 0 || bytes[0] == '\0';
    if (len + !abstract > sizeof(out->un.sun_path)) {
        Py_DECREF(path);
        PyErr_SetString(PyExc_OSError, "AF_UNIX path too long");
        return -1;
    }
    memset(&out->un, 0, sizeof(out->un));
    out->un.sun_family = AF_UNIX;
    memcpy(out->un.sun_path, bytes, len);
    out->len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len + !abstract);
    Py_DECREF(path);
    return 1;
}

/* A whole number from 0 to `max`. -1 with TypeError or OverflowError. */
static int
number_arg(PyObject *obj, unsigned long max, const char *error, unsigned long *out)
{
    PyObject *index = PyNumber_Index(obj);
    if (index == NULL)
        return -1;
    int overflow;
    long long value = PyLong_AsLongLongAndOverflow(index, &overflow);
    Py_DECREF(index);
    if (overflow || value < 0 || (unsigned long long)value > max) {
        PyErr_SetString(PyExc_OverflowError, error);
        return -1;
    }
    *out = (unsigned long)value;
    return 0;
}

int
azs_addr_from_python(int family, PyObject *obj, azs_addr *out)
{
    if (family == AF_UNIX)
        return unix_from_python(obj, out);
    if ((family != AF_INET && family != AF_INET6) || !PyTuple_Check(obj))
        return 0;
    Py_ssize_t n = PyTuple_GET_SIZE(obj);
    if (n < 2 || n > (family == AF_INET ? 2 : 4))
        return 0; /* the socket module has the right words for it */
    PyObject *host_obj = PyTuple_GET_ITEM(obj, 0);
    const char *host;
    Py_ssize_t host_len;
    if (PyUnicode_Check(host_obj)) {
        host = PyUnicode_AsUTF8AndSize(host_obj, &host_len);
        if (host == NULL)
            return -1;
    } else {
        return 0;
    }
    if (strlen(host) != (size_t)host_len)
        return 0;
    unsigned long port, flowinfo = 0, scope_id = 0;
    if (!PyLong_Check(PyTuple_GET_ITEM(obj, 1)))
        return 0;
    if (number_arg(PyTuple_GET_ITEM(obj, 1), 65535, "port must be 0-65535.", &port) < 0)
        return -1;
    if (family == AF_INET) {
        memset(&out->in, 0, sizeof(out->in));
        if (inet_pton(AF_INET, host, &out->in.sin_addr) != 1)
            return 0;
        out->in.sin_family = AF_INET;
        out->in.sin_port = htons((uint16_t)port);
        out->len = sizeof(out->in);
        return 1;
    }
    if (n > 2 && number_arg(PyTuple_GET_ITEM(obj, 2), 0xfffff,
                            "flowinfo must be 0-1048575.", &flowinfo) < 0)
        return -1;
    if (n > 3 && number_arg(PyTuple_GET_ITEM(obj, 3), 0xffffffff,
                            "scope_id must be 0-4294967295.", &scope_id) < 0)
        return -1;
    memset(&out->in6, 0, sizeof(out->in6));
    char plain[INET6_ADDRSTRLEN];
    const char *zone = strchr(host, '%');
    if (zone != NULL) {
        size_t len = (size_t)(zone - host);
        if (len >= sizeof(plain))
            return 0;
        memcpy(plain, host, len);
        plain[len] = '\0';
        unsigned index = if_nametoindex(zone + 1);
        if (index == 0)
            return 0; /* a number, or unknown: getaddrinfo knows */
        scope_id = index;
        host = plain;
    }
    if (inet_pton(AF_INET6, host, &out->in6.sin6_addr) != 1)
        return 0;
    /* As getaddrinfo: others have no zone that has a name. */
    if (zone != NULL && !IN6_IS_ADDR_LINKLOCAL(&out->in6.sin6_addr) &&
        !IN6_IS_ADDR_MC_LINKLOCAL(&out->in6.sin6_addr))
        return 0;
    out->in6.sin6_family = AF_INET6;
    out->in6.sin6_port = htons((uint16_t)port);
    out->in6.sin6_flowinfo = htonl((uint32_t)flowinfo);
    out->in6.sin6_scope_id = (uint32_t)scope_id;
    out->len = sizeof(out->in6);
    return 1;
}
