/* What coroutines written in C have in common: how they return and are thrown into. */
#ifndef AZS_PY_CORO_H
#define AZS_PY_CORO_H

#include "py/state.h"

/* Raises StopIteration(value), which is how send() returns it; steals `value`. Always
 * NULL. */
PyObject *azs_coro_raise_steal(PyObject *value);

/* The same from tp_iternext: nearly always that is `await`, which takes the value out
 * of the exception and drops it at once, so it is used again. */
PyObject *azs_coro_return_steal(azs_state *st, PyObject *value);

/* Sets the exception that the arguments of throw() mean. 0, or -1 where they mean
 * none: then it is the TypeError about that. */
int azs_coro_throw_set(PyObject *const *args, Py_ssize_t nargs);

#endif
