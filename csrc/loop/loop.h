/* The event loop's C core: see DESIGN in csrc/README.md for what is Python. */
#ifndef AZS_LOOP_LOOP_H
#define AZS_LOOP_LOOP_H

#include "py/state.h"
#include "loop/watcher.h"

int azs_loop_init(PyObject *mod, azs_state *st);

/* True where `obj` is a Loop of this module (or of a subclass). */
static inline bool
azs_loop_check(azs_state *st, PyObject *obj)
{
    return PyObject_TypeCheck(obj, st->loop_type);
}

/* call_soon from C, args copied. `context` borrowed, NULL for a copy of the
 * current one. 0, or -1 with an exception. */
int azs_loop_call_soon(LoopObject *loop, PyObject *callback, PyObject *const *args,
                       Py_ssize_t nargs, PyObject *context);

/* A new asyncio.Future of the loop; new reference. */
PyObject *azs_loop_create_future(LoopObject *loop);

#endif
