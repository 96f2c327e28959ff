#include "py/coro.h"

#include "py/errors.h"

/* An exception that is kept for reuse keeps its value alive until then. */
enum { KEPT_VALUE_MAX = 4096 };

PyObject *
azs_coro_raise_steal(PyObject *value)
{
    if (PyTuple_Check(value) || PyExceptionInstance_Check(value)) {
        /* PyErr_SetObject would take it apart, or for the exception itself. */
        PyObject *exc = PyObject_CallOneArg(PyExc_StopIteration, value);
        if (exc != NULL) {
            PyErr_SetObject(PyExc_StopIteration, exc);
            Py_DECREF(exc);
        }
    } else {
        PyErr_SetObject(PyExc_StopIteration, value);
    }
    Py_DECREF(value);
    return NULL;
}

/* True where the spare exception is as good as new but for its value. */
static bool
is_reusable(PyObject *exc)
{
    PyBaseExceptionObject *base = (PyBaseExceptionObject *)exc;
    return exc != NULL && Py_REFCNT(exc) == 1 && base->traceback == NULL &&
           base->context == NULL && base->cause == NULL && base->dict == NULL &&
           base->args != NULL && Py_REFCNT(base->args) == 1 &&
           PyTuple_CheckExact(base->args) && PyTuple_GET_SIZE(base->args) == 1 &&
           PyBytes_CheckExact(PyTuple_GET_ITEM(base->args, 0));
}

PyObject *
azs_coro_return_steal(azs_state *st, PyObject *value)
{
    if (!PyBytes_CheckExact(value) || PyBytes_GET_SIZE(value) > KEPT_VALUE_MAX)
        return azs_coro_raise_steal(value);
    /* `await` takes the value out of the exception and drops it at once: making one
     * each time would cost more than the rest of a read. */
    PyObject *exc = st->spare_stop_iteration;
    if (azs_likely(is_reusable(exc))) {
        PyObject *args = ((PyBaseExceptionObject *)exc)->args;
        PyObject *old = PyTuple_GET_ITEM(args, 0);
        PyTuple_SET_ITEM(args, 0, Py_NewRef(value));
        Py_DECREF(old); /* bytes: no finalizers */
        Py_XSETREF(((PyStopIterationObject *)exc)->value, value);
    } else {
        exc = PyObject_CallOneArg(PyExc_StopIteration, value);
        Py_DECREF(value);
        if (exc == NULL)
            return NULL;
        Py_XSETREF(st->spare_stop_iteration, exc);
    }
    azs_exc_restore_steal(Py_NewRef(exc));
    return NULL;
}

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
