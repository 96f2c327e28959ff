/* Pipe transports: FIFOs, sockets, terminals and other character devices. */
#ifndef AZS_NET_PIPE_H
#define AZS_NET_PIPE_H

#include "py/state.h"

int azs_pipe_init(PyObject *mod, azs_state *st);

#endif
