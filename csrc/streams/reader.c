#include "streams/reader.h"

#include <string.h>

#include "streams/drain.h"
#include "streams/feed.h"
#include "streams/read_coro.h"
#include "streams/readbuf.h"
#include "py/type.h"
#include "py/weakref.h"

/* Subclasses may look at the data themselves. */
static bool
reader_serves(azs_state *st, PyObject *protocol)
{
    return (PyObject *)Py_TYPE(protocol) == st->stream_reader_protocol;
}

int
azs_reader_of(azs_state *st, PyObject *protocol, PyObject **out)
{
    PyObject *ref = PyObject_GetAttr(protocol, st->str__stream_reader_wr);
    if (ref == NULL)
        return -1;
    int res = azs_weakref_get(ref, out);
    Py_DECREF(ref);
    return res;
}

/* ---- the reader's attributes ---- */

PyObject *
azs_reader_buffer(azs_state *st, PyObject *dict)
{
    PyObject *buffer = azs_reader_keep(azs_reader_get(dict, st->str__buffer));
    if (azs_likely(buffer != NULL && PyByteArray_CheckExact(buffer)))
        return buffer;
    if (buffer != NULL)
        PyErr_SetString(PyExc_TypeError, "StreamReader._buffer is not a bytearray");
    Py_XDECREF(buffer);
    return NULL;
}

/* _limit in *limit, clipped. 0 or -1. */
static int
reader_limit(azs_state *st, PyObject *dict, Py_ssize_t *limit)
{
    PyObject *value = azs_reader_keep(azs_reader_get(dict, st->str__limit));
    if (value == NULL)
        return -1;
    *limit = PyNumber_AsSsize_t(value, NULL);
    Py_DECREF(value);
    return *limit == -1 && PyErr_Occurred() ? -1 : 0;
}

int
azs_reader_is_true(PyObject *dict, PyObject *name)
{
    PyObject *value = azs_reader_get(dict, name);
    if (value == NULL)
        return -1;
    if (azs_likely(value == Py_True || value == Py_False)) {
        azs_reader_let_go(value);
        return value == Py_True;
    }
    azs_reader_keep(value);
    int res = PyObject_IsTrue(value);
    Py_DECREF(value);
    return res;
}

/* Calls a method of _transport where there is one: 1, 0 where not, -1. */
static int
call_transport(azs_state *st, PyObject *dict, PyObject *method)
{
    PyObject *transport = azs_reader_get(dict, st->str__transport);
    if (transport == NULL || transport == Py_None) {
        azs_reader_let_go(transport);
        return transport == NULL ? -1 : 0;
    }
    azs_reader_keep(transport);
    PyObject *ok = PyObject_CallMethodNoArgs(transport, method);
    Py_DECREF(transport);
    Py_XDECREF(ok);
    return ok == NULL ? -1 : 1;
}

int
azs_reader_respect_limit(azs_state *st, PyObject *dict, PyObject *buffer)
{
    Py_ssize_t limit;
    if (reader_limit(st, dict, &limit) < 0)
        return -1;
    if (azs_likely(limit > PY_SSIZE_T_MAX / 2 ||
                   PyByteArray_GET_SIZE(buffer) <= 2 * limit))
        return 0;
    int paused = azs_reader_is_true(dict, st->str__paused);
    if (paused == 0) {
        int called = call_transport(st, dict, st->str_pause_reading);
        if (called > 0)
            return PyDict_SetItem(dict, st->str__paused, Py_True);
        paused = called;
    }
    return paused < 0 ? -1 : 0;
}

int
azs_reader_resume(azs_state *st, PyObject *dict)
{
    int paused = azs_reader_is_true(dict, st->str__paused);
    if (azs_likely(paused == 0))
        return 0;
    if (paused < 0 || PyDict_SetItem(dict, st->str__paused, Py_False) < 0)
        return -1;
    return call_transport(st, dict, st->str_resume_reading) < 0 ? -1 : 0;
}

int
azs_reader_maybe_resume(azs_state *st, PyObject *dict, PyObject *buffer)
{
    int paused = azs_reader_is_true(dict, st->str__paused);
    if (azs_likely(paused == 0))
        return 0;
    Py_ssize_t limit;
    if (paused < 0 || reader_limit(st, dict, &limit) < 0)
        return -1;
    return PyByteArray_GET_SIZE(buffer) <= limit ? azs_reader_resume(st, dict) : 0;
}

/* ---- feeding ---- */

int
azs_reader_wake(azs_state *st, PyObject *dict)
{
    PyObject *waiter = azs_reader_get(dict, st->str__waiter);
    if (waiter == NULL || waiter == Py_None) {
        azs_reader_let_go(waiter);
        return waiter == NULL ? -1 : 0;
    }
    azs_reader_keep(waiter);
    int res = -1;
    if (Py_IS_TYPE(waiter, st->waiter_type)) {
        /* Without memory to wake it, it stays there for set_exception(). */
        res = azs_waiter_wake((WaiterObject *)waiter);
        if (res == 0)
            res = PyDict_SetItem(dict, st->str__waiter, Py_None);
        goto done;
    }
    if (PyDict_SetItem(dict, st->str__waiter, Py_None) < 0)
        goto done;
    PyObject *cancelled = PyObject_CallMethodNoArgs(waiter, st->str_cancelled);
    if (cancelled == NULL)
        goto done;
    int skip = PyObject_IsTrue(cancelled);
    Py_DECREF(cancelled);
    if (skip == 0) {
        PyObject *ok = PyObject_CallMethodOneArg(waiter, st->str_set_result, Py_None);
        Py_XDECREF(ok);
        res = ok == NULL ? -1 : 0;
    } else {
        res = skip < 0 ? -1 : 0;
    }
done:
    Py_DECREF(waiter);
    return res;
}

/* ---- methods of the instance ---- */

PyObject *
azs_reader_call_class(PyObject *cls, PyObject *name, PyObject *self,
                      PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    Py_ssize_t total = nargs + (kwnames == NULL ? 0 : PyTuple_GET_SIZE(kwnames));
    PyObject *func = PyObject_GetAttr(cls, name), *res = NULL;
    PyObject **stack = func == NULL ? NULL : PyMem_New(PyObject *, total + 1);
    if (stack != NULL) {
        stack[0] = self;
        for (Py_ssize_t i = 0; i < total; i++)
            stack[1 + i] = args[i];
        res = PyObject_Vectorcall(func, stack, (size_t)nargs + 1, kwnames);
        PyMem_Free(stack);
    } else if (func != NULL) {
        PyErr_NoMemory();
    }
    Py_XDECREF(func);
    return res;
}

/* The reader of a method: new reference, or NULL with ReferenceError. */
static PyObject *
method_reader(StreamObject *stream)
{
    PyObject *reader;
    int res = azs_weakref_get(stream->reader_ref, &reader);
    if (res == 0)
        PyErr_SetString(PyExc_ReferenceError, "this stream reader is gone");
    return reader;
}

/* The only argument where it is an int above zero; 0 for anything else. */
static Py_ssize_t
positive(PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    if (nargs != 1 || kwnames != NULL || !PyLong_CheckExact(args[0]))
        return 0;
    Py_ssize_t n = PyLong_AsSsize_t(args[0]);
    if (n == -1 && PyErr_Occurred()) {
        PyErr_Clear(); /* OverflowError */
        return 0;
    }
    return n > 0 ? n : 0;
}

static PyObject *
read_method(StreamObject *self, PyObject *name, azs_read_kind kind, Py_ssize_t n,
            PyObject *separator, PyObject *const *args, Py_ssize_t nargs,
            PyObject *kwnames)
{
    azs_state *st = self->base.st;
    PyObject *reader = method_reader(self);
    if (reader == NULL)
        return NULL;
    bool fast = n > 0 && !self->base.loop->debug;
    PyObject *res = azs_likely(fast)
                        ? azs_read_coro_new(self, reader, kind, n, separator)
                        : azs_reader_call_class(st->stream_reader, name, reader, args,
                                                nargs, kwnames);
    Py_DECREF(reader);
    return res;
}

static PyObject *
Reader_read(StreamObject *self, PyObject *const *args, Py_ssize_t nargs,
            PyObject *kwnames)
{
    return read_method(self, self->base.st->str_read, AZS_READ_SOME,
                       positive(args, nargs, kwnames), NULL, args, nargs, kwnames);
}

static PyObject *
Reader_readexactly(StreamObject *self, PyObject *const *args, Py_ssize_t nargs,
                   PyObject *kwnames)
{
    return read_method(self, self->base.st->str_readexactly, AZS_READ_EXACTLY,
                       positive(args, nargs, kwnames), NULL, args, nargs, kwnames);
}

static PyObject *
Reader_readuntil(StreamObject *self, PyObject *const *args, Py_ssize_t nargs,
                 PyObject *kwnames)
{
    PyObject *separator = NULL;
    if (nargs == 1 && kwnames == NULL && PyBytes_CheckExact(args[0]))
        separator = args[0];
    Py_ssize_t n = separator == NULL ? 0 : PyBytes_GET_SIZE(separator);
    return read_method(self, self->base.st->str_readuntil, AZS_READ_UNTIL, n, separator,
                       args, nargs, kwnames);
}

static PyObject *
Reader_readline(StreamObject *self, PyObject *const *args, Py_ssize_t nargs,
                PyObject *kwnames)
{
    return read_method(self, self->base.st->str_readline, AZS_READ_LINE,
                       nargs == 0 && kwnames == NULL, NULL, args, nargs, kwnames);
}

#define READER_METHOD(name, func)                                                      \
    {name, (PyCFunction)(void (*)(void))func, METH_FASTCALL | METH_KEYWORDS,           \
     "asyncio.StreamReader." name "() in C."}

static PyMethodDef reader_methods[] = {
    READER_METHOD("read", Reader_read),
    READER_METHOD("readexactly", Reader_readexactly),
    READER_METHOD("readuntil", Reader_readuntil),
    READER_METHOD("readline", Reader_readline),
};

/* ---- attaching ---- */

/* The functions of asyncio's classes that the methods stand for, in the order of
 * reader_methods, those of writing last: new reference to a tuple. */
static PyObject *
class_functions(azs_state *st)
{
    size_t n = AZS_ARRAY_LEN(reader_methods);
    PyObject *found = PyTuple_New((Py_ssize_t)n + 2);
    for (size_t i = 0; found != NULL && i < n + 2; i++) {
        PyObject *func =
            i < n ? PyObject_GetAttrString(st->stream_reader, reader_methods[i].ml_name)
            : i == n
                ? PyObject_GetAttr(st->stream_reader_protocol, st->str__drain_helper)
                : PyObject_GetAttr(st->stream_writer, st->str_drain);
        if (func == NULL)
            Py_CLEAR(found);
        else
            PyTuple_SET_ITEM(found, (Py_ssize_t)i, func);
    }
    return found;
}

PyObject *
azs_reader_original(const azs_state *st, azs_original which)
{
    Py_ssize_t i = (Py_ssize_t)AZS_ARRAY_LEN(reader_methods) + which;
    assert(i < PyTuple_GET_SIZE(st->reader_class_methods));
    return PyTuple_GET_ITEM(st->reader_class_methods, i);
}

/* 1 where the classes are as asyncio made them: who replaces a method, to watch or to
 * fake it, gets what he asked for. 0, or -1. */
static int
classes_are_original(azs_state *st)
{
    PyObject *now = class_functions(st);
    if (now == NULL)
        return -1;
    int same = PyTuple_GET_SIZE(now) == PyTuple_GET_SIZE(st->reader_class_methods);
    for (Py_ssize_t i = 0; same && i < PyTuple_GET_SIZE(now); i++)
        same =
            PyTuple_GET_ITEM(now, i) == PyTuple_GET_ITEM(st->reader_class_methods, i);
    Py_DECREF(now);
    return same;
}

int
azs_reader_set_method(PyObject *obj, PyMethodDef *def, PyObject *original,
                      StreamObject *stream)
{
    PyObject *name = PyUnicode_InternFromString(def->ml_name);
    PyObject *now = name == NULL ? NULL : PyObject_GetAttr(obj, name), *func = NULL;
    int res = -1;
    if (now == NULL)
        goto done;
    res = PyMethod_Check(now) ? PyMethod_GET_FUNCTION(now) == original
                              : PyCFunction_CheckExact(now) &&
                                    PyCFunction_GET_FUNCTION(now) == def->ml_meth;
    if (res == 0)
        goto done;
    func = PyCFunction_New(def, (PyObject *)stream);
    if (func == NULL || PyObject_SetAttr(obj, name, func) < 0)
        res = -1;
done:
    Py_XDECREF(func);
    Py_XDECREF(now);
    Py_XDECREF(name);
    return res;
}

/* True where it is an asyncio.StreamReader of our loop, with what is used of it. 1, 0
 * or -1. */
static int
reader_is_known(StreamObject *stream, PyObject *reader, PyObject *dict)
{
    azs_state *st = stream->base.st;
    if ((PyObject *)Py_TYPE(reader) != st->stream_reader)
        return 0;
    PyObject *loop = PyDict_GetItemString(dict, "_loop"); /* without exceptions */
    if (loop != (PyObject *)stream->base.loop)
        return 0;
    PyObject *names[] = {st->str__buffer,   st->str__waiter, st->str__eof,
                         st->str__limit,    st->str__paused, st->str__transport,
                         st->str__exception};
    for (size_t i = 0; i < AZS_ARRAY_LEN(names); i++) {
        int has = PyDict_Contains(dict, names[i]);
        if (has <= 0)
            return has;
    }
    return classes_are_original(st);
}

/* Gives the protocol's reader the methods in C, as attributes of the instance, where
 * the loop does not debug and nobody has replaced them. 0 or -1. */
static int
reader_attach(StreamObject *stream, PyObject *protocol)
{
    azs_state *st = stream->base.st;
    if (stream->base.loop->debug)
        return 0;
    PyObject *reader, *dict = NULL;
    int res = azs_reader_of(st, protocol, &reader);
    if (res <= 0)
        return res;
    res = -1;
    dict = azs_reader_dict(reader);
    if (dict == NULL)
        goto done;
    res = reader_is_known(stream, reader, dict);
    if (res <= 0)
        goto done;
    res = -1;
    /* The methods know the stream: what they read from stays the same for ever. */
    PyObject *first;
    res = azs_weakref_get(stream->reader_ref, &first);
    if (res < 0)
        goto done;
    Py_XDECREF(first);
    if (first != reader && stream->reader_ref != NULL) {
        res = 0;
        goto done;
    }
    res = -1;
    if (stream->reader_ref == NULL) {
        stream->reader_ref = PyWeakref_NewRef(reader, NULL);
        if (stream->reader_ref == NULL)
            goto done;
    }
    stream->attached = true;
    res = 1;
    for (size_t i = 0; res >= 0 && i < AZS_ARRAY_LEN(reader_methods); i++)
        res = azs_reader_set_method(
            reader, &reader_methods[i],
            PyTuple_GET_ITEM(st->reader_class_methods, (Py_ssize_t)i), stream);
    if (res >= 0)
        res = azs_drain_attach(stream, protocol);
done:
    Py_XDECREF(dict);
    Py_DECREF(reader);
    return res < 0 ? -1 : 0;
}

/* True where all are functions of asyncio's modules: nobody was there before us. */
static int
are_of_asyncio(PyObject *functions)
{
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(functions); i++) {
        PyObject *func = PyTuple_GET_ITEM(functions, i);
        if (!PyFunction_Check(func))
            return 0;
        PyObject *module = PyObject_GetAttrString(func, "__module__");
        if (module == NULL)
            return -1;
        int same = PyUnicode_Check(module) &&
                   PyUnicode_CompareWithASCIIString(module, "asyncio.streams") == 0;
        Py_DECREF(module);
        if (!same)
            return 0;
    }
    return 1;
}

static const azs_stream_sink reader_sink = {
    .serves = reader_serves,
    .attach = reader_attach,
    .detach = azs_drain_detach,
    .receive = azs_feed_receive,
};

int
azs_streams_init(PyObject *mod, azs_state *st)
{
    if (azs_import_attr(&st->stream_reader, "asyncio", "StreamReader") < 0 ||
        azs_import_attr(&st->stream_reader_protocol, "asyncio",
                        "StreamReaderProtocol") < 0 ||
        azs_read_coro_init(mod, st) < 0 || azs_drain_init(mod, st) < 0)
        return -1;
    azs_readbuf_init(st);
    PyObject *functions = class_functions(st);
    int original = functions == NULL ? -1 : are_of_asyncio(functions);
    if (original == 0)
        Py_SETREF(functions, PyTuple_New(0)); /* never the same */
    st->reader_class_methods = functions;
    if (original < 0 || functions == NULL)
        return -1;
    st->stream_sink = &reader_sink;
    return 0;
}
