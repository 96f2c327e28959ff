/* What a coroutine written in C waits for: yielded to its Task, it wakes it once.
 *
 * It is compatible with asyncio.Future as far as a Task or asyncio's streams use one
 * (asyncio.isfuture() is true), at a third of the instructions: nothing but the
 * waking goes through it, so it has no result, and it comes from a free list.
 */
#ifndef AZS_LOOP_WAITER_H
#define AZS_LOOP_WAITER_H

#include "loop/loop.h"

typedef struct {
    PyObject_HEAD
    vectorcallfunc vectorcall; /* see waiter_vectorcall */
    azs_state *st;             /* borrowed: the loop holds it */
    LoopObject *loop;          /* owned */
    PyObject *callback;        /* owned or NULL: a Task adds one */
    PyObject *context;         /* owned with callback */
    PyObject *more;      /* owned or NULL: list of (callback, context) after that */
    PyObject *exception; /* owned or NULL: set_exception() or cancel() */
    enum { AZS_WAITER_PENDING, AZS_WAITER_DONE, AZS_WAITER_CANCELLED } state;
    bool blocking; /* _asyncio_future_blocking: set where it is yielded */
} WaiterObject;

/* New reference, or NULL with MemoryError. */
WaiterObject *azs_waiter_new(LoopObject *loop);

/* Has the callbacks called in the next turn; harmless where it is over already. 0, or
 * -1 with an exception: where it is pending still, the task has not been woken. */
int azs_waiter_wake(WaiterObject *self);

/* The same for a wake-up that nothing else will make: where it fails, `watcher` is
 * posted with `events`, to make it in the next turn. */
int azs_waiter_wake_or_post(WaiterObject *self, azs_watcher *watcher, uint32_t events);

/* What a coroutine that waits for it does when it is resumed, as Future.__await__ in C.
 * PYGEN_RETURN: goes on. PYGEN_NEXT: nobody has woken it, it yields the waiter again,
 * in *result, if that was taken; else PYGEN_ERROR with RuntimeError. PYGEN_ERROR with
 * the exception that it was ended with, CancelledError for cancel(). */
PySendResult azs_waiter_resume(WaiterObject *self, PyObject **result);

int azs_waiter_init(PyObject *mod, azs_state *st);

#endif
