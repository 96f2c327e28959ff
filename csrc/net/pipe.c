#include "net/pipe.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "net/stream.h"
#include "py/errors.h"
#include "py/type.h"

/* ---- readiness ---- */

static int
read_pipe_on_ready(TransportObject *self, uint32_t Py_UNUSED(events))
{
    return self->io.interest & EPOLLIN ? azs_stream_read((StreamObject *)self) : 0;
}

static const azs_transport_ops read_pipe_ops = {
    .name = "ReadPipeTransport",
    .read_failed = "Fatal read error on pipe transport",
    .on_ready = read_pipe_on_ready,
    .drop_queue = azs_stream_drop_queue, /* always empty */
};

static int
write_pipe_on_ready(TransportObject *self, uint32_t events)
{
    /* Nothing is ever read from this end: whatever it says but "writable" is that
     * the reader has gone. */
    if ((events & ~(uint32_t)EPOLLOUT) && (self->io.interest & self->input)) {
        PyObject *exc = NULL;
        if (self->queued > 0) {
            exc = PyObject_CallNoArgs(PyExc_BrokenPipeError);
            if (exc == NULL)
                return -1;
        }
        int res = azs_transport_force_close(self, exc);
        Py_XDECREF(exc);
        return res;
    }
    return self->io.interest & EPOLLOUT ? azs_stream_send((StreamObject *)self) : 0;
}

static const azs_transport_ops write_pipe_ops = {
    .name = "WritePipeTransport",
    .write_failed = "Fatal write error on pipe transport",
    .lost_write = "pipe closed by peer or os.write(pipe, data) raised exception.",
    .on_ready = write_pipe_on_ready,
    .drop_queue = azs_stream_drop_queue,
};

/* ---- methods ---- */

static PyObject *
WritePipe_write(StreamObject *self, PyObject *data)
{
    if (azs_loop_check_thread(self->base.loop) < 0)
        return NULL;
    /* A closing pipe takes nothing more, unlike a socket: its close() is an EOF. */
    if (self->base.closing && !self->base.gone && PyObject_CheckBuffer(data)) {
        if (azs_transport_write_lost(&self->base) < 0)
            return NULL;
        Py_RETURN_NONE;
    }
    return azs_stream_write(self, data);
}

PyDoc_STRVAR(write_eof_doc,
"write_eof($self, /)\n--\n\n"
"Close the pipe once what is buffered has been written, which is how its reader\n"
"sees the end (asyncio WriteTransport.write_eof).");

static PyObject *
WritePipe_write_eof(TransportObject *self, PyObject *Py_UNUSED(ignored))
{
    if (azs_loop_check_thread(self->loop) < 0 || azs_transport_close(self) < 0)
        return NULL;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(can_write_eof_doc,
"can_write_eof($self, /)\n--\n\nTrue (asyncio WriteTransport.can_write_eof).");

static PyObject *
WritePipe_can_write_eof(TransportObject *Py_UNUSED(self), PyObject *Py_UNUSED(ignored))
{
    Py_RETURN_TRUE;
}

static PyMethodDef read_pipe_methods[] = {
    {"set_protocol", (PyCFunction)azs_stream_set_protocol, METH_O,
     azs_stream_set_protocol_doc},
    {NULL},
};

static PyMethodDef write_pipe_methods[] = {
    {"write", (PyCFunction)WritePipe_write, METH_O, azs_stream_write_doc},
    {"write_eof", (PyCFunction)WritePipe_write_eof, METH_NOARGS, write_eof_doc},
    {"can_write_eof", (PyCFunction)WritePipe_can_write_eof, METH_NOARGS,
     can_write_eof_doc},
    {"set_protocol", (PyCFunction)azs_stream_set_protocol, METH_O,
     azs_stream_set_protocol_doc},
    {NULL},
};

/* ---- types ---- */

PyDoc_STRVAR(read_pipe_doc, "The reading end of a pipe: an asyncio.ReadTransport.");
PyDoc_STRVAR(write_pipe_doc, "The writing end of a pipe: an asyncio.WriteTransport.");

#define PIPE_SLOTS(doc, methods)                                                       \
    {                                                                                  \
        {Py_tp_doc, (void *)(doc)}, {Py_tp_dealloc, azs_stream_dealloc},               \
            {Py_tp_traverse, azs_transport_traverse},                                  \
            {Py_tp_clear, azs_transport_clear},                                        \
            {Py_tp_finalize, azs_transport_finalize},                                  \
            {Py_tp_repr, azs_transport_repr}, {Py_tp_methods, methods},                \
            {Py_tp_members, azs_transport_members},                                    \
            {Py_tp_getset, azs_transport_getset},                                      \
        {                                                                              \
            0, NULL                                                                    \
        }                                                                              \
    }

static PyType_Slot read_pipe_slots[] = PIPE_SLOTS(read_pipe_doc, read_pipe_methods);
static PyType_Slot write_pipe_slots[] = PIPE_SLOTS(write_pipe_doc, write_pipe_methods);

static PyType_Spec azs_read_pipe_spec = {
    .name = "aiozmq_speedups._core.ReadPipeTransport",
    .basicsize = sizeof(StreamObject),
    .flags =
        Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = read_pipe_slots,
};

static PyType_Spec azs_write_pipe_spec = {
    .name = "aiozmq_speedups._core.WritePipeTransport",
    .basicsize = sizeof(StreamObject),
    .flags =
        Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = write_pipe_slots,
};

/* ---- the loop's factories ---- */

static PyObject *
make_pipe(LoopObject *self, PyObject *args, PyObject *kwargs, bool writing)
{
    static char *keywords[] = {"pipe", "protocol", "waiter", "extra", NULL};
    PyObject *pipe, *protocol, *waiter = NULL, *extra = NULL;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OO|OO", keywords, &pipe, &protocol,
                                     &waiter, &extra))
        return NULL;
    /* A descriptor alone cannot be closed by the transport. */
    PyObject *number = PyObject_CallMethod(pipe, "fileno", NULL);
    int fd = number == NULL ? -1 : PyObject_AsFileDescriptor(number);
    Py_XDECREF(number);
    if (fd < 0)
        return NULL;
    struct stat info;
    if (fstat(fd, &info) < 0) {
        azs_set_errno(-errno);
        return NULL;
    }
    bool fifo = S_ISFIFO(info.st_mode), sock = S_ISSOCK(info.st_mode);
    if (!fifo && !sock && !S_ISCHR(info.st_mode)) {
        PyErr_SetString(PyExc_ValueError,
                        writing ? "Pipe transport is only for pipes, sockets and "
                                  "character devices"
                                : "Pipe transport is for pipes/sockets only.");
        return NULL;
    }
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0 ||
        (!(flags & O_NONBLOCK) && fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)) {
        azs_set_errno(-errno);
        return NULL;
    }
    azs_state *st = self->st;
    azs_transport_args targs = {
        .type = writing ? st->write_pipe_type : st->read_pipe_type,
        .ops = writing ? &write_pipe_ops : &read_pipe_ops,
        .loop = self,
        .fd = fd,
        .sock = pipe,
        .protocol = protocol,
        .waiter = waiter,
        .extra = extra,
        /* A terminal's other direction is not about this end: no trap there. */
        .input = !writing || fifo ? EPOLLIN
                 : sock           ? EPOLLRDHUP
                                  : 0,
    };
    TransportObject *transport = azs_transport_new(&targs);
    if (transport == NULL)
        return NULL;
    PyObject *shown = azs_transport_extra(transport);
    if (shown == NULL || PyDict_SetItemString(shown, "pipe", pipe) < 0 ||
        azs_stream_adopt_protocol((StreamObject *)transport, protocol) < 0) {
        azs_transport_unmake(transport);
        Py_DECREF(transport);
        return NULL;
    }
    return (PyObject *)transport;
}

PyDoc_STRVAR(make_read_pipe_transport_doc,
"_make_read_pipe_transport($self, pipe, protocol, waiter=None, extra=None)\n--\n\n"
"A ReadPipeTransport; connect_read_pipe() calls it. ValueError unless `pipe` is a\n"
"FIFO, a socket or a character device.");

static PyObject *
Loop__make_read_pipe_transport(LoopObject *self, PyObject *args, PyObject *kwargs)
{
    return make_pipe(self, args, kwargs, false);
}

PyDoc_STRVAR(make_write_pipe_transport_doc,
"_make_write_pipe_transport($self, pipe, protocol, waiter=None, extra=None)\n--\n\n"
"A WritePipeTransport; connect_write_pipe() calls it. ValueError unless `pipe` is a\n"
"FIFO, a socket or a character device.");

static PyObject *
Loop__make_write_pipe_transport(LoopObject *self, PyObject *args, PyObject *kwargs)
{
    return make_pipe(self, args, kwargs, true);
}

static PyMethodDef loop_methods[] = {
    {"_make_read_pipe_transport",
     (PyCFunction)(void (*)(void))Loop__make_read_pipe_transport,
     METH_VARARGS | METH_KEYWORDS, make_read_pipe_transport_doc},
    {"_make_write_pipe_transport",
     (PyCFunction)(void (*)(void))Loop__make_write_pipe_transport,
     METH_VARARGS | METH_KEYWORDS, make_write_pipe_transport_doc},
    {NULL},
};

int
azs_pipe_init(PyObject *mod, azs_state *st)
{
    if (azs_transport_type_add(mod, st, &st->read_pipe_type, &azs_read_pipe_spec,
                               "ReadTransport", true, false) < 0 ||
        azs_transport_type_add(mod, st, &st->write_pipe_type, &azs_write_pipe_spec,
                               "_FlowControlMixin", false, true) < 0)
        return -1;
    return azs_type_add_methods(st->loop_type, loop_methods);
}
