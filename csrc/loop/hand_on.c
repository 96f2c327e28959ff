#include "loop/hand_on.h"

#include "loop/loop_object.h"
#include "py/errors.h"

int
azs_loop_hand_on(PyObject *loop, PyObject *object, PyMethodDef *method)
{
    Py_INCREF(loop); /* the object's, which may let go of it */
    PyObject *handle = NULL, *call = PyCFunction_New(method, object);
    if (call != NULL)
        handle = PyObject_CallMethod(loop, "call_soon_threadsafe", "O", call);
    Py_XDECREF(call);
    Py_DECREF(loop);
    Py_XDECREF(handle);
    return handle == NULL ? -1 : 0;
}

/* A child of fork() has not the thread that runs its parent's loop. */
static bool
runs_elsewhere(const LoopObject *loop)
{
    if (loop->fork_generation != azs_fork_generation)
        return false;
#ifdef Py_GIL_DISABLED
    uintptr_t turner = __atomic_load_n(&loop->inbox.turner, __ATOMIC_RELAXED);
    return turner != 0 && turner != _Py_ThreadId();
#else
    PyObject *id = loop->thread_id;
    return id != NULL && PyLong_CheckExact(id) &&
           PyLong_AsUnsignedLongMask(id) != PyThread_get_thread_ident();
#endif
}

int
azs_loop_foreign_runs_elsewhere(azs_state *st, PyObject *loop)
{
    PyObject *mine = PyObject_CallNoArgs(st->get_running_loop);
    if (mine == NULL)
        return -1;
    Py_DECREF(mine);
    if (azs_likely(mine == loop))
        return 0;
    /* A test's loop may be anything. */
    PyObject *running = PyObject_CallMethod(loop, "is_running", NULL);
    if (running == NULL) {
        if (!PyErr_ExceptionMatches(PyExc_AttributeError))
            return -1;
        PyErr_Clear();
        return 0;
    }
    Py_DECREF(running);
    return running == Py_True;
}

bool
azs_loop_hand_on_end(azs_state *st, LoopObject *own, PyObject *loop, PyObject *object,
                     PyMethodDef *method)
{
    if (own != NULL ? !runs_elsewhere(own) : loop == NULL)
        return false;
    PyObject *exc = PyErr_Occurred() ? azs_exc_take() : NULL;
    int elsewhere = own != NULL ? 1 : azs_loop_foreign_runs_elsewhere(st, loop);
    if (elsewhere > 0 &&
        azs_loop_hand_on(own != NULL ? (PyObject *)own : loop, object, method) < 0 &&
        PyErr_ExceptionMatches(PyExc_RuntimeError))
        PyErr_Clear(); /* closed since: it has let go of all that it had */
    if (PyErr_Occurred())
        PyErr_WriteUnraisable(object);
    if (exc != NULL)
        azs_exc_restore_steal(exc);
    return elsewhere > 0;
}
