/* loop.sock_recv() and its like: asyncio's low-level socket operations.
 *
 * A call that is out of the ordinary (another class of socket, keywords, an odd
 * argument) goes to asyncio's own coroutine, which knows the right words for it.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>

#include "loop/fdwait.h"
#include "loop/loop_object.h"
#include "loop/sockop.h"
#include "py/errors.h"

/* asyncio's own coroutine for the same call; new reference. */
static PyObject *
call_inherited(LoopObject *loop, PyObject *name, PyObject *const *args,
               Py_ssize_t nargs, PyObject *kwnames)
{
    PyObject *method = PyObject_GetAttr(loop->st->base_selector_event_loop, name);
    if (method == NULL)
        return NULL;
    PyObject *res = NULL;
    Py_ssize_t n = nargs + (kwnames == NULL ? 0 : PyTuple_GET_SIZE(kwnames));
    PyObject **stack = PyMem_New(PyObject *, 1 + n);
    if (stack == NULL) {
        PyErr_NoMemory();
        goto done;
    }
    stack[0] = (PyObject *)loop;
    for (Py_ssize_t i = 0; i < n; i++)
        stack[1 + i] = args[i];
    res = PyObject_Vectorcall(method, stack, 1 + (size_t)nargs, kwnames);
    PyMem_Free(stack);
done:
    Py_DECREF(method);
    return res;
}

/* After a system call failed: to wait, to repeat it, or an error. */
typedef enum { FAILED_WAIT, FAILED_REPEAT, FAILED_ERROR } failure;

static failure
system_call_failed(void)
{
    if (errno == EAGAIN || errno == EWOULDBLOCK)
        return FAILED_WAIT;
    if (errno == EINTR && PyErr_CheckSignals() == 0) /* PEP 475 */
        return FAILED_REPEAT;
    if (!PyErr_Occurred())
        PyErr_SetFromErrno(PyExc_OSError);
    return FAILED_ERROR;
}

/* ---- receiving ---- */

/* recv(2) without waiting, even if the socket is a blocking one: *n is the number
 * of bytes, or the outcome is not DONE. Knows afterwards where nothing is left. */
static azs_sockop_outcome
sockop_recv(SockOpObject *op, void *buf, size_t size, ssize_t *n)
{
    for (;;) {
        const azs_socket *sock = azs_sockop_socket(op);
        bool cut = false;
        if (sock->family == AF_UNIX) {
            /* A read ends at a message that carries descriptors, whatever is
             * behind it; they are dropped then, and it says so (unix(7)). */
            struct iovec iov = {.iov_base = buf, .iov_len = size};
            struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
            *n = recvmsg(sock->fd, &msg, MSG_DONTWAIT);
            cut = msg.msg_flags & MSG_CTRUNC;
        } else {
            *n = recv(sock->fd, buf, size, MSG_DONTWAIT);
        }
        if (azs_likely(*n >= 0)) {
            /* Not at the end of the stream: that does not go away. */
            if (*n > 0 && (size_t)*n < size && !cut && sock->type == SOCK_STREAM &&
                (sock->proto == 0 || sock->proto == IPPROTO_TCP))
                azs_wait_set_drained(op->loop, sock->fd, op->sock);
            return AZS_SOCKOP_DONE;
        }
        switch (system_call_failed()) {
        case FAILED_WAIT:
            return AZS_SOCKOP_WAIT;
        case FAILED_ERROR:
            return AZS_SOCKOP_ERROR;
        case FAILED_REPEAT:
            break;
        }
    }
}

static inline bool
sockop_nothing_to_read(const SockOpObject *op)
{
    return azs_wait_is_drained(op->loop, azs_sockop_socket(op)->fd, op->sock);
}

/* Receives into a new bytes object: *data, of `size` bytes at most. */
static azs_sockop_outcome
sockop_recv_bytes(SockOpObject *op, Py_ssize_t size, PyObject **data)
{
    ssize_t n;
    azs_sockop_outcome outcome;
    if (size <= AZS_SCRATCH_SIZE) {
        /* A copy costs less than to allocate for the most that may come and to
         * give back what did not. */
        char *scratch = azs_loop_scratch(op->loop);
        if (scratch == NULL)
            return AZS_SOCKOP_ERROR;
        outcome = sockop_recv(op, scratch, (size_t)size, &n);
        if (outcome != AZS_SOCKOP_DONE)
            return outcome;
        *data = PyBytes_FromStringAndSize(scratch, n);
    } else {
        *data = PyBytes_FromStringAndSize(NULL, size);
        if (*data == NULL)
            return AZS_SOCKOP_ERROR;
        outcome = sockop_recv(op, PyBytes_AS_STRING(*data), (size_t)size, &n);
        if (outcome != AZS_SOCKOP_DONE) {
            Py_CLEAR(*data);
            return outcome;
        }
        if (n < size)
            (void)_PyBytes_Resize(data, n); /* NULL where it fails */
    }
    return *data == NULL ? AZS_SOCKOP_ERROR : AZS_SOCKOP_DONE;
}

static azs_sockop_outcome
attempt_recv(SockOpObject *op, PyObject **result)
{
    if (sockop_nothing_to_read(op))
        return AZS_SOCKOP_WAIT;
    return sockop_recv_bytes(op, op->count, result);
}

static const azs_sockop_kind recv_kind = {"sock_recv", attempt_recv, EPOLLIN};

PyDoc_STRVAR(sock_recv_doc,
"sock_recv(sock, nbytes)\n--\n\n"
"Receive up to `nbytes` bytes from a non-blocking socket; b'' at end of file.\n\n"
"A coroutine; one that is cancelled has received nothing\n"
"(asyncio loop.sock_recv).");

static PyObject *
Loop_sock_recv(LoopObject *self, PyObject *const *args, Py_ssize_t nargs,
               PyObject *kwnames)
{
    int can = 0;
    Py_ssize_t size = -1;
    if (kwnames == NULL && nargs == 2 && PyLong_CheckExact(args[1])) {
        can = azs_sockop_can_use(self->st, args[0]);
        size = PyLong_AsSsize_t(args[1]);
        if (size == -1 && PyErr_Occurred())
            PyErr_Clear(); /* raised when it is awaited */
    }
    if (can < 0)
        return NULL;
    if (!can || size < 0)
        return call_inherited(self, self->st->str_sock_recv, args, nargs, kwnames);
    PyObject *op = azs_sockop_new(self, &recv_kind, args[0], NULL, 0);
    if (op != NULL)
        ((SockOpObject *)op)->count = size;
    return op;
}

/* What the socket's own method makes of the arguments that we could not use: an
 * exception, in all likelihood. */
static azs_sockop_outcome
as_the_socket_does(PyObject *result, PyObject **out)
{
    *out = result;
    return result == NULL ? AZS_SOCKOP_ERROR : AZS_SOCKOP_DONE;
}

static azs_sockop_outcome
attempt_recv_into(SockOpObject *op, PyObject **result)
{
    if (sockop_nothing_to_read(op))
        return AZS_SOCKOP_WAIT;
    /* Not held while waiting: it may be resized then, as in asyncio. */
    Py_buffer view;
    if (PyObject_GetBuffer(op->args[0], &view, PyBUF_WRITABLE) < 0) {
        PyErr_Clear();
        PyObject *args[] = {op->sock, op->args[0]};
        return as_the_socket_does(
            PyObject_VectorcallMethod(op->st->str_recv_into, args, 2, NULL), result);
    }
    ssize_t n;
    azs_sockop_outcome outcome = sockop_recv(op, view.buf, (size_t)view.len, &n);
    PyBuffer_Release(&view);
    if (outcome == AZS_SOCKOP_DONE) {
        *result = PyLong_FromSsize_t(n);
        if (*result == NULL)
            return AZS_SOCKOP_ERROR;
    }
    return outcome;
}

static const azs_sockop_kind recv_into_kind = {"sock_recv_into", attempt_recv_into,
                                               EPOLLIN};

PyDoc_STRVAR(sock_recv_into_doc,
"sock_recv_into(sock, buf)\n--\n\n"
"Receive from a non-blocking socket into `buf`, a writable buffer; returns the\n"
"number of bytes, 0 at end of file.\n\n"
"A coroutine; one that is cancelled has received nothing\n"
"(asyncio loop.sock_recv_into).");

static PyObject *
Loop_sock_recv_into(LoopObject *self, PyObject *const *args, Py_ssize_t nargs,
                    PyObject *kwnames)
{
    int can = 0;
    if (kwnames == NULL && nargs == 2)
        can = azs_sockop_can_use(self->st, args[0]);
    if (can < 0)
        return NULL;
    if (!can)
        return call_inherited(self, self->st->str_sock_recv_into, args, nargs, kwnames);
    return azs_sockop_new(self, &recv_into_kind, args[0], args + 1, 1);
}

/* ---- sending ---- */

static azs_sockop_outcome
attempt_sendall(SockOpObject *op, PyObject **result)
{
    /* Held until the end: a bytearray cannot be resized meanwhile. */
    if (op->view.obj == NULL &&
        PyObject_GetBuffer(op->args[0], &op->view, PyBUF_SIMPLE) < 0)
        return AZS_SOCKOP_ERROR;
    do {
        const azs_socket *sock = azs_sockop_socket(op);
        ssize_t n =
            send(sock->fd, (const char *)op->view.buf + op->count,
                 (size_t)(op->view.len - op->count), MSG_DONTWAIT | MSG_NOSIGNAL);
        if (azs_likely(n >= 0)) {
            op->count += n;
            continue;
        }
        switch (system_call_failed()) {
        case FAILED_WAIT:
            return AZS_SOCKOP_WAIT;
        case FAILED_ERROR:
            return AZS_SOCKOP_ERROR;
        case FAILED_REPEAT:
            break;
        }
    } while (op->count < op->view.len);
    *result = Py_NewRef(Py_None);
    return AZS_SOCKOP_DONE;
}

static const azs_sockop_kind sendall_kind = {"sock_sendall", attempt_sendall, EPOLLOUT};

PyDoc_STRVAR(sock_sendall_doc,
"sock_sendall(sock, data)\n--\n\n"
"Send all of `data`, a bytes-like object, to a non-blocking socket.\n\n"
"A coroutine. Where it raises or is cancelled, there is no way to tell how much\n"
"was sent (asyncio loop.sock_sendall).");

static PyObject *
Loop_sock_sendall(LoopObject *self, PyObject *const *args, Py_ssize_t nargs,
                  PyObject *kwnames)
{
    int can = 0;
    if (kwnames == NULL && nargs == 2)
        can = azs_sockop_can_use(self->st, args[0]);
    if (can < 0)
        return NULL;
    if (!can)
        return call_inherited(self, self->st->str_sock_sendall, args, nargs, kwnames);
    return azs_sockop_new(self, &sendall_kind, args[0], args + 1, 1);
}

/* ---- connecting ---- */

enum { CONNECT_BEGIN, CONNECT_RESOLVING, CONNECT_START, CONNECT_WAITING };

/* Sets args[0] to the address that asyncio would have resolved it to, if that is
 * (numeric host, port) for an IPv4 socket. True where it is. */
static bool
connect_is_resolved(const SockOpObject *op)
{
    const azs_socket *sock = azs_sockop_socket(op);
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

static azs_sockop_outcome
connect_resolve(SockOpObject *op, PyObject **result)
{
    azs_state *st = op->st;
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
    return *result == NULL ? AZS_SOCKOP_ERROR : AZS_SOCKOP_AWAIT;
}

/* The address out of what _ensure_resolved returned: as asyncio,
 * `_, _, _, _, address = resolved[0]`. 0 or -1. */
static int
connect_take_resolved(SockOpObject *op)
{
    PyObject *first = PySequence_GetItem(op->received, 0);
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
    Py_CLEAR(op->received);
    return 0;
}

static azs_sockop_outcome
connect_start(SockOpObject *op, PyObject **result)
{
    PyObject *args[] = {op->sock, op->args[0]};
    PyObject *code = PyObject_VectorcallMethod(op->st->str_connect_ex, args, 2, NULL);
    if (code == NULL) {
        if (!PyErr_ExceptionMatches(PyExc_Exception))
            return AZS_SOCKOP_ERROR;
        /* An address that it does not understand: connect()'s words for that. */
        PyErr_Clear();
        return as_the_socket_does(
            PyObject_VectorcallMethod(op->st->str_connect, args, 2, NULL), result);
    }
    int err = (int)PyLong_AsLong(code);
    Py_DECREF(code);
    if (err == 0) {
        *result = Py_NewRef(Py_None);
        return AZS_SOCKOP_DONE;
    }
    /* EAGAIN is none of these: a Unix socket's backlog is full, and nothing goes on
     * in the background. asyncio waits and then reports success. */
    if (err == EINPROGRESS || err == EALREADY || err == EINTR) {
        op->step = CONNECT_WAITING;
        return AZS_SOCKOP_WAIT;
    }
    azs_set_errno(-err);
    return AZS_SOCKOP_ERROR;
}

static azs_sockop_outcome
connect_finish(SockOpObject *op, PyObject **result)
{
    int fd = azs_sockop_socket(op)->fd;
    int err = 0;
    socklen_t len = sizeof(err);
    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &len) < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        return AZS_SOCKOP_ERROR;
    }
    if (err == 0) {
        /* Woken for nothing, by a file that had this number before and is open
         * elsewhere? */
        struct pollfd state = {.fd = fd, .events = POLLOUT};
        if (poll(&state, 1, 0) == 0)
            return AZS_SOCKOP_WAIT;
        *result = Py_NewRef(Py_None);
        return AZS_SOCKOP_DONE;
    }
    PyObject *text = PyUnicode_FromFormat("Connect call failed %S", op->args[0]);
    PyObject *exc =
        text == NULL ? NULL : PyObject_CallFunction(PyExc_OSError, "iO", err, text);
    Py_XDECREF(text);
    if (exc != NULL) {
        PyErr_SetObject((PyObject *)Py_TYPE(exc), exc);
        Py_DECREF(exc);
    }
    return AZS_SOCKOP_ERROR;
}

static azs_sockop_outcome
attempt_connect(SockOpObject *op, PyObject **result)
{
    if (op->step == CONNECT_BEGIN) {
        int family = azs_sockop_socket(op)->family;
        if ((family == AF_INET || family == AF_INET6) && !connect_is_resolved(op))
            return PyErr_Occurred() ? AZS_SOCKOP_ERROR : connect_resolve(op, result);
        op->step = CONNECT_START;
    }
    if (op->step == CONNECT_RESOLVING) {
        if (connect_take_resolved(op) < 0)
            return AZS_SOCKOP_ERROR;
        op->step = CONNECT_START;
    }
    if (op->step == CONNECT_START)
        return connect_start(op, result);
    return connect_finish(op, result);
}

static const azs_sockop_kind connect_kind = {"sock_connect", attempt_connect, EPOLLOUT};

PyDoc_STRVAR(sock_connect_doc,
"sock_connect(sock, address)\n--\n\n"
"Connect a non-blocking socket to `address`, of which the host is resolved first.\n\n"
"A coroutine (asyncio loop.sock_connect).");

static PyObject *
Loop_sock_connect(LoopObject *self, PyObject *const *args, Py_ssize_t nargs,
                  PyObject *kwnames)
{
    int can = 0;
    if (kwnames == NULL && nargs == 2)
        can = azs_sockop_can_use(self->st, args[0]);
    if (can < 0)
        return NULL;
    if (!can)
        return call_inherited(self, self->st->str_sock_connect, args, nargs, kwnames);
    return azs_sockop_new(self, &connect_kind, args[0], args + 1, 1);
}

#define FAST(f) (PyCFunction)(void (*)(void))(f), METH_FASTCALL | METH_KEYWORDS

PyMethodDef azs_sockop_methods[] = {
    {"sock_recv", FAST(Loop_sock_recv), sock_recv_doc},
    {"sock_recv_into", FAST(Loop_sock_recv_into), sock_recv_into_doc},
    {"sock_sendall", FAST(Loop_sock_sendall), sock_sendall_doc},
    {"sock_connect", FAST(Loop_sock_connect), sock_connect_doc},
    {NULL},
};
