#include "loop/callargs.h"

#include "loop/loop_object.h"

/* True where `name` says "context". */
static bool
name_is_context(azs_state *st, PyObject *kwnames, PyObject *name)
{
    if (azs_likely(name == st->str_context))
        return true;
    if (PyUnicode_Compare(name, st->str_context) != 0)
        return false;
    /* asyncio's C code gives one tuple always, and its string is not interned. */
    if (PyTuple_GET_SIZE(kwnames) == 1 && PyUnicode_CheckExact(name))
        AZS_ATOMIC_SETREF(st->kwnames_context, Py_NewRef(kwnames));
    return true;
}

/* Raises TypeError about the parameters that are NULL in `given`, in the
 * interpreter's words. Always -1. */
static int
fail_missing(const azs_call_spec *spec, PyObject *const *given)
{
    const char *names[AZS_CALL_PARAMETERS];
    int n = 0;
    for (Py_ssize_t i = 0; i < spec->required; i++) {
        if (given[i] == NULL)
            names[n++] = spec->parameters[i];
    }
    if (n == 1)
        PyErr_Format(PyExc_TypeError,
                     "%s() missing 1 required positional argument: "
                     "'%s'",
                     spec->name, names[0]);
    else
        PyErr_Format(PyExc_TypeError,
                     "%s() missing 2 required positional arguments: "
                     "'%s' and '%s'",
                     spec->name, names[0], names[1]);
    return -1;
}

static int
fail_unexpected(const azs_call_spec *spec, PyObject *name)
{
    PyErr_Format(PyExc_TypeError, "%s() got an unexpected keyword argument '%U'",
                 spec->name, name);
    return -1;
}

int
azs_parse_context(LoopObject *loop, const azs_call_spec *spec, Py_ssize_t nargs,
                  PyObject *const *args, PyObject *kwnames, PyObject **context)
{
    *context = NULL;
    if (kwnames != NULL) {
        azs_state *st = loop->st;
        Py_ssize_t nkw = PyTuple_GET_SIZE(kwnames);
        if (azs_unlikely(spec->no_context && nkw > 0))
            return 1;
        for (Py_ssize_t i = 0; i < nkw; i++) {
            PyObject *name = PyTuple_GET_ITEM(kwnames, i);
            if (azs_likely(kwnames == AZS_ATOMIC_LOAD(&st->kwnames_context)) ||
                name_is_context(st, kwnames, name))
                *context = args[nargs + i] == Py_None ? NULL : args[nargs + i];
            else if (spec->method != NULL)
                return 1;
            else
                return fail_unexpected(spec, name);
        }
    }
    if (azs_unlikely(nargs < spec->required)) {
        PyObject *given[AZS_CALL_PARAMETERS] = {NULL};
        for (Py_ssize_t i = 0; i < nargs; i++)
            given[i] = args[i];
        return fail_missing(spec, given);
    }
    return 0;
}

PyObject *
azs_call_by_position(LoopObject *loop, const azs_call_spec *spec, PyObject *const *args,
                     Py_ssize_t nargs, PyObject *kwnames)
{
    PyObject *stack[AZS_CALL_PARAMETERS + 1] = {NULL};
    PyObject *context = NULL;
    for (Py_ssize_t i = 0; i < nargs && i < spec->required; i++)
        stack[i] = args[i];
    for (Py_ssize_t k = 0; k < PyTuple_GET_SIZE(kwnames); k++) {
        PyObject *name = PyTuple_GET_ITEM(kwnames, k);
        Py_ssize_t i = 0;
        while (i < spec->required &&
               PyUnicode_CompareWithASCIIString(name, spec->parameters[i]) != 0)
            i++;
        if (i < spec->required && stack[i] != NULL) {
            PyErr_Format(PyExc_TypeError, "%s() got multiple values for argument '%U'",
                         spec->name, name);
            return NULL;
        }
        if (i < spec->required) {
            stack[i] = args[nargs + k];
        } else if (!spec->no_context &&
                   PyUnicode_Compare(name, loop->st->str_context) == 0) {
            context = args[nargs + k];
        } else {
            fail_unexpected(spec, name);
            return NULL;
        }
    }
    for (Py_ssize_t i = 0; i < spec->required; i++) {
        if (stack[i] == NULL) {
            fail_missing(spec, stack);
            return NULL;
        }
    }
    if (context == NULL)
        return spec->method(loop, stack, spec->required, NULL);
    PyObject *names = PyTuple_Pack(1, loop->st->str_context);
    if (names == NULL)
        return NULL;
    stack[spec->required] = context;
    PyObject *res = spec->method(loop, stack, spec->required, names);
    Py_DECREF(names);
    return res;
}

int
azs_loop_debug_check(LoopObject *loop, PyObject *callback, const char *method,
                     bool check_thread)
{
    PyObject *res;
    if (check_thread) {
        res = PyObject_CallMethodNoArgs((PyObject *)loop, loop->st->str__check_thread);
        if (res == NULL)
            return -1;
        Py_DECREF(res);
    }
    PyObject *name = PyUnicode_FromString(method);
    if (name == NULL)
        return -1;
    PyObject *args[] = {(PyObject *)loop, callback, name};
    res = PyObject_VectorcallMethod(loop->st->str__check_callback, args, 3, NULL);
    Py_DECREF(name);
    Py_XDECREF(res);
    return res == NULL ? -1 : 0;
}
