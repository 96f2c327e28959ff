#include "loop/wakeup.h"

#include <stdlib.h>

#include "base/sys.h"
#include "loop/loop_object.h"
#include "py/errors.h"

int
azs_wakeup_init(azs_wakeup *wakeup)
{
    *wakeup = (azs_wakeup){.efd = -1};
    pthread_mutex_init(&wakeup->lock, NULL);
    wakeup->efd = azs_sys_eventfd();
    return wakeup->efd < 0 ? wakeup->efd : 0;
}

/* Adds a handle, taking a reference, and wakes the loop if it sleeps. May run
 * in any thread; nothing below the lock can run Python code. */
static int
wakeup_post(LoopObject *loop, HandleObject *handle)
{
    azs_wakeup *wakeup = &loop->wakeup;
    int err = 0;
    bool signal = false;
    pthread_mutex_lock(&wakeup->lock);
    if (wakeup->count == wakeup->capacity) {
        size_t capacity = wakeup->capacity ? wakeup->capacity * 2 : 64;
        HandleObject **inbox = realloc(wakeup->inbox, capacity * sizeof(*inbox));
        if (inbox == NULL) {
            err = -ENOMEM;
            goto unlock;
        }
        wakeup->inbox = inbox;
        wakeup->capacity = capacity;
    }
    wakeup->inbox[wakeup->count++] = (HandleObject *)Py_NewRef(handle);
    atomic_store_explicit(&wakeup->filled, true, memory_order_release);
    signal = wakeup->sleeping;
    wakeup->sleeping = false;
unlock:
    pthread_mutex_unlock(&wakeup->lock);
    if (err < 0) {
        PyErr_NoMemory();
        return -1;
    }
    if (signal) {
        err = azs_sys_eventfd_signal(wakeup->efd);
        if (err < 0)
            return azs_set_errno(err);
    }
    return 0;
}

bool
azs_wakeup_may_sleep(azs_wakeup *wakeup)
{
    pthread_mutex_lock(&wakeup->lock);
    bool empty = wakeup->count == 0;
    wakeup->sleeping = empty;
    pthread_mutex_unlock(&wakeup->lock);
    return empty;
}

void
azs_wakeup_woke(azs_wakeup *wakeup)
{
    pthread_mutex_lock(&wakeup->lock);
    wakeup->sleeping = false;
    pthread_mutex_unlock(&wakeup->lock);
}

int
azs_wakeup_drain(LoopObject *loop)
{
    azs_wakeup *wakeup = &loop->wakeup;
    int err = 0;
    size_t moved = 0;
    pthread_mutex_lock(&wakeup->lock);
    while (moved < wakeup->count) {
        /* The inbox's reference becomes the queue's. */
        err = azs_ring_push(&loop->ready, (uintptr_t)wakeup->inbox[moved]);
        if (err < 0)
            break;
        moved++;
    }
    wakeup->count -= moved;
    for (size_t i = 0; i < wakeup->count; i++)
        wakeup->inbox[i] = wakeup->inbox[moved + i];
    atomic_store_explicit(&wakeup->filled, wakeup->count > 0, memory_order_relaxed);
    pthread_mutex_unlock(&wakeup->lock);
    if (err < 0) {
        PyErr_NoMemory();
        return -1;
    }
    return 0;
}

int
azs_wakeup_traverse(azs_wakeup *wakeup, visitproc visit, void *arg)
{
    /* The collector runs with the GIL held, and every change of the inbox is
     * made with it held too, so the lock is not needed here. */
    for (size_t i = 0; i < wakeup->count; i++)
        Py_VISIT(wakeup->inbox[i]);
    return 0;
}

void
azs_wakeup_clear(azs_wakeup *wakeup)
{
    pthread_mutex_lock(&wakeup->lock);
    HandleObject **inbox = wakeup->inbox;
    size_t count = wakeup->count;
    wakeup->inbox = NULL;
    wakeup->count = wakeup->capacity = 0;
    atomic_store_explicit(&wakeup->filled, false, memory_order_relaxed);
    pthread_mutex_unlock(&wakeup->lock);
    for (size_t i = 0; i < count; i++)
        Py_DECREF(inbox[i]);
    free(inbox);
}

void
azs_wakeup_close(azs_wakeup *wakeup)
{
    azs_sys_close(wakeup->efd);
    wakeup->efd = -1;
}

PyDoc_STRVAR(call_soon_threadsafe_doc,
"call_soon_threadsafe(callback, *args, context=None)\n--\n\n"
"Like call_soon(), from any thread: wakes the loop if it sleeps.\n\n"
"Returns a Handle. Raises RuntimeError where the loop is closed\n"
"(asyncio loop.call_soon_threadsafe).");

static PyObject *
Loop_call_soon_threadsafe(LoopObject *self, PyObject *const *args, Py_ssize_t nargs,
                          PyObject *kwnames)
{
    PyObject *context;
    if (azs_parse_context(self, "call_soon_threadsafe", 1, nargs, args, kwnames,
                          &context) < 0 ||
        azs_loop_check_usable(self) < 0)
        return NULL;
    if (azs_unlikely(self->debug) &&
        azs_loop_debug_check(self, args[0], "call_soon_threadsafe", false) < 0)
        return NULL;
    HandleObject *handle = azs_handle_new(self, args[0], args + 1, nargs - 1, context);
    if (handle != NULL && wakeup_post(self, handle) < 0)
        Py_CLEAR(handle);
    return (PyObject *)handle;
}

PyDoc_STRVAR(write_to_self_doc,
"_write_to_self()\n--\n\nWake the loop up. May be called from any thread.");

static PyObject *
Loop__write_to_self(LoopObject *self, PyObject *Py_UNUSED(ignored))
{
    /* Closed while another thread was on its way here: nobody to wake. */
    if (self->wakeup.efd >= 0) {
        int err = azs_sys_eventfd_signal(self->wakeup.efd);
        if (err < 0) {
            azs_set_errno(err);
            return NULL;
        }
    }
    Py_RETURN_NONE;
}

PyMethodDef azs_wakeup_methods[] = {
    {"call_soon_threadsafe", (PyCFunction)(void (*)(void))Loop_call_soon_threadsafe,
     METH_FASTCALL | METH_KEYWORDS, call_soon_threadsafe_doc},
    {"_write_to_self", (PyCFunction)Loop__write_to_self, METH_NOARGS,
     write_to_self_doc},
    {NULL},
};
