/* ZmqTransportObject and what the transport_*.c share about it. */
#ifndef AZS_ZMQ_ZMQ_TRANSPORT_H
#define AZS_ZMQ_ZMQ_TRANSPORT_H

#include "base/ring.h"
#include "loop/flow.h"
#include "loop/loop_object.h"
#include "zmq/engine.h"
#include "zmq/libzmq/message.h"
#include "zmq/zmq_module.h"

/* What the module keeps for ZeroMQ: azs_state.zmq. */
struct azs_zmq_state {
    azs_libzmq lib; /* all NULL until _zmq_bind() */
    bool bound;
    azs_zmq_release *release; /* owned */
#ifndef Py_GIL_DISABLED
    azs_spare spare; /* for a large frame: of whichever transport is next */
#endif
    int64_t release_due_ns; /* a look at it is scheduled before; 0: none is */
};

/* The states of a transport, in order:
 *   new      tp_init has not succeeded: loop is NULL, every method refuses;
 *   open     the socket is watched once _start ran;
 *   closing  `closing`: nothing is received; the queue is sent;
 *   lost     `conn_lost` > 0: not watched; connection_lost is scheduled;
 *   dead     loop, socket.object and protocol are NULL again.
 */
typedef struct {
    PyObject_HEAD
    PyObject *base_extra; /* the slot of asyncio.BaseTransport, hidden by _extra */
    azs_state *st;        /* held */

    /* Every message. */
    azs_zmq_socket socket;
    PyObject *protocol;   /* owned or NULL */
    PyObject *context;    /* owned or NULL: the Context of every callback */
    PyObject *event_type; /* owned; NULL but for a monitor's PAIR socket, whose
                           * messages its protocol gets as events of this type */
    bool can_receive;
    bool closing;
    bool paused;      /* by pause_reading */
    bool in_turn;     /* inside azs_zmq_transport_turn: it looks for messages
                       * after whatever its callbacks do */
    bool wrote;       /* write() was called since the last message */
    bool one_by_one;  /* the last turns found a message each: see drain() */
    bool looks_later; /* this one left the look for more to the next */
    bool armed;       /* foreign loops: _on_armed is scheduled */
    bool watched;     /* by the loop (add_reader on a foreign one), or the engine */
    bool told;        /* connection_lost was called, or never will be */

    /* What waits to be sent: owned tuples of bytes, never empty ones. */
    azs_ring queue;
    Py_ssize_t queue_bytes; /* their payload */
    azs_flow flow;

    LoopObject *own_loop; /* borrowed from `loop` where it is ours, else NULL; read by
                           * other threads, too */
    azs_watcher watcher;  /* in own_loop; the loop owns a ref to us meanwhile */
    PyObject *loop;       /* owned or NULL */
    PyObject *retry;      /* owned or NULL: TimerHandle of _on_retry */
    PyObject *linger;     /* owned or NULL: TimerHandle of _on_linger */
    PyObject *extra;      /* owned or NULL: dict of get_extra_info */
    PyObject *high_object, *low_object; /* owned: the limits as they were given */
    Py_ssize_t conn_lost; /* 1 from the scheduling of connection_lost on, then
                           * one more a lost write */
    unsigned fork_generation;
#ifdef Py_GIL_DISABLED
    azs_spare spare; /* for a large frame: transports may be in several threads */
#endif
} ZmqTransportObject;

/* Where large frames are received into. */
static inline azs_spare *
azs_zmq_transport_spare(ZmqTransportObject *self)
{
#ifdef Py_GIL_DISABLED
    return &self->spare;
#else
    return &self->st->zmq->spare;
#endif
}

/* ---- transport_life.c ---- */

/* Free-threaded builds: its loop runs in no other thread. 0, or -1 with an exception.
 * What Python calls begins with it, but for what any thread may ask. Runs the code of
 * a loop that is not ours. */
int azs_zmq_transport_check_foreign(ZmqTransportObject *self);

static inline int
azs_zmq_transport_check_thread(ZmqTransportObject *self)
{
#ifdef Py_GIL_DISABLED
    const LoopObject *own_loop = AZS_ATOMIC_LOAD(&self->own_loop);
    return azs_likely(own_loop != NULL) ? azs_loop_check_thread(own_loop)
                                        : azs_zmq_transport_check_foreign(self);
#else
    (void)self;
    return 0;
#endif
}

/* ---- transport_turn.c ---- */

/* Has the next turn look for messages and room. 0, or -1 with an exception. */
int azs_zmq_transport_arm(ZmqTransportObject *self);

/* One turn: receives, sends, and arms what is left. 0, or -1 with what a
 * callback raised. The caller holds a reference. */
int azs_zmq_transport_turn(ZmqTransportObject *self);

/* write(): 0, or -1 with an exception. */
int azs_zmq_transport_write(ZmqTransportObject *self, PyObject *data);

/* write() of at least one bytes object, which the caller keeps. */
int azs_zmq_transport_write_frames(ZmqTransportObject *self, PyObject *const *frames,
                                   Py_ssize_t nframes);

/* For azs_state.zmq_write. */
int azs_zmq_write_by(PyObject *write, PyObject *const *frames, Py_ssize_t nframes);

/* Drops the queue; finalizers may run. */
void azs_zmq_transport_clear_queue(ZmqTransportObject *self);

/* Calls pause_writing where the queue is over its high water mark. 0, or -1 with
 * what the loop's exception handler raised. */
int azs_zmq_transport_maybe_pause(ZmqTransportObject *self);

/* ---- transport_type.c ---- */

extern PyType_Spec azs_zmq_transport_spec;

/* ---- transport_life.c, the rest ---- */

/* Begins to watch the socket; harmless when repeated. Failing ends the transport.
 * 0, or -1 with what the exception handler raised. */
int azs_zmq_transport_start(ZmqTransportObject *self);

/* Goes on with a socket of libzmq, with what waits to be sent. 0, or -1 with an
 * exception and the socket that it had. */
int azs_zmq_transport_replace(ZmqTransportObject *self, PyObject *object);

/* Ends it once its queue is empty. 0, or -1 with an exception. */
int azs_zmq_transport_close(ZmqTransportObject *self);

/* Ends it now, losing the queue: connection_lost(exc) follows; `exc` borrowed,
 * NULL for None. 0, or -1 with an exception. */
int azs_zmq_transport_force_close(ZmqTransportObject *self, PyObject *exc);

/* Leaves the loop: from now on the transport is dead. The socket is closed,
 * without a word to the protocol. 0, or -1 with an exception. */
int azs_zmq_transport_abandon(ZmqTransportObject *self);

/* Reports the current exception to the loop and aborts. `message` is asyncio's
 * context["message"]. 0, or -1 with what the exception handler raised. */
int azs_zmq_transport_fatal(ZmqTransportObject *self, const char *message);

/* Schedules connection_lost(exc), once; `exc` borrowed, NULL for None. 0, or -1
 * with an exception. */
int azs_zmq_transport_lose(ZmqTransportObject *self, PyObject *exc);

/* Reports the current exception with `message` and the protocol. 0, or -1. */
int azs_zmq_transport_report(ZmqTransportObject *self, const char *message,
                             PyObject *exc);

/* After a failed call of a loop's method: 0 with the exception forgotten where
 * the loop is closed, so that nothing more can happen; else -1. */
int azs_zmq_transport_forgive_closed_loop(ZmqTransportObject *self);

/* Is the socket there, and not closed by the user behind our back? 1; 0; or -1
 * with an exception. To be asked again after each Python call and before each
 * call of the engine. Runs no Python code. */
static inline int
azs_zmq_transport_usable(ZmqTransportObject *self)
{
    return self->socket.handle == NULL ? 0 : self->socket.engine->usable(&self->socket);
}

/* Has a turn run a little later; once. 0, or -1 with an exception. */
int azs_zmq_transport_schedule_retry(ZmqTransportObject *self);

/* Sees to it that the release list is looked at soon. 0, or -1. */
int azs_zmq_transport_watch_release(ZmqTransportObject *self);

#endif
