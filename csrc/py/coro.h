/* Coroutines written in C: sock_* operations, connecting, the reads of a stream.
 *
 * To whoever drives one (`await`, a Task, send() by hand) it is a coroutine of Python
 * code: nothing happens before the first send(), one that is thrown into or closed
 * while it waits has done nothing, and one that was never awaited warns. A kind embeds
 * a CoroObject at its start and says in azs_coro_ops what a step is.
 */
#ifndef AZS_PY_CORO_H
#define AZS_PY_CORO_H

#include "py/state.h"

#include <structmember.h>

/* Raises StopIteration(value), which is how send() returns it; steals `value`. Always
 * NULL. */
PyObject *azs_coro_return_steal(azs_state *st, PyObject *value);

/* Sets the exception that the arguments of throw() mean. 0, or -1 where they mean
 * none: then it is the TypeError about that. */
int azs_coro_throw_set(PyObject *const *args, Py_ssize_t nargs);

/* ---- the object ---- */

typedef struct CoroObject CoroObject;

/* What the kinds of coroutine differ in. */
typedef struct {
    const char *owner; /* of the method that it stands for: "Loop" of Loop.sock_recv */
    const char *(*name)(const CoroObject *self);
    /* asyncio's function of that name: new reference, or NULL without an exception. */
    PyObject *(*function)(const CoroObject *self);
    /* Free-threaded builds: its loop runs in no other thread. 0, or -1 with
     * RuntimeError: then it is as it was. */
    int (*check_thread)(const CoroObject *self);
    /* Its loop runs in another thread, and has been told to call `close` there: true.
     * Keeps the current exception. */
    bool (*hand_on)(CoroObject *self, PyMethodDef *close);
    /* Begins, or goes on after what it yielded: PYGEN_NEXT with what to yield, which is
     * kept in `awaiting`, PYGEN_RETURN with the result, or PYGEN_ERROR. */
    PySendResult (*advance)(CoroObject *self, PyObject **result);
    /* It has ended: drops all that it waits for or works with, so that `awaiting` is
     * NULL. Keeps the current exception. May run Python code. */
    void (*finish)(CoroObject *self);
} azs_coro_ops;

struct CoroObject {
    PyObject_HEAD
    const azs_coro_ops *ops;
    azs_state *st;      /* borrowed: the kind holds it */
    PyObject *awaiting; /* owned or NULL: what was yielded to be waited for; or, where
                         * it `delegates`, the iterator of a coroutine that it awaits */
    PyObject *received; /* owned or NULL: what that coroutine has returned */
    enum { AZS_CORO_CREATED, AZS_CORO_SUSPENDED, AZS_CORO_FINISHED } state;
    bool delegates;
    bool running; /* in send(), throw() or close(): claimed by one thread at a time */
};

/* Has everything but `st`, which an object from a free list has already. */
static inline void
azs_coro_begin(CoroObject *self, const azs_coro_ops *ops)
{
    self->ops = ops;
    self->awaiting = self->received = NULL;
    self->state = AZS_CORO_CREATED;
    self->delegates = self->running = false;
}

/* Awaits `coro`, which is stolen, before advance() is called again: as that. */
PySendResult azs_coro_delegate(CoroObject *self, PyObject *coro, PyObject **result);

/* The RuntimeWarning of a coroutine that is dropped before it began: tp_finalize, or
 * called by it. Runs Python code; a current exception stays set. */
void azs_coro_finalize(CoroObject *self);

/* For tp_finalize: true where its loop runs in another thread, and will close it. */
bool azs_coro_hand_on(CoroObject *self);

int azs_coro_traverse(CoroObject *self, visitproc visit, void *arg);

/* The slots of a kind's type, besides those of its life. */
#define AZS_CORO_SLOTS                                                                 \
    {Py_tp_repr, azs_coro_repr}, {Py_tp_iter, azs_coro_iter},                          \
        {Py_tp_iternext, azs_coro_iternext}, {Py_am_await, azs_coro_await},            \
        {Py_am_send, azs_coro_send}, {Py_tp_methods, azs_coro_methods},                \
        {Py_tp_members, azs_coro_members}, {Py_tp_getset, azs_coro_getset}

PySendResult azs_coro_send(CoroObject *self, PyObject *arg, PyObject **result);
PyObject *azs_coro_iternext(CoroObject *self);
PyObject *azs_coro_await(CoroObject *self);
PyObject *azs_coro_iter(CoroObject *self);
PyObject *azs_coro_repr(CoroObject *self);
extern PyMethodDef azs_coro_methods[];
extern PyMemberDef azs_coro_members[];
extern PyGetSetDef azs_coro_getset[];

int azs_coro_init(PyObject *mod, azs_state *st);

#endif
