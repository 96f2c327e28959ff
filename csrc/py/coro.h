/* What coroutines written in C have in common: how they return, are thrown into and
 * pass for coroutines of Python code. */
#ifndef AZS_PY_CORO_H
#define AZS_PY_CORO_H

#include "py/state.h"

/* Raises StopIteration(value), which is how send() returns it; steals `value`. Always
 * NULL. */
PyObject *azs_coro_return_steal(azs_state *st, PyObject *value);

/* Sets the exception that the arguments of throw() mean. 0, or -1 where they mean
 * none: then it is the TypeError about that. */
int azs_coro_throw_set(PyObject *const *args, Py_ssize_t nargs);

/* ---- as a coroutine of Python code ---- */

/* __class__: types.CoroutineType, so that inspect.iscoroutine() is true. */
PyObject *azs_coro_get_class(PyObject *self, void *closure);

/* tp_iter: itself for `yield from` in a generator of @types.coroutine, TypeError for
 * anything else, as CPython does. New reference. */
PyObject *azs_coro_iter(PyObject *self);

/* cr_code and cr_frame, as of asyncio's coroutine function that it stands for; None for
 * NULL and anything but a function. The frame is made anew, without locals: for what
 * shows stacks. New references. */
PyObject *azs_coro_code(PyObject *func);
PyObject *azs_coro_frame(PyObject *func);

/* cr_state, which inspect.getcoroutinestate() asks for since Python 3.15. New
 * reference. */
PyObject *azs_coro_state(bool created, bool running, bool finished);

/* The RuntimeWarning of a coroutine that is dropped before it began. Runs Python code;
 * a current exception stays set. */
void azs_coro_warn_unawaited(PyObject *self);

int azs_coro_init(PyObject *mod, azs_state *st);

#endif
