/* What zmq_asyncio's sockets are in C: see async_socket.c for the whole. */
#ifndef AZS_ZMQ_AWAITABLE_ASYNC_SOCKET_H
#define AZS_ZMQ_AWAITABLE_ASYNC_SOCKET_H

#include "loop/loop_object.h"
#include "loop/waiter.h"
#include "zmq/awaitable/stash.h"
#include "zmq/zmq_transport.h"

typedef struct AsyncSocketObject AsyncSocketObject;
typedef struct azs_operation azs_operation;

typedef struct {
    azs_operation *first, *last;
    size_t count;
} azs_operation_queue;

struct AsyncSocketObject {
    PyObject_HEAD
    azs_state *st; /* held */
    void *handle;  /* borrowed from the zmq.Socket; NULL once that is closed */
    AsyncSocketObject *next_listed; /* borrowed: they leave when they end */
    bool has_siblings;              /* others may be of the same handle */
    bool handle_closed;             /* by one of them, or unseen */
    PyObject *shadow; /* owned: a zmq.Socket of the same handle, for pyzmq's methods */

    azs_operation_queue receives, sends; /* those that wait, in order */
    PyObject *polls;                     /* owned or NULL: list[(Future, events)] */
    azs_stash stash;                     /* received, and nobody's */
    uint64_t number;                     /* of the next message */
    int more; /* RCVMORE of the last frame where it came by way of this, else -1 */

    /* The loop that runs what waits; NULL before the first wait. */
    PyObject *loop;       /* owned; with `own_loop`, other threads read it */
    LoopObject *own_loop; /* borrowed from `loop` where it is ours, else NULL */
#ifdef Py_GIL_DISABLED
    uintptr_t closer; /* the thread that closes it, or has; 0 for none */
#endif
    PyObject *loop_kwargs; /* owned: {"loop": loop} */
    azs_watcher watcher;   /* of ZMQ_FD in own_loop */
    bool reading_fd;       /* foreign loops: add_reader is in effect */
    PyObject *armed;       /* owned or NULL, foreign loops: Handle of _on_armed */
    PyObject *woken;       /* owned or NULL, foreign loops: waiters of this turn's */
    bool in_turn;
    bool looks_again; /* something asked for a turn in this turn */
    int fd;           /* ZMQ_FD */
    int own_fd;       /* a duplicate that is watched where ZMQ_FD is taken; else -1 */
    PyObject *retry;  /* owned or NULL: TimerHandle of the next try to send */

    /* Fairness: what was received without a turn of the loop in between. */
    int received;
    size_t received_bytes;
    uint64_t received_turn; /* of own_loop */

    int zmq_type;
    bool drops_rest;       /* see azs_zmq_send */
    bool pollout_constant; /* ZMQ_EVENTS cannot tell when to send again */
    unsigned fork_generation;
};

static inline const azs_libzmq *
azs_async_libzmq(const AsyncSocketObject *self)
{
    return &self->st->zmq->lib;
}

static inline bool
azs_async_has_polls(const AsyncSocketObject *self)
{
    return self->polls != NULL && PyList_GET_SIZE(self->polls) > 0;
}

static inline bool
azs_async_anything_waits(const AsyncSocketObject *self)
{
    return self->receives.count > 0 || self->sends.count > 0 ||
           azs_async_has_polls(self);
}

/* Is its loop told of ZMQ_FD? */
static inline bool
azs_async_is_watched(const AsyncSocketObject *self)
{
    return self->loop != NULL && (self->watcher.fd >= 0 || self->reading_fd);
}

/* ---- siblings.c ---- */

/* It is a socket of `handle` from now on, and until it is none any more; the second is
 * harmless when repeated. Where libzmq has just made the handle, those that are found
 * there are of one that was closed, and nobody told. */
void azs_async_register(AsyncSocketObject *self, void *handle, bool is_new);
void azs_async_unregister(AsyncSocketObject *self);

/* The others of the same handle: a new list, or NULL with an exception. */
PyObject *azs_async_siblings(AsyncSocketObject *self);

/* ---- async_take.c ---- */

/* What the receive `op` asks for, if it is there. 0 with *item filled in and the size
 * of its payload; libzmq's errno; ECANCELED where `op` ended in there, and the message
 * is in the stash; -1 with an exception. */
int azs_async_take(AsyncSocketObject *self, azs_operation *op, azs_stashed *item,
                   size_t *size);

/* The bytes of which recv_into() has put `size` into the user's buffer, args[0], for
 * the stash: new reference; NULL with an exception. Steals both. */
PyObject *azs_async_bytes_of_buffer_steal(PyObject *size, PyObject *args);

/* ---- async_turn.c ---- */

/* Does it now or has it wait: new reference to an operation, or a Future that is
 * done; NULL with an exception. `op` is stolen. */
PyObject *azs_async_receive_steal(AsyncSocketObject *self, azs_operation *op,
                                  PyObject *owner);
PyObject *azs_async_send_steal(AsyncSocketObject *self, azs_operation *op,
                               PyObject *owner);

/* Sends bytes objects as one message if nothing waits to be sent: new reference to a
 * Future that is done. NULL without an exception where it has to wait; NULL with one.
 */
PyObject *azs_async_send_at_once(AsyncSocketObject *self, PyObject *const *parts,
                                 Py_ssize_t nparts);

/* As the first two with DONTWAIT: what cannot be done at once has failed. */
PyObject *azs_async_receive_now_steal(AsyncSocketObject *self, azs_operation *op);
PyObject *azs_async_send_now_steal(AsyncSocketObject *self, azs_operation *op);

/* Serves what waits. 0, or -1 with what must leave the loop. The caller holds a
 * reference. */
int azs_async_turn(AsyncSocketObject *self);

/* ---- woken.c ---- */

/* Is the waiter one that the end of this turn wakes? Keeps no exception. */
bool azs_async_put_off(AsyncSocketObject *self, PyObject *waiter);

/* Wakes them: their tasks run in here, if they may. 0, or -1 with the first exception.
 * The caller holds a reference. */
int azs_async_run_woken(AsyncSocketObject *self);

/* ---- async_socket.c ---- */

/* Has its loop watch ZMQ_FD; harmless when repeated. 0 or -1. */
int azs_async_watch(AsyncSocketObject *self);

/* Free-threaded builds: its loop, if it has one, runs in no other thread, and none
 * closes it. 0, or -1 with an exception. What Python calls begins with it, or with
 * azs_async_enter_loop(). */
int azs_async_check_thread(AsyncSocketObject *self);

/* The loop that runs is the socket's from now on. 0, or -1 with RuntimeError where
 * another still has operations of it, or runs in another thread. */
int azs_async_enter_loop(AsyncSocketObject *self);

/* Takes it out of its queue, if it is in one; drops a reference to it. */
void azs_async_unqueue(azs_operation *op);

/* Has the loop look at the socket in the next turn, if anything waits there, or at
 * another of its handle. 0 or -1. The second is for those who may wait for one of
 * `events`, and only at the others. */
int azs_async_arm(AsyncSocketObject *self);
int azs_async_arm_siblings(AsyncSocketObject *self, int events);

/* A new exception of pyzmq for an errno; NULL with another one. The second raises it.
 */
PyObject *azs_async_error(azs_state *st, int err);
void azs_async_raise(azs_state *st, int err);

int azs_async_init(PyObject *mod, azs_state *st);

/* ---- async_methods.c ---- */

int azs_async_methods_init(PyObject *mod, azs_state *st);

#endif
