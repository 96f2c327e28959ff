#include "py/coro.h"

#include <frameobject.h>

#include "py/errors.h"
#include "py/type.h"

/* ---- returning ---- */

/* `await` takes the value out of the exception and drops it at once: making one each
 * time would cost more than the rest of a read. So this class keeps the memory of one.
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
        self = (ReturnObject *)type->tp_alloc(type, 0);
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

PyObject *
azs_coro_return_steal(azs_state *st, PyObject *value)
{
    PyObject *exc = return_new_steal(st, value);
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

/* ---- as a coroutine of Python code ---- */

PyObject *
azs_coro_get_class(PyObject *Py_UNUSED(self), void *Py_UNUSED(closure))
{
    return Py_NewRef(&PyCoro_Type);
}

PyObject *
azs_coro_iter(PyObject *self)
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
azs_coro_code(PyObject *func)
{
    return Py_NewRef(func != NULL && PyFunction_Check(func) ? PyFunction_GET_CODE(func)
                                                            : Py_None);
}

PyObject *
azs_coro_frame(PyObject *func)
{
    if (func == NULL || !PyFunction_Check(func))
        Py_RETURN_NONE;
    return (PyObject *)PyFrame_New(PyThreadState_Get(),
                                   (PyCodeObject *)PyFunction_GET_CODE(func),
                                   PyFunction_GET_GLOBALS(func), NULL);
}

PyObject *
azs_coro_state(bool created, bool running, bool finished)
{
    return PyUnicode_FromString(running    ? "CORO_RUNNING"
                                : created  ? "CORO_CREATED"
                                : finished ? "CORO_CLOSED"
                                           : "CORO_SUSPENDED");
}

void
azs_coro_warn_unawaited(PyObject *self)
{
    PyObject *exc = PyErr_Occurred() ? azs_exc_take() : NULL;
    PyObject *name = PyObject_GetAttrString(self, "__qualname__");
    if (name == NULL || PyErr_WarnFormat(PyExc_RuntimeWarning, 1,
                                         "coroutine '%U' was never awaited", name) < 0)
        PyErr_WriteUnraisable(self);
    Py_XDECREF(name);
    if (exc != NULL)
        azs_exc_restore_steal(exc);
}

int
azs_coro_init(PyObject *mod, azs_state *st)
{
    return azs_type_add(mod, &st->return_type, &return_spec, PyExc_StopIteration,
                        false);
}
