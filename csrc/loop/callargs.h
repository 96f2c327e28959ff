/* The arguments of call_soon() and its like. */
#ifndef AZS_LOOP_CALLARGS_H
#define AZS_LOOP_CALLARGS_H

#include "loop/loop.h"

enum { AZS_CALL_PARAMETERS = 2 };

/* A method `name(parameters..., *args, context=None)`. */
typedef struct {
    const char *name;
    /* NULL where the parameters are positional-only. */
    PyObject *(*method)(LoopObject *self, PyObject *const *args, Py_ssize_t nargs,
                        PyObject *kwnames);
    Py_ssize_t required;
    const char *parameters[AZS_CALL_PARAMETERS]; /* the first `required` */
    bool no_context;                             /* there is no such keyword */
} azs_call_spec;

/* Splits METH_FASTCALL arguments: `context` from the keywords (borrowed, NULL for
 * none) and at least the required positional ones. 0; 1 where parameters were given by
 * name: then azs_call_by_position() does the rest; -1 with TypeError. */
int azs_parse_context(LoopObject *loop, const azs_call_spec *spec, Py_ssize_t nargs,
                      PyObject *const *args, PyObject *kwnames, PyObject **context);

/* Calls the method with its parameters in their places: its result. */
PyObject *azs_call_by_position(LoopObject *loop, const azs_call_spec *spec,
                               PyObject *const *args, Py_ssize_t nargs,
                               PyObject *kwnames);

/* Debug mode's checks of a call: the thread (where `check_thread`) and that the
 * callback is a plain callable. 0, or -1 with an exception. */
int azs_loop_debug_check(LoopObject *loop, PyObject *callback, const char *method,
                         bool check_thread);

#endif
