/* Debug mode: callbacks that take long are told of, as asyncio does. */
#include "loop/loop_object.h"
#include "py/errors.h"

/* Debug mode: has the loop's method `tell` log what took long, `args` filled up with
 * the seconds since start_ns. 0 or -1. */
static int
tell_slow(LoopObject *self, PyObject *tell, PyObject **args, size_t nargs,
          int64_t start_ns)
{
    int64_t took_ns = azs_clock_ns() - start_ns;
    azs_stats_peak(&self->stats.longest_callback_ns, took_ns);
    PyObject *took = PyFloat_FromDouble((double)took_ns / 1e9);
    if (took == NULL)
        return -1;
    args[0] = (PyObject *)self;
    args[nargs] = took;
    PyObject *told = PyObject_VectorcallMethod(tell, args, nargs + 1, NULL);
    Py_DECREF(took);
    if (told == NULL)
        return -1;
    if (told == Py_True)
        self->slow_reported = true;
    Py_DECREF(told);
    return 0;
}

/* Debug mode: as azs_handle_run, timed; asyncio's names for the details. */
int
azs_loop_run_handle_debug(LoopObject *self, HandleObject *handle)
{
    Py_XSETREF(self->current_handle, Py_NewRef(handle));
    self->slow_reported = false;
    int64_t start_ns = azs_clock_ns();
    int res = azs_handle_run(handle);
    Py_CLEAR(self->current_handle);
    if (res < 0 || self->slow_reported)
        return res;
    PyObject *args[3] = {NULL, (PyObject *)handle};
    return tell_slow(self, self->st->str__callback_slow, args, 2, start_ns);
}

/* Tells of a call of `what`, or of its method `name`, and of what it raised. Steals
 * `result` and returns it. */
static PyObject *
tell_slow_call_steal(LoopObject *loop, PyObject *what, PyObject *name, int64_t start_ns,
                     PyObject *result)
{
    PyObject *raised = result == NULL ? azs_exc_take() : NULL;
    PyObject *args[4] = {NULL, what, name};
    if (tell_slow(loop, loop->st->str__protocol_slow, args, 3, start_ns) < 0)
        Py_CLEAR(result);
    if (raised != NULL) {
        PyErr_Clear();
        azs_exc_restore_steal(raised);
    }
    Py_DECREF(what);
    Py_DECREF(loop);
    return result;
}

PyObject *
azs_loop_call_protocol_debug(LoopObject *loop, PyObject *name, PyObject *const *args,
                             size_t nargs)
{
    Py_INCREF(loop);
    PyObject *protocol = Py_NewRef(args[0]);
    int64_t start_ns = azs_clock_ns();
    PyObject *result = PyObject_VectorcallMethod(name, args, nargs, NULL);
    return tell_slow_call_steal(loop, protocol, name, start_ns, result);
}

PyObject *
azs_loop_call_factory_debug(LoopObject *loop, PyObject *factory)
{
    Py_INCREF(loop);
    Py_INCREF(factory);
    int64_t start_ns = azs_clock_ns();
    PyObject *result = PyObject_CallNoArgs(factory);
    return tell_slow_call_steal(loop, factory, Py_None, start_ns, result);
}
