/* Messages that were received and not taken, in the order they came. */
#ifndef AZS_ZMQ_AWAITABLE_STASH_H
#define AZS_ZMQ_AWAITABLE_STASH_H

#include "py/state.h"

typedef struct {
    uint64_t number;
    PyObject *message; /* owned: a frame (bytes or zmq.Frame), or a list of them */
    bool more;         /* a frame that others of its message follow */
} azs_stashed;

typedef struct {
    azs_stashed *items; /* [first, first + count): by number, lowest first */
    size_t first, count, capacity;
} azs_stash;

/* Puts a message in its place; steals it. 0, or -1 with MemoryError. */
int azs_stash_put_steal(azs_stash *stash, azs_stashed item);

/* Takes the first; the stash must not be empty. */
azs_stashed azs_stash_pop(azs_stash *stash);

/* Drops everything; finalizers may run. */
void azs_stash_clear(azs_stash *stash);

#endif
