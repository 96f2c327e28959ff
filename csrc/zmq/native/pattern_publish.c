/* PUB and XPUB: to those who have subscribed. */
#include <errno.h>

#include "zmq/native/pattern.h"

/* What a peer may make us remember. libzmq has no such limit. */
enum { TOPICS_MAX = 1000 * 1000, TOPIC_OCTETS_MAX = 256 * 1024 * 1024 };

static inline ZmtpPeerObject *
peer_of(azs_zmtp_subscriber *subscriber)
{
    return (ZmtpPeerObject *)((char *)subscriber -
                              offsetof(ZmtpPeerObject, subscriber));
}

/* XPUB: a subscription as a message. 0 or -1. */
static int
tell_subscription(ZmtpSocketObject *self, ZmtpPeerObject *peer, bool subscribe,
                  const uint8_t *topic, size_t size)
{
    PyObject *frame = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)size + 1);
    PyObject *list = frame == NULL ? NULL : PyList_New(1);
    if (list == NULL) {
        Py_XDECREF(frame);
        return -1;
    }
    uint8_t *body = (uint8_t *)PyBytes_AS_STRING(frame);
    body[0] = subscribe;
    azs_zmtp_copy(body + 1, topic, size);
    PyList_SET_ITEM(list, 0, frame);
    if ((self->news.slots == NULL && azs_ring_init(&self->news, 16) < 0) ||
        (self->sources.slots == NULL && azs_ring_init(&self->sources, 16) < 0) ||
        azs_ring_push(&self->sources, (uintptr_t)(peer->fd + 1)) < 0) {
        Py_DECREF(list);
        PyErr_NoMemory();
        return -1;
    }
    if (azs_ring_push(&self->news, (uintptr_t)list) < 0) {
        self->sources.count--;
        Py_DECREF(list);
        PyErr_NoMemory();
        return -1;
    }
    self->news_octets += size + 1;
    return 0;
}

/* Peers that have waited for that may be read from again. */
static void
go_on(ZmtpSocketObject *self)
{
    for (size_t i = 0; i < self->npipes; i++) {
        ZmtpPeerObject *peer = self->pipes[i];
        if (peer->stuffed && self->loop != NULL && peer->watcher.fd >= 0 &&
            azs_watcher_post(self->loop, &peer->watcher, EPOLLIN) < 0)
            PyErr_Clear(); /* the next one that is taken tries again */
    }
}

int
azs_native_peer_subscription(ZmtpSocketObject *self, ZmtpPeerObject *peer,
                             const azs_zmtp_subscription *subscription)
{
    if (self->type != ZMQ_PUB && self->type != ZMQ_XPUB)
        return 0;
    const uint8_t *topic = subscription->topic;
    size_t size = subscription->size;
    bool tells = self->type == ZMQ_XPUB;
    const azs_native_options *options = &self->options;
    int changed;
    if (subscription->subscribe) {
        if (peer->subscriber.count >= TOPICS_MAX ||
            peer->subscriber.octets + size > TOPIC_OCTETS_MAX)
            return 0;
        changed = azs_zmtp_trie_add(&self->topics, &peer->subscriber, topic, size);
        tells = tells && (changed == 1 || options->verbose || options->verboser);
    } else {
        changed = azs_zmtp_trie_remove(&self->topics, &peer->subscriber, topic, size);
        tells = tells && (changed == 1 || options->verboser);
    }
    if (changed == -ENOMEM) {
        PyErr_NoMemory();
        return -1;
    }
    return tells ? tell_subscription(self, peer, subscription->subscribe, topic, size)
                 : 0;
}

static int
publish_ready(ZmtpSocketObject *self, ZmtpPeerObject *peer)
{
    if (self->welcome == NULL)
        return 1;
    int err = azs_native_peer_send(peer, &self->welcome, 1);
    return err < 0 ? -1 : 1;
}

static void
publish_lost(ZmtpSocketObject *self, ZmtpPeerObject *peer)
{
    for (;;) {
        uint8_t *topic = NULL;
        size_t size;
        int left =
            azs_zmtp_trie_remove_any(&self->topics, &peer->subscriber, &topic, &size);
        if (left == -ENOENT)
            return;
        if (left == -ENOMEM) { /* without its topic, then */
            left =
                azs_zmtp_trie_remove_any(&self->topics, &peer->subscriber, NULL, NULL);
            continue;
        }
        if (self->type == ZMQ_XPUB && (left == 1 || self->options.verboser) &&
            !self->closed && tell_subscription(self, peer, false, topic, size) < 0)
            PyErr_Clear();
        free(topic);
    }
}

typedef struct {
    PyObject *const *parts;
    Py_ssize_t nparts;
    bool full, failed;
} publication;

static void
look_for_room(azs_zmtp_subscriber *subscriber, void *arg)
{
    publication *p = arg;
    p->full = p->full || !azs_native_peer_has_room(peer_of(subscriber));
}

static void
publish(azs_zmtp_subscriber *subscriber, void *arg)
{
    publication *p = arg;
    if (!p->failed)
        p->failed = azs_native_peer_send(peer_of(subscriber), p->parts, p->nparts) < 0;
}

static int
publish_send(ZmtpSocketObject *self, PyObject *const *parts, Py_ssize_t nparts)
{
    publication p = {parts, nparts, false, false};
    const uint8_t *topic = (const uint8_t *)PyBytes_AS_STRING(parts[0]);
    size_t size = (size_t)PyBytes_GET_SIZE(parts[0]);
    if (self->options.nodrop) {
        azs_zmtp_trie_match(&self->topics, topic, size, look_for_room, &p);
        if (p.full)
            return EAGAIN;
    }
    azs_zmtp_trie_match(&self->topics, topic, size, publish, &p);
    return p.failed ? -1 : 0;
}

static int
xpub_recv(ZmtpSocketObject *self, PyObject **message)
{
    self->source = -1;
    if (self->news.count > 0) {
        bool was_full = azs_native_news_full(self);
        *message = (PyObject *)azs_ring_pop(&self->news);
        self->source = (int)azs_ring_pop(&self->sources) - 1;
        self->news_octets -= (size_t)PyBytes_GET_SIZE(PyList_GET_ITEM(*message, 0));
        if (azs_unlikely(was_full && !azs_native_news_full(self)))
            go_on(self);
        return 0;
    }
    return azs_native_socket_take(self, message, NULL);
}

static bool
xpub_can_recv(ZmtpSocketObject *self)
{
    return self->news.count > 0 || self->active.count > 0;
}

static bool
publish_can_send(ZmtpSocketObject *self)
{
    return !self->options.nodrop || azs_native_any_room(self);
}

const azs_native_pattern azs_native_pub = {
    .send = publish_send,
    .recv = azs_native_cannot_recv,
    .received = azs_native_not_received,
    .ready = publish_ready,
    .lost = publish_lost,
    .can_send = publish_can_send,
    .can_recv = azs_native_never,
};

const azs_native_pattern azs_native_xpub = {
    .send = publish_send,
    .recv = xpub_recv,
    .received = azs_native_received,
    .ready = publish_ready,
    .lost = publish_lost,
    .can_send = publish_can_send,
    .can_recv = xpub_can_recv,
};
