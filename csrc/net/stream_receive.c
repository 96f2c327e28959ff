/* The stream transport's input, for each kind of protocol. */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "net/stream.h"
#include "py/errors.h"

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

ssize_t
azs_stream_recv(StreamObject *self, void *buf, size_t len)
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
    ssize_t n = azs_stream_recv(self, view.buf, (size_t)view.len);
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
    ssize_t n = azs_stream_recv(self, scratch, AZS_SCRATCH_SIZE);
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

int
azs_stream_deliver(StreamObject *self, PyObject *data)
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

int
azs_stream_received_nothing(StreamObject *self, ssize_t n)
{
    TransportObject *base = &self->base;
    if (n == -EAGAIN)
        return 0;
    if (n < 0)
        return azs_transport_fatal_errno(base, (int)n, base->ops->read_failed);
    return base->is_socket ? stream_eof_received(self) : azs_transport_eof_lost(base);
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
    if (self->sink != NULL)
        return self->sink->receive(self, scratch);
    PyObject *data = NULL;
    size_t capacity;
    ssize_t n = self->expected >= AZS_STREAM_DIRECT_MIN
                    ? receive_direct(self, scratch, &data, &capacity)
                    : receive_copied(self, scratch, &data, &capacity);
    if (data == NULL) {
        if (PyErr_Occurred())
            return azs_transport_fatal(base, base->ops->read_failed);
        return azs_stream_received_nothing(self, n);
    }
    azs_stream_expect(self, (size_t)n);
    /* The loop outlives this: the watcher's queue entry holds the transport. */
    int res = azs_stream_deliver(self, data);
    azs_spare_give(&base->loop->spare, data, capacity);
    return res;
}
