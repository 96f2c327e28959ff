/* Tasks on a foreign loop, run at the end of the turn that has their messages.
 *
 * A Future that is done has the loop call the task in its next turn: on asyncio's loop
 * 10,000 instructions and an epoll_wait() for each message. A turn of a socket is a
 * callback of the loop already, so the task may as well run in it: in its own context,
 * once the socket is at rest, and where no task runs that called us.
 */
#include "zmq/awaitable/operation.h"

#include "py/errors.h"

bool
azs_async_put_off(AsyncSocketObject *self, PyObject *waiter)
{
    if (!self->in_turn || self->own_loop != NULL ||
        !Py_IS_TYPE(waiter, (PyTypeObject *)self->st->asyncio_future))
        return false;
    if (self->woken == NULL)
        self->woken = PyList_New(0);
    if (self->woken != NULL && PyList_Append(self->woken, waiter) == 0)
        return true;
    PyErr_Clear(); /* no memory: the loop calls it */
    return false;
}

/* The callback and the context of a waiter that has one callback: new references. 1,
 * 0 where it is another's, or -1. */
static int
take_callback(azs_state *st, PyObject *waiter, PyObject **callback, PyObject **context)
{
    PyObject *callbacks = PyObject_GetAttrString(waiter, "_callbacks");
    if (callbacks == NULL)
        return -1;
    PyObject *entry = PyList_Check(callbacks) && PyList_GET_SIZE(callbacks) == 1
                          ? PyList_GET_ITEM(callbacks, 0)
                          : NULL;
    bool found = entry != NULL && PyTuple_Check(entry) &&
                 PyTuple_GET_SIZE(entry) == 2 &&
                 PyContext_CheckExact(PyTuple_GET_ITEM(entry, 1));
    if (found) {
        *callback = Py_NewRef(PyTuple_GET_ITEM(entry, 0));
        *context = Py_NewRef(PyTuple_GET_ITEM(entry, 1));
    }
    Py_DECREF(callbacks);
    return found;
}

/* Ends the waiter; its callback runs in here if it may. 0 or -1. */
static int
run_waiter(azs_state *st, PyObject *loop, PyObject *waiter)
{
    PyObject *callback = NULL, *context = NULL, *res = NULL;
    PyObject *current = PyObject_CallOneArg(st->asyncio_current_task, loop);
    if (current == NULL)
        return -1;
    Py_DECREF(current);
    int found = current == Py_None ? take_callback(st, waiter, &callback, &context) : 0;
    if (found < 0)
        return -1;
    if (found && PyContext_Enter(context) < 0) {
        PyErr_Clear(); /* somebody is in it */
        found = 0;
    }
    if (found) {
        PyObject *removed =
            PyObject_CallMethod(waiter, "remove_done_callback", "O", callback);
        Py_XDECREF(removed);
        if (removed == NULL)
            goto leave;
    }
    PyObject *args[] = {waiter, Py_None};
    res = PyObject_VectorcallMethod(st->str_set_result, args, 2, NULL);
    if (found && res != NULL) {
        Py_DECREF(res);
        res = PyObject_CallOneArg(callback, waiter);
    }
leave:
    if (found) {
        PyObject *exc = res == NULL ? azs_exc_take() : NULL;
        if (PyContext_Exit(context) < 0)
            PyErr_WriteUnraisable(waiter); /* the callback has left it */
        if (exc != NULL)
            azs_exc_restore_steal(exc);
    }
    Py_XDECREF(callback);
    Py_XDECREF(context);
    Py_XDECREF(res);
    return res == NULL ? -1 : 0;
}

/* Whether it has ended, after all. What fails has no memory for it. */
static bool
end_waiter(azs_state *st, PyObject *waiter)
{
    PyObject *done = PyObject_CallMethodNoArgs(waiter, st->str_done);
    if (done == Py_False) {
        PyObject *args[] = {waiter, Py_None};
        Py_SETREF(done, PyObject_VectorcallMethod(st->str_set_result, args, 2, NULL));
    }
    if (done == NULL)
        PyErr_Clear();
    Py_XDECREF(done);
    return done != NULL;
}

/* Those that there was no memory to end, at the front of their list, are ended by
 * another turn. */
static void
keep(AsyncSocketObject *self, PyObject *woken, Py_ssize_t count)
{
    PyObject *on_fd = PyObject_GetAttrString((PyObject *)self, "_on_fd");
    PyObject *handle = NULL;
    if (on_fd != NULL && self->loop != NULL)
        handle = PyObject_CallMethod(self->loop, "call_soon", "O", on_fd);
    if (handle == NULL)
        PyErr_Clear(); /* with the next message, then */
    Py_XDECREF(handle);
    Py_XDECREF(on_fd);
    if (self->woken == NULL) {
        if (PyList_SetSlice(woken, count, PyList_GET_SIZE(woken), NULL) < 0)
            PyErr_Clear(); /* those that have ended are ended once */
        self->woken = Py_NewRef(woken);
        return;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        if (PyList_Append(self->woken, PyList_GET_ITEM(woken, i)) < 0)
            PyErr_WriteUnraisable(PyList_GET_ITEM(woken, i));
    }
}

int
azs_async_run_woken(AsyncSocketObject *self)
{
    azs_state *st = azs_state_hold(self->st);
    PyObject *woken = self->woken, *loop = Py_XNewRef(self->loop), *exc = NULL;
    Py_ssize_t left = 0;
    self->woken = NULL;
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(woken); i++) {
        PyObject *waiter = PyList_GET_ITEM(woken, i);
        /* It may have been cancelled since. */
        PyObject *done = PyObject_CallMethodNoArgs(waiter, st->str_done);
        bool is_done = done == Py_True;
        int res = done == NULL ? -1 : 0;
        Py_XDECREF(done);
        if (res == 0 && !is_done && exc == NULL && loop != NULL) {
            res = run_waiter(st, loop, waiter);
            is_done = res == 0;
        }
        if (res < 0 && exc == NULL)
            exc = azs_exc_take();
        else if (res < 0)
            PyErr_Clear();
        if (!is_done && !end_waiter(st, waiter)) {
            PyList_SET_ITEM(woken, i, PyList_GET_ITEM(woken, left));
            PyList_SET_ITEM(woken, left++, waiter);
        }
    }
    if (left > 0)
        keep(self, woken, left);
    Py_DECREF(woken);
    Py_XDECREF(loop);
    azs_state_release(st);
    if (exc == NULL)
        return 0;
    azs_exc_restore_steal(exc);
    return -1;
}
