/* What the read methods of a StreamReader return where its transport is ours: a
 * coroutine in C.
 *
 * To whoever drives it, it is asyncio's coroutine of that name: nothing happens before
 * the first send(); while it waits the reader's _waiter is set, and feed_eof(),
 * set_exception() and the reader's other coroutines work as ever. What the transport
 * receives meanwhile is handed to it without going through the reader's _buffer; where
 * it is cancelled before it could return that, it is put back to the front.
 */
#ifndef AZS_NET_READOP_H
#define AZS_NET_READOP_H

#include "loop/waiter.h"
#include "net/stream.h"

typedef enum {
    AZS_READ_SOME,    /* read(n), n > 0 */
    AZS_READ_EXACTLY, /* readexactly(n), n > 0 */
    AZS_READ_UNTIL,   /* readuntil(separator) */
    AZS_READ_LINE,    /* readline() */
} azs_read_kind;

struct ReadOpObject {
    PyObject_HEAD
    azs_state *st;        /* borrowed: the loop holds it */
    StreamObject *stream; /* owned */
    PyObject *reader;     /* owned; NULL once finished */
    PyObject *separator;  /* owned, exact bytes; NULL but for AZS_READ_UNTIL */
    PyObject *data;       /* owned or NULL: what was handed over, exact bytes */
    /* Owned while it waits. `stream` then knows this, as long as it may hand over. */
    WaiterObject *waiter;
    Py_ssize_t n;
    Py_ssize_t offset; /* where to look for the separator */
    azs_read_kind kind;
    enum { AZS_READOP_CREATED, AZS_READOP_SUSPENDED, AZS_READOP_FINISHED } state;
    bool look_again; /* for whether the transport may go on */
    bool running;    /* in send() or throw() */
};

/* New reference. `separator` as in the field; borrowed. */
PyObject *azs_readop_new(StreamObject *stream, PyObject *reader, azs_read_kind kind,
                         Py_ssize_t n, PyObject *separator);

/* True where it waits and a read of `expected` bytes could be its result as it is. */
bool azs_readop_wants_object(const ReadOpObject *self, size_t expected);

/* Takes what was received, `len` > 0 bytes at `buf`; `data` is an exact bytes object of
 * just these (borrowed), or NULL. 1 where it is done with, 0 where data_received() is
 * to be called, -1 with an exception. */
int azs_readop_feed(ReadOpObject *self, const char *buf, size_t len, PyObject *data);

int azs_readop_init(PyObject *mod, azs_state *st);

/* Frees the objects kept for reuse and keeps no more. */
void azs_readop_free_list_clear(azs_state *st);

#endif
