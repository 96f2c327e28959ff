/* loop.sock_recvfrom(), sock_recvfrom_into() and sock_sendto(). */
#include <errno.h>
#include <sys/socket.h>

#include "loop/loop_object.h"
#include "loop/sock_coro.h"
#include "py/addr.h"

/* ---- receiving ---- */

/* recvfrom(2) without waiting, even if the socket is a blocking one: *n is the
 * number of bytes, or the outcome is not DONE. */
static azs_sock_outcome
sock_coro_recvfrom(SockCoroObject *op, void *buf, size_t size, ssize_t *n,
                   azs_addr *addr)
{
    for (;;) {
        addr->len = sizeof(addr->storage);
        *n = recvfrom(azs_sock_socket(op)->fd, buf, size, MSG_DONTWAIT, &addr->sa,
                      &addr->len);
        if (*n >= 0) {
            azs_stats_received(&op->loop->stats, (size_t)*n);
            return AZS_SOCK_DONE;
        }
        azs_sock_outcome outcome = azs_sock_failed();
        if (outcome != AZS_SOCK_DONE)
            return outcome;
    }
}

/* *result = (first, address); steals `first`, which may be NULL. */
static azs_sock_outcome
result_with_address(PyObject *first, const azs_addr *addr, PyObject **result)
{
    PyObject *address = first == NULL ? NULL : azs_addr_to_python(&addr->sa, addr->len);
    if (address != NULL)
        *result = PyTuple_Pack(2, first, address);
    Py_XDECREF(first);
    Py_XDECREF(address);
    return *result == NULL ? AZS_SOCK_ERROR : AZS_SOCK_DONE;
}

static azs_sock_outcome
attempt_recvfrom(SockCoroObject *op, PyObject **result)
{
    Py_ssize_t size = azs_sock_size_arg(op->args[0]);
    azs_addr addr;
    ssize_t n;
    if (size <= AZS_SCRATCH_SIZE) {
        char *scratch = azs_loop_scratch(op->loop);
        if (scratch == NULL)
            return AZS_SOCK_ERROR;
        azs_sock_outcome outcome =
            sock_coro_recvfrom(op, scratch, (size_t)size, &n, &addr);
        if (outcome != AZS_SOCK_DONE)
            return outcome;
        return result_with_address(PyBytes_FromStringAndSize(scratch, n), &addr,
                                   result);
    }
    PyObject *data = PyBytes_FromStringAndSize(NULL, size);
    if (data == NULL)
        return AZS_SOCK_ERROR;
    azs_sock_outcome outcome =
        sock_coro_recvfrom(op, PyBytes_AS_STRING(data), (size_t)size, &n, &addr);
    if (outcome != AZS_SOCK_DONE) {
        Py_DECREF(data);
        return outcome;
    }
    if (n < size)
        (void)_PyBytes_Resize(&data, n); /* NULL where it fails */
    return result_with_address(data, &addr, result);
}

static const azs_sock_kind recvfrom_kind = {"sock_recvfrom", attempt_recvfrom, EPOLLIN,
                                            true};

PyDoc_STRVAR(sock_recvfrom_doc,
"sock_recvfrom($self, sock, bufsize)\n--\n\n"
"Receive a datagram of up to `bufsize` bytes: returns (bytes, address).\n\n"
"A coroutine; one that is cancelled has received nothing\n"
"(asyncio loop.sock_recvfrom).");

static PyObject *
Loop_sock_recvfrom(LoopObject *self, PyObject *const *args, Py_ssize_t nargs,
                   PyObject *kwnames)
{
    bool plain = nargs == 2 && azs_sock_size_arg(args[1]) >= 0;
    return azs_sock_call(self, &recvfrom_kind, self->st->str_sock_recvfrom, plain, args,
                         nargs, kwnames);
}

static azs_sock_outcome
attempt_recvfrom_into(SockCoroObject *op, PyObject **result)
{
    /* Not held while waiting: it may be resized then, as in asyncio. */
    Py_buffer view;
    bool usable = PyObject_GetBuffer(op->args[0], &view, PyBUF_WRITABLE) == 0;
    Py_ssize_t size = usable ? view.len : 0;
    if (usable && op->args[1] != NULL) {
        Py_ssize_t wanted = azs_sock_size_arg(op->args[1]);
        if (wanted > size) {
            PyBuffer_Release(&view);
            usable = false;
        } else if (wanted > 0) {
            size = wanted; /* 0 means all of it */
        }
    }
    if (!usable) {
        PyErr_Clear();
        PyObject *args[] = {op->sock, op->args[0], op->args[1]};
        return azs_sock_as_socket(
            PyObject_VectorcallMethod(op->coro.st->str_recvfrom_into, args,
                                      op->args[1] == NULL ? 2 : 3, NULL),
            result);
    }
    azs_addr addr;
    ssize_t n;
    azs_sock_outcome outcome =
        sock_coro_recvfrom(op, view.buf, (size_t)size, &n, &addr);
    PyBuffer_Release(&view);
    if (outcome != AZS_SOCK_DONE)
        return outcome;
    return result_with_address(PyLong_FromSsize_t(n), &addr, result);
}

static const azs_sock_kind recvfrom_into_kind = {"sock_recvfrom_into",
                                                 attempt_recvfrom_into, EPOLLIN, true};

/* asyncio takes len(buf) for the size where none is given: true where that is the
 * number of bytes, and not of items. */
static bool
len_is_size(PyObject *buf)
{
    if (PyByteArray_CheckExact(buf))
        return true;
    return PyMemoryView_Check(buf) && PyMemoryView_GET_BUFFER(buf)->itemsize == 1 &&
           PyMemoryView_GET_BUFFER(buf)->ndim == 1;
}

PyDoc_STRVAR(sock_recvfrom_into_doc,
"sock_recvfrom_into($self, sock, buf, nbytes=0)\n--\n\n"
"Receive a datagram of up to `nbytes` bytes (0: as many as there is room for) into\n"
"`buf`, a writable buffer: returns (number of bytes, address).\n\n"
"A coroutine; one that is cancelled has received nothing\n"
"(asyncio loop.sock_recvfrom_into).");

static PyObject *
Loop_sock_recvfrom_into(LoopObject *self, PyObject *const *args, Py_ssize_t nargs,
                        PyObject *kwnames)
{
    bool plain = (nargs == 2 || (nargs == 3 && azs_sock_size_arg(args[2]) >= 0)) &&
                 len_is_size(args[1]);
    return azs_sock_call(self, &recvfrom_into_kind, self->st->str_sock_recvfrom_into,
                         plain, args, nargs, kwnames);
}

/* ---- sending ---- */

static azs_sock_outcome
attempt_sendto(SockCoroObject *op, PyObject **result)
{
    Py_buffer view;
    azs_addr addr;
    /* Not held while waiting, as in asyncio. */
    if (PyObject_GetBuffer(op->args[0], &view, PyBUF_SIMPLE) < 0)
        return AZS_SOCK_ERROR;
    int plain = azs_addr_from_python(azs_sock_socket(op)->family, op->args[1], &addr);
    if (plain <= 0) {
        /* A name, another family, or an error: the socket has the words for it. */
        PyErr_Clear();
        PyBuffer_Release(&view);
        PyObject *args[] = {op->sock, op->args[0], op->args[1]};
        PyObject *sent =
            PyObject_VectorcallMethod(op->coro.st->str_sendto, args, 3, NULL);
        if (sent == NULL && PyErr_ExceptionMatches(PyExc_BlockingIOError)) {
            PyErr_Clear();
            return AZS_SOCK_WAIT;
        }
        if (sent != NULL)
            azs_stats_sent_by(&op->loop->stats, sent);
        return azs_sock_as_socket(sent, result);
    }
    if (PySys_Audit("socket.sendto", "OO", op->sock, op->args[1]) < 0) {
        PyBuffer_Release(&view);
        return AZS_SOCK_ERROR;
    }
    azs_sock_outcome outcome;
    ssize_t n;
    do {
        n = sendto(azs_sock_socket(op)->fd, view.buf, (size_t)view.len,
                   MSG_DONTWAIT | MSG_NOSIGNAL, &addr.sa, addr.len);
        outcome = n >= 0 ? AZS_SOCK_DONE : azs_sock_failed();
    } while (n < 0 && outcome == AZS_SOCK_DONE);
    PyBuffer_Release(&view);
    if (outcome == AZS_SOCK_DONE) {
        azs_stats_sent(&op->loop->stats, (size_t)n);
        *result = PyLong_FromSsize_t(n);
        if (*result == NULL)
            return AZS_SOCK_ERROR;
    }
    return outcome;
}

static const azs_sock_kind sendto_kind = {"sock_sendto", attempt_sendto, EPOLLOUT};

PyDoc_STRVAR(sock_sendto_doc,
"sock_sendto($self, sock, data, address)\n--\n\n"
"Send a datagram, a bytes-like object, to `address`: returns the number of bytes.\n\n"
"A coroutine (asyncio loop.sock_sendto).");

static PyObject *
Loop_sock_sendto(LoopObject *self, PyObject *const *args, Py_ssize_t nargs,
                 PyObject *kwnames)
{
    return azs_sock_call(self, &sendto_kind, self->st->str_sock_sendto, nargs == 3,
                         args, nargs, kwnames);
}

PyMethodDef azs_sock_datagram_methods[] = {
    {"sock_recvfrom", AZS_SOCK_METHOD(Loop_sock_recvfrom), sock_recvfrom_doc},
    {"sock_recvfrom_into", AZS_SOCK_METHOD(Loop_sock_recvfrom_into),
     sock_recvfrom_into_doc},
    {"sock_sendto", AZS_SOCK_METHOD(Loop_sock_sendto), sock_sendto_doc},
    {NULL},
};
