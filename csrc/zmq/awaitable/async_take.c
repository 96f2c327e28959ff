/* Getting a message: from the stash, from libzmq, or by a method of pyzmq's. */
#include "zmq/awaitable/operation.h"

#include <errno.h>
#include <string.h>

#include "py/errors.h"

/* Frames of a message that is received in parts have numbers in between. */
#define NUMBER_STEP ((uint64_t)1 << 24)

enum { ZMQ_RCVMORE = 13 };

/* 0 with new bytes in *frame, or libzmq's errno, or -1 with an exception: then the
 * frame is lost. Runs no Python code. */
static int
receive_frame(AsyncSocketObject *self, PyObject **frame, bool *more)
{
    const azs_libzmq *zmq = azs_async_libzmq(self);
    zmq_msg_t msg;
    zmq->msg_init(&msg);
    int err = 0;
    while (azs_unlikely(zmq->msg_recv(&msg, self->handle, ZMQ_DONTWAIT) < 0)) {
        err = errno;
        if (err != EINTR || PyErr_CheckSignals() < 0)
            break;
        err = 0;
        if (self->handle == NULL) { /* a signal's handler closed it */
            err = ENOTSOCK;
            break;
        }
    }
    if (azs_likely(err == 0)) {
        *frame = PyBytes_FromStringAndSize(zmq->msg_data(&msg),
                                           (Py_ssize_t)zmq->msg_size(&msg));
        *more = zmq->msg_more(&msg);
        if (azs_unlikely(*frame == NULL))
            err = -1;
    } else if (err == EINTR) {
        err = -1;
    }
    zmq->msg_close(&msg);
    return err;
}

/* The frame as bytes, or as what pyzmq's methods return. Steals it. */
static PyObject *
convert_frame_steal(AsyncSocketObject *self, PyObject *frame, bool as_bytes)
{
    if (as_bytes == (bool)PyBytes_Check(frame))
        return frame;
    PyObject *converted = as_bytes
                              ? PyObject_GetAttrString(frame, "bytes")
                              : PyObject_CallOneArg(self->st->zmq_async_frame, frame);
    Py_DECREF(frame);
    return converted;
}

static int
append_steal(PyObject *list, PyObject *item)
{
    if (item == NULL)
        return -1;
    int res = PyList_Append(list, item);
    Py_DECREF(item);
    return res;
}

static inline bool
is_multipart(const azs_operation *op)
{
    return op->kind == AZS_RECV_MULTIPART || op->kind == AZS_RECV_MULTIPART_CALL;
}

static inline bool
is_bytes(const azs_operation *op)
{
    return op->kind != AZS_RECV_CALL && op->kind != AZS_RECV_MULTIPART_CALL;
}

PyObject *
azs_async_bytes_of_buffer_steal(PyObject *size, PyObject *args)
{
    Py_buffer view;
    PyObject *bytes = NULL;
    Py_ssize_t received = PyLong_AsSsize_t(size);
    if (received >= 0 &&
        PyObject_GetBuffer(PyTuple_GET_ITEM(args, 0), &view, PyBUF_SIMPLE) == 0) {
        bytes = PyBytes_FromStringAndSize(view.buf,
                                          received < view.len ? received : view.len);
        PyBuffer_Release(&view);
    }
    Py_DECREF(size);
    Py_DECREF(args);
    return bytes;
}

/* Has `item`, a frame, in the buffer of `op`, and its size in its place, as pyzmq's
 * recv_into(). 0, or -1 with an exception: then it is in the stash again. */
static int
copy_into_buffer(AsyncSocketObject *self, azs_operation *op, azs_stashed *item)
{
    Py_buffer view;
    PyObject *frame = item->message, *size = NULL;
    /* The buffer may run Python code, which may cancel the operation. */
    PyObject *args = Py_NewRef(op->args);
    PyObject *nbytes = PyDict_GetItemString(op->kwargs, "nbytes");
    Py_ssize_t limit = nbytes == NULL ? 0 : PyLong_AsSsize_t(nbytes);
    if (limit == -1 && PyErr_Occurred())
        goto fail;
    if (PyObject_GetBuffer(PyTuple_GET_ITEM(args, 0), &view, PyBUF_WRITABLE) < 0)
        goto fail;
    if (op->done) {
        PyBuffer_Release(&view);
        Py_DECREF(args);
        return 0; /* see azs_async_take() */
    }
    if (limit < 0 || limit > view.len) {
        PyErr_Format(PyExc_ValueError, "nbytes=%zd does not fit a buffer of %zd bytes",
                     limit, view.len);
    } else {
        Py_ssize_t room = limit == 0 ? view.len : limit;
        Py_ssize_t length = PyBytes_GET_SIZE(frame);
        memcpy(view.buf, PyBytes_AS_STRING(frame),
               (size_t)(length < room ? length : room));
        size = PyLong_FromSsize_t(length);
    }
    PyBuffer_Release(&view);
    if (size == NULL)
        goto fail;
    Py_DECREF(args);
    Py_SETREF(item->message, size);
    return 0;
fail:;
    PyObject *exc = azs_exc_take();
    Py_DECREF(args);
    if (azs_stash_put_steal(&self->stash, *item) < 0)
        PyErr_WriteUnraisable((PyObject *)self);
    azs_exc_restore_steal(exc);
    return -1;
}

static int take(AsyncSocketObject *self, azs_operation *op, azs_stashed *item,
                size_t *size);
static int take_call(AsyncSocketObject *self, azs_operation *op, azs_stashed *item);

/* The message that the stash begins with, as `op` wants it. 0 with *item filled in;
 * -1 with an exception, the message being lost. */
static int
take_stashed(AsyncSocketObject *self, azs_operation *op, azs_stashed *item,
             size_t *size)
{
    bool multipart = is_multipart(op), as_bytes = is_bytes(op);
    *item = azs_stash_pop(&self->stash);
    PyObject *message = item->message;
    item->message = NULL;
    if (PyList_Check(message) && PyList_GET_SIZE(message) == 0) {
        Py_DECREF(message); /* the user had it, and emptied it */
        return take(self, op, item, size);
    }
    if (!multipart) {
        if (PyList_Check(message)) {
            /* The first frame; what is left keeps its place. */
            PyObject *frame = Py_NewRef(PyList_GET_ITEM(message, 0));
            item->more = PyList_GET_SIZE(message) > 1;
            int res = PyList_SetSlice(message, 0, 1, NULL);
            if (res == 0 && item->more) {
                azs_stashed rest = {item->number + 1, Py_NewRef(message), false};
                res = azs_stash_put_steal(&self->stash, rest);
            }
            Py_DECREF(message);
            message = frame;
            if (res < 0) {
                Py_DECREF(frame);
                return -1;
            }
        }
        item->message = convert_frame_steal(self, message, as_bytes);
        if (item->message == NULL)
            return -1;
        self->more = item->more;
        return op->kind == AZS_RECV_INTO ? copy_into_buffer(self, op, item) : 0;
    }
    PyObject *list = PyList_New(0);
    bool more = item->more;
    item->more = false;
    if (list == NULL)
        goto fail;
    for (;;) {
        if (PyList_Check(message)) {
            for (Py_ssize_t i = 0; i < PyList_GET_SIZE(message); i++) {
                PyObject *frame = Py_NewRef(PyList_GET_ITEM(message, i));
                if (append_steal(list, convert_frame_steal(self, frame, as_bytes)) < 0)
                    goto fail;
            }
            Py_DECREF(message);
            more = false;
        } else if (append_steal(list, convert_frame_steal(self, message, as_bytes)) <
                   0) {
            message = NULL;
            goto fail;
        }
        message = NULL;
        if (!more)
            break;
        if (self->stash.count > 0) {
            azs_stashed next = azs_stash_pop(&self->stash);
            message = next.message;
            more = next.more;
        } else if (self->handle == NULL || receive_frame(self, &message, &more) != 0) {
            if (!PyErr_Occurred())
                break; /* no frame of it is left */
            goto fail;
        }
    }
    item->message = list;
    self->more = 0;
    return 0;
fail:
    Py_XDECREF(message);
    Py_XDECREF(list);
    return -1;
}

/* A whole message from libzmq, as list[bytes]; as receive_frame. */
static int
receive_multipart(AsyncSocketObject *self, PyObject **message, size_t *size)
{
    azs_spare none = {NULL}, lent;
    for (;;) {
        if (azs_unlikely(self->handle == NULL))
            return ENOTSOCK;
        int err = azs_zmq_recv(azs_async_libzmq(self), self->handle, &none, message,
                               size, &lent, NULL);
        if (err == 0)
            Py_XDECREF(lent.bytes);
        if (azs_likely(err != EINTR))
            return err;
        if (PyErr_CheckSignals() < 0) /* a handler may close the socket */
            return -1;
    }
}

static int
take(AsyncSocketObject *self, azs_operation *op, azs_stashed *item, size_t *size)
{
    int err;
    *size = 0;
    if (azs_unlikely(self->handle == NULL))
        return ENOTSOCK;
    if (azs_unlikely(self->stash.count > 0))
        return take_stashed(self, op, item, size);
    item->more = false;
    switch (op->kind) {
    case AZS_RECV:
        err = receive_frame(self, &item->message, &item->more);
        if (err == 0)
            *size = (size_t)PyBytes_GET_SIZE(item->message);
        break;
    case AZS_RECV_MULTIPART:
        err = receive_multipart(self, &item->message, size);
        break;
    default:
        err = take_call(self, op, item);
        break;
    }
    if (azs_unlikely(err != 0))
        return err;
    item->number = self->number += NUMBER_STEP;
    self->more = item->more;
    if (self->own_loop != NULL)
        AZS_COUNT(&self->own_loop->stats.zmq_messages_received, 1);
    return 0;
}

int
azs_async_take(AsyncSocketObject *self, azs_operation *op, azs_stashed *item,
               size_t *size)
{
    PyObject *args = op->kind == AZS_RECV_INTO ? Py_NewRef(op->args) : NULL;
    int err = take(self, op, item, size);
    if (azs_likely(err != 0 || !op->done)) {
        Py_XDECREF(args);
        return err;
    }
    /* The user's code in there, a buffer's or a signal's handler, has ended the
     * operation: the message is the next one's. */
    if (args != NULL && PyLong_Check(item->message))
        item->message = azs_async_bytes_of_buffer_steal(item->message, args);
    else
        Py_XDECREF(args);
    if (item->message == NULL)
        return -1;
    if (self->handle == NULL)
        Py_DECREF(item->message);
    else if (azs_stash_put_steal(&self->stash, *item) < 0)
        return -1;
    return ECANCELED;
}

/* Did the method, which somebody may have replaced, return what it is to? */
static bool
is_of_kind(const azs_operation *op, PyObject *message)
{
    if (op->kind == AZS_RECV_INTO)
        return PyLong_CheckExact(message);
    return PyList_CheckExact(message) == (op->kind == AZS_RECV_MULTIPART_CALL);
}

/* Receives by pyzmq's own method. 0, EAGAIN, or -1 with an exception. */
static int
take_call(AsyncSocketObject *self, azs_operation *op, azs_stashed *item)
{
    PyObject *call = Py_NewRef(op->call), *args = Py_NewRef(op->args);
    PyObject *kwargs = Py_NewRef(op->kwargs);
    item->message = PyObject_Call(call, args, kwargs);
    Py_DECREF(call);
    Py_DECREF(args);
    Py_DECREF(kwargs);
    if (item->message == NULL) {
        if (!PyErr_ExceptionMatches(self->st->zmq_async_again))
            return -1;
        PyErr_Clear();
        return EAGAIN;
    }
    if (azs_unlikely(!is_of_kind(op, item->message))) {
        PyErr_Format(PyExc_TypeError, "the socket's method returned %R", item->message);
        Py_CLEAR(item->message);
        return -1;
    }
    if (op->kind == AZS_RECV_INTO) {
        int more = 0;
        size_t size = sizeof(more);
        if (self->handle != NULL && azs_async_libzmq(self)->getsockopt(
                                        self->handle, ZMQ_RCVMORE, &more, &size) == 0)
            item->more = more != 0;
    } else if (op->kind == AZS_RECV_CALL) {
        PyObject *more = PyObject_GetAttrString(item->message, "more");
        if (more == NULL)
            PyErr_Clear();
        else
            item->more = more == Py_True;
        Py_XDECREF(more);
    }
    return 0;
}
