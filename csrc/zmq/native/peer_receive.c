/* What a peer sends: octets, frames, messages. */
#include <errno.h>
#include <sys/socket.h>

#include "py/errors.h"
#include "zmq/native/native.h"

enum {
    READ_BUDGET = 1024 * 1024, /* a turn: other peers want to be read from, too */
    DECIDING_MAX = 64 * 1024,  /* that is kept while somebody decides on the peer */
    FRAMES_MAX = 1 << 20,      /* of a message: those of an endless one end the peer */
};

/* ---- frames ---- */

/* Appends, stealing the frame. 0 or -1. */
static int
add_frame(ZmtpPeerObject *peer, PyObject *frame)
{
    if (azs_unlikely(peer->nframes == peer->frames_room)) {
        int room = peer->frames_room > 0 ? 2 * peer->frames_room : 4;
        PyObject **grown = PyMem_Realloc(peer->frames, (size_t)room * sizeof(*grown));
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
    PyObject *list = azs_native_socket_new_list(socket, peer->nframes - skip + before);
    if (list == NULL)
        return -1;
    /* The list may have had the collector run, which may have ended us. */
    if (azs_unlikely(peer->state != PEER_READY || socket->closed || peer->leaving)) {
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
    if (azs_likely(socket->pulled != NULL)) {
        assert(*socket->pulled == NULL);
        *socket->pulled = list;
        return 0;
    }
    if ((peer->in.slots == NULL && azs_ring_init(&peer->in, 16) < 0) ||
        azs_ring_push(&peer->in, (uintptr_t)list) < 0) {
        Py_DECREF(list);
        PyErr_NoMemory();
        return -1;
    }
    return azs_native_socket_activate(socket, peer);
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
    ZmtpSocketObject *socket = peer->socket;
    if (socket->next_spare < socket->end_spare) {
        PyObject *spare = socket->spare_frames[socket->next_spare++];
        if (azs_likely((size_t)PyBytes_GET_SIZE(spare) == frame->size)) {
            azs_spare_set_size(spare, frame->size);
            memcpy(PyBytes_AS_STRING(spare), frame->body, frame->size);
            return spare;
        }
        Py_DECREF(spare);
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
    return (hwm > 0 && peer->in.count >= (size_t)hwm) ||
           azs_native_news_full(peer->socket);
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
    while (azs_native_peer_is_connected(peer)) {
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
            return azs_native_peer_fail(peer, -got);
        int err;
        if (azs_likely(peer->state == PEER_READY)) {
            err = take_frame(peer, &frame);
            if (err < -1)
                return azs_native_peer_fail(peer, -err);
            if (err < 0)
                return -1;
        } else {
            err = azs_zmtp_handshake_receive(&peer->shaking->hs, &frame);
            if (err < 0)
                return azs_native_peer_fail_handshake(peer, err);
            /* It may run Python code, which may overwrite the loop's scratch memory. */
            if (azs_zmtp_decoder_keep(&peer->decoder) < 0) {
                PyErr_NoMemory();
                return -1;
            }
            if (azs_native_peer_shake_on(peer) < 0)
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
            return azs_native_peer_fail_handshake(peer, n);
        data += n;
        size -= (size_t)n;
        if (peer->shaking->hs.phase != AZS_ZMTP_GREETING &&
            azs_native_peer_shake_on(peer) < 0)
            return -1;
        if (!azs_native_peer_is_connected(peer))
            return 0;
    }
    if (size == 0)
        return 0;
    azs_zmtp_decoder_feed(&peer->decoder, data, size);
    if (take_frames(peer) < 0)
        return -1;
    if (azs_native_peer_is_connected(peer) &&
        azs_zmtp_decoder_keep(&peer->decoder) < 0) {
        PyErr_NoMemory();
        return -1;
    }
    return 0;
}

/* ---- what was read and not decoded ---- */

void
azs_native_peer_drop_buffer(ZmtpPeerObject *peer)
{
    uint8_t *buffer = peer->buffer;
    ZmtpSocketObject *socket = peer->socket;
    peer->buffer = NULL;
    if (buffer == NULL)
        return;
    if (socket != NULL && socket->spare_buffer == NULL)
        socket->spare_buffer = buffer;
    else
        PyMem_Free(buffer);
}

static uint8_t *
take_buffer(ZmtpSocketObject *socket)
{
    uint8_t *buffer = socket->spare_buffer;
    socket->spare_buffer = NULL;
    if (azs_unlikely(buffer == NULL)) {
        buffer = PyMem_Malloc(AZS_NATIVE_READ_SIZE);
        if (buffer == NULL)
            PyErr_NoMemory();
    }
    return buffer;
}

/* Nothing that follows has a meaning; whoever runs the loop ends the connection. */
static void
garble(ZmtpPeerObject *peer, int err)
{
    LoopObject *loop = peer->socket->loop;
    peer->garbled = true;
    peer->broken = err;
    azs_native_peer_drop_buffer(peer);
    azs_zmtp_decoder_clear(&peer->decoder);
    if (loop != NULL && azs_watcher_post(loop, &peer->watcher, EPOLLERR) < 0)
        PyErr_Clear(); /* the peer's next octets, or its end, do as well */
}

bool
azs_native_peer_pull(ZmtpPeerObject *peer, PyObject **message)
{
    ZmtpSocketObject *socket = peer->socket;
    azs_zmtp_frame frame;
    *message = NULL;
    socket->pulled = message;
    while (peer->buffer != NULL) {
        int got = azs_zmtp_decoder_next(&peer->decoder, &frame);
        if (azs_likely(got == AZS_ZMTP_FRAME)) {
            int err = take_frame(peer, &frame);
            if (azs_unlikely(err < 0)) {
                if (err == -1)
                    PyErr_Clear();
                garble(peer, err == -1 ? ENOMEM : -err);
            }
            if (*message != NULL) {
                if (peer->buffer != NULL &&
                    azs_zmtp_decoder_pending(&peer->decoder) == 0)
                    azs_native_peer_drop_buffer(peer);
                break;
            }
        } else if (got == AZS_ZMTP_ROOM) {
            if (give_room(peer) < 0) {
                PyErr_Clear();
                garble(peer, ENOMEM);
            }
        } else if (got == AZS_ZMTP_STARVED) {
            azs_native_peer_drop_buffer(peer);
        } else {
            garble(peer, -got);
        }
    }
    socket->pulled = NULL;
    return *message != NULL;
}

/* Has the transport ask for what is in the buffer; if it does not, the rest is decoded
 * here. 0, or -1 with an exception; what the transport raises is put into *raised. */
static int
hand_over(ZmtpPeerObject *peer, PyObject **raised)
{
    ZmtpSocketObject *socket = peer->socket;
    if (azs_native_socket_activate(socket, peer) < 0)
        return -1;
    int asks = azs_native_socket_tell(socket);
    if (azs_unlikely(asks < 0)) {
        *raised = azs_exc_take();
        return 0; /* its next turn asks for what is left */
    }
    if (asks > 0 || peer->buffer == NULL)
        return 0;
    if (take_frames(peer) < 0)
        return -1;
    if (peer->buffer != NULL && azs_zmtp_decoder_feeds(&peer->decoder) == 0)
        azs_native_peer_drop_buffer(peer);
    return 0;
}

static inline bool
is_deciding(const ZmtpPeerObject *peer)
{
    return peer->state == PEER_SHAKING && peer->shaking->hs.phase == AZS_ZMTP_DECIDE;
}

/* Does the transport take messages as they are decoded? */
static inline bool
is_pulled(const ZmtpPeerObject *peer)
{
    const ZmtpSocketObject *socket = peer->socket;
    return peer->state == PEER_READY && socket->pattern->pulls &&
           socket->on_ready != NULL && !socket->closed;
}

static int
read_on(ZmtpPeerObject *peer, PyObject **raised)
{
    ZmtpSocketObject *socket = peer->socket;
    size_t budget = READ_BUDGET;
    while (azs_native_peer_is_connected(peer) && !peer->stuffed && !peer->garbled &&
           budget > 0 && socket->loop != NULL) {
        /* Only to see whether it is there still. */
        if (azs_unlikely(is_deciding(peer) &&
                         azs_zmtp_decoder_pending(&peer->decoder) >= DECIDING_MAX)) {
            want_read(peer, false);
            return 0;
        }
        size_t size = 0;
        uint8_t *target = azs_zmtp_decoder_target(&peer->decoder, &size);
        uint8_t *to = target;
        bool pulled = false;
        if (azs_likely(target == NULL)) {
            pulled = is_pulled(peer);
            to = pulled ? take_buffer(socket)
                        : (uint8_t *)azs_loop_scratch(socket->loop);
            if (to == NULL)
                return -1;
            size = AZS_NATIVE_READ_SIZE;
        }
        if (pulled)
            peer->buffer = to;
        ssize_t n = recv(peer->fd, to, size, MSG_DONTWAIT);
        int err = n < 0 ? errno : 0;
        if (azs_unlikely(n <= 0)) {
            azs_native_peer_drop_buffer(peer);
            if (err == EINTR)
                continue;
            if (err == EAGAIN)
                return 0;
            return azs_native_peer_fail(peer, n == 0 ? EPIPE : err);
        }
        AZS_COUNT(&socket->loop->stats.packets_received, 1);
        azs_zmtp_heartbeat_received(&peer->heartbeat);
        budget -= (size_t)n < budget ? (size_t)n : budget;
        if (target != NULL) {
            azs_zmtp_decoder_read(&peer->decoder, (size_t)n);
            if (take_frames(peer) < 0)
                return -1;
            continue;
        }
        if (pulled) {
            azs_zmtp_decoder_feed(&peer->decoder, to, (size_t)n);
            if (hand_over(peer, raised) < 0)
                return -1;
            if (peer->buffer != NULL || *raised != NULL)
                return 0;
        } else if (take_octets(peer, to, (size_t)n) < 0) {
            return -1;
        }
        /* The rest, if there is any, wakes the loop again. */
        if ((size_t)n < size && !azs_zmtp_decoder_has_room(&peer->decoder))
            return 0;
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

int
azs_native_peer_on_ready(azs_watcher *watcher, uint32_t events)
{
    ZmtpPeerObject *peer = (ZmtpPeerObject *)watcher->owner;
    ZmtpSocketObject *socket = (ZmtpSocketObject *)Py_NewRef(peer->socket);
    PyObject *raised = NULL;
    int result = 0;
    if (azs_unlikely(socket->loop == NULL || !azs_native_peer_is_connected(peer) ||
                     socket->loop->fork_generation != azs_fork_generation))
        goto done;
    if (events & EPOLLOUT)
        azs_native_peer_flush(peer);
    if (azs_unlikely(peer->stuffed)) {
        if (is_stuffed(peer) || (socket->options.rcvhwm > 0 &&
                                 peer->in.count * 2 > (size_t)socket->options.rcvhwm))
            goto done;
        peer->stuffed = false;
        azs_zmtp_heartbeat_resume(&peer->heartbeat);
    }
    if (!is_deciding(peer))
        want_read(peer, true);
    if (peer->buffer != NULL)
        result = hand_over(peer, &raised);
    else if (azs_zmtp_decoder_pending(&peer->decoder) > 0 &&
             !azs_zmtp_decoder_has_room(&peer->decoder))
        result = take_frames(peer); /* what was kept */
    if (result == 0 && raised == NULL && peer->buffer == NULL &&
        (events & ~(uint32_t)EPOLLOUT))
        result = read_on(peer, &raised);
    if (azs_unlikely(result < 0 && azs_native_peer_is_connected(peer))) {
        /* No memory, or what a hook raised: the rest of the stream has no meaning. */
        PyObject *exc = azs_exc_take();
        if (azs_native_peer_fail(peer, ENOMEM) < 0)
            PyErr_WriteUnraisable((PyObject *)peer);
        azs_exc_restore_steal(exc);
    }
    if (result == 0 && azs_unlikely(peer->broken != 0))
        result = azs_native_peer_fail(peer, peer->broken);
    if (result == 0 &&
        azs_unlikely(!peer->beating && peer->state == PEER_READY &&
                     azs_zmtp_heartbeat_due(&peer->heartbeat) != AZS_ZMTP_NEVER_NS))
        result = start_beating(peer);
    if (azs_unlikely(peer->drops && !peer->told && result == 0)) {
        peer->told = true;
        PyObject *res =
            PyObject_CallMethod((PyObject *)socket, "_peer_drops", "O", peer);
        result = res == NULL ? -1 : 0;
        Py_XDECREF(res);
    }
    if (azs_unlikely((socket->closed || peer->leaving) &&
                     azs_native_peer_waiting(peer) == 0 && result == 0)) {
        PyObject *res =
            PyObject_CallMethod((PyObject *)socket, "_peer_drained", "O", peer);
        result = res == NULL ? -1 : 0;
        Py_XDECREF(res);
    }
    bool room = socket->wants_room && peer->piped && azs_native_peer_has_room(peer);
    if (room)
        socket->wants_room = false;
    if (raised != NULL) {
        /* It has been told. */
        if (result < 0)
            PyErr_WriteUnraisable((PyObject *)socket);
        azs_exc_restore_steal(raised);
        result = -1;
    } else if (room || socket->active.count > 0 || socket->news.count > 0) {
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
