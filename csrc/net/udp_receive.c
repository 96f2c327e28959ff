#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "base/sys.h"
#include "net/udp.h"
#include "py/errors.h"

enum {
    /* No internet datagram is larger than 64 KiB; a Unix one may be, and asyncio
     * takes 256 KiB of any. The gap keeps the starts of the slots apart in the
     * processor's caches. */
    INET_SLOT = 64 * 1024,
    UNIX_SLOT = AZS_SCRATCH_SIZE,
    SLOT_GAP = 17 * 64,
    MAX_RECEIVE = AZS_SCRATCH_AREA / (INET_SLOT + SLOT_GAP),

    /* One transport's share of a turn. */
    RECEIVE_BYTES = 256 * 1024,

    /* Every so many lone datagrams more are asked for, and after so many batches
     * that held one no more are: recvmmsg() pays for finding nothing. */
    PROBE_EVERY = 16,
    PROBE_SIZE = 4,
    LONE_BATCHES = 4,
};

int
azs_datagram_deliver_later(DatagramObject *self)
{
    TransportObject *base = &self->base;
    if (self->in.count == 0 || base->paused || base->closing)
        return 0;
    PyObject *exc = PyErr_Occurred() ? azs_exc_take() : NULL;
    int res = azs_watcher_post(base->loop, &base->io, EPOLLIN);
    if (exc != NULL) {
        if (res < 0)
            PyErr_Clear();
        azs_exc_restore_steal(exc);
    }
    return res;
}

/* Delivers what was received, until the protocol has enough. Every callback may
 * pause, close, abort, stop the loop, change the protocol or raise. 0 or -1. */
static int
deliver(DatagramObject *self)
{
    TransportObject *base = &self->base;
    int res = 0;
    bool first = true;
    while (res == 0 && self->in.count > 0 && !base->paused && !base->closing) {
        if (base->loop->stopping && !first)
            return azs_datagram_deliver_later(self);
        first = false;
        azs_dgram dgram = azs_dgramq_pop(&self->in);
        PyObject *protocol = Py_NewRef(base->protocol);
        self->delivering = dgram.addr;
        self->delivering_raw = dgram.raw;
        PyObject *args[] = {protocol, dgram.data, dgram.addr};
        PyObject *ok =
            PyObject_VectorcallMethod(base->st->str_datagram_received, args, 3, NULL);
        self->delivering = NULL;
        azs_datagram_give_bytes(self, dgram.data);
        Py_DECREF(dgram.addr);
        Py_DECREF(protocol);
        if (azs_unlikely(ok == NULL))
            res =
                azs_transport_failed(base, "Exception in protocol.datagram_received()");
        Py_XDECREF(ok);
    }
    if (res < 0)
        (void)azs_datagram_deliver_later(self);
    return res;
}

/* New bytes, or those of an earlier datagram that nobody has kept. */
static PyObject *
take_bytes(DatagramObject *self, const char *buf, size_t len)
{
    while (self->nspares > 0 && len >= AZS_SPARE_MIN) {
        azs_spare *spare = &self->spares[--self->nspares];
        if (spare->capacity >= len && spare->capacity / 2 <= len) {
            PyObject *bytes = spare->bytes;
            azs_spare_set_size(bytes, len);
            memcpy(PyBytes_AS_STRING(bytes), buf, len);
            return bytes;
        }
        azs_spare_clear(spare);
    }
    return PyBytes_FromStringAndSize(buf, (Py_ssize_t)len);
}

/* Keeps a datagram for deliver(). 0, or -1 with MemoryError. */
static int
keep_received(DatagramObject *self, const char *buf, size_t len, const azs_addr *addr)
{
    azs_stats_received(&self->base.loop->stats, len);
    azs_dgram dgram = {
        .data = take_bytes(self, buf, len),
        .addr = azs_addr_cache_object(&self->cache, &addr->sa, addr->len),
    };
    if (addr->len <= sizeof(dgram.raw.in6) &&
        (self->family == AF_INET || self->family == AF_INET6)) {
        memcpy(&dgram.raw.sa, &addr->sa, addr->len);
        dgram.raw.len = addr->len;
    }
    if (dgram.data == NULL || dgram.addr == NULL ||
        azs_dgramq_push_steal(&self->in, &dgram) < 0) {
        azs_dgram_drop(&dgram);
        return -1;
    }
    return 0;
}

/* An error from the socket. 0 or -1. */
static int
receive_failed(DatagramObject *self, int neg_errno)
{
    if (neg_errno == -EAGAIN)
        return 0;
    azs_set_errno(neg_errno);
    return azs_datagram_report_error(self);
}

/* recvfrom(2): with any number waiting the cheapest way to one. 1, 0 or -1. */
static int
receive_one(DatagramObject *self, char *scratch)
{
    azs_addr addr;
    addr.len = sizeof(addr.storage);
    addr.sa.sa_family = AF_UNSPEC;
    ssize_t n =
        azs_sys_recvfrom(self->base.fd, scratch, AZS_SCRATCH_SIZE, &addr.sa, &addr.len);
    if (n < 0)
        return receive_failed(self, (int)n);
    if (keep_received(self, scratch, (size_t)n, &addr) < 0)
        return azs_transport_fatal(&self->base, self->base.ops->read_failed);
    return 1;
}

/* recvmmsg(2) for up to `want`. Objects are made of all of them before any code can
 * overwrite the scratch area. 1, 0 where nothing is to be delivered, or -1. */
static int
receive_many(DatagramObject *self, char *scratch, unsigned want)
{
    struct mmsghdr messages[MAX_RECEIVE];
    struct iovec iov[MAX_RECEIVE];
    azs_addr addrs[MAX_RECEIVE];
    size_t slot = self->family == AF_UNIX ? UNIX_SLOT : INET_SLOT;
    for (unsigned i = 0; i < want; i++) {
        iov[i] = (struct iovec){scratch + i * (slot + SLOT_GAP), slot};
        addrs[i].sa.sa_family = AF_UNSPEC;
        messages[i].msg_hdr = (struct msghdr){
            .msg_name = &addrs[i].storage,
            .msg_namelen = sizeof(addrs[i].storage),
            .msg_iov = &iov[i],
            .msg_iovlen = 1,
        };
    }
    int n = azs_sys_recvmmsg(self->base.fd, messages, want);
    if (n < 0) {
        self->batch = 1;
        return receive_failed(self, n);
    }
    size_t bytes = 0;
    for (int i = 0; i < n; i++) {
        addrs[i].len = messages[i].msg_hdr.msg_namelen;
        bytes += messages[i].msg_len;
        if (keep_received(self, iov[i].iov_base, messages[i].msg_len, &addrs[i]) < 0)
            return azs_transport_fatal(&self->base, self->base.ops->read_failed);
    }
    self->lone = n == 1 ? self->lone + 1 : 0;
    if (bytes > RECEIVE_BYTES)
        self->batch = want / 2;
    else if ((unsigned)n == want)
        self->batch = want * 2;
    else if (n > 1 && self->batch == 1)
        self->batch = want;
    else if (self->lone >= LONE_BATCHES)
        self->batch = 1;
    return 1;
}

/* Keeps what sock.recvfrom() returned, which may be anything: a subclass made it. 0 or
 * -1. */
static int
keep_pair(DatagramObject *self, PyObject *pair)
{
    if (!PyTuple_Check(pair) || PyTuple_GET_SIZE(pair) != 2) {
        PyErr_SetString(PyExc_TypeError, "recvfrom() must return a pair");
        return -1;
    }
    PyObject *data = PyTuple_GET_ITEM(pair, 0), *addr = PyTuple_GET_ITEM(pair, 1);
    azs_dgram dgram = {.addr = Py_NewRef(addr)};
    dgram.data = PyBytes_CheckExact(data) ? Py_NewRef(data) : PyBytes_FromObject(data);
    if (dgram.data == NULL || azs_dgramq_push_steal(&self->in, &dgram) < 0) {
        azs_dgram_drop(&dgram);
        return -1;
    }
    azs_stats_received(&self->base.loop->stats, (size_t)PyBytes_GET_SIZE(dgram.data));
    return 0;
}

/* By the socket module, for families that only it knows. 1, 0 or -1. */
static int
receive_by_module(DatagramObject *self)
{
    PyObject *sock = Py_NewRef(self->base.sock);
    PyObject *pair = PyObject_CallMethod(sock, "recvfrom", "i", (int)AZS_SCRATCH_SIZE);
    Py_DECREF(sock);
    if (pair != NULL) {
        int kept = keep_pair(self, pair);
        Py_DECREF(pair);
        if (kept == 0)
            return 1;
    } else if (PyErr_ExceptionMatches(PyExc_BlockingIOError) ||
               PyErr_ExceptionMatches(PyExc_InterruptedError)) {
        PyErr_Clear();
        return 0;
    } else if (PyErr_ExceptionMatches(PyExc_OSError)) {
        return azs_datagram_report_error(self);
    }
    return azs_transport_fatal(&self->base, self->base.ops->read_failed);
}

/* How many datagrams to ask for. */
static unsigned
receive_count(DatagramObject *self)
{
    unsigned max = MAX_RECEIVE;
    if (self->family == AF_UNIX)
        max = AZS_SCRATCH_AREA / (UNIX_SLOT + SLOT_GAP);
    if (self->batch <= 1) {
        self->batch = 1;
        if (++self->lone % PROBE_EVERY != 0)
            return 1;
        self->lone = 0;
        return PROBE_SIZE;
    }
    return self->batch < max ? self->batch : max;
}

int
azs_datagram_receive(DatagramObject *self)
{
    TransportObject *base = &self->base;
    if (self->in.count > 0) /* of an earlier one: nothing may overtake it */
        return deliver(self);
    int res;
    if (self->family != AF_INET && self->family != AF_INET6 &&
        self->family != AF_UNIX) {
        res = receive_by_module(self);
    } else {
        char *scratch = azs_loop_scratch(base->loop);
        if (scratch == NULL)
            return azs_transport_fatal(base, base->ops->read_failed);
        unsigned want = receive_count(self);
        res =
            want == 1 ? receive_one(self, scratch) : receive_many(self, scratch, want);
    }
    return res > 0 ? deliver(self) : res;
}
