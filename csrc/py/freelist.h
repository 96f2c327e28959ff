/* Dead objects of one type, kept for the next ones.
 *
 * What comes and goes once per callback, packet or message spares the allocator so, and
 * the collector's count of allocations. A kept object is untracked and owns nothing,
 * not even its type; the list is linked through its dead reference count.
 *
 * The GIL guards a list. In a free-threaded build a loop's lists are used by the thread
 * that is in its turn alone, and the module has none. There a kept object does keep its
 * type: all threads would count that reference.
 */
#ifndef AZS_PY_FREELIST_H
#define AZS_PY_FREELIST_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "base/common.h"

typedef struct {
    void *head;
    int room; /* how many more may be kept */
} azs_freelist;

/* An object as it was kept, but for its one reference: new reference. NULL, without an
 * exception, where there is none. It is not tracked yet. In a free-threaded build
 * `list` may be NULL. */
static inline void *
azs_freelist_take(azs_freelist *list)
{
#ifdef Py_GIL_DISABLED
    if (azs_unlikely(list == NULL))
        return NULL;
#endif
    PyObject *obj = list->head;
    if (obj == NULL)
        return NULL;
    list->head = *(void **)obj;
    list->room++;
#ifndef Py_GIL_DISABLED
    Py_INCREF(Py_TYPE(obj));
#endif
    _Py_NewReference(obj);
    return obj;
}

/* The end of a dealloc: keeps an object that is untracked and cleared, and drops its
 * reference to the type. False where it must be freed: there is no room, or no list. An
 * object whose finalizer has run is not to be kept: it runs once in an object's life.
 */
static inline bool
azs_freelist_keep(azs_freelist *list, PyObject *obj)
{
#ifdef Py_GIL_DISABLED
    if (azs_unlikely(list == NULL))
        return false;
#endif
    if (azs_unlikely(list->room <= 0))
        return false;
    *(void **)obj = list->head;
    list->head = obj;
    list->room--;
#ifndef Py_GIL_DISABLED
    Py_DECREF(Py_TYPE(obj));
#endif
    return true;
}

/* Frees up to `n` objects. They are all collectable ones. */
static inline void
azs_freelist_trim(azs_freelist *list, int n)
{
    for (; n > 0 && list->head != NULL; n--) {
        PyObject *obj = list->head;
        list->head = *(void **)obj;
        list->room++;
#ifdef Py_GIL_DISABLED
        PyTypeObject *type = Py_TYPE(obj);
        PyObject_GC_Del(obj);
        Py_DECREF(type);
#else
        PyObject_GC_Del(obj);
#endif
    }
}

/* Frees all and keeps no more: the type may go next. */
static inline void
azs_freelist_end(azs_freelist *list)
{
    azs_freelist_trim(list, INT_MAX);
    list->room = 0;
}

#endif
