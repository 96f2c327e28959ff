/* Accepting connections. */
#ifndef AZS_NET_SERVER_H
#define AZS_NET_SERVER_H

#include "py/state.h"

int azs_server_init(PyObject *mod, azs_state *st);

#endif
