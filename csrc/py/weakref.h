/* Weak references, in the words of Python 3.13. */
#ifndef AZS_PY_WEAKREF_H
#define AZS_PY_WEAKREF_H

#include "py/state.h"

/* What a weak reference refers to: 1 with a new reference in *out; 0 for none, NULL and
 * what is no weak reference included; -1 with an exception. */
static inline int
azs_weakref_get(PyObject *ref, PyObject **out)
{
    *out = NULL;
    if (ref == NULL || !PyWeakref_CheckRefExact(ref))
        return 0;
#if PY_VERSION_HEX >= 0x030D0000
    return PyWeakref_GetRef(ref, out);
#else
    PyObject *obj = PyWeakref_GetObject(ref); /* borrowed */
    if (obj == NULL || obj == Py_None)
        return 0;
    *out = Py_NewRef(obj);
    return 1;
#endif
}

#endif
