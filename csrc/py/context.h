/* Telling without a copy whether two Contexts hold the same values. */
#ifndef AZS_PY_CONTEXT_H
#define AZS_PY_CONTEXT_H

#include "py/state.h"

/* A contextvars.Context keeps its values in an immutable mapping that copies share
 * and that ContextVar.set() replaces: as long as two Contexts point to the same
 * mapping, one is as good as a fresh copy of the other. This is CPython's layout
 * (pycore_context.h, 3.7 to 3.15); azs_context_init checks it. */
typedef struct {
    PyObject_HEAD
    PyObject *prev;
    PyObject *vars;
} azs_context_layout;

/* Decides st->context_layout_known. 0, or -1 with an exception. */
int azs_context_init(azs_state *st);

/* Both are Contexts, and the layout is known. */
static inline bool
azs_context_same(const PyObject *a, const PyObject *b)
{
    return ((const azs_context_layout *)a)->vars ==
           ((const azs_context_layout *)b)->vars;
}

/* The garbage collector emptied it: it must not be copied, nor entered. */
static inline bool
azs_context_cleared(const PyObject *context)
{
    return ((const azs_context_layout *)context)->vars == NULL;
}

#endif
