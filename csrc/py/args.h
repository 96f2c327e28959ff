/* Arguments of Python calls. */
#ifndef AZS_PY_ARGS_H
#define AZS_PY_ARGS_H

#include "py/state.h"

/* Sorts a call's arguments into `out`, one entry per name of the
 * NULL-terminated `names`; entries not given keep what the caller put there.
 * The first `required` must be given. References are borrowed. 0, or -1 with
 * TypeError. */
int azs_args_parse_keywords(const char *method, PyObject *const *args, Py_ssize_t nargs,
                            PyObject *kwnames, const char *const *names,
                            Py_ssize_t required, PyObject **out);

/* The same, fast where only positional arguments were given. */
static inline int
azs_args_parse(const char *method, PyObject *const *args, Py_ssize_t nargs,
               PyObject *kwnames, const char *const *names, Py_ssize_t required,
               Py_ssize_t max, PyObject **out)
{
    if (azs_likely(kwnames == NULL && nargs >= required && nargs <= max)) {
        for (Py_ssize_t i = 0; i < nargs; i++)
            out[i] = args[i];
        return 0;
    }
    return azs_args_parse_keywords(method, args, nargs, kwnames, names, required, out);
}

/* An optional argument that is a contextvars.Context: None becomes NULL. 0, or -1
 * with TypeError. */
static inline int
azs_context_arg(PyObject **context)
{
    if (*context == Py_None)
        *context = NULL;
    if (*context == NULL || PyContext_CheckExact(*context))
        return 0;
    PyErr_Format(PyExc_TypeError,
                 "context must be a contextvars.Context or None, got %.200s",
                 Py_TYPE(*context)->tp_name);
    return -1;
}

#endif
