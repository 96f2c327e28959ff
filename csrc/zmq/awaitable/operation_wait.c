/* Those who await an operation: what a task sleeps on, and the iterator of `await`. */
#include "zmq/awaitable/operation.h"

#include "py/coro.h"
#include "py/errors.h"
#include "py/type.h"

/* One await of an operation: its iterator. */
struct OperationWait {
    PyObject_HEAD
    azs_state *st;       /* held */
    azs_operation *op;   /* of `future` */
    PyObject *future;    /* owned; NULL once it has ended */
    PyObject *waiter;    /* owned or NULL: a WaiterObject of our loop, else a Future */
    OperationWait *next; /* in op->waits, if `linked` */
    bool linked;
    bool slept; /* counted in op->sleepers */
};

/* ---- waiters ---- */

static inline bool
is_own_waiter(const azs_state *st, PyObject *waiter)
{
    return Py_IS_TYPE(waiter, st->waiter_type);
}

/* Ends what a task sleeps on. 0 or -1. */
static int
waiter_wake(azs_state *st, PyObject *waiter)
{
    if (azs_likely(is_own_waiter(st, waiter)))
        return azs_waiter_wake((WaiterObject *)waiter);
    PyObject *done = PyObject_CallMethodNoArgs(waiter, st->str_done);
    if (done == NULL)
        return -1;
    int is_done = PyObject_IsTrue(done);
    Py_DECREF(done);
    if (is_done != 0)
        return is_done < 0 ? -1 : 0;
    PyObject *args[] = {waiter, Py_None};
    PyObject *res = PyObject_VectorcallMethod(st->str_set_result, args, 2, NULL);
    Py_XDECREF(res);
    return res == NULL ? -1 : 0;
}

static bool
waiter_is_cancelled(azs_state *st, PyObject *waiter)
{
    if (azs_likely(is_own_waiter(st, waiter)))
        return ((WaiterObject *)waiter)->state == AZS_WAITER_CANCELLED;
    PyObject *res = PyObject_CallMethodNoArgs(waiter, st->str_cancelled);
    if (res == NULL)
        PyErr_Clear();
    Py_XDECREF(res);
    return res == Py_True;
}

static void
wait_unlink(OperationWait *self)
{
    if (!self->linked)
        return;
    OperationWait **at = &self->op->waits;
    while (*at != self)
        at = &(*at)->next;
    *at = self->next;
    self->next = NULL;
    self->linked = false;
}

int
azs_operation_wake_waits(azs_operation *op)
{
    if (op->waits == NULL)
        return 0;
    PyObject *exc = PyErr_Occurred() ? azs_exc_take() : NULL;
    bool failed = false;
    while (op->waits != NULL) {
        OperationWait *wait = op->waits;
        wait_unlink(wait);
        PyObject *waiter = Py_NewRef(wait->waiter);
        AsyncSocketObject *core = (AsyncSocketObject *)Py_XNewRef(op->core);
        bool later = core != NULL && azs_async_put_off(core, waiter);
        Py_XDECREF(core);
        if (!later && waiter_wake(op->st, waiter) < 0) {
            failed = true;
            if (exc == NULL)
                exc = azs_exc_take();
            else
                PyErr_Clear();
        }
        Py_DECREF(waiter);
    }
    if (exc != NULL)
        azs_exc_restore_steal(exc);
    return failed ? -1 : 0;
}

bool
azs_operation_is_abandoned(const azs_operation *op)
{
    if (op->done)
        return true;
    if (op->waits == NULL || op->shared)
        return false;
    /* A foreign loop's Future may be the user's: what it is asked may end waits. */
    OperationWait *wait = (OperationWait *)Py_NewRef(op->waits);
    while (wait != NULL) {
        PyObject *waiter = Py_NewRef(wait->waiter);
        bool cancelled = waiter_is_cancelled(op->st, waiter);
        bool linked = wait->linked;
        Py_DECREF(waiter);
        OperationWait *next = (OperationWait *)Py_XNewRef(wait->next);
        Py_DECREF(wait);
        if (!cancelled || !linked) {
            Py_XDECREF(next);
            return false;
        }
        wait = next;
    }
    return true;
}

/* ---- an await ---- */

/* Returns `value` from an iterator; steals it. Always NULL. */
PyObject *
azs_operation_return_steal(azs_state *st, PyObject *value)
{
    if (value != NULL && value != Py_None)
        return azs_coro_return_steal(st, value);
    Py_XDECREF(value); /* no exception at all means None, and costs nothing */
    return NULL;
}

PyObject *
azs_operation_wait_new(azs_operation *op)
{
    azs_state *st = op->st;
    OperationWait *wait = (OperationWait *)azs_type_alloc(st->operation_wait_type);
    if (wait == NULL)
        return NULL;
    wait->st = azs_state_hold(st);
    wait->op = op;
    wait->future = Py_NewRef(op->future);
    return (PyObject *)wait;
}

/* What the operation ended with: a new reference, or NULL with the exception. */
PyObject *
azs_operation_outcome(azs_operation *op)
{
    if (azs_likely(!op->real && !op->returned)) {
        if (op->message != NULL) {
            /* Another may await it, too, or look at it later. */
            if (op->result == NULL) {
                op->result = op->message;
                op->message = NULL;
            }
            PyObject *result = Py_NewRef(op->result);
            azs_operation_take(op); /* the socket's end, maybe: finalizers */
            return result;
        }
        return Py_NewRef(op->result == NULL ? Py_None : op->result);
    }
    return azs_operation_result(op);
}

/* Has the task sleep: what it gets yielded, new reference; NULL with an exception. */
static PyObject *
wait_start(OperationWait *self)
{
    azs_operation *op = self->op;
    PyObject *waiter, *old;
    if (azs_unlikely(self->future == NULL))
        goto ended;
    LoopObject *own_loop = op->core == NULL ? NULL : op->core->own_loop;
    if (azs_likely(own_loop != NULL)) {
        Py_INCREF(own_loop);
        waiter = (PyObject *)azs_waiter_new(own_loop);
        Py_DECREF(own_loop);
        if (waiter != NULL)
            ((WaiterObject *)waiter)->blocking = true;
    } else {
        PyObject *loop =
            op->core != NULL && op->core->loop != NULL
                ? Py_NewRef(op->core->loop)
                : PyObject_CallMethodNoArgs(self->future, self->st->str_get_loop);
        waiter = loop == NULL
                     ? NULL
                     : PyObject_CallMethodNoArgs(loop, self->st->str_create_future);
        Py_XDECREF(loop);
        if (waiter != NULL &&
            PyObject_SetAttr(waiter, self->st->str__asyncio_future_blocking, Py_True) <
                0)
            Py_CLEAR(waiter);
    }
    if (waiter == NULL)
        return NULL;
    if (azs_unlikely(self->future == NULL)) {
        Py_DECREF(waiter);
        goto ended;
    }
    if (!self->slept) {
        self->slept = true;
        op->sleepers++;
    }
    old = self->waiter;
    self->waiter = Py_NewRef(waiter);
    if (azs_unlikely(op->done)) { /* meanwhile: the next call finds out */
        if (waiter_wake(self->st, waiter) < 0)
            Py_CLEAR(waiter);
    } else if (!self->linked) {
        self->next = op->waits;
        op->waits = self;
        self->linked = true;
    }
    Py_XDECREF(old);
    return waiter;

ended: /* by the user's code that made the waiter */
    PyErr_SetString(PyExc_RuntimeError, "the await was closed as it began");
    return NULL;
}

/* After the sleep, before the operation is done: what woke the task? 0 to sleep
 * again, on *again (new reference) if that is not NULL; or -1 with an exception. */
static int
wait_check(OperationWait *self, PyObject **again)
{
    PyObject *waiter = self->waiter;
    *again = NULL;
    if (is_own_waiter(self->st, waiter))
        return azs_waiter_resume((WaiterObject *)waiter, again) == PYGEN_ERROR ? -1 : 0;
    Py_INCREF(waiter);
    PyObject *res = PyObject_CallMethod(waiter, "result", NULL);
    if (res == NULL && PyErr_ExceptionMatches(self->st->invalid_state_error)) {
        PyErr_Clear();
        PyErr_SetString(PyExc_RuntimeError, "await wasn't used with future");
    }
    Py_XDECREF(res);
    Py_DECREF(waiter);
    return res == NULL ? -1 : 0;
}

/* It awaits no more; keeps the current exception. */
static void
wait_end(OperationWait *self)
{
    wait_unlink(self);
    if (self->slept) {
        self->slept = false;
        self->op->sleepers--;
    }
    PyObject *exc = PyErr_Occurred() ? azs_exc_take() : NULL;
    PyObject *future = self->future, *waiter = self->waiter;
    self->future = self->waiter = NULL;
    Py_XDECREF(waiter);
    Py_XDECREF(future);
    if (exc != NULL)
        azs_exc_restore_steal(exc);
}

static PySendResult
wait_send(OperationWait *self, PyObject *Py_UNUSED(arg), PyObject **result)
{
    *result = NULL;
    if (self->future == NULL)
        return (*result = Py_NewRef(Py_None)), PYGEN_RETURN;
    azs_operation *op = self->op;
    if (azs_operation_check_thread(op) < 0)
        return PYGEN_ERROR;
    PyObject *future = Py_NewRef(self->future);
    PySendResult res = PYGEN_ERROR;
    if (azs_likely(op->done)) {
        *result = azs_operation_outcome(op);
        if (*result != NULL)
            res = PYGEN_RETURN;
    } else if (self->waiter == NULL || wait_check(self, result) == 0) {
        if (*result == NULL)
            *result = wait_start(self);
        if (*result != NULL)
            res = PYGEN_NEXT;
    }
    if (res != PYGEN_NEXT)
        wait_end(self);
    Py_DECREF(future);
    return res;
}

static PyObject *
wait_iternext(OperationWait *self)
{
    PyObject *result;
    switch (wait_send(self, Py_None, &result)) {
    case PYGEN_NEXT:
        return result;
    case PYGEN_RETURN:
        return azs_operation_return_steal(self->st, result);
    case PYGEN_ERROR:
        break;
    }
    return NULL;
}

PyDoc_STRVAR(wait_send_doc,
"send($self, value, /)\n--\n\nGo on waiting (collections.abc.Generator.send).");

static PyObject *
OperationWait_send(OperationWait *self, PyObject *arg)
{
    PyObject *result;
    PySendResult outcome = wait_send(self, arg, &result);
    return outcome == PYGEN_RETURN ? azs_coro_return_steal(self->st, result) : result;
}

/* The task that awaits does so no more and has got nothing: its message is the
 * socket's again, unless others want it. 0 or -1. */
static int
wait_leave(OperationWait *self, bool cancelled)
{
    azs_operation *op = self->op;
    wait_unlink(self);
    if (op->sleepers > (size_t)self->slept)
        return 0;
    if (op->done)
        return op->shared || !azs_operation_is_receive(op)
                   ? 0
                   : azs_operation_give_back(op);
    if (!cancelled)
        return 0;
    return azs_operation_cancel_quietly(op);
}

PyDoc_STRVAR(wait_throw_doc,
"throw($self, type, value=None, traceback=None, /)\n--\n\n"
"End the wait: a message that has come goes back to the socket\n"
"(collections.abc.Generator.throw).");

static PyObject *
OperationWait_throw(OperationWait *self, PyObject *const *args, Py_ssize_t nargs)
{
    if (nargs < 1 || nargs > 3) {
        PyErr_Format(PyExc_TypeError, "throw expected 1 to 3 arguments, got %zd",
                     nargs);
        return NULL;
    }
    if (azs_coro_throw_set(args, nargs) < 0 || self->future == NULL)
        return NULL;
    bool cancelled = PyErr_ExceptionMatches(self->st->cancelled_error);
    PyObject *exc = azs_exc_take();
    if (azs_operation_check_thread(self->op) < 0) {
        Py_DECREF(exc);
        return NULL;
    }
    PyObject *future = Py_NewRef(self->future);
    if (wait_leave(self, cancelled) < 0)
        PyErr_WriteUnraisable(future);
    wait_end(self);
    Py_DECREF(future);
    azs_exc_restore_steal(exc);
    return NULL;
}

PyDoc_STRVAR(wait_close_doc,
"close($self, /)\n--\n\n"
"End the wait: a message that has come goes back to the socket\n"
"(collections.abc.Generator.close).");

static PyObject *OperationWait_close(OperationWait *self, PyObject *ignored);

static PyMethodDef close_method = {"close", (PyCFunction)OperationWait_close,
                                   METH_NOARGS, wait_close_doc};

static PyObject *
OperationWait_close(OperationWait *self, PyObject *Py_UNUSED(ignored))
{
    if (self->future == NULL)
        Py_RETURN_NONE;
    /* Another thread's collector ends the coroutine that awaits? */
    if (azs_operation_hand_on(self->op, (PyObject *)self, &close_method))
        Py_RETURN_NONE;
    PyObject *future = Py_NewRef(self->future);
    int res = wait_leave(self, false);
    wait_end(self);
    Py_DECREF(future);
    return res < 0 ? NULL : Py_NewRef(Py_None);
}

static int
wait_traverse(OperationWait *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->future);
    Py_VISIT(self->waiter);
    return 0;
}

static int
wait_clear(OperationWait *self)
{
    if (self->future != NULL)
        wait_end(self);
    return 0;
}

static PyObject *
wait_forget(OperationWait *self, PyObject *Py_UNUSED(ignored))
{
    (void)wait_clear(self);
    Py_RETURN_NONE;
}

static PyMethodDef forget_method = {"_forget", (PyCFunction)wait_forget, METH_NOARGS,
                                    NULL};

/* Dropped before its end. That is no close(): a message that has come is the
 * operation's still. */
static void
wait_finalize(OperationWait *self)
{
    if (self->future != NULL)
        (void)azs_operation_hand_on(self->op, (PyObject *)self, &forget_method);
}

static void
wait_dealloc(OperationWait *self)
{
    azs_state *st = self->st;
    if (azs_unlikely(self->future != NULL) &&
        PyObject_CallFinalizerFromDealloc((PyObject *)self) < 0)
        return; /* the loop's, for a while */
    PyObject_GC_UnTrack(self);
    wait_clear(self);
    AZS_DEALLOC_FREE(self);
    azs_state_release(st);
}

static PyMethodDef wait_methods[] = {
    {"send", (PyCFunction)OperationWait_send, METH_O, wait_send_doc},
    {"throw", (PyCFunction)(void (*)(void))OperationWait_throw, METH_FASTCALL,
     wait_throw_doc},
    {"close", (PyCFunction)OperationWait_close, METH_NOARGS, wait_close_doc},
    {NULL},
};

PyDoc_STRVAR(wait_doc,
"What awaiting an operation of zmq_asyncio iterates over.");

static PyType_Slot wait_slots[] = {
    {Py_tp_doc, (void *)wait_doc},   {Py_tp_dealloc, wait_dealloc},
    {Py_tp_finalize, wait_finalize}, {Py_tp_traverse, wait_traverse},
    {Py_tp_clear, wait_clear},       {Py_tp_iter, PyObject_SelfIter},
    {Py_tp_iternext, wait_iternext}, {Py_am_send, wait_send},
    {Py_tp_methods, wait_methods},   {0, NULL},
};

static PyType_Spec wait_spec = {
    .name = "aiozmq_speedups._core.OperationWait",
    .basicsize = sizeof(OperationWait),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE |
             Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = wait_slots,
};

int
azs_operation_wait_init(PyObject *mod, azs_state *st)
{
    return azs_type_add(mod, &st->operation_wait_type, &wait_spec, NULL, false);
}
