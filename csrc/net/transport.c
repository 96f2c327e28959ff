#include "net/transport.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "base/sys.h"
#include "loop/hand_on.h"
#include "loop/report.h"
#include "loop/waiter.h"
#include "net/server_clients.h"
#include "py/errors.h"
#include "py/type.h"

/* asyncio.constants.LOG_THRESHOLD_FOR_CONNLOST_WRITES */
enum { CONNLOST_WRITES_THRESHOLD = 5 };

/* ---- making ---- */

static int transport_io(azs_watcher *watcher, uint32_t events);
static int transport_later(azs_watcher *watcher, uint32_t events);

static void
keep_inet_addr(azs_inet_addr *out, const struct sockaddr *sa, socklen_t len)
{
    if (len <= sizeof(out->in6)) {
        memcpy(&out->sa, sa, len);
        out->len = len;
    }
}

/* Keeps an address, which the kernel is asked for where `known` is NULL. One that
 * is no inet address is put into `extra` at once: it may be long. */
static int
remember_addr(TransportObject *self, bool peer, const azs_addr *known)
{
    azs_addr asked;
    int res = 0;
    if (known == NULL) {
        asked.len = sizeof(asked.storage);
        res = peer ? getpeername(self->fd, &asked.sa, &asked.len)
                   : getsockname(self->fd, &asked.sa, &asked.len);
        known = &asked;
    }
    if (res == 0 &&
        (known->sa.sa_family == AF_INET || known->sa.sa_family == AF_INET6)) {
        keep_inet_addr(peer ? &self->peername : &self->sockname, &known->sa,
                       known->len);
        return 0;
    }
    PyObject *value;
    if (res < 0)
        value = Py_NewRef(Py_None); /* as asyncio: not connected, or no socket */
    else
        value = azs_addr_to_python(&known->sa, known->len);
    if (value == NULL)
        return -1;
    PyObject *extra = azs_transport_extra(self);
    res = extra == NULL
              ? -1
              : PyDict_SetItem(extra,
                               peer ? self->st->str_peername : self->st->str_sockname,
                               value);
    Py_DECREF(value);
    return res;
}

PyObject *
azs_transport_extra(TransportObject *self)
{
    if (self->extra == NULL) {
        /* Before Python 3.12 finalizers may run here, and have asked for it. */
        PyObject *extra = PyDict_New();
        if (self->extra == NULL)
            self->extra = extra;
        else
            Py_XDECREF(extra);
    }
    return self->extra;
}

/* Calls a method of asyncio's Server. 0 or -1. */
static int
server_call(TransportObject *self, PyObject *server, PyObject *method)
{
    /* Server._attach and _detach take the transport since Python 3.13. */
    PyObject *args[] = {server, (PyObject *)self};
    PyObject *res = PyObject_VectorcallMethod(
        method, args, 1 + self->st->server_takes_transport, NULL);
    Py_XDECREF(res);
    return res == NULL ? -1 : 0;
}

/* The transport is no longer its server's. Keeps the current exception. */
static void
leave_server(TransportObject *self)
{
    if (self->server == NULL && self->clients == NULL)
        return;
    PyObject *exc = PyErr_Occurred() ? azs_exc_take() : NULL;
    PyObject *server = self->server;
    self->server = NULL;
    int res = server != NULL ? server_call(self, server, self->st->str__detach)
                             : azs_clients_detach(self);
    if (res < 0)
        PyErr_WriteUnraisable(server != NULL ? server : (PyObject *)self);
    Py_XDECREF(server);
    if (exc != NULL)
        azs_exc_restore_steal(exc);
}

static PyObject *
not_none(PyObject *obj)
{
    return obj == Py_None ? NULL : obj;
}

int
azs_transport_check_extra(PyObject *extra)
{
    if (PyDict_Check(extra) || extra == Py_None)
        return 0;
    PyErr_Format(PyExc_TypeError, "extra must be a dict, not %.200s",
                 Py_TYPE(extra)->tp_name);
    return -1;
}

TransportObject *
azs_transport_new(const azs_transport_args *args)
{
    TransportObject *self = NULL;
    if (azs_loop_check_usable(args->loop) < 0)
        goto fail;
    self = (TransportObject *)azs_type_alloc(args->type);
    if (self == NULL)
        goto fail;
    self->st = args->loop->st;
    self->ops = args->ops;
    self->loop = (LoopObject *)Py_NewRef(args->loop);
    self->fd = args->fd;
    self->sock = Py_XNewRef(args->sock);
    self->dup_fd = -1;
    self->is_socket = args->is_socket;
    self->input = args->input;
    self->flow.high = AZS_TRANSPORT_HIGH_WATER;
    self->flow.low = AZS_TRANSPORT_HIGH_WATER / 4;
    azs_watcher_init(&self->io, (PyObject *)self, transport_io);
    azs_watcher_init(&self->later, (PyObject *)self, transport_later);
    AZS_LIVE(self->st, transport, 1);
    /* Until the server knows it, a failure leaves a transport that is gone. */
    self->gone = self->closing = true;
    self->protocol = Py_NewRef(args->protocol);
    self->context =
        args->context != NULL ? Py_NewRef(args->context) : PyContext_CopyCurrent();
    PyObject *extra = args->extra == NULL ? NULL : not_none(args->extra);
    if (extra != NULL && azs_transport_check_extra(extra) < 0)
        goto fail;
    self->extra = Py_XNewRef(extra);
    if (self->context == NULL)
        goto fail;
    self->waiter = args->waiter == NULL ? NULL : Py_XNewRef(not_none(args->waiter));
    if (self->is_socket) {
        int has_peer =
            extra == NULL ? 0 : PyDict_Contains(extra, self->st->str_peername);
        if (has_peer < 0 || remember_addr(self, false, args->sockname) < 0 ||
            (!has_peer && remember_addr(self, true, args->peer) < 0))
            goto fail;
    }
    PyObject *server = args->server == NULL ? NULL : not_none(args->server);
    if (args->clients != NULL)
        azs_clients_attach(args->clients, self);
    else if (server != NULL && server_call(self, server, self->st->str__attach) < 0)
        goto fail;
    else
        self->server = Py_XNewRef(server);
    self->gone = self->closing = false;
    (void)AZS_ATOMIC_ADD(&self->loop->stats.transports, 1);
    AZS_COUNT(&self->loop->stats.transports_made, 1);
    if (azs_watcher_post(self->loop, &self->later, AZS_LATER_MADE) < 0) {
        leave_server(self);
        self->gone = self->closing = true;
        (void)AZS_ATOMIC_ADD(&self->loop->stats.transports, -1);
        goto fail;
    }
    return self;

fail:
    if (args->sock == NULL)
        azs_sys_close(args->fd);
    if (self != NULL)
        self->fd = -1;
    Py_XDECREF(self);
    return NULL;
}

void
azs_transport_unmake(TransportObject *self)
{
    PyObject *exc = azs_exc_take();
    /* The protocol may have found it, closed it and run the loop. */
    if (!self->gone)
        (void)AZS_ATOMIC_ADD(&self->loop->stats.transports, -1);
    AZS_ATOMIC_STORE(&self->closing, true);
    AZS_ATOMIC_STORE(&self->gone, true);
    AZS_COUNT(&self->loop->stats.transports_made, -1);
    azs_watcher_stop(self->loop, &self->io);
    azs_sys_close(self->dup_fd);
    if (self->sock == NULL)
        azs_sys_close(self->fd);
    AZS_SET(&self->fd, -1);
    self->dup_fd = -1;
    leave_server(self);
    azs_exc_restore_steal(exc);
}

PyObject *
azs_transport_by_asyncio(LoopObject *loop, const char *method, PyObject *args,
                         PyObject *kwargs)
{
    PyObject *func = PyObject_GetAttrString(loop->st->selector_event_loop, method);
    PyObject *first = PyTuple_Pack(1, loop);
    PyObject *all = first == NULL ? NULL : PySequence_Concat(first, args);
    Py_XDECREF(first);
    PyObject *res =
        func == NULL || all == NULL ? NULL : PyObject_Call(func, all, kwargs);
    Py_XDECREF(all);
    Py_XDECREF(func);
    return res;
}

/* ---- watching ---- */

/* Has the loop watch for `interest`. 0 or -1. */
static int
watch(TransportObject *self, uint32_t interest)
{
    if (self->io.fd >= 0)
        return azs_watcher_modify(self->loop, &self->io, interest);
    if (interest == 0 || self->gone || self->lost_posted)
        return 0;
    /* One terminal may have a reading and a writing transport: epoll takes each
     * descriptor once, but a duplicate is another. */
    if (self->dup_fd < 0 && azs_poller_owner(&self->loop->poller, self->fd) != NULL) {
        self->dup_fd = fcntl(self->fd, F_DUPFD_CLOEXEC, 0);
        if (self->dup_fd < 0)
            return azs_set_errno(-errno);
    }
    return azs_watcher_start(self->loop, &self->io,
                             self->dup_fd >= 0 ? self->dup_fd : self->fd, interest);
}

int
azs_transport_update_reading(TransportObject *self)
{
    bool want = self->reading && !self->paused && !self->closing;
    return watch(self, (self->io.interest & EPOLLOUT) | (want ? self->input : 0u));
}

int
azs_transport_want_write(TransportObject *self, bool want)
{
    return watch(self, (self->io.interest & ~(uint32_t)EPOLLOUT) |
                           (want ? (uint32_t)EPOLLOUT : 0u));
}

/* ---- protocol callbacks ---- */

int
azs_transport_enter(TransportObject *self)
{
    return PyContext_Enter(self->context);
}

void
azs_transport_leave(TransportObject *self)
{
    PyObject *exc = PyErr_Occurred() ? azs_exc_take() : NULL;
    if (PyContext_Exit(self->context) < 0)
        PyErr_WriteUnraisable((PyObject *)self);
    if (exc != NULL)
        azs_exc_restore_steal(exc);
}

/* Is `exc` the end of a connection rather than a fault? Of a pipe's reads only EIO: the
 * other side of a terminal has gone. */
static bool
is_an_end(PyObject *exc, const char *message)
{
    if (!PyObject_TypeCheck(exc, (PyTypeObject *)PyExc_OSError))
        return false;
    if (strcmp(message, "Fatal read error on pipe transport") != 0)
        return true;
    PyObject *err = ((PyOSErrorObject *)exc)->myerrno;
    int overflow;
    return err != NULL && PyLong_CheckExact(err) &&
           PyLong_AsLongAndOverflow(err, &overflow) == EIO;
}

int
azs_transport_report(TransportObject *self, PyObject *exc, const char *message,
                     bool fatal)
{
    int res;
    if (!fatal || !is_an_end(exc, message)) {
        res = azs_report_transport(self->st, (PyObject *)self->loop, message, exc,
                                   (PyObject *)self, self->protocol);
    } else if (self->loop->debug) {
        PyObject *ok = PyObject_CallMethod((PyObject *)self->loop, "_transport_ended",
                                           "OOs", (PyObject *)self, exc, message);
        Py_XDECREF(ok);
        res = ok == NULL ? -1 : 0;
    } else {
        return 0;
    }
    if (res == 0 || azs_exc_leaves_loop())
        return res;
    PyErr_WriteUnraisable((PyObject *)self);
    return 0;
}

int
azs_transport_fatal(TransportObject *self, const char *message)
{
    if (azs_exc_leaves_loop())
        return -1;
    PyObject *exc = azs_exc_take();
    int res = azs_transport_report(self, exc, message, true);
    /* Whatever the report raised, nobody waits for this transport any more. */
    PyObject *raised = res < 0 ? azs_exc_take() : NULL;
    res = azs_transport_force_close(self, exc);
    Py_DECREF(exc);
    if (raised != NULL) {
        PyErr_Clear();
        azs_exc_restore_steal(raised);
        res = -1;
    }
    return res;
}

int
azs_transport_fatal_errno(TransportObject *self, int neg_errno, const char *message)
{
    azs_set_errno(neg_errno);
    return azs_transport_fatal(self, message);
}

/* Calls a protocol method without arguments whose failure is only reported. */
static int
flow_call(TransportObject *self, PyObject *method, const char *message)
{
    if (self->protocol == NULL)
        return 0;
    PyObject *protocol = Py_NewRef(self->protocol);
    PyObject *res = azs_loop_call_protocol(self->loop, method, &protocol, 1);
    Py_DECREF(protocol);
    if (res != NULL) {
        Py_DECREF(res);
        return 0;
    }
    if (azs_exc_leaves_loop())
        return -1;
    PyObject *exc = azs_exc_take();
    int out = azs_transport_report(self, exc, message, false);
    Py_DECREF(exc);
    return out;
}

int
azs_transport_grew(TransportObject *self)
{
    if (azs_likely(!azs_flow_grew(&self->flow, self->queued)))
        return 0;
    return flow_call(self, self->st->str_pause_writing,
                     "protocol.pause_writing() failed");
}

int
azs_transport_shrank(TransportObject *self)
{
    if (azs_likely(!azs_flow_shrank(&self->flow, self->queued)))
        return 0;
    return flow_call(self, self->st->str_resume_writing,
                     "protocol.resume_writing() failed");
}

/* ---- closing ---- */

/* Schedules connection_lost, once. */
static int
post_lost(TransportObject *self, PyObject *exc, uint32_t also)
{
    if (self->lost_posted || self->gone)
        return 0;
    self->lost_posted = true;
    self->conn_lost++;
    Py_XSETREF(self->lost_exc, Py_XNewRef(exc));
    azs_watcher_stop(self->loop, &self->io);
    return azs_watcher_post(self->loop, &self->later, AZS_LATER_LOST | also);
}

int
azs_transport_close(TransportObject *self)
{
    if (self->closing)
        return 0;
    AZS_ATOMIC_STORE(&self->closing, true);
    if (self->queued == 0)
        return post_lost(self, NULL, 0);
    return azs_transport_update_reading(self);
}

int
azs_transport_force_close(TransportObject *self, PyObject *exc)
{
    if (self->lost_posted || self->gone)
        return 0;
    AZS_ATOMIC_STORE(&self->closing, true);
    self->ops->drop_queue(self);
    return post_lost(self, exc, 0);
}

int
azs_transport_eof_lost(TransportObject *self)
{
    AZS_ATOMIC_STORE(&self->closing, true);
    return post_lost(self, NULL, AZS_LATER_EOF);
}

int
azs_transport_drained(TransportObject *self)
{
    if (self->empty_waiter != NULL) {
        PyObject *res = PyObject_CallMethod((PyObject *)self->loop, "_transport_ready",
                                            "O", self->empty_waiter);
        if (res == NULL)
            return -1;
        Py_DECREF(res);
    }
    return self->closing ? post_lost(self, NULL, 0) : 0;
}

int
azs_transport_write_lost(TransportObject *self)
{
    int res = 0;
    if (self->conn_lost >= CONNLOST_WRITES_THRESHOLD) {
        PyObject *ok = PyObject_CallMethod((PyObject *)self->loop, "_transport_warn",
                                           "s", self->ops->lost_write);
        Py_XDECREF(ok);
        res = ok == NULL ? -1 : 0;
    }
    self->conn_lost++;
    return res;
}

/* Closes the descriptor: through the socket object where there is one. */
static void
transport_close_fd(TransportObject *self)
{
    int fd = self->fd;
    AZS_SET(&self->fd, -1);
    azs_sys_close(self->dup_fd);
    self->dup_fd = -1;
    PyObject *sock;
    AZS_LOCKED(self);
    sock = self->sock;
    self->sock = NULL;
    AZS_UNLOCKED(self);
    if (sock != NULL) {
        PyObject *res = PyObject_CallMethod(sock, "close", NULL);
        if (res == NULL)
            PyErr_WriteUnraisable(sock);
        Py_XDECREF(res);
        Py_DECREF(sock);
    } else {
        azs_sys_close(fd);
    }
}

/* Ends the sendfile() that is in progress. 0 or -1. */
static int
sendfile_lost(TransportObject *self)
{
    PyObject *ok = PyObject_CallMethod(
        (PyObject *)self->loop, "_transport_sendfile_lost", "O", self->empty_waiter);
    Py_XDECREF(ok);
    return ok == NULL ? -1 : 0;
}

static int
run_connection_lost(TransportObject *self)
{
    if (self->gone)
        return 0;
    PyObject *exc = self->lost_exc != NULL ? self->lost_exc : Py_NewRef(Py_None);
    self->lost_exc = NULL;
    PyObject *protocol = self->protocol;
    int res = 0;
    if (protocol != NULL) {
        Py_INCREF(protocol);
        PyObject *args[] = {protocol, exc};
        PyObject *ok =
            azs_loop_call_protocol(self->loop, self->st->str_connection_lost, args, 2);
        Py_XDECREF(ok);
        Py_DECREF(protocol);
        res = ok == NULL ? -1 : 0;
    }
    /* Whatever it raised or did, the rest is done before that is reported. */
    PyObject *raised = res < 0 ? azs_exc_take() : NULL;
    Py_DECREF(exc);
    AZS_ATOMIC_STORE(&self->gone, true);
    (void)AZS_ATOMIC_ADD(&self->loop->stats.transports, -1);
    /* sendfile() has a descriptor of its own, which hears nothing of it. */
    if (self->empty_waiter != NULL && sendfile_lost(self) < 0)
        PyErr_WriteUnraisable((PyObject *)self);
    transport_close_fd(self);
    AZS_LOCKED(self);
    protocol = self->protocol;
    self->protocol = NULL;
    AZS_UNLOCKED(self);
    Py_XDECREF(protocol);
    leave_server(self);
    if (raised != NULL)
        azs_exc_restore_steal(raised);
    return res;
}

int
azs_transport_failed(TransportObject *self, const char *message)
{
    if (azs_exc_leaves_loop())
        return -1;
    PyObject *exc = azs_exc_take();
    int res = azs_transport_report(self, exc, message, false);
    Py_DECREF(exc);
    return res;
}

/* Ends the wait for the end of set-up. 0, or -1 with what must leave the loop. */
static int
wake_waiter(TransportObject *self)
{
    PyObject *waiter = self->waiter;
    int res = 0;
    self->waiter = NULL;
    if (waiter == NULL)
        return 0;
    if (Py_IS_TYPE(waiter, self->st->waiter_type)) {
        res = azs_waiter_wake_or_post((WaiterObject *)waiter, &self->later,
                                      AZS_LATER_WAKE);
        if (res < 0)
            self->waiter = Py_NewRef(waiter);
    } else {
        PyObject *done = PyObject_CallMethod((PyObject *)self->loop, "_transport_ready",
                                             "O", waiter);
        Py_XDECREF(done);
        res = done == NULL ? -1 : 0;
    }
    Py_DECREF(waiter);
    return res < 0 ? azs_transport_failed(self, "A waiter could not be woken") : 0;
}

/* What follows connection_made(). 0 or -1. */
static int
start_reading(TransportObject *self)
{
    static const char failed[] = "Fatal error: the descriptor cannot be watched";
    self->reading = true;
    if (azs_transport_update_reading(self) < 0) {
        /* A device that epoll does not know stays open, as in asyncio. */
        bool unknown = PyErr_ExceptionMatches(PyExc_PermissionError);
        if ((unknown ? azs_transport_failed(self, failed)
                     : azs_transport_fatal(self, failed)) < 0)
            return -1;
    }
    return wake_waiter(self);
}

static int
run_connection_made(TransportObject *self)
{
    PyObject *protocol = Py_NewRef(self->protocol);
    PyObject *args[] = {protocol, (PyObject *)self};
    self->connected = true;
    PyObject *ok =
        azs_loop_call_protocol(self->loop, self->st->str_connection_made, args, 2);
    Py_DECREF(protocol);
    /* Who catches Ctrl-C and runs the loop once more has a connection as any other. */
    PyObject *raised = NULL;
    if (ok == NULL &&
        azs_transport_failed(self, "Exception in protocol.connection_made()") < 0)
        raised = azs_exc_take();
    Py_XDECREF(ok);
    int res = start_reading(self);
    if (raised != NULL) {
        PyErr_Clear();
        azs_exc_restore_steal(raised);
        res = -1;
    }
    return res;
}

static int
run_eof_received(TransportObject *self)
{
    PyObject *protocol = Py_XNewRef(self->protocol);
    if (protocol == NULL)
        return 0;
    PyObject *ok =
        azs_loop_call_protocol(self->loop, self->st->str_eof_received, &protocol, 1);
    Py_DECREF(protocol);
    if (ok == NULL)
        return azs_transport_failed(self, "Exception in protocol.eof_received()");
    Py_DECREF(ok);
    return 0;
}

static int
transport_later(azs_watcher *watcher, uint32_t events)
{
    TransportObject *self = azs_container_of(watcher, TransportObject, later);
    if (azs_transport_enter(self) < 0)
        return -1;
    int res = 0;
    if ((events & AZS_LATER_MADE) && !self->gone)
        res = run_connection_made(self);
    if (azs_unlikely(events & AZS_LATER_WAKE))
        res = wake_waiter(self);
    if (res == 0 && (events & AZS_LATER_EOF))
        res = run_eof_received(self);
    if (events & AZS_LATER_LOST) {
        PyObject *raised = res < 0 ? azs_exc_take() : NULL;
        int lost = run_connection_lost(self);
        if (lost < 0)
            lost =
                azs_transport_failed(self, "Exception in protocol.connection_lost()");
        if (raised != NULL) {
            PyErr_Clear();
            azs_exc_restore_steal(raised);
        } else {
            res = lost;
        }
    }
    azs_transport_leave(self);
    return res < 0 || PyErr_Occurred() ? -1 : 0;
}

static int
transport_io(azs_watcher *watcher, uint32_t events)
{
    TransportObject *self = azs_container_of(watcher, TransportObject, io);
    if (azs_transport_enter(self) < 0)
        return -1;
    int res = self->ops->on_ready(self, events);
    azs_transport_leave(self);
    return res < 0 || PyErr_Occurred() ? -1 : 0;
}

/* ---- type plumbing ---- */

int
azs_transport_traverse(TransportObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    for (int i = 0; i < AZS_TRANSPORT_BASE_WORDS; i++)
        Py_VISIT(self->base_words[i]);
    Py_VISIT(self->dict);
    Py_VISIT(self->loop);
    Py_VISIT(self->protocol);
    Py_VISIT(self->context);
    Py_VISIT(self->sock);
    Py_VISIT(self->waiter);
    Py_VISIT(self->lost_exc);
    Py_VISIT(self->empty_waiter);
    Py_VISIT(self->extra);
    Py_VISIT(self->server);
    Py_VISIT(self->clients);
    return 0;
}

int
azs_transport_clear(TransportObject *self)
{
    /* `loop`, `context` and `extra` stay until the end: methods rely on them. */
    for (int i = 0; i < AZS_TRANSPORT_BASE_WORDS; i++)
        Py_CLEAR(self->base_words[i]);
    Py_CLEAR(self->dict);
    Py_CLEAR(self->protocol);
    Py_CLEAR(self->waiter);
    Py_CLEAR(self->lost_exc);
    Py_CLEAR(self->empty_waiter);
    Py_CLEAR(self->server);
    azs_clients_forget(self);
    return 0;
}

/* Nobody refers to it any more: its protocol does not hear of it. */
static PyObject *
transport_forget(TransportObject *self, PyObject *Py_UNUSED(ignored))
{
    if (!self->gone) { /* who showed the warning may have closed it, and run the loop */
        azs_watcher_stop(self->loop, &self->io);
        AZS_ATOMIC_STORE(&self->closing, true);
        AZS_ATOMIC_STORE(&self->gone, true);
        (void)AZS_ATOMIC_ADD(&self->loop->stats.transports, -1);
        transport_close_fd(self);
        leave_server(self);
    }
    Py_RETURN_NONE;
}

static PyMethodDef forget_method = {"_forget", (PyCFunction)transport_forget,
                                    METH_NOARGS, NULL};

void
azs_transport_finalize(TransportObject *self)
{
    if (self->gone || self->fd < 0)
        return;
    PyObject *exc = PyErr_Occurred() ? azs_exc_take() : NULL;
    if (PyErr_ResourceWarning((PyObject *)self, 1, "unclosed transport %R", self) < 0)
        PyErr_WriteUnraisable((PyObject *)self);
    /* Leaving a server may wake who waits for its end. */
    if (!azs_loop_hand_on_end(self->st, self->loop, NULL, (PyObject *)self,
                              &forget_method))
        Py_DECREF(transport_forget(self, NULL));
    if (exc != NULL)
        azs_exc_restore_steal(exc);
}

void
azs_transport_dealloc(TransportObject *self)
{
    if (self->loop != NULL) {
        assert(self->io.fd < 0 && !self->io.queued && !self->later.queued);
        AZS_LIVE(self->st, transport, -1);
        /* The loop that was to forget it was closed before it came to it. */
        if (azs_unlikely(!self->gone && self->fd >= 0)) {
            (void)AZS_ATOMIC_ADD(&self->loop->stats.transports, -1);
            azs_sys_close(self->dup_fd);
            if (self->sock == NULL)
                azs_sys_close(self->fd);
        }
    }
    assert(self->clients == NULL);
    if (self->weakrefs != NULL)
        PyObject_ClearWeakRefs((PyObject *)self);
    azs_transport_clear(self);
    Py_CLEAR(self->context);
    Py_CLEAR(self->extra);
    Py_CLEAR(self->sock);
    Py_CLEAR(self->loop);
    AZS_DEALLOC_FREE(self);
}
