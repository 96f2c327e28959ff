/* What takes long is told of: in debug mode as asyncio does, and without it by
 * slow_callback_ms.
 *
 * Debug mode reads the clock before and after each callback. That costs as much as a
 * quick callback does, so without it a thread ticks four times in slow_ns, and the
 * clock is read only when a callback has come back and the ticker has moved on. The
 * callback seems to have begun when the clock was last read, which is when its turn's
 * poll was over, or not more than a tick before. */
#include "base/sys.h"
#include "loop/loop_object.h"
#include "py/errors.h"

/* A thread that wakes up more often is not worth it. */
#define PERIOD_MIN_NS (1 * AZS_NS_PER_MS)

void
azs_slow_mark(LoopObject *self, int64_t now_ns)
{
    AZS_SET(&self->mark_ns, now_ns);
    AZS_SET(&self->mark_ticks, self->ticker != NULL ? azs_ticker_now(self->ticker) : 0);
}

/* Another thread may be looking at it: see Loop__stuck. */
static void
set_ticker(LoopObject *self, azs_ticker *ticker)
{
    azs_mutex_lock(&self->inbox.mutex);
    self->ticker = ticker;
    azs_mutex_unlock(&self->inbox.mutex);
}

int
azs_slow_run_begins(LoopObject *self)
{
    if (self->slow_ns <= 0 || self->ticker != NULL)
        return 0;
    int64_t period_ns = self->slow_ns / 4;
    azs_ticker *ticker;
    int err = azs_ticker_start(&ticker,
                               period_ns > PERIOD_MIN_NS ? period_ns : PERIOD_MIN_NS);
    if (err < 0)
        return azs_set_errno(err);
    set_ticker(self, ticker);
    return 0;
}

void
azs_slow_end(LoopObject *self)
{
    azs_ticker *ticker = self->ticker;
    set_ticker(self, NULL);
    azs_ticker_stop(ticker, self->fork_generation != azs_fork_generation);
}

/* What the mark stands for has come back. True, and *took_ns, where somebody may have
 * to be told. */
static bool
slow_took(LoopObject *self, bool debug, int64_t *took_ns)
{
    if (azs_likely(!debug && !azs_slow_ticked(self)))
        return false;
    int64_t now_ns = azs_clock_ns();
    *took_ns = now_ns - self->mark_ns;
    azs_stats_peak(&self->stats.longest_callback_ns, *took_ns);
    azs_slow_mark(self, now_ns);
    return debug || (*took_ns >= self->slow_ns && self->slow_ns > 0);
}

/* Has the loop's method `tell` tell of it, `args` filled up with the loop and the
 * seconds. 0 or -1. */
static int
slow_tell(LoopObject *self, PyObject *tell, PyObject **args, size_t nargs,
          int64_t took_ns)
{
    PyObject *took = PyFloat_FromDouble((double)took_ns / 1e9);
    if (took == NULL)
        return -1;
    args[0] = (PyObject *)self;
    args[nargs] = took;
    PyObject *told = PyObject_VectorcallMethod(tell, args, nargs + 1, NULL);
    Py_DECREF(took);
    azs_slow_mark(self, azs_clock_ns()); /* telling is nobody's time */
    if (told == NULL)
        return -1;
    if (told == Py_True)
        self->slow_reported = true;
    Py_DECREF(told);
    return 0;
}

int
azs_slow_handle_ran(LoopObject *self, HandleObject *handle, bool debug)
{
    int64_t took_ns;
    if (!slow_took(self, debug, &took_ns) || self->slow_reported)
        return 0;
    PyObject *args[3] = {NULL, (PyObject *)handle};
    return slow_tell(self, self->st->str__callback_slow, args, 2, took_ns);
}

int
azs_slow_run_handle_debug(LoopObject *self, HandleObject *handle)
{
    Py_XSETREF(self->current_handle, Py_NewRef(handle));
    self->slow_reported = false;
    azs_slow_mark(self, azs_clock_ns());
    int res = azs_handle_run(handle);
    Py_CLEAR(self->current_handle);
    return res < 0 ? -1 : azs_slow_handle_ran(self, handle, true);
}

int
azs_slow_run_watcher(LoopObject *self, azs_watcher *watcher,
                     int (*run)(LoopObject *, azs_watcher *))
{
    PyObject *owner = watcher->owner; /* the caller's reference keeps it */
    self->slow_reported = false;
    int res = run(self, watcher);
    int64_t took_ns;
    if (res < 0 || !slow_took(self, false, &took_ns) || self->slow_reported)
        return res;
    PyObject *args[4] = {NULL, owner, Py_False};
    return slow_tell(self, self->st->str__protocol_slow, args, 3, took_ns);
}

/* ---- calls of a protocol and of its factory, within a handle or a watcher ---- */

typedef struct {
    int64_t mark_ns;
    unsigned mark_ticks;
    bool debug;
} slow_outer;

static slow_outer
slow_enter(LoopObject *loop)
{
    slow_outer outer = {loop->mark_ns, loop->mark_ticks, loop->debug};
    if (outer.debug || azs_slow_ticked(loop))
        azs_slow_mark(loop, azs_clock_ns());
    return outer;
}

/* Tells of a call of `what`, or of its method `name`, that raised or returned. Steals
 * `result` and returns it, and `what` and the loop. */
static PyObject *
slow_leave_steal(LoopObject *loop, slow_outer outer, PyObject *what, PyObject *name,
                 PyObject *result)
{
    int64_t took_ns;
    if (slow_took(loop, outer.debug, &took_ns)) {
        PyObject *raised = result == NULL ? azs_exc_take() : NULL;
        PyObject *args[4] = {NULL, what, name};
        if (slow_tell(loop, loop->st->str__protocol_slow, args, 3, took_ns) < 0)
            Py_CLEAR(result);
        if (raised != NULL) {
            PyErr_Clear();
            azs_exc_restore_steal(raised);
        }
    }
    /* Its caller's time goes on, this call's among it. */
    AZS_SET(&loop->mark_ns, outer.mark_ns);
    AZS_SET(&loop->mark_ticks, outer.mark_ticks);
    Py_DECREF(what);
    Py_DECREF(loop);
    return result;
}

PyObject *
azs_slow_call_protocol(LoopObject *loop, PyObject *name, PyObject *const *args,
                       size_t nargs)
{
    Py_INCREF(loop);
    PyObject *protocol = Py_NewRef(args[0]);
    slow_outer outer = slow_enter(loop);
    PyObject *result = PyObject_VectorcallMethod(name, args, nargs, NULL);
    return slow_leave_steal(loop, outer, protocol, name, result);
}

PyObject *
azs_slow_call_factory(LoopObject *loop, PyObject *factory)
{
    Py_INCREF(loop);
    Py_INCREF(factory);
    slow_outer outer = slow_enter(loop);
    PyObject *result = PyObject_CallNoArgs(factory);
    return slow_leave_steal(loop, outer, factory, Py_None, result);
}

/* ---- for Python ---- */

PyDoc_STRVAR(look_for_slow_doc,
"_look_for_slow($self, slow_ns, /)\n--\n\n"
"Tell of callbacks that take as many nanoseconds; 0 for none.");

static PyObject *
Loop__look_for_slow(LoopObject *self, PyObject *arg)
{
    long long slow_ns = PyLong_AsLongLong(arg);
    if (slow_ns == -1 && PyErr_Occurred())
        return NULL;
    self->slow_ns = slow_ns;
    self->timed = self->debug || slow_ns > 0;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(stuck_doc,
"_stuck($self, /)\n--\n\n"
"The callback that runs by its number, for how many nanoseconds it has at most run,\n"
"and whether the ticker has moved on; None where none runs. For other threads, too.");

static PyObject *
Loop__stuck(LoopObject *self, PyObject *Py_UNUSED(ignored))
{
    if (!AZS_ATOMIC_LOAD(&self->turning) ||
        AZS_ATOMIC_LOAD(&self->stats.asleep_since_ns) != 0)
        Py_RETURN_NONE;
    azs_mutex_lock(&self->inbox.mutex); /* lest the ticker ends meanwhile */
    bool ticked = self->ticker != NULL &&
                  azs_ticker_now(self->ticker) != AZS_LOOK(&self->mark_ticks);
    azs_mutex_unlock(&self->inbox.mutex);
    return Py_BuildValue("(KLO)", (unsigned long long)AZS_LOOK(&self->stats.callbacks),
                         (long long)(azs_clock_ns() - AZS_LOOK(&self->mark_ns)),
                         ticked ? Py_True : Py_False);
}

PyMethodDef azs_slow_methods[] = {
    {"_look_for_slow", (PyCFunction)Loop__look_for_slow, METH_O, look_for_slow_doc},
    {"_stuck", (PyCFunction)Loop__stuck, METH_NOARGS, stuck_doc},
    {NULL},
};
