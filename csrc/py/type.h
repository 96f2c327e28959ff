/* What every heap type does alike, and what modules have to be asked for. */
#ifndef AZS_PY_TYPE_H
#define AZS_PY_TYPE_H

#include "py/state.h"

/* The body of a dealloc of which the members may be another of the kind, whose dealloc
 * comes to the next: a long chain is freed link by link (CPython's trashcan; since
 * Python 3.14 every dealloc is in it). The object may be put off in BEGIN: what could
 * find it without a reference must be told before. No `return` in between. */
#define AZS_DEALLOC_BEGIN(self, dealloc)                                               \
    PyObject_GC_UnTrack(self);                                                         \
    Py_TRASHCAN_BEGIN(self, dealloc)
#define AZS_DEALLOC_END Py_TRASHCAN_END

/* Frees a GC-tracked instance of a heap type. The caller has untracked it and
 * dropped its members. The type goes last: the instance owned a reference. */
#define AZS_DEALLOC_FREE(self)                                                         \
    do {                                                                               \
        AZS_TSAN_RELEASE(self);                                                        \
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

/* Adds methods that the type's spec does not list, such as those that several
 * types share. 0 or -1. */
static inline int
azs_type_add_methods(PyTypeObject *type, PyMethodDef *methods)
{
    for (PyMethodDef *def = methods; def->ml_name != NULL; def++) {
        PyObject *descr = PyDescr_NewMethod(type, def);
        if (descr == NULL)
            return -1;
        int res = PyObject_SetAttrString((PyObject *)type, def->ml_name, descr);
        Py_DECREF(descr);
        if (res < 0)
            return -1;
    }
    return 0;
}

/* *slot = module.name, owned. 0, or -1 with an exception. */
static inline int
azs_import_attr(PyObject **slot, const char *module, const char *name)
{
    PyObject *mod = PyImport_ImportModule(module);
    if (mod == NULL)
        return -1;
    *slot = PyObject_GetAttrString(mod, name);
    Py_DECREF(mod);
    return *slot == NULL ? -1 : 0;
}

#endif
