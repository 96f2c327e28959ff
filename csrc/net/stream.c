#include "net/stream.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <structmember.h>

#include "net/server_clients.h"
#include "py/args.h"
#include "py/errors.h"
#include "py/type.h"

/* The kernel takes at most 1,024 (IOV_MAX); more than these few hardly pay. */
enum { MAX_IOV = 64 };

/* ---- output ---- */

static inline StreamObject *
stream_of(TransportObject *self)
{
    return (StreamObject *)self;
}

void
azs_stream_drop_queue(TransportObject *self)
{
    azs_bufq_clear(&stream_of(self)->queue);
    AZS_SET(&self->queued, 0);
}

/* -errno or the number of bytes taken. */
static ssize_t
send_queue(StreamObject *self)
{
    struct iovec iov[MAX_IOV];
    int n = azs_bufq_iov(&self->queue, iov, MAX_IOV);
    ssize_t sent;
    do {
        if (!self->base.is_socket) {
            sent = writev(self->base.fd, iov, n);
        } else if (n == 1) {
            sent = send(self->base.fd, iov[0].iov_base, iov[0].iov_len, MSG_NOSIGNAL);
        } else {
            struct msghdr msg = {.msg_iov = iov, .msg_iovlen = (size_t)n};
            sent = sendmsg(self->base.fd, &msg, MSG_NOSIGNAL);
        }
    } while (sent < 0 && errno == EINTR);
    return sent < 0 ? -errno : sent;
}

/* The queue is empty: what was waiting for that. 0 or -1. */
static int
stream_ran_empty(StreamObject *self)
{
    TransportObject *base = &self->base;
    if ((base->io.interest & EPOLLOUT) && azs_transport_want_write(base, false) < 0)
        return -1;
    if ((base->closing || base->empty_waiter != NULL) &&
        azs_transport_drained(base) < 0)
        return -1;
    if (azs_unlikely(self->eof) && !base->closing && shutdown(base->fd, SHUT_WR) < 0 &&
        errno != ENOTCONN)
        return azs_transport_fatal_errno(base, -errno, base->ops->write_failed);
    return 0;
}

/* Sends what the kernel takes now. 0, or -1 with an exception that must leave
 * the loop. */
int
azs_stream_send(StreamObject *self)
{
    TransportObject *base = &self->base;
    while (self->queue.count > 0) {
        size_t before = base->queued;
        ssize_t sent = send_queue(self);
        if (sent < 0) {
            if (sent != -EAGAIN)
                return azs_transport_fatal_errno(base, (int)sent,
                                                 base->ops->write_failed);
            if (azs_transport_want_write(base, true) < 0)
                return azs_transport_fatal(base, base->ops->write_failed);
            return azs_transport_grew(base);
        }
        azs_stats_sent(&base->loop->stats, (size_t)sent);
        azs_bufq_advance(&self->queue, (size_t)sent);
        AZS_SET(&base->queued, before - (size_t)sent);
        /* resume_writing() may write, close or abort. */
        if (azs_transport_shrank(base) < 0)
            return -1;
        if (base->lost_posted)
            return 0;
    }
    return stream_ran_empty(self);
}

static int
stream_on_ready(TransportObject *base, uint32_t events)
{
    /* As asyncio: errors and hang-ups wake whoever waits, the reader first. */
    if ((events & ~(uint32_t)EPOLLOUT) && (base->io.interest & EPOLLIN) &&
        azs_stream_read(stream_of(base)) < 0)
        return -1;
    if ((events & ~(uint32_t)EPOLLIN) && (base->io.interest & EPOLLOUT) &&
        !base->lost_posted)
        return azs_stream_send(stream_of(base));
    return 0;
}

static const azs_transport_ops stream_ops = {
    .name = "StreamTransport",
    .read_failed = "Fatal read error on socket transport",
    .write_failed = "Fatal write error on socket transport",
    .lost_write = "socket.send() raised exception.",
    .on_ready = stream_on_ready,
    .drop_queue = azs_stream_drop_queue,
};

/* ---- methods ---- */

static int
check_writable(StreamObject *self, const char *method)
{
    if (azs_loop_check_thread(self->base.loop) < 0)
        return -1;
    if (azs_unlikely(self->eof)) {
        PyErr_Format(PyExc_RuntimeError, "Cannot call %s() after write_eof()", method);
        return -1;
    }
    if (azs_unlikely(self->base.empty_waiter != NULL)) {
        PyErr_Format(PyExc_RuntimeError, "unable to %s; sendfile is in progress",
                     method);
        return -1;
    }
    return 0;
}

/* write() with the buffer at hand: the kernel gets it at once, unless something waits
 * for the kernel. 0 or -1. */
static int
stream_write(StreamObject *self, PyObject *data, const char *buf, size_t len)
{
    TransportObject *base = &self->base;
    if (base->lost_posted || base->gone)
        return azs_transport_write_lost(base);
    ssize_t sent = 0;
    if (self->queue.count == 0) {
        do {
            sent = base->is_socket ? send(base->fd, buf, len, MSG_NOSIGNAL)
                                   : write(base->fd, buf, len);
        } while (sent < 0 && errno == EINTR);
        if (azs_likely(sent >= 0)) {
            azs_stats_sent(&base->loop->stats, (size_t)sent);
            if (azs_likely(sent == (ssize_t)len))
                return 0;
        } else {
            if (errno != EAGAIN)
                return azs_transport_fatal_errno(base, -errno, base->ops->write_failed);
            sent = 0;
        }
        if (azs_transport_want_write(base, true) < 0)
            return azs_transport_fatal(base, base->ops->write_failed);
        buf += sent;
        len -= (size_t)sent;
    }
    if (azs_bufq_add(&self->queue, data, buf, len) < 0)
        /* A stream with a hole in it must end. */
        return sent > 0 ? azs_transport_fatal(base, base->ops->write_failed) : -1;
    AZS_COUNT(&base->queued, len);
    return azs_transport_grew(base);
}

const char azs_stream_write_doc[] =
    "write($self, data, /)\n--\n\n"
    "Send bytes, a bytearray or a memoryview; never blocks (asyncio\n"
    "WriteTransport.write).\n\n"
    "What the kernel does not take at once is buffered: bytes objects of size as they\n"
    "are, a copy of anything else. writelines() sends several in one system call. Raises\n"
    "TypeError for other types, RuntimeError after write_eof().";

PyObject *
azs_stream_write(StreamObject *self, PyObject *data)
{
    if (azs_likely(PyBytes_CheckExact(data))) {
        if (check_writable(self, "write") < 0)
            return NULL;
        size_t len = (size_t)PyBytes_GET_SIZE(data);
        if (len > 0 && stream_write(self, data, PyBytes_AS_STRING(data), len) < 0)
            return NULL;
        Py_RETURN_NONE;
    }
    if (!PyBytes_Check(data) && !PyByteArray_Check(data) && !PyMemoryView_Check(data)) {
        PyErr_Format(PyExc_TypeError,
                     "data argument must be a bytes-like object, not '%.200s'",
                     Py_TYPE(data)->tp_name);
        return NULL;
    }
    if (check_writable(self, "write") < 0)
        return NULL;
    Py_buffer view;
    if (PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) < 0)
        return NULL;
    int res = view.len > 0 ? stream_write(self, data, view.buf, (size_t)view.len) : 0;
    PyBuffer_Release(&view);
    if (res < 0)
        return NULL;
    Py_RETURN_NONE;
}

/* Exact bytes for an item of writelines(). New reference. */
static PyObject *
line_bytes(PyObject *item)
{
    if (PyBytes_CheckExact(item))
        return Py_NewRef(item);
    if (!PyObject_CheckBuffer(item)) {
        PyErr_Format(PyExc_TypeError,
                     "writelines() takes bytes-like objects, got '%.200s'",
                     Py_TYPE(item)->tp_name);
        return NULL;
    }
    return PyBytes_FromObject(item);
}

PyDoc_STRVAR(writelines_doc,
"writelines($self, list_of_data, /)\n--\n\n"
"write() for each bytes-like object of an iterable, in one system call where\n"
"possible (asyncio WriteTransport.writelines). Nothing is sent where one of them\n"
"is of a wrong type.");

static PyObject *
Stream_writelines(StreamObject *self, PyObject *lines)
{
    TransportObject *base = &self->base;
    if (check_writable(self, "writelines") < 0)
        return NULL;
    /* All are converted before any is queued: an iterator may do anything. */
    PyObject *list = PySequence_List(lines);
    if (list == NULL)
        return NULL;
    Py_ssize_t count = PyList_GET_SIZE(list);
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *bytes = line_bytes(PyList_GET_ITEM(list, i));
        if (bytes == NULL || PyList_SetItem(list, i, bytes) < 0)
            goto fail;
    }
    if (check_writable(self, "writelines") < 0)
        goto fail;
    if (count > 0 && (base->lost_posted || base->gone)) {
        if (azs_transport_write_lost(base) < 0)
            goto fail;
        count = 0;
    }
    azs_bufq_end end = azs_bufq_mark(&self->queue);
    size_t added = 0;
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *bytes = PyList_GET_ITEM(list, i);
        size_t size = (size_t)PyBytes_GET_SIZE(bytes);
        if (size == 0)
            continue;
        if (azs_bufq_add(&self->queue, bytes, PyBytes_AS_STRING(bytes), size) < 0) {
            azs_bufq_cut(&self->queue, end);
            goto fail;
        }
        added += size;
    }
    AZS_COUNT(&base->queued, added);
    Py_DECREF(list);
    if (added > 0 &&
        (end.count > 0 ? azs_transport_grew(base) : azs_stream_send(self)) < 0)
        return NULL;
    Py_RETURN_NONE;

fail:
    Py_DECREF(list);
    return NULL;
}

PyDoc_STRVAR(write_eof_doc,
"write_eof($self, /)\n--\n\n"
"Shut the sending side down once what is buffered has been sent\n"
"(asyncio WriteTransport.write_eof).");

static PyObject *
Stream_write_eof(StreamObject *self, PyObject *Py_UNUSED(ignored))
{
    TransportObject *base = &self->base;
    if (azs_loop_check_thread(base->loop) < 0)
        return NULL;
    if (base->closing || self->eof)
        Py_RETURN_NONE;
    self->eof = true;
    if (base->queued == 0 && shutdown(base->fd, SHUT_WR) < 0) {
        azs_set_errno(-errno);
        return NULL;
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(can_write_eof_doc,
"can_write_eof($self, /)\n--\n\nTrue (asyncio WriteTransport.can_write_eof).");

static PyObject *
Stream_can_write_eof(StreamObject *Py_UNUSED(self), PyObject *Py_UNUSED(ignored))
{
    Py_RETURN_TRUE;
}

/* 0 or -1. */
int
azs_stream_adopt_protocol(StreamObject *self, PyObject *protocol)
{
    int buffered =
        PyObject_IsInstance(protocol, self->base.st->asyncio_buffered_protocol);
    if (buffered < 0)
        return -1;
    const azs_stream_sink *sink = self->base.st->stream_sink;
    if (sink != NULL && !sink->serves(self->base.st, protocol))
        sink = NULL;
    PyObject *old = self->base.protocol;
    if (self->sink != NULL && old != NULL && old != protocol) {
        /* The end of a method has weak references told, which may set a protocol. */
        Py_INCREF(old);
        int detached = self->sink->detach(self, old);
        Py_DECREF(old);
        if (detached < 0)
            return -1;
    }
    self->attached = false;
    if (sink != NULL && sink->attach(self, protocol) < 0)
        return -1;
    /* As in asyncio, pipes know data_received() only. */
    self->buffered = buffered && self->base.is_socket;
    self->sink = sink;
    return 0;
}

const char azs_stream_set_protocol_doc[] =
    "set_protocol($self, protocol, /)\n--\n\n"
    "Switch to another Protocol or BufferedProtocol (asyncio\n"
    "BaseTransport.set_protocol).";

PyObject *
azs_stream_set_protocol(StreamObject *self, PyObject *protocol)
{
    if (azs_loop_check_thread(self->base.loop) < 0 ||
        azs_stream_adopt_protocol(self, protocol) < 0)
        return NULL;
    if (!self->base.gone)
        azs_transport_set_protocol(&self->base, protocol);
    Py_RETURN_NONE;
}

static PyMethodDef stream_methods[] = {
    {"write", (PyCFunction)azs_stream_write, METH_O, azs_stream_write_doc},
    {"writelines", (PyCFunction)Stream_writelines, METH_O, writelines_doc},
    {"write_eof", (PyCFunction)Stream_write_eof, METH_NOARGS, write_eof_doc},
    {"can_write_eof", (PyCFunction)Stream_can_write_eof, METH_NOARGS,
     can_write_eof_doc},
    {"set_protocol", (PyCFunction)azs_stream_set_protocol, METH_O,
     azs_stream_set_protocol_doc},
    {NULL},
};

/* ---- life ---- */

TransportObject *
azs_stream_new(azs_transport_args *args)
{
    args->type = args->loop->st->stream_transport_type;
    args->ops = &stream_ops;
    args->is_socket = true;
    args->input = EPOLLIN;
    TransportObject *self = azs_transport_new(args);
    /* Accepted sockets have it from the listening one. */
    if (self != NULL && self->sockname.len > 0 && args->sock != NULL) {
        /* Small writes are sent at once, as in asyncio. Refused where the protocol
         * is not TCP, which is just as well. */
        int on = 1;
        setsockopt(self->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    }
    if (self != NULL &&
        azs_stream_adopt_protocol(stream_of(self), args->protocol) < 0) {
        azs_transport_unmake(self);
        Py_CLEAR(self);
    }
    return self;
}

void
azs_stream_dealloc(StreamObject *self)
{
    if (PyObject_CallFinalizerFromDealloc((PyObject *)self) < 0)
        return; /* resurrected */
    /* Whose list would find it. */
    azs_clients_forget(&self->base);
    AZS_DEALLOC_BEGIN(self, azs_stream_dealloc);
    azs_bufq_clear(&self->queue);
    Py_CLEAR(self->reader_ref);
    Py_CLEAR(self->writer_ref);
    azs_transport_dealloc(&self->base);
    AZS_DEALLOC_END;
}

PyDoc_STRVAR(stream_doc,
"A connected TCP or Unix stream socket: an asyncio.Transport.");

static PyType_Slot stream_slots[] = {
    {Py_tp_doc, (void *)stream_doc},          {Py_tp_dealloc, azs_stream_dealloc},
    {Py_tp_traverse, azs_transport_traverse}, {Py_tp_clear, azs_transport_clear},
    {Py_tp_finalize, azs_transport_finalize}, {Py_tp_repr, azs_transport_repr},
    {Py_tp_methods, stream_methods},          {Py_tp_members, azs_transport_members},
    {Py_tp_getset, azs_transport_getset},     {0, NULL},
};

static PyType_Spec azs_stream_spec = {
    .name = "aiozmq_speedups._core.StreamTransport",
    .basicsize = sizeof(StreamObject),
    .flags =
        Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = stream_slots,
};

/* loop._make_socket_transport(sock, protocol, waiter=None, *, extra, server, context)
 */
PyDoc_STRVAR(make_socket_transport_doc,
"_make_socket_transport(sock, protocol, waiter=None, *, extra=None, server=None,\n"
"                       context=None)\n--\n\n"
"A StreamTransport on a connected, non-blocking socket; asyncio's connection code\n"
"calls it. connection_made comes in the next turn, then `waiter` is done. The\n"
"callbacks run in `context` (Python 3.15), or in a copy of the current Context.");

static PyObject *
Loop__make_socket_transport(LoopObject *self, PyObject *args, PyObject *kwargs)
{
    static char *keywords[] = {"sock",   "protocol", "waiter", "extra",
                               "server", "context",  NULL};
    PyObject *sock, *protocol, *waiter = NULL, *extra = NULL, *server = NULL;
    PyObject *context = NULL;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OO|O$OOO:_make_socket_transport",
                                     keywords, &sock, &protocol, &waiter, &extra,
                                     &server, &context) ||
        azs_context_arg(&context) < 0)
        return NULL;
    if (!PyObject_TypeCheck(sock, (PyTypeObject *)self->st->socket_type))
        return azs_transport_by_asyncio(self, "_make_socket_transport", args, kwargs);
    int fd = PyObject_AsFileDescriptor(sock);
    if (fd < 0)
        return NULL;
    if (azs_loop_ensure_free_fd(self, fd, sock) < 0)
        return NULL;
    azs_transport_args targs = {
        .loop = self,
        .fd = fd,
        .sock = sock,
        .protocol = protocol,
        .waiter = waiter,
        .extra = extra,
        .server = server,
        .context = context,
    };
    return (PyObject *)azs_stream_new(&targs);
}

static PyMethodDef loop_methods[] = {
    {"_make_socket_transport", (PyCFunction)(void (*)(void))Loop__make_socket_transport,
     METH_VARARGS | METH_KEYWORDS, make_socket_transport_doc},
    {NULL},
};

int
azs_stream_init(PyObject *mod, azs_state *st)
{
    st->minus_one = PyLong_FromLong(-1);
    if (st->minus_one == NULL ||
        azs_import_attr(&st->asyncio_buffered_protocol, "asyncio", "BufferedProtocol") <
            0 ||
        azs_import_attr(&st->selector_event_loop, "asyncio", "SelectorEventLoop") < 0)
        return -1;
    if (azs_transport_type_add(mod, st, &st->stream_transport_type, &azs_stream_spec,
                               "_FlowControlMixin", true, true) < 0 ||
        azs_type_add_methods(st->loop_type, loop_methods) < 0)
        return -1;
    /* What loop.start_tls() and loop.sendfile() look at. */
    PyObject *type = (PyObject *)st->stream_transport_type;
    PyObject *modes;
    if (azs_import_attr(&modes, "asyncio.constants", "_SendfileMode") < 0)
        return -1;
    PyObject *native = PyObject_GetAttrString(modes, "TRY_NATIVE");
    Py_DECREF(modes);
    if (native == NULL)
        return -1;
    int res = PyObject_SetAttrString(type, "_sendfile_compatible", native);
    Py_DECREF(native);
    return res < 0 ? -1
                   : PyObject_SetAttrString(type, "_start_tls_compatible", Py_True);
}
