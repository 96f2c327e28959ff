/* Exceptions: taking, restoring, and errno. */
#ifndef AZS_PY_ERRORS_H
#define AZS_PY_ERRORS_H

#include "py/state.h"

/* Takes the current exception out of the thread state: new reference, with its
 * traceback attached. An exception must be set. */
static inline PyObject *
azs_exc_take(void)
{
#if PY_VERSION_HEX >= 0x030C0000
    return PyErr_GetRaisedException();
#else
    PyObject *type, *value, *tb;
    PyErr_Fetch(&type, &value, &tb);
    PyErr_NormalizeException(&type, &value, &tb);
    if (tb != NULL) {
        PyException_SetTraceback(value, tb);
        Py_DECREF(tb);
    }
    Py_DECREF(type);
    return value;
#endif
}

/* Puts `exc` back as the current exception; steals it. */
static inline void
azs_exc_restore_steal(PyObject *exc)
{
#if PY_VERSION_HEX >= 0x030C0000
    PyErr_SetRaisedException(exc);
#else
    PyErr_Restore(Py_NewRef(Py_TYPE(exc)), exc, PyException_GetTraceback(exc));
#endif
}

/* True where the current exception must leave run_forever: asyncio lets
 * SystemExit and KeyboardInterrupt through and reports all others. */
static inline bool
azs_exc_leaves_loop(void)
{
    return PyErr_ExceptionMatches(PyExc_KeyboardInterrupt) ||
           PyErr_ExceptionMatches(PyExc_SystemExit);
}

/* Sets OSError (or its subclass) for a negative errno. Always -1. */
static inline int
azs_set_errno(int neg_errno)
{
    errno = -neg_errno;
    PyErr_SetFromErrno(PyExc_OSError);
    return -1;
}

#endif
