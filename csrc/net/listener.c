/* Accepting connections: what asyncio's _accept_connection does, without a Task,
 * a Future and a socket object for each. */
#include "net/listener.h"

#include <errno.h>
#include <netinet/tcp.h>

#include "base/sys.h"
#include "loop/report.h"
#include "net/server_clients.h"
#include "net/stream.h"
#include "py/args.h"
#include "py/errors.h"
#include "py/type.h"

/* One listening socket. It watches from the start and until close(). */
typedef struct {
    PyObject_HEAD
    azs_state *st;    /* borrowed: the loop holds it */
    LoopObject *loop; /* owned */
    azs_watcher io;
    int fd;                 /* borrowed: of `sock` */
    int batch;              /* connections accepted in a turn at most */
    PyObject *sock;         /* owned: the listening socket object */
    PyObject *factory;      /* owned: makes a protocol */
    PyObject *server;       /* owned: asyncio's Server, or None */
    ClientsObject *clients; /* owned: the server's, or NULL */
    azs_addr name;          /* that of all its connections; len 0 where they differ */
    PyObject *context;      /* owned: of the code that started to serve */
} ListenerObject;

/* Reports the current exception about `sock`; the server goes on. 0, or -1 with what
 * must leave the loop. */
static int
report(ListenerObject *self, PyObject *sock, const char *message)
{
    if (azs_exc_leaves_loop())
        return -1;
    PyObject *exc = azs_exc_take();
    PyObject *res = PyObject_CallMethod((PyObject *)self->loop, "_accept_failed", "sOO",
                                        message, exc, sock);
    Py_DECREF(exc);
    return azs_reported_steal(res, (PyObject *)self);
}

/* Makes the protocol and the transport of an accepted connection; takes the fd.
 * 0, or -1 with an exception. */
static int
listener_serve(ListenerObject *self, int fd, const azs_addr *peer)
{
    PyObject *context = PyContext_Copy(self->context);
    if (context == NULL || azs_loop_fresh_fd(self->loop, fd) < 0 ||
        PyContext_Enter(context) < 0) {
        Py_XDECREF(context);
        azs_sys_close(fd);
        return -1;
    }
    PyObject *protocol = azs_unlikely(self->loop->timed)
                             ? azs_slow_call_factory(self->loop, self->factory)
                             : PyObject_CallNoArgs(self->factory);
    TransportObject *transport = NULL;
    /* As Server._attach(): who waited for the end of all connections has gone on. */
    if (protocol != NULL && self->sock == NULL) {
        PyErr_SetString(PyExc_RuntimeError,
                        "the server was closed by its protocol factory");
        Py_CLEAR(protocol);
    }
    if (protocol != NULL) {
        azs_transport_args args = {
            .loop = self->loop,
            .fd = fd,
            .protocol = protocol,
            .server = self->server,
            .clients = self->clients,
            .context = context,
            .peer = peer,
            .sockname = self->name.len > 0 ? &self->name : NULL,
        };
        transport = azs_stream_new(&args);
        Py_DECREF(protocol);
    } else {
        azs_sys_close(fd);
    }
    PyObject *exc = transport == NULL ? azs_exc_take() : NULL;
    if (PyContext_Exit(context) < 0)
        PyErr_WriteUnraisable((PyObject *)self);
    Py_DECREF(context);
    if (exc != NULL) {
        azs_exc_restore_steal(exc);
        return -1;
    }
    if (azs_unlikely(self->loop->debug)) {
        PyObject *ok =
            PyObject_CallMethod((PyObject *)self->loop, "_transport_debug", "sOO",
                                "%r got a new connection: %r", self->server, transport);
        if (ok == NULL)
            PyErr_WriteUnraisable((PyObject *)self);
        Py_XDECREF(ok);
    }
    /* The posted connection_made keeps the transport alive. */
    Py_DECREF(transport);
    return 0;
}

/* Out of descriptors or memory: rest a while, as asyncio. */
static int
back_off(ListenerObject *self, int neg_errno)
{
    azs_watcher_stop(self->loop, &self->io);
    azs_set_errno(neg_errno);
    PyObject *exc = azs_exc_take();
    PyObject *res = PyObject_CallMethod((PyObject *)self->loop, "_accept_back_off",
                                        "OOO", self, exc, self->sock);
    Py_DECREF(exc);
    Py_XDECREF(res);
    return res == NULL ? -1 : 0;
}

static int
listener_on_ready(azs_watcher *watcher, uint32_t Py_UNUSED(events))
{
    ListenerObject *self = azs_container_of(watcher, ListenerObject, io);
    /* The factory may close the listener: then its fd is another's already. */
    for (int i = 0; i < self->batch && self->io.fd >= 0; i++) {
        azs_addr peer;
        int fd = azs_sys_accept(self->fd, &peer.sa, sizeof(peer.storage), &peer.len);
        if (fd < 0) {
            switch (-fd) {
            case EAGAIN:
            case ECONNABORTED:
                return 0;
            case EMFILE:
            case ENFILE:
            case ENOBUFS:
            case ENOMEM:
                return back_off(self, fd);
            default:
                azs_set_errno(fd);
                return report(self, self->sock, "accept() failed");
            }
        }
        AZS_COUNT(&self->loop->stats.accepted, 1);
        /* The factory may stop the listener, which lets go of it. */
        PyObject *sock = Py_NewRef(self->sock);
        int res = listener_serve(self, fd, &peer);
        if (res < 0)
            res = report(self, sock,
                         "Error on transport creation for incoming connection");
        Py_DECREF(sock);
        if (res < 0)
            return -1;
    }
    return 0;
}

PyDoc_STRVAR(start_doc,
"start($self, /)\n--\n\n"
"Watch for connections (again, after an accept() out of resources).");

static PyObject *
Listener_start(ListenerObject *self, PyObject *Py_UNUSED(ignored))
{
    if (azs_loop_check_thread(self->loop) < 0)
        return NULL;
    if (self->sock != NULL && self->io.fd < 0 &&
        azs_watcher_start(self->loop, &self->io, self->fd, EPOLLIN) < 0)
        return NULL;
    Py_RETURN_NONE;
}

static void
listener_stop(ListenerObject *self)
{
    azs_watcher_stop(self->loop, &self->io);
    Py_CLEAR(self->sock);
}

PyDoc_STRVAR(stop_doc,
"stop($self, /)\n--\n\n"
"Accept nothing more, for good; the socket is the caller's to close.");

static PyObject *
Listener_stop(ListenerObject *self, PyObject *Py_UNUSED(ignored))
{
    if (azs_loop_check_thread(self->loop) < 0)
        return NULL;
    listener_stop(self);
    Py_RETURN_NONE;
}

static PyMethodDef listener_methods[] = {
    {"start", (PyCFunction)Listener_start, METH_NOARGS, start_doc},
    {"stop", (PyCFunction)Listener_stop, METH_NOARGS, stop_doc},
    {NULL},
};

static int
listener_traverse(ListenerObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->loop);
    Py_VISIT(self->sock);
    Py_VISIT(self->factory);
    Py_VISIT(self->server);
    Py_VISIT(self->clients);
    Py_VISIT(self->context);
    return 0;
}

static int
listener_clear(ListenerObject *self)
{
    Py_CLEAR(self->sock);
    Py_CLEAR(self->factory);
    Py_CLEAR(self->server);
    Py_CLEAR(self->clients);
    return 0;
}

static void
listener_dealloc(ListenerObject *self)
{
    assert(self->io.fd < 0 && !self->io.queued);
    AZS_DEALLOC_BEGIN(self, listener_dealloc);
    AZS_LIVE(self->st, listener, -1);
    listener_clear(self);
    Py_CLEAR(self->context);
    Py_CLEAR(self->loop);
    AZS_DEALLOC_FREE(self);
    AZS_DEALLOC_END;
}

PyDoc_STRVAR(listener_doc, "A listening socket that accepts into StreamTransports.");

static PyType_Slot listener_slots[] = {
    {Py_tp_doc, (void *)listener_doc},   {Py_tp_dealloc, listener_dealloc},
    {Py_tp_traverse, listener_traverse}, {Py_tp_clear, listener_clear},
    {Py_tp_methods, listener_methods},   {0, NULL},
};

static PyType_Spec azs_listener_spec = {
    .name = "aiozmq_speedups._core.Listener",
    .basicsize = sizeof(ListenerObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE |
             Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = listener_slots,
};

/* An accepted socket has the listening one's address, unless that stands for several.
 */
static void
learn_name(ListenerObject *self)
{
    azs_addr *name = &self->name;
    name->len = sizeof(name->storage);
    int several = 1;
    socklen_t len = sizeof(several);
    if (getsockname(self->fd, &name->sa, &name->len) == 0) {
        if (name->sa.sa_family == AF_UNIX)
            several = 0;
        else if (name->sa.sa_family == AF_INET &&
                 name->in.sin_addr.s_addr != htonl(INADDR_ANY))
            getsockopt(self->fd, IPPROTO_IP, IP_TRANSPARENT, &several, &len);
        else if (name->sa.sa_family == AF_INET6 &&
                 !IN6_IS_ADDR_UNSPECIFIED(&name->in6.sin6_addr))
            getsockopt(self->fd, IPPROTO_IPV6, IPV6_TRANSPARENT, &several, &len);
    }
    if (several)
        name->len = 0;
}

PyDoc_STRVAR(listen_doc,
"_listen($self, protocol_factory, sock, server, backlog, context=None, /)\n--\n\n"
"A started Listener on a listening, non-blocking stream socket: each connection\n"
"gets a protocol, a StreamTransport and a copy of `context` (the current one), at\n"
"most `backlog` of them a turn.");

static PyObject *
Loop__listen(LoopObject *self, PyObject *args)
{
    PyObject *factory, *sock, *server, *context = NULL;
    int backlog;
    if (!PyArg_ParseTuple(args, "OOOi|O:_listen", &factory, &sock, &server, &backlog,
                          &context) ||
        azs_context_arg(&context) < 0)
        return NULL;
    int fd = PyObject_AsFileDescriptor(sock);
    if (fd < 0)
        return NULL;
    PyTypeObject *type = self->st->listener_type;
    ListenerObject *listener = (ListenerObject *)azs_type_alloc(type);
    if (listener == NULL)
        return NULL;
    listener->st = self->st;
    AZS_LIVE(self->st, listener, 1);
    listener->loop = (LoopObject *)Py_NewRef(self);
    azs_watcher_init(&listener->io, (PyObject *)listener, listener_on_ready);
    listener->fd = fd;
    listener->batch = backlog > 0 ? backlog : 1;
    listener->factory = Py_NewRef(factory);
    listener->server = Py_NewRef(server);
    listener->context = context != NULL ? Py_NewRef(context) : PyContext_CopyCurrent();
    learn_name(listener);
    if (listener->context == NULL ||
        (server != Py_None && azs_clients_of(self->st, server, &listener->clients) < 0))
        goto fail;
    /* Not before: who finds it cannot start one without a socket. */
    listener->sock = Py_NewRef(sock);
    if (azs_watcher_start(self, &listener->io, fd, EPOLLIN) < 0)
        goto fail;
    /* Linux hands this down to accepted sockets: a system call less for each.
     * Refused where the protocol is not TCP. */
    int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    return (PyObject *)listener;

fail:
    Py_DECREF(listener);
    return NULL;
}

static PyMethodDef loop_methods[] = {
    {"_listen", (PyCFunction)Loop__listen, METH_VARARGS, listen_doc},
    {NULL},
};

int
azs_listener_init(PyObject *mod, azs_state *st)
{
    if (azs_clients_init(mod, st) < 0 ||
        azs_type_add(mod, &st->listener_type, &azs_listener_spec, NULL, true) < 0)
        return -1;
    return azs_type_add_methods(st->loop_type, loop_methods);
}
