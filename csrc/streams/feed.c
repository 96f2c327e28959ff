/* What the stream transport receives, put into the buffer of the StreamReader. */
#include "streams/feed.h"

#include <errno.h>
#include <sys/uio.h>

#include "py/weakref.h"
#include "streams/readbuf.h"
#include "streams/reader.h"

/* What protocol.data_received() would do. */
typedef struct {
    PyObject *reader; /* owned; NULL where it is gone: asyncio drops the data, too */
    PyObject *dict;   /* owned: its __dict__ */
    PyObject *buffer; /* owned: its _buffer */
} feed_state;

/* The reader behind the transport's protocol: as azs_weakref_get(). */
static int
feed_find(StreamObject *stream, PyObject **out)
{
    if (azs_likely(stream->attached))
        return azs_weakref_get(stream->reader_ref, out);
    PyObject *protocol = Py_NewRef(stream->base.protocol);
    int res = azs_reader_of(stream->base.st, protocol, out);
    Py_DECREF(protocol);
    return res;
}

/* Finds the reader that the stream feeds. 1, 0 where it is of some other class or state
 * and data_received() must be called, -1 with an exception. May run Python code. To be
 * followed by feed_end() in any case. */
static int
feed_begin(feed_state *feed, StreamObject *stream)
{
    azs_state *st = stream->base.st;
    feed->dict = feed->buffer = NULL;
    int res = feed_find(stream, &feed->reader);
    if (azs_unlikely(res <= 0))
        return res < 0 ? -1 : 1;
    if ((PyObject *)Py_TYPE(feed->reader) != st->stream_reader)
        return 0;
    feed->dict = azs_reader_dict(feed->reader);
    PyObject *eof =
        feed->dict == NULL ? NULL : azs_reader_get(feed->dict, st->str__eof);
    if (eof == NULL)
        return -1;
    azs_reader_let_go(eof);
    if (eof != Py_False)
        return 0; /* asyncio has its own answer to that */
    feed->buffer = azs_reader_keep(azs_reader_get(feed->dict, st->str__buffer));
    return feed->buffer == NULL ? -1 : PyByteArray_CheckExact(feed->buffer);
}

/* Tells whoever reads, after data was added to the buffer. 0 or -1. */
static int
feed_done(feed_state *feed, azs_state *st)
{
    if (azs_unlikely(feed->reader == NULL))
        return 0;
    if (azs_reader_wake(st, feed->dict) < 0)
        return -1;
    return azs_reader_respect_limit(st, feed->dict, feed->buffer);
}

static void
feed_end(feed_state *feed)
{
    Py_XDECREF(feed->buffer);
    Py_XDECREF(feed->dict);
    Py_XDECREF(feed->reader);
}

/* Receives into the buffer of the reader, which is empty, as much as is expected; what
 * is more goes into the scratch memory and is added. As azs_stream_recv. */
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

int
azs_feed_receive(StreamObject *self, char *scratch)
{
    TransportObject *base = &self->base;
    static const char failed[] = "Fatal error: protocol.data_received() call failed.";
    feed_state feed;
    int known = feed_begin(&feed, self), res = 0;
    if (azs_unlikely(known < 0)) {
        res = azs_transport_fatal(base, failed);
        goto done;
    }
    if (azs_unlikely(!(base->io.interest & EPOLLIN)))
        goto done; /* what looked for the reader has closed or paused this */
    bool direct = known && feed.buffer != NULL &&
                  self->expected >= AZS_STREAM_DIRECT_MIN &&
                  PyByteArray_GET_SIZE(feed.buffer) == 0;
    ssize_t n = direct ? receive_into_reader(self, scratch, feed.buffer)
                       : azs_stream_recv(self, scratch, AZS_SCRATCH_SIZE);
    if (azs_unlikely(n <= 0)) {
        res = PyErr_Occurred() ? azs_transport_fatal(base, base->ops->read_failed)
                               : azs_stream_received_nothing(self, n);
        goto done;
    }
    azs_stream_expect(self, (size_t)n);
    if (azs_likely(known)) {
        if ((!direct && feed.buffer != NULL &&
             azs_readbuf_append(base->st, feed.buffer, scratch, (size_t)n) < 0) ||
            feed_done(&feed, base->st) < 0)
            res = azs_transport_fatal(base, failed);
    } else {
        PyObject *data = PyBytes_FromStringAndSize(scratch, n);
        res = data == NULL ? azs_transport_fatal(base, base->ops->read_failed)
                           : azs_stream_deliver(self, data);
        Py_XDECREF(data);
    }
done:
    feed_end(&feed);
    return res;
}
