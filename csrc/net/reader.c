/* The attributes used here are those of asyncio/streams.py, 3.11 to 3.15: a
 * bytearray _buffer, a Future or None _waiter, _eof, _limit, _paused, _transport.
 * Whatever looks different is left to the Python code. */
#include "net/reader.h"

#include <string.h>

bool
azs_reader_serves(azs_state *st, PyObject *protocol)
{
    return (PyObject *)Py_TYPE(protocol) == st->stream_reader_protocol;
}

/* The reader that the protocol refers to weakly: 1 with a new reference in *out,
 * 0 for none, -1 with an exception. */
static int
reader_of(azs_state *st, PyObject *protocol, PyObject **out)
{
    PyObject *ref = PyObject_GetAttr(protocol, st->str__stream_reader_wr);
    if (ref == NULL)
        return -1;
    int res = 0;
    *out = NULL;
    if (PyWeakref_CheckRefExact(ref)) {
#if PY_VERSION_HEX >= 0x030D0000
        res = PyWeakref_GetRef(ref, out);
#else
        PyObject *obj = PyWeakref_GetObject(ref); /* borrowed */
        if (obj != NULL && obj != Py_None) {
            *out = Py_NewRef(obj);
            res = 1;
        }
#endif
    }
    Py_DECREF(ref);
    return res;
}

/* Wakes whoever reads, as StreamReader._wakeup_waiter. 0 or -1. */
static int
wake_waiter(azs_state *st, PyObject *reader)
{
    PyObject *waiter = PyObject_GetAttr(reader, st->str__waiter);
    if (waiter == NULL)
        return -1;
    int res = -1;
    if (waiter == Py_None) {
        res = 0;
        goto done;
    }
    if (PyObject_SetAttr(reader, st->str__waiter, Py_None) < 0)
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

/* Stops the transport where more than twice the limit is buffered. 0 or -1. */
static int
respect_limit(azs_state *st, PyObject *reader, Py_ssize_t buffered)
{
    PyObject *limit_obj = PyObject_GetAttr(reader, st->str__limit);
    if (limit_obj == NULL)
        return -1;
    Py_ssize_t limit = PyNumber_AsSsize_t(limit_obj, NULL); /* clips */
    Py_DECREF(limit_obj);
    if (limit == -1 && PyErr_Occurred())
        return -1;
    if (limit > PY_SSIZE_T_MAX / 2 || buffered <= 2 * limit)
        return 0;
    int res = -1;
    PyObject *transport = NULL, *paused = PyObject_GetAttr(reader, st->str__paused);
    if (paused == NULL)
        return -1;
    int is_paused = PyObject_IsTrue(paused);
    Py_DECREF(paused);
    if (is_paused != 0)
        return is_paused < 0 ? -1 : 0;
    transport = PyObject_GetAttr(reader, st->str__transport);
    if (transport == NULL)
        return -1;
    if (transport == Py_None) {
        res = 0;
        goto done;
    }
    PyObject *ok = PyObject_CallMethodNoArgs(transport, st->str_pause_reading);
    if (ok == NULL)
        goto done;
    Py_DECREF(ok);
    res = PyObject_SetAttr(reader, st->str__paused, Py_True);
done:
    Py_DECREF(transport);
    return res;
}

int
azs_reader_feed(azs_state *st, PyObject *protocol, const char *data, size_t len)
{
    PyObject *reader, *eof = NULL, *buffer = NULL;
    int res = reader_of(st, protocol, &reader);
    if (res < 0)
        return -1;
    if (res == 0)
        return 1; /* the reader is gone: asyncio drops the data too */
    res = -1;
    if ((PyObject *)Py_TYPE(reader) != st->stream_reader) {
        res = 0;
        goto done;
    }
    eof = PyObject_GetAttr(reader, st->str__eof);
    buffer = eof == NULL ? NULL : PyObject_GetAttr(reader, st->str__buffer);
    if (buffer == NULL)
        goto done;
    if (eof != Py_False || !PyByteArray_CheckExact(buffer)) {
        res = 0;
        goto done;
    }
    Py_ssize_t old = PyByteArray_GET_SIZE(buffer);
    if (PyByteArray_Resize(buffer, old + (Py_ssize_t)len) < 0)
        goto done;
    memcpy(PyByteArray_AS_STRING(buffer) + old, data, len);
    if (wake_waiter(st, reader) < 0 ||
        respect_limit(st, reader, old + (Py_ssize_t)len) < 0)
        goto done;
    res = 1;
done:
    Py_XDECREF(buffer);
    Py_XDECREF(eof);
    Py_DECREF(reader);
    return res;
}

int
azs_reader_init(PyObject *Py_UNUSED(mod), azs_state *st)
{
    PyObject *asyncio = PyImport_ImportModule("asyncio");
    if (asyncio == NULL)
        return -1;
    st->stream_reader = PyObject_GetAttrString(asyncio, "StreamReader");
    st->stream_reader_protocol =
        PyObject_GetAttrString(asyncio, "StreamReaderProtocol");
    Py_DECREF(asyncio);
    return st->stream_reader == NULL || st->stream_reader_protocol == NULL ? -1 : 0;
}
