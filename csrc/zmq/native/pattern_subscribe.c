/* SUB and XSUB: from those whom we have told our topics. */
#include <errno.h>

#include "zmq/native/pattern.h"

enum { PREFIX_MAX = 10 };

/* Tells one peer. 0 or -1. */
static int
tell(ZmtpPeerObject *peer, bool subscribe, const uint8_t *topic, size_t size)
{
    uint8_t few[256], *body = few;
    if (size + PREFIX_MAX > sizeof(few)) {
        body = PyMem_Malloc(size + PREFIX_MAX);
        if (body == NULL) {
            PyErr_NoMemory();
            return -1;
        }
    }
    unsigned flags;
    size_t n = azs_zmtp_subscription_put(body, subscribe, peer->minor, &flags);
    azs_zmtp_copy(body + n, topic, size);
    int err = azs_native_peer_send_subscription(peer, flags, body, n + size);
    if (body != few)
        PyMem_Free(body);
    return err;
}

/* Counts it: 1 where peers are to be told, 0, or -1 with MemoryError. */
static int
count(ZmtpSocketObject *self, bool subscribe, const uint8_t *topic, size_t size)
{
    int changed =
        subscribe ? azs_zmtp_trie_add(&self->topics, &self->subscriber, topic, size)
                  : azs_zmtp_trie_remove(&self->topics, &self->subscriber, topic, size);
    if (changed == -ENOMEM) {
        PyErr_NoMemory();
        return -1;
    }
    return changed == 1;
}

int
azs_native_sub_change(ZmtpSocketObject *self, bool subscribe, const uint8_t *topic,
                      size_t size)
{
    int changed = count(self, subscribe, topic, size);
    if (changed <= 0)
        return changed;
    for (size_t i = 0; i < self->npipes; i++) {
        ZmtpPeerObject *peer = self->pipes[i];
        if (peer->state == PEER_READY && tell(peer, subscribe, topic, size) < 0)
            return -1;
    }
    return 0;
}

static int
subscribe_ready(ZmtpSocketObject *self, ZmtpPeerObject *peer)
{
    azs_zmtp_entry *entry = self->subscriber.entries;
    while (entry != NULL) {
        uint8_t *topic;
        size_t size;
        entry = azs_zmtp_trie_topic(entry, &topic, &size);
        if (topic == NULL) {
            PyErr_NoMemory();
            return -1;
        }
        int err = tell(peer, true, topic, size);
        free(topic);
        if (err < 0)
            return -1;
    }
    return 1;
}

/* What we have cancelled may still be on its way. */
static int
sub_received(ZmtpSocketObject *self, ZmtpPeerObject *peer)
{
    PyObject *first = peer->frames[0];
    if (!azs_zmtp_trie_matches(&self->topics, (const uint8_t *)PyBytes_AS_STRING(first),
                               (size_t)PyBytes_GET_SIZE(first)))
        return 0;
    return azs_native_peer_push(peer, 0, NULL);
}

/* A subscription is a message here; any other goes to all publishers, too. */
static int
xsub_send(ZmtpSocketObject *self, PyObject *const *parts, Py_ssize_t nparts)
{
    const uint8_t *body = (const uint8_t *)PyBytes_AS_STRING(parts[0]);
    size_t size = (size_t)PyBytes_GET_SIZE(parts[0]);
    bool subscription = nparts == 1 && size > 0 && body[0] <= 1;
    if (subscription) {
        int changed = count(self, body[0] == 1, body + 1, size - 1);
        if (changed < 0)
            return -1;
        if (changed == 0 && body[0] == 0)
            return 0;
    }
    for (size_t i = 0; i < self->npipes; i++) {
        ZmtpPeerObject *peer = self->pipes[i];
        if (peer->state != PEER_READY)
            continue;
        int err = subscription ? azs_native_peer_send_subscription(peer, 0, body, size)
                               : azs_native_peer_send(peer, parts, nparts);
        if (err < 0)
            return -1;
    }
    return 0;
}

/* The next connection is told our topics from the start. */
static void
subscribe_lost(ZmtpSocketObject *Py_UNUSED(self), ZmtpPeerObject *peer)
{
    azs_native_peer_drop_out(peer, true);
}

static bool
subscribe_always(ZmtpSocketObject *Py_UNUSED(self))
{
    return true;
}

const azs_native_pattern azs_native_sub = {
    .send = azs_native_cannot_send,
    .recv = azs_native_recv,
    .received = sub_received,
    .ready = subscribe_ready,
    .lost = subscribe_lost,
    .can_send = azs_native_never,
    .can_recv = azs_native_any_message,
    .pulls = true,
};

const azs_native_pattern azs_native_xsub = {
    .send = xsub_send,
    .recv = azs_native_recv,
    .received = azs_native_received,
    .ready = subscribe_ready,
    .lost = subscribe_lost,
    .can_send = subscribe_always,
    .can_recv = azs_native_any_message,
    .pulls = true,
};
