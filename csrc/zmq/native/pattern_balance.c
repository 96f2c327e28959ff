/* DEALER, PUSH, PULL, PAIR: peers in turn. */
#include <errno.h>

#include "zmq/native/pattern.h"

int
azs_native_balance(ZmtpSocketObject *self, PyObject *const *parts, Py_ssize_t nparts,
                   ZmtpPeerObject **to)
{
    for (size_t tried = 0; tried < self->npipes; tried++) {
        if (self->next_pipe >= self->npipes)
            self->next_pipe = 0;
        ZmtpPeerObject *peer = self->pipes[self->next_pipe++];
        int err = azs_native_peer_send(peer, parts, nparts);
        if (azs_likely(err != EAGAIN)) {
            *to = peer;
            return err;
        }
    }
    return EAGAIN;
}

static int
balance_send(ZmtpSocketObject *self, PyObject *const *parts, Py_ssize_t nparts)
{
    ZmtpPeerObject *to;
    return azs_native_balance(self, parts, nparts, &to);
}

bool
azs_native_any_room(ZmtpSocketObject *self)
{
    for (size_t i = 0; i < self->npipes; i++) {
        if (azs_native_peer_has_room(self->pipes[i]))
            return true;
    }
    return false;
}

bool
azs_native_any_message(ZmtpSocketObject *self)
{
    return self->active.count > 0;
}

bool
azs_native_never(ZmtpSocketObject *Py_UNUSED(self))
{
    return false;
}

int
azs_native_recv(ZmtpSocketObject *self, PyObject **message)
{
    return azs_native_socket_take(self, message, NULL);
}

int
azs_native_received(ZmtpSocketObject *Py_UNUSED(self), ZmtpPeerObject *peer)
{
    return azs_native_peer_push(peer, 0, NULL);
}

int
azs_native_not_received(ZmtpSocketObject *Py_UNUSED(self),
                        ZmtpPeerObject *Py_UNUSED(peer))
{
    return 0;
}

int
azs_native_welcome(ZmtpSocketObject *Py_UNUSED(self), ZmtpPeerObject *Py_UNUSED(peer))
{
    return 1;
}

void
azs_native_forget(ZmtpSocketObject *Py_UNUSED(self), ZmtpPeerObject *Py_UNUSED(peer))
{
}

int
azs_native_cannot_send(ZmtpSocketObject *Py_UNUSED(self),
                       PyObject *const *Py_UNUSED(parts), Py_ssize_t Py_UNUSED(nparts))
{
    return ENOTSUP;
}

int
azs_native_cannot_recv(ZmtpSocketObject *Py_UNUSED(self), PyObject **Py_UNUSED(message))
{
    return ENOTSUP;
}

/* PAIR has one peer: others are turned away, as libzmq does. */
static int
pair_ready(ZmtpSocketObject *self, ZmtpPeerObject *peer)
{
    for (size_t i = 0; i < self->npipes; i++) {
        if (self->pipes[i] != peer && !self->pipes[i]->leaving)
            return false;
    }
    return true;
}

const azs_native_pattern azs_native_dealer = {
    .send = balance_send,
    .recv = azs_native_recv,
    .received = azs_native_received,
    .ready = azs_native_welcome,
    .lost = azs_native_forget,
    .can_send = azs_native_any_room,
    .can_recv = azs_native_any_message,
    .pulls = true,
};

const azs_native_pattern azs_native_push = {
    .send = balance_send,
    .recv = azs_native_cannot_recv,
    .received = azs_native_not_received,
    .ready = azs_native_welcome,
    .lost = azs_native_forget,
    .can_send = azs_native_any_room,
    .can_recv = azs_native_never,
};

const azs_native_pattern azs_native_pull = {
    .send = azs_native_cannot_send,
    .recv = azs_native_recv,
    .received = azs_native_received,
    .ready = azs_native_welcome,
    .lost = azs_native_forget,
    .can_send = azs_native_never,
    .can_recv = azs_native_any_message,
    .pulls = true,
};

const azs_native_pattern azs_native_pair = {
    .send = balance_send,
    .recv = azs_native_recv,
    .received = azs_native_received,
    .ready = pair_ready,
    .lost = azs_native_forget,
    .can_send = azs_native_any_room,
    .can_recv = azs_native_any_message,
    .pulls = true,
};
