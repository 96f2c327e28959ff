#include "py/context.h"

/* 1 where what `context` has in the place of its mapping is shared by a copy and
 * replaced by set(), 0 where not, -1 with an exception. */
static int
probe_layout(PyObject *context, PyObject *var)
{
    int res = -1;
    PyObject *before = NULL, *after = NULL, *token = NULL;
    before = PyContext_Copy(context);
    if (before == NULL || PyContext_Enter(context) < 0)
        goto done;
    bool shared = azs_context_same(context, before);
    token = PyContextVar_Set(var, Py_None);
    if (token != NULL)
        after = PyContext_CopyCurrent();
    if (PyContext_Exit(context) < 0 || after == NULL)
        goto done;
    res = shared && !azs_context_same(context, before) &&
          azs_context_same(context, after);
done:
    Py_XDECREF(token);
    Py_XDECREF(after);
    Py_XDECREF(before);
    return res;
}

int
azs_context_init(azs_state *st)
{
    st->context_layout_known = false;
    if (PyContext_Type.tp_basicsize < (Py_ssize_t)sizeof(azs_context_layout))
        return 0;
    PyObject *context = PyContext_New();
    PyObject *var = PyContextVar_New("aiozmq_speedups._probe", NULL);
    int same = context == NULL || var == NULL ? -1 : probe_layout(context, var);
    Py_XDECREF(var);
    Py_XDECREF(context);
    if (same < 0)
        return -1;
    st->context_layout_known = same;
    return 0;
}
