/* Accepting connections. */
#ifndef AZS_NET_LISTENER_H
#define AZS_NET_LISTENER_H

#include "py/state.h"

int azs_listener_init(PyObject *mod, azs_state *st);

#endif
