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

#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define AZS_TSAN 1
#endif
#endif
#if defined(__SANITIZE_THREAD__)
#define AZS_TSAN 1
#endif

/* ThreadSanitizer sees no code of an interpreter that was built without it: what that
 * puts in order (its locks, a reference handed on) it is told of here. */
#ifdef AZS_TSAN
void __tsan_acquire(void *place);
void __tsan_release(void *place);
#define AZS_TSAN_ACQUIRE(place) __tsan_acquire((void *)(place))
#define AZS_TSAN_RELEASE(place) __tsan_release((void *)(place))
#else
#define AZS_TSAN_ACQUIRE(place) ((void)0)
#define AZS_TSAN_RELEASE(place) ((void)0)
#endif

#ifdef Py_GIL_DISABLED

typedef PyMutex azs_mutex; /* all zero: not locked */

/* No Python code runs, and nothing is allocated that the collector knows, in between.
 */
static inline void
azs_mutex_lock(azs_mutex *mutex)
{
    PyMutex_Lock(mutex);
    AZS_TSAN_ACQUIRE(mutex);
}

static inline void
azs_mutex_unlock(azs_mutex *mutex)
{
    AZS_TSAN_RELEASE(mutex);
    PyMutex_Unlock(mutex);
}

/* A counter that several threads change: its new value. */
#define AZS_ATOMIC_ADD(place, delta)                                                   \
    __atomic_add_fetch(place, delta, __ATOMIC_ACQ_REL)

#define AZS_ATOMIC_LOAD(place)         __atomic_load_n(place, __ATOMIC_ACQUIRE)
#define AZS_ATOMIC_STORE(place, value) __atomic_store_n(place, value, __ATOMIC_RELEASE)

/* What one thread counts, or sets, and any may look at: the word is whole, and tells of
 * nothing else. Plain moves. */
#define AZS_LOOK(place)         __atomic_load_n(place, __ATOMIC_RELAXED)
#define AZS_SET(place, value)   __atomic_store_n(place, value, __ATOMIC_RELAXED)
#define AZS_COUNT(place, delta) AZS_SET(place, AZS_LOOK(place) + (delta))

/* Puts `value`, which is stolen, where another thread may do the same. */
#define AZS_ATOMIC_SETREF(place, value)                                                \
    Py_XDECREF(__atomic_exchange_n(&(place), value, __ATOMIC_ACQ_REL))

/* The calling thread owns the object and has the only reference: no other thread can
 * come by one, by a weak reference either, while the caller stays out of Python. */
static inline bool
azs_has_one_reference(PyObject *obj)
{
    return __atomic_load_n(&obj->ob_tid, __ATOMIC_RELAXED) == _Py_ThreadId() &&
           obj->ob_ref_local == 1 &&
           __atomic_load_n(&obj->ob_ref_shared, __ATOMIC_ACQUIRE) == 0;
}

/* Has the object, of which the caller has the only reference, counted as one that no
 * thread owns. Where another thread drops the last reference to what this one owns, the
 * interpreter puts it in a queue of this thread, under a lock. */
static inline void
azs_disown(PyObject *obj)
{
    obj->ob_tid = _Py_UNOWNED_TID;
    Py_SET_REFCNT(obj, 1);
}

/* The calling thread owns from now on what none did, where it has the only reference.
 * Who has a weak one can make a strong one of it at any moment, and that is not seen in
 * the count of what no thread owns: so not where there are any. */
static inline void
azs_own(PyObject *obj, PyObject *const *weakrefs)
{
    Py_ssize_t one = _Py_REF_SHARED(1, _Py_REF_MERGED);
    if (AZS_ATOMIC_LOAD(weakrefs) != NULL ||
        !__atomic_compare_exchange_n(&obj->ob_ref_shared, &one, 0, false,
                                     __ATOMIC_ACQ_REL, __ATOMIC_RELAXED))
        return;
    __atomic_store_n(&obj->ob_ref_local, 1, __ATOMIC_RELAXED);
    __atomic_store_n(&obj->ob_tid, _Py_ThreadId(), __ATOMIC_RELAXED);
    if (AZS_ATOMIC_LOAD(weakrefs) != NULL) /* made in between */
        AZS_ATOMIC_STORE(&obj->ob_ref_shared, _Py_REF_MAYBE_WEAKREF);
}

/* A block in which no other thread is in one of the same object; a call into Python,
 * or another block, may let one in. No `return`, `goto` or `break` leaves it. */
#define AZS_LOCKED(object)                                                             \
    {                                                                                  \
        void *azs_locked = (object);                                                   \
        (void)azs_locked;                                                              \
        Py_BEGIN_CRITICAL_SECTION(object);                                             \
        AZS_TSAN_ACQUIRE(azs_locked);
#define AZS_UNLOCKED(object)                                                           \
    AZS_TSAN_RELEASE(azs_locked);                                                      \
    Py_END_CRITICAL_SECTION();                                                         \
    }

/* The same, but without a lock where the caller has the only reference; nothing may
 * call into Python. */
#define AZS_LOCKED_IF_SHARED(object)                                                   \
    {                                                                                  \
        PyCriticalSection azs_section;                                                 \
        bool azs_shared = !azs_has_one_reference((PyObject *)(object));                \
        if (azs_unlikely(azs_shared)) {                                                \
            PyCriticalSection_Begin(&azs_section, (PyObject *)(object));               \
            AZS_TSAN_ACQUIRE(object);                                                  \
        }
#define AZS_UNLOCKED_IF_SHARED(object)                                                 \
    if (azs_unlikely(azs_shared)) {                                                    \
        AZS_TSAN_RELEASE(object);                                                      \
        PyCriticalSection_End(&azs_section);                                           \
    }                                                                                  \
    }

#else

typedef struct {
    char nothing;
} azs_mutex;

#define azs_mutex_lock(mutex)           ((void)(mutex))
#define azs_mutex_unlock(mutex)         ((void)(mutex))
#define AZS_ATOMIC_ADD(place, delta)    (*(place) += (delta))
#define AZS_ATOMIC_LOAD(place)          (*(place))
#define AZS_ATOMIC_STORE(place, value)  ((void)(*(place) = (value)))
#define AZS_LOOK(place)                 (*(place))
#define AZS_SET(place, value)           ((void)(*(place) = (value)))
#define AZS_COUNT(place, delta)         ((void)(*(place) += (delta)))
#define AZS_ATOMIC_SETREF(place, value) Py_XSETREF(place, value)
#define AZS_LOCKED(object)              {
#define AZS_UNLOCKED(object)            }
#define AZS_LOCKED_IF_SHARED(object)    {
#define AZS_UNLOCKED_IF_SHARED(object)  }

static inline bool
azs_has_one_reference(PyObject *obj)
{
    return Py_REFCNT(obj) == 1;
}

static inline void
azs_disown(PyObject *Py_UNUSED(obj))
{
}

static inline void
azs_own(PyObject *Py_UNUSED(obj), PyObject *const *Py_UNUSED(weakrefs))
{
}

#endif

/* A new object: its memory may have been one's that died in another thread. */
static inline PyObject *
azs_type_alloc(PyTypeObject *type)
{
    PyObject *obj = type->tp_alloc(type, 0);
    AZS_TSAN_ACQUIRE(obj);
    return obj;
}

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
