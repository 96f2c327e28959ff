/* RPC's hot paths: base types of the protocols of rpc/_client.py and _server.py. */
#ifndef AZS_RPC_RPC_H
#define AZS_RPC_RPC_H

#include "py/state.h"

int azs_rpc_client_init(PyObject *mod, azs_state *st);
int azs_rpc_server_init(PyObject *mod, azs_state *st);
int azs_rpc_name_init(PyObject *mod, azs_state *st);

/* proto.send(bname, args, kwargs, option) where `proto` is an RpcClient: the
 * future of the answer, a new reference. `bname` is bytes, `args` a tuple, `kwargs`
 * a dict or NULL. */
PyObject *azs_rpc_client_send(PyObject *proto, PyObject *bname, PyObject *args,
                              PyObject *kwargs, PyObject *option);

static inline bool
azs_rpc_client_check(azs_state *st, PyObject *obj)
{
    return PyObject_TypeCheck(obj, st->rpc_client_type);
}

#endif
