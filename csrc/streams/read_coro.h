/* What the read methods of a StreamReader return where its transport is ours: a
 * coroutine in C.
 *
 * To whoever drives it, it is asyncio's coroutine of that name: nothing happens before
 * the first send(); while it waits the reader's _waiter is set, and feed_eof(),
 * set_exception() and the reader's other coroutines work as ever. It takes from _buffer
 * when it returns and not before: one that is cancelled has taken nothing.
 */
#ifndef AZS_STREAMS_READ_CORO_H
#define AZS_STREAMS_READ_CORO_H

#include "loop/waiter.h"
#include "net/stream.h"
#include "py/coro.h"

typedef enum {
    AZS_READ_SOME,    /* read(n), n > 0 */
    AZS_READ_EXACTLY, /* readexactly(n), n > 0 */
    AZS_READ_UNTIL,   /* readuntil(separator) */
    AZS_READ_LINE,    /* readline() */
} azs_read_kind;

typedef struct {
    CoroObject coro;      /* awaits the Waiter that is the reader's _waiter */
    StreamObject *stream; /* owned */
    PyObject *reader;     /* owned; NULL once finished */
    PyObject *separator;  /* owned, exact bytes; NULL but for AZS_READ_UNTIL */
    Py_ssize_t n;
    Py_ssize_t offset; /* where to look for the separator */
    azs_read_kind kind;
} ReadCoroObject;

/* New reference. `separator` as in the field; borrowed. */
PyObject *azs_read_coro_new(StreamObject *stream, PyObject *reader, azs_read_kind kind,
                            Py_ssize_t n, PyObject *separator);

int azs_read_coro_init(PyObject *mod, azs_state *st);

#endif
