/* Connecting to a numeric address: socket, connection and transport in one step. */
#ifndef AZS_NET_CONNECT_H
#define AZS_NET_CONNECT_H

#include "loop/loop_object.h"

int azs_connect_init(PyObject *mod, azs_state *st);

#endif
