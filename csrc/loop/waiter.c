#include "loop/waiter.h"

#include <string.h>
#include <structmember.h>

#include "loop/callargs.h"
#include "loop/loop_object.h"
#include "py/errors.h"
#include "py/type.h"

/* ---- creation ---- */

static PyObject *waiter_vectorcall(WaiterObject *self, PyObject *const *args,
                                   size_t nargsf, PyObject *kwnames);

WaiterObject *
azs_waiter_new(LoopObject *loop)
{
    azs_state *st = loop->st;
    WaiterObject *self = azs_freelist_take(azs_loop_freelist(st, loop, waiters));
    if (azs_unlikely(self == NULL)) {
        self = (WaiterObject *)azs_type_alloc(st->waiter_type);
        if (self == NULL)
            return NULL;
        PyObject_GC_UnTrack(self);
        self->vectorcall = (vectorcallfunc)(void (*)(void))waiter_vectorcall;
        self->st = st;
    }
    AZS_LIVE(st, waiter, 1);
    self->loop = (LoopObject *)Py_NewRef(loop);
    self->callback = self->context = self->more = self->exception = NULL;
    self->state = AZS_WAITER_PENDING;
    self->blocking = false;
    PyObject_GC_Track(self);
    return self;
}

/* ---- the end of the wait ---- */

/* What a callback gets. A Task asks anything but an exact asyncio.Future for its result
 * by name, at the price of a whole read: its wake-up gets one that is done. Borrowed.
 * A round trip: streams 28,320 instructions to 24,610, time by 1.09; sock_* 20,970 to
 * 17,630, time by 1.09.
 */
static PyObject *
argument_of(WaiterObject *self, PyObject *callback)
{
    azs_state *st = self->st;
    if (callback != NULL && self->exception == NULL &&
        PyCFunction_CheckExact(callback)) {
        PyObject *task = PyCFunction_GET_SELF(callback);
        if (task != NULL &&
            PyObject_TypeCheck(task, (PyTypeObject *)st->asyncio_task) &&
            strcmp(((PyCFunctionObject *)callback)->m_ml->ml_name, "task_wakeup") ==
                0 &&
            azs_likely(!st->without.task_wakeup))
            return st->done_future;
    }
    return (PyObject *)self;
}

/* Ends the wait and has what add_done_callback() left called. 0, or -1: where not even
 * the first, the task, can be called, it goes on waiting. */
static int
waiter_end(WaiterObject *self, int state)
{
    PyObject *callback = self->callback, *context = self->context, *more = self->more;
    PyObject *args[] = {argument_of(self, callback)};
    self->state = state;
    self->callback = self->context = self->more = NULL;
    if (callback != NULL &&
        azs_loop_call_soon(self->loop, callback, args, 1, context) < 0) {
        /* Nothing is added while it is over. */
        self->callback = callback;
        self->context = context;
        self->more = more;
        self->state = AZS_WAITER_PENDING;
        return -1;
    }
    int res = 0;
    if (azs_unlikely(more != NULL)) {
        args[0] = (PyObject *)self;
        for (Py_ssize_t i = 0; res == 0 && i < PyList_GET_SIZE(more); i++) {
            PyObject *pair = PyList_GET_ITEM(more, i);
            res = azs_loop_call_soon(self->loop, PyTuple_GET_ITEM(pair, 0), args, 1,
                                     PyTuple_GET_ITEM(pair, 1));
        }
        Py_DECREF(more);
    }
    Py_XDECREF(callback);
    Py_XDECREF(context);
    return res;
}

/* The same with an exception, which is stolen. */
static int
waiter_fail_steal(WaiterObject *self, int state, PyObject *exc)
{
    self->exception = exc;
    int res = waiter_end(self, state);
    if (res < 0 && self->state == AZS_WAITER_PENDING)
        Py_CLEAR(self->exception);
    return res;
}

int
azs_waiter_wake(WaiterObject *self)
{
    return self->state == AZS_WAITER_PENDING ? waiter_end(self, AZS_WAITER_DONE) : 0;
}

int
azs_waiter_wake_or_post(WaiterObject *self, azs_watcher *watcher, uint32_t events)
{
    if (azs_likely(azs_waiter_wake(self) == 0))
        return 0;
    PyObject *exc = azs_exc_take();
    if (azs_watcher_post(self->loop, watcher, events) < 0)
        PyErr_Clear();
    azs_exc_restore_steal(exc);
    return -1;
}

/* 0, or -1 with the exception that it was ended with or InvalidStateError. */
static int
waiter_check(WaiterObject *self)
{
    if (azs_likely(self->state == AZS_WAITER_DONE && self->exception == NULL))
        return 0;
    if (self->state == AZS_WAITER_PENDING)
        PyErr_SetString(self->st->invalid_state_error, "Result is not set.");
    else
        PyErr_SetObject((PyObject *)Py_TYPE(self->exception), self->exception);
    return -1;
}

PySendResult
azs_waiter_resume(WaiterObject *self, PyObject **result)
{
    if (azs_likely(self->state != AZS_WAITER_PENDING))
        return waiter_check(self) < 0 ? PYGEN_ERROR : PYGEN_RETURN;
    if (self->blocking) {
        PyErr_SetString(PyExc_RuntimeError, "await wasn't used with future");
        return PYGEN_ERROR;
    }
    self->blocking = true;
    *result = Py_NewRef(self);
    return PYGEN_NEXT;
}

static int
check_pending(WaiterObject *self)
{
    if (azs_loop_check_thread(self->loop) < 0)
        return -1;
    if (self->state == AZS_WAITER_PENDING)
        return 0;
    PyErr_SetString(self->st->invalid_state_error, "invalid state");
    return -1;
}

/* ---- as a Future ---- */

/* A new exception for cancel(msg). */
static PyObject *
cancelled_error(WaiterObject *self, PyObject *message)
{
    PyObject *type = self->st->cancelled_error;
    return message == NULL || message == Py_None ? PyObject_CallNoArgs(type)
                                                 : PyObject_CallOneArg(type, message);
}

PyDoc_STRVAR(cancel_doc,
"cancel($self, /, msg=None)\n--\n\n"
"End the wait with CancelledError(msg); False where it is over (asyncio\n"
"Future.cancel).");

static PyObject *
Waiter_cancel(WaiterObject *self, PyObject *args, PyObject *kwargs)
{
    static char *keywords[] = {"msg", NULL};
    PyObject *message = NULL;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|O:cancel", keywords, &message))
        return NULL;
    if (azs_loop_check_thread(self->loop) < 0)
        return NULL;
    if (self->state != AZS_WAITER_PENDING)
        Py_RETURN_FALSE;
    PyObject *exc = cancelled_error(self, message);
    if (exc == NULL)
        return NULL;
    if (self->state != AZS_WAITER_PENDING) { /* str subclasses may do anything */
        Py_DECREF(exc);
        Py_RETURN_FALSE;
    }
    if (waiter_fail_steal(self, AZS_WAITER_CANCELLED, exc) < 0)
        return NULL;
    Py_RETURN_TRUE;
}

PyDoc_STRVAR(cancelled_doc,
"cancelled($self, /)\n--\n\nTrue where cancel() ended the wait.");

static PyObject *
Waiter_cancelled(WaiterObject *self, PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(self->state == AZS_WAITER_CANCELLED);
}

PyDoc_STRVAR(done_doc, "done($self, /)\n--\n\nTrue where the wait is over.");

static PyObject *
Waiter_done(WaiterObject *self, PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(self->state != AZS_WAITER_PENDING);
}

PyDoc_STRVAR(result_doc,
"result($self, /)\n--\n\n"
"None; raises what ended the wait, or InvalidStateError before that.");

static PyObject *
Waiter_result(WaiterObject *self, PyObject *Py_UNUSED(ignored))
{
    if (waiter_check(self) < 0)
        return NULL;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(exception_doc,
"exception($self, /)\n--\n\n"
"What set_exception() got, or None; raises CancelledError or InvalidStateError.");

static PyObject *
Waiter_exception(WaiterObject *self, PyObject *Py_UNUSED(ignored))
{
    if (self->state == AZS_WAITER_DONE)
        return Py_NewRef(self->exception != NULL ? self->exception : Py_None);
    (void)waiter_check(self);
    return NULL;
}

PyDoc_STRVAR(set_result_doc,
"set_result($self, result, /)\n--\n\n"
"End the wait; what for, the coroutine finds out. InvalidStateError where it is over.");

static PyObject *
Waiter_set_result(WaiterObject *self, PyObject *Py_UNUSED(result))
{
    if (check_pending(self) < 0 || azs_waiter_wake(self) < 0)
        return NULL;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(set_exception_doc,
"set_exception($self, exception, /)\n--\n\n"
"End the wait with an exception or a class of them. InvalidStateError where it is\n"
"over.");

static PyObject *
Waiter_set_exception(WaiterObject *self, PyObject *arg)
{
    if (check_pending(self) < 0)
        return NULL;
    PyObject *exc =
        PyExceptionClass_Check(arg) ? PyObject_CallNoArgs(arg) : Py_NewRef(arg);
    if (exc == NULL)
        return NULL;
    if (!PyExceptionInstance_Check(exc)) {
        PyErr_Format(PyExc_TypeError, "expected an exception, not '%.200s'",
                     Py_TYPE(exc)->tp_name);
        goto fail;
    }
    if (check_pending(self) < 0) /* the class may have ended it */
        goto fail;
    if (waiter_fail_steal(self, AZS_WAITER_DONE, exc) < 0)
        return NULL;
    Py_RETURN_NONE;

fail:
    Py_DECREF(exc);
    return NULL;
}

/* Has callback(self) called once the wait is over; `context` is not NULL. What is
 * allocated comes before the look at the state: before Python 3.12 the collector may
 * run in there, and a finalizer end the wait. */
static int
waiter_add(WaiterObject *self, PyObject *callback, PyObject *context)
{
    if (azs_loop_check_thread(self->loop) < 0)
        return -1;
    if (azs_likely(self->state == AZS_WAITER_PENDING && self->callback == NULL &&
                   self->more == NULL)) {
        self->callback = Py_NewRef(callback);
        self->context = Py_NewRef(context);
        return 0;
    }
    PyObject *pair = PyTuple_Pack(2, callback, context);
    PyObject *more = pair == NULL ? NULL : PyList_New(0);
    int res = -1;
    if (more == NULL)
        goto done;
    if (self->state != AZS_WAITER_PENDING) {
        PyObject *args[] = {(PyObject *)self};
        res = azs_loop_call_soon(self->loop, callback, args, 1, context);
        goto done;
    }
    if (self->more == NULL)
        self->more = Py_NewRef(more);
    res = PyList_Append(self->more, pair);
done:
    Py_XDECREF(more);
    Py_XDECREF(pair);
    return res;
}

PyDoc_STRVAR(add_done_callback_doc,
"add_done_callback($self, fn, /, *, context=None)\n--\n\n"
"Have fn(self) called in the turn after the wait is over (asyncio\n"
"Future.add_done_callback).");

static PyObject *
Waiter_add_done_callback(WaiterObject *self, PyObject *const *args, Py_ssize_t nargs,
                         PyObject *kwnames)
{
    PyObject *context;
    static const azs_call_spec spec = {"add_done_callback", NULL, 1, {"fn"}, false};
    if (azs_parse_context(self->loop, &spec, nargs, args, kwnames, &context) < 0)
        return NULL;
    if (nargs > 1) {
        PyErr_SetString(PyExc_TypeError, "add_done_callback() takes one argument");
        return NULL;
    }
    if (context != NULL && !PyContext_CheckExact(context)) {
        /* call_soon() would refuse it, again and again. */
        PyErr_Format(PyExc_TypeError,
                     "context must be a contextvars.Context or None, got %.200s",
                     Py_TYPE(context)->tp_name);
        return NULL;
    }
    context = context != NULL ? Py_NewRef(context) : PyContext_CopyCurrent();
    if (context == NULL)
        return NULL;
    int res = waiter_add(self, args[0], context);
    Py_DECREF(context);
    if (res < 0)
        return NULL;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(remove_done_callback_doc,
"remove_done_callback($self, fn, /)\n--\n\n"
"Forget all callbacks equal to fn: how many there were (asyncio\n"
"Future.remove_done_callback).");

static PyObject *
Waiter_remove_done_callback(WaiterObject *self, PyObject *fn)
{
    Py_ssize_t count = 0;
    if (azs_loop_check_thread(self->loop) < 0)
        return NULL;
    PyObject *callback = Py_XNewRef(self->callback);
    if (callback != NULL) {
        int same = PyObject_RichCompareBool(callback, fn, Py_EQ);
        Py_DECREF(callback);
        if (same < 0)
            return NULL;
        if (same && self->callback == callback) {
            Py_CLEAR(self->callback);
            Py_CLEAR(self->context);
            count++;
        }
    }
    /* Comparing may change the list: it is looked at afresh each time. */
    for (Py_ssize_t i = 0; self->more != NULL && i < PyList_GET_SIZE(self->more);) {
        PyObject *pair = Py_NewRef(PyList_GET_ITEM(self->more, i));
        int same = PyObject_RichCompareBool(PyTuple_GET_ITEM(pair, 0), fn, Py_EQ);
        if (same > 0 && self->more != NULL && i < PyList_GET_SIZE(self->more) &&
            PyList_GET_ITEM(self->more, i) == pair) {
            same = PySequence_DelItem(self->more, i);
            count++;
        } else {
            i++;
        }
        Py_DECREF(pair);
        if (same < 0)
            return NULL;
    }
    return PyLong_FromSsize_t(count);
}

static PyObject *
waiter_repr(WaiterObject *self)
{
    static const char *const states[] = {"pending", "finished", "cancelled"};
    return PyUnicode_FromFormat("<Waiter %s at %p>", states[self->state], self);
}

/* ---- the type ---- */

static int
waiter_traverse(WaiterObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->loop);
    Py_VISIT(self->callback);
    Py_VISIT(self->context);
    Py_VISIT(self->more);
    Py_VISIT(self->exception);
    return 0;
}

static int
waiter_clear(WaiterObject *self)
{
    /* The loop stays: methods rely on it. */
    Py_CLEAR(self->callback);
    Py_CLEAR(self->context);
    Py_CLEAR(self->more);
    Py_CLEAR(self->exception);
    if (self->state == AZS_WAITER_CANCELLED)
        self->state = AZS_WAITER_DONE; /* without its exception */
    return 0;
}

static void
waiter_dealloc(WaiterObject *self)
{
    azs_state *st = self->st;
    AZS_DEALLOC_BEGIN(self, waiter_dealloc);
    waiter_clear(self);
    AZS_LIVE(st, waiter, -1);
    LoopObject *loop = self->loop;
    if (!azs_freelist_keep(azs_loop_freelist(st, loop, waiters), (PyObject *)self))
        AZS_DEALLOC_FREE(self);
    /* Last: it may be what keeps the module and the list alive. */
    Py_DECREF(loop);
    AZS_DEALLOC_END;
}

/* ---- what a Task takes ---- */

PyDoc_STRVAR(get_loop_doc,
"get_loop($self, /)\n--\n\nThe loop (asyncio Future.get_loop).");

static PyObject *
Waiter_get_loop(WaiterObject *self, PyObject *Py_UNUSED(ignored))
{
    return Py_NewRef(self->loop);
}

/* A Task looks up three names in what is yielded to it. Two are methods, called at
 * once: they are the waiter itself, which spares an object for each. */
static PyObject *
waiter_getattro(WaiterObject *self, PyObject *name)
{
    azs_state *st = self->st;
    if (name == st->str__asyncio_future_blocking)
        return PyBool_FromLong(self->blocking);
    if (name == st->str_get_loop || name == st->str_add_done_callback)
        return Py_NewRef(self);
    return PyObject_GenericGetAttr((PyObject *)self, name);
}

static int
waiter_setattro(WaiterObject *self, PyObject *name, PyObject *value)
{
    if (name == self->st->str__asyncio_future_blocking &&
        (value == Py_False || value == Py_True)) {
        self->blocking = value == Py_True;
        return 0;
    }
    return PyObject_GenericSetAttr((PyObject *)self, name, value);
}

/* get_loop() takes no argument, add_done_callback(fn) one. */
static PyObject *
waiter_vectorcall(WaiterObject *self, PyObject *const *args, size_t nargsf,
                  PyObject *kwnames)
{
    Py_ssize_t nargs = PyVectorcall_NARGS(nargsf);
    if (nargs == 0 && kwnames == NULL)
        return Py_NewRef(self->loop);
    return Waiter_add_done_callback(self, args, nargs, kwnames);
}

static PyMethodDef waiter_methods[] = {
    {"get_loop", (PyCFunction)Waiter_get_loop, METH_NOARGS, get_loop_doc},
    {"add_done_callback", (PyCFunction)(void (*)(void))Waiter_add_done_callback,
     METH_FASTCALL | METH_KEYWORDS, add_done_callback_doc},
    {"remove_done_callback", (PyCFunction)Waiter_remove_done_callback, METH_O,
     remove_done_callback_doc},
    {"cancel", (PyCFunction)(void (*)(void))Waiter_cancel, METH_VARARGS | METH_KEYWORDS,
     cancel_doc},
    {"cancelled", (PyCFunction)Waiter_cancelled, METH_NOARGS, cancelled_doc},
    {"done", (PyCFunction)Waiter_done, METH_NOARGS, done_doc},
    {"result", (PyCFunction)Waiter_result, METH_NOARGS, result_doc},
    {"exception", (PyCFunction)Waiter_exception, METH_NOARGS, exception_doc},
    {"set_result", (PyCFunction)Waiter_set_result, METH_O, set_result_doc},
    {"set_exception", (PyCFunction)Waiter_set_exception, METH_O, set_exception_doc},
    {NULL},
};

static PyMemberDef waiter_members[] = {
    {"__vectorcalloffset__", T_PYSSIZET, offsetof(WaiterObject, vectorcall), READONLY},
    {"_loop", T_OBJECT, offsetof(WaiterObject, loop), READONLY},
    {"_asyncio_future_blocking", T_BOOL, offsetof(WaiterObject, blocking), 0},
    {NULL},
};

PyDoc_STRVAR(waiter_doc,
"What a coroutine of this extension waits for: wakes its task, has no result.");

static PyType_Slot waiter_slots[] = {
    {Py_tp_doc, (void *)waiter_doc},
    {Py_tp_dealloc, waiter_dealloc},
    {Py_tp_repr, waiter_repr},
    {Py_tp_traverse, waiter_traverse},
    {Py_tp_clear, waiter_clear},
    {Py_tp_methods, waiter_methods},
    {Py_tp_members, waiter_members},
    {Py_tp_getattro, waiter_getattro},
    {Py_tp_setattro, waiter_setattro},
    {Py_tp_call, PyVectorcall_Call},
    {0, NULL},
};

static PyType_Spec azs_waiter_spec = {
    .name = "aiozmq_speedups._core.Waiter",
    .basicsize = sizeof(WaiterObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE |
             Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_HAVE_VECTORCALL,
    .slots = waiter_slots,
};

/* An asyncio.Future that is done, with None. It knows no loop that could end. 0 or -1.
 */
static int
make_done_future(azs_state *st)
{
    int res = -1;
    PyObject *types = PyImport_ImportModule("types"), *loop = NULL, *args = NULL;
    PyObject *kwargs = NULL, *ok = NULL;
    if (types == NULL)
        return -1;
    /* Future() asks its loop nothing but this, and bool() is False. */
    loop = PyObject_CallMethod(types, "SimpleNamespace", NULL);
    if (loop == NULL ||
        PyObject_SetAttrString(loop, "get_debug", (PyObject *)&PyBool_Type) < 0)
        goto done;
    args = PyTuple_New(0);
    kwargs = Py_BuildValue("{s:O}", "loop", loop);
    if (args == NULL || kwargs == NULL)
        goto done;
    st->done_future = PyObject_Call(st->asyncio_future, args, kwargs);
    if (st->done_future == NULL)
        goto done;
    ok = PyObject_CallMethod(st->done_future, "set_result", "O", Py_None);
    res = ok == NULL ? -1 : 0;
done:
    Py_XDECREF(ok);
    Py_XDECREF(kwargs);
    Py_XDECREF(args);
    Py_XDECREF(loop);
    Py_DECREF(types);
    return res;
}

int
azs_waiter_init(PyObject *mod, azs_state *st)
{
    if (azs_import_attr(&st->cancelled_error, "asyncio", "CancelledError") < 0 ||
        make_done_future(st) < 0)
        return -1;
    return azs_type_add(mod, &st->waiter_type, &azs_waiter_spec, NULL, false);
}
