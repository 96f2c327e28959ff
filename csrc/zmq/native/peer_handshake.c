/* A peer's handshake: until its messages go. */
#include "zmq/native/native.h"

static int
send_handshake(ZmtpPeerObject *peer)
{
    azs_zmtp_handshake *hs = &peer->shaking->hs;
    size_t room = azs_zmtp_handshake_room(hs);
    uint8_t *out = PyMem_Malloc(room);
    if (out == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    int n, result = 0;
    while (result == 0 && (n = azs_zmtp_handshake_send(hs, out)) > 0)
        result = azs_native_peer_send_command(peer, AZS_ZMTP_COMMAND, out, (size_t)n);
    PyMem_Free(out);
    return result;
}

static int
become_ready(ZmtpPeerObject *peer)
{
    ZmtpSocketObject *socket = peer->socket;
    const azs_native_options *options = &socket->options;
    azs_zmtp_peer info;
    azs_zmtp_curve curve;
    azs_zmtp_handshake_finish(&peer->shaking->hs, &info, &curve);
    if (info.identity_size > 0) {
        PyObject *id =
            PyBytes_FromStringAndSize((const char *)info.identity, info.identity_size);
        azs_native_router_forget(socket, peer); /* by another name, perhaps */
        Py_XSETREF(peer->id, id);
    }
    peer->minor = info.minor;
    azs_zmtp_peer_clear(&info);
    if (info.identity_size > 0 && peer->id == NULL)
        return -1;
    if (curve.crypto != NULL) {
        /* The last command was sealed by other keys: it goes first. */
        azs_native_peer_flush(peer);
        peer->curve = PyMem_Malloc(sizeof(curve));
        if (peer->curve == NULL) {
            PyErr_NoMemory();
            return -1;
        }
        *peer->curve = curve;
        explicit_bzero(&curve, sizeof(curve));
    }
    azs_native_peer_drop_handshake(peer);
    azs_zmtp_decoder_limit(
        &peer->decoder, options->max_size < 0
                            ? UINT64_MAX
                            : (uint64_t)options->max_size +
                                  (peer->curve != NULL ? AZS_ZMTP_CURVE_OVERHEAD : 0));
    azs_zmtp_heartbeat_start(&peer->heartbeat, options->heartbeat_interval,
                             options->heartbeat_timeout, azs_clock_ns());
    peer->state = PEER_READY;
    int stays = peer->leaving ? 1 : socket->pattern->ready(socket, peer);
    if (stays < 0)
        return -1;
    if (stays == 0)
        return azs_native_peer_lose(peer, AZS_NATIVE_DISCONNECTED, peer->fd);
    if (azs_native_socket_add_pipe(socket, peer) < 0)
        return -1;
    if (options->probe && !peer->leaving) {
        PyObject *empty = PyBytes_FromStringAndSize(NULL, 0);
        int sent = empty == NULL ? -1 : azs_native_peer_send(peer, &empty, 1);
        Py_XDECREF(empty);
        if (sent < 0)
            return -1;
    }
    azs_native_peer_flush(peer);
    PyObject *res =
        PyObject_CallMethod((PyObject *)socket, "_peer_ready", "Oi", peer, peer->fd);
    if (res == NULL)
        return -1;
    Py_DECREF(res);
    return 0;
}

/* Asks who may come in. */
static int
ask(ZmtpPeerObject *peer)
{
    azs_zmtp_handshake *hs = &peer->shaking->hs;
    const char *text = (const char *)hs->credentials;
    PyObject *res = PyObject_CallMethod(
        (PyObject *)peer->socket, "_peer_asks", "Oiy#y#y#", peer,
        (int)hs->config->mechanism, text, (Py_ssize_t)hs->username_size,
        text + hs->username_size, (Py_ssize_t)hs->password_size,
        (const char *)hs->client_key, (Py_ssize_t)AZS_ZMTP_KEY_SIZE);
    if (res == NULL)
        return -1;
    Py_DECREF(res);
    return 0;
}

/* After each step of the handshake. */
int
azs_native_peer_shake_on(ZmtpPeerObject *peer)
{
    if (send_handshake(peer) < 0)
        return -1;
    azs_zmtp_handshake *hs = &peer->shaking->hs;
    if (hs->phase == AZS_ZMTP_DONE)
        return become_ready(peer);
    if (hs->phase == AZS_ZMTP_DECIDE)
        return ask(peer);
    azs_native_peer_flush(peer);
    if (hs->phase == AZS_ZMTP_REFUSED)
        return azs_native_peer_lose(peer, AZS_NATIVE_FAILED_AUTH, hs->status);
    return 0;
}

int
azs_native_peer_fail_handshake(ZmtpPeerObject *peer, int err)
{
    azs_zmtp_handshake *hs = &peer->shaking->hs;
    if (err == -EACCES)
        return azs_native_peer_lose(peer, AZS_NATIVE_FAILED_AUTH, hs->refusal);
    if (err == -EPROTO)
        return azs_native_peer_lose(peer, AZS_NATIVE_FAILED_PROTOCOL, (int)hs->fault);
    return azs_native_peer_fail(peer, -err);
}

/* The user's answer: a status of RFC 27. 0 or -1. */
int
azs_native_peer_decide(ZmtpPeerObject *peer, int status)
{
    if (peer->state != PEER_SHAKING || peer->shaking->hs.phase != AZS_ZMTP_DECIDE)
        return 0; /* it has left meanwhile */
    azs_zmtp_handshake_decide(&peer->shaking->hs, status);
    if (azs_native_peer_shake_on(peer) < 0)
        return -1;
    return azs_native_peer_is_connected(peer) && peer->socket->loop != NULL
               ? azs_watcher_post(peer->socket->loop, &peer->watcher, EPOLLIN)
               : 0; /* what has come behind */
}
