/* The stream transport: TCP and Unix sockets; pipes share its queue. */
#ifndef AZS_NET_STREAM_H
#define AZS_NET_STREAM_H

#include "net/bufq.h"
#include "net/transport.h"

typedef struct {
    TransportObject base;
    azs_bufq queue; /* what waits for EPOLLOUT, which is asked for while there is any */
    bool eof;       /* write_eof() was called */
    bool buffered;  /* the protocol is an asyncio.BufferedProtocol */
    bool feeds_reader;    /* the protocol is exactly a StreamReaderProtocol */
    bool attached;        /* and its reader is that of reader_ref */
    PyObject *reader_ref; /* owned: weak, the reader of its methods; or NULL */
    PyObject *writer_ref; /* owned: weak, the writer that has drain() in C; or NULL */
    uint32_t expected;    /* bytes that a read is expected to get, by those before it */
} StreamObject;

/* New reference; arguments as azs_transport_new, `type` and `ops` filled in. */
TransportObject *azs_stream_new(azs_transport_args *args);

/* ---- shared with pipes ---- */

/* Sends what the kernel takes now. 0, or -1 with what must leave the loop. */
int azs_stream_send(StreamObject *self);

/* Reads once and delivers. 0, or -1 with what must leave the loop. */
int azs_stream_read(StreamObject *self);

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
