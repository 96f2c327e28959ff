/* What free-threaded builds of Python need, and what the GIL does elsewhere.
 *
 * Each loop and what is on it belongs to the thread that runs it, there as everywhere.
 * These are for what other threads reach all the same; with a GIL they are nothing.
 */
#ifndef AZS_PY_THREADS_H
#define AZS_PY_THREADS_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "base/common.h"

#ifdef Py_GIL_DISABLED

typedef PyMutex azs_mutex; /* all zero: not locked */

/* No Python code runs, and nothing is allocated that the collector knows, in between.
 */
#define azs_mutex_lock(mutex)   PyMutex_Lock(mutex)
#define azs_mutex_unlock(mutex) PyMutex_Unlock(mutex)

/* A counter that several threads change: its new value. */
#define AZS_ATOMIC_ADD(place, delta)                                                   \
    __atomic_add_fetch(place, delta, __ATOMIC_ACQ_REL)

#define AZS_ATOMIC_LOAD(place)         __atomic_load_n(place, __ATOMIC_ACQUIRE)
#define AZS_ATOMIC_STORE(place, value) __atomic_store_n(place, value, __ATOMIC_RELEASE)

/* Puts `value`, which is stolen, where another thread may do the same. */
#define AZS_ATOMIC_SETREF(place, value)                                                \
    Py_XDECREF(__atomic_exchange_n(&(place), value, __ATOMIC_ACQ_REL))

/* A block in which no other thread is in one of the same object; a call into Python,
 * or another block, may let one in. No `return`, `goto` or `break` leaves it. */
#define AZS_LOCKED(object)     Py_BEGIN_CRITICAL_SECTION(object)
#define AZS_UNLOCKED(object)   Py_END_CRITICAL_SECTION()

#else

typedef struct {
    char nothing;
} azs_mutex;

#define azs_mutex_lock(mutex)           ((void)(mutex))
#define azs_mutex_unlock(mutex)         ((void)(mutex))
#define AZS_ATOMIC_ADD(place, delta)    (*(place) += (delta))
#define AZS_ATOMIC_LOAD(place)          (*(place))
#define AZS_ATOMIC_STORE(place, value)  ((void)(*(place) = (value)))
#define AZS_ATOMIC_SETREF(place, value) Py_XSETREF(place, value)
#define AZS_LOCKED(object)              {
#define AZS_UNLOCKED(object)            }

#endif

/* A reference to what another thread may be letting go of: false where it has. The
 * object has been through azs_enable_try_incref(). */
static inline bool
azs_try_incref(PyObject *obj)
{
#if defined(Py_GIL_DISABLED) && PY_VERSION_HEX >= 0x030E0000
    return PyUnstable_TryIncRef(obj);
#else
    Py_INCREF(obj);
    return true;
#endif
}

static inline void
azs_enable_try_incref(PyObject *obj)
{
#if defined(Py_GIL_DISABLED) && PY_VERSION_HEX >= 0x030E0000
    PyUnstable_EnableTryIncRef(obj);
#else
    (void)obj;
#endif
}

/* The caller has the only reference, so that the object may be changed and used again:
 * no other thread can come by one. */
static inline bool
azs_is_unshared(PyObject *obj)
{
#ifndef Py_GIL_DISABLED
    return Py_REFCNT(obj) == 1;
#elif PY_VERSION_HEX >= 0x030E0000
    return PyUnstable_Object_IsUniquelyReferenced(obj);
#else
    return false;
#endif
}

#endif
