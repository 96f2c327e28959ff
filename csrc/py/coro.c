#include "py/coro.h"

#include <frameobject.h>

#include "py/errors.h"
#include "py/type.h"

/* ---- returning ---- */

/* `await` takes the value out of the exception and drops it at once: making one each
 * time would cost more than the rest of a read. So this class keeps the memory of one;
 * but for free-threaded builds, where the loops of several threads would share it.
 */
typedef struct {
    PyStopIterationObject base;
    azs_state *st; /* held: an exception keeps no Loop alive */
} ReturnObject;

/* New reference; steals `value`. */
static PyObject *
return_new_steal(azs_state *st, PyObject *value)
{
    PyObject *args = PyTuple_Pack(1, value);
    PyTypeObject *type = st->return_type;
    if (args == NULL) {
        Py_DECREF(value);
        return NULL;
    }
    ReturnObject *self = azs_freelist_take(&st->free_returns);
    if (azs_unlikely(self == NULL)) {
        self = (ReturnObject *)azs_type_alloc(type);
        if (self == NULL) {
            Py_DECREF(args);
            Py_DECREF(value);
            return NULL;
        }
        PyObject_GC_UnTrack(self);
    }
    self->st = azs_state_hold(st);
    ((PyBaseExceptionObject *)self)->args = args;
    ((PyBaseExceptionObject *)self)->suppress_context = 0;
    self->base.value = value;
    PyObject_GC_Track(self);
    return (PyObject *)self;
}

static int
return_traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    return ((PyTypeObject *)PyExc_StopIteration)->tp_traverse(self, visit, arg);
}

/* Drops all that it holds, what has been attached to it since included. */
static int
return_clear(PyObject *self)
{
    return ((PyTypeObject *)PyExc_StopIteration)->tp_clear(self);
}

static void
return_dealloc(ReturnObject *self)
{
    PyObject_GC_UnTrack(self);
    Py_TRASHCAN_BEGIN(self, return_dealloc) /* the value may be another one */
        return_clear((PyObject *)self);
    azs_state *st = self->st;
    if (!azs_freelist_keep(&st->free_returns, (PyObject *)self))
        AZS_DEALLOC_FREE(self);
    azs_state_release(st);
    Py_TRASHCAN_END
}

static PyType_Slot return_slots[] = {
    {Py_tp_dealloc, return_dealloc},
    {Py_tp_traverse, return_traverse},
    {Py_tp_clear, return_clear},
    {0, NULL},
};

static PyType_Spec return_spec = {
    .name = "aiozmq_speedups._core.StopIteration",
    .basicsize = sizeof(ReturnObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE |
             Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = return_slots,
};

/* With ours a round trip: streams 25,390 instructions to 24,610, time by 1.02; sock_*
 * 18,410 to 17,630, time within the spread. */
PyObject *
azs_coro_return_steal(azs_state *st, PyObject *value)
{
    PyObject *exc;
#ifdef Py_GIL_DISABLED
    bool recycled = false;
#else
    bool recycled = azs_likely(!st->without.stop_iteration);
#endif
    if (!recycled) {
        exc = PyObject_CallOneArg(PyExc_StopIteration, value);
        Py_DECREF(value);
    } else {
        exc = return_new_steal(st, value);
    }
    if (azs_likely(exc != NULL))
        azs_exc_restore_steal(exc);
    return NULL;
}

/* ---- what is thrown in ---- */

int
azs_coro_throw_set(PyObject *const *args, Py_ssize_t nargs)
{
    PyObject *type = args[0];
    PyObject *value = nargs > 1 && args[1] != Py_None ? args[1] : NULL;
    PyObject *traceback = nargs > 2 && args[2] != Py_None ? args[2] : NULL;
    PyObject *exc;
    if (traceback != NULL && !PyTraceBack_Check(traceback)) {
        PyErr_SetString(PyExc_TypeError,
                        "throw() third argument must be a traceback object");
        return -1;
    }
    if (PyExceptionInstance_Check(type)) {
        if (value != NULL) {
            PyErr_SetString(PyExc_TypeError,
                            "instance exception may not have a separate value");
            return -1;
        }
        exc = Py_NewRef(type);
    } else if (PyExceptionClass_Check(type)) {
        if (value != NULL && PyObject_TypeCheck(value, (PyTypeObject *)type))
            exc = Py_NewRef(value);
        else if (value != NULL && PyTuple_Check(value))
            exc = PyObject_CallObject(type, value);
        else
            exc = value != NULL ? PyObject_CallOneArg(type, value)
                                : PyObject_CallNoArgs(type);
        if (exc == NULL)
            return 0; /* as raising it would */
        if (!PyExceptionInstance_Check(exc)) {
            PyErr_Format(PyExc_TypeError,
                         "calling %R should have returned an instance of "
                         "BaseException, not %R",
                         type, Py_TYPE(exc));
            Py_DECREF(exc);
            return 0;
        }
    } else {
        PyErr_Format(PyExc_TypeError,
                     "exceptions must be classes or instances deriving from "
                     "BaseException, not %s",
                     Py_TYPE(type)->tp_name);
        return -1;
    }
    if (traceback == NULL || PyException_SetTraceback(exc, traceback) == 0)
        PyErr_SetObject((PyObject *)Py_TYPE(exc), exc);
    Py_DECREF(exc);
    return 0;
}

/* ---- the steps ---- */

/* Claims the coroutine, which runs once at a time: in a free-threaded build another
 * thread may try to at the very moment. */
static inline bool
coro_claim(CoroObject *self)
{
#ifdef Py_GIL_DISABLED
    return !__atomic_exchange_n(&self->running, true, __ATOMIC_ACQUIRE);
#else
    bool was_running = self->running;
    self->running = true;
    return !was_running;
#endif
}

static inline void
coro_unclaim(CoroObject *self)
{
#ifdef Py_GIL_DISABLED
    __atomic_store_n(&self->running, false, __ATOMIC_RELEASE);
#else
    self->running = false;
#endif
}

/* May it run in this thread? Where it has not begun, any may close it. 0 or -1. */
static inline int
coro_check_thread(const CoroObject *self, bool closes)
{
#ifdef Py_GIL_DISABLED
    if (!closes || self->state != AZS_CORO_CREATED)
        return self->ops->check_thread(self);
#else
    (void)self, (void)closes;
#endif
    return 0;
}

/* 0 where the coroutine may run now, claimed; -1 with an exception. */
static int
coro_enter(CoroObject *self, bool closes)
{
    if (coro_check_thread(self, closes) < 0)
        return -1;
    if (azs_unlikely(!coro_claim(self))) {
        PyErr_SetString(PyExc_ValueError, "coroutine already executing");
        return -1;
    }
    if (azs_unlikely(self->state == AZS_CORO_FINISHED)) {
        coro_unclaim(self);
        PyErr_SetString(PyExc_RuntimeError, "cannot reuse already awaited coroutine");
        return -1;
    }
    if (closes && coro_check_thread(self, closes) < 0) { /* it has begun since */
        coro_unclaim(self);
        return -1;
    }
    return 0;
}

static PySendResult
coro_leave(CoroObject *self, PySendResult outcome)
{
    if (outcome == PYGEN_NEXT) {
        self->state = AZS_CORO_SUSPENDED;
    } else {
        self->state = AZS_CORO_FINISHED;
        self->ops->finish(self);
    }
    coro_unclaim(self);
    return outcome;
}

/* Takes the outcome of sending to the coroutine that it awaits: PYGEN_NEXT passes on
 * what that yielded, PYGEN_RETURN means to go on. Steals `value`. */
static PySendResult
coro_delegated(CoroObject *self, PySendResult outcome, PyObject *value,
               PyObject **result)
{
    if (outcome == PYGEN_NEXT) {
        *result = value;
    } else if (outcome == PYGEN_RETURN) {
        self->delegates = false;
        Py_CLEAR(self->awaiting);
        Py_XSETREF(self->received, value);
    }
    return outcome;
}

PySendResult
azs_coro_delegate(CoroObject *self, PyObject *coro, PyObject **result)
{
    PyObject *iter = NULL, *value = NULL;
    PyAsyncMethods *async = Py_TYPE(coro)->tp_as_async;
    if (PyCoro_CheckExact(coro))
        iter = Py_NewRef(coro);
    else if (async == NULL || async->am_await == NULL)
        PyErr_Format(PyExc_TypeError,
                     "object %.100s can't be used in 'await' expression",
                     Py_TYPE(coro)->tp_name);
    else
        iter = async->am_await(coro);
    Py_DECREF(coro);
    if (iter == NULL)
        return PYGEN_ERROR;
    self->awaiting = iter;
    self->delegates = true;
    PySendResult outcome = PyIter_Send(iter, Py_None, &value);
    return coro_delegated(self, outcome, value, result);
}

PySendResult
azs_coro_send(CoroObject *self, PyObject *arg, PyObject **result)
{
    *result = NULL;
    if (coro_enter(self, false) < 0)
        return PYGEN_ERROR;
    PySendResult outcome = PYGEN_RETURN;
    if (azs_unlikely(self->delegates)) {
        PyObject *value = NULL;
        outcome = PyIter_Send(self->awaiting, arg, &value);
        outcome = coro_delegated(self, outcome, value, result);
    } else if (azs_unlikely(self->state == AZS_CORO_CREATED && arg != Py_None)) {
        coro_unclaim(self);
        PyErr_SetString(PyExc_TypeError,
                        "can't send non-None value to a just-started coroutine");
        return PYGEN_ERROR;
    }
    if (azs_likely(outcome == PYGEN_RETURN))
        outcome = self->ops->advance(self, result);
    return coro_leave(self, outcome);
}

PyObject *
azs_coro_iternext(CoroObject *self)
{
    PyObject *result;
    PySendResult outcome = azs_coro_send(self, Py_None, &result);
    if (azs_likely(outcome != PYGEN_RETURN))
        return result;
    if (result != Py_None)
        return azs_coro_return_steal(self->st, result);
    Py_DECREF(result); /* no exception at all means None, and costs nothing */
    return NULL;
}

PyDoc_STRVAR(send_doc,
"send($self, value, /)\n--\n\nResume the coroutine (collections.abc.Coroutine.send).");

static PyObject *
Coro_send(CoroObject *self, PyObject *arg)
{
    PyObject *result;
    PySendResult outcome = azs_coro_send(self, arg, &result);
    return outcome == PYGEN_RETURN ? azs_coro_return_steal(self->st, result) : result;
}

/* The value of the current StopIteration, which is cleared; new reference, or
 * NULL with another exception. */
static PyObject *
stop_iteration_take(void)
{
    if (!PyErr_ExceptionMatches(PyExc_StopIteration))
        return NULL;
    PyObject *exc = azs_exc_take();
    PyObject *value = PyObject_GetAttrString(exc, "value");
    Py_DECREF(exc);
    return value;
}

PyDoc_STRVAR(throw_doc,
"throw($self, type, value=None, traceback=None, /)\n--\n\n"
"Raise an exception inside the coroutine, which ends it: it has taken no data\n"
"and no connection (collections.abc.Coroutine.throw).");

static PyObject *
Coro_throw(CoroObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    if (nargs < 1 || nargs > 3) {
        PyErr_Format(PyExc_TypeError, "throw expected 1 to 3 arguments, got %zd",
                     nargs);
        return NULL;
    }
    if (coro_enter(self, false) < 0)
        return NULL;
    PyObject *result = NULL;
    PySendResult outcome = PYGEN_ERROR;
    if (!self->delegates) {
        if (azs_coro_throw_set(args, nargs) < 0) {
            coro_unclaim(self);
            return NULL;
        }
    } else {
        /* The coroutine that it awaits may catch it. */
        PyObject *stack[1 + 3] = {self->awaiting};
        for (Py_ssize_t i = 0; i < nargs; i++)
            stack[1 + i] = args[i];
        PyObject *value = PyObject_VectorcallMethod(self->st->str_throw, stack,
                                                    1 + (size_t)nargs, NULL);
        outcome = value == NULL ? PYGEN_ERROR : PYGEN_NEXT;
        if (value == NULL) {
            value = stop_iteration_take();
            outcome = value == NULL ? PYGEN_ERROR : PYGEN_RETURN;
        }
        outcome = coro_delegated(self, outcome, value, &result);
        if (outcome == PYGEN_RETURN)
            outcome = self->ops->advance(self, &result);
    }
    outcome = coro_leave(self, outcome);
    return outcome == PYGEN_RETURN ? azs_coro_return_steal(self->st, result) : result;
}

PyDoc_STRVAR(close_doc,
"close($self, /)\n--\n\n"
"End the coroutine, which does nothing more (collections.abc.Coroutine.close). In\n"
"another thread than the loop's: as loop.call_soon_threadsafe(coro.close).");

static PyObject *
Coro_close(CoroObject *self, PyObject *Py_UNUSED(ignored))
{
    if (self->state == AZS_CORO_FINISHED)
        Py_RETURN_NONE;
    /* Another thread's collector ends the coroutine that awaits this one. */
    if (self->state != AZS_CORO_CREATED && azs_coro_hand_on(self))
        Py_RETURN_NONE;
    if (coro_enter(self, true) < 0)
        return NULL;
    PyObject *res = self->delegates
                        ? PyObject_CallMethodNoArgs(self->awaiting, self->st->str_close)
                        : Py_NewRef(Py_None);
    coro_leave(self, PYGEN_RETURN);
    return res;
}

static PyMethodDef close_method = {"close", (PyCFunction)Coro_close, METH_NOARGS,
                                   close_doc};

bool
azs_coro_hand_on(CoroObject *self)
{
    return self->ops->hand_on(self, &close_method);
}

/* ---- as a coroutine of Python code ---- */

static inline bool
coro_is_suspended(const CoroObject *self)
{
    return self->state == AZS_CORO_SUSPENDED && !self->running;
}

/* As CPython: one at a time may await it. */
PyObject *
azs_coro_await(CoroObject *self)
{
    if (azs_unlikely(coro_is_suspended(self))) {
        PyErr_SetString(PyExc_RuntimeError, "coroutine is being awaited already");
        return NULL;
    }
    return Py_NewRef(self);
}

/* Itself for `yield from` in a generator of @types.coroutine, TypeError for anything
 * else, as CPython. */
PyObject *
azs_coro_iter(CoroObject *self)
{
    PyFrameObject *frame = PyEval_GetFrame(); /* borrowed */
    if (frame != NULL) {
        PyCodeObject *code = PyFrame_GetCode(frame);
        bool may = code->co_flags & CO_ITERABLE_COROUTINE;
        Py_DECREF(code);
        if (may)
            return Py_NewRef(self);
    }
    PyErr_SetString(PyExc_TypeError, "'coroutine' object is not iterable");
    return NULL;
}

PyObject *
azs_coro_repr(CoroObject *self)
{
    return PyUnicode_FromFormat("<coroutine object %s.%s at %p>", self->ops->owner,
                                self->ops->name(self), self);
}

/* types.CoroutineType, so that inspect.iscoroutine() is true. */
static PyObject *
coro_get_class(PyObject *Py_UNUSED(self), void *Py_UNUSED(closure))
{
    return Py_NewRef(&PyCoro_Type);
}

static PyObject *
coro_get_name(CoroObject *self, void *Py_UNUSED(closure))
{
    return PyUnicode_FromString(self->ops->name(self));
}

static PyObject *
coro_get_qualname(CoroObject *self, void *Py_UNUSED(closure))
{
    return PyUnicode_FromFormat("%s.%s", self->ops->owner, self->ops->name(self));
}

static PyObject *
coro_get_awaiting(CoroObject *self, void *Py_UNUSED(closure))
{
    if (coro_check_thread(self, false) < 0) { /* what shows stacks asks */
        PyErr_Clear();
        Py_RETURN_NONE;
    }
    return Py_NewRef(self->awaiting != NULL ? self->awaiting : Py_None);
}

static PyObject *
coro_get_suspended(CoroObject *self, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(coro_is_suspended(self));
}

/* What inspect.getcoroutinestate() asks for since Python 3.15. */
static PyObject *
coro_get_state(CoroObject *self, void *Py_UNUSED(closure))
{
    if (self->running)
        return PyUnicode_FromString("CORO_RUNNING");
    static const char *const names[] = {
        [AZS_CORO_CREATED] = "CORO_CREATED",
        [AZS_CORO_SUSPENDED] = "CORO_SUSPENDED",
        [AZS_CORO_FINISHED] = "CORO_CLOSED",
    };
    return PyUnicode_FromString(names[self->state]);
}

/* asyncio's function that it stands for; NULL where it is none of Python code. */
static PyObject *
coro_function(CoroObject *self)
{
    PyObject *func = self->ops->function(self);
    if (func != NULL && !PyFunction_Check(func))
        Py_CLEAR(func);
    return func;
}

static PyObject *
coro_get_code(CoroObject *self, void *Py_UNUSED(closure))
{
    PyObject *func = coro_function(self);
    PyObject *code = Py_NewRef(func != NULL ? PyFunction_GET_CODE(func) : Py_None);
    Py_XDECREF(func);
    return code;
}

/* A frame that is made anew, without locals: for what shows stacks. */
static PyObject *
coro_get_frame(CoroObject *self, void *Py_UNUSED(closure))
{
    PyObject *func = self->state == AZS_CORO_FINISHED ? NULL : coro_function(self);
    if (func == NULL)
        Py_RETURN_NONE;
    PyFrameObject *frame =
        PyFrame_New(PyThreadState_Get(), (PyCodeObject *)PyFunction_GET_CODE(func),
                    PyFunction_GET_GLOBALS(func), NULL);
    Py_DECREF(func);
    return (PyObject *)frame;
}

PyMethodDef azs_coro_methods[] = {
    {"send", (PyCFunction)Coro_send, METH_O, send_doc},
    {"throw", (PyCFunction)(void (*)(void))Coro_throw, METH_FASTCALL, throw_doc},
    {"close", (PyCFunction)Coro_close, METH_NOARGS, close_doc},
    {NULL},
};

PyMemberDef azs_coro_members[] = {
    {"cr_running", T_BOOL, offsetof(CoroObject, running), READONLY},
    {NULL},
};

PyGetSetDef azs_coro_getset[] = {
    {"__name__", (getter)coro_get_name, NULL, NULL, NULL},
    {"__qualname__", (getter)coro_get_qualname, NULL, NULL, NULL},
    {"cr_await", (getter)coro_get_awaiting, NULL, NULL, NULL},
    {"cr_code", (getter)coro_get_code, NULL, NULL, NULL},
    {"cr_frame", (getter)coro_get_frame, NULL, NULL, NULL},
    {"cr_state", (getter)coro_get_state, NULL, NULL, NULL},
    {"cr_suspended", (getter)coro_get_suspended, NULL, NULL, NULL},
    {"__class__", coro_get_class, NULL, NULL, NULL},
    {NULL},
};

void
azs_coro_finalize(CoroObject *self)
{
    if (self->state != AZS_CORO_CREATED)
        return;
    PyObject *exc = PyErr_Occurred() ? azs_exc_take() : NULL;
    PyObject *name = PyObject_GetAttrString((PyObject *)self, "__qualname__");
    if (name == NULL || PyErr_WarnFormat(PyExc_RuntimeWarning, 1,
                                         "coroutine '%U' was never awaited", name) < 0)
        PyErr_WriteUnraisable((PyObject *)self);
    Py_XDECREF(name);
    if (exc != NULL)
        azs_exc_restore_steal(exc);
}

int
azs_coro_traverse(CoroObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->awaiting);
    Py_VISIT(self->received);
    return 0;
}

int
azs_coro_init(PyObject *mod, azs_state *st)
{
    return azs_type_add(mod, &st->return_type, &return_spec, PyExc_StopIteration,
                        false);
}
