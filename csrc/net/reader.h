/* Feeding asyncio.StreamReader without a Python call per packet. */
#ifndef AZS_NET_READER_H
#define AZS_NET_READER_H

#include "py/state.h"

/* True where `protocol` is exactly asyncio's StreamReaderProtocol: subclasses may
 * look at the data themselves. */
bool azs_reader_serves(azs_state *st, PyObject *protocol);

/* What protocol.data_received(data) would do. 1 where it is done, 0 where the
 * reader is of some other class or state and data_received must be called, -1
 * with an exception. */
int azs_reader_feed(azs_state *st, PyObject *protocol, const char *data, size_t len);

int azs_reader_init(PyObject *mod, azs_state *st);

#endif
