/* The message path of ZmqTransport: what it asks of its engine, and what it tells its
 * protocol. */
#include "zmq/zmq_transport.h"

#include "py/containers.h"
#include "py/errors.h"
#include "zmq/monitor.h"

/* A turn ends after this many messages or bytes, the frames' overhead among them: a
 * flood must not keep the rest of the loop waiting. */
enum { BUDGET_MESSAGES = 128, BUDGET_BYTES = 1024 * 1024 };

#define READ_ERROR  "Fatal read error on zmq socket transport"
#define WRITE_ERROR "Fatal write error on zmq socket transport"

static inline bool
is_watched(const ZmqTransportObject *self)
{
    return self->loop != NULL && self->watched;
}

/* Outside a turn the socket was used: the next one looks, where the engine's
 * descriptor may have been silenced by that. 0, or -1 with an exception. */
static inline int
look_after_call(ZmqTransportObject *self)
{
    return self->can_receive && self->socket.look_after_calls
               ? azs_zmq_transport_arm(self)
               : 0;
}

int
azs_zmq_transport_arm(ZmqTransportObject *self)
{
    if (self->in_turn || self->armed || !is_watched(self))
        return 0;
    if (azs_likely(self->own_loop != NULL))
        return azs_watcher_post(self->own_loop, &self->watcher, EPOLLIN);
    PyObject *loop = Py_NewRef(self->loop); /* its code may end us, or run the turn */
    PyObject *on_armed = PyObject_GetAttr((PyObject *)self, self->st->str__on_armed);
    PyObject *handle = NULL;
    self->armed = true;
    if (on_armed != NULL) {
        PyObject *args[] = {loop, on_armed};
        handle = PyObject_VectorcallMethod(self->st->str_call_soon, args, 2, NULL);
        Py_DECREF(on_armed);
    }
    Py_DECREF(loop);
    if (handle == NULL) {
        self->armed = false;
        return azs_zmq_transport_forgive_closed_loop(self);
    }
    Py_DECREF(handle);
    return 0;
}

/* A method of the protocol args[0]; our own loop's debug mode tells of a slow one. */
static inline PyObject *
call_protocol(ZmqTransportObject *self, PyObject *name, PyObject *const *args,
              size_t nargs)
{
    return self->own_loop != NULL
               ? azs_loop_call_protocol(self->own_loop, name, args, nargs)
               : PyObject_VectorcallMethod(name, args, nargs, NULL);
}

/* ---- flow control ---- */

/* Calls the protocol's pause_writing or resume_writing; what it raises goes to
 * the exception handler with `failed` as the message. */
static int
call_flow_control(ZmqTransportObject *self, PyObject *name, const char *failed)
{
    if (self->protocol == NULL)
        return 0;
    PyObject *protocol = Py_NewRef(self->protocol);
    PyObject *res = call_protocol(self, name, &protocol, 1);
    Py_DECREF(protocol);
    if (res != NULL) {
        Py_DECREF(res);
        return 0;
    }
    if (!PyErr_ExceptionMatches(PyExc_Exception))
        return -1;
    PyObject *exc = azs_exc_take();
    int err = azs_zmq_transport_report(self, failed, exc);
    Py_DECREF(exc);
    return err;
}

int
azs_zmq_transport_maybe_pause(ZmqTransportObject *self)
{
    if (!azs_flow_grew(&self->flow, (size_t)self->queue_bytes))
        return 0;
    return call_flow_control(self, self->st->str_pause_writing,
                             "protocol.pause_writing() failed");
}

static int
maybe_resume(ZmqTransportObject *self)
{
    if (azs_likely(!azs_flow_shrank(&self->flow, (size_t)self->queue_bytes)))
        return 0;
    return call_flow_control(self, self->st->str_resume_writing,
                             "protocol.resume_writing() failed");
}

/* ---- the queue ---- */

static inline PyObject *const *
tuple_items(PyObject *tuple)
{
    return ((PyTupleObject *)tuple)->ob_item;
}

void
azs_zmq_transport_clear_queue(ZmqTransportObject *self)
{
    /* A finalizer may write: what comes then is no part of this queue. */
    azs_ring dropped = self->queue;
    memset(&self->queue, 0, sizeof(self->queue));
    self->queue_bytes = 0;
    while (dropped.count > 0)
        Py_DECREF((PyObject *)azs_ring_pop(&dropped));
    azs_ring_free(&dropped);
}

/* Steals `message`, a tuple of bytes. 0, or -1 with MemoryError. */
static int
queue_push_steal(ZmqTransportObject *self, PyObject *message, Py_ssize_t size)
{
    if (self->queue.slots == NULL && azs_ring_init(&self->queue, 16) < 0) {
        Py_DECREF(message);
        PyErr_NoMemory();
        return -1;
    }
    if (azs_ring_push(&self->queue, (uintptr_t)message) < 0) {
        Py_DECREF(message);
        PyErr_NoMemory();
        return -1;
    }
    self->queue_bytes += size;
    return 0;
}

/* ---- one turn ---- */

typedef enum {
    FAILED = -1, /* an exception is set */
    SETTLED,     /* nothing to do, and the engine will tell of the next thing */
    UNSETTLED,   /* commands may have been taken without a look: recheck */
    MORE,        /* certainly more to do */
} outcome;

/* The errno of a call on the socket becomes the transport's end. */
static outcome
fail_with_errno(ZmqTransportObject *self, int err, const char *message)
{
    if (err > 0)
        azs_zmq_set_error(self->st, err);
    return azs_zmq_transport_fatal(self, message) < 0 ? FAILED : SETTLED;
}

/* The user closed the socket: reported once, as the end of the transport. */
static outcome
fail_closed(ZmqTransportObject *self, const char *message)
{
    return fail_with_errno(self, ENOTSOCK, message);
}

/* Errors of sending that concern one message, not the socket: a peer that is
 * not there (ZMQ_ROUTER_MANDATORY, STREAM), several frames where the type has one, a
 * request or an answer out of turn. */
static inline bool
is_message_error(int err)
{
    return err == EHOSTUNREACH || err == EINVAL || err == AZS_ZMQ_EFSM;
}

/* Tells the loop's exception handler of `message`, a tuple, that the engine refused for
 * `err`. 0, or -1 with what the handler raised. */
static int
report_refused(ZmqTransportObject *self, int err, PyObject *message)
{
    azs_zmq_set_error(self->st, err);
    PyObject *exc = azs_exc_take();
    PyObject *args[] = {(PyObject *)self, exc, message};
    PyObject *res =
        PyObject_VectorcallMethod(self->st->str__report_refused, args, 3, NULL);
    Py_DECREF(exc);
    if (res == NULL)
        return -1;
    Py_DECREF(res);
    return 0;
}

/* Hands `message` to the protocol: what that returned, or NULL with an exception.
 * It may do anything: close, abort, pause, close the zmq socket, replace itself,
 * run this loop's callbacks. */
static PyObject *
deliver(ZmqTransportObject *self, PyObject *message)
{
    PyObject *protocol = Py_NewRef(self->protocol), *event = NULL, *result = NULL;
    PyObject *name = self->st->str_msg_received;
    if (azs_unlikely(self->event_type != NULL)) {
        PyObject *event_type = Py_NewRef(self->event_type);
        event = azs_zmq_event_new(event_type, message);
        Py_DECREF(event_type);
        if (event == NULL)
            goto done;
        name = self->st->str_event_received;
    }
    PyObject *args[] = {protocol, event != NULL ? event : message};
    result = call_protocol(self, name, args, 2);
done:
    Py_XDECREF(event);
    Py_DECREF(protocol);
    return result;
}

/* Receives by budget, handing each message to the protocol. */
static outcome
drain(ZmqTransportObject *self)
{
    size_t bytes = 0;
    bool looked_later = self->looks_later;
    self->looks_later = false;
    for (int n = 0; n < BUDGET_MESSAGES && bytes < BUDGET_BYTES; n++) {
        int usable = azs_zmq_transport_usable(self);
        if (azs_unlikely(usable <= 0))
            return usable < 0 ? FAILED : fail_closed(self, READ_ERROR);
        PyObject *message;
        azs_spare lent;
        size_t size;
        int err = self->socket.engine->recv(
            &self->socket, azs_zmq_transport_spare(self), &message, &size, &lent);
        if (err != 0) {
            if (azs_likely(err == EAGAIN)) {
                if (n > 0)
                    self->one_by_one =
                        n == 1 && !looked_later && self->socket.look_after_calls;
                return SETTLED;
            }
            if (err == AZS_ZMQ_EFSM)
                return UNSETTLED; /* a REQ without a request out, say */
            if (err == EINTR)
                return MORE;
            return fail_with_errno(self, err, READ_ERROR);
        }
        bytes += size;
        self->wrote = false;
        if (azs_likely(self->own_loop != NULL))
            AZS_COUNT(&self->own_loop->stats.zmq_messages_received, 1);
        if (azs_unlikely(self->protocol == NULL)) { /* a finalizer ended us */
            Py_DECREF(message);
            Py_XDECREF(lent.bytes);
            return UNSETTLED;
        }
        PyObject *res = deliver(self, message);
        if (self->socket.engine->recycle != NULL)
            self->socket.engine->recycle(&self->socket, message);
        else
            Py_DECREF(message);
        if (azs_unlikely(lent.bytes != NULL))
            azs_spare_give(azs_zmq_transport_spare(self), lent.bytes, lent.capacity);
        if (azs_unlikely(res == NULL))
            return FAILED;
        Py_DECREF(res);
        if (azs_unlikely(self->paused || self->closing || self->protocol == NULL))
            return UNSETTLED;
        /* A message that was not answered at once is a task's, which is woken by now
         * and answers in a moment: that write would have us look again. So where
         * messages come one by one, one look after it is enough, and saves a system
         * call. */
        if (self->one_by_one && !self->wrote && !looked_later) {
            self->looks_later = true;
            return MORE;
        }
    }
    return MORE;
}

/* Sends what waits, by budget. */
static outcome
flush(ZmqTransportObject *self)
{
    Py_ssize_t bytes = 0;
    for (int n = 0; self->queue.count > 0; n++) {
        if (n >= BUDGET_MESSAGES || bytes >= BUDGET_BYTES)
            return MORE;
        int usable = azs_zmq_transport_usable(self);
        if (azs_unlikely(usable <= 0))
            return usable < 0 ? FAILED : fail_closed(self, WRITE_ERROR);
        PyObject *message = (PyObject *)azs_ring_at(&self->queue, 0);
        PyObject *const *parts = tuple_items(message);
        Py_ssize_t nparts = PyTuple_GET_SIZE(message);
        bool zero_copy = false;
        int err = self->socket.engine->send(&self->socket, parts, nparts, &zero_copy);
        if (err == EAGAIN)
            return UNSETTLED;
        if (err == EINTR)
            return MORE;
        if (err != 0 && !is_message_error(err))
            return fail_with_errno(self, err, WRITE_ERROR);
        azs_ring_pop(&self->queue);
        Py_ssize_t size = azs_zmq_message_size(parts, nparts);
        self->queue_bytes -= size;
        bytes += size;
        int reported = 0;
        if (azs_unlikely(err != 0))
            reported = report_refused(self, err, message);
        else if (azs_likely(self->own_loop != NULL))
            AZS_COUNT(&self->own_loop->stats.zmq_messages_sent, 1);
        Py_DECREF(message);
        if (reported < 0)
            return FAILED;
        /* Finalizers of the frames and resume_writing may abort or write. */
        if (zero_copy && azs_zmq_transport_watch_release(self) < 0)
            return FAILED;
        if (maybe_resume(self) < 0)
            return FAILED;
    }
    if (self->closing && self->conn_lost == 0 && azs_zmq_transport_lose(self, NULL) < 0)
        return FAILED;
    return UNSETTLED;
}

static inline bool
wants_messages(const ZmqTransportObject *self)
{
    return self->can_receive && !self->paused && !self->closing;
}

/* Asks the engine for messages after a call that may have silenced it. */
static outcome
recheck(ZmqTransportObject *self)
{
    int usable = azs_zmq_transport_usable(self);
    if (azs_unlikely(usable <= 0))
        return usable < 0 ? FAILED : fail_closed(self, READ_ERROR);
    int events = 0;
    int err = self->socket.engine->look(&self->socket, &events);
    if (err != 0)
        return err == EINTR ? MORE : fail_with_errno(self, err, READ_ERROR);
    if (events & ZMQ_POLLIN && wants_messages(self))
        return MORE;
    if (self->queue.count == 0)
        return SETTLED;
    if (!self->socket.out_is_constant)
        return events & ZMQ_POLLOUT ? MORE : SETTLED;
    /* The look may have taken the command that there is room. Only a send tells. */
    outcome sent = flush(self);
    if (sent != UNSETTLED || self->queue.count == 0)
        return sent == UNSETTLED ? MORE : sent;
    /* libzmq may have taken commands in that send, too, if it had not for a
     * millisecond: who looks once more takes the next one. So a timer does. */
    return azs_zmq_transport_schedule_retry(self) < 0 ? FAILED : SETTLED;
}

static outcome
receive_and_send(ZmqTransportObject *self)
{
    outcome result = UNSETTLED;
    if (azs_likely(wants_messages(self))) {
        result = drain(self);
        if (result == FAILED)
            return FAILED;
    }
    if (self->queue.count > 0 && self->conn_lost == 0) {
        outcome sent = flush(self);
        if (sent == FAILED || sent == MORE)
            return sent;
        if (result == SETTLED)
            result = UNSETTLED;
    }
    /* Whatever is wanted: a send looks for commands at most once a millisecond, and
     * until somebody takes them, those that tell of room keep ZMQ_FD readable. */
    if (result == UNSETTLED && is_watched(self))
        result = recheck(self);
    return result;
}

int
azs_zmq_transport_turn(ZmqTransportObject *self)
{
    if (azs_likely(self->socket.engine != NULL))
        self->socket.engine->collect(&self->socket); /* finalizers may run */
    /* A forked child shares the parent's epoll, but not its sockets. */
    if (self->in_turn || !is_watched(self) || self->protocol == NULL ||
        self->context == NULL || self->fork_generation != azs_fork_generation)
        return 0;
    PyObject *context = Py_NewRef(self->context);
    if (PyContext_Enter(context) < 0) {
        Py_DECREF(context);
        return -1;
    }
    self->in_turn = true;
    outcome result = receive_and_send(self);
    self->in_turn = false;
    PyObject *exc = result == FAILED ? azs_exc_take() : NULL;
    int err = PyContext_Exit(context);
    Py_DECREF(context);
    /* After an exception, too: the messages behind it are still to come. */
    if ((result == FAILED || result == MORE) && err == 0)
        err = azs_zmq_transport_arm(self);
    /* No turn to leave the look to: ZMQ_FD will not tell of what has come already. */
    if (err < 0 && self->looks_later) {
        PyObject *raised = azs_exc_take();
        self->looks_later = self->one_by_one = false;
        if (azs_zmq_transport_turn(self) < 0)
            PyErr_WriteUnraisable((PyObject *)self);
        azs_exc_restore_steal(raised);
    }
    if (exc != NULL) {
        if (err < 0)
            PyErr_Clear();
        azs_exc_restore_steal(exc);
        return -1;
    }
    return err;
}

/* ---- write ---- */

/* `data` as a new tuple of bytes objects; NULL with an exception. */
static PyObject *
normalize(PyObject *data)
{
    PyObject *given = PySequence_Tuple(data);
    if (given == NULL)
        return NULL;
    Py_ssize_t nparts = PyTuple_GET_SIZE(given);
    PyObject *message = PyTuple_New(nparts);
    if (message == NULL)
        goto fail;
    for (Py_ssize_t i = 0; i < nparts; i++) {
        PyObject *part = PyTuple_GET_ITEM(given, i);
        if (PyBytes_Check(part)) {
            Py_INCREF(part);
        } else if (PyByteArray_Check(part) || PyMemoryView_Check(part)) {
            /* A snapshot: the caller may change it afterwards. */
            part = PyBytes_FromObject(part);
            if (part == NULL)
                goto fail;
        } else {
            PyErr_Format(PyExc_TypeError,
                         "data argument must be iterable of byte-ish (%R)", data);
            goto fail;
        }
        PyTuple_SET_ITEM(message, i, part);
    }
    Py_DECREF(given);
    return message;
fail:
    Py_DECREF(given);
    Py_XDECREF(message);
    return NULL;
}

static inline bool
all_bytes(PyObject *const *parts, Py_ssize_t nparts)
{
    for (Py_ssize_t i = 0; i < nparts; i++) {
        if (!PyBytes_Check(parts[i]))
            return false;
    }
    return true;
}

/* A new tuple of borrowed items, which stay alive even where the collector, set
 * off by the tuple, has the caller's list changed. */
static PyObject *
tuple_of(PyObject *const *parts, Py_ssize_t nparts)
{
    PyObject **held = PyMem_New(PyObject *, (size_t)nparts);
    if (held == NULL)
        return PyErr_NoMemory();
    for (Py_ssize_t i = 0; i < nparts; i++)
        held[i] = Py_NewRef(parts[i]);
    PyObject *tuple = PyTuple_New(nparts);
    for (Py_ssize_t i = 0; i < nparts; i++) {
        if (tuple != NULL)
            PyTuple_SET_ITEM(tuple, i, held[i]);
        else
            Py_DECREF(held[i]);
    }
    PyMem_Free(held);
    return tuple;
}

/* Sends or queues. `owned` is `parts` as a tuple, or NULL where they are borrowed
 * from the caller's list: no Python code may run before they are sent or held. */
static int
write_parts(ZmqTransportObject *self, PyObject *const *parts, Py_ssize_t nparts,
            PyObject *owned)
{
    bool zero_copy = false;
    int refused = 0; /* an errno */
    self->wrote = true;
    if (azs_likely(self->queue.count == 0)) {
        int err = self->socket.engine->send(&self->socket, parts, nparts, &zero_copy);
        if (azs_likely(err == 0)) {
            if (azs_likely(self->own_loop != NULL))
                AZS_COUNT(&self->own_loop->stats.zmq_messages_sent, 1);
            if (look_after_call(self) < 0)
                return -1;
            return zero_copy ? azs_zmq_transport_watch_release(self) : 0;
        }
        if (err != EAGAIN && err != EINTR && !is_message_error(err))
            return fail_with_errno(self, err, WRITE_ERROR) == FAILED ? -1 : 0;
        if (is_message_error(err))
            refused = err;
    }
    Py_ssize_t size = azs_zmq_message_size(parts, nparts);
    PyObject *message = owned != NULL ? Py_NewRef(owned) : tuple_of(parts, nparts);
    if (message == NULL)
        return -1;
    if (azs_unlikely(refused != 0)) {
        int result = report_refused(self, refused, message);
        Py_DECREF(message);
        return result < 0 ? result : look_after_call(self);
    }
    if (azs_unlikely(self->conn_lost > 0 || self->loop == NULL)) {
        Py_DECREF(message); /* a finalizer, as tuple_of() collected, ended us */
        return 0;
    }
    if (queue_push_steal(self, message, size) < 0)
        return -1;
    if (look_after_call(self) < 0)
        return -1;
    return azs_zmq_transport_maybe_pause(self);
}

/* Writes after the end are counted, then logged: aiozmq's log message. */
static int
write_to_lost(ZmqTransportObject *self)
{
    if (self->conn_lost >= 5) {
        PyObject *res =
            PyObject_CallMethodNoArgs((PyObject *)self, self->st->str__warn_lost_write);
        if (res == NULL)
            return -1;
        Py_DECREF(res);
    }
    self->conn_lost++;
    return 0;
}

/* As write_parts(), if there is a connection. 0, or -1 with an exception. */
static int
write_if_open(ZmqTransportObject *self, PyObject *const *parts, Py_ssize_t nparts,
              PyObject *owned)
{
    if (azs_unlikely(self->fork_generation != azs_fork_generation)) {
        PyErr_SetString(PyExc_RuntimeError,
                        "the transport belongs to the parent process: "
                        "a forked child must create its own");
        return -1;
    }
    if (azs_unlikely(self->conn_lost > 0 || self->loop == NULL))
        return write_to_lost(self);
    /* What runs Python code is over: a list's items stay until they are sent. */
    int result = 0;
    int usable = azs_zmq_transport_usable(self);
    if (azs_likely(usable > 0))
        result = write_parts(self, parts, nparts, owned);
    else if (usable < 0 || fail_closed(self, WRITE_ERROR) == FAILED)
        result = -1;
    self->socket.engine->collect(&self->socket);
    return result;
}

int
azs_zmq_transport_write_frames(ZmqTransportObject *self, PyObject *const *frames,
                               Py_ssize_t nframes)
{
    return write_if_open(self, frames, nframes, NULL);
}

int
azs_zmq_transport_write(ZmqTransportObject *self, PyObject *data)
{
    PyObject *owned = NULL;
    PyObject *const *parts;
    Py_ssize_t nparts;
    if (azs_likely(PyList_CheckExact(data) && !azs_list_may_change(data))) {
        parts = ((PyListObject *)data)->ob_item;
        nparts = PyList_GET_SIZE(data);
    } else if (PyTuple_CheckExact(data)) {
        parts = tuple_items(data);
        nparts = PyTuple_GET_SIZE(data);
        owned = Py_NewRef(data);
    } else {
        int truth = PyObject_IsTrue(data);
        if (truth <= 0)
            return truth;
        owned = normalize(data);
        if (owned == NULL)
            return -1;
        parts = tuple_items(owned);
        nparts = PyTuple_GET_SIZE(owned);
    }
    int result = 0;
    if (nparts == 0)
        goto done;
    if (azs_unlikely(!all_bytes(parts, nparts))) {
        Py_XSETREF(owned, normalize(data));
        if (owned == NULL)
            return -1;
        parts = tuple_items(owned);
        nparts = PyTuple_GET_SIZE(owned);
    }
    result = write_if_open(self, parts, nparts, owned);
done:
    Py_XDECREF(owned);
    return result;
}
