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

PyDoc_STRVAR(stats_doc,
"_stats($self, /)\n--\n\n"
"The counts of stats(), but for ZeroMQ transports: dict[str, int].");

static PyObject *
Loop__stats(LoopObject *self, PyObject *Py_UNUSED(ignored))
{
    const azs_stats *stats = &self->stats;
    PyObject *counts = PyDict_New();
    if (counts == NULL)
        return NULL;
    if (set_count(counts, "ready", self->ready.count) < 0 ||
        set_count(counts, "timers", self->timers.count - self->timers_cancelled) < 0 ||
        set_count(counts, "fds", azs_poller_count(&self->poller)) < 0 ||
        set_count(counts, "transports", stats->transports) < 0)
        goto fail;
#define X(name)                                                                        \
    if (set_count(counts, #name, stats->name) < 0)                                     \
        goto fail;
    AZS_STATS_TOTALS(X)
#undef X
    return counts;

fail:
    Py_DECREF(counts);
    return NULL;
}

PyMethodDef azs_stats_methods[] = {
    {"_stats", (PyCFunction)Loop__stats, METH_NOARGS, stats_doc},
    {NULL},
};
