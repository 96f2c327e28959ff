/* What a peer is sent. */
#include <errno.h>
#include <sys/socket.h>

#include "py/errors.h"
#include "zmq/native/native.h"

static void
release_bytes(void *owner)
{
    Py_DECREF((PyObject *)owner); /* exact bytes: no finalizer runs */
}

/* ---- batches ---- */

/* As many peers as are sent to within 100 us, and some more. */
enum { SPARE_BATCHES = 64 };

static azs_native_batch *
take_batch(ZmtpSocketObject *socket)
{
    azs_native_batch *batch = socket->spares;
    if (azs_likely(batch != NULL)) {
        socket->spares = batch->next;
        socket->nspares--;
    } else {
        batch = PyMem_Malloc(sizeof(*batch));
        if (batch == NULL) {
            PyErr_NoMemory();
            return NULL;
        }
    }
    azs_zmtp_batch_init(&batch->batch, batch->memory, sizeof(batch->memory),
                        release_bytes);
    return batch;
}

static void
give_batch(ZmtpPeerObject *peer)
{
    azs_native_batch *batch = peer->batch;
    ZmtpSocketObject *socket = peer->socket;
    peer->batch = NULL;
    peer->batched = 0;
    if (batch == NULL)
        return;
    azs_zmtp_batch_clear(&batch->batch);
    if (socket == NULL || socket->nspares >= SPARE_BATCHES) {
        PyMem_Free(batch);
        return;
    }
    batch->next = socket->spares;
    socket->spares = batch;
    socket->nspares++;
}

void
azs_native_peer_drop_out(ZmtpPeerObject *peer, bool all)
{
    give_batch(peer);
    peer->out_frame = 0; /* its first frames are sent again */
    if (!all)
        return;
    while (peer->out.count > 0)
        Py_DECREF((PyObject *)azs_ring_pop(&peer->out));
    peer->out_octets = 0;
    azs_ring_free(&peer->out);
}

/* ---- encoding ---- */

/* 0, ENOBUFS where the batch is full, or -1 with an exception. */
static int
put_sealed(ZmtpPeerObject *peer, unsigned flags, const uint8_t *body, size_t size)
{
    azs_zmtp_batch *batch = &peer->batch->batch;
    size_t sealed_size = size + AZS_ZMTP_CURVE_OVERHEAD;
    uint8_t *out;
    if (sealed_size < AZS_ZMTP_REFERENCE_MIN) {
        out = azs_zmtp_batch_reserve(batch, 0, sealed_size);
        if (out == NULL)
            return ENOBUFS;
        if (azs_zmtp_curve_seal(peer->curve, flags, body, size, out) < 0)
            peer->broken = EPROTO;
        return 0;
    }
    if (batch->end + 2 > AZS_ZMTP_BATCH_PIECES ||
        batch->size - batch->used < AZS_ZMTP_HEADER_MAX)
        return ENOBUFS;
    PyObject *sealed = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)sealed_size);
    if (sealed == NULL)
        return -1;
    out = (uint8_t *)PyBytes_AS_STRING(sealed);
    if (azs_zmtp_curve_seal(peer->curve, flags, body, size, out) < 0)
        peer->broken = EPROTO;
    int put = azs_zmtp_batch_put(batch, 0, out, sealed_size, sealed);
    assert(put == 1);
    (void)put;
    return 0;
}

static inline int
put_frame(ZmtpPeerObject *peer, unsigned flags, PyObject *frame)
{
    const uint8_t *body = (const uint8_t *)PyBytes_AS_STRING(frame);
    size_t size = (size_t)PyBytes_GET_SIZE(frame);
    if (azs_unlikely(peer->curve != NULL))
        return put_sealed(peer, flags, body, size);
    int put = azs_zmtp_batch_put(&peer->batch->batch, flags, body, size, frame);
    if (put == 1)
        Py_INCREF(frame);
    return put < 0 ? ENOBUFS : 0;
}

/* Encodes frames from *next on: 0; ENOBUFS where *next did not fit; -1. */
static inline int
encode(ZmtpPeerObject *peer, PyObject *const *parts, Py_ssize_t nparts,
       Py_ssize_t *next)
{
    if (peer->batch == NULL) {
        peer->batch = take_batch(peer->socket);
        if (peer->batch == NULL)
            return -1;
    }
    for (; *next < nparts; ++*next) {
        unsigned flags = *next < nparts - 1 ? AZS_ZMTP_MORE : 0;
        int err = put_frame(peer, flags, parts[*next]);
        if (azs_unlikely(err != 0))
            return err;
    }
    peer->batched++;
    return 0;
}

/* ---- sending ---- */

static int
mark_dirty(ZmtpPeerObject *peer)
{
    ZmtpSocketObject *socket = peer->socket;
    if (peer->dirty || socket->loop == NULL)
        return 0;
    if ((socket->dirty.slots == NULL && azs_ring_init(&socket->dirty, 16) < 0) ||
        azs_ring_push(&socket->dirty, (uintptr_t)peer) < 0) {
        PyErr_NoMemory();
        return -1;
    }
    peer->dirty = true;
    Py_INCREF(peer);
    azs_loop_defer(socket->loop, &socket->flush);
    return 0;
}

bool
azs_native_peer_has_room(const ZmtpPeerObject *peer)
{
    int hwm = peer->socket->options.sndhwm;
    size_t max_queued = peer->socket->options.max_queued;
    return !peer->leaving &&
           (hwm == 0 || azs_native_peer_waiting(peer) < (size_t)hwm) &&
           (max_queued == 0 || peer->out_octets < max_queued);
}

/* What an item of the queue counts: a command is no message. */
static size_t
octets_of(PyObject *item)
{
    if (!PyTuple_CheckExact(item))
        return 0;
    return (size_t)azs_zmq_message_size(((PyTupleObject *)item)->ob_item,
                                        PyTuple_GET_SIZE(item));
}

/* Queues a tuple, or the bytes of a command: the reference is stolen. 0 or -1. */
static int
queue_add(ZmtpPeerObject *peer, PyObject *item)
{
    if ((peer->out.slots == NULL && azs_ring_init(&peer->out, 16) < 0) ||
        azs_ring_push(&peer->out, (uintptr_t)item) < 0) {
        Py_DECREF(item);
        PyErr_NoMemory();
        return -1;
    }
    peer->out_octets += octets_of(item);
    return 0;
}

static int
queue_push(ZmtpPeerObject *peer, PyObject *const *parts, Py_ssize_t nparts)
{
    /* Callers go through tries and arrays of peers: no finalizer may end one now. */
    int collects = PyGC_Disable();
    PyObject *message = PyTuple_New(nparts);
    if (collects)
        PyGC_Enable();
    if (message == NULL)
        return -1;
    for (Py_ssize_t i = 0; i < nparts; i++)
        PyTuple_SET_ITEM(message, i, Py_NewRef(parts[i]));
    PyObject_GC_UnTrack(message); /* bytes only */
    return queue_add(peer, message);
}

/* A message that is encoded in part, and whose rest there is no memory for, would be
 * the head of the next one: the connection ends. -1. */
static int
give_up(ZmtpPeerObject *peer, Py_ssize_t encoded)
{
    if (encoded > 0) {
        peer->broken = ENOMEM;
        PyObject *exc = azs_exc_take();
        if (mark_dirty(peer) < 0)
            PyErr_Clear();
        azs_exc_restore_steal(exc);
    }
    return -1;
}

int
azs_native_peer_send(ZmtpPeerObject *peer, PyObject *const *parts, Py_ssize_t nparts)
{
    if (azs_unlikely(!azs_native_peer_has_room(peer))) {
        /* All that was written in this callback: the kernel may have room. */
        if (peer->state == PEER_READY)
            azs_native_peer_flush(peer);
        if (!azs_native_peer_has_room(peer))
            return EAGAIN;
    }
    Py_ssize_t next = 0;
    if (azs_likely(peer->out.count == 0 && peer->state == PEER_READY && !peer->deaf)) {
        int err = encode(peer, parts, nparts, &next);
        if (azs_likely(err == 0))
            return mark_dirty(peer);
        if (err < 0)
            return give_up(peer, next);
    }
    if (queue_push(peer, parts, nparts) < 0)
        return give_up(peer, next);
    if (peer->state != PEER_READY)
        return 0;
    if (peer->out.count == 1)
        peer->out_frame = next;
    if (mark_dirty(peer) < 0)
        return -1;
    if (!(peer->watcher.interest & EPOLLOUT))
        azs_native_peer_flush(peer); /* the batch is full */
    return 0;
}

/* Encodes a command: 0, ENOBUFS where there is no place for it, or -1. */
static int
put_command(ZmtpPeerObject *peer, unsigned flags, PyObject *frame)
{
    if (azs_unlikely(peer->deaf))
        return 0; /* in vain */
    for (int tries = 0; tries < 2; tries++) {
        if (peer->out_frame != 0)
            break; /* not into the middle of a message that is encoded in part */
        if (peer->batch == NULL && (peer->batch = take_batch(peer->socket)) == NULL)
            return -1;
        int put = put_frame(peer, flags, frame);
        if (put != ENOBUFS)
            return put < 0 ? -1 : mark_dirty(peer);
        azs_native_peer_flush(peer);
    }
    return ENOBUFS;
}

int
azs_native_peer_send_command(ZmtpPeerObject *peer, unsigned flags, const uint8_t *body,
                             size_t size)
{
    PyObject *frame = PyBytes_FromStringAndSize((const char *)body, (Py_ssize_t)size);
    if (frame == NULL)
        return -1;
    int err = put_command(peer, flags, frame);
    Py_DECREF(frame);
    return err == ENOBUFS ? 0 : err; /* the kernel takes nothing: a PONG is in vain */
}

int
azs_native_peer_send_subscription(ZmtpPeerObject *peer, unsigned flags,
                                  const uint8_t *body, size_t size)
{
    PyObject *frame = PyBytes_FromStringAndSize((const char *)body, (Py_ssize_t)size);
    if (frame == NULL)
        return -1;
    /* Behind those that wait: one may cancel the other. */
    int err = peer->out.count > 0 ? ENOBUFS : put_command(peer, flags, frame);
    if (err == ENOBUFS) {
        if (flags & AZS_ZMTP_COMMAND)
            err = queue_add(peer, Py_NewRef(frame));
        else
            err = queue_push(peer, &frame, 1);
        if (err == 0)
            err = mark_dirty(peer);
    }
    Py_DECREF(frame);
    return err;
}

static int
encode_item(ZmtpPeerObject *peer, PyObject *item)
{
    if (PyTuple_CheckExact(item))
        return encode(peer, ((PyTupleObject *)item)->ob_item, PyTuple_GET_SIZE(item),
                      &peer->out_frame);
    if (peer->batch == NULL && (peer->batch = take_batch(peer->socket)) == NULL)
        return -1;
    return put_frame(peer, AZS_ZMTP_COMMAND, item);
}

/* Encodes what waits, as long as there is room. 0, or -1 without an exception. */
static int
fill(ZmtpPeerObject *peer)
{
    while (peer->out.count > 0) {
        PyObject *message = (PyObject *)azs_ring_at(&peer->out, 0);
        int err = encode_item(peer, message);
        if (err == ENOBUFS)
            return 0;
        if (err < 0) {
            PyErr_Clear(); /* no memory: tried again with the next flush */
            return -1;
        }
        peer->out_frame = 0;
        azs_ring_pop(&peer->out);
        peer->out_octets -= octets_of(message);
        Py_DECREF(message);
    }
    return 0;
}

static ssize_t
send_batch(int fd, const azs_zmtp_batch *batch)
{
    ssize_t n;
    do {
        if (batch->end - batch->first == 1) {
            const struct iovec *piece = &batch->pieces[batch->first];
            n = send(fd, piece->iov_base, piece->iov_len, MSG_NOSIGNAL | MSG_DONTWAIT);
        } else {
            struct msghdr msg = {
                .msg_iov = (struct iovec *)&batch->pieces[batch->first],
                .msg_iovlen = batch->end - batch->first,
            };
            n = sendmsg(fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
        }
    } while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : n;
}

static void
want_write(ZmtpPeerObject *peer, bool wanted)
{
    LoopObject *loop = peer->socket->loop;
    uint32_t interest = peer->watcher.interest;
    uint32_t now = wanted ? interest | EPOLLOUT : interest & ~(uint32_t)EPOLLOUT;
    if (now != interest && peer->watcher.fd >= 0 && loop != NULL &&
        azs_watcher_modify(loop, &peer->watcher, now) < 0) {
        PyErr_Clear();
        peer->broken = ENOMEM;
    }
}

void
azs_native_peer_flush(ZmtpPeerObject *peer)
{
    ZmtpSocketObject *socket = peer->socket;
    if (peer->fd < 0 || socket == NULL || peer->deaf ||
        (peer->state != PEER_READY && peer->state != PEER_SHAKING))
        return;
    if (socket->loop != NULL && socket->loop->fork_generation != azs_fork_generation)
        return; /* a forked child: the connection is its parent's */
    bool blocked = false;
    while (peer->broken == 0) {
        if (peer->state == PEER_READY && fill(peer) < 0 && peer->batch == NULL)
            break;
        if (peer->batch == NULL || peer->batch->batch.octets == 0)
            break;
        ssize_t n = send_batch(peer->fd, &peer->batch->batch);
        if (n < 0) {
            if (n == -EAGAIN) {
                blocked = true;
                break;
            }
            if (n != -EPIPE && n != -ECONNRESET) {
                peer->broken = (int)-n;
                break;
            }
            /* What it sent before it went is read first: reading comes to the end. */
            azs_native_peer_drop_out(peer, false);
            peer->deaf = true;
            if (socket->loop != NULL &&
                azs_watcher_post(socket->loop, &peer->watcher, EPOLLIN) < 0)
                PyErr_Clear(); /* epoll tells of it, too */
            break;
        }
        if (socket->loop != NULL)
            AZS_COUNT(&socket->loop->stats.packets_sent, 1);
        azs_zmtp_batch_sent(&peer->batch->batch, (size_t)n);
        if (peer->batch->batch.octets > 0) {
            blocked = true;
            break;
        }
        peer->batched = 0;
    }
    if (azs_likely(!blocked && peer->batch != NULL && peer->batch->batch.octets == 0))
        give_batch(peer);
    want_write(peer, blocked);
    /* Who waits for room is told by the loop; so is an error. */
    bool drained =
        (socket->closed || peer->leaving) && azs_native_peer_waiting(peer) == 0;
    if (azs_unlikely((peer->broken != 0 || drained ||
                      (socket->wants_room && azs_native_peer_has_room(peer))) &&
                     socket->loop != NULL && peer->watcher.fd >= 0)) {
        if (azs_watcher_post(socket->loop, &peer->watcher,
                             peer->broken ? EPOLLERR : EPOLLOUT) < 0)
            PyErr_Clear();
    }
}
