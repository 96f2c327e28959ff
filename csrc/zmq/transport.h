/* The C part of ZmqTransport, on libzmq. */
#ifndef AZS_ZMQ_TRANSPORT_H
#define AZS_ZMQ_TRANSPORT_H

#include "py/state.h"

int azs_zmq_transport_init(PyObject *mod, azs_state *st);

/* Frees what the module's state has for ZeroMQ. */
void azs_zmq_transport_free(azs_state *st);

#endif
