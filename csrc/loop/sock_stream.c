/* loop.sock_recv(), sock_recv_into() and sock_sendall(), and what all such
 * operations share.
 *
 * A call that is out of the ordinary (another class of socket, keywords, an odd
 * argument) goes to asyncio's own coroutine, which knows the right words for it.
 */
#include "loop/sock_coro.h"

#include <errno.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "loop/loop_object.h"
#include "loop/wait_ready.h"
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

PyObject *
azs_sock_call(LoopObject *loop, const azs_sock_kind *kind, PyObject *name, bool plain,
              PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    if (azs_likely(plain && kwnames == NULL)) {
        int can = azs_sock_can_use(loop->st, args[0]);
        if (can > 0 && kind->gives_address) {
            int family = ((azs_socket *)args[0])->family;
            can = family == AF_INET || family == AF_INET6 || family == AF_UNIX;
        }
        if (azs_likely(can > 0))
            return azs_sock_new(loop, kind, args[0], args + 1, nargs - 1);
        if (can < 0)
            return NULL;
    }
    return call_inherited(loop, name, args, nargs, kwnames);
}

Py_ssize_t
azs_sock_size_arg(PyObject *arg)
{
    if (!PyLong_CheckExact(arg))
        return -1;
    Py_ssize_t size = PyLong_AsSsize_t(arg);
    if (size == -1 && PyErr_Occurred())
        PyErr_Clear(); /* raised when it is awaited */
    return size < 0 ? -1 : size;
}

azs_sock_outcome
azs_sock_failed(void)
{
    if (errno == EAGAIN || errno == EWOULDBLOCK)
        return AZS_SOCK_WAIT;
    if (errno == EINTR && PyErr_CheckSignals() == 0) /* PEP 475 */
        return AZS_SOCK_DONE;
    if (!PyErr_Occurred())
        PyErr_SetFromErrno(PyExc_OSError);
    return AZS_SOCK_ERROR;
}

azs_sock_outcome
azs_sock_as_socket(PyObject *res, PyObject **result)
{
    *result = res;
    return res == NULL ? AZS_SOCK_ERROR : AZS_SOCK_DONE;
}

/* ---- receiving ---- */

/* recv(2) without waiting, even if the socket is a blocking one: *n is the number
 * of bytes, or the outcome is not DONE. */
static azs_sock_outcome
sock_coro_recv(SockCoroObject *op, void *buf, size_t size, ssize_t *n)
{
    for (;;) {
        *n = recv(azs_sock_socket(op)->fd, buf, size, MSG_DONTWAIT);
        if (azs_likely(*n >= 0)) {
            if (azs_likely(*n > 0))
                azs_stats_received(&op->loop->stats, (size_t)*n);
            return AZS_SOCK_DONE;
        }
        azs_sock_outcome outcome = azs_sock_failed();
        if (outcome != AZS_SOCK_DONE)
            return outcome;
    }
}

/* Receives into a new bytes object: *data, of `size` bytes at most. */
static azs_sock_outcome
sock_coro_recv_bytes(SockCoroObject *op, Py_ssize_t size, PyObject **data)
{
    ssize_t n;
    azs_sock_outcome outcome;
    if (size <= AZS_SCRATCH_SIZE) {
        /* A copy costs less than to allocate for the most that may come and to
         * give back what did not. */
        char *scratch = azs_loop_scratch(op->loop);
        if (scratch == NULL)
            return AZS_SOCK_ERROR;
        outcome = sock_coro_recv(op, scratch, (size_t)size, &n);
        if (outcome != AZS_SOCK_DONE)
            return outcome;
        *data = PyBytes_FromStringAndSize(scratch, n);
    } else {
        *data = PyBytes_FromStringAndSize(NULL, size);
        if (*data == NULL)
            return AZS_SOCK_ERROR;
        outcome = sock_coro_recv(op, PyBytes_AS_STRING(*data), (size_t)size, &n);
        if (outcome != AZS_SOCK_DONE) {
            Py_CLEAR(*data);
            return outcome;
        }
        if (n < size)
            (void)_PyBytes_Resize(data, n); /* NULL where it fails */
    }
    return *data == NULL ? AZS_SOCK_ERROR : AZS_SOCK_DONE;
}

static azs_sock_outcome
attempt_recv(SockCoroObject *op, PyObject **result)
{
    return sock_coro_recv_bytes(op, azs_sock_size_arg(op->args[0]), result);
}

static const azs_sock_kind recv_kind = {"sock_recv", attempt_recv, EPOLLIN};

PyDoc_STRVAR(sock_recv_doc,
"sock_recv($self, sock, n)\n--\n\n"
"Receive up to `n` bytes from a non-blocking socket; b'' at end of file.\n\n"
"A coroutine; one that is cancelled has received nothing\n"
"(asyncio loop.sock_recv).");

static PyObject *
Loop_sock_recv(LoopObject *self, PyObject *const *args, Py_ssize_t nargs,
               PyObject *kwnames)
{
    bool plain = nargs == 2 && azs_sock_size_arg(args[1]) >= 0;
    return azs_sock_call(self, &recv_kind, self->st->str_sock_recv, plain, args, nargs,
                         kwnames);
}

static azs_sock_outcome
attempt_recv_into(SockCoroObject *op, PyObject **result)
{
    /* Not held while waiting: it may be resized then, as in asyncio. */
    Py_buffer view;
    if (PyObject_GetBuffer(op->args[0], &view, PyBUF_WRITABLE) < 0) {
        PyErr_Clear();
        PyObject *args[] = {op->sock, op->args[0]};
        return azs_sock_as_socket(
            PyObject_VectorcallMethod(op->coro.st->str_recv_into, args, 2, NULL),
            result);
    }
    ssize_t n;
    azs_sock_outcome outcome = sock_coro_recv(op, view.buf, (size_t)view.len, &n);
    PyBuffer_Release(&view);
    if (outcome == AZS_SOCK_DONE) {
        *result = PyLong_FromSsize_t(n);
        if (*result == NULL)
            return AZS_SOCK_ERROR;
    }
    return outcome;
}

static const azs_sock_kind recv_into_kind = {"sock_recv_into", attempt_recv_into,
                                             EPOLLIN};

PyDoc_STRVAR(sock_recv_into_doc,
"sock_recv_into($self, sock, buf)\n--\n\n"
"Receive from a non-blocking socket into `buf`, a writable buffer; returns the\n"
"number of bytes, 0 at end of file.\n\n"
"A coroutine; one that is cancelled has received nothing\n"
"(asyncio loop.sock_recv_into).");

static PyObject *
Loop_sock_recv_into(LoopObject *self, PyObject *const *args, Py_ssize_t nargs,
                    PyObject *kwnames)
{
    return azs_sock_call(self, &recv_into_kind, self->st->str_sock_recv_into,
                         nargs == 2, args, nargs, kwnames);
}

/* ---- sending ---- */

static azs_sock_outcome
attempt_sendall(SockCoroObject *op, PyObject **result)
{
    /* Held until the end: a bytearray cannot be resized meanwhile. */
    if (op->view.obj == NULL &&
        PyObject_GetBuffer(op->args[0], &op->view, PyBUF_SIMPLE) < 0)
        return AZS_SOCK_ERROR;
    /* One system call a turn, as asyncio: a reader that is as fast as we are must
     * not keep the loop from everything else. Where less was taken, the kernel has
     * seen that there is no room, and tells when there is. */
    ssize_t n;
    do {
        n = send(azs_sock_socket(op)->fd, (const char *)op->view.buf + op->count,
                 (size_t)(op->view.len - op->count), MSG_DONTWAIT | MSG_NOSIGNAL);
        if (azs_unlikely(n < 0)) {
            azs_sock_outcome outcome = azs_sock_failed();
            if (outcome != AZS_SOCK_DONE)
                return outcome;
        }
    } while (n < 0);
    azs_stats_sent(&op->loop->stats, (size_t)n);
    op->count += n;
    if (op->count < op->view.len)
        return AZS_SOCK_WAIT;
    *result = Py_NewRef(Py_None);
    return AZS_SOCK_DONE;
}

static const azs_sock_kind sendall_kind = {"sock_sendall", attempt_sendall, EPOLLOUT};

PyDoc_STRVAR(sock_sendall_doc,
"sock_sendall($self, sock, data)\n--\n\n"
"Send all of `data`, a bytes-like object, to a non-blocking socket.\n\n"
"A coroutine. Where it raises or is cancelled, there is no way to tell how much\n"
"was sent (asyncio loop.sock_sendall).");

static PyObject *
Loop_sock_sendall(LoopObject *self, PyObject *const *args, Py_ssize_t nargs,
                  PyObject *kwnames)
{
    return azs_sock_call(self, &sendall_kind, self->st->str_sock_sendall, nargs == 2,
                         args, nargs, kwnames);
}

PyMethodDef azs_sock_stream_methods[] = {
    {"sock_recv", AZS_SOCK_METHOD(Loop_sock_recv), sock_recv_doc},
    {"sock_recv_into", AZS_SOCK_METHOD(Loop_sock_recv_into), sock_recv_into_doc},
    {"sock_sendall", AZS_SOCK_METHOD(Loop_sock_sendall), sock_sendall_doc},
    {NULL},
};
