/* Dicts and lists that others may change meanwhile: strong references. */
#ifndef AZS_PY_CONTAINERS_H
#define AZS_PY_CONTAINERS_H

#include "py/state.h"

/* PyDict_GetItemRef() of Python 3.13: 1 with a new reference in *out; 0 with NULL where
 * there is none; -1 with NULL and an exception. With a GIL that is the slower one. */
static inline int
azs_dict_get(PyObject *dict, PyObject *key, PyObject **out)
{
#ifdef Py_GIL_DISABLED
    return PyDict_GetItemRef(dict, key, out);
#else
    *out = Py_XNewRef(PyDict_GetItemWithError(dict, key));
    return *out != NULL ? 1 : PyErr_Occurred() ? -1 : 0;
#endif
}

/* PyList_GetItemRef() of Python 3.13: new reference, or NULL where it is shorter. */
static inline PyObject *
azs_list_get(PyObject *list, Py_ssize_t i)
{
#if PY_VERSION_HEX >= 0x030D0000
    PyObject *item = PyList_GetItemRef(list, i);
    if (item == NULL)
        PyErr_Clear();
    return item;
#else
    return i < PyList_GET_SIZE(list) ? Py_NewRef(PyList_GET_ITEM(list, i)) : NULL;
#endif
}

/* May another thread change the list at any moment? Then what it has is not to be
 * borrowed: PyList_AsTuple() holds it. */
static inline bool
azs_list_may_change(PyObject *list)
{
#ifdef Py_GIL_DISABLED
    return !azs_has_one_reference(list);
#else
    (void)list;
    return false;
#endif
}

#endif
