#include "loop/wakeup.h"

#include "base/sys.h"
#include "loop/callargs.h"
#include "loop/loop_object.h"
#include "py/errors.h"

int
azs_wakeup_init(azs_wakeup *wakeup)
{
    wakeup->sleeping = false;
    wakeup->running = NULL;
    wakeup->lock = NULL;
    wakeup->efd = azs_sys_eventfd();
#ifdef Py_GIL_DISABLED
    wakeup->lock = PyThread_allocate_lock();
    if (wakeup->lock == NULL)
        return -ENOMEM;
#endif
    return wakeup->efd < 0 ? wakeup->efd : 0;
}

void
azs_wakeup_close(azs_wakeup *wakeup)
{
    azs_sys_close(wakeup->efd);
    wakeup->efd = -1;
}

void
azs_wakeup_free(azs_wakeup *wakeup)
{
    if (wakeup->lock != NULL)
        PyThread_free_lock(wakeup->lock);
    wakeup->lock = NULL;
}

int
azs_wakeup_run(LoopObject *loop, HandleObject *handle,
               int (*run)(LoopObject *loop, HandleObject *handle))
{
    azs_own((PyObject *)handle, &handle->weakrefs);
    if (azs_likely(azs_has_one_reference((PyObject *)handle) &&
                   AZS_ATOMIC_LOAD(&handle->weakrefs) == NULL))
        return run(loop, handle); /* nobody can cancel it */
    azs_wakeup *wakeup = &loop->wakeup;
    /* Whoever waits holds it for a moment, and without the GIL. */
    PyThread_acquire_lock(wakeup->lock, WAIT_LOCK);
    AZS_ATOMIC_STORE(&wakeup->runner, PyThread_get_thread_ident());
    AZS_ATOMIC_STORE(&wakeup->running, handle);
    int res = run(loop, handle);
    AZS_ATOMIC_STORE(&wakeup->running, NULL);
    PyThread_release_lock(wakeup->lock);
    return res;
}

int
azs_wakeup_wait_for(HandleObject *handle)
{
    azs_wakeup *wakeup = &handle->loop->wakeup;
    while (AZS_ATOMIC_LOAD(&wakeup->running) == handle &&
           AZS_ATOMIC_LOAD(&wakeup->runner) != PyThread_get_thread_ident()) {
        PyThread_type_lock lock = wakeup->lock;
        LoopObject *loop = (LoopObject *)Py_NewRef(handle->loop);
        PyLockStatus status;
        Py_BEGIN_ALLOW_THREADS
        status = PyThread_acquire_lock_timed(lock, -1, 1);
        if (status == PY_LOCK_ACQUIRED)
            PyThread_release_lock(lock);
        Py_END_ALLOW_THREADS
        /* As where asyncio waits for its lock: Ctrl-C must end it. */
        int err = status == PY_LOCK_INTR ? PyErr_CheckSignals() : 0;
        Py_DECREF(loop);
        if (err < 0)
            return -1;
    }
    return 0;
}

int
azs_wakeup_signal(LoopObject *loop)
{
    loop->wakeup.sleeping = false;
    int err = azs_sys_eventfd_signal(loop->wakeup.efd);
    return err < 0 ? azs_set_errno(err) : 0;
}

PyDoc_STRVAR(call_soon_threadsafe_doc,
"call_soon_threadsafe($self, callback, *args, context=None)\n--\n\n"
"Like call_soon(), from any thread: wakes the loop if it sleeps.\n\n"
"Returns a Handle. Raises RuntimeError where the loop is closed\n"
"(asyncio loop.call_soon_threadsafe).");

static PyObject *Loop_call_soon_threadsafe(LoopObject *self, PyObject *const *args,
                                           Py_ssize_t nargs, PyObject *kwnames);

static const azs_call_spec threadsafe_spec = {
    "call_soon_threadsafe", Loop_call_soon_threadsafe, 1, {"callback"}, false};

static PyObject *
Loop_call_soon_threadsafe(LoopObject *self, PyObject *const *args, Py_ssize_t nargs,
                          PyObject *kwnames)
{
    PyObject *context;
    int named =
        azs_parse_context(self, &threadsafe_spec, nargs, args, kwnames, &context);
    if (azs_unlikely(named > 0))
        return azs_call_by_position(self, &threadsafe_spec, args, nargs, kwnames);
    if (named < 0 || azs_loop_check_usable(self) < 0)
        return NULL;
    if (azs_unlikely(AZS_ATOMIC_LOAD(&self->debug)) &&
        azs_loop_debug_check(self, args[0], "call_soon_threadsafe", false) < 0)
        return NULL;
    HandleObject *handle = azs_handle_new(self, args[0], args + 1, nargs - 1, context);
    if (handle == NULL)
        return NULL;
#ifdef Py_GIL_DISABLED
    handle->threadsafe = true;
    if (!azs_loop_is_mine(self))
        azs_disown((PyObject *)handle); /* it is to die in the loop's thread */
    AZS_TSAN_RELEASE(handle);
#elif PY_VERSION_HEX >= 0x030E0000
    if (azs_unlikely(self->wakeup.lock == NULL))
        self->wakeup.lock = PyThread_allocate_lock();
    handle->threadsafe = self->wakeup.lock != NULL;
#endif
    if (azs_ready_push_handle(self, handle) < 0) {
        Py_DECREF(handle);
        return NULL;
    }
    if (azs_loop_wake(self) < 0)
        Py_CLEAR(handle);
    return (PyObject *)handle;
}

PyDoc_STRVAR(write_to_self_doc,
"_write_to_self($self, /)\n--\n\nWake the loop up. May be called from any thread.");

static PyObject *
Loop__write_to_self(LoopObject *self, PyObject *Py_UNUSED(ignored))
{
    /* Closed while another thread was on its way here: nobody to wake. */
    azs_mutex_lock(&self->inbox.mutex);
    int err = self->wakeup.efd >= 0 ? azs_sys_eventfd_signal(self->wakeup.efd) : 0;
    azs_mutex_unlock(&self->inbox.mutex);
    if (err < 0) {
        azs_set_errno(err);
        return NULL;
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
