#include "net/udp.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "py/args.h"
#include "py/errors.h"
#include "py/type.h"

/* What a datagram counts beside its data: asyncio's, since Python 3.13, where empty
 * datagrams are sent too. */
#if PY_VERSION_HEX >= 0x030D0000
enum { HEADER_SIZE = 8, SENDS_EMPTY = true };
#else
enum { HEADER_SIZE = 0, SENDS_EMPTY = false };
#endif

enum {
    /* No internet datagram is larger than 64 KiB; a Unix one may be, and asyncio
     * takes 256 KiB of any. The gap keeps the starts of the slots apart in the
     * processor's caches. */
    INET_SLOT = 64 * 1024,
    UNIX_SLOT = AZS_SCRATCH_SIZE,
    SLOT_GAP = 17 * 64,
    MAX_RECEIVE = AZS_SCRATCH_AREA / (INET_SLOT + SLOT_GAP),
    MAX_SEND = 32,

    /* One transport's share of a turn. */
    RECEIVE_BYTES = 256 * 1024,
    /* Gathered output goes out before it is more than this. */
    GATHER_BYTES = 64 * 1024,
    GATHER_COUNT = 64,

    /* Every so many lone datagrams more are asked for, and after so many batches
     * that held one no more are: recvmmsg() pays for finding nothing. */
    PROBE_EVERY = 16,
    PROBE_SIZE = 4,
    LONE_BATCHES = 4,
};

static const char READ_FAILED[] = "Fatal read error on datagram transport";
static const char WRITE_FAILED[] = "Fatal write error on datagram transport";

static inline DatagramObject *
datagram_of(TransportObject *self)
{
    return (DatagramObject *)self;
}

/* ---- errors ---- */

/* Hands the current exception, an OSError, to protocol.error_received(). 0, or -1
 * with what that raised. */
static int
call_error_received(DatagramObject *self)
{
    TransportObject *base = &self->base;
    PyObject *exc = azs_exc_take();
    PyObject *protocol = Py_XNewRef(base->protocol);
    PyObject *ok = NULL;
    /* It may send again, and fail again. */
    if (protocol != NULL && Py_EnterRecursiveCall(" in error_received()") == 0) {
        PyObject *args[] = {protocol, exc};
        ok = PyObject_VectorcallMethod(base->st->str_error_received, args, 2, NULL);
        Py_LeaveRecursiveCall();
    }
    int res = ok != NULL || protocol == NULL ? 0 : -1;
    Py_XDECREF(ok);
    Py_XDECREF(protocol);
    Py_DECREF(exc);
    return res;
}

/* The same from the loop's side: what that raised is reported, and the transport lives
 * on. 0, or -1 with what must leave the loop. */
static int
error_received(DatagramObject *self)
{
    if (call_error_received(self) == 0)
        return 0;
    return azs_transport_failed(&self->base, "Exception in protocol.error_received()");
}

/* sendto() failed: an OSError goes to the protocol, any other
 * exception closes the transport. 0, or -1 with an exception for the caller. */
static int
send_failed(DatagramObject *self)
{
    if (PyErr_ExceptionMatches(PyExc_OSError))
        return call_error_received(self);
    return azs_transport_fatal(&self->base, WRITE_FAILED);
}

/* ---- output ---- */

static inline void
drop_out(DatagramObject *self)
{
    azs_dgramq_clear(&self->out);
    self->base.queued = 0;
}

static void
datagram_drop_queue(TransportObject *self)
{
    drop_out(datagram_of(self));
    azs_dgramq_clear(&datagram_of(self)->in);
}

/* Queues the datagram, a copy where it is not exact bytes; takes a new reference to
 * `addr` (may be NULL). 0, or -1 with MemoryError. */
static int
queue_datagram(DatagramObject *self, PyObject *data, const char *buf, size_t len,
               PyObject *addr, const azs_inet_addr *raw)
{
    azs_dgram dgram = {.addr = Py_XNewRef(addr)};
    if (raw != NULL)
        dgram.raw = *raw;
    dgram.data = PyBytes_CheckExact(data)
                     ? Py_NewRef(data)
                     : PyBytes_FromStringAndSize(buf, (Py_ssize_t)len);
    if (dgram.data == NULL || azs_dgramq_push_steal(&self->out, &dgram) < 0) {
        azs_dgram_drop(&dgram);
        return -1;
    }
    self->base.queued += len + HEADER_SIZE;
    return 0;
}

/* sendto(2): 0 or -errno. */
static int
send_raw(DatagramObject *self, const void *buf, size_t len, const struct sockaddr *sa,
         socklen_t sa_len)
{
    ssize_t sent;
    do {
        sent = sendto(self->base.fd, buf, len, MSG_NOSIGNAL, sa, sa_len);
    } while (sent < 0 && errno == EINTR);
    if (azs_likely(sent >= 0))
        azs_stats_sent(&self->base.loop->stats, (size_t)sent);
    return sent < 0 ? -errno : 0;
}

/* Has the socket module send: for names, families that only it knows, and the words
 * of its errors. 1, 0 where it would block, -1 with an exception. */
static int
send_by_module(DatagramObject *self, PyObject *data, PyObject *addr)
{
    PyObject *sock = Py_NewRef(self->base.sock);
    PyObject *args[] = {sock, data, addr == NULL ? Py_None : addr};
    PyObject *sent =
        PyObject_VectorcallMethod(self->base.st->str_sendto, args, 3, NULL);
    Py_DECREF(sock);
    if (sent != NULL) {
        azs_stats_sent_by(&self->base.loop->stats, sent);
        Py_DECREF(sent);
        return 1;
    }
    if (!PyErr_ExceptionMatches(PyExc_BlockingIOError) &&
        !PyErr_ExceptionMatches(PyExc_InterruptedError))
        return -1;
    PyErr_Clear();
    return 0;
}

/* Sends to an address that has no raw form yet. As send_by_module. */
static int
send_converted(DatagramObject *self, PyObject *data, const void *buf, size_t len,
               PyObject *addr)
{
    azs_addr converted;
    int known = addr == NULL ? 0 : azs_addr_from_python(self->family, addr, &converted);
    if (known < 0)
        PyErr_Clear(); /* the socket module says it in its own words */
    if (known <= 0 || self->base.fd < 0)
        return send_by_module(self, data, addr);
    if (self->family != AF_UNIX)
        azs_addr_cache_keep(&self->cache, addr, &converted);
    int err = send_raw(self, buf, len, &converted.sa, converted.len);
    if (err == -EAGAIN)
        return 0;
    return err < 0 ? azs_set_errno(err) : 1;
}

static inline bool
is_ready(const azs_dgram *dgram)
{
    return dgram->addr == NULL || dgram->raw.len > 0;
}

/* Sends up to `max` datagrams from the front, those whose addresses are at hand: their
 * number or -errno. */
static int
send_batch(DatagramObject *self, size_t max)
{
    struct mmsghdr messages[MAX_SEND];
    struct iovec iov[MAX_SEND];
    unsigned n = 0;
    while (n < max && n < MAX_SEND) {
        azs_dgram *dgram = azs_dgramq_at(&self->out, n);
        if (!is_ready(dgram))
            break;
        iov[n].iov_base = PyBytes_AS_STRING(dgram->data);
        iov[n].iov_len = (size_t)PyBytes_GET_SIZE(dgram->data);
        messages[n].msg_hdr = (struct msghdr){
            .msg_name = dgram->raw.len > 0 ? &dgram->raw.sa : NULL,
            .msg_namelen = dgram->raw.len,
            .msg_iov = &iov[n],
            .msg_iovlen = 1,
        };
        n++;
    }
    if (n == 1) {
        int err =
            send_raw(self, iov[0].iov_base, iov[0].iov_len,
                     messages[0].msg_hdr.msg_name, messages[0].msg_hdr.msg_namelen);
        return err < 0 ? err : 1;
    }
    int sent;
    do {
        sent = sendmmsg(self->base.fd, messages, n, MSG_NOSIGNAL);
    } while (sent < 0 && errno == EINTR);
    for (int i = 0; i < sent; i++)
        azs_stats_sent(&self->base.loop->stats, iov[i].iov_len);
    return sent < 0 ? -errno : sent;
}

static azs_dgram
pop_out(DatagramObject *self)
{
    azs_dgram dgram = azs_dgramq_pop(&self->out);
    self->base.queued -= (size_t)PyBytes_GET_SIZE(dgram.data) + HEADER_SIZE;
    return dgram;
}

/* The first datagram's address is to be converted. As send_by_module. */
static int
send_first_converted(DatagramObject *self)
{
    /* Any code may run below: the datagram is out of its reach. */
    azs_dgram dgram = pop_out(self);
    int res = send_converted(self, dgram.data, PyBytes_AS_STRING(dgram.data),
                             (size_t)PyBytes_GET_SIZE(dgram.data), dgram.addr);
    if (res == 0 && !self->base.lost_posted) {
        size_t size = (size_t)PyBytes_GET_SIZE(dgram.data) + HEADER_SIZE;
        if (azs_dgramq_unpop_steal(&self->out, &dgram) == 0) {
            self->base.queued += size;
            return 0;
        }
        res = -1;
    }
    azs_dgram_drop(&dgram);
    return res;
}

/* One step of send_queue(), at most `max` datagrams. Their number, 0 where the socket
 * would block, -1 with an exception that is the first datagram's, now gone. */
static int
send_some(DatagramObject *self, size_t max)
{
    if (!is_ready(azs_dgramq_at(&self->out, 0)))
        return send_first_converted(self);
    int sent = send_batch(self, max);
    if (sent == -EAGAIN)
        return 0;
    for (int i = 0; i < (sent < 0 ? 1 : sent); i++) {
        azs_dgram dgram = pop_out(self);
        azs_dgram_drop(&dgram);
    }
    return sent < 0 ? azs_set_errno(sent) : sent;
}

/* The queue has shrunk, or what is left of it must wait. As send_queue. */
static int
after_sending(DatagramObject *self)
{
    TransportObject *base = &self->base;
    if (base->lost_posted)
        return 0;
    if (self->out.count > 0) {
        if (azs_transport_want_write(base, true) < 0)
            return azs_transport_fatal(base, WRITE_FAILED);
        if (azs_transport_grew(base) < 0)
            return -1;
    }
    /* Either may write, close or abort. */
    if (!base->lost_posted && azs_transport_shrank(base) < 0)
        return -1;
    if (base->lost_posted || self->out.count > 0)
        return 0;
    return azs_transport_want_write(base, false) < 0 ? -1 : azs_transport_drained(base);
}

/* Sends what is queued now, as far as the kernel takes it. What the protocol adds
 * meanwhile waits for the next turn, lest failing sends that are answered by others
 * go on for ever. 0, or -1 with an exception that must leave the loop. */
static int
send_queue(DatagramObject *self)
{
    TransportObject *base = &self->base;
    size_t left = self->out.count;
    int res = 0, sent = 1;
    self->flushing = true;
    while (left > 0 && sent != 0 && res == 0 && self->out.count > 0 &&
           !base->lost_posted) {
        /* abort() and close() in error_received() may have changed the count. */
        sent = send_some(self, left < self->out.count ? left : self->out.count);
        left -= sent < 0 ? 1 : (size_t)sent;
        if (sent < 0)
            res = PyErr_ExceptionMatches(PyExc_OSError)
                      ? error_received(self)
                      : azs_transport_fatal(base, WRITE_FAILED);
    }
    self->flushing = false;
    /* Whatever must leave the loop, what is left is sent when that runs again. */
    PyObject *exc = res < 0 ? azs_exc_take() : NULL;
    res = after_sending(self);
    if (exc != NULL) {
        PyErr_Clear();
        azs_exc_restore_steal(exc);
        res = -1;
    }
    return res;
}

/* For the end of a protocol callback, of which an exception may be set. */
static void
datagram_flush(TransportObject *base)
{
    DatagramObject *self = datagram_of(base);
    /* Waiting for the kernel already? It will say. */
    if ((base->io.interest & EPOLLOUT) || self->flushing)
        return;
    PyObject *exc = PyErr_Occurred() ? azs_exc_take() : NULL;
    int res = send_queue(self);
    if (exc != NULL) {
        if (res < 0)
            PyErr_Clear();
        azs_exc_restore_steal(exc);
    }
}

/* ---- input ---- */

/* Has what was received delivered in the next turn. 0 or -1. */
static int
deliver_later(DatagramObject *self)
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
            return deliver_later(self);
        first = false;
        azs_dgram dgram = azs_dgramq_pop(&self->in);
        PyObject *protocol = Py_NewRef(base->protocol);
        self->delivering = dgram.addr;
        self->delivering_raw = dgram.raw;
        PyObject *args[] = {protocol, dgram.data, dgram.addr};
        PyObject *ok =
            PyObject_VectorcallMethod(base->st->str_datagram_received, args, 3, NULL);
        self->delivering = NULL;
        azs_dgram_drop(&dgram);
        Py_DECREF(protocol);
        if (azs_unlikely(ok == NULL))
            res =
                azs_transport_failed(base, "Exception in protocol.datagram_received()");
        Py_XDECREF(ok);
    }
    if (res < 0)
        (void)deliver_later(self);
    return res;
}

/* Keeps a datagram for deliver(). 0, or -1 with MemoryError. */
static int
keep_received(DatagramObject *self, const char *buf, size_t len, const azs_addr *addr)
{
    azs_stats_received(&self->base.loop->stats, len);
    azs_dgram dgram = {
        .data = PyBytes_FromStringAndSize(buf, (Py_ssize_t)len),
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
    return error_received(self);
}

/* recvfrom(2): with any number waiting the cheapest way to one. 1, 0 or -1. */
static int
receive_one(DatagramObject *self, char *scratch)
{
    azs_addr addr;
    ssize_t n;
    do {
        addr.len = sizeof(addr.storage);
        addr.sa.sa_family = AF_UNSPEC;
        n = recvfrom(self->base.fd, scratch, AZS_SCRATCH_SIZE, 0, &addr.sa, &addr.len);
    } while (n < 0 && errno == EINTR);
    if (n < 0)
        return receive_failed(self, -errno);
    if (keep_received(self, scratch, (size_t)n, &addr) < 0)
        return azs_transport_fatal(&self->base, READ_FAILED);
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
    int n;
    do {
        n = recvmmsg(self->base.fd, messages, want, MSG_DONTWAIT, NULL);
    } while (n < 0 && errno == EINTR);
    if (n < 0) {
        self->batch = 1;
        return receive_failed(self, -errno);
    }
    size_t bytes = 0;
    for (int i = 0; i < n; i++) {
        addrs[i].len = messages[i].msg_hdr.msg_namelen;
        bytes += messages[i].msg_len;
        if (keep_received(self, iov[i].iov_base, messages[i].msg_len, &addrs[i]) < 0)
            return azs_transport_fatal(&self->base, READ_FAILED);
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

/* By the socket module, for families that only it knows. 1, 0 or -1. */
static int
receive_by_module(DatagramObject *self)
{
    PyObject *sock = Py_NewRef(self->base.sock);
    PyObject *pair = PyObject_CallMethod(sock, "recvfrom", "i", (int)AZS_SCRATCH_SIZE);
    Py_DECREF(sock);
    if (pair != NULL) {
        azs_dgram dgram = {
            .data = Py_NewRef(PyTuple_GET_ITEM(pair, 0)),
            .addr = Py_NewRef(PyTuple_GET_ITEM(pair, 1)),
        };
        Py_DECREF(pair);
        if (PyBytes_CheckExact(dgram.data))
            azs_stats_received(&self->base.loop->stats,
                               (size_t)PyBytes_GET_SIZE(dgram.data));
        if (azs_dgramq_push_steal(&self->in, &dgram) == 0)
            return 1;
        azs_dgram_drop(&dgram);
    } else if (PyErr_ExceptionMatches(PyExc_BlockingIOError) ||
               PyErr_ExceptionMatches(PyExc_InterruptedError)) {
        PyErr_Clear();
        return 0;
    } else if (PyErr_ExceptionMatches(PyExc_OSError)) {
        return error_received(self);
    }
    return azs_transport_fatal(&self->base, READ_FAILED);
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

/* One reception and its delivery. 0 or -1. */
static int
receive(DatagramObject *self)
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
            return azs_transport_fatal(base, READ_FAILED);
        unsigned want = receive_count(self);
        res =
            want == 1 ? receive_one(self, scratch) : receive_many(self, scratch, want);
    }
    return res > 0 ? deliver(self) : res;
}

static int
datagram_on_ready(TransportObject *base, uint32_t events)
{
    /* As asyncio: errors and hang-ups wake whoever waits, the reader first. */
    if ((events & ~(uint32_t)EPOLLOUT) && (base->io.interest & EPOLLIN) &&
        receive(datagram_of(base)) < 0)
        return -1;
    if ((events & ~(uint32_t)EPOLLIN) && (base->io.interest & EPOLLOUT) &&
        !base->lost_posted)
        return send_queue(datagram_of(base));
    return 0;
}

static int
datagram_resumed(TransportObject *base)
{
    return deliver_later(datagram_of(base));
}

static const azs_transport_ops datagram_ops = {
    .name = "DatagramTransport",
    .lost_write = "socket.send() raised exception.",
    .on_ready = datagram_on_ready,
    .flush = datagram_flush,
    .drop_queue = datagram_drop_queue,
    .resumed = datagram_resumed,
};

/* ---- methods ---- */

/* Where to send: *addr becomes the object (borrowed, NULL for the connected peer), the
 * result the raw form if that is known, valid until code runs. */
static const azs_inet_addr *
known_target(DatagramObject *self, PyObject **addr)
{
    if (self->has_peer || (*addr == Py_None && self->is_connected))
        *addr = NULL;
    if (*addr == NULL)
        return NULL;
    if (*addr == self->delivering && self->delivering_raw.len > 0)
        return &self->delivering_raw;
    return azs_addr_cache_find(&self->cache, *addr);
}

/* sendto() after its checks, with the buffer at hand. 0 or -1. */
static int
datagram_send(DatagramObject *self, PyObject *data, const char *buf, size_t len,
              PyObject *addr)
{
    TransportObject *base = &self->base;
    const azs_inet_addr *raw = known_target(self, &addr);
    bool blocked = base->io.interest & EPOLLOUT;
    bool queued = base->queued > 0 || self->out.count > 0;
    if (base->lost_posted) {
        /* As asyncio, the socket is tried while it is open. */
    } else if (queued || blocked || base->gather > 0 || self->flushing) {
        if (queue_datagram(self, data, buf, len, addr, raw) < 0)
            return -1;
        if (blocked || self->flushing)
            return azs_transport_grew(base);
        if (base->gather == 0 || base->queued > GATHER_BYTES ||
            self->out.count >= GATHER_COUNT)
            return send_queue(self);
        return 0;
    }
    int res;
    if (raw != NULL || addr == NULL) {
        int err = send_raw(self, buf, len, raw == NULL ? NULL : &raw->sa,
                           raw == NULL ? 0 : raw->len);
        if (azs_likely(err == 0))
            return 0;
        res = err == -EAGAIN ? 0 : azs_set_errno(err);
    } else {
        res = send_converted(self, data, buf, len, addr);
    }
    if (res < 0)
        return send_failed(self);
    /* Converting may have run code that closed it. */
    if (res > 0 || base->lost_posted)
        return 0;
    if (queue_datagram(self, data, buf, len, addr, NULL) < 0)
        return -1;
    if (azs_transport_want_write(base, true) < 0)
        return azs_transport_fatal(base, WRITE_FAILED);
    return azs_transport_grew(base);
}

/* `addr` as the transport was made for one remote address. 0, or -1 with ValueError. */
static int
check_address(DatagramObject *self, PyObject *addr)
{
    if (addr == Py_None || addr == self->address)
        return 0;
    int same = PyObject_RichCompareBool(addr, self->address, Py_EQ);
    if (same == 0)
        PyErr_Format(PyExc_ValueError, "Invalid address: must be None or %S",
                     self->address);
    return same > 0 ? 0 : -1;
}

static const char *
type_name(PyObject *obj)
{
    const char *name = Py_TYPE(obj)->tp_name;
    const char *dot = strrchr(name, '.');
    return dot == NULL ? name : dot + 1;
}

PyDoc_STRVAR(sendto_doc,
"sendto($self, data, addr=None)\n--\n\n"
"Send a datagram: bytes, a bytearray or a memoryview, to `addr` or, where that is\n"
"None, to the remote address the transport was made with; never blocks (asyncio\n"
"DatagramTransport.sendto).\n\n"
"What the kernel does not take at once is buffered. Datagrams sent inside one of the\n"
"protocol's callbacks go out together when it returns. An OSError goes to\n"
"protocol.error_received(). Raises TypeError for other types of data, ValueError for\n"
"an address other than the remote one. Empty datagrams are sent from Python 3.13\n"
"on.");

static PyObject *
Datagram_sendto(DatagramObject *self, PyObject *const *args, Py_ssize_t nargs,
                PyObject *kwnames)
{
    static const char *const names[] = {"data", "addr", NULL};
    PyObject *given[] = {NULL, Py_None};
    if (azs_args_parse("sendto", args, nargs, kwnames, names, 1, 2, given) < 0)
        return NULL;
    PyObject *data = given[0], *addr = given[1];
    TransportObject *base = &self->base;
    if (!PyBytes_Check(data) && !PyByteArray_Check(data) && !PyMemoryView_Check(data)) {
        PyErr_Format(PyExc_TypeError,
                     "data argument must be a bytes-like object, not '%.200s'",
                     type_name(data));
        return NULL;
    }
    if (!SENDS_EMPTY) {
        Py_ssize_t len = PyObject_Size(data);
        if (len < 0)
            return NULL;
        if (len == 0)
            Py_RETURN_NONE;
    }
    if (self->address != NULL) {
        if (check_address(self, addr) < 0)
            return NULL;
        addr = self->address;
    }
    if (azs_unlikely(base->gone || (base->lost_posted && self->address != NULL))) {
        if (azs_transport_write_lost(base) < 0)
            return NULL;
        Py_RETURN_NONE;
    }
    int res;
    if (azs_likely(PyBytes_CheckExact(data))) {
        res = datagram_send(self, data, PyBytes_AS_STRING(data),
                            (size_t)PyBytes_GET_SIZE(data), addr);
    } else {
        Py_buffer view;
        if (PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) < 0) {
            res = azs_transport_fatal(base, WRITE_FAILED);
        } else {
            res = datagram_send(self, data, view.buf, (size_t)view.len, addr);
            PyBuffer_Release(&view);
        }
    }
    if (res < 0)
        return NULL;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(set_protocol_doc,
"set_protocol($self, protocol, /)\n--\n\n"
"Switch to another DatagramProtocol (asyncio BaseTransport.set_protocol).");

static PyObject *
Datagram_set_protocol(DatagramObject *self, PyObject *protocol)
{
    if (!self->base.gone)
        Py_XSETREF(self->base.protocol, Py_NewRef(protocol));
    Py_RETURN_NONE;
}

PyDoc_STRVAR(close_doc,
"close($self, /)\n--\n\n"
"Stop receiving, send what is buffered, then call protocol.connection_lost(None).\n\n"
"Twice is harmless (asyncio BaseTransport.close).");

static PyObject *
Datagram_close(DatagramObject *self, PyObject *Py_UNUSED(ignored))
{
    if (azs_transport_close(&self->base) < 0)
        return NULL;
    azs_dgramq_clear(&self->in);
    Py_RETURN_NONE;
}

static PyMethodDef datagram_methods[] = {
    {"sendto", (PyCFunction)(void (*)(void))Datagram_sendto,
     METH_FASTCALL | METH_KEYWORDS, sendto_doc},
    {"set_protocol", (PyCFunction)Datagram_set_protocol, METH_O, set_protocol_doc},
    {"close", (PyCFunction)Datagram_close, METH_NOARGS, close_doc},
    {NULL},
};

/* ---- life ---- */

static int
datagram_traverse(DatagramObject *self, visitproc visit, void *arg)
{
    Py_VISIT(self->address);
    int res = azs_dgramq_traverse(&self->in, visit, arg);
    if (res == 0)
        res = azs_dgramq_traverse(&self->out, visit, arg);
    return res != 0 ? res : azs_transport_traverse(&self->base, visit, arg);
}

static int
datagram_clear(DatagramObject *self)
{
    azs_dgramq_clear(&self->in);
    drop_out(self);
    return azs_transport_clear(&self->base);
}

static void
datagram_dealloc(DatagramObject *self)
{
    if (PyObject_CallFinalizerFromDealloc((PyObject *)self) < 0)
        return; /* resurrected */
    PyObject_GC_UnTrack(self);
    azs_dgramq_clear(&self->in);
    azs_dgramq_clear(&self->out);
    azs_addr_cache_clear(&self->cache);
    Py_CLEAR(self->address);
    azs_transport_dealloc(&self->base);
}

PyDoc_STRVAR(datagram_doc,
"A datagram socket: an asyncio.DatagramTransport.");

static PyType_Slot datagram_slots[] = {
    {Py_tp_doc, (void *)datagram_doc},
    {Py_tp_dealloc, datagram_dealloc},
    {Py_tp_traverse, datagram_traverse},
    {Py_tp_clear, datagram_clear},
    {Py_tp_finalize, azs_transport_finalize},
    {Py_tp_repr, azs_transport_repr},
    {Py_tp_members, azs_transport_members},
    {Py_tp_getset, azs_transport_getset},
    {0, NULL},
};

static PyType_Spec azs_datagram_spec = {
    .name = "aiozmq_speedups._core.DatagramTransport",
    .basicsize = sizeof(DatagramObject),
    .flags =
        Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = datagram_slots,
};

/* Shows an address of a family that only the socket module knows. 0 or -1. */
static int
ask_module(DatagramObject *self, const char *method, PyObject *key)
{
    PyObject *value = PyObject_CallMethod(self->base.sock, method, NULL);
    if (value == NULL) {
        if (!PyErr_ExceptionMatches(PyExc_OSError))
            return -1;
        PyErr_Clear();
        value = Py_NewRef(Py_None);
    }
    int res = PyDict_SetItem(self->base.extra, key, value);
    Py_DECREF(value);
    return res;
}

/* What of the socket decides how datagrams are sent. 0 or -1. */
static int
datagram_set_up(DatagramObject *self, PyObject *address, bool peer_given)
{
    TransportObject *base = &self->base;
    socklen_t len = sizeof(self->family);
    if (getsockopt(base->fd, SOL_SOCKET, SO_DOMAIN, &self->family, &len) < 0)
        return azs_set_errno(-errno);
    self->batch = 1;
    int given = PyObject_IsTrue(address);
    if (given < 0)
        return -1;
    if (given)
        self->address = Py_NewRef(address);
    if (self->family != AF_INET && self->family != AF_INET6 &&
        self->family != AF_UNIX &&
        (ask_module(self, "getsockname", base->st->str_sockname) < 0 ||
         (!peer_given && ask_module(self, "getpeername", base->st->str_peername) < 0)))
        return -1;
    azs_addr peer;
    peer.len = sizeof(peer.storage);
    self->is_connected = getpeername(base->fd, &peer.sa, &peer.len) == 0;
    if (base->peername.len > 0) {
        self->has_peer = true;
        return 0;
    }
    PyObject *shown = PyDict_GetItemWithError(base->extra, base->st->str_peername);
    if (shown == NULL)
        return PyErr_Occurred() ? -1 : 0;
    Py_INCREF(shown);
    int has_peer = PyObject_IsTrue(shown);
    Py_DECREF(shown);
    self->has_peer = has_peer > 0;
    return has_peer < 0 ? -1 : 0;
}

PyDoc_STRVAR(make_datagram_transport_doc,
"_make_datagram_transport(sock, protocol, address=None, waiter=None, extra=None)\n"
"--\n\n"
"A DatagramTransport on a non-blocking socket; create_datagram_endpoint() calls it.\n"
"`address` is the remote address, the only one that may be sent to.\n"
"connection_made comes in the next turn, then `waiter` is done.");

static PyObject *
Loop__make_datagram_transport(LoopObject *self, PyObject *args, PyObject *kwargs)
{
    static char *keywords[] = {"sock", "protocol", "address", "waiter", "extra", NULL};
    PyObject *sock, *protocol, *address = Py_None, *waiter = NULL, *extra = NULL;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OO|OOO:_make_datagram_transport",
                                     keywords, &sock, &protocol, &address, &waiter,
                                     &extra))
        return NULL;
    if (!PyObject_TypeCheck(sock, (PyTypeObject *)self->st->socket_type))
        return azs_transport_by_asyncio(self, "_make_datagram_transport", args, kwargs);
    int fd = PyObject_AsFileDescriptor(sock);
    if (fd < 0 || azs_loop_ensure_free_fd(self, fd, sock) < 0)
        return NULL;
    int peer_given = 0;
    if (extra != NULL && extra != Py_None) {
        peer_given = PyDict_Contains(extra, self->st->str_peername);
        if (peer_given < 0)
            return NULL;
    }
    azs_transport_args targs = {
        .type = self->st->datagram_transport_type,
        .ops = &datagram_ops,
        .loop = self,
        .fd = fd,
        .sock = sock,
        .protocol = protocol,
        .waiter = waiter,
        .extra = extra,
        .is_socket = true,
        .input = EPOLLIN,
    };
    TransportObject *transport = azs_transport_new(&targs);
    if (transport == NULL)
        return NULL;
    if (datagram_set_up(datagram_of(transport), address, peer_given) < 0) {
        /* It was never made: the socket stays the caller's. */
        transport->gone = transport->closing = true;
        self->stats.transports--;
        self->stats.transports_made--;
        transport->fd = -1;
        Py_CLEAR(transport);
    }
    return (PyObject *)transport;
}

static PyMethodDef loop_methods[] = {
    {"_make_datagram_transport",
     (PyCFunction)(void (*)(void))Loop__make_datagram_transport,
     METH_VARARGS | METH_KEYWORDS, make_datagram_transport_doc},
    {NULL},
};

int
azs_udp_init(PyObject *mod, azs_state *st)
{
    /* close() and the like replace those of every transport. */
    if (azs_transport_type_add(mod, st, &st->datagram_transport_type,
                               &azs_datagram_spec, "DatagramTransport", true) < 0 ||
        azs_type_add_methods(st->datagram_transport_type, datagram_methods) < 0)
        return -1;
    return azs_type_add_methods(st->loop_type, loop_methods);
}
