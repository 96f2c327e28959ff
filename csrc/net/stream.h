/* The stream transport: TCP and Unix sockets. */
#ifndef AZS_NET_STREAM_H
#define AZS_NET_STREAM_H

#include "net/bufq.h"
#include "net/transport.h"

typedef struct {
    TransportObject base;
    azs_bufq queue;
    bool eof;          /* write_eof() was called */
    bool buffered;     /* the protocol is an asyncio.BufferedProtocol */
    bool feeds_reader; /* the protocol is exactly a StreamReaderProtocol */
} StreamObject;

/* New reference; arguments as azs_transport_new, `type` and `ops` filled in. */
TransportObject *azs_stream_new(azs_transport_args *args);

int azs_stream_init(PyObject *mod, azs_state *st);

#endif
