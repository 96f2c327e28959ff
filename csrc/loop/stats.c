#include "loop/stats.h"

#include "loop/loop_object.h"

static int
set_count(PyObject *counts, const char *name, uint64_t value)
{
    PyObject *number = PyLong_FromUnsignedLongLong(value);
    if (number == NULL)
        return -1;
    int res = PyDict_SetItemString(counts, name, number);
    Py_DECREF(number);
    return res;
}

/* Busy and idle time, and what was longest, to this moment: the loop may be in the
 * middle of a turn, or asleep where another thread asks. */
static int
set_times(PyObject *counts, const azs_stats *stats)
{
    /* Each is looked at once: the loop's thread may be changing it. */
    int64_t running_since_ns = AZS_ATOMIC_LOAD(&stats->running_since_ns);
    int64_t asleep_since_ns = AZS_ATOMIC_LOAD(&stats->asleep_since_ns);
    int64_t ran_ns = AZS_LOOK(&stats->ran_ns), idle_ns = AZS_LOOK(&stats->idle_ns);
    int64_t longest_turn_ns = AZS_LOOK(&stats->longest_turn_ns);
    int64_t now_ns = azs_clock_ns();
    if (running_since_ns != 0) {
        ran_ns += now_ns - running_since_ns;
        if (asleep_since_ns != 0)
            idle_ns += now_ns - asleep_since_ns;
        else
            azs_stats_peak(&longest_turn_ns, now_ns - AZS_LOOK(&stats->turn_began_ns));
    }
    int64_t busy_ns = ran_ns > idle_ns ? ran_ns - idle_ns : 0; /* not of one moment */
    if (set_count(counts, "busy_ns", (uint64_t)busy_ns) < 0 ||
        set_count(counts, "idle_ns", (uint64_t)idle_ns) < 0 ||
        set_count(counts, "longest_turn_ns", (uint64_t)longest_turn_ns) < 0 ||
        set_count(counts, "longest_callback_ns",
                  (uint64_t)AZS_LOOK(&stats->longest_callback_ns)) < 0)
        return -1;
    return set_count(counts, "lag_ns", (uint64_t)AZS_LOOK(&stats->lag_ns));
}

/* What waits in the queues. Other threads look without a lock, too: `make tsan` knows
 * of this function. */
static void
count_waiting(const LoopObject *self, size_t *ready, size_t *timers)
{
    *ready = self->ready.count;
#ifdef Py_GIL_DISABLED
    *ready += self->inbox.handles.count;
#endif
    size_t all = self->timers.count, cancelled = self->timers_cancelled;
    *timers = all > cancelled ? all - cancelled : 0; /* two looks: not atomic */
}

PyDoc_STRVAR(stats_doc,
"_stats($self, reset, /)\n--\n\n"
"The counts of stats(), but for ZeroMQ transports: dict[str, int].");

static PyObject *
Loop__stats(LoopObject *self, PyObject *reset)
{
    azs_stats *stats = &self->stats;
    PyObject *counts = PyDict_New();
    if (counts == NULL)
        return NULL;
    size_t ready, timers, fds;
    count_waiting(self, &ready, &timers);
#ifdef Py_GIL_DISABLED
    /* Another thread may be changing what its owners want watched. */
    fds = azs_loop_is_mine(self) ? azs_poller_count(&self->poller)
                                 : azs_inbox_count_fds(self);
#else
    fds = azs_poller_count(&self->poller);
#endif
    if (set_count(counts, "ready", ready) < 0 ||
        set_count(counts, "timers", timers) < 0 || set_count(counts, "fds", fds) < 0 ||
        set_count(counts, "transports", AZS_LOOK(&stats->transports)) < 0 ||
        set_times(counts, stats) < 0)
        goto fail;
#define X(name)                                                                        \
    if (set_count(counts, #name, AZS_LOOK(&stats->name)) < 0)                                     \
        goto fail;
    AZS_STATS_TOTALS(X)
#undef X
    if (reset == Py_True) {
        AZS_SET(&stats->longest_turn_ns, 0);
        AZS_SET(&stats->longest_callback_ns, 0);
        AZS_SET(&stats->lag_ns, 0);
    }
    return counts;

fail:
    Py_DECREF(counts);
    return NULL;
}

PyMethodDef azs_stats_methods[] = {
    {"_stats", (PyCFunction)Loop__stats, METH_O, stats_doc},
    {NULL},
};
