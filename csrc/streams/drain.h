/* asyncio.StreamWriter.drain() without Python code where there is nothing to wait for.
 *
 * The writer of a server's connection is made by its StreamReaderProtocol, which hands
 * it to the client_connected_cb: on that way it gets the method, as an attribute of the
 * instance. A client's writer is made where nobody sees it: its drain() awaits the
 * protocol's _drain_helper(), which is in C.
 */
#ifndef AZS_STREAMS_DRAIN_H
#define AZS_STREAMS_DRAIN_H

#include "net/stream.h"

/* Gives the protocol its method in C, and its writer, once that is made. 0 or -1. */
int azs_drain_attach(StreamObject *stream, PyObject *protocol);

/* The protocol of the transport will be another. 0 or -1. */
int azs_drain_detach(StreamObject *stream, PyObject *protocol);

int azs_drain_init(PyObject *mod, azs_state *st);

#endif
