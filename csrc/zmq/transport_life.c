/* The states of a ZmqTransport: watching its socket, closing, failing. */
#include "zmq/zmq_transport.h"

#include "loop/report.h"
#include "py/errors.h"

/* ---- small helpers ---- */

#ifdef Py_GIL_DISABLED
int
azs_zmq_transport_check_foreign(ZmqTransportObject *self)
{
    PyObject *loop;
    if (self->fork_generation != azs_fork_generation)
        return 0; /* a child has one thread */
    AZS_LOCKED(self);
    loop = Py_XNewRef(self->loop);
    AZS_UNLOCKED(self);
    int result = azs_loop_check_foreign_thread(self->st, loop);
    Py_XDECREF(loop);
    return result;
}
#endif

/* 1 where the transport's loop is closed, 0, or -1 with an exception. */
static int
loop_is_closed(ZmqTransportObject *self)
{
    if (self->loop == NULL)
        return 1;
    if (self->own_loop != NULL)
        return self->own_loop->closed;
    PyObject *loop = Py_NewRef(self->loop); /* its code may end us */
    PyObject *res = PyObject_CallMethod(loop, "is_closed", NULL);
    Py_DECREF(loop);
    if (res == NULL)
        return -1;
    int closed = PyObject_IsTrue(res);
    Py_DECREF(res);
    return closed;
}

int
azs_zmq_transport_forgive_closed_loop(ZmqTransportObject *self)
{
    if (!PyErr_ExceptionMatches(PyExc_RuntimeError))
        return -1;
    PyObject *exc = azs_exc_take();
    int closed = loop_is_closed(self);
    if (closed > 0) {
        Py_DECREF(exc);
        return 0;
    }
    if (closed < 0)
        PyErr_Clear();
    azs_exc_restore_steal(exc);
    return -1;
}

/* self.name(), discarding the result. 0, or -1. */
static int
call_own(ZmqTransportObject *self, PyObject *name)
{
    PyObject *res = PyObject_CallMethodNoArgs((PyObject *)self, name);
    if (res == NULL)
        return -1;
    Py_DECREF(res);
    return 0;
}

int
azs_zmq_transport_watch_release(ZmqTransportObject *self)
{
    int64_t due_ns = AZS_ATOMIC_LOAD(&self->st->zmq->release_due_ns);
    if (azs_clock_ns() < due_ns || self->loop == NULL)
        return 0;
    if (call_own(self, self->st->str__watch_release) < 0)
        return azs_zmq_transport_forgive_closed_loop(self);
    return 0;
}

int
azs_zmq_transport_schedule_retry(ZmqTransportObject *self)
{
    if (self->retry != NULL || self->loop == NULL)
        return 0;
    PyObject *retry =
        PyObject_CallMethodNoArgs((PyObject *)self, self->st->str__schedule_retry);
    if (retry == NULL)
        return -1;
    if (self->loop == NULL) /* ended meanwhile: the timer finds it dead */
        Py_DECREF(retry);
    else
        Py_XSETREF(self->retry, retry);
    return 0;
}

/* A close() that its buffer keeps waiting ends with the linger time. */
static int
schedule_linger(ZmqTransportObject *self)
{
    PyObject *linger =
        PyObject_CallMethodNoArgs((PyObject *)self, self->st->str__schedule_linger);
    if (linger == NULL)
        return azs_zmq_transport_forgive_closed_loop(self);
    if (self->loop == NULL) /* ended meanwhile: the timer finds it dead */
        Py_DECREF(linger);
    else
        Py_XSETREF(self->linger, linger);
    return 0;
}

/* ---- watching ---- */

/* Cancels the timer in *slot, where there is one. */
static void
cancel_timer(PyObject **slot)
{
    PyObject *timer = *slot;
    *slot = NULL;
    if (timer == NULL)
        return;
    if (timer != Py_None) {
        PyObject *res = PyObject_CallMethod(timer, "cancel", NULL);
        if (res == NULL)
            PyErr_WriteUnraisable(timer);
        Py_XDECREF(res);
    }
    Py_DECREF(timer);
}

/* Never fails: what a foreign loop raises is written off as unraisable. */
static void
stop_watching(ZmqTransportObject *self)
{
    bool watched = self->watched;
    self->watched = false;
    if (self->own_loop != NULL)
        azs_watcher_stop(self->own_loop, &self->watcher);
    cancel_timer(&self->retry);
    cancel_timer(&self->linger);
    if (!watched)
        return;
    if (self->socket.fd < 0) {
        self->socket.engine->unwatch(&self->socket);
    } else if (self->own_loop == NULL && self->loop != NULL &&
               self->fork_generation == azs_fork_generation) {
        /* (A forked child has its parent's epoll, and would end its parent's watch.) */
        PyObject *loop = Py_NewRef(self->loop);
        PyObject *res =
            PyObject_CallMethod(loop, "remove_reader", "i", self->socket.fd);
        Py_DECREF(loop);
        if (res == NULL && azs_zmq_transport_forgive_closed_loop(self) < 0)
            PyErr_WriteUnraisable((PyObject *)self);
        Py_XDECREF(res);
    }
}

static int
on_engine_ready(PyObject *owner)
{
    ZmqTransportObject *self = (ZmqTransportObject *)owner;
    int err = self->watcher.queued ? 0 : azs_zmq_transport_turn(self);
    return err < 0 ? -1 : self->watcher.queued;
}

static int
start_watching(ZmqTransportObject *self)
{
    if (self->socket.fd < 0) {
        if (self->socket.engine->watch(&self->socket, on_engine_ready,
                                       (PyObject *)self) < 0)
            return -1;
    } else if (self->own_loop != NULL) {
        if (azs_watcher_start(self->own_loop, &self->watcher, self->socket.fd,
                              EPOLLIN) < 0)
            return -1;
    } else {
        PyObject *loop = Py_NewRef(self->loop); /* its code may end us */
        PyObject *on_fd = PyObject_GetAttrString((PyObject *)self, "_on_fd");
        PyObject *res = NULL;
        if (on_fd != NULL)
            res = PyObject_CallMethod(loop, "add_reader", "iO", self->socket.fd, on_fd);
        Py_XDECREF(on_fd);
        Py_DECREF(loop);
        if (res == NULL)
            return -1;
        Py_DECREF(res);
        if (self->loop == NULL || self->conn_lost > 0)
            return 0; /* a hostile add_reader aborted us */
    }
    self->watched = true;
    /* What the socket received before does not show at its descriptor. */
    return azs_zmq_transport_arm(self);
}

int
azs_zmq_transport_start(ZmqTransportObject *self)
{
    if (self->loop == NULL || self->conn_lost > 0 || self->watched)
        return 0;
    if (start_watching(self) == 0)
        return 0;
    return azs_zmq_transport_fatal(
        self, "Fatal error on zmq socket transport: it cannot be watched");
}

int
azs_zmq_transport_replace(ZmqTransportObject *self, PyObject *object)
{
    if (self->loop == NULL || self->conn_lost > 0 || self->closing) {
        azs_zmq_set_error(self->st, ENOTSOCK);
        return -1;
    }
    azs_zmq_socket opened = {.st = self->st};
    int found = azs_libzmq_engine.open(&opened, object, self->socket.type);
    if (found <= 0) {
        if (found == 0)
            PyErr_SetString(PyExc_TypeError, "a socket of pyzmq is needed");
        return -1;
    }
    bool watched = self->watched;
    stop_watching(self);
    opened.tells_source = self->socket.tells_source;
    azs_zmq_socket before = self->socket;
    self->socket = opened;
    if (watched && start_watching(self) < 0) {
        PyObject *exc = azs_exc_take();
        stop_watching(self);
        self->socket = before;
        Py_DECREF(opened.object);
        if (start_watching(self) < 0)
            PyErr_WriteUnraisable((PyObject *)self);
        azs_exc_restore_steal(exc);
        return -1;
    }
    Py_XDECREF(before.object);
    return 0;
}

/* ---- ending ---- */

int
azs_zmq_transport_report(ZmqTransportObject *self, const char *message, PyObject *exc)
{
    if (self->loop == NULL)
        return 0;
    return azs_report_transport(self->st, self->loop, message, exc, (PyObject *)self,
                                self->protocol);
}

int
azs_zmq_transport_abandon(ZmqTransportObject *self)
{
    PyObject *zmq_sock, *protocol, *loop;
    stop_watching(self);
    self->told = true;
    AZS_ATOMIC_STORE(&self->closing, true);
    if (self->conn_lost == 0)
        self->conn_lost = 1;
    AZS_LOCKED(self); /* other threads ask for these */
    zmq_sock = self->socket.object;
    protocol = self->protocol;
    loop = self->loop;
    self->socket.handle = self->socket.object = NULL;
    self->protocol = self->loop = NULL;
    AZS_UNLOCKED(self);
    AZS_ATOMIC_STORE(&self->own_loop, NULL); /* last: they are let in from now on */
    int result = 0;
    /* The loop forgets us first: closing runs the user's code where the socket's
     * class is the user's. */
    if (loop != NULL) {
        PyObject *res = PyObject_CallMethod((PyObject *)self, "_unregister", "O", loop);
        if (res == NULL)
            result = -1;
        Py_XDECREF(res);
    }
    if (zmq_sock != NULL) {
        PyObject *raised = result < 0 ? azs_exc_take() : NULL;
        PyObject *res =
            PyObject_CallMethod((PyObject *)self, "_close_socket", "O", zmq_sock);
        if (res == NULL)
            result = -1;
        Py_XDECREF(res);
        if (raised != NULL) {
            PyErr_Clear();
            azs_exc_restore_steal(raised);
        }
    }
    azs_zmq_transport_clear_queue(self);
    Py_XDECREF(zmq_sock);
    Py_XDECREF(protocol);
    Py_XDECREF(loop);
    return result;
}

int
azs_zmq_transport_lose(ZmqTransportObject *self, PyObject *exc)
{
    self->conn_lost++;
    stop_watching(self);
    if (self->loop == NULL)
        return 0;
    PyObject *loop = Py_NewRef(self->loop); /* its code may end us */
    PyObject *res = NULL;
    PyObject *callback =
        PyObject_GetAttrString((PyObject *)self, "_call_connection_lost");
    if (callback != NULL) {
        PyObject *args[] = {loop, callback, exc == NULL ? Py_None : exc};
        res = PyObject_VectorcallMethod(self->st->str_call_soon, args, 3, NULL);
        Py_DECREF(callback);
    }
    Py_DECREF(loop);
    if (res != NULL) {
        Py_DECREF(res);
        return 0;
    }
    /* The loop is closed or out of memory: no callback will come, but the socket
     * must not stay open. */
    if (azs_zmq_transport_forgive_closed_loop(self) == 0)
        return azs_zmq_transport_abandon(self);
    PyObject *raised = azs_exc_take();
    if (azs_zmq_transport_abandon(self) < 0)
        PyErr_Clear();
    azs_exc_restore_steal(raised);
    return -1;
}

int
azs_zmq_transport_force_close(ZmqTransportObject *self, PyObject *exc)
{
    if (self->conn_lost > 0 || self->loop == NULL)
        return 0;
    if (call_own(self, self->st->str__disable_monitor) < 0)
        return -1;
    if (self->conn_lost > 0 || self->loop == NULL)
        return 0;
    AZS_ATOMIC_STORE(&self->closing, true);
    azs_zmq_transport_clear_queue(self);
    if (self->conn_lost > 0) /* a finalizer aborted */
        return 0;
    return azs_zmq_transport_lose(self, exc);
}

int
azs_zmq_transport_fatal(ZmqTransportObject *self, const char *message)
{
    PyObject *exc = azs_exc_take();
    if (self->conn_lost > 0) { /* reported once */
        Py_DECREF(exc);
        return 0;
    }
    int result = azs_zmq_transport_report(self, message, exc);
    if (result == 0) {
        result = azs_zmq_transport_force_close(self, exc);
    } else {
        /* What the exception handler raised goes out; the end comes first. */
        PyObject *raised = azs_exc_take();
        if (azs_zmq_transport_force_close(self, exc) < 0)
            PyErr_Clear();
        azs_exc_restore_steal(raised);
    }
    Py_DECREF(exc);
    return result;
}

int
azs_zmq_transport_close(ZmqTransportObject *self)
{
    if (self->closing || self->loop == NULL)
        return 0;
    AZS_ATOMIC_STORE(&self->closing, true);
    /* What that raises, Ctrl-C say, goes out; but it must not leave us closing for
     * ever. */
    PyObject *raised = NULL;
    if (call_own(self, self->st->str__disable_monitor) < 0)
        raised = azs_exc_take();
    int result = 0;
    if (self->conn_lost == 0 && self->loop != NULL)
        result = self->queue.count > 0 ? schedule_linger(self)
                                       : azs_zmq_transport_lose(self, NULL);
    if (raised == NULL)
        return result;
    if (result < 0)
        PyErr_Clear();
    azs_exc_restore_steal(raised);
    return -1;
}
