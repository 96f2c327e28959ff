/* Timers: the heap, call_later, call_at and the loop's clock. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "loop/callargs.h"
#include "loop/loop_object.h"
#include "py/errors.h"

/* asyncio compacts its heap at the same points (base_events.py). */
enum { COMPACT_MIN_TIMERS = 100 };

static inline bool
timer_cancelled(const azs_heap_entry *entry)
{
    return azs_handle_is_cancelled(entry->item);
}

/* Drops the heap's reference. The heap must be consistent: finalizers run. */
static void
timer_release(LoopObject *loop, HandleObject *timer)
{
    timer->scheduled = false;
    if (timer->counted) {
        timer->counted = false;
        loop->timers_cancelled--;
    }
    AZS_TSAN_RELEASE(timer);
    Py_DECREF(timer);
}

/* Clocks count nanoseconds up to here, as seconds either side of 0: the system's never
 * gets as far, but a clock of the user's may begin anywhere. */
#define COUNTED_S  4294967296.0 /* 2**32 */
#define COUNTED_NS (INT64_C(4294967296) * AZS_NS_PER_S)

/* The floats from 0 on, numbered in their order. */
static inline int64_t
float_number(double value)
{
    int64_t number;
    memcpy(&number, &value, sizeof(number));
    return number;
}

/* The first nanosecond at which loop.time() is at least `when`: a timer must never
 * fire early. What is further from 0 than can be counted goes on by one for each float,
 * which keeps the order and equal times equal up to infinity. */
static int64_t
when_to_ns(double when)
{
    if (azs_likely(fabs(when) <= COUNTED_S)) {
        int64_t when_ns = (int64_t)ceil(when * 1e9);
        while ((double)when_ns / 1e9 < when)
            when_ns++;
        return when_ns;
    }
    if (isnan(when)) /* never */
        return INT64_MAX;
    int64_t beyond = float_number(fabs(when)) - float_number(COUNTED_S);
    return when < 0 ? -COUNTED_NS - beyond : COUNTED_NS + beyond;
}

/* What when_to_ns() made `ns` of, to the nanosecond. */
static double
ns_to_when(int64_t ns)
{
    if (ns == INT64_MAX)
        return NAN; /* never */
    int64_t far = llabs(ns);
    if (far <= COUNTED_NS)
        return (double)ns / 1e9;
    int64_t number = float_number(COUNTED_S) + (far - COUNTED_NS);
    double when;
    memcpy(&when, &number, sizeof(when));
    return ns < 0 ? -when : when;
}

int
azs_timers_push(LoopObject *loop, TimerHandleObject *timer)
{
    int err = azs_heap_push(&loop->timers, when_to_ns(timer->when), timer);
    if (err == 0)
        timer->handle.scheduled = true;
    return err;
}

int
azs_timers_add(LoopObject *loop, TimerHandleObject *timer)
{
#ifdef Py_GIL_DISABLED
    if (!azs_loop_is_mine(loop))
        return azs_inbox_push(loop, &timer->handle);
#endif
    if (azs_timers_push(loop, timer) < 0) {
        PyErr_NoMemory();
        return -1;
    }
    Py_INCREF(timer);
    return 0;
}

static void
timers_compact(LoopObject *loop)
{
    azs_heap *heap = &loop->timers;
    /* Gather the dead behind the living, repair the heap, then let go of the
     * dead: their finalizers may schedule timers again. */
    size_t dead = 0, live = 0;
    HandleObject **drop = PyMem_Malloc(loop->timers_cancelled * sizeof(*drop));
    if (drop == NULL)
        return; /* they will go when they are due */
    for (size_t i = 0; i < heap->count; i++) {
        if (((HandleObject *)heap->entries[i].item)->counted)
            drop[dead++] = heap->entries[i].item;
        else
            heap->entries[live++] = heap->entries[i];
    }
    assert(dead == loop->timers_cancelled);
    heap->count = live;
    azs_heap_rebuild(heap);
    loop->timers_cancelled = 0;
    for (size_t i = 0; i < dead; i++) {
        drop[i]->scheduled = drop[i]->counted = false;
        AZS_TSAN_RELEASE(drop[i]);
    }
    /* Callbacks of weak references may come back here. */
    for (size_t i = 0; i < dead; i++)
        Py_DECREF(drop[i]);
    PyMem_Free(drop);
}

void
azs_timers_drop_cancelled(LoopObject *loop)
{
    azs_heap *heap = &loop->timers;
    /* The usual timeout is set, then cancelled before later ones were set: it
     * still is the array's last element, which any heap may lose. */
    while (heap->count > 0 && timer_cancelled(&heap->entries[heap->count - 1])) {
        heap->count--;
        timer_release(loop, heap->entries[heap->count].item);
    }
    if (heap->count > COMPACT_MIN_TIMERS && loop->timers_cancelled > heap->count / 2)
        timers_compact(loop);
}

int64_t
azs_timers_timeout(LoopObject *loop, int64_t now_ns)
{
    azs_heap *heap = &loop->timers;
    while (heap->count > 0 && timer_cancelled(&heap->entries[0]))
        timer_release(loop, azs_heap_pop(heap));
    if (heap->count == 0)
        return -1;
    int64_t when_ns = heap->entries[0].when_ns;
    if (when_ns <= now_ns)
        return 0;
    if (azs_likely(when_ns <= COUNTED_NS && now_ns >= -COUNTED_NS))
        return when_ns - now_ns;
    double left = ceil((ns_to_when(when_ns) - ns_to_when(now_ns)) * 1e9);
    return left < 9.2e18 ? (int64_t)left : INT64_MAX;
}

int
azs_timers_move_due(LoopObject *loop, int64_t now_ns)
{
    azs_heap *heap = &loop->timers;
    while (heap->count > 0 && heap->entries[0].when_ns <= now_ns) {
        HandleObject *timer = heap->entries[0].item;
        if (!azs_handle_is_cancelled(timer) && azs_ready_push_handle(loop, timer) < 0)
            return -1;
        timer_release(loop, azs_heap_pop(heap));
    }
    return 0;
}

void
azs_timers_clear(LoopObject *loop)
{
    HandleObject *timer;
    while ((timer = azs_heap_pop(&loop->timers)) != NULL)
        timer_release(loop, timer);
    azs_heap_free(&loop->timers);
}

/* ---- another's clock ---- */

/* time() in seconds. 0, or -1 with an exception. */
static int
ask_time(LoopObject *loop, double *seconds)
{
    PyObject *now = PyObject_CallMethodNoArgs((PyObject *)loop, loop->st->str_time);
    if (now == NULL)
        return -1;
    *seconds = PyFloat_AsDouble(now);
    Py_DECREF(now);
    return *seconds == -1.0 && PyErr_Occurred() ? -1 : 0;
}

int
azs_timers_ask_time(LoopObject *loop, int64_t *now_ns)
{
    double now;
    if (ask_time(loop, &now) < 0)
        return -1;
    *now_ns = when_to_ns(now); /* as the timers': equal times are equal */
    return 0;
}

/* ---- methods ---- */

static PyObject *
timer_schedule(LoopObject *self, double when, PyObject *const *args, Py_ssize_t nargs,
               PyObject *context)
{
    TimerHandleObject *timer =
        azs_timer_new(self, when, args[1], args + 2, nargs - 2, context);
    if (timer != NULL && azs_timers_add(self, timer) < 0)
        Py_CLEAR(timer);
    return (PyObject *)timer;
}

/* A number of seconds from an argument. -1 with an exception on error. */
static int
seconds_arg(PyObject *arg, const char *name, double *seconds)
{
    if (PyFloat_CheckExact(arg)) {
        *seconds = PyFloat_AS_DOUBLE(arg);
    } else if (arg == Py_None) {
        PyErr_Format(PyExc_TypeError, "%s must not be None", name);
        return -1;
    } else {
        *seconds = PyFloat_AsDouble(arg);
        if (*seconds == -1.0 && PyErr_Occurred())
            return -1;
    }
    if (azs_unlikely(isnan(*seconds))) {
        PyErr_Format(PyExc_ValueError, "%s must not be NaN", name);
        return -1;
    }
    return 0;
}

PyDoc_STRVAR(call_later_doc,
"call_later($self, delay, callback, *args, context=None)\n--\n\n"
"Call callback(*args) after `delay` seconds (float; <= 0 means in the next turn).\n\n"
"Returns a TimerHandle. Never early; equal times run in the order of the calls.\n"
"Raises RuntimeError where the loop is closed (asyncio loop.call_later).");

static PyObject *Loop_call_later(LoopObject *self, PyObject *const *args,
                                 Py_ssize_t nargs, PyObject *kwnames);

static const azs_call_spec call_later_spec = {
    "call_later", Loop_call_later, 2, {"delay", "callback"}, false};

static PyObject *
Loop_call_later(LoopObject *self, PyObject *const *args, Py_ssize_t nargs,
                PyObject *kwnames)
{
    PyObject *context;
    double delay;
    int named =
        azs_parse_context(self, &call_later_spec, nargs, args, kwnames, &context);
    if (azs_unlikely(named > 0))
        return azs_call_by_position(self, &call_later_spec, args, nargs, kwnames);
    if (named < 0 || seconds_arg(args[0], "delay", &delay) < 0 ||
        azs_loop_check_usable(self) < 0)
        return NULL;
    if (azs_unlikely(AZS_ATOMIC_LOAD(&self->debug)) &&
        azs_loop_debug_check(self, args[1], "call_later", true) < 0)
        return NULL;
    double now = (double)azs_clock_ns() / 1e9;
    if (azs_unlikely(azs_loop_has_own_time(self)) &&
        (ask_time(self, &now) < 0 || azs_loop_check_usable(self) < 0))
        return NULL;
    return timer_schedule(self, now + delay, args, nargs, context);
}

PyDoc_STRVAR(call_at_doc,
"call_at($self, when, callback, *args, context=None)\n--\n\n"
"Call callback(*args) at `when`, in seconds of loop.time().\n\n"
"Returns a TimerHandle. Never early; equal times run in the order of the calls.\n"
"Raises RuntimeError where the loop is closed (asyncio loop.call_at).");

static PyObject *Loop_call_at(LoopObject *self, PyObject *const *args, Py_ssize_t nargs,
                              PyObject *kwnames);

static const azs_call_spec call_at_spec = {
    "call_at", Loop_call_at, 2, {"when", "callback"}, false};

static PyObject *
Loop_call_at(LoopObject *self, PyObject *const *args, Py_ssize_t nargs,
             PyObject *kwnames)
{
    PyObject *context;
    double when;
    int named = azs_parse_context(self, &call_at_spec, nargs, args, kwnames, &context);
    if (azs_unlikely(named > 0))
        return azs_call_by_position(self, &call_at_spec, args, nargs, kwnames);
    if (named < 0)
        return NULL;
    if (args[0] == Py_None) {
        PyErr_SetString(PyExc_TypeError, "when cannot be None");
        return NULL;
    }
    if (seconds_arg(args[0], "when", &when) < 0 || azs_loop_check_usable(self) < 0)
        return NULL;
    if (azs_unlikely(AZS_ATOMIC_LOAD(&self->debug)) &&
        azs_loop_debug_check(self, args[1], "call_at", true) < 0)
        return NULL;
    return timer_schedule(self, when, args, nargs, context);
}

PyDoc_STRVAR(time_doc,
"time($self, /)\n--\n\n"
"The loop's clock in seconds: CLOCK_MONOTONIC, as time.monotonic().");

static PyObject *
Loop_time(LoopObject *Py_UNUSED(self), PyObject *Py_UNUSED(ignored))
{
    return PyFloat_FromDouble((double)azs_clock_ns() / 1e9);
}

PyMethodDef azs_timer_methods[] = {
    {"call_later", (PyCFunction)(void (*)(void))Loop_call_later,
     METH_FASTCALL | METH_KEYWORDS, call_later_doc},
    {"call_at", (PyCFunction)(void (*)(void))Loop_call_at,
     METH_FASTCALL | METH_KEYWORDS, call_at_doc},
    {"time", (PyCFunction)Loop_time, METH_NOARGS, time_doc},
    {NULL},
};
