/* Handle and TimerHandle: a callback, its arguments and its Context. */
#ifndef AZS_LOOP_HANDLE_H
#define AZS_LOOP_HANDLE_H

#include "loop/loop.h"

enum { AZS_HANDLE_INLINE_ARGS = 3 };

/* A handle is pending until it ran or was cancelled. `callback` and the
 * arguments become NULL together, at cancel() and never before. */
typedef struct {
    PyObject_HEAD
    PyObject *callback; /* owned */
    PyObject *context;  /* owned: a contextvars.Context; see `shared` */
    LoopObject *loop;   /* owned */
    /* owned: the first `nargs`; where nargs is -1, args[0] is a tuple */
    PyObject *args[AZS_HANDLE_INLINE_ARGS];
    int32_t nargs;
    bool cancelled;
    bool is_timer;
    bool threadsafe; /* of call_soon_threadsafe(), since Python 3.14: see wakeup.c */
    bool scheduled;  /* timers: in the loop's heap, which then owns a ref */
    bool counted;    /* of those, in the loop's `timers_cancelled` */
    /* `context` is a snapshot that nobody enters, common to many handles: the
     * callback runs in a copy, and so does whoever asks for the Context. */
    bool shared;
    /* Cold: debug mode and weak references. */
    PyObject *source_traceback; /* owned: traceback.StackSummary or NULL */
    PyObject *repr;             /* owned: str kept by cancel() or NULL */
    PyObject *weakrefs;
} HandleObject;

typedef struct {
    HandleObject handle;
    double when; /* seconds of loop.time(), exactly as the caller gave it */
} TimerHandleObject;

int azs_handle_init(PyObject *mod, azs_state *st);

/* Any thread may ask; another may be cancelling it. */
static inline bool
azs_handle_is_cancelled(const HandleObject *handle)
{
    return AZS_ATOMIC_LOAD(&handle->cancelled);
}

/* Another thread can queue tens of thousands within one switch interval, and the
 * collector would look at all of them: a loop keeps as many, some 9 MiB. */
enum { AZS_FREE_HANDLES_MAX = 65536 };

/* Frees some of them where there are more than usual; quick. */
void azs_handle_free_lists_trim(LoopObject *loop);

/* New reference. `context` borrowed, NULL for a copy of the current one. The
 * caller has checked that `callback` may be scheduled. */
HandleObject *azs_handle_new(LoopObject *loop, PyObject *callback,
                             PyObject *const *args, Py_ssize_t nargs,
                             PyObject *context);
TimerHandleObject *azs_timer_new(LoopObject *loop, double when, PyObject *callback,
                                 PyObject *const *args, Py_ssize_t nargs,
                                 PyObject *context);

/* Runs the callback in its Context; a cancelled handle does nothing. Exceptions
 * go to the loop's exception handler. 0, or -1 with SystemExit or
 * KeyboardInterrupt set. The caller holds a reference. */
int azs_handle_run(HandleObject *handle);

/* A copy of the handle's snapshot: new reference, or NULL. Before Python 3.12 the
 * collector may run in here, and finalizers in it that cancel the handle, or ask for
 * its Context: then it is not shared any more, and the copy not needed. */
PyObject *azs_handle_copy_snapshot(HandleObject *handle);

/* Cancels; harmless on a handle that is cancelled. 0, or -1 where the debug
 * mode's repr failed. */
int azs_handle_cancel(HandleObject *handle);

#endif
