/* The stream transport's input, for each kind of protocol. */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "net/readbuf.h"
#include "net/reader.h"
#include "net/stream.h"
#include "py/errors.h"

/* Where reads are as big as this, they are made straight into the object: the copy
 * costs more than an object that turns out to be of another size. */
enum { DIRECT_MIN = 8 * 1024 };

static int
stream_eof_received(StreamObject *self)
{
    TransportObject *base = &self->base;
    PyObject *protocol = Py_NewRef(base->protocol);
    PyObject *keep =
        azs_loop_call_protocol(base->loop, base->st->str_eof_received, &protocol, 1);
    int keep_open = keep == NULL ? -1 : PyObject_IsTrue(keep);
    Py_XDECREF(keep);
    Py_DECREF(protocol);
    if (keep_open < 0)
        return azs_transport_fatal(base,
                                   "Fatal error: protocol.eof_received() call failed.");
    if (!keep_open)
        return azs_transport_close(base);
    /* Half-closed: nothing more will come, but output may go on. */
    base->reading = false;
    return azs_transport_update_reading(base);
}

/* recv(2) or read(2) into `buf`: its result, or -errno. */
static ssize_t
stream_recv(StreamObject *self, void *buf, size_t len)
{
    ssize_t n;
    do {
        n = self->base.is_socket ? recv(self->base.fd, buf, len, 0)
                                 : read(self->base.fd, buf, len);
    } while (n < 0 && errno == EINTR);
    if (azs_likely(n > 0))
        azs_stats_received(&self->base.loop->stats, (size_t)n);
    return n < 0 ? -errno : n;
}

static int
stream_read_buffered(StreamObject *self)
{
    TransportObject *base = &self->base;
    azs_state *st = base->st;
    static const char failed[] = "Fatal error: protocol.get_buffer() call failed.";
    PyObject *protocol = Py_NewRef(base->protocol);
    PyObject *args[] = {protocol, st->minus_one};
    PyObject *obj = azs_loop_call_protocol(base->loop, st->str_get_buffer, args, 2);
    Py_buffer view;
    int res = -1;
    if (obj == NULL || PyObject_GetBuffer(obj, &view, PyBUF_WRITABLE) < 0) {
        Py_XDECREF(obj);
        Py_DECREF(protocol);
        return azs_transport_fatal(base, failed);
    }
    if (view.len == 0) {
        PyErr_SetString(PyExc_RuntimeError, "get_buffer() returned an empty buffer");
        res = azs_transport_fatal(base, failed);
        goto done;
    }
    if (base->lost_posted) { /* get_buffer() aborted */
        res = 0;
        goto done;
    }
    ssize_t n = stream_recv(self, view.buf, (size_t)view.len);
    /* The view is released before the callback: it may want to resize. */
    PyBuffer_Release(&view);
    Py_CLEAR(obj);
    if (n > 0) {
        PyObject *size = PyLong_FromSsize_t(n);
        PyObject *update_args[] = {protocol, size};
        PyObject *ok = size == NULL
                           ? NULL
                           : azs_loop_call_protocol(base->loop, st->str_buffer_updated,
                                                    update_args, 2);
        Py_XDECREF(size);
        Py_XDECREF(ok);
        res = ok != NULL ? 0
                         : azs_transport_fatal(base, "Fatal error: "
                                                     "protocol.buffer_updated() "
                                                     "call failed.");
    } else if (n == 0) {
        res = stream_eof_received(self);
    } else {
        res = n == -EAGAIN
                  ? 0
                  : azs_transport_fatal_errno(base, (int)n, base->ops->read_failed);
    }
    Py_DECREF(protocol);
    return res;

done:
    PyBuffer_Release(&view);
    Py_DECREF(obj);
    Py_DECREF(protocol);
    return res;
}

/* Receives straight into an object of the size that is expected; what is more goes
 * into the scratch memory, and all into an object that has room. Returns the number
 * of bytes with the object in *out, 0 or -errno without one, or -ENOMEM with
 * MemoryError set. */
static ssize_t
receive_direct(StreamObject *self, char *scratch, PyObject **out, size_t *capacity)
{
    azs_spare *spare = &self->base.loop->spare;
    size_t room = self->expected;
    PyObject *data = azs_spare_take(spare, room, capacity);
    if (data == NULL)
        return -ENOMEM;
    room = *capacity < AZS_SCRATCH_SIZE ? *capacity : AZS_SCRATCH_SIZE;
    struct iovec iov[] = {
        {PyBytes_AS_STRING(data), room},
        {scratch, AZS_SCRATCH_SIZE - room},
    };
    ssize_t n;
    do {
        n = readv(self->base.fd, iov, 2);
    } while (n < 0 && errno == EINTR);
    if (n <= 0) {
        n = n < 0 ? -errno : 0;
        azs_spare_give(spare, data, *capacity);
        return n;
    }
    azs_stats_received(&self->base.loop->stats, (size_t)n);
    size_t size = (size_t)n;
    if (size > room || size < *capacity / 2) {
        PyObject *other = PyBytes_FromStringAndSize(NULL, n);
        if (other == NULL) {
            Py_DECREF(data);
            return -ENOMEM;
        }
        size_t head = size < room ? size : room;
        memcpy(PyBytes_AS_STRING(other), PyBytes_AS_STRING(data), head);
        memcpy(PyBytes_AS_STRING(other) + head, scratch, size - head);
        azs_spare_give(spare, data, *capacity);
        data = other;
        *capacity = size;
    } else {
        azs_spare_set_size(data, size);
    }
    *out = data;
    return n;
}

/* Receives into the scratch memory, and copies into an object of that size. As
 * receive_direct. */
static ssize_t
receive_copied(StreamObject *self, char *scratch, PyObject **out, size_t *capacity)
{
    ssize_t n = stream_recv(self, scratch, AZS_SCRATCH_SIZE);
    if (n <= 0)
        return n;
    *capacity = (size_t)n;
    if (n < AZS_SPARE_MIN) {
        *out = PyBytes_FromStringAndSize(scratch, n);
    } else {
        *out = azs_spare_take(&self->base.loop->spare, (size_t)n, capacity);
        if (*out != NULL)
            memcpy(PyBytes_AS_STRING(*out), scratch, (size_t)n);
    }
    return *out == NULL ? -ENOMEM : n;
}

/* Grows at once and shrinks slowly: reads of a stream come in all sizes. */
static inline void
expect(StreamObject *self, size_t n)
{
    size_t less = self->expected - self->expected / 8;
    self->expected = (uint32_t)(n > less ? n : less);
}

/* Calls data_received(data). 0 or -1. */
static int
deliver(StreamObject *self, PyObject *data)
{
    TransportObject *base = &self->base;
    PyObject *protocol = Py_NewRef(base->protocol);
    PyObject *args[] = {protocol, data};
    PyObject *ok =
        azs_loop_call_protocol(base->loop, base->st->str_data_received, args, 2);
    Py_DECREF(protocol);
    Py_XDECREF(ok);
    return ok != NULL ? 0
                      : azs_transport_fatal(
                            base, "Fatal error: protocol.data_received() call failed.");
}

/* What to do where nothing was received: `n` is 0 or -errno. 0 or -1. */
static int
received_nothing(StreamObject *self, ssize_t n)
{
    TransportObject *base = &self->base;
    if (n == -EAGAIN)
        return 0;
    if (n < 0)
        return azs_transport_fatal_errno(base, (int)n, base->ops->read_failed);
    return base->is_socket ? stream_eof_received(self) : azs_transport_eof_lost(base);
}

/* Receives into the buffer of the reader, which is empty, as much as is expected; what
 * is more goes into the scratch memory and is added. As stream_recv. */
static ssize_t
receive_into_reader(StreamObject *self, char *scratch, PyObject *buffer)
{
    size_t room = self->expected;
    char *buf = azs_readbuf_room(self->base.st, buffer, room);
    if (buf == NULL)
        room = 0;
    struct iovec iov[] = {
        {buf, room},
        {scratch, AZS_SCRATCH_SIZE - room},
    };
    ssize_t n;
    do {
        n = readv(self->base.fd, iov, 2);
    } while (n < 0 && errno == EINTR);
    size_t size = n < 0 ? 0 : (size_t)n, head = size < room ? size : room;
    if (n < 0)
        n = -errno;
    else
        azs_stats_received(&self->base.loop->stats, size);
    if (buf != NULL)
        azs_readbuf_cut(buffer, head);
    if (size > head &&
        azs_readbuf_append(self->base.st, buffer, scratch, size - head) < 0)
        return -ENOMEM;
    return n;
}

/* Feeds the StreamReader behind the protocol. 0 or -1. */
static int
read_for_reader(StreamObject *self, char *scratch)
{
    TransportObject *base = &self->base;
    static const char failed[] = "Fatal error: protocol.data_received() call failed.";
    azs_feed feed;
    int known = azs_feed_begin(&feed, self), res = 0;
    if (azs_unlikely(known < 0)) {
        res = azs_transport_fatal(base, failed);
        goto done;
    }
    if (azs_unlikely(!(base->io.interest & EPOLLIN)))
        goto done; /* what looked for the reader has closed or paused this */
    bool direct = known && feed.buffer != NULL && self->expected >= DIRECT_MIN &&
                  PyByteArray_GET_SIZE(feed.buffer) == 0;
    ssize_t n = direct ? receive_into_reader(self, scratch, feed.buffer)
                       : stream_recv(self, scratch, AZS_SCRATCH_SIZE);
    if (azs_unlikely(n <= 0)) {
        res = PyErr_Occurred() ? azs_transport_fatal(base, base->ops->read_failed)
                               : received_nothing(self, n);
        goto done;
    }
    expect(self, (size_t)n);
    if (azs_likely(known)) {
        if ((!direct && feed.buffer != NULL &&
             azs_readbuf_append(base->st, feed.buffer, scratch, (size_t)n) < 0) ||
            azs_feed_done(&feed, base->st) < 0)
            res = azs_transport_fatal(base, failed);
    } else {
        PyObject *data = PyBytes_FromStringAndSize(scratch, n);
        res = data == NULL ? azs_transport_fatal(base, base->ops->read_failed)
                           : deliver(self, data);
        Py_XDECREF(data);
    }
done:
    azs_feed_end(&feed);
    return res;
}

int
azs_stream_read(StreamObject *self)
{
    TransportObject *base = &self->base;
    if (self->buffered)
        return stream_read_buffered(self);
    char *scratch = azs_loop_scratch(base->loop);
    if (scratch == NULL)
        return azs_transport_fatal(base, base->ops->read_failed);
    if (self->feeds_reader)
        return read_for_reader(self, scratch);
    PyObject *data = NULL;
    size_t capacity;
    ssize_t n = self->expected >= DIRECT_MIN
                    ? receive_direct(self, scratch, &data, &capacity)
                    : receive_copied(self, scratch, &data, &capacity);
    if (data == NULL) {
        if (PyErr_Occurred())
            return azs_transport_fatal(base, base->ops->read_failed);
        return received_nothing(self, n);
    }
    expect(self, (size_t)n);
    /* The loop outlives this: the watcher's queue entry holds the transport. */
    int res = deliver(self, data);
    azs_spare_give(&base->loop->spare, data, capacity);
    return res;
}
