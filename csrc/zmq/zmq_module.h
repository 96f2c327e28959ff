/* The module's part for ZeroMQ. */
#ifndef AZS_ZMQ_ZMQ_MODULE_H
#define AZS_ZMQ_ZMQ_MODULE_H

#include "py/state.h"

int azs_zmq_init(PyObject *mod, azs_state *st);

/* Frees what the module's state has for ZeroMQ. */
void azs_zmq_free(azs_state *st);

#endif
