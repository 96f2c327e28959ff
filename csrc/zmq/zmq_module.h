/* The module's part for ZeroMQ. */
#ifndef AZS_ZMQ_ZMQ_MODULE_H
#define AZS_ZMQ_ZMQ_MODULE_H

#include "py/state.h"

int azs_zmq_init(PyObject *mod, azs_state *st);

#endif
