/* The stream transport: TCP and Unix sockets; pipes share its queue. */
#ifndef AZS_NET_STREAM_H
#define AZS_NET_STREAM_H

#include "net/bufq.h"
#include "net/transport.h"

typedef struct StreamObject StreamObject;

/* Takes a stream's input in place of data_received(), for protocols that it knows.
 * streams/ registers one, for asyncio's, in azs_state.stream_sink. */
typedef struct azs_stream_sink {
    bool (*serves)(azs_state *st, PyObject *protocol);
    /* The protocol is about to be the stream's, or its no longer. 0 or -1. */
    int (*attach)(StreamObject *self, PyObject *protocol);
    int (*detach)(StreamObject *self, PyObject *protocol);
    /* Receives once; `scratch` is memory of AZS_SCRATCH_SIZE bytes. As
     * azs_stream_read. */
    int (*receive)(StreamObject *self, char *scratch);
} azs_stream_sink;

struct StreamObject {
    TransportObject base;
    azs_bufq queue; /* what waits for EPOLLOUT, which is asked for while there is any */
    bool eof;       /* write_eof() was called */
    bool buffered;  /* the protocol is an asyncio.BufferedProtocol */
    uint32_t expected; /* bytes that a read is expected to get, by those before it */

    const azs_stream_sink *sink; /* borrowed: static; NULL for data_received() */
    /* The sink's own. */
    bool attached;        /* the protocol's reader is that of reader_ref */
    PyObject *reader_ref; /* owned: weak, the reader of its methods; or NULL */
    PyObject *writer_ref; /* owned: weak, the writer that has drain() in C; or NULL */
};

/* New reference; arguments as azs_transport_new, `type` and `ops` filled in. */
TransportObject *azs_stream_new(azs_transport_args *args);

/* ---- shared with pipes ---- */

/* Sends what the kernel takes now. 0, or -1 with what must leave the loop. */
int azs_stream_send(StreamObject *self);

/* Reads once and delivers. 0, or -1 with what must leave the loop. */
int azs_stream_read(StreamObject *self);

/* ---- shared with the sink: stream_receive.c ---- */

/* Where reads are as big as this, they are made straight into the object: the copy
 * costs more than an object that turns out to be of another size. */
enum { AZS_STREAM_DIRECT_MIN = 8 * 1024 };

/* recv(2) or read(2) into `buf`: its result, or -errno. */
ssize_t azs_stream_recv(StreamObject *self, void *buf, size_t len);

/* What to do where nothing was received: `n` is 0 or -errno. 0 or -1. */
int azs_stream_received_nothing(StreamObject *self, ssize_t n);

/* Calls data_received(data). 0 or -1. */
int azs_stream_deliver(StreamObject *self, PyObject *data);

/* `n` bytes were received. Grows at once and shrinks slowly: reads of a stream come in
 * all sizes. */
static inline void
azs_stream_expect(StreamObject *self, size_t n)
{
    size_t less = self->expected - self->expected / 8;
    self->expected = (uint32_t)(n > less ? n : less);
}

/* ---- shared with pipes ---- */

void azs_stream_drop_queue(TransportObject *self);

/* How input is delivered to this protocol. 0 or -1. */
int azs_stream_adopt_protocol(StreamObject *self, PyObject *protocol);

/* The methods write() and set_protocol(). */
PyObject *azs_stream_write(StreamObject *self, PyObject *data);
PyObject *azs_stream_set_protocol(StreamObject *self, PyObject *protocol);
extern const char azs_stream_write_doc[], azs_stream_set_protocol_doc[];

void azs_stream_dealloc(StreamObject *self);

int azs_stream_init(PyObject *mod, azs_state *st);

#endif
