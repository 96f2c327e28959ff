/* asyncio.StreamReader without Python code per packet: it is fed, and read, from C.
 *
 * The attributes used are those of asyncio/streams.py, 3.11 to 3.15: a bytearray
 * _buffer, a Future or None _waiter, _eof, _exception, _limit, _paused, _transport.
 * They stay what they mean there, at every moment that other code can see.
 */
#ifndef AZS_NET_READER_H
#define AZS_NET_READER_H

#include "net/stream.h"

/* True where `protocol` is exactly asyncio's StreamReaderProtocol: subclasses may
 * look at the data themselves. */
bool azs_reader_serves(azs_state *st, PyObject *protocol);

/* Gives the protocol's reader the methods in C, as attributes of the instance, where
 * the loop does not debug and nobody has replaced them. 0 or -1. */
int azs_reader_attach(StreamObject *stream, PyObject *protocol);

/* ---- what protocol.data_received() does ---- */

typedef struct {
    PyObject *reader; /* owned; NULL where it is gone: asyncio drops the data, too */
    PyObject *dict;   /* owned: its __dict__ */
    PyObject *buffer; /* owned: its _buffer */
} azs_feed;

/* Finds the reader that the stream feeds. 1, 0 where it is of some other class or state
 * and data_received() must be called, -1 with an exception. May run Python code. To be
 * followed by azs_feed_end() in any case. */
int azs_feed_begin(azs_feed *feed, StreamObject *stream);

/* Tells whoever reads, after data was added to the buffer. 0 or -1. */
int azs_feed_done(azs_feed *feed, azs_state *st);

void azs_feed_end(azs_feed *feed);

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

/* Borrowed, or NULL with AttributeError. Nothing but a change of the attribute ends its
 * life. */
static inline PyObject *
azs_reader_get(PyObject *dict, PyObject *name)
{
    PyObject *value = PyDict_GetItemWithError(dict, name);
    if (azs_unlikely(value == NULL && !PyErr_Occurred()))
        PyErr_SetObject(PyExc_AttributeError, name);
    return value;
}

/* _buffer: borrowed; NULL with TypeError where it is no bytearray. */
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

int azs_reader_init(PyObject *mod, azs_state *st);

#endif
