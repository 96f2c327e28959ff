/* What every heap type does alike. */
#ifndef AZS_PY_TYPE_H
#define AZS_PY_TYPE_H

#include "py/state.h"

/* Frees a GC-tracked instance of a heap type. The caller has untracked it and
 * dropped its members. The type goes last: the instance owned a reference. */
#define AZS_DEALLOC_FREE(self)                                                         \
    do {                                                                               \
        PyTypeObject *azs_tp = Py_TYPE(self);                                          \
        azs_tp->tp_free((PyObject *)(self));                                           \
        Py_DECREF(azs_tp);                                                             \
    } while (0)

/* Makes the type of `spec` with `bases` (NULL, a type or a tuple of types),
 * stores it in *slot (owned) and adds it to the module under its own name
 * where `add` is true. 0, or -1 with an exception. */
static inline int
azs_type_add(PyObject *mod, PyTypeObject **slot, PyType_Spec *spec, PyObject *bases,
             bool add)
{
    PyObject *type = PyType_FromModuleAndSpec(mod, spec, bases);
    if (type == NULL)
        return -1;
    *slot = (PyTypeObject *)type;
    return add ? PyModule_AddType(mod, *slot) : 0;
}

#endif
