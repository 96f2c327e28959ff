/* The operations that wait, and the turn that serves them. */
#include "zmq/awaitable/operation.h"

#include <errno.h>

#include "py/errors.h"

/* A turn of the loop receives no more than this at once. */
enum { BUDGET_MESSAGES = 128, BUDGET_BYTES = 1024 * 1024 };

enum { ZMQ_RCVTIMEO = 27, ZMQ_SNDTIMEO = 28 };

static void
enqueue(AsyncSocketObject *self, azs_operation *op)
{
    azs_operation_queue *queue = azs_async_queue(self, op);
    op->prev = queue->last;
    op->next = NULL;
    if (queue->last != NULL)
        queue->last->next = op;
    else
        queue->first = op;
    queue->last = op;
    queue->count++;
    op->queued = true;
    Py_INCREF(op->future);
}

/* ---- failing ---- */

/* Ends `op` with the current exception, or that of libzmq's `err`. 0 or -1. */
static int
fail_operation(AsyncSocketObject *self, azs_operation *op, int err)
{
    PyObject *exc;
    if (err < 0) {
        /* What leaves the loop is not the operation's. */
        if (!PyErr_ExceptionMatches(PyExc_Exception))
            return -1;
        exc = azs_exc_take();
    } else {
        exc = azs_async_error(self->st, err);
        if (exc == NULL)
            return -1;
    }
    int res = azs_operation_fail(op, exc);
    Py_DECREF(exc);
    return res;
}

/* ---- timers ---- */

static int
start_timer(AsyncSocketObject *self, azs_operation *op, int option)
{
    int timeout_ms = -1;
    size_t size = sizeof(timeout_ms);
    if (azs_async_libzmq(self)->getsockopt(self->handle, option, &timeout_ms, &size) !=
            0 ||
        timeout_ms < 0)
        return 0;
    PyObject *loop = Py_NewRef(self->loop);
    PyObject *method = PyObject_GetAttrString(op->future, "_timed_out");
    if (method != NULL)
        op->timer =
            PyObject_CallMethod(loop, "call_later", "dO", timeout_ms * 1e-3, method);
    Py_XDECREF(method);
    Py_DECREF(loop);
    return op->timer == NULL ? -1 : 0;
}

/* Has `op` wait in line. 1; 0 where it has ended already; -1 with an exception. */
static int
wait_in_line(AsyncSocketObject *self, azs_operation *op, PyObject *owner, int option)
{
    op->owner = Py_NewRef(owner);
    if (start_timer(self, op, option) < 0)
        return -1;
    /* A foreign loop's code may have fired the timer, or closed the socket. */
    if (azs_unlikely(op->done)) {
        PyObject *timer = op->timer;
        op->timer = NULL;
        PyObject *res = PyObject_CallMethodNoArgs(timer, self->st->str_cancel);
        Py_XDECREF(res);
        Py_DECREF(timer);
        return res == NULL ? -1 : 0;
    }
    if (azs_unlikely(self->handle == NULL))
        return fail_operation(self, op, ENOTSOCK);
    enqueue(self, op);
    return 1;
}

/* ---- the operations ---- */

/* May a receive take something now, or is it the next turn's? */
static inline bool
within_budget(AsyncSocketObject *self)
{
    if (self->own_loop != NULL && self->received_turn != self->own_loop->stats.turns) {
        self->received_turn = self->own_loop->stats.turns;
        self->received = 0;
        self->received_bytes = 0;
    }
    return self->received < BUDGET_MESSAGES && self->received_bytes < BUDGET_BYTES;
}

static inline void
count_received(AsyncSocketObject *self, size_t size)
{
    self->received++;
    self->received_bytes += size;
}

PyObject *
azs_async_receive_steal(AsyncSocketObject *self, azs_operation *op, PyObject *owner)
{
    PyObject *future = op->future;
    if (azs_likely(self->receives.count == 0 && within_budget(self))) {
        azs_stashed item;
        size_t size;
        int err = azs_async_take(self, op, &item, &size);
        if (azs_likely(err == 0)) {
            count_received(self, size);
            if (azs_operation_receive_steal(op, item.message, item.number, item.more) <
                0)
                goto fail;
            /* It may have taken the word that there is room. */
            if (azs_unlikely(self->sends.count > 0 || self->polls != NULL ||
                             self->has_siblings) &&
                azs_async_arm(self) < 0)
                goto fail;
            return future;
        }
        if (err != EAGAIN) {
            if (fail_operation(self, op, err) < 0)
                goto fail;
            return future;
        }
    }
    int waits = wait_in_line(self, op, owner, ZMQ_RCVTIMEO);
    if (waits < 0)
        goto fail;
    if (waits == 0)
        return future;
    bool was_watched = azs_async_is_watched(self);
    if (azs_async_watch(self) < 0)
        goto fail_queued;
    /* A first look has been, unless it was not this one's turn. */
    if ((self->receives.count > 1 || self->sends.count > 0 || self->polls != NULL ||
         !was_watched || self->has_siblings || !within_budget(self)) &&
        azs_async_arm(self) < 0)
        goto fail_queued;
    return future;

fail_queued:
    azs_async_unqueue(op);
fail:
    Py_DECREF(future);
    return NULL;
}

PyObject *
azs_async_receive_now_steal(AsyncSocketObject *self, azs_operation *op)
{
    PyObject *future = op->future;
    azs_stashed item;
    size_t size;
    int err = azs_async_take(self, op, &item, &size);
    int res = err != 0 ? fail_operation(self, op, err)
                       : azs_operation_receive_steal(op, item.message, item.number,
                                                     item.more);
    if (res == 0)
        res = azs_async_arm(self);
    if (res < 0)
        Py_CLEAR(future);
    return future;
}

/* Sends bytes objects as one message. 0, libzmq's errno, or -1 with an exception. */
static int
send_parts(AsyncSocketObject *self, PyObject *const *parts, Py_ssize_t nparts)
{
    bool zero_copy = false;
    azs_zmq_release *release = self->st->zmq->release;
    int err = azs_zmq_send(azs_async_libzmq(self), self->handle, release, parts, nparts,
                           self->drops_rest, &zero_copy);
    if (azs_unlikely(err != 0))
        return err;
    if (self->own_loop != NULL)
        AZS_COUNT(&self->own_loop->stats.zmq_messages_sent, 1);
    if (azs_unlikely(zero_copy &&
                     azs_clock_ns() >=
                         AZS_ATOMIC_LOAD(&self->st->zmq->release_due_ns))) {
        PyObject *loop = Py_NewRef(self->loop);
        PyObject *res = PyObject_CallOneArg(self->st->zmq_async_watch_release, loop);
        if (res == NULL)
            PyErr_WriteUnraisable((PyObject *)self);
        Py_XDECREF(res);
        Py_DECREF(loop);
    }
    if (azs_unlikely(azs_zmq_release_ready(release)))
        azs_zmq_release_drain(release);
    return 0;
}

PyObject *
azs_async_send_at_once(AsyncSocketObject *self, PyObject *const *parts,
                       Py_ssize_t nparts)
{
    if (azs_unlikely(self->sends.count > 0))
        return NULL;
    int err = send_parts(self, parts, nparts);
    if (azs_unlikely(err != 0)) {
        if (err > 0 && err != EAGAIN)
            azs_async_raise(self->st, err);
        return NULL;
    }
    return azs_async_arm(self) < 0 ? NULL : azs_operation_new_sent(self);
}

/* Sends what `op` has. 0, libzmq's errno, or -1 with an exception; *result is new. */
static int
try_send(AsyncSocketObject *self, azs_operation *op, PyObject **result)
{
    if (azs_unlikely(self->handle == NULL))
        return ENOTSOCK;
    if (op->kind == AZS_SEND_CALL) {
        PyObject *call = Py_NewRef(op->call), *args = Py_NewRef(op->args);
        PyObject *kwargs = Py_NewRef(op->kwargs);
        *result = PyObject_Call(call, args, kwargs);
        Py_DECREF(call);
        Py_DECREF(args);
        Py_DECREF(kwargs);
        if (*result != NULL)
            return 0;
        if (!PyErr_ExceptionMatches(self->st->zmq_async_again))
            return -1;
        PyErr_Clear();
        return EAGAIN;
    }
    int err = send_parts(self, ((PyTupleObject *)op->message)->ob_item,
                         PyTuple_GET_SIZE(op->message));
    if (err == 0)
        *result = Py_NewRef(Py_None);
    return err;
}

PyObject *
azs_async_send_steal(AsyncSocketObject *self, azs_operation *op, PyObject *owner)
{
    PyObject *future = op->future;
    if (azs_likely(self->sends.count == 0)) {
        PyObject *result = NULL;
        int err = try_send(self, op, &result);
        if (azs_likely(err == 0)) {
            int res = azs_operation_finish(op, result);
            Py_DECREF(result);
            if (res < 0 || azs_async_arm(self) < 0)
                goto fail;
            return future;
        }
        if (err != EAGAIN) {
            if (fail_operation(self, op, err) < 0)
                goto fail;
            return future;
        }
    }
    int waits = wait_in_line(self, op, owner, ZMQ_SNDTIMEO);
    if (waits < 0)
        goto fail;
    if (waits == 0)
        return future;
    if (azs_async_watch(self) < 0 || azs_async_arm(self) < 0) {
        azs_async_unqueue(op);
        goto fail;
    }
    return future;
fail:
    Py_DECREF(future);
    return NULL;
}

PyObject *
azs_async_send_now_steal(AsyncSocketObject *self, azs_operation *op)
{
    PyObject *future = op->future, *result = NULL;
    int err = try_send(self, op, &result);
    int res =
        err != 0 ? fail_operation(self, op, err) : azs_operation_finish(op, result);
    Py_XDECREF(result);
    if (res == 0)
        res = azs_async_arm(self);
    if (res < 0)
        Py_CLEAR(future);
    return future;
}

/* ---- the turn ---- */

/* Serves those who wait for messages. 1 where there may be more, 0, or -1. */
static int
serve_receives(AsyncSocketObject *self)
{
    self->received = 0;
    self->received_bytes = 0;
    if (self->own_loop != NULL)
        self->received_turn = self->own_loop->stats.turns;
    azs_operation *op;
    while ((op = self->receives.first) != NULL) {
        PyObject *future = Py_NewRef(op->future);
        int res = 0;
        if (azs_operation_is_abandoned(op)) {
            PyObject *cancelled =
                PyObject_CallMethodNoArgs(future, self->st->str_cancel);
            res = cancelled == NULL ? -1 : 0;
            Py_XDECREF(cancelled);
            azs_async_unqueue(op);
        } else if (!within_budget(self)) {
            Py_DECREF(future);
            return 1;
        } else {
            azs_stashed item;
            size_t size;
            int err = azs_async_take(self, op, &item, &size);
            if (err == EAGAIN) {
                Py_DECREF(future);
                return 0;
            }
            if (err == 0) {
                count_received(self, size);
                res = azs_operation_receive_steal(op, item.message, item.number,
                                                  item.more);
            } else {
                res = fail_operation(self, op, err);
            }
        }
        Py_DECREF(future);
        if (res < 0)
            return -1;
    }
    return 0;
}

/* The same for sends: 1 where libzmq said that there is no room. */
static int
serve_sends(AsyncSocketObject *self)
{
    azs_operation *op;
    while ((op = self->sends.first) != NULL) {
        PyObject *future = Py_NewRef(op->future), *result = NULL;
        int res = 0;
        if (azs_operation_is_abandoned(op)) {
            PyObject *cancelled =
                PyObject_CallMethodNoArgs(future, self->st->str_cancel);
            res = cancelled == NULL ? -1 : 0;
            Py_XDECREF(cancelled);
            azs_async_unqueue(op);
        } else {
            int err = try_send(self, op, &result);
            if (err == EAGAIN) {
                Py_DECREF(future);
                return 1;
            }
            res = err == 0 ? azs_operation_finish(op, result)
                           : fail_operation(self, op, err);
            Py_XDECREF(result);
        }
        Py_DECREF(future);
        if (res < 0)
            return -1;
    }
    return 0;
}

/* Tells those who poll. 0 or -1. */
static int
serve_polls(AsyncSocketObject *self, int events)
{
    PyObject *polls = Py_NewRef(self->polls);
    int res = 0;
    for (Py_ssize_t i = 0; res == 0 && i < PyList_GET_SIZE(polls);) {
        PyObject *entry = Py_NewRef(PyList_GET_ITEM(polls, i));
        PyObject *future = PyTuple_GET_ITEM(entry, 0);
        int wanted = (int)PyLong_AsLong(PyTuple_GET_ITEM(entry, 1));
        PyObject *done = PyObject_CallMethodNoArgs(future, self->st->str_done);
        bool is_done = done == Py_True;
        Py_XDECREF(done);
        if (done == NULL)
            res = -1;
        if (res == 0 && !is_done && !(wanted & events)) {
            Py_DECREF(entry);
            i++;
            continue;
        }
        if (i < PyList_GET_SIZE(polls) && PyList_GET_ITEM(polls, i) == entry &&
            PyList_SetSlice(polls, i, i + 1, NULL) < 0)
            res = -1;
        if (res == 0 && !is_done) {
            PyObject *args[] = {future, Py_None};
            PyObject *told =
                PyObject_VectorcallMethod(self->st->str_set_result, args, 2, NULL);
            res = told == NULL ? -1 : 0;
            Py_XDECREF(told);
        }
        Py_DECREF(entry);
    }
    Py_DECREF(polls);
    return res;
}

/* ZMQ_EVENTS with the stash's: 0 or more, or -1 with the errno set. */
static int
look(AsyncSocketObject *self)
{
    int events = 0;
    size_t size = sizeof(events);
    if (self->handle == NULL)
        return 0;
    if (azs_async_libzmq(self)->getsockopt(self->handle, ZMQ_EVENTS, &events, &size) !=
        0)
        return -1;
    return self->stash.count > 0 ? events | ZMQ_POLLIN : events;
}

/* Another try to send in a moment: libzmq says that there is room, and that there is
 * none, for a type whose peers are not asked. 0 or -1. */
static int
schedule_retry(AsyncSocketObject *self)
{
    if (self->retry != NULL || self->loop == NULL)
        return 0;
    PyObject *on_retry = PyObject_GetAttrString((PyObject *)self, "_on_retry");
    if (on_retry == NULL)
        return -1;
    PyObject *loop = Py_NewRef(self->loop);
    PyObject *retry = PyObject_CallMethod(loop, "call_later", "dO", 0.002, on_retry);
    Py_DECREF(on_retry);
    bool is_left = self->loop != loop; /* the user's code has closed the socket */
    Py_DECREF(loop);
    if (retry == NULL)
        return -1;
    if (is_left)
        Py_DECREF(retry);
    else
        Py_XSETREF(self->retry, retry);
    return 0;
}

static int
serve(AsyncSocketObject *self)
{
    bool waited = azs_async_anything_waits(self);
    int more = serve_receives(self);
    if (more < 0)
        return -1;
    int full = serve_sends(self);
    if (full < 0)
        return -1;
    /* Who waits next tries first, and so looks. A turn that nobody waited for is
     * libzmq's for commands that nobody has taken: the look does, or it would go on. */
    if (waited && !azs_async_anything_waits(self) && !self->has_siblings)
        return 0;
    int events = look(self);
    if (azs_unlikely(self->has_siblings) &&
        azs_async_arm_siblings(self, events < 0 ? ZMQ_POLLIN | ZMQ_POLLOUT : events) <
            0)
        return -1;
    if (events < 0) {
        /* The context is terminated, say: each finds out. */
        if (self->receives.count > 0 || self->sends.count > 0)
            return 1;
        if (!azs_async_has_polls(self))
            return 0;
        events = ZMQ_POLLIN | ZMQ_POLLOUT;
    }
    if (azs_async_has_polls(self) && serve_polls(self, events) < 0)
        return -1;
    if (more || (self->receives.count > 0 && (events & ZMQ_POLLIN)))
        return 1;
    if (self->sends.count > 0 && (events & ZMQ_POLLOUT)) {
        if (!full || !self->pollout_constant)
            return 1;
        /* The look may have taken the word that there is room again. */
        full = serve_sends(self);
        if (full < 0)
            return -1;
        return full ? schedule_retry(self) : self->receives.count > 0;
    }
    return 0;
}

int
azs_async_turn(AsyncSocketObject *self)
{
    if (self->in_turn || self->handle == NULL || self->loop == NULL ||
        self->fork_generation != azs_fork_generation)
        return 0;
    self->in_turn = true;
    self->looks_again = false;
    int res = serve(self);
    self->in_turn = false;
    if (azs_likely(res == 0 && !self->looks_again))
        return self->woken == NULL ? 0 : azs_async_run_woken(self);
    PyObject *exc = res < 0 ? azs_exc_take() : NULL;
    for (int step = 0; step < 2; step++) {
        int err = step == 0             ? azs_async_arm(self)
                  : self->woken != NULL ? azs_async_run_woken(self)
                                        : 0;
        if (err < 0 && exc == NULL)
            exc = azs_exc_take();
        else if (err < 0)
            PyErr_Clear();
    }
    if (exc == NULL)
        return 0;
    azs_exc_restore_steal(exc);
    return -1;
}
