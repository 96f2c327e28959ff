#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "base/sys.h"
#include "net/datagram.h"
#include "py/errors.h"

/* Datagrams are received one by one, and none before the protocol has had the one
 * before it: whoever shares the socket still finds what was not delivered when the
 * transport is paused or closed, as with asyncio. */

enum {
    /* One transport's share of a turn. */
    RECEIVE_BYTES = 256 * 1024,
    RECEIVE_COUNT = 32,

    /* Every so many lone datagrams another one is asked for: it costs a system call to
     * find nothing. */
    PROBE_EVERY = 16,
};

/* New bytes, or those of an earlier datagram that nobody has kept. */
static PyObject *
datagram_take_bytes(DatagramObject *self, const char *buf, size_t len)
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

/* Nothing was received: an error from the socket. 0 or -1. */
static int
receive_failed(DatagramObject *self, int neg_errno)
{
    if (neg_errno == -EAGAIN)
        return 0;
    azs_set_errno(neg_errno);
    return azs_datagram_report_error(self);
}

/* recvfrom(2). 1 with both objects, 0 or -1. */
static int
receive_one(DatagramObject *self, azs_datagram *out)
{
    TransportObject *base = &self->base;
    char *scratch = azs_loop_scratch(base->loop);
    if (scratch == NULL)
        return azs_transport_fatal(base, base->ops->read_failed);
    azs_addr addr;
    addr.len = sizeof(addr.storage);
    addr.sa.sa_family = AF_UNSPEC;
    ssize_t n =
        azs_sys_recvfrom(base->fd, scratch, AZS_SCRATCH_SIZE, &addr.sa, &addr.len);
    if (n < 0)
        return receive_failed(self, (int)n);
    out->data = datagram_take_bytes(self, scratch, (size_t)n);
    out->addr = azs_addr_cache_object(&self->cache, &addr.sa, addr.len);
    if (addr.len <= sizeof(out->raw.in6) && self->family != AF_UNIX) {
        memcpy(&out->raw.sa, &addr.sa, addr.len);
        out->raw.len = addr.len;
    }
    if (out->data != NULL && out->addr != NULL)
        return 1;
    azs_datagram_drop(out);
    return azs_transport_fatal(base, base->ops->read_failed);
}

/* What sock.recvfrom() returned, which may be anything: a subclass made it. 0 or -1. */
static int
take_pair(PyObject *pair, azs_datagram *out)
{
    if (!PyTuple_Check(pair) || PyTuple_GET_SIZE(pair) != 2) {
        PyErr_SetString(PyExc_TypeError, "recvfrom() must return a pair");
        return -1;
    }
    PyObject *data = PyTuple_GET_ITEM(pair, 0), *addr = PyTuple_GET_ITEM(pair, 1);
    out->data = PyBytes_CheckExact(data) ? Py_NewRef(data) : PyBytes_FromObject(data);
    if (out->data == NULL)
        return -1;
    out->addr = Py_NewRef(addr);
    return 0;
}

/* By the socket module, for families that only it knows. As receive_one. */
static int
receive_by_module(DatagramObject *self, azs_datagram *out)
{
    PyObject *sock = Py_NewRef(self->base.sock);
    PyObject *pair = PyObject_CallMethod(sock, "recvfrom", "i", (int)AZS_SCRATCH_SIZE);
    Py_DECREF(sock);
    if (pair != NULL) {
        int taken = take_pair(pair, out);
        Py_DECREF(pair);
        if (taken == 0)
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

/* Calls datagram_received(), which may pause, close, abort, stop the loop, change the
 * protocol or raise; drops the datagram. 0 or -1. */
static int
datagram_deliver(DatagramObject *self, azs_datagram *dgram)
{
    TransportObject *base = &self->base;
    PyObject *protocol = Py_NewRef(base->protocol);
    self->delivering = dgram->addr;
    self->delivering_raw = dgram->raw;
    PyObject *args[] = {protocol, dgram->data, dgram->addr};
    PyObject *ok =
        azs_loop_call_protocol(base->loop, base->st->str_datagram_received, args, 3);
    self->delivering = NULL;
    azs_datagram_give_bytes(self, dgram->data);
    Py_DECREF(dgram->addr);
    Py_DECREF(protocol);
    Py_XDECREF(ok);
    return ok != NULL ? 0
                      : azs_transport_failed(
                            base, "Exception in protocol.datagram_received()");
}

/* How many datagrams to ask for: what lately came. */
static unsigned
receive_count(DatagramObject *self)
{
    if (self->batch > 1)
        return self->batch;
    return ++self->lone % PROBE_EVERY == 0 ? 2 : 1;
}

int
azs_datagram_receive(DatagramObject *self)
{
    TransportObject *base = &self->base;
    bool known =
        self->family == AF_INET || self->family == AF_INET6 || self->family == AF_UNIX;
    unsigned want = receive_count(self), got = 0;
    size_t bytes = 0;
    while (got < want && bytes < RECEIVE_BYTES) {
        azs_datagram dgram = {0};
        int res = known ? receive_one(self, &dgram) : receive_by_module(self, &dgram);
        if (res < 0)
            return -1;
        if (res == 0)
            break;
        /* A socket's recvfrom() may be Python code, and run the loop. */
        if (base->protocol == NULL) {
            azs_datagram_drop(&dgram);
            return 0;
        }
        got++;
        bytes += (size_t)PyBytes_GET_SIZE(dgram.data);
        azs_stats_received(&base->loop->stats, (size_t)PyBytes_GET_SIZE(dgram.data));
        if (datagram_deliver(self, &dgram) < 0)
            return -1;
        /* The rest stays where it is; the socket is readable still. */
        if (base->paused || base->closing || AZS_LOOK(&base->loop->stopping))
            return 0;
    }
    /* As many as were there, or more where there were more. */
    if (got < want)
        self->batch = got;
    else if (want > 1)
        self->batch = want * 2 < RECEIVE_COUNT ? want * 2 : RECEIVE_COUNT;
    return 0;
}
