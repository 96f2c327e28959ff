/* What the module has of libzmq. */
#ifndef AZS_ZMQ_LIBZMQ_BINDING_H
#define AZS_ZMQ_LIBZMQ_BINDING_H

#include "py/state.h"

extern PyMethodDef azs_libzmq_functions[];

#endif
