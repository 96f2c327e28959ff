/* A peer's connection: handshake, frames in, messages, the end. */
#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/sys.h"
#include "py/errors.h"
#include "zmq/native/native.h"

enum {
    READ_SIZE = 64 * 1024,     /* of one recv(2) into the loop's memory */
    READ_BUDGET = 1024 * 1024, /* a turn: other peers want to be read from, too */
    FRAMES_MAX = 1 << 20,      /* of a message: those of an endless one end the peer */
    GREETING_SIZE = AZS_ZMTP_GREETING_SIZE,
};

/* Events of zmq_socket_monitor(3). */
enum {
    EVENT_DISCONNECTED = 0x200,
    EVENT_FAILED_NO_DETAIL = 0x800,
    EVENT_FAILED_PROTOCOL = 0x2000,
    EVENT_FAILED_AUTH = 0x4000,
};

static inline bool
is_connected(const ZmtpPeerObject *peer)
{
    return peer->state == PEER_SHAKING || peer->state == PEER_READY;
}

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

static void
drop_handshake(ZmtpPeerObject *peer)
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
    drop_handshake(peer);
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
    peer->stuffed = peer->skipping = false;
    azs_zmtp_heartbeat_start(&peer->heartbeat, 0, 0, 0);
}

/* Takes it out of the loop and the socket: `state` is what it is from now on. */
static void
disconnect(ZmtpPeerObject *peer, azs_native_state state)
{
    ZmtpSocketObject *socket = peer->socket;
    bool was_ready = peer->state == PEER_READY;
    peer->state = state;
    if (socket->loop != NULL)
        azs_watcher_stop(socket->loop, &peer->watcher);
    drop_connection(peer);
    if (was_ready)
        socket->pattern->lost(socket, peer);
    Py_CLEAR(peer->id);
    if (state == PEER_CLOSED) {
        azs_native_socket_drop_pipe(socket, peer);
        azs_native_peer_drop_out(peer, true);
    } else if (socket->options.immediate) {
        azs_native_socket_drop_pipe(socket, peer);
    }
}

int
azs_native_peer_lose(ZmtpPeerObject *peer, int event, int value)
{
    if (!is_connected(peer))
        return 0;
    ZmtpSocketObject *socket = (ZmtpSocketObject *)Py_NewRef(peer->socket);
    bool was_ready = peer->state == PEER_READY;
    int fd = peer->fd;
    PyObject *held = Py_NewRef(peer); /* the loop's reference may be the last */
    disconnect(peer, peer->connects ? PEER_IDLE : PEER_CLOSED);
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

static int
lose_with_errno(ZmtpPeerObject *peer, int err)
{
    if (peer->state == PEER_READY)
        return azs_native_peer_lose(peer, EVENT_DISCONNECTED, peer->fd);
    return azs_native_peer_lose(peer, EVENT_FAILED_NO_DETAIL, err);
}

/* ---- the handshake ---- */

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
    drop_handshake(peer);
    azs_zmtp_decoder_limit(
        &peer->decoder, options->max_size < 0
                            ? UINT64_MAX
                            : (uint64_t)options->max_size +
                                  (peer->curve != NULL ? AZS_ZMTP_CURVE_OVERHEAD : 0));
    azs_zmtp_heartbeat_start(&peer->heartbeat, options->heartbeat_interval,
                             options->heartbeat_timeout, azs_clock_ns());
    peer->state = PEER_READY;
    int stays = socket->pattern->ready(socket, peer);
    if (stays < 0)
        return -1;
    if (stays == 0)
        return azs_native_peer_lose(peer, EVENT_DISCONNECTED, peer->fd);
    if (azs_native_socket_add_pipe(socket, peer) < 0)
        return -1;
    if (options->probe) {
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
static int
shake_on(ZmtpPeerObject *peer)
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
        return azs_native_peer_lose(peer, EVENT_FAILED_AUTH, hs->status);
    return 0;
}

static int
fail_handshake(ZmtpPeerObject *peer, int err)
{
    azs_zmtp_handshake *hs = &peer->shaking->hs;
    if (err == -EACCES)
        return azs_native_peer_lose(peer, EVENT_FAILED_AUTH, hs->refusal);
    if (err == -EPROTO)
        return azs_native_peer_lose(peer, EVENT_FAILED_PROTOCOL, (int)hs->fault);
    return lose_with_errno(peer, -err);
}

/* The user's answer: a status of RFC 27. 0 or -1. */
static int
decide(ZmtpPeerObject *peer, int status)
{
    if (peer->state != PEER_SHAKING || peer->shaking->hs.phase != AZS_ZMTP_DECIDE)
        return 0; /* it has left meanwhile */
    azs_zmtp_handshake_decide(&peer->shaking->hs, status);
    if (shake_on(peer) < 0)
        return -1;
    return is_connected(peer) && peer->socket->loop != NULL
               ? azs_watcher_post(peer->socket->loop, &peer->watcher, EPOLLIN)
               : 0; /* what has come behind */
}

/* ---- frames ---- */

/* Appends, stealing the frame. 0 or -1. */
static int
add_frame(ZmtpPeerObject *peer, PyObject *frame)
{
    if (azs_unlikely(peer->nframes == peer->frames_room)) {
        int room = peer->frames_room > 0 ? 2 * peer->frames_room : 4;
        PyObject **grown = PyMem_Resize(peer->frames, PyObject *, (size_t)room);
        if (grown == NULL) {
            Py_DECREF(frame);
            PyErr_NoMemory();
            return -1;
        }
        peer->frames = grown;
        peer->frames_room = room;
    }
    peer->frames[peer->nframes++] = frame;
    return 0;
}

int
azs_native_peer_push(ZmtpPeerObject *peer, int skip, PyObject *first)
{
    ZmtpSocketObject *socket = peer->socket;
    int before = first != NULL;
    PyObject *list = PyList_New(peer->nframes - skip + before);
    if (list == NULL)
        return -1;
    /* The list may have had the collector run, which may have ended us. */
    if (peer->state != PEER_READY || socket->closed) {
        Py_DECREF(list);
        return 0;
    }
    PyObject **items = ((PyListObject *)list)->ob_item;
    if (before)
        items[0] = Py_NewRef(first);
    for (int i = 0; i < peer->nframes; i++) {
        if (i < skip)
            Py_DECREF(peer->frames[i]);
        else
            items[before + i - skip] = peer->frames[i];
    }
    peer->nframes = 0;
    if ((peer->in.slots == NULL && azs_ring_init(&peer->in, 16) < 0) ||
        azs_ring_push(&peer->in, (uintptr_t)list) < 0) {
        Py_DECREF(list);
        PyErr_NoMemory();
        return -1;
    }
    if (!peer->active) {
        if ((socket->active.slots == NULL && azs_ring_init(&socket->active, 16) < 0) ||
            azs_ring_push(&socket->active, (uintptr_t)peer) < 0) {
            PyErr_NoMemory();
            return -1;
        }
        peer->active = true;
        Py_INCREF(peer);
    }
    return 0;
}

static int
take_command(ZmtpPeerObject *peer, const azs_zmtp_frame *frame)
{
    azs_zmtp_subscription subscription;
    if (azs_zmtp_subscription_parse(frame, &subscription))
        return azs_native_peer_subscription(peer->socket, peer, &subscription);
    azs_zmtp_command command;
    if (azs_zmtp_command_parse(frame->body, frame->size, &command) < 0 ||
        command.kind != AZS_ZMTP_PING)
        return 0; /* as libzmq: what is not known is not heeded */
    uint16_t ttl;
    uint8_t *context, pong[AZS_ZMTP_PING_MAX];
    size_t size;
    if (azs_zmtp_ping_parse(&command, &ttl, &context, &size) < 0)
        return 0;
    azs_zmtp_heartbeat_pinged(&peer->heartbeat, ttl, azs_clock_ns());
    size = azs_zmtp_pong_put(pong, context, size);
    return azs_native_peer_send_command(peer, AZS_ZMTP_COMMAND, pong, size);
}

/* The frame's body as bytes: the room that it was received into, or a copy. */
static PyObject *
frame_bytes(ZmtpPeerObject *peer, const azs_zmtp_frame *frame)
{
    if (peer->room != NULL && frame->body == (uint8_t *)PyBytes_AS_STRING(peer->room) &&
        frame->size == (size_t)PyBytes_GET_SIZE(peer->room)) {
        PyObject *body = peer->room;
        peer->room = NULL;
        return body;
    }
    return PyBytes_FromStringAndSize((const char *)frame->body,
                                     (Py_ssize_t)frame->size);
}

/* A frame of traffic. 0; -1 with an exception; or -errno below that. */
static int
take_frame(ZmtpPeerObject *peer, azs_zmtp_frame *frame)
{
    ZmtpSocketObject *socket = peer->socket;
    if (azs_unlikely(peer->curve != NULL)) {
        azs_zmtp_fault fault;
        if (azs_zmtp_curve_open(peer->curve, frame, &fault) < 0)
            return -EPROTO;
    }
    if (azs_unlikely(frame->flags & AZS_ZMTP_COMMAND))
        return take_command(peer, frame) < 0 ? -1 : 0;
    if ((socket->type == ZMQ_PUB || socket->type == ZMQ_XPUB) && peer->nframes == 0) {
        azs_zmtp_subscription subscription;
        if (!(frame->flags & AZS_ZMTP_MORE) &&
            azs_zmtp_subscription_parse(frame, &subscription))
            return azs_native_peer_subscription(socket, peer, &subscription) < 0 ? -1
                                                                                 : 0;
    }
    if (azs_unlikely(peer->nframes == FRAMES_MAX))
        return -EMSGSIZE;
    PyObject *body = frame_bytes(peer, frame);
    if (body == NULL || add_frame(peer, body) < 0)
        return -1;
    if (frame->flags & AZS_ZMTP_MORE)
        return 0;
    int err = socket->pattern->received(socket, peer);
    while (azs_unlikely(peer->nframes > 0)) /* not taken */
        Py_DECREF(peer->frames[--peer->nframes]);
    return err;
}

/* Room for a large frame: bytes that grow with what has come. 0 or -1. */
static int
give_room(ZmtpPeerObject *peer)
{
    size_t wants = azs_zmtp_decoder_wants(&peer->decoder);
    if (peer->room == NULL)
        peer->room = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)wants);
    else
        _PyBytes_Resize(&peer->room, (Py_ssize_t)wants);
    if (peer->room == NULL)
        return -1;
    azs_zmtp_decoder_give(&peer->decoder, (uint8_t *)PyBytes_AS_STRING(peer->room),
                          wants);
    return 0;
}

static inline bool
is_stuffed(const ZmtpPeerObject *peer)
{
    int hwm = peer->socket->options.rcvhwm;
    return hwm > 0 && peer->in.count >= (size_t)hwm;
}

static void
want_read(ZmtpPeerObject *peer, bool wanted)
{
    uint32_t interest = peer->watcher.interest;
    uint32_t now = wanted ? interest | EPOLLIN : interest & ~(uint32_t)EPOLLIN;
    LoopObject *loop = peer->socket->loop;
    if (now != interest && peer->watcher.fd >= 0 && loop != NULL &&
        azs_watcher_modify(loop, &peer->watcher, now) < 0) {
        PyErr_Clear();
        peer->broken = ENOMEM;
    }
}

/* What was fed. 0, or -1 with an exception; the peer may be lost then or not. */
static int
take_frames(ZmtpPeerObject *peer)
{
    azs_zmtp_frame frame;
    while (is_connected(peer)) {
        if (peer->state == PEER_SHAKING && peer->shaking->hs.phase == AZS_ZMTP_DECIDE)
            return 0;
        if (azs_unlikely(is_stuffed(peer))) {
            peer->stuffed = true;
            azs_zmtp_heartbeat_pause(&peer->heartbeat);
            want_read(peer, false);
            return 0;
        }
        int got = azs_zmtp_decoder_next(&peer->decoder, &frame);
        if (got == AZS_ZMTP_STARVED)
            return 0;
        if (got == AZS_ZMTP_ROOM) {
            if (give_room(peer) < 0)
                return -1;
            continue;
        }
        if (got < 0)
            return lose_with_errno(peer, -got);
        int err;
        if (azs_likely(peer->state == PEER_READY)) {
            err = take_frame(peer, &frame);
            if (err < -1)
                return lose_with_errno(peer, -err);
            if (err < 0)
                return -1;
        } else {
            err = azs_zmtp_handshake_receive(&peer->shaking->hs, &frame);
            if (err < 0)
                return fail_handshake(peer, err);
            if (shake_on(peer) < 0)
                return -1;
        }
    }
    return 0;
}

/* Octets that were read into the loop's memory. */
static int
take_octets(ZmtpPeerObject *peer, uint8_t *data, size_t size)
{
    if (peer->state == PEER_SHAKING && peer->shaking->hs.phase == AZS_ZMTP_GREETING) {
        int n = azs_zmtp_handshake_greet(&peer->shaking->hs, data, size);
        if (n < 0)
            return fail_handshake(peer, n);
        data += n;
        size -= (size_t)n;
        if (peer->shaking->hs.phase != AZS_ZMTP_GREETING && shake_on(peer) < 0)
            return -1;
        if (!is_connected(peer))
            return 0;
    }
    if (size == 0)
        return 0;
    azs_zmtp_decoder_feed(&peer->decoder, data, size);
    if (take_frames(peer) < 0)
        return -1;
    if (is_connected(peer) && azs_zmtp_decoder_keep(&peer->decoder) < 0) {
        PyErr_NoMemory();
        return -1;
    }
    return 0;
}

static int
read_on(ZmtpPeerObject *peer)
{
    size_t budget = READ_BUDGET;
    while (
        is_connected(peer) && !peer->stuffed && budget > 0 &&
        !(peer->state == PEER_SHAKING && peer->shaking->hs.phase == AZS_ZMTP_DECIDE)) {
        size_t size = 0;
        uint8_t *target = azs_zmtp_decoder_target(&peer->decoder, &size);
        uint8_t *to = target;
        if (azs_likely(target == NULL)) {
            to = (uint8_t *)azs_loop_scratch(peer->socket->loop);
            if (to == NULL)
                return -1;
            size = READ_SIZE;
        }
        ssize_t n = recv(peer->fd, to, size, MSG_DONTWAIT);
        if (n < 0) {
            if (errno == EINTR)
                continue;
            return errno == EAGAIN ? 0 : lose_with_errno(peer, errno);
        }
        if (n == 0)
            return lose_with_errno(peer, EPIPE);
        peer->socket->loop->stats.packets_received++;
        azs_zmtp_heartbeat_received(&peer->heartbeat);
        budget -= (size_t)n < budget ? (size_t)n : budget;
        if (target != NULL) {
            azs_zmtp_decoder_read(&peer->decoder, (size_t)n);
            if (take_frames(peer) < 0)
                return -1;
        } else {
            if (take_octets(peer, to, (size_t)n) < 0)
                return -1;
            /* The rest, if there is any, wakes the loop again. */
            if ((size_t)n < size && !azs_zmtp_decoder_has_room(&peer->decoder))
                return 0;
        }
    }
    return 0;
}

static int
start_beating(ZmtpPeerObject *peer)
{
    peer->beating = true;
    PyObject *res =
        PyObject_CallMethod((PyObject *)peer->socket, "_beat", "O", (PyObject *)peer);
    if (res == NULL)
        return -1;
    Py_DECREF(res);
    return 0;
}

static int
on_ready(azs_watcher *watcher, uint32_t events)
{
    ZmtpPeerObject *peer = (ZmtpPeerObject *)watcher->owner;
    ZmtpSocketObject *socket = (ZmtpSocketObject *)Py_NewRef(peer->socket);
    int result = 0;
    if (azs_unlikely(socket->loop == NULL || !is_connected(peer) ||
                     socket->loop->fork_generation != azs_fork_generation))
        goto done;
    if (events & EPOLLOUT)
        azs_native_peer_flush(peer);
    if (azs_unlikely(peer->stuffed)) {
        if (peer->in.count * 2 > (size_t)socket->options.rcvhwm)
            goto done;
        peer->stuffed = false;
        azs_zmtp_heartbeat_resume(&peer->heartbeat);
        want_read(peer, true);
        result = take_frames(peer);
    } else if (is_connected(peer) && azs_zmtp_decoder_pending(&peer->decoder) > 0 &&
               !azs_zmtp_decoder_has_room(&peer->decoder)) {
        result = take_frames(peer); /* what came while somebody decided */
    }
    if (result == 0 && (events & ~(uint32_t)EPOLLOUT))
        result = read_on(peer);
    if (azs_unlikely(result < 0 && is_connected(peer))) {
        /* No memory, or what a hook raised: the rest of the stream has no meaning. */
        PyObject *exc = azs_exc_take();
        if (lose_with_errno(peer, ENOMEM) < 0)
            PyErr_WriteUnraisable((PyObject *)peer);
        azs_exc_restore_steal(exc);
    }
    if (result == 0 && azs_unlikely(peer->broken != 0))
        result = lose_with_errno(peer, peer->broken);
    if (result == 0 &&
        azs_unlikely(!peer->beating && peer->state == PEER_READY &&
                     azs_zmtp_heartbeat_due(&peer->heartbeat) != AZS_ZMTP_NEVER_NS))
        result = start_beating(peer);
    if (azs_unlikely(socket->closed && azs_native_peer_waiting(peer) == 0 &&
                     result == 0)) {
        PyObject *res =
            PyObject_CallMethod((PyObject *)socket, "_peer_drained", "O", peer);
        result = res == NULL ? -1 : 0;
        Py_XDECREF(res);
    }
    bool room = socket->wants_room && peer->piped && azs_native_peer_has_room(peer);
    if (room)
        socket->wants_room = false;
    if (room || socket->active.count > 0 || socket->news.count > 0) {
        PyObject *exc = result < 0 ? azs_exc_take() : NULL;
        if (azs_native_socket_tell(socket) < 0) {
            if (exc != NULL)
                PyErr_WriteUnraisable((PyObject *)socket);
            else
                result = -1;
        }
        if (exc != NULL)
            azs_exc_restore_steal(exc);
    }
done:
    Py_DECREF(socket);
    return result;
}

/* ---- methods ---- */

PyDoc_STRVAR(attach_doc, "_attach($self, fd, /)\n--\n\n"
                         "Begin the handshake on a connected, non-blocking socket, "
                         "whose\ndescriptor is the peer's from now on.");

static PyObject *
ZmtpPeer__attach(ZmtpPeerObject *self, PyObject *arg)
{
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
    ssize_t n = send(fd, shaking->hs.greeting, GREETING_SIZE, MSG_NOSIGNAL);
    if (n != GREETING_SIZE) {
        self->broken = n < 0 ? errno : EPIPE;
        if (azs_watcher_post(socket->loop, &self->watcher, EPOLLERR) < 0) {
            self->fd = -1; /* the caller's again */
            disconnect(self, PEER_IDLE);
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
    int status = (int)PyLong_AsLong(arg);
    if (status == -1 && PyErr_Occurred())
        return NULL;
    if (decide(self, status) < 0)
        return NULL;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(disconnect_doc,
             "_disconnect($self, event=0, value=0, /)\n--\n\n"
             "End the connection as if it had failed: _peer_lost() follows.");

static PyObject *
ZmtpPeer__disconnect(ZmtpPeerObject *self, PyObject *args)
{
    int event = EVENT_DISCONNECTED, value = 0;
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
    if (self->state != PEER_CLOSED && self->socket != NULL)
        disconnect(self, PEER_CLOSED);
    Py_CLEAR(self->owner);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(heartbeat_doc,
             "_heartbeat($self, /)\n--\n\n"
             "Send a PING if one is due, end a silent peer; the seconds until the\n"
             "next look, or None for never.");

static PyObject *
ZmtpPeer__heartbeat(ZmtpPeerObject *self, PyObject *Py_UNUSED(ignored))
{
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
            if (azs_native_peer_lose(self, EVENT_DISCONNECTED, self->fd) < 0)
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
    azs_native_peer_flush(self);
    Py_RETURN_NONE;
}

static PyMethodDef peer_methods[] = {
    {"_attach", (PyCFunction)ZmtpPeer__attach, METH_O, attach_doc},
    {"_decide", (PyCFunction)ZmtpPeer__decide, METH_O, decide_doc},
    {"_disconnect", (PyCFunction)ZmtpPeer__disconnect, METH_VARARGS, disconnect_doc},
    {"_close", (PyCFunction)ZmtpPeer__close, METH_NOARGS, close_doc},
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
    ZmtpPeerObject *self = (ZmtpPeerObject *)type->tp_alloc(type, 0);
    if (self == NULL)
        return NULL;
    self->st = azs_state_hold(socket->st);
    self->socket = (ZmtpSocketObject *)Py_NewRef(socket);
    self->owner = Py_NewRef(owner);
    self->fd = -1;
    self->connects = connects;
    azs_watcher_init(&self->watcher, (PyObject *)self, on_ready);
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
        disconnect(self, PEER_CLOSED);
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
    /* Resurrection is none: disconnect() runs no Python code. */
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
