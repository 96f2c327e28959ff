/* The Loop type: the turn and call_soon. */
#include "loop/loop.h"

#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <structmember.h>

#include "loop/callargs.h"
#include "loop/loop_object.h"
#include "loop/report.h"
#include "loop/sock_coro.h"
#include "loop/waiter.h"
#include "py/context.h"
#include "py/errors.h"
#include "py/type.h"

/* The only mutable global besides sys.c's: a fork must be seen without a system
 * call. Written in the child of fork(2) only, before any other thread exists. */
unsigned azs_fork_generation;

static void
count_fork(void)
{
    azs_fork_generation++;
}

static void
register_atfork(void)
{
    pthread_atfork(NULL, NULL, count_fork);
}

/* ---- checks ---- */

int
azs_loop_fail_closed(void)
{
    PyErr_SetString(PyExc_RuntimeError, "Event loop is closed");
    return -1;
}

int
azs_loop_fail_forked(void)
{
    PyErr_SetString(PyExc_RuntimeError,
                    "This event loop belongs to the parent process: a forked child "
                    "must create a loop of its own (asyncio.run() or "
                    "new_event_loop())");
    return -1;
}

/* ---- the turn ---- */

/* Runs a watcher's callback and reports what it raised. 0, or -1 with what must
 * leave the loop. */
static int
run_watcher(LoopObject *self, azs_watcher *watcher)
{
    uint32_t events = watcher->pending;
    watcher->queued = false;
    watcher->pending = 0;
    /* Stopped since it was queued? */
    if (events == 0 || watcher->on_ready(watcher, events) == 0)
        return 0;
    if (azs_exc_leaves_loop())
        return -1;
    PyObject *exc = azs_exc_take();
    PyObject *report = Py_BuildValue("{s:s,s:O,s:O}", "message",
                                     "Exception in a transport's I/O callback",
                                     "exception", exc, "transport", watcher->owner);
    PyObject *res = NULL;
    if (report != NULL) {
        PyObject *args[] = {(PyObject *)self, report};
        res = PyObject_VectorcallMethod(self->st->str_call_exception_handler, args, 2,
                                        NULL);
        Py_DECREF(report);
    }
    Py_DECREF(exc);
    return azs_reported_steal(res, watcher->owner);
}

static inline int
run_handle(LoopObject *self, HandleObject *handle)
{
    return azs_unlikely(self->timed && !azs_handle_is_cancelled(handle))
               ? azs_slow_run_handle(self, handle)
               : azs_handle_run(handle);
}

/* Runs one entry of the ready queue, whose reference it takes over. */
static inline int
run_entry(LoopObject *self, uintptr_t entry)
{
    int res;
    if (azs_unlikely(azs_ready_is_watcher(entry))) {
        azs_watcher *watcher = azs_ready_watcher(entry);
        PyObject *owner = watcher->owner;
        res = azs_unlikely(self->timed)
                  ? azs_slow_run_watcher(self, watcher, run_watcher)
                  : run_watcher(self, watcher);
        Py_DECREF(owner);
        return res;
    }
    HandleObject *handle = (HandleObject *)entry;
    if (azs_unlikely(handle->threadsafe))
        res = azs_wakeup_run(self, handle, run_handle);
    else
        res = run_handle(self, handle);
    AZS_TSAN_RELEASE(handle);
    Py_DECREF(handle);
    return res;
}

/* Asks what epoll cannot watch, ZeroMQ sockets, and so may fill the ready queue. */
static int
run_before_poll(LoopObject *self)
{
    PyObject *before_poll = Py_NewRef(self->before_poll);
    PyObject *res = PyObject_CallNoArgs(before_poll);
    Py_DECREF(before_poll);
    Py_XDECREF(res);
    return res == NULL ? -1 : 0;
}

/* 0, or -1 with an exception. */
static int
move_due_timers(LoopObject *self, int64_t now_ns)
{
    int64_t timers_ns = now_ns;
    if (azs_timers_now(self, &timers_ns) < 0)
        return -1;
    if (self->timers.count == 0 || self->timers.entries[0].when_ns > timers_ns)
        return 0;
    if (timers_ns == now_ns) /* not by another's clock */
        azs_stats_timer_due(&self->stats, self->timers.entries[0].when_ns, now_ns);
    return azs_timers_move_due(self, timers_ns);
}

/* One turn as asyncio defines it: poll (but see azs_poller_is_due), add due timers,
 * run exactly what is ready then. 0, or -1 with an exception; what did not run stays
 * queued. */
static int
loop_turn(LoopObject *self)
{
    /* A callback may have forked and come back in the child. */
    if (azs_unlikely(self->fork_generation != azs_fork_generation))
        return azs_loop_fail_forked();
    AZS_COUNT(&self->stats.turns, 1);
    azs_loop_run_deferred(self); /* where an exception ended the last turn */
    if (azs_inbox_take(self) < 0)
        return -1;
    bool block = self->ready.count == 0 && !AZS_LOOK(&self->stopping);
    int64_t now_ns = azs_clock_ns();
    azs_stats_turn_ends(&self->stats, now_ns);
    if (azs_poller_is_due(self, now_ns) || block) {
        int64_t timeout_ns = 0;
        if (azs_unlikely(self->before_poll != NULL && self->before_poll != Py_None)) {
            if (run_before_poll(self) < 0)
                return -1;
            block = self->ready.count == 0 && !AZS_LOOK(&self->stopping);
        }
        if (block) {
            int64_t timers_ns = now_ns;
            if (self->timers.count > 0 && azs_timers_now(self, &timers_ns) < 0)
                return -1;
            timeout_ns = azs_timers_timeout(self, timers_ns);
            /* Cancelled timers end there, and finalizers run. */
            if (azs_unlikely(self->ready.count > 0 || AZS_LOOK(&self->stopping)))
                timeout_ns = 0;
        }
        AZS_ATOMIC_STORE(&self->stats.asleep_since_ns, timeout_ns != 0 ? now_ns : 0);
        int res = azs_poller_poll(self, now_ns, timeout_ns);
        if (res == 0)
            res = azs_inbox_take(self);
        now_ns = azs_clock_ns();
        azs_stats_wakes(&self->stats, now_ns);
        if (res < 0) {
            /* What it waited is no turn. */
            AZS_SET(&self->stats.turn_began_ns, now_ns);
            return -1;
        }
    }
    if (self->timers.count > 0 && move_due_timers(self, now_ns) < 0)
        return -1;
    AZS_SET(&self->stats.turn_began_ns, now_ns);
    if (azs_unlikely(self->timed))
        azs_slow_mark(self, now_ns);
    /* Callbacks may add entries and, by way of another loop's run in the same
     * thread or a nested clear, take some away: the count is read again. */
    for (size_t left = self->ready.count; left > 0 && self->ready.count > 0; left--) {
        AZS_COUNT(&self->stats.callbacks, 1);
        if (run_entry(self, azs_ring_pop(&self->ready)) < 0)
            return -1;
        if (azs_unlikely(self->deferred != NULL))
            azs_loop_run_due_deferred(self);
    }
    if (azs_unlikely(self->deferred != NULL))
        azs_loop_run_deferred(self);
    if (self->snapshot != NULL && azs_is_unshared(self->snapshot))
        azs_loop_drop_snapshot(self);
    else if (self->run_context != NULL &&
             (self->snapshot == NULL ||
              !azs_context_same(self->run_context, self->snapshot)))
        Py_CLEAR(self->run_context); /* its values are of no callback to come */
    return 0;
}

/* As azs_loop_claim(), but waits for a thread that cancels a timer just now. */
static bool
loop_claim(LoopObject *self, bool *nested)
{
    while (!azs_loop_claim(self, nested)) {
        if (AZS_ATOMIC_LOAD(&self->turning))
            return false;
        Py_BEGIN_ALLOW_THREADS
        sched_yield();
        Py_END_ALLOW_THREADS
    }
    return true;
}

static int
loop_enter(LoopObject *self)
{
    bool nested;
    if (azs_loop_check_usable(self) < 0)
        return -1;
    if (!loop_claim(self, &nested) || nested || self->turning) {
        PyErr_SetString(PyExc_RuntimeError, "This event loop is already running");
        return -1;
    }
    if (azs_unlikely(
            AZS_ATOMIC_LOAD(&self->closed))) { /* by another thread, just now */
        azs_loop_unclaim(self);
        return azs_loop_fail_closed();
    }
    if (azs_unlikely(self->timed) && azs_slow_run_begins(self) < 0) {
        azs_loop_unclaim(self);
        return -1;
    }
    AZS_ATOMIC_STORE(&self->turning, true);
    azs_stats_run_begins(&self->stats, azs_clock_ns());
    azs_poller_start_anew(&self->poller);
    return 0;
}

static void
loop_leave(LoopObject *self)
{
    AZS_ATOMIC_STORE(&self->turning, false);
    azs_stats_run_ends(&self->stats, azs_clock_ns());
    azs_loop_unclaim(self);
}

PyDoc_STRVAR(run_doc,
"_run($self, /)\n--\n\n"
"Run turns until stop() was called. run_forever() sets up and cleans up around it.");

static PyObject *
Loop__run(LoopObject *self, PyObject *Py_UNUSED(ignored))
{
    if (loop_enter(self) < 0)
        return NULL;
    int res;
    do {
        res = loop_turn(self);
    } while (res == 0 && !AZS_LOOK(&self->stopping));
    loop_leave(self);
    if (res < 0)
        return NULL;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(run_once_doc,
"_run_once($self, /)\n--\n\n"
"Run a single turn: poll, then every callback that is ready.");

static PyObject *
Loop__run_once(LoopObject *self, PyObject *Py_UNUSED(ignored))
{
    if (loop_enter(self) < 0)
        return NULL;
    int res = loop_turn(self);
    loop_leave(self);
    if (res < 0)
        return NULL;
    Py_RETURN_NONE;
}

/* ---- scheduling ---- */

int
azs_loop_call_soon(LoopObject *loop, PyObject *callback, PyObject *const *args,
                   Py_ssize_t nargs, PyObject *context)
{
    if (azs_loop_check_usable(loop) < 0)
        return -1;
    HandleObject *handle = azs_handle_new(loop, callback, args, nargs, context);
    if (handle == NULL)
        return -1;
    int res = azs_ready_push_handle(loop, handle);
    Py_DECREF(handle);
    return res;
}

PyDoc_STRVAR(call_soon_doc,
"call_soon($self, callback, *args, context=None)\n--\n\n"
"Call callback(*args) in the next turn, in the order of the calls.\n\n"
"`context` is a contextvars.Context, or None for a copy of the current one.\n"
"Returns a Handle. Raises RuntimeError where the loop is closed. Not\n"
"thread-safe (asyncio loop.call_soon).");

static PyObject *Loop_call_soon(LoopObject *self, PyObject *const *args,
                                Py_ssize_t nargs, PyObject *kwnames);

static const azs_call_spec call_soon_spec = {
    "call_soon", Loop_call_soon, 1, {"callback"}, false};

static PyObject *
Loop_call_soon(LoopObject *self, PyObject *const *args, Py_ssize_t nargs,
               PyObject *kwnames)
{
    PyObject *context;
    int named =
        azs_parse_context(self, &call_soon_spec, nargs, args, kwnames, &context);
    if (azs_unlikely(named > 0))
        return azs_call_by_position(self, &call_soon_spec, args, nargs, kwnames);
    if (named < 0 || azs_loop_check_usable(self) < 0)
        return NULL;
    if (azs_unlikely(AZS_ATOMIC_LOAD(&self->debug)) &&
        azs_loop_debug_check(self, args[0], "call_soon", true) < 0)
        return NULL;
    HandleObject *handle = azs_handle_new(self, args[0], args + 1, nargs - 1, context);
    if (handle != NULL && azs_ready_push_handle(self, handle) < 0)
        Py_CLEAR(handle);
    return (PyObject *)handle;
}

PyDoc_STRVAR(add_callback_doc,
"_add_callback($self, handle, /)\n--\n\n"
"Queue a Handle: one of this loop's, or an asyncio.Handle made by asyncio's code.");

static PyObject *
Loop__add_callback(LoopObject *self, PyObject *handle)
{
    if (Py_IS_TYPE(handle, self->st->handle_type) ||
        Py_IS_TYPE(handle, self->st->timer_handle_type)) {
        if (!azs_handle_is_cancelled((HandleObject *)handle) &&
            azs_ready_push_handle(self, (HandleObject *)handle) < 0)
            return NULL;
        Py_RETURN_NONE;
    }
    PyObject *cancelled = PyObject_GetAttr(handle, self->st->str__cancelled);
    if (cancelled == NULL)
        return NULL;
    int skip = PyObject_IsTrue(cancelled);
    Py_DECREF(cancelled);
    if (skip < 0)
        return NULL;
    if (!skip) {
        /* It enters its own Context; ours is a copy, so that both can be. */
        PyObject *run = PyObject_GetAttr((PyObject *)self, self->st->str__run_foreign);
        if (run == NULL)
            return NULL;
        int res = azs_loop_call_soon(self, run, &handle, 1, NULL);
        Py_DECREF(run);
        if (res < 0)
            return NULL;
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(stop_doc,
"stop($self, /)\n--\n\n"
"Leave run_forever() after the turn that runs now (asyncio loop.stop).");

static PyObject *
Loop_stop(LoopObject *self, PyObject *Py_UNUSED(ignored))
{
    AZS_SET(&self->stopping, true);
    Py_RETURN_NONE;
}

/* ---- state as asyncio's inherited code sees it ---- */

PyDoc_STRVAR(is_running_doc,
"is_running($self, /)\n--\n\nTrue while run_forever() runs (asyncio loop.is_running).");

static PyObject *
Loop_is_running(LoopObject *self, PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(AZS_ATOMIC_LOAD(&self->thread_id) != NULL);
}

PyDoc_STRVAR(is_closed_doc,
"is_closed($self, /)\n--\n\nTrue once close() was called (asyncio loop.is_closed).");

static PyObject *
Loop_is_closed(LoopObject *self, PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(AZS_ATOMIC_LOAD(&self->closed));
}

PyDoc_STRVAR(get_debug_doc,
"get_debug($self, /)\n--\n\nTrue in debug mode (asyncio loop.get_debug).");

static PyObject *
Loop_get_debug(LoopObject *self, PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(AZS_ATOMIC_LOAD(&self->debug));
}

PyDoc_STRVAR(check_closed_doc,
"_check_closed($self, /)\n--\n\n"
"Raise RuntimeError where the loop is closed or is a forked parent's.");

static PyObject *
Loop__check_closed(LoopObject *self, PyObject *Py_UNUSED(ignored))
{
    if (azs_loop_check_usable(self) < 0)
        return NULL;
    Py_RETURN_NONE;
}

static int loop_clear(LoopObject *self);

PyDoc_STRVAR(dispose_doc,
"_dispose($self, /)\n--\n\n"
"Let go of every callback, timer and descriptor. close() ends with it.");

static PyObject *
Loop__dispose(LoopObject *self, PyObject *Py_UNUSED(ignored))
{
    bool nested;
    if (!loop_claim(self, &nested) || self->turning) {
        PyErr_SetString(PyExc_RuntimeError, "Cannot close a running event loop");
        return NULL;
    }
    /* No other thread is on its way to wake it up after that. */
    azs_mutex_lock(&self->inbox.mutex);
    AZS_ATOMIC_STORE(&self->closed, true);
    azs_wakeup_close(&self->wakeup);
    azs_mutex_unlock(&self->inbox.mutex);
    loop_clear(self);
    azs_slow_end(self);
    if (!nested)
        azs_loop_unclaim(self);
    Py_RETURN_NONE;
}

static PyObject *
loop_get_thread_id(LoopObject *self, void *Py_UNUSED(closure))
{
    PyObject *res;
    AZS_LOCKED(self);
    res = Py_NewRef(self->thread_id != NULL ? self->thread_id : Py_None);
    AZS_UNLOCKED(self);
    return res;
}

static int
loop_set_thread_id(LoopObject *self, PyObject *value, void *Py_UNUSED(closure))
{
    PyObject *old, *now = value == NULL || value == Py_None ? NULL : Py_NewRef(value);
    AZS_LOCKED(self);
    old = self->thread_id;
    AZS_ATOMIC_STORE(&self->thread_id, now);
    AZS_UNLOCKED(self);
    Py_XDECREF(old);
    return 0;
}

static PyObject *
loop_get_task_factory(LoopObject *self, void *Py_UNUSED(closure))
{
    return Py_NewRef(self->task_factory != NULL ? self->task_factory : Py_None);
}

static int
loop_set_task_factory(LoopObject *self, PyObject *value, void *Py_UNUSED(closure))
{
    Py_XSETREF(self->task_factory,
               value == NULL || value == Py_None ? NULL : Py_NewRef(value));
    return 0;
}

/* set_debug() of asyncio assigns any truth value. */
static PyObject *
loop_get_debug(LoopObject *self, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(AZS_ATOMIC_LOAD(&self->debug));
}

static int
loop_set_debug(LoopObject *self, PyObject *value, void *Py_UNUSED(closure))
{
    int truth = value == NULL ? 0 : PyObject_IsTrue(value);
    if (truth < 0)
        return -1;
    AZS_ATOMIC_STORE(&self->debug, truth);
    self->timed = truth || self->slow_ns > 0;
    return 0;
}

/* Copies of the queues, for those who look into an asyncio loop. */
static PyObject *
loop_get_ready(LoopObject *self, void *Py_UNUSED(closure))
{
    if (azs_loop_check_thread(self) < 0)
        return NULL;
    PyObject *list = PyList_New(0);
    for (size_t i = 0; list != NULL && i < self->ready.count; i++) {
        uintptr_t entry = azs_ring_at(&self->ready, i);
        PyObject *item = azs_ready_is_watcher(entry) ? azs_ready_watcher(entry)->owner
                                                     : (PyObject *)entry;
        if (PyList_Append(list, item) < 0)
            Py_CLEAR(list);
    }
#ifdef Py_GIL_DISABLED
    /* Where no thread turns the loop, all that is queued. */
    azs_mutex_lock(&self->inbox.mutex);
    for (size_t i = 0; list != NULL && i < self->inbox.handles.count; i++) {
        if (PyList_Append(list, (PyObject *)azs_ring_at(&self->inbox.handles, i)) < 0)
            Py_CLEAR(list);
    }
    azs_mutex_unlock(&self->inbox.mutex);
#endif
    return list;
}

static PyObject *
loop_get_scheduled(LoopObject *self, void *Py_UNUSED(closure))
{
    if (azs_loop_check_thread(self) < 0)
        return NULL;
    PyObject *list = PyList_New(0);
    for (size_t i = 0; list != NULL && i < self->timers.count; i++) {
        if (PyList_Append(list, self->timers.entries[i].item) < 0)
            Py_CLEAR(list);
    }
    return list;
}

/* asyncio's __init__ assigns queues of its own: this class has no use for them. */
static int
loop_ignore_set(LoopObject *Py_UNUSED(self), PyObject *Py_UNUSED(value),
                void *Py_UNUSED(closure))
{
    return 0;
}

static PyGetSetDef loop_getset[] = {
    {"_thread_id", (getter)loop_get_thread_id, (setter)loop_set_thread_id, NULL, NULL},
    {"_task_factory", (getter)loop_get_task_factory, (setter)loop_set_task_factory,
     NULL, NULL},
    {"_debug", (getter)loop_get_debug, (setter)loop_set_debug, NULL, NULL},
    {"_ready", (getter)loop_get_ready, (setter)loop_ignore_set, NULL, NULL},
    {"_scheduled", (getter)loop_get_scheduled, (setter)loop_ignore_set, NULL, NULL},
    {NULL},
};

static PyMemberDef loop_members[] = {
    {"_closed", T_BOOL, offsetof(LoopObject, closed), 0},
    {"_stopping", T_BOOL, offsetof(LoopObject, stopping), 0},
    {"_current_handle", T_OBJECT, offsetof(LoopObject, current_handle), 0},
    {"_before_poll", T_OBJECT, offsetof(LoopObject, before_poll), 0},
    {"_busy_poll_ns", T_LONGLONG, offsetof(LoopObject, busy_poll_ns), 0},
    {NULL},
};

static PyMethodDef loop_methods[] = {
    {"call_soon", (PyCFunction)(void (*)(void))Loop_call_soon,
     METH_FASTCALL | METH_KEYWORDS, call_soon_doc},
    {"stop", (PyCFunction)Loop_stop, METH_NOARGS, stop_doc},
    {"is_running", (PyCFunction)Loop_is_running, METH_NOARGS, is_running_doc},
    {"is_closed", (PyCFunction)Loop_is_closed, METH_NOARGS, is_closed_doc},
    {"get_debug", (PyCFunction)Loop_get_debug, METH_NOARGS, get_debug_doc},
    {"_run", (PyCFunction)Loop__run, METH_NOARGS, run_doc},
    {"_run_once", (PyCFunction)Loop__run_once, METH_NOARGS, run_once_doc},
    {"_add_callback", (PyCFunction)Loop__add_callback, METH_O, add_callback_doc},
    {"_check_closed", (PyCFunction)Loop__check_closed, METH_NOARGS, check_closed_doc},
    {"_dispose", (PyCFunction)Loop__dispose, METH_NOARGS, dispose_doc},
    {NULL},
};

char *
azs_loop_scratch(LoopObject *loop)
{
    if (azs_unlikely(loop->scratch == NULL)) {
        loop->scratch = malloc(AZS_SCRATCH_SIZE);
        if (loop->scratch == NULL)
            PyErr_NoMemory();
    }
    return loop->scratch;
}

/* ---- life ---- */

static PyObject *
loop_new(PyTypeObject *type, PyObject *Py_UNUSED(args), PyObject *Py_UNUSED(kwargs))
{
    azs_state *st = azs_state_of_type(type);
    if (st == NULL)
        return NULL;
    LoopObject *self = (LoopObject *)azs_type_alloc(type);
    if (self == NULL)
        return NULL;
    self->st = azs_state_hold(st);
    self->fork_generation = azs_fork_generation;
    azs_heap_init(&self->timers);
    self->free_handles.room = self->free_timers.room = AZS_FREE_HANDLES_MAX;
#ifdef Py_GIL_DISABLED
    azs_freelists_begin(&self->free);
#endif
    AZS_LIVE(st, loop, 1);
    int err = azs_wakeup_init(&self->wakeup);
    int err2 = azs_poller_init(&self->poller);
    if (err == 0)
        err = err2;
    if (err == 0)
        err = azs_ring_init(&self->ready, 1024);
    if (err == 0)
        err = azs_inbox_init(&self->inbox);
    if (err == 0)
        err = azs_poller_add_wakeup(&self->poller, self->wakeup.efd);
    if (err < 0) {
        self->closed = true;
        Py_DECREF(self);
        if (err == -ENOMEM)
            return PyErr_NoMemory();
        azs_set_errno(err);
        return NULL;
    }
    return (PyObject *)self;
}

static int
loop_traverse(LoopObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    for (size_t i = 0; i < self->ready.count; i++) {
        uintptr_t entry = azs_ring_at(&self->ready, i);
        if (azs_ready_is_watcher(entry))
            Py_VISIT(azs_ready_watcher(entry)->owner);
        else
            Py_VISIT((PyObject *)entry);
    }
#ifdef Py_GIL_DISABLED
    for (size_t i = 0; i < self->inbox.handles.count; i++)
        Py_VISIT((PyObject *)azs_ring_at(&self->inbox.handles, i));
    for (size_t i = 0; i < self->inbox.taken.count; i++)
        Py_VISIT((PyObject *)azs_ring_at(&self->inbox.taken, i));
    Py_VISIT(self->inbox.snapshot);
#endif
    for (size_t i = 0; i < self->timers.count; i++)
        Py_VISIT(self->timers.entries[i].item);
    Py_VISIT(self->task_factory);
    Py_VISIT(self->current_handle);
    Py_VISIT(self->before_poll);
    Py_VISIT(self->loop_kwargs);
    Py_VISIT(self->snapshot);
    Py_VISIT(self->run_context);
    return azs_poller_traverse(&self->poller, visit, arg);
}

/* Drops whatever the loop holds. Finalizers run meanwhile and find a loop that
 * is consistent, if emptier by the moment; what they schedule on a loop that is
 * not closed yet goes with it. */
static int
loop_clear(LoopObject *self)
{
    while (self->ready.count > 0) {
        uintptr_t entry = azs_ring_pop(&self->ready);
        if (azs_ready_is_watcher(entry)) {
            azs_watcher *watcher = azs_ready_watcher(entry);
            watcher->queued = false;
            watcher->pending = 0;
            Py_DECREF(watcher->owner);
        } else {
            Py_DECREF((PyObject *)entry);
        }
    }
    azs_inbox_clear(self);
    azs_timers_clear(self);
    azs_poller_close(self);
    Py_CLEAR(self->task_factory);
    Py_CLEAR(self->current_handle);
    Py_CLEAR(self->before_poll);
    Py_CLEAR(self->loop_kwargs);
    azs_loop_drop_snapshot(self);
    azs_freelist_end(&self->free_handles);
    azs_freelist_end(&self->free_timers);
#ifdef Py_GIL_DISABLED
    azs_freelists_end(&self->free);
#endif
    return 0;
}

static void
loop_dealloc(LoopObject *self)
{
    AZS_TSAN_ACQUIRE(&self->inbox.mutex);
    AZS_DEALLOC_BEGIN(self, loop_dealloc);
    self->closed = true;
    loop_clear(self);
    azs_slow_end(self);
    azs_wakeup_close(&self->wakeup);
    azs_wakeup_free(&self->wakeup);
    azs_ring_free(&self->ready);
#ifdef Py_GIL_DISABLED
    azs_ring_free(&self->inbox.handles);
    azs_ring_free(&self->inbox.taken);
#endif
    free(self->scratch);
    azs_spare_clear(&self->spare);
    Py_CLEAR(self->thread_id);
    azs_state *st = self->st;
    AZS_LIVE(st, loop, -1);
    AZS_DEALLOC_FREE(self);
    azs_state_release(st);
    AZS_DEALLOC_END;
}

PyDoc_STRVAR(loop_doc,
"The event loop's C core: everything that runs once per callback, timer or\n"
"descriptor event. aiozmq_speedups.Loop is the whole loop.");

/* Notes whether the instance has a clock of its own. */
static int
loop_setattro(LoopObject *self, PyObject *name, PyObject *value)
{
    int res = PyObject_GenericSetAttr((PyObject *)self, name, value);
    if (res == 0 && PyUnicode_Check(name) &&
        PyUnicode_Compare(name, self->st->str_time) == 0)
        self->time_set = value != NULL;
    return res;
}

static PyType_Slot loop_slots[] = {
    {Py_tp_doc, (void *)loop_doc},   {Py_tp_setattro, loop_setattro},
    {Py_tp_new, loop_new},           {Py_tp_dealloc, loop_dealloc},
    {Py_tp_traverse, loop_traverse}, {Py_tp_clear, loop_clear},
    {Py_tp_methods, loop_methods},   {Py_tp_members, loop_members},
    {Py_tp_getset, loop_getset},     {0, NULL},
};

static PyType_Spec azs_loop_spec = {
    .name = "aiozmq_speedups._core.Loop",
    .basicsize = sizeof(LoopObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE,
    .slots = loop_slots,
};

int
azs_loop_init(PyObject *mod, azs_state *st)
{
    /* One registration a process: a second interpreter imports this too. */
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, register_atfork);
    if (azs_import_attr(&st->asyncio_future, "asyncio", "Future") < 0 ||
        azs_import_attr(&st->asyncio_task, "asyncio", "Task") < 0 ||
        azs_import_attr(&st->asyncio_handle, "asyncio", "Handle") < 0 ||
        azs_import_attr(&st->asyncio_timer_handle, "asyncio", "TimerHandle") < 0 ||
        azs_import_attr(&st->base_event_loop, "asyncio", "BaseEventLoop") < 0 ||
        azs_import_attr(&st->base_selector_event_loop, "asyncio.selector_events",
                        "BaseSelectorEventLoop") < 0 ||
        azs_import_attr(&st->invalid_state_error, "asyncio", "InvalidStateError") < 0 ||
        azs_import_attr(&st->socket_type, "socket", "socket") < 0 ||
        azs_import_attr(&st->extract_stack, "asyncio.format_helpers", "extract_stack") <
            0)
        return -1;
    st->no_args = PyTuple_New(0);
    st->kwnames_name_loop = PyTuple_Pack(2, st->str_name, st->str_loop);
    st->kwnames_resolve =
        Py_BuildValue("(sssO)", "family", "type", "proto", st->str_loop);
    if (st->no_args == NULL || st->kwnames_name_loop == NULL ||
        st->kwnames_resolve == NULL)
        return -1;
    if (azs_context_init(st) < 0 || azs_handle_init(mod, st) < 0 ||
        azs_type_add(mod, &st->loop_type, &azs_loop_spec, NULL, true) < 0 ||
        azs_type_add_methods(st->loop_type, azs_task_methods) < 0 ||
        azs_type_add_methods(st->loop_type, azs_timer_methods) < 0 ||
        azs_type_add_methods(st->loop_type, azs_add_reader_methods) < 0 ||
        azs_type_add_methods(st->loop_type, azs_wakeup_methods) < 0 ||
        azs_type_add_methods(st->loop_type, azs_stats_methods) < 0 ||
        azs_type_add_methods(st->loop_type, azs_slow_methods) < 0 ||
        azs_sock_init(mod, st) < 0 || azs_waiter_init(mod, st) < 0 ||
        azs_type_add_methods(st->loop_type, azs_sock_stream_methods) < 0 ||
        azs_type_add_methods(st->loop_type, azs_sock_connect_methods) < 0 ||
        azs_type_add_methods(st->loop_type, azs_sock_datagram_methods) < 0)
        return -1;
    st->loop_time = Py_XNewRef(_PyType_Lookup(st->loop_type, st->str_time));
    return st->loop_time == NULL ? -1 : 0;
}
