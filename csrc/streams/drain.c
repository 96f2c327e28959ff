#include "streams/drain.h"

#include "streams/reader.h"
#include "py/coro.h"
#include "py/type.h"
#include "py/weakref.h"

/* ---- methods of the instances ---- */

/* Writers and protocols are asked for their attributes: a __dict__ is an object that
 * they do not have until somebody asks for that. */

/* True where the attribute is `value` itself. 1, 0 or -1. */
static int
attribute_is(PyObject *obj, PyObject *name, PyObject *value)
{
    PyObject *now = PyObject_GetAttr(obj, name);
    Py_XDECREF(now); /* only compared */
    return now == NULL ? -1 : now == value;
}

/* True where the protocol was not told to pause and has its connection. 1, 0 or -1. */
static int
may_write(azs_state *st, PyObject *protocol)
{
    int res = attribute_is(protocol, st->str__paused, Py_False);
    return res <= 0 ? res : attribute_is(protocol, st->str__connection_lost, Py_False);
}

/* StreamReaderProtocol._drain_helper(), which StreamWriter.drain() awaits. */
static PyObject *
Protocol__drain_helper(StreamObject *self, PyObject *Py_UNUSED(ignored))
{
    azs_state *st = self->base.st;
    if (azs_loop_check_thread(self->base.loop) < 0)
        return NULL;
    if (self->sink == NULL || self->base.protocol == NULL) {
        PyErr_SetString(PyExc_ConnectionResetError, "Connection lost");
        return NULL;
    }
    PyObject *protocol = Py_NewRef(self->base.protocol), *res = NULL;
    int may = may_write(st, protocol);
    if (azs_likely(may > 0))
        res = Py_NewRef(st->ready_awaitable);
    else if (may == 0)
        res = azs_reader_call_class(st->stream_reader_protocol, st->str__drain_helper,
                                    protocol, NULL, 0, NULL);
    Py_DECREF(protocol);
    return res;
}

/* True where StreamWriter.drain() has nothing to wait for and nothing to raise. 1, 0 or
 * -1. */
static int
is_drained(StreamObject *self)
{
    azs_state *st = self->base.st;
    if (self->base.closing || !self->attached || self->base.protocol == NULL ||
        self->base.loop->debug)
        return 0;
    PyObject *reader;
    int res = azs_weakref_get(self->reader_ref, &reader);
    if (res <= 0)
        return res;
    PyObject *dict = azs_reader_dict(reader), *exc = NULL;
    if (dict != NULL)
        exc = azs_reader_get(dict, st->str__exception);
    res = exc == NULL ? -1 : exc == Py_None;
    azs_reader_let_go(exc);
    Py_XDECREF(dict);
    Py_DECREF(reader);
    if (res > 0) {
        PyObject *protocol = Py_NewRef(self->base.protocol);
        res = may_write(st, protocol);
        Py_DECREF(protocol);
    }
    return res;
}

static PyObject *
Writer_drain(StreamObject *self, PyObject *Py_UNUSED(ignored))
{
    azs_state *st = self->base.st;
    if (azs_loop_check_thread(self->base.loop) < 0)
        return NULL;
    int drained = is_drained(self);
    if (azs_likely(drained > 0))
        return Py_NewRef(st->ready_awaitable);
    PyObject *writer, *res = NULL;
    if (drained < 0 || azs_weakref_get(self->writer_ref, &writer) < 0)
        return NULL;
    if (writer != NULL)
        res = azs_reader_call_class(st->stream_writer, st->str_drain, writer, NULL, 0,
                                    NULL);
    else
        PyErr_SetString(PyExc_ReferenceError, "this stream writer is gone");
    Py_XDECREF(writer);
    return res;
}

static PyMethodDef protocol_method = {
    "_drain_helper", (PyCFunction)Protocol__drain_helper, METH_NOARGS,
    "asyncio.StreamReaderProtocol._drain_helper() in C."};

static PyMethodDef writer_method = {"drain", (PyCFunction)Writer_drain, METH_NOARGS,
                                    "asyncio.StreamWriter.drain() in C."};

/* ---- attaching ---- */

/* True where the writer is asyncio's own, of this stream and its reader. 1, 0 or -1. */
static int
drain_knows(StreamObject *stream, PyObject *writer, PyObject *protocol)
{
    azs_state *st = stream->base.st;
    PyObject *reader;
    int res = azs_weakref_get(stream->reader_ref, &reader);
    if (res <= 0)
        return res;
    res = attribute_is(writer, st->str__transport, (PyObject *)stream);
    if (res > 0)
        res = attribute_is(writer, st->str__protocol, protocol);
    if (res > 0)
        res = attribute_is(writer, st->str__reader, reader);
    Py_DECREF(reader);
    return res;
}

/* Takes an attribute away where it is a method of this stream. 0 or -1. */
static int
drop_method(PyObject *obj, PyObject *name, StreamObject *stream)
{
    PyObject *now = PyObject_GetAttr(obj, name);
    if (now == NULL)
        return -1;
    int res = 0;
    if (PyCFunction_CheckExact(now) && PyCFunction_GET_SELF(now) == (PyObject *)stream)
        res = PyObject_DelAttr(obj, name);
    Py_DECREF(now);
    return res;
}

/* Gives a writer its method; the protocol's, which that would call, is not needed any
 * more then. 0 or -1. */
static int
attach_writer(StreamObject *stream, PyObject *writer)
{
    azs_state *st = stream->base.st;
    if ((PyObject *)Py_TYPE(writer) != st->stream_writer || !stream->attached ||
        stream->base.protocol == NULL || stream->writer_ref != NULL ||
        stream->base.loop->debug)
        return 0;
    PyObject *protocol = Py_NewRef(stream->base.protocol);
    int res = drain_knows(stream, writer, protocol);
    /* A writer's attribute that is looked at may have had another one attached. */
    if (res > 0 && stream->writer_ref == NULL) {
        stream->writer_ref = PyWeakref_NewRef(writer, NULL);
        res = stream->writer_ref == NULL
                  ? -1
                  : azs_reader_set_method(writer, &writer_method,
                                          azs_reader_original(st, AZS_ORIGINAL_DRAIN),
                                          stream);
    }
    if (res > 0)
        res = drop_method(protocol, st->str__drain_helper, stream);
    Py_DECREF(protocol);
    return res < 0 ? -1 : 0;
}

static PyMethodDef callback_method;

static inline bool
is_our_callback(PyObject *callback)
{
    return PyCFunction_CheckExact(callback) &&
           PyCFunction_GET_FUNCTION(callback) == callback_method.ml_meth;
}

/* The protocol has its own callback again, where ours is there still. 0 or -1. */
static int
restore_callback(StreamObject *stream, PyObject *callback)
{
    PyObject *name = stream->base.st->str__client_connected_cb;
    PyObject *protocol = stream->base.protocol;
    if (stream->sink == NULL || protocol == NULL)
        return 0;
    Py_INCREF(protocol);
    PyObject *now = PyObject_GetAttr(protocol, name);
    int res = now == NULL ? -1 : 0;
    if (now != NULL && is_our_callback(now))
        res = PyObject_SetAttr(protocol, name, callback);
    Py_XDECREF(now);
    Py_DECREF(protocol);
    return res;
}

/* Stands for the protocol's client_connected_cb, whose first call it is: `self` is a
 * tuple of the stream and the callback. */
static PyObject *
Protocol__client_connected_cb(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    /* Restoring drops the function, whose `self` it is. */
    StreamObject *stream = (StreamObject *)Py_NewRef(PyTuple_GET_ITEM(self, 0));
    PyObject *callback = Py_NewRef(PyTuple_GET_ITEM(self, 1)), *res = NULL;
    if (restore_callback(stream, callback) == 0 &&
        (nargs != 2 || attach_writer(stream, args[1]) == 0))
        res = PyObject_Vectorcall(callback, args, (size_t)nargs, NULL);
    Py_DECREF(callback);
    Py_DECREF(stream);
    return res;
}

static PyMethodDef callback_method = {
    "client_connected_cb", (PyCFunction)(void (*)(void))Protocol__client_connected_cb,
    METH_FASTCALL, "Hands the writer of a stream on."};

/* Puts callback_method in front of the protocol's callback. 0 or -1. */
static int
watch_callback(StreamObject *stream, PyObject *protocol)
{
    PyObject *name = stream->base.st->str__client_connected_cb;
    PyObject *callback = PyObject_GetAttr(protocol, name);
    if (callback == NULL)
        return -1;
    int res = 0;
    if (callback != Py_None && !is_our_callback(callback)) {
        PyObject *self = PyTuple_Pack(2, (PyObject *)stream, callback);
        PyObject *func = self == NULL ? NULL : PyCFunction_New(&callback_method, self);
        res = func == NULL ? -1 : PyObject_SetAttr(protocol, name, func);
        Py_XDECREF(func);
        Py_XDECREF(self);
    }
    Py_DECREF(callback);
    return res;
}

int
azs_drain_attach(StreamObject *stream, PyObject *protocol)
{
    azs_state *st = stream->base.st;
    int res = azs_reader_set_method(protocol, &protocol_method,
                                    azs_reader_original(st, AZS_ORIGINAL_DRAIN_HELPER),
                                    stream);
    /* A round trip of streams: 26,020 instructions to 24,610, time by 1.03. */
    if (res > 0 && !st->without.drain)
        res = watch_callback(stream, protocol);
    return res < 0 ? -1 : 0;
}

int
azs_drain_detach(StreamObject *stream, PyObject *protocol)
{
    azs_state *st = stream->base.st;
    PyObject *writer;
    int res = azs_weakref_get(stream->writer_ref, &writer);
    if (res > 0) {
        res = drop_method(writer, st->str_drain, stream);
        Py_DECREF(writer);
    }
    return res < 0 ? -1 : drop_method(protocol, st->str__drain_helper, stream);
}

/* ---- a coroutine that is done ---- */

static PyObject *
ready_self(PyObject *self)
{
    return Py_NewRef(self);
}

static PyObject *
ready_next(PyObject *Py_UNUSED(self))
{
    return NULL; /* without an exception it means: returned None */
}

static PyObject *
Ready_send(PyObject *Py_UNUSED(self), PyObject *Py_UNUSED(value))
{
    PyErr_SetNone(PyExc_StopIteration);
    return NULL;
}

static PyObject *
Ready_throw(PyObject *Py_UNUSED(self), PyObject *const *args, Py_ssize_t nargs)
{
    if (nargs < 1 || nargs > 3)
        PyErr_Format(PyExc_TypeError, "throw expected 1 to 3 arguments, got %zd",
                     nargs);
    else
        (void)azs_coro_throw_set(args, nargs);
    return NULL;
}

static PyObject *
Ready_close(PyObject *Py_UNUSED(self), PyObject *Py_UNUSED(ignored))
{
    Py_RETURN_NONE;
}

/* Those of collections.abc.Coroutine: create_task() takes it. */
static PyMethodDef ready_methods[] = {
    {"send", Ready_send, METH_O, "Raise StopIteration."},
    {"throw", (PyCFunction)(void (*)(void))Ready_throw, METH_FASTCALL,
     "Raise the exception."},
    {"close", Ready_close, METH_NOARGS, "Nothing."},
    {NULL},
};

static PyType_Slot ready_slots[] = {
    {Py_am_await, ready_self},
    {Py_tp_iter, ready_self},
    {Py_tp_iternext, ready_next},
    {Py_tp_methods, ready_methods},
    {0, NULL},
};

static PyType_Spec ready_spec = {
    .name = "aiozmq_speedups._core.Ready",
    .basicsize = sizeof(PyObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE |
             Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = ready_slots,
};

static int
ready_init(PyObject *mod, azs_state *st)
{
    PyTypeObject *type = NULL;
    if (azs_type_add(mod, &type, &ready_spec, NULL, false) < 0)
        return -1;
    st->ready_awaitable = azs_type_alloc(type);
    Py_DECREF(type);
    return st->ready_awaitable == NULL ? -1 : 0;
}

int
azs_drain_init(PyObject *mod, azs_state *st)
{
    if (azs_import_attr(&st->stream_writer, "asyncio", "StreamWriter") < 0)
        return -1;
    return ready_init(mod, st);
}
