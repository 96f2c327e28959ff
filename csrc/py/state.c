#include "py/state.h"

#include <stdlib.h>

azs_state *
azs_state_new(void)
{
    azs_state *st = calloc(1, sizeof(azs_state));
    if (st == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
#ifndef Py_GIL_DISABLED
    azs_freelists_begin(&st->free);
    st->free_returns.room = 1;
#endif
    return azs_state_hold(st);
}

void
azs_freelists_begin(azs_freelists *lists)
{
#define X(name, max) lists->name.room = max;
    AZS_FREELISTS(X)
#undef X
}

void
azs_freelists_end(azs_freelists *lists)
{
#define X(name, max) azs_freelist_end(&lists->name);
    AZS_FREELISTS(X)
#undef X
}

int
azs_state_make_names(azs_state *st)
{
#define X(name)                                                                        \
    st->str_##name = PyUnicode_InternFromString(#name);                                \
    if (st->str_##name == NULL)                                                        \
        return -1;
    AZS_STATE_NAMES(X)
#undef X
    return 0;
}

int
azs_state_traverse(azs_state *st, visitproc visit, void *arg)
{
#define X(field) Py_VISIT(st->field);
    AZS_STATE_TYPES(X)
    AZS_STATE_OBJECTS(X)
#undef X
    return 0;
}

void
azs_state_clear(azs_state *st)
{
    /* Before the types they need. */
#ifndef Py_GIL_DISABLED
    azs_freelists_end(&st->free);
#endif
    azs_freelist_end(&st->free_returns);
#define X(field) Py_CLEAR(st->field);
    AZS_STATE_TYPES(X)
    AZS_STATE_OBJECTS(X)
#undef X
#define X(name) Py_CLEAR(st->str_##name);
    AZS_STATE_NAMES(X)
#undef X
}

void
azs_state_at_end(azs_state *st, void (*cleanup)(azs_state *st))
{
    size_t i = 0;
    while (st->cleanups[i] != NULL)
        i++;
    assert(i < AZS_ARRAY_LEN(st->cleanups));
    st->cleanups[i] = cleanup;
}

void
azs_state_release(azs_state *st)
{
    if (AZS_ATOMIC_ADD(&st->holders, -1) > 0)
        return;
    for (size_t i = 0; i < AZS_ARRAY_LEN(st->cleanups); i++) {
        if (st->cleanups[i] != NULL)
            st->cleanups[i](st);
    }
    free(st);
}
