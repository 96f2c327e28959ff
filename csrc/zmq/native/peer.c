/* A peer: its life, and what Python asks of it. */
#include <errno.h>
#include <sys/socket.h>

#include "base/sys.h"
#include "py/errors.h"
#include "zmq/native/native.h"

/* ---- the end ---- */

static void
drop_frames(ZmtpPeerObject *peer)
{
    while (peer->nframes > 0)
        Py_DECREF(peer->frames[--peer->nframes]);
    PyMem_Free(peer->frames);
    peer->frames = NULL;
    peer->frames_room = 0;
}

void
azs_native_peer_drop_handshake(ZmtpPeerObject *peer)
{
    azs_native_handshake *shaking = peer->shaking;
    peer->shaking = NULL;
    if (shaking == NULL)
        return;
    azs_zmtp_handshake_clear(&shaking->hs);
    azs_native_config_release(shaking->config);
    PyMem_Free(shaking);
}

/* All that belongs to a connection, which is closed. Runs no Python code. */
static void
drop_connection(ZmtpPeerObject *peer)
{
    if (peer->fd >= 0)
        azs_sys_close(peer->fd);
    peer->fd = -1;
    azs_native_peer_drop_handshake(peer);
    azs_native_peer_drop_buffer(peer);
    azs_zmtp_decoder_clear(&peer->decoder);
    azs_zmtp_decoder_init(&peer->decoder, AZS_ZMTP_HANDSHAKE_MAX);
    Py_CLEAR(peer->room);
    drop_frames(peer);
    if (peer->curve != NULL) {
        azs_zmtp_curve_clear(peer->curve);
        PyMem_Free(peer->curve);
        peer->curve = NULL;
    }
    azs_native_peer_drop_out(peer, false);
    peer->broken = 0;
    peer->stuffed = peer->garbled = peer->drops = peer->told = peer->deaf = false;
    azs_zmtp_heartbeat_start(&peer->heartbeat, 0, 0, 0);
}

/* Takes it out of the loop and the socket: `state` is what it is from now on. */
void
azs_native_peer_end(ZmtpPeerObject *peer, azs_native_state state)
{
    ZmtpSocketObject *socket = peer->socket;
    bool was_ready = peer->state == PEER_READY;
    peer->state = state;
    if (socket->loop != NULL)
        azs_watcher_stop(socket->loop, &peer->watcher);
    drop_connection(peer);
    if (was_ready && !peer->leaving)
        socket->pattern->lost(socket, peer);
    if (state == PEER_CLOSED) {
        azs_native_router_forget(socket, peer);
        Py_CLEAR(peer->id);
        azs_native_socket_drop_pipe(socket, peer);
        azs_native_peer_drop_out(peer, true);
    } else if (socket->options.immediate) {
        azs_native_socket_drop_pipe(socket, peer);
    }
}

int
azs_native_peer_lose(ZmtpPeerObject *peer, int event, int value)
{
    if (!azs_native_peer_is_connected(peer))
        return 0;
    ZmtpSocketObject *socket = (ZmtpSocketObject *)Py_NewRef(peer->socket);
    bool was_ready = peer->state == PEER_READY;
    int fd = peer->fd;
    PyObject *held = Py_NewRef(peer); /* the loop's reference may be the last */
    azs_native_peer_end(peer, peer->connects ? PEER_IDLE : PEER_CLOSED);
    PyObject *res =
        PyObject_CallMethod((PyObject *)socket, "_peer_lost", "OOiii", peer,
                            was_ready ? Py_True : Py_False, event, value, fd);
    Py_DECREF(socket);
    Py_DECREF(held);
    if (res == NULL)
        return -1;
    Py_DECREF(res);
    return 0;
}

int
azs_native_peer_fail(ZmtpPeerObject *peer, int err)
{
    if (peer->state == PEER_READY)
        return azs_native_peer_lose(peer, AZS_NATIVE_DISCONNECTED, peer->fd);
    return azs_native_peer_lose(peer, AZS_NATIVE_FAILED_NO_DETAIL, err);
}

/* ---- methods ---- */

PyDoc_STRVAR(attach_doc, "_attach($self, fd, /)\n--\n\n"
                         "Begin the handshake on a connected, non-blocking socket, "
                         "whose\ndescriptor is the peer's from now on.");

static PyObject *
ZmtpPeer__attach(ZmtpPeerObject *self, PyObject *arg)
{
    if (azs_native_check_thread(self->socket) < 0)
        return NULL;
    int fd = (int)PyLong_AsLong(arg);
    if (fd == -1 && PyErr_Occurred())
        return NULL;
    ZmtpSocketObject *socket = self->socket;
    if (self->state != PEER_IDLE || socket == NULL || socket->loop == NULL ||
        socket->config == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "the peer cannot be attached");
        return NULL;
    }
    azs_native_handshake *shaking = PyMem_Calloc(1, sizeof(*shaking));
    if (shaking == NULL)
        return PyErr_NoMemory();
    shaking->config = socket->config;
    shaking->config->refs++;
    azs_zmtp_handshake_init(&shaking->hs, &shaking->config->config);
    if (azs_watcher_start(socket->loop, &self->watcher, fd, EPOLLIN) < 0) {
        azs_native_config_release(shaking->config);
        PyMem_Free(shaking);
        return NULL;
    }
    self->fd = fd;
    self->shaking = shaking;
    self->state = PEER_SHAKING;
    azs_zmtp_decoder_init(&self->decoder, AZS_ZMTP_HANDSHAKE_MAX);
    /* A new connection takes so little. */
    ssize_t n = send(fd, shaking->hs.greeting, AZS_ZMTP_GREETING_SIZE, MSG_NOSIGNAL);
    if (n != AZS_ZMTP_GREETING_SIZE) {
        self->broken = n < 0 ? errno : EPIPE;
        if (azs_watcher_post(socket->loop, &self->watcher, EPOLLERR) < 0) {
            self->fd = -1; /* the caller's again */
            azs_native_peer_end(self, PEER_IDLE);
            return NULL;
        }
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(decide_doc, "_decide($self, status, /)\n--\n\n"
                         "Answer _peer_asks(): 200 lets it in, 300, 400, 500 do not.");

static PyObject *
ZmtpPeer__decide(ZmtpPeerObject *self, PyObject *arg)
{
    if (azs_native_check_thread(self->socket) < 0)
        return NULL;
    int status = (int)PyLong_AsLong(arg);
    if (status == -1 && PyErr_Occurred())
        return NULL;
    if (azs_native_peer_decide(self, status) < 0)
        return NULL;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(disconnect_doc,
             "_disconnect($self, event=0, value=0, /)\n--\n\n"
             "End the connection as if it had failed: _peer_lost() follows.");

static PyObject *
ZmtpPeer__disconnect(ZmtpPeerObject *self, PyObject *args)
{
    if (azs_native_check_thread(self->socket) < 0)
        return NULL;
    int event = AZS_NATIVE_DISCONNECTED, value = 0;
    if (!PyArg_ParseTuple(args, "|ii:_disconnect", &event, &value))
        return NULL;
    if (azs_native_peer_lose(self, event, value) < 0)
        return NULL;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(close_doc, "_close($self, /)\n--\n\n"
                        "End it for ever, losing what waits; nobody is told.");

static PyObject *
ZmtpPeer__close(ZmtpPeerObject *self, PyObject *Py_UNUSED(ignored))
{
    if (azs_native_check_thread(self->socket) < 0)
        return NULL;
    if (self->state != PEER_CLOSED && self->socket != NULL)
        azs_native_peer_end(self, PEER_CLOSED);
    Py_CLEAR(self->owner);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(leave_doc, "_leave($self, /)\n--\n\n"
                        "No message comes or goes any more but those that wait.");

static PyObject *
ZmtpPeer__leave(ZmtpPeerObject *self, PyObject *Py_UNUSED(ignored))
{
    if (azs_native_check_thread(self->socket) < 0)
        return NULL;
    if (self->leaving || self->socket == NULL)
        Py_RETURN_NONE;
    azs_native_peer_flush(self);
    if (self->state == PEER_READY)
        self->socket->pattern->lost(self->socket, self);
    self->leaving = true;
    while (self->in.count > 0)
        Py_DECREF((PyObject *)azs_ring_pop(&self->in));
    Py_RETURN_NONE;
}

PyDoc_STRVAR(heartbeat_doc,
             "_heartbeat($self, /)\n--\n\n"
             "Send a PING if one is due, end a silent peer; the seconds until the\n"
             "next look, or None for never.");

static PyObject *
ZmtpPeer__heartbeat(ZmtpPeerObject *self, PyObject *Py_UNUSED(ignored))
{
    if (azs_native_check_thread(self->socket) < 0)
        return NULL;
    while (self->state == PEER_READY) {
        int64_t now_ns = azs_clock_ns();
        switch (azs_zmtp_heartbeat_look(&self->heartbeat, now_ns)) {
        case AZS_ZMTP_QUIET: {
            int64_t due_ns = azs_zmtp_heartbeat_due(&self->heartbeat);
            if (due_ns == AZS_ZMTP_NEVER_NS)
                goto never;
            return PyFloat_FromDouble((double)(due_ns - now_ns) / 1e9);
        }
        case AZS_ZMTP_PING_IT: {
            uint8_t ping[AZS_ZMTP_PING_MAX];
            size_t size = azs_zmtp_ping_put(
                ping, azs_zmtp_heartbeat_ttl(self->socket->options.heartbeat_ttl));
            if (azs_native_peer_send_command(self, AZS_ZMTP_COMMAND, ping, size) < 0)
                return NULL;
            break;
        }
        case AZS_ZMTP_EXPIRED:
            if (azs_native_peer_lose(self, AZS_NATIVE_DISCONNECTED, self->fd) < 0)
                return NULL;
            break;
        }
    }
never:
    self->beating = false;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(flush_doc, "_flush($self, /)\n--\n\nSend what the kernel takes.");

static PyObject *
ZmtpPeer__flush(ZmtpPeerObject *self, PyObject *Py_UNUSED(ignored))
{
    if (azs_native_check_thread(self->socket) < 0)
        return NULL;
    azs_native_peer_flush(self);
    Py_RETURN_NONE;
}

static PyMethodDef peer_methods[] = {
    {"_attach", (PyCFunction)ZmtpPeer__attach, METH_O, attach_doc},
    {"_decide", (PyCFunction)ZmtpPeer__decide, METH_O, decide_doc},
    {"_disconnect", (PyCFunction)ZmtpPeer__disconnect, METH_VARARGS, disconnect_doc},
    {"_close", (PyCFunction)ZmtpPeer__close, METH_NOARGS, close_doc},
    {"_leave", (PyCFunction)ZmtpPeer__leave, METH_NOARGS, leave_doc},
    {"_heartbeat", (PyCFunction)ZmtpPeer__heartbeat, METH_NOARGS, heartbeat_doc},
    {"_flush", (PyCFunction)ZmtpPeer__flush, METH_NOARGS, flush_doc},
    {NULL},
};

static PyObject *
peer_get_state(ZmtpPeerObject *self, void *Py_UNUSED(closure))
{
    static const char *const names[] = {"idle", "shaking", "ready", "closed"};
    return PyUnicode_FromString(names[self->state]);
}

static PyObject *
peer_get_waiting(ZmtpPeerObject *self, void *Py_UNUSED(closure))
{
    return PyLong_FromSize_t(azs_native_peer_waiting(self));
}

static PyObject *
peer_get_owner(ZmtpPeerObject *self, void *Py_UNUSED(closure))
{
    if (azs_native_check_thread(self->socket) < 0)
        return NULL;
    return Py_NewRef(self->owner == NULL ? Py_None : self->owner);
}

static PyObject *
peer_get_fd(ZmtpPeerObject *self, void *Py_UNUSED(closure))
{
    return PyLong_FromLong(self->fd);
}

static PyGetSetDef peer_getset[] = {
    {"state", (getter)peer_get_state, NULL, "idle, shaking, ready or closed", NULL},
    {"waiting", (getter)peer_get_waiting, NULL, "messages not sent yet", NULL},
    {"owner", (getter)peer_get_owner, NULL, "its connector or listener", NULL},
    {"fd", (getter)peer_get_fd, NULL, "the descriptor, -1 for none", NULL},
    {NULL},
};

/* ---- life ---- */

ZmtpPeerObject *
azs_native_peer_new(ZmtpSocketObject *socket, PyObject *owner, bool connects)
{
    PyTypeObject *type = socket->st->zmtp_peer_type;
    ZmtpPeerObject *self = (ZmtpPeerObject *)azs_type_alloc(type);
    if (self == NULL)
        return NULL;
    self->st = azs_state_hold(socket->st);
    self->socket = (ZmtpSocketObject *)Py_NewRef(socket);
    self->owner = Py_NewRef(owner);
    self->fd = -1;
    self->connects = connects;
    azs_watcher_init(&self->watcher, (PyObject *)self, azs_native_peer_on_ready);
    azs_zmtp_decoder_init(&self->decoder, AZS_ZMTP_HANDSHAKE_MAX);
    azs_zmtp_heartbeat_start(&self->heartbeat, 0, 0, 0);
    return self;
}

static int
peer_traverse(ZmtpPeerObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->socket);
    Py_VISIT(self->owner);
    for (size_t i = 0; i < self->in.count; i++)
        Py_VISIT((PyObject *)azs_ring_at(&self->in, i));
    return 0;
}

static int
peer_clear(ZmtpPeerObject *self)
{
    /* Out of the topics before they go: the socket may be cleared later. */
    if (self->socket != NULL && self->state != PEER_CLOSED)
        azs_native_peer_end(self, PEER_CLOSED);
    while (self->in.count > 0)
        Py_DECREF((PyObject *)azs_ring_pop(&self->in));
    azs_ring_free(&self->in);
    Py_CLEAR(self->owner);
    Py_CLEAR(self->socket);
    return 0;
}

static void
peer_dealloc(ZmtpPeerObject *self)
{
    PyObject_GC_UnTrack(self);
    /* Resurrection is none: azs_native_peer_end() runs no Python code. */
    (void)peer_clear(self);
    drop_connection(self);
    azs_native_peer_drop_out(self, true);
    azs_state *st = self->st;
    PyTypeObject *type = Py_TYPE(self);
    type->tp_free((PyObject *)self);
    Py_DECREF(type);
    azs_state_release(st);
}

static PyType_Slot peer_slots[] = {
    {Py_tp_doc, "A peer of a ZmtpSocket: two queues, and the connection."},
    {Py_tp_dealloc, peer_dealloc},
    {Py_tp_traverse, peer_traverse},
    {Py_tp_clear, peer_clear},
    {Py_tp_methods, peer_methods},
    {Py_tp_getset, peer_getset},
    {0, NULL},
};

PyType_Spec azs_native_peer_spec = {
    .name = "aiozmq_speedups._core.ZmtpPeer",
    .basicsize = sizeof(ZmtpPeerObject),
    .flags =
        Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = peer_slots,
};
