/* loop.sock_connect() and sock_accept(). */
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/sys.h"
#include "loop/loop_object.h"
#include "loop/sock_coro.h"
#include "py/addr.h"
#include "py/errors.h"

/* ---- connecting ---- */

enum { CONNECT_BEGIN, CONNECT_RESOLVING, CONNECT_START, CONNECT_WAITING };

/* Sets args[0] to the address that asyncio would have resolved it to, if that is
 * (numeric host, port) for an IPv4 socket. True where it is. */
static bool
connect_is_resolved(const SockCoroObject *op)
{
    const azs_socket *sock = azs_sock_socket(op);
    PyObject *address = op->args[0];
    if (sock->family != AF_INET || sock->type != SOCK_STREAM ||
        (sock->proto != 0 && sock->proto != IPPROTO_TCP) ||
        !PyTuple_CheckExact(address) || PyTuple_GET_SIZE(address) != 2 ||
        !PyUnicode_CheckExact(PyTuple_GET_ITEM(address, 0)) ||
        !PyUnicode_IS_ASCII(PyTuple_GET_ITEM(address, 0)) ||
        !PyLong_CheckExact(PyTuple_GET_ITEM(address, 1)))
        return false;
    struct in_addr ignored;
    Py_ssize_t len;
    const char *host = PyUnicode_AsUTF8AndSize(PyTuple_GET_ITEM(address, 0), &len);
    return host != NULL && strlen(host) == (size_t)len &&
           inet_pton(AF_INET, host, &ignored) == 1;
}

static azs_sock_outcome
connect_resolve(SockCoroObject *op, PyObject **result)
{
    azs_state *st = op->coro.st;
    PyObject *args[6] = {(PyObject *)op->loop, op->args[0]};
    static const char *const names[] = {"family", "type", "proto"};
    for (int i = 0; i < 3; i++)
        args[2 + i] = PyObject_GetAttrString(op->sock, names[i]);
    args[5] = (PyObject *)op->loop;
    if (args[2] != NULL && args[3] != NULL && args[4] != NULL)
        *result = PyObject_VectorcallMethod(st->str__ensure_resolved, args, 2,
                                            st->kwnames_resolve);
    for (int i = 0; i < 3; i++)
        Py_XDECREF(args[2 + i]);
    op->step = CONNECT_RESOLVING;
    return *result == NULL ? AZS_SOCK_ERROR : AZS_SOCK_AWAIT;
}

/* The address out of what _ensure_resolved returned: as asyncio,
 * `_, _, _, _, address = resolved[0]`. 0 or -1. */
static int
connect_take_resolved(SockCoroObject *op)
{
    PyObject *first = PySequence_GetItem(op->coro.received, 0);
    PyObject *info = first == NULL ? NULL : PySequence_Tuple(first);
    Py_XDECREF(first);
    if (info == NULL)
        return -1;
    if (PyTuple_GET_SIZE(info) != 5) {
        PyErr_Format(PyExc_ValueError,
                     "address information of 5 items expected, got %zd",
                     PyTuple_GET_SIZE(info));
        Py_DECREF(info);
        return -1;
    }
    Py_XSETREF(op->args[0], Py_NewRef(PyTuple_GET_ITEM(info, 4)));
    Py_DECREF(info);
    Py_CLEAR(op->coro.received);
    return 0;
}

static azs_sock_outcome
connect_start(SockCoroObject *op, PyObject **result)
{
    PyObject *args[] = {op->sock, op->args[0]};
    PyObject *code =
        PyObject_VectorcallMethod(op->coro.st->str_connect_ex, args, 2, NULL);
    if (code == NULL) {
        if (!PyErr_ExceptionMatches(PyExc_Exception))
            return AZS_SOCK_ERROR;
        /* An address that it does not understand: connect()'s words for that. */
        PyErr_Clear();
        return azs_sock_as_socket(
            PyObject_VectorcallMethod(op->coro.st->str_connect, args, 2, NULL), result);
    }
    int err = (int)PyLong_AsLong(code);
    Py_DECREF(code);
    if (err == 0) {
        *result = Py_NewRef(Py_None);
        return AZS_SOCK_DONE;
    }
    /* EAGAIN is none of these: a Unix socket's backlog is full, and nothing goes on
     * in the background. asyncio waits and then reports success. */
    if (err == EINPROGRESS || err == EALREADY || err == EINTR) {
        op->step = CONNECT_WAITING;
        return AZS_SOCK_WAIT;
    }
    azs_set_errno(-err);
    return AZS_SOCK_ERROR;
}

int
azs_sock_connect_failed(int err, PyObject *address)
{
    PyObject *text = PyUnicode_FromFormat("Connect call failed %S", address);
    PyObject *exc =
        text == NULL ? NULL : PyObject_CallFunction(PyExc_OSError, "iO", err, text);
    Py_XDECREF(text);
    if (exc != NULL) {
        PyErr_SetObject((PyObject *)Py_TYPE(exc), exc);
        Py_DECREF(exc);
    }
    return -1;
}

static azs_sock_outcome
connect_finish(SockCoroObject *op, PyObject **result)
{
    int fd = azs_sock_socket(op)->fd;
    int err = 0;
    socklen_t len = sizeof(err);
    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &len) < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        return AZS_SOCK_ERROR;
    }
    if (err == 0) {
        /* Woken for nothing, by a file that had this number before and is open
         * elsewhere? */
        struct pollfd state = {.fd = fd, .events = POLLOUT};
        if (poll(&state, 1, 0) == 0)
            return AZS_SOCK_WAIT;
        *result = Py_NewRef(Py_None);
        return AZS_SOCK_DONE;
    }
    azs_sock_connect_failed(err, op->args[0]);
    return AZS_SOCK_ERROR;
}

static azs_sock_outcome
attempt_connect(SockCoroObject *op, PyObject **result)
{
    if (op->step == CONNECT_BEGIN) {
        int family = azs_sock_socket(op)->family;
        if ((family == AF_INET || family == AF_INET6) && !connect_is_resolved(op))
            return PyErr_Occurred() ? AZS_SOCK_ERROR : connect_resolve(op, result);
        op->step = CONNECT_START;
    }
    if (op->step == CONNECT_RESOLVING) {
        if (connect_take_resolved(op) < 0)
            return AZS_SOCK_ERROR;
        op->step = CONNECT_START;
    }
    if (op->step == CONNECT_START)
        return connect_start(op, result);
    return connect_finish(op, result);
}

static const azs_sock_kind connect_kind = {"sock_connect", attempt_connect, EPOLLOUT};

PyDoc_STRVAR(sock_connect_doc,
"sock_connect($self, sock, address)\n--\n\n"
"Connect a non-blocking socket to `address`, of which the host is resolved first.\n\n"
"A coroutine (asyncio loop.sock_connect).");

static PyObject *
Loop_sock_connect(LoopObject *self, PyObject *const *args, Py_ssize_t nargs,
                  PyObject *kwnames)
{
    return azs_sock_call(self, &connect_kind, self->st->str_sock_connect, nargs == 2,
                         args, nargs, kwnames);
}

/* ---- accepting ---- */

/* accept(2) has no flag for it: where the listening socket is a blocking one, looks
 * first. 1 where accept(2) returns at once, 0 where there is nothing, -1 error. */
static int
accept_would_not_block(SockCoroObject *op)
{
    PyObject *timeout =
        PyObject_CallMethodNoArgs(op->sock, op->coro.st->str_gettimeout);
    if (timeout == NULL)
        return -1;
    bool blocking = !PyFloat_CheckExact(timeout) || PyFloat_AS_DOUBLE(timeout) != 0;
    Py_DECREF(timeout);
    int fd = azs_sock_socket(op)->fd;
    if (azs_likely(!blocking || fd < 0))
        return 1;
    struct pollfd state = {.fd = fd, .events = POLLIN};
    return poll(&state, 1, 0) != 0;
}

/* A socket.socket of an accepted connection, non-blocking. Steals the fd. */
static PyObject *
accept_make_socket(SockCoroObject *op, int fd)
{
    const azs_socket *listener = azs_sock_socket(op);
    PyTypeObject *type = (PyTypeObject *)op->coro.st->socket_type;
    PyObject *empty = PyTuple_New(0);
    PyObject *conn = empty == NULL ? NULL : type->tp_new(type, empty, NULL);
    Py_XDECREF(empty);
    if (conn == NULL || !Py_IS_TYPE(conn, type)) {
        if (conn != NULL)
            PyErr_SetString(PyExc_TypeError, "socket.socket() made something else");
        Py_XDECREF(conn);
        close(fd);
        return NULL;
    }
    /* SOCK_NONBLOCK says that it is already: the socket module asks no more. */
    PyObject *res =
        PyObject_CallMethod(conn, "__init__", "iiii", listener->family,
                            listener->type | SOCK_NONBLOCK, listener->proto, fd);
    if (res == NULL) {
        /* It is Python code and may be interrupted with the fd taken over. */
        if (((const azs_socket *)conn)->fd != fd)
            close(fd);
        Py_CLEAR(conn);
    }
    Py_XDECREF(res);
    return conn;
}

static azs_sock_outcome
attempt_accept(SockCoroObject *op, PyObject **result)
{
    int can = accept_would_not_block(op);
    if (can <= 0)
        return can < 0 ? AZS_SOCK_ERROR : AZS_SOCK_WAIT;
    azs_addr addr;
    int fd = azs_sys_accept(azs_sock_socket(op)->fd, &addr.sa, sizeof(addr.storage),
                            &addr.len);
    if (fd < 0) {
        errno = -fd;
        return azs_sock_failed();
    }
    /* The socket comes last: what fails before it leaves none to be closed. */
    PyObject *pair = PyTuple_New(2);
    PyObject *address = pair == NULL ? NULL : azs_addr_to_python(&addr.sa, addr.len);
    if (address == NULL) {
        close(fd);
        Py_XDECREF(pair);
        return AZS_SOCK_ERROR;
    }
    PyTuple_SET_ITEM(pair, 1, address);
    PyObject *conn = accept_make_socket(op, fd);
    if (conn == NULL) {
        Py_DECREF(pair);
        return AZS_SOCK_ERROR;
    }
    PyTuple_SET_ITEM(pair, 0, conn);
    *result = pair;
    return AZS_SOCK_DONE;
}

static const azs_sock_kind accept_kind = {"sock_accept", attempt_accept, EPOLLIN, true};

PyDoc_STRVAR(sock_accept_doc,
"sock_accept($self, sock)\n--\n\n"
"Accept a connection: returns (socket, address), the socket non-blocking.\n\n"
"A coroutine. One that is cancelled has accepted nothing: no connection is lost\n"
"(asyncio loop.sock_accept).");

static PyObject *
Loop_sock_accept(LoopObject *self, PyObject *const *args, Py_ssize_t nargs,
                 PyObject *kwnames)
{
    return azs_sock_call(self, &accept_kind, self->st->str_sock_accept, nargs == 1,
                         args, nargs, kwnames);
}

PyMethodDef azs_sock_connect_methods[] = {
    {"sock_connect", AZS_SOCK_METHOD(Loop_sock_connect), sock_connect_doc},
    {"sock_accept", AZS_SOCK_METHOD(Loop_sock_accept), sock_accept_doc},
    {NULL},
};
