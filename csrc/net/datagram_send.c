#include <errno.h>
#include <sys/socket.h>

#include "base/sys.h"
#include "net/datagram.h"
#include "py/errors.h"

enum { MAX_SEND = 32 };

/* sendto() failed: an OSError goes to the protocol, any other
 * exception closes the transport. 0, or -1 with an exception for the caller. */
static int
send_failed(DatagramObject *self)
{
    if (PyErr_ExceptionMatches(PyExc_OSError))
        return azs_datagram_error(self);
    return azs_transport_fatal(&self->base, self->base.ops->write_failed);
}

void
azs_datagram_drop_out(DatagramObject *self)
{
    AZS_SET(&self->base.queued, 0); /* first: the end of an address may send */
    azs_datagram_queue_clear(&self->out);
}

/* Queues the datagram, a copy where it is not exact bytes; takes a new reference to
 * `addr` (may be NULL). 0, or -1 with MemoryError. */
static int
queue_datagram(DatagramObject *self, PyObject *data, const char *buf, size_t len,
               PyObject *addr, const azs_inet_addr *raw)
{
    azs_datagram dgram = {.addr = Py_XNewRef(addr)};
    if (raw != NULL)
        dgram.raw = *raw;
    dgram.data = PyBytes_CheckExact(data)
                     ? Py_NewRef(data)
                     : PyBytes_FromStringAndSize(buf, (Py_ssize_t)len);
    if (dgram.data == NULL || azs_datagram_queue_push_steal(&self->out, &dgram) < 0) {
        azs_datagram_drop(&dgram);
        return -1;
    }
    AZS_COUNT(&self->base.queued, len + AZS_DATAGRAM_HEADER);
    return 0;
}

/* sendto(2): 0 or -errno. */
static int
send_raw(DatagramObject *self, const void *buf, size_t len, const struct sockaddr *sa,
         socklen_t sa_len)
{
    ssize_t sent = azs_sys_sendto(self->base.fd, buf, len, sa, sa_len);
    if (azs_unlikely(sent < 0))
        return (int)sent;
    azs_stats_sent(&self->base.loop->stats, (size_t)sent);
    return 0;
}

/* Has the socket module send: for names, families that only it knows, and the words
 * of its errors. 1, 0 where it would block, -1 with an exception. */
static int
send_by_module(DatagramObject *self, PyObject *data, PyObject *addr)
{
    /* Gone where an address that was looked at ran the loop. */
    if (self->base.sock == NULL)
        return azs_set_errno(-EBADF);
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
is_ready(const azs_datagram *dgram)
{
    return dgram->addr == NULL || dgram->raw.len > 0;
}

/* Sends up to `max` datagrams from the front, those whose addresses are at hand: their
 * number or -errno. */
static int
datagram_send_batch(DatagramObject *self, size_t max)
{
    struct mmsghdr messages[MAX_SEND];
    struct iovec iov[MAX_SEND];
    unsigned n = 0;
    while (n < max && n < MAX_SEND) {
        azs_datagram *dgram = azs_datagram_queue_at(&self->out, n);
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
    int sent = azs_sys_sendmmsg(self->base.fd, messages, n);
    for (int i = 0; i < sent; i++)
        azs_stats_sent(&self->base.loop->stats, iov[i].iov_len);
    return sent;
}

static azs_datagram
pop_out(DatagramObject *self)
{
    azs_datagram dgram = azs_datagram_queue_pop(&self->out);
    AZS_COUNT(&self->base.queued,
              -((size_t)PyBytes_GET_SIZE(dgram.data) + AZS_DATAGRAM_HEADER));
    return dgram;
}

/* The first datagram's address is to be converted. As send_by_module. */
static int
send_first_converted(DatagramObject *self)
{
    /* Any code may run below: the datagram is out of its reach. */
    azs_datagram dgram = pop_out(self);
    int res = send_converted(self, dgram.data, PyBytes_AS_STRING(dgram.data),
                             (size_t)PyBytes_GET_SIZE(dgram.data), dgram.addr);
    if (res == 0 && !self->base.lost_posted) {
        size_t size = (size_t)PyBytes_GET_SIZE(dgram.data) + AZS_DATAGRAM_HEADER;
        if (azs_datagram_queue_unpop_steal(&self->out, &dgram) == 0) {
            AZS_COUNT(&self->base.queued, size);
            return 0;
        }
        res = -1;
    }
    azs_datagram_drop(&dgram);
    return res;
}

/* One step of azs_datagram_send_queue(), at most `max` datagrams. Their number, 0 where
 * the socket would block, -1 with an exception that is the first datagram's, now gone.
 */
static int
send_some(DatagramObject *self, size_t max)
{
    if (!is_ready(azs_datagram_queue_at(&self->out, 0)))
        return send_first_converted(self);
    int sent = datagram_send_batch(self, max);
    if (sent == -EAGAIN)
        return 0;
    for (int i = 0; i < (sent < 0 ? 1 : sent); i++) {
        azs_datagram dgram = pop_out(self);
        azs_datagram_give_bytes(self, dgram.data);
        Py_XDECREF(dgram.addr);
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
            return azs_transport_fatal(base, base->ops->write_failed);
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

/* What the protocol adds meanwhile waits for the next turn, lest failing sends that
 * are answered by others go on for ever. */
int
azs_datagram_send_queue(DatagramObject *self)
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
                      ? azs_datagram_report_error(self)
                      : azs_transport_fatal(base, base->ops->write_failed);
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

int
azs_datagram_send(DatagramObject *self, PyObject *data, const char *buf, size_t len,
                  PyObject *addr)
{
    TransportObject *base = &self->base;
    const azs_inet_addr *raw = known_target(self, &addr);
    /* As asyncio, the socket is tried after the end while it is open. */
    if (!base->lost_posted && (self->out.count > 0 || self->flushing)) {
        if (queue_datagram(self, data, buf, len, addr, raw) < 0)
            return -1;
        return azs_transport_grew(base);
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
    if (queue_datagram(self, data, buf, len, addr, raw) < 0)
        return -1;
    if (azs_transport_want_write(base, true) < 0)
        return azs_transport_fatal(base, base->ops->write_failed);
    return azs_transport_grew(base);
}
