/* ROUTER: peers by their ids. */
#include <errno.h>

#include "zmq/native/pattern.h"

/* Borrowed, NULL where nobody has this id, or with an exception. */
static inline ZmtpPeerObject *
find(ZmtpSocketObject *self, PyObject *id)
{
    return (ZmtpPeerObject *)PyDict_GetItemWithError(self->by_id, id);
}

/* A zero octet and a number, as libzmq makes them: no peer's own id begins so. */
static PyObject *
new_id(ZmtpSocketObject *self)
{
    uint8_t id[5] = {0};
    azs_zmtp_put_u32(id + 1, ++self->next_id);
    return PyBytes_FromStringAndSize((const char *)id, sizeof(id));
}

static int
router_ready(ZmtpSocketObject *self, ZmtpPeerObject *peer)
{
    if (peer->id == NULL && (peer->id = new_id(self)) == NULL)
        return -1;
    ZmtpPeerObject *other = find(self, peer->id);
    if (other == NULL && PyErr_Occurred())
        return -1;
    if (other != NULL && other != peer) {
        bool is_here = other->state == PEER_READY;
        if (is_here && !self->options.handover) {
            Py_CLEAR(peer->id); /* the other's */
            return 0;
        }
        Py_INCREF(other);
        int err = PyDict_SetItem(self->by_id, peer->id, (PyObject *)peer);
        if (err == 0 && is_here)
            err = azs_native_peer_lose(other, 0x200, other->fd);
        Py_DECREF(other);
        return err < 0 ? -1 : peer->state == PEER_READY;
    }
    return PyDict_SetItem(self->by_id, peer->id, (PyObject *)peer) < 0 ? -1 : 1;
}

void
azs_native_router_forget(ZmtpSocketObject *self, ZmtpPeerObject *peer)
{
    if (peer->id == NULL || self->by_id == NULL)
        return;
    if (find(self, peer->id) == peer)
        (void)PyDict_DelItem(self->by_id, peer->id);
    PyErr_Clear();
}

/* Who is connected to again keeps its name meanwhile, and what is sent to it waits. */
static void
router_lost(ZmtpSocketObject *self, ZmtpPeerObject *peer)
{
    if (self->options.immediate)
        azs_native_router_forget(self, peer);
}

static int
router_received(ZmtpSocketObject *Py_UNUSED(self), ZmtpPeerObject *peer)
{
    return azs_native_peer_push(peer, 0, peer->id);
}

static int
router_send(ZmtpSocketObject *self, PyObject *const *parts, Py_ssize_t nparts)
{
    ZmtpPeerObject *peer = find(self, parts[0]);
    bool mandatory = self->options.mandatory;
    if (peer == NULL) {
        if (PyErr_Occurred())
            return -1;
        return mandatory ? EHOSTUNREACH : 0;
    }
    if (nparts == 1)
        return 0; /* an id alone is no message */
    int err = azs_native_peer_send(peer, parts + 1, nparts - 1);
    if (err != EAGAIN || mandatory)
        return err;
    if (!peer->drops && self->loop != NULL && peer->watcher.fd >= 0) {
        /* Who watches the socket is told once. */
        peer->drops = true;
        return azs_watcher_post(self->loop, &peer->watcher, EPOLLOUT);
    }
    return 0;
}

static bool
always(ZmtpSocketObject *Py_UNUSED(self))
{
    return true;
}

const azs_native_pattern azs_native_router = {
    .send = router_send,
    .recv = azs_native_recv,
    .received = router_received,
    .ready = router_ready,
    .lost = router_lost,
    .can_send = always,
    .can_recv = azs_native_any_message,
    .pulls = true,
};
