/* A receive or a send: an asyncio.Future whose message is never lost.
 *
 * Its own `await` tells apart that a message is there from that somebody has got it. A
 * task sleeps on a waiter of its own; the message is taken when the task runs and the
 * await returns it. A task that is cancelled in between has not taken it: throw() or
 * close() come in its place, and the message goes back to the socket, to where it was
 * in the order. The same where the Future is collected and nobody asked for its result.
 *
 * Most operations are awaited at once and by nobody else. The base's fields, which cost
 * more than all the rest, are not made before somebody looks at an attribute of the
 * Future: 0.2 us of the 0.7 that a send and its await take. Until then `real` is false.
 */
#include "zmq/awaitable/operation.h"

#include <errno.h>

#include "loop/hand_on.h"
#include "py/errors.h"
#include "py/type.h"

azs_operation *
azs_operation_new(AsyncSocketObject *core, azs_operation_kind kind)
{
    azs_state *st = core->st;
    PyObject *future =
        azs_freelist_take(azs_loop_freelist(st, core->own_loop, operations));
    azs_operation *op;
    if (azs_likely(future != NULL)) {
        op = azs_operation_of(future);
    } else {
        future = azs_type_alloc(st->operation_type);
        if (future == NULL)
            return NULL;
        PyObject_GC_UnTrack(future); /* until it is complete */
        op = azs_operation_of(future);
        op->future = future;
    }
    AZS_LIVE(st, zmq_operation, 1);
    op->st = azs_state_hold(st);
    op->kind = kind;
    /* The user's code may have closed it since the loop was entered: an argument's,
     * or a finalizer's. */
    if (azs_unlikely(core->loop_kwargs == NULL)) {
        azs_async_raise(st, ENOTSOCK);
        Py_DECREF(future);
        return NULL;
    }
    op->loop_kwargs = Py_NewRef(core->loop_kwargs);
#ifdef Py_GIL_DISABLED
    op->loop = Py_NewRef(core->loop);
    op->own_loop = core->own_loop;
#endif
    op->core = (AsyncSocketObject *)Py_NewRef(core);
    /* Whatever keeps it may be kept by the loop: a cycle. */
    PyObject_GC_Track(future);
    return op;
}

PyObject *
azs_operation_new_sent(AsyncSocketObject *core)
{
    azs_operation *op = azs_operation_new(core, AZS_SEND);
    if (op == NULL)
        return NULL;
    op->done = true;
    Py_CLEAR(op->core);
    return op->future;
}

/* Makes it the asyncio.Future that it seems to be: somebody looks. 0 or -1. */
int
azs_operation_make_real(azs_operation *op)
{
    if (azs_likely(op->real))
        return 0;
    PyObject *kwargs = op->loop_kwargs;
    if (kwargs == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "the operation has been collected");
        return -1;
    }
    bool was_done = op->done;
    op->real = true;
    op->loop_kwargs = NULL;
    PyTypeObject *base = (PyTypeObject *)op->st->asyncio_future;
    /* Asks the loop for its debug mode: the user's code. */
    int res = base->tp_init(op->future, op->st->no_args, kwargs);
    if (res < 0) {
        PyObject *exc = azs_exc_take();
        op->loop_kwargs = kwargs;
        op->real = false;
        base->tp_clear(op->future); /* what it has of the base already */
        azs_exc_restore_steal(exc);
        return -1;
    }
    Py_DECREF(kwargs);
    if (!was_done) /* where it is by now, the base knows */
        return 0;
    PyObject *result = op->result != NULL ? op->result : op->message;
    PyObject *args[] = {op->future, result == NULL ? Py_None : result};
    PyObject *set = PyObject_Vectorcall(op->st->future_set_result, args, 2, NULL);
    Py_CLEAR(op->result);
    Py_XDECREF(set);
    return set == NULL ? -1 : 0;
}

/* For methods; NULL with an exception. */
azs_operation *
azs_operation_of_self(PyObject *future)
{
    azs_operation *op = azs_operation_of(future);
    if (op->st == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "the operation is not initialised");
        return NULL;
    }
    if (azs_operation_check_thread(op) < 0)
        return NULL;
    return op;
}

/* The same for an operation that somebody looks at. */
azs_operation *
azs_operation_real_of_self(PyObject *future)
{
    azs_operation *op = azs_operation_of_self(future);
    return op == NULL || azs_operation_make_real(op) < 0 ? NULL : op;
}

/* ---- the message ---- */

/* Nobody can get the message any more: it is the socket's again. 0 or -1. */
int
azs_operation_give_back(azs_operation *op)
{
    AsyncSocketObject *core = op->core;
    azs_stashed item = {op->number, op->message, op->more};
    if (item.message == NULL || core == NULL)
        return 0;
    /* It leaves the operation first: a buffer of the user's may come here again. */
    op->core = NULL;
    op->message = NULL;
    op->returned = true;
    int res = 0;
    if (op->kind == AZS_RECV_INTO) {
        PyObject *args = op->args;
        op->args = NULL;
        item.message = azs_async_bytes_of_buffer_steal(item.message, args);
    }
    if (item.message == NULL)
        res = -1;
    else if (core->handle == NULL)
        Py_DECREF(item.message); /* closed, and its stash dropped */
    else
        res = azs_stash_put_steal(&core->stash, item);
    if (res == 0)
        res = azs_async_arm(core);
    Py_DECREF(core);
    return res;
}

/* ---- the end ---- */

/* Lets go of what only an operation in progress needs. */
static void
drop_request(azs_operation *op)
{
    if (azs_likely(op->owner == NULL && op->call == NULL)) {
        if (!azs_operation_is_receive(op) || op->message == NULL)
            azs_operation_take(op);
        return; /* it never waited */
    }
    PyObject *owner = op->owner, *timer = op->timer, *call = op->call;
    PyObject *args = NULL, *kwargs = op->kwargs;
    op->owner = op->timer = op->call = op->kwargs = NULL;
    if (op->kind != AZS_RECV_INTO ||
        op->message == NULL) { /* see azs_operation_give_back() */
        args = op->args;
        op->args = NULL;
    }
    if (!azs_operation_is_receive(op) || op->message == NULL)
        azs_operation_take(op);
    if (timer != NULL) {
        PyObject *exc = PyErr_Occurred() ? azs_exc_take() : NULL;
        PyObject *res = PyObject_CallMethodNoArgs(timer, op->st->str_cancel);
        if (res == NULL)
            PyErr_WriteUnraisable(timer);
        Py_XDECREF(res);
        if (exc != NULL)
            azs_exc_restore_steal(exc);
        Py_DECREF(timer);
    }
    Py_XDECREF(owner);
    Py_XDECREF(call);
    Py_XDECREF(args);
    Py_XDECREF(kwargs);
}

/* The result, of which `message` may be the same. */
static void
keep_result(azs_operation *op, PyObject *result)
{
    if (result != op->message && result != Py_None)
        Py_XSETREF(op->result, Py_NewRef(result));
}

/* An exception was refused (StopIteration, before Python 3.12): the one that says so
 * takes its place, lest the Future stay pending. Keeps the current exception. */
static void
fail_instead(azs_operation *op)
{
    PyObject *exc = azs_exc_take();
    PyObject *args[] = {op->future, exc};
    PyObject *set = PyObject_Vectorcall(op->st->future_set_exception, args, 2, NULL);
    if (set == NULL)
        PyErr_Clear(); /* it is done, and a callback could not be scheduled */
    Py_XDECREF(set);
    azs_exc_restore_steal(exc);
}

/* Ends the operation with what asyncio.Future's own `method` gets: set_result or
 * set_exception. The caller holds a reference to the future. 0 or -1. */
int
azs_operation_end(azs_operation *op, PyObject *method, PyObject *arg)
{
    bool plain = !op->real && method == op->st->future_set_result;
    int res = 0;
    if (azs_likely(plain)) {
        keep_result(op, arg);
    } else if (azs_operation_make_real(op) < 0) {
        return -1;
    }
    op->done = true;
    azs_async_unqueue(op);
    if (azs_unlikely(!plain)) {
        PyObject *args[] = {op->future, arg};
        PyObject *set = PyObject_Vectorcall(method, args, 2, NULL);
        Py_XDECREF(set);
        res = set == NULL ? -1 : 0;
        if (azs_unlikely(res < 0) && method == op->st->future_set_exception)
            fail_instead(op);
    }
    drop_request(op);
    return azs_operation_wake_waits(op) < 0 ? -1 : res;
}

int
azs_operation_finish(azs_operation *op, PyObject *result)
{
    if (op->done)
        return 0;
    PyObject *future = Py_NewRef(op->future);
    int res = azs_operation_end(op, op->st->future_set_result, result);
    Py_DECREF(future);
    return res;
}

int
azs_operation_fail(azs_operation *op, PyObject *exc)
{
    if (op->done)
        return 0;
    PyObject *future = Py_NewRef(op->future);
    int res = azs_operation_end(op, op->st->future_set_exception, exc);
    Py_DECREF(future);
    return res;
}

/* After cancel() has failed: was it no more than that a callback could not be
 * scheduled? Keeps the current exception. */
static bool
is_cancelled(azs_operation *op)
{
    PyObject *exc = azs_exc_take();
    PyObject *args[] = {op->future};
    PyObject *res = PyObject_Vectorcall(op->st->future_cancelled, args, 1, NULL);
    if (res == NULL)
        PyErr_Clear();
    Py_XDECREF(res);
    azs_exc_restore_steal(exc);
    return res == Py_True;
}

/* cancel(*args, **kwargs) of asyncio.Future: what it returned. */
PyObject *
azs_operation_cancel(azs_operation *op, PyObject *const *args, Py_ssize_t nargs,
                     PyObject *kwnames)
{
    if (azs_operation_make_real(op) < 0)
        return NULL;
    PyObject *res =
        PyObject_Vectorcall(op->st->future_cancel, args, (size_t)nargs, kwnames);
    if (res == Py_False || op->done || (res == NULL && !is_cancelled(op)))
        return res;
    op->done = true;
    azs_async_unqueue(op);
    drop_request(op);
    if (azs_operation_wake_waits(op) < 0)
        Py_CLEAR(res);
    return res;
}

/* cancel(), whatever it returns. 0 or -1. */
int
azs_operation_cancel_quietly(azs_operation *op)
{
    PyObject *args[] = {op->future};
    PyObject *res = azs_operation_cancel(op, args, 1, NULL);
    Py_XDECREF(res);
    return res == NULL ? -1 : 0;
}

int
azs_operation_receive_steal(azs_operation *op, PyObject *message, uint64_t number,
                            bool more)
{
    PyObject *future = Py_NewRef(op->future);
    int res;
    assert(!op->done && op->core != NULL);
    op->message = message;
    op->number = number;
    op->more = more;
    if (azs_likely(op->load == NULL)) {
        res = azs_operation_end(op, op->st->future_set_result, message);
        if (res < 0) {
            PyObject *exc = azs_exc_take();
            if (azs_operation_give_back(op) < 0)
                PyErr_WriteUnraisable(future);
            azs_exc_restore_steal(exc);
        }
        Py_DECREF(future);
        return res;
    }
    /* The user's code: it may cancel this operation, or close the socket. */
    azs_async_unqueue(op);
    PyObject *load = Py_NewRef(op->load), *held = Py_NewRef(message);
    PyObject *value = PyObject_CallOneArg(load, held);
    Py_DECREF(load);
    Py_DECREF(held);
    if (op->done) { /* meanwhile */
        if (op->message != NULL && azs_operation_give_back(op) < 0)
            PyErr_WriteUnraisable(future);
        res = value == NULL ? -1 : 0;
        if (value == NULL && PyErr_ExceptionMatches(PyExc_Exception)) {
            PyErr_Clear();
            res = 0;
        }
    } else if (value != NULL) {
        res = azs_operation_end(op, op->st->future_set_result, value);
    } else if (PyErr_ExceptionMatches(PyExc_Exception)) {
        /* As pyzmq: who got a message that cannot be understood has got it. */
        PyObject *exc = azs_exc_take();
        azs_operation_take(op);
        res = azs_operation_end(op, op->st->future_set_exception, exc);
        Py_DECREF(exc);
    } else {
        PyObject *exc = azs_exc_take();
        if (azs_operation_give_back(op) < 0)
            PyErr_WriteUnraisable(future);
        if (azs_operation_cancel_quietly(op) < 0)
            PyErr_WriteUnraisable(future);
        azs_exc_restore_steal(exc);
        res = -1;
    }
    Py_XDECREF(value);
    Py_DECREF(future);
    return res;
}

/* ---- life ---- */

int
azs_operation_traverse(PyObject *self, visitproc visit, void *arg)
{
    PyTypeObject *base = Py_TYPE(self)->tp_base;
    /* A base that is a heap type visits the type (CPython 3.12). */
    if (!PyType_HasFeature(base, Py_TPFLAGS_HEAPTYPE))
        Py_VISIT(Py_TYPE(self));
    azs_operation *op = azs_operation_of(self);
    Py_VISIT(op->core);
    Py_VISIT(op->owner);
    Py_VISIT(op->message);
    Py_VISIT(op->result);
    Py_VISIT(op->loop_kwargs);
    Py_VISIT(op->load);
    Py_VISIT(op->call);
    Py_VISIT(op->args);
    Py_VISIT(op->kwargs);
    Py_VISIT(op->timer);
#ifdef Py_GIL_DISABLED
    Py_VISIT(op->loop);
#endif
    return base->tp_traverse(self, visit, arg);
}

static void
operation_drop(azs_operation *op)
{
    Py_CLEAR(op->core);
    Py_CLEAR(op->owner);
    Py_CLEAR(op->message);
    Py_CLEAR(op->result);
    Py_CLEAR(op->loop_kwargs);
    Py_CLEAR(op->load);
    Py_CLEAR(op->call);
    Py_CLEAR(op->args);
    Py_CLEAR(op->kwargs);
    Py_CLEAR(op->timer);
#ifdef Py_GIL_DISABLED
    op->own_loop = NULL;
    Py_CLEAR(op->loop);
#endif
}

int
azs_operation_clear(PyObject *self)
{
    azs_operation *op = azs_operation_of(self);
    op->done = true;
    azs_async_unqueue(op);
    operation_drop(op);
    return Py_TYPE(self)->tp_base->tp_clear(self);
}

bool
azs_operation_hand_on(azs_operation *op, PyObject *object, PyMethodDef *method)
{
#ifdef Py_GIL_DISABLED
    return azs_loop_hand_on_end(op->st, op->own_loop, op->loop, object, method);
#else
    AsyncSocketObject *core = op->core;
    return core != NULL && core->fork_generation == azs_fork_generation &&
           azs_loop_hand_on_end(op->st, core->own_loop, core->loop, object, method);
#endif
}

static PyObject *
Operation__give_back(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return azs_operation_give_back(azs_operation_of(self)) < 0 ? NULL
                                                               : Py_NewRef(Py_None);
}

static PyMethodDef give_back_method = {"_give_back", Operation__give_back, METH_NOARGS,
                                       NULL};

/* Before anything is taken apart: the message that nobody took goes back. */
void
azs_operation_finalize(PyObject *self)
{
    PyObject *exc = PyErr_Occurred() ? azs_exc_take() : NULL;
    azs_operation *op = azs_operation_of(self);
    if (op->st != NULL && op->done && azs_operation_is_receive(op) &&
        op->message != NULL && !azs_operation_hand_on(op, self, &give_back_method) &&
        azs_operation_give_back(op) < 0)
        PyErr_WriteUnraisable(self);
    destructor base = Py_TYPE(self)->tp_base->tp_finalize;
    if (base != NULL && op->real)
        base(self);
    if (exc != NULL)
        azs_exc_restore_steal(exc);
}

/* The end of one that nobody ever looked at: its base has nothing to take apart. */
static void
dealloc_unreal(PyObject *self, azs_operation *op)
{
    azs_state *st = op->st;
    PyObject *loop = NULL; /* has the list */
    LoopObject *own_loop = NULL;
#ifdef Py_GIL_DISABLED
    loop = op->loop;
    own_loop = op->own_loop;
    op->loop = NULL;
#endif
    PyObject_ClearWeakRefs(self);
    operation_drop(op);
    AZS_LIVE(st, zmq_operation, -1);
    *op = (azs_operation){.future = self};
    /* One that was finalized would not be again in its next life. */
    if (PyObject_GC_IsFinalized(self) ||
        !azs_freelist_keep(azs_loop_freelist(st, own_loop, operations), self))
        AZS_DEALLOC_FREE(self);
    Py_XDECREF(loop);
    azs_state_release(st);
}

/* The end of one that is an asyncio.Future by its fields, too. */
static void
dealloc_real(PyObject *self, azs_operation *op)
{
    PyTypeObject *type = Py_TYPE(self), *base = type->tp_base;
    azs_state *st = op->st;
    operation_drop(op);
    op->st = NULL;
    /* A base that is a heap type drops the reference to the type (CPython 3.12). */
    bool drops_type = PyType_HasFeature(base, Py_TPFLAGS_HEAPTYPE);
    base->tp_dealloc(self);
    if (!drops_type)
        Py_DECREF(type);
    if (st != NULL) {
        AZS_LIVE(st, zmq_operation, -1);
        azs_state_release(st);
    }
}

void
azs_operation_dealloc(PyObject *self)
{
    azs_operation *op = azs_operation_of(self);
    if ((op->real || op->message != NULL) &&
        PyObject_CallFinalizerFromDealloc(self) < 0)
        return;
    assert(op->waits == NULL && !op->queued);
    AZS_DEALLOC_BEGIN(self, azs_operation_dealloc) /* the result may be another one */
    if (azs_likely(op->st != NULL && !op->real))
        dealloc_unreal(self, op);
    else
        dealloc_real(self, op);
    AZS_DEALLOC_END
}
