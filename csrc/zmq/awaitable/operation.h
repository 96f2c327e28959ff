/* A receive or a send of zmq_asyncio: see operation.c. */
#ifndef AZS_ZMQ_AWAITABLE_OPERATION_H
#define AZS_ZMQ_AWAITABLE_OPERATION_H

#include "zmq/awaitable/async_socket.h"

typedef struct OperationWait OperationWait;

typedef enum {
    AZS_RECV,                /* one frame as bytes */
    AZS_RECV_MULTIPART,      /* a message as list[bytes] */
    AZS_RECV_CALL,           /* one frame as zmq.Frame, by pyzmq's own method */
    AZS_RECV_MULTIPART_CALL, /* the same for a message as list[zmq.Frame] */
    AZS_RECV_INTO,           /* one frame into the user's buffer, the same way */
    AZS_SEND,                /* a message that is a tuple of bytes */
    AZS_SEND_CALL,           /* by pyzmq's own method */
} azs_operation_kind;

/* What one receive or send adds to asyncio.Future, behind its fields: see operation.c.
 *
 * A receive that is done holds its `message` until somebody takes it: an await that
 * returns it, or result(). If that cannot come any more it goes back to the socket. */
struct azs_operation {
    azs_state *st;    /* held; NULL where it was never initialised */
    PyObject *future; /* borrowed: the object that this is in */
#ifdef Py_GIL_DISABLED
    PyObject *loop;       /* owned: the one that it was made in */
    LoopObject *own_loop; /* borrowed from `loop` where it is ours, else NULL */
#endif
    AsyncSocketObject *core; /* owned while it is queued or has a message */
    PyObject *owner;         /* owned while queued: the zmq.Socket in Python */
    PyObject *message;       /* owned or NULL: to be sent, or received and not taken */
    PyObject *result; /* owned or NULL: where that is not the message, and not real */
    PyObject *loop_kwargs;   /* owned until it is real: {"loop": loop} */
    PyObject *load;          /* owned or NULL: makes the result of a message */
    PyObject *call;          /* owned or NULL: for the kinds _CALL */
    PyObject *args, *kwargs; /* owned with `call` */
    PyObject *timer;         /* owned or NULL: TimerHandle of RCVTIMEO, SNDTIMEO */
    OperationWait *waits;    /* borrowed: they leave this when they end */
    size_t sleepers;         /* how many have slept and not ended */
    struct azs_operation *next,
        *prev;       /* in the socket's queue, which owns a reference */
    uint64_t number; /* of `message` */
    azs_operation_kind kind;
    bool more; /* `message` is a frame that others of the message follow */
    bool queued;
    bool done;
    bool real;     /* the base's fields are in use: see make_real() */
    bool shared;   /* it has callbacks: others than the awaiting task want the result */
    bool returned; /* its message went back to the socket */
};

/* What the type, which has no subclasses, adds to its base stands at the end. */
static inline azs_operation *
azs_operation_of(PyObject *future)
{
    return (azs_operation *)((char *)future + Py_TYPE(future)->tp_basicsize -
                             sizeof(azs_operation));
}

static inline bool
azs_operation_is_receive(const azs_operation *op)
{
    return op->kind < AZS_SEND;
}

/* Somebody has got the message. */
static inline void
azs_operation_take(azs_operation *op)
{
    PyObject *message = op->message, *core = (PyObject *)op->core;
    op->message = NULL;
    op->core = NULL;
    Py_XDECREF(message);
    Py_XDECREF(core);
}

static inline azs_operation_queue *
azs_async_queue(AsyncSocketObject *self, const azs_operation *op)
{
    return azs_operation_is_receive(op) ? &self->receives : &self->sends;
}

/* ---- operation.c ---- */

/* New reference by way of its future; NULL with an exception. */
azs_operation *azs_operation_new(AsyncSocketObject *core, azs_operation_kind kind);

/* New reference to one that has sent its message. */
PyObject *azs_operation_new_sent(AsyncSocketObject *core);

/* Ends it with a result, or an exception; wakes those who wait. Harmless where it is
 * done. 0, or -1 with an exception: a message that it has is the socket's again. */
int azs_operation_finish(azs_operation *op, PyObject *result);
int azs_operation_fail(azs_operation *op, PyObject *exc);

/* It has received `message`, which is stolen. 0 or -1, as above. */
int azs_operation_receive_steal(azs_operation *op, PyObject *message, uint64_t number,
                                bool more);

/* Nobody will have its result: it or those who await it were cancelled. */
bool azs_operation_is_abandoned(const azs_operation *op);

int azs_operation_init(PyObject *mod, azs_state *st);

/* Free-threaded builds: its loop runs in no other thread. 0, or -1 with an exception.
 */
static inline int
azs_operation_check_thread(const azs_operation *op)
{
#ifdef Py_GIL_DISABLED
    return azs_loop_check_any_thread(op->st, op->own_loop, op->loop);
#else
    (void)op;
    return 0;
#endif
}

/* Its loop runs in another thread, and has been told to call method(object) there:
 * true. Keeps the current exception. */
bool azs_operation_hand_on(azs_operation *op, PyObject *object, PyMethodDef *method);

/* For methods: NULL with an exception, in another thread, too. The second is for those
 * that look at it as a Future. */
azs_operation *azs_operation_of_self(PyObject *future);
azs_operation *azs_operation_real_of_self(PyObject *future);

/* Makes it the asyncio.Future that it seems to be. 0 or -1. */
int azs_operation_make_real(azs_operation *op);

/* Ends it with what asyncio.Future's own `method` gets: set_result or set_exception.
 * The caller holds a reference to the future. 0 or -1. */
int azs_operation_end(azs_operation *op, PyObject *method, PyObject *arg);

/* asyncio.Future.cancel(*args, **kwargs): what it returned, or NULL; args[0] is the
 * future. The second is for those who do not ask: 0 or -1. */
PyObject *azs_operation_cancel(azs_operation *op, PyObject *const *args,
                               Py_ssize_t nargs, PyObject *kwnames);
int azs_operation_cancel_quietly(azs_operation *op);

/* Nobody can get the message any more: it is the socket's again. 0 or -1. */
int azs_operation_give_back(azs_operation *op);

int azs_operation_traverse(PyObject *self, visitproc visit, void *arg);
int azs_operation_clear(PyObject *self);
void azs_operation_finalize(PyObject *self);
void azs_operation_dealloc(PyObject *self);

/* ---- operation_type.c ---- */

/* Its result, which is taken by that: new reference, or NULL with what it failed with.
 */
PyObject *azs_operation_result(azs_operation *op);

/* ---- operation_wait.c ---- */

/* A new iterator for `await`. */
PyObject *azs_operation_wait_new(azs_operation *op);

/* As azs_operation_result(), at less cost where nobody looked at the future. */
PyObject *azs_operation_outcome(azs_operation *op);

/* Returns `value`, which is stolen, from an iterator. Always NULL. */
PyObject *azs_operation_return_steal(azs_state *st, PyObject *value);

/* Wakes whoever awaits the operation. 0, or -1 with the first exception, which may be
 * the one that was set before. */
int azs_operation_wake_waits(azs_operation *op);

int azs_operation_wait_init(PyObject *mod, azs_state *st);

#endif
