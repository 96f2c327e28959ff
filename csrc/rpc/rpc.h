/* RPC's hot paths: base types of the protocols of rpc/_client.py and _server.py. */
#ifndef AZS_RPC_RPC_H
#define AZS_RPC_RPC_H

#include "py/state.h"

int azs_rpc_call_init(PyObject *mod, azs_state *st);
int azs_rpc_client_init(PyObject *mod, azs_state *st);
int azs_rpc_server_init(PyObject *mod, azs_state *st);

/* Sends a call by a RpcClient: the future of its answer, new reference. `option` is a
 * timeout or None. All is kept by the caller. */
PyObject *azs_rpc_client_send(PyObject *client, PyObject *bname, PyObject *const *args,
                              Py_ssize_t nargs, PyObject *option);

#endif
