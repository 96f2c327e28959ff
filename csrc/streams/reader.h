/* asyncio.StreamReader without Python code per packet: it is fed, and read, from C.
 *
 * The attributes used are those of asyncio/streams.py, 3.11 to 3.15: a bytearray
 * _buffer, a Future or None _waiter, _eof, _exception, _limit, _paused, _transport.
 * They stay what they mean there, at every moment that other code can see.
 */
#ifndef AZS_STREAMS_READER_H
#define AZS_STREAMS_READER_H

#include "net/stream.h"
#include "py/containers.h"

/* The reader that a StreamReaderProtocol refers to weakly: as azs_weakref_get(). */
int azs_reader_of(azs_state *st, PyObject *protocol, PyObject **out);

/* ---- shared with the writer ---- */

/* Calls a method of asyncio's class with the instance put in front: for what the fast
 * way does not do. New reference. */
PyObject *azs_reader_call_class(PyObject *cls, PyObject *name, PyObject *self,
                                PyObject *const *args, Py_ssize_t nargs,
                                PyObject *kwnames);

/* Sets a method that the object has from its class, `original`, or from us already. 1,
 * 0 where somebody else has set it, or -1. */
int azs_reader_set_method(PyObject *obj, PyMethodDef *def, PyObject *original,
                          StreamObject *stream);

/* asyncio's functions that the methods of writing stand for: borrowed. Only where a
 * reader was attached. */
typedef enum { AZS_ORIGINAL_DRAIN_HELPER, AZS_ORIGINAL_DRAIN } azs_original;
PyObject *azs_reader_original(const azs_state *st, azs_original which);

/* ---- the reader's attributes ---- */

/* Its __dict__: new reference, or NULL with an exception. */
static inline PyObject *
azs_reader_dict(PyObject *reader)
{
    return PyObject_GenericGetDict(reader, NULL);
}

/* NULL with an exception, or what is borrowed until Python code runs. Without a GIL it
 * is a new reference: another thread may call the reader's own methods, which asyncio
 * does not guard. So azs_reader_keep() makes it the caller's, or azs_reader_let_go()
 * ends its use. */
static inline PyObject *
azs_reader_get(PyObject *dict, PyObject *name)
{
    PyObject *value;
#ifdef Py_GIL_DISABLED
    (void)azs_dict_get(dict, name, &value);
#else
    value = PyDict_GetItemWithError(dict, name);
#endif
    if (azs_unlikely(value == NULL && !PyErr_Occurred()))
        PyErr_SetObject(PyExc_AttributeError, name);
    return value;
}

static inline PyObject *
azs_reader_keep(PyObject *value)
{
#ifndef Py_GIL_DISABLED
    Py_XINCREF(value);
#endif
    return value;
}

static inline void
azs_reader_let_go(PyObject *value)
{
#ifdef Py_GIL_DISABLED
    Py_XDECREF(value);
#else
    (void)value;
#endif
}

/* _buffer: new reference; NULL with TypeError where it is no bytearray. */
PyObject *azs_reader_buffer(azs_state *st, PyObject *dict);

/* Whether an attribute is true: 1, 0 or -1. */
int azs_reader_is_true(PyObject *dict, PyObject *name);

/* Wakes whoever reads, as StreamReader._wakeup_waiter. 0 or -1. */
int azs_reader_wake(azs_state *st, PyObject *dict);

/* Stops the transport where more than twice the limit is buffered. 0 or -1. */
int azs_reader_respect_limit(azs_state *st, PyObject *dict, PyObject *buffer);

/* Lets the transport go on, where it was stopped: at once, or where the buffer is down
 * to the limit again. 0 or -1. */
int azs_reader_resume(azs_state *st, PyObject *dict);
int azs_reader_maybe_resume(azs_state *st, PyObject *dict, PyObject *buffer);

/* Registers the sink of stream transports. */
int azs_streams_init(PyObject *mod, azs_state *st);

#endif
