/* The datagram transport: UDP, Unix datagrams, and any other datagram socket. */
#ifndef AZS_NET_DATAGRAM_H
#define AZS_NET_DATAGRAM_H

#include "net/addrcache.h"
#include "net/datagram_queue.h"
#include "net/transport.h"

/* As many as are sent at once, each no larger than a common MTU has them. */
enum { AZS_DATAGRAM_SPARES = 32, AZS_DATAGRAM_SPARE_MAX = 2048 };

typedef struct {
    TransportObject base;
    int family;    /* AF_*: the socket module converts those that py/addr.h does not */
    bool has_peer; /* get_extra_info('peername') is true: addresses are ignored */
    bool is_connected; /* the kernel knows a peer, named or not */
    bool flushing;     /* in send_queue: writes are queued behind */
    unsigned batch;    /* datagrams to ask for in a turn, by what lately came */
    unsigned lone;     /* turns in which one was asked for */
    /* Of the datagram being delivered: its address is the likeliest one to be
     * sent to. `delivering` is borrowed from the call's arguments. */
    PyObject *delivering;
    azs_inet_addr delivering_raw;
    azs_addr_cache cache;
    azs_datagram_queue out; /* to be sent; their sizes make up base.queued */
    PyObject *address;      /* owned: the remote address given, or NULL */
    /* Of datagrams that nobody kept, for the next ones: see loop/spare.h. */
    azs_spare spares[AZS_DATAGRAM_SPARES];
    unsigned nspares;
} DatagramObject;

/* What a datagram counts beside its data: asyncio's, since Python 3.13, where empty
 * datagrams are sent too. */
#if PY_VERSION_HEX >= 0x030D0000
enum { AZS_DATAGRAM_HEADER = 8, AZS_DATAGRAM_SENDS_EMPTY = true };
#else
enum { AZS_DATAGRAM_HEADER = 0, AZS_DATAGRAM_SENDS_EMPTY = false };
#endif

/* Gives up the data of a datagram that was delivered or sent; steals the reference. */
static inline void
azs_datagram_give_bytes(DatagramObject *self, PyObject *bytes)
{
    size_t size = (size_t)PyBytes_GET_SIZE(bytes);
    if (azs_is_unshared(bytes) && size >= AZS_SPARE_MIN &&
        size <= AZS_DATAGRAM_SPARE_MAX && self->nspares < AZS_DATAGRAM_SPARES)
        self->spares[self->nspares++] = (azs_spare){bytes, size};
    else
        Py_DECREF(bytes);
}

/* ---- datagram_receive.c ---- */

/* The socket is ready: receives and delivers a turn's share. 0, or -1 with what must
 * leave the loop. */
int azs_datagram_receive(DatagramObject *self);

/* ---- datagram_send.c ---- */

/* sendto() after its checks, with the buffer of `data` at hand; `addr` may be None or
 * NULL. 0, or -1 with an exception for the caller. */
int azs_datagram_send(DatagramObject *self, PyObject *data, const char *buf, size_t len,
                      PyObject *addr);

/* Sends what is queued now, as far as the kernel takes it. 0, or -1 with an exception
 * that must leave the loop. */
int azs_datagram_send_queue(DatagramObject *self);

/* Drops what is queued for sending. */
void azs_datagram_drop_out(DatagramObject *self);

/* ---- datagram.c ---- */

/* Hands the current exception, an OSError, to protocol.error_received(). 0, or -1
 * with what that raised. */
int azs_datagram_error(DatagramObject *self);

/* The same from the loop's side: what that raised is reported, and the transport lives
 * on. 0, or -1 with what must leave the loop. */
int azs_datagram_report_error(DatagramObject *self);

int azs_datagram_init(PyObject *mod, azs_state *st);

#endif
