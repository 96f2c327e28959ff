/* Running a handle's callback in its Context. */
#include "loop/handle.h"

#include "loop/loop_object.h"
#include "loop/report.h"
#include "py/context.h"
#include "py/errors.h"

/* Reports the current exception as asyncio's Handle._run does; cold, so the
 * message is put together in Python. */
static int
handle_report(HandleObject *self)
{
    if (azs_exc_leaves_loop())
        return -1;
    PyObject *exc = azs_exc_take();
    PyObject *args[] = {(PyObject *)self->loop, (PyObject *)self, exc};
    PyObject *res =
        PyObject_VectorcallMethod(self->loop->st->str__callback_failed, args, 3, NULL);
    Py_DECREF(exc);
    return azs_reported_steal(res, (PyObject *)self);
}

/* Calls the callback. It may do anything to this handle, cancel() included, so
 * the callback and the arguments are held here. */
static inline PyObject *
handle_call(HandleObject *self)
{
    /* A copy with a spare slot in front: a bound method may write there during the
     * call (PY_VECTORCALL_ARGUMENTS_OFFSET), and the collector must not see that in the
     * handle. */
    PyObject *callback, *stack[1 + AZS_HANDLE_INLINE_ARGS];
    Py_ssize_t nargs, count;
    AZS_LOCKED_IF_SHARED(self);
    callback = Py_XNewRef(self->callback);
    nargs = self->nargs;
    count = azs_likely(nargs >= 0) ? nargs : 1;
    for (Py_ssize_t i = 0; i < count; i++)
        stack[1 + i] = Py_NewRef(self->args[i]);
    AZS_UNLOCKED_IF_SHARED(self);
    if (azs_unlikely(callback == NULL)) /* see azs_handle_copy_snapshot */
        Py_RETURN_NONE;
    PyObject *res;
    if (azs_likely(nargs >= 0))
        res = PyObject_Vectorcall(callback, stack + 1,
                                  (size_t)nargs | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
    else
        res = PyObject_CallObject(callback, stack[1]);
    for (Py_ssize_t i = 0; i < count; i++)
        Py_DECREF(stack[1 + i]);
    Py_DECREF(callback);
    return res;
}

/* A Context for a handle that has a snapshot: new reference. A finalizer may get here
 * after the collector has cleared the snapshot. */
static PyObject *
copy_snapshot(PyObject *snapshot)
{
    return azs_context_cleared(snapshot) ? PyContext_New() : PyContext_Copy(snapshot);
}

PyObject *
azs_handle_copy_snapshot(HandleObject *self)
{
    PyObject *snapshot = Py_NewRef(self->context);
    PyObject *copy = copy_snapshot(snapshot);
    Py_DECREF(snapshot);
    return copy;
}

/* The Context to run a handle in whose own is a snapshot, as its own for the while:
 * the loop's, where that is a copy of the same values still. *snapshot is the handle's
 * reference to it, NULL where the handle has got a Context of its own meanwhile. 0, or
 * -1 with MemoryError. */
static inline int
handle_take_run_context(HandleObject *self, PyObject **snapshot)
{
    LoopObject *loop = self->loop;
    PyObject *context = azs_loop_is_mine(loop) ? loop->run_context : NULL;
    AZS_LOCKED_IF_SHARED(self);
    if (azs_likely(context != NULL && azs_context_same(context, self->context) &&
                   !azs_context_cleared(context)))
        loop->run_context = NULL;
    else
        context = azs_handle_copy_snapshot(self);
    if (azs_likely(context != NULL && self->shared)) {
        *snapshot = self->context;
        self->context = context;
        AZS_ATOMIC_STORE(&self->shared, false);
    }
    AZS_UNLOCKED_IF_SHARED(self);
    if (azs_unlikely(context == NULL))
        return -1;
    if (azs_unlikely(*snapshot == NULL))
        Py_DECREF(context);
    return 0;
}

/* After the run: where the callback neither changed the Context nor left a reference
 * to it (a Token, get_context()), the handle gets its snapshot back and the loop a
 * Context for the next one. Otherwise it is the handle's. Steals `snapshot`. */
static inline void
handle_return_run_context(HandleObject *self, PyObject *snapshot)
{
    LoopObject *loop = self->loop;
    PyObject *context = self->context, *old = snapshot;
    AZS_LOCKED_IF_SHARED(self);
    if (azs_likely(azs_context_same(context, snapshot) && azs_is_unshared(context) &&
                   azs_loop_is_mine(loop))) {
        self->context = snapshot;
        AZS_ATOMIC_STORE(&self->shared, true);
        old = loop->run_context;
        loop->run_context = context;
    }
    AZS_UNLOCKED_IF_SHARED(self);
    Py_XDECREF(old);
}

int
azs_handle_run(HandleObject *self)
{
    if (AZS_ATOMIC_LOAD(&self->callback) == NULL)
        return 0;
    PyObject *snapshot = NULL;
    if (AZS_ATOMIC_LOAD(&self->shared) &&
        azs_unlikely(handle_take_run_context(self, &snapshot) < 0))
        return handle_report(self);
    /* It is not replaced while it is not a snapshot, and the caller's reference
     * keeps it. */
    PyObject *context = self->context;
    PyObject *res = NULL;
    if (azs_likely(PyContext_Enter(context) == 0)) {
        res = handle_call(self);
        if (azs_unlikely(PyContext_Exit(context) < 0))
            Py_CLEAR(res);
    }
    if (snapshot != NULL)
        handle_return_run_context(self, snapshot);
    if (azs_unlikely(res == NULL))
        return handle_report(self);
    Py_DECREF(res);
    return 0;
}
