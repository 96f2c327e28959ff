/* The transports of an asyncio Server, in place of the WeakSet that it keeps of them
 * since Python 3.13: entering and leaving it would be half of the instructions that an
 * accepted connection takes. */
#ifndef AZS_NET_SERVER_CLIENTS_H
#define AZS_NET_SERVER_CLIENTS_H

#include "net/transport.h"

/* The Clients of a Server that a Listener accepts for, which puts them into it: a new
 * reference in *out, or NULL where the Server is to be called as asyncio's own
 * transports call it. 0 or -1. */
int azs_clients_of(azs_state *st, PyObject *server, ClientsObject **out);

/* The transport enters. Does what Server._attach() does. */
void azs_clients_attach(ClientsObject *clients, TransportObject *transport);

/* It leaves those that it is in: harmless where there are none. Runs no Python code but
 * for the end of a Clients object. */
void azs_clients_forget(TransportObject *transport);

/* The same as Server._detach() does it: who waits for the end of the last one goes on.
 * 0 or -1. */
int azs_clients_detach(TransportObject *transport);

/* The Server: new reference, None where it is gone. */
PyObject *azs_clients_server(ClientsObject *clients);

int azs_clients_init(PyObject *mod, azs_state *st);

#endif
