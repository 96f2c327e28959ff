/* The module's state: every type, interned name and imported object.
 *
 * Objects cache the state pointer when they are created; nothing looks it up
 * per call. Each list below is expanded by module.c for traverse and clear.
 */
#ifndef AZS_PY_STATE_H
#define AZS_PY_STATE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "base/common.h"

/* X(field): the heap types, each made by its part's azs_<part>_init. */
#define AZS_STATE_TYPES(X)                                                             \
    X(handle_type)                                                                     \
    X(timer_handle_type)                                                               \
    X(loop_type)                                                                       \
    X(epoll_selector_type)                                                             \
    X(zmq_transport_type)

/* X(name): interned strings, reached as st->str_<name>. */
#define AZS_STATE_NAMES(X)                                                             \
    X(call_exception_handler)                                                          \
    X(call_soon)                                                                       \
    X(context)                                                                         \
    X(coro)                                                                            \
    X(exception)                                                                       \
    X(fileno)                                                                          \
    X(handle)                                                                          \
    X(loop)                                                                            \
    X(message)                                                                         \
    X(source_traceback)

/* X(field): other owned objects, NULL until their part's init imports them. */
#define AZS_STATE_OBJECTS(X)                                                           \
    X(asyncio_future)              /* asyncio.Future */                                \
    X(asyncio_task)                /* asyncio.Task */                                  \
    X(asyncio_handle)              /* asyncio.Handle */                                \
    X(asyncio_timer_handle)        /* asyncio.TimerHandle */                           \
    X(base_event_loop)             /* asyncio.BaseEventLoop */                         \
    X(extract_stack)               /* asyncio.format_helpers.extract_stack */          \
    X(format_callback_source)      /* asyncio.format_helpers._format_callback_source */\
    X(loop_kwnames)                /* ("loop",) */

#ifdef AZS_DEBUG
/* X(kind): live objects of each kind, asserted back to their value by tests. */
#define AZS_STATE_COUNTERS(X)                                                          \
    X(handle)                                                                          \
    X(loop)                                                                            \
    X(selector)                                                                        \
    X(zmq_transport)
#endif

typedef struct azs_state {
#define X(field) PyTypeObject *field; /* owned */
    AZS_STATE_TYPES(X)
#undef X
#define X(name) PyObject *str_##name; /* owned */
    AZS_STATE_NAMES(X)
#undef X
#define X(field) PyObject *field; /* owned */
    AZS_STATE_OBJECTS(X)
#undef X
#ifdef AZS_DEBUG
#define X(kind) Py_ssize_t live_##kind;
    AZS_STATE_COUNTERS(X)
#undef X
#endif
} azs_state;

/* The live-object counters cost nothing in a release build. */
#ifdef AZS_DEBUG
#define AZS_LIVE(st, kind, delta) ((void)((st)->live_##kind += (delta)))
#else
#define AZS_LIVE(st, kind, delta) ((void)0)
#endif

extern struct PyModuleDef azs_module;

static inline azs_state *
azs_state_of_module(PyObject *mod)
{
    return (azs_state *)PyModule_GetState(mod);
}

/* For tp_new of a type that Python code may subclass. Borrowed; NULL with
 * TypeError where no base of `type` is ours. */
static inline azs_state *
azs_state_of_type(PyTypeObject *type)
{
    PyObject *mod = PyType_GetModuleByDef(type, &azs_module);
    return mod == NULL ? NULL : azs_state_of_module(mod);
}

#endif
