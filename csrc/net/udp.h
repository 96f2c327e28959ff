/* The datagram transport: UDP, Unix datagrams, and any other datagram socket. */
#ifndef AZS_NET_UDP_H
#define AZS_NET_UDP_H

#include "net/addrcache.h"
#include "net/dgramq.h"
#include "net/transport.h"

typedef struct {
    TransportObject base;
    int family;    /* AF_*: the socket module converts those that py/addr.h does not */
    bool has_peer; /* get_extra_info('peername') is true: addresses are ignored */
    bool is_connected; /* the kernel knows a peer, named or not */
    bool flushing;     /* in send_queue: writes are queued behind */
    unsigned batch;    /* datagrams to ask for at once: what lately came, doubled */
    unsigned lone;     /* receptions of a single one: see receive() */
    /* Of the datagram being delivered: its address is the likeliest one to be
     * sent to. `delivering` is borrowed from the call's arguments. */
    PyObject *delivering;
    azs_inet_addr delivering_raw;
    azs_addr_cache cache;
    azs_dgramq in;     /* received, not delivered yet */
    azs_dgramq out;    /* to be sent; their sizes make up base.queued */
    PyObject *address; /* owned: the remote address given, or NULL */
} DatagramObject;

int azs_udp_init(PyObject *mod, azs_state *st);

#endif
