/* What every network transport has: protocol, flow control, close states. */
#ifndef AZS_NET_TRANSPORT_H
#define AZS_NET_TRANSPORT_H

#include "loop/flow.h"
#include "loop/loop_object.h"

#include <structmember.h>
#include "py/addr.h"

/* asyncio's transport classes have __slots__; their descriptors are hidden by
 * ours, so the space is only kept free. azs_transport_type_add checks it. */
enum { AZS_TRANSPORT_BASE_WORDS = 6 };

/* Bytes: where pause_writing() is called unless limits were set, as in asyncio. */
enum { AZS_TRANSPORT_HIGH_WATER = 64 * 1024 };

typedef struct TransportObject TransportObject;
typedef struct ClientsObject ClientsObject;

/* How kinds of transport differ. Each runs with a reference to the transport
 * held by the caller. */
typedef struct {
    const char *name;        /* for repr */
    const char *read_failed; /* messages of fatal errors */
    const char *write_failed;
    const char *lost_write; /* warning for writes after the end */
    /* Readiness; as azs_watcher_cb. */
    int (*on_ready)(TransportObject *self, uint32_t events);
    /* Drops the write queue. */
    void (*drop_queue)(TransportObject *self);
} azs_transport_ops;

/* Life: made -> (connection_made) open -> closing -> (connection_lost) gone.
 *
 * `closing` is set by close(), abort(), an error or EOF and never cleared.
 * `lost_posted` is set with connection_lost scheduled, exactly once; from then on
 * nothing is read or sent. `gone` is set when it has run: fd is -1, the protocol
 * and the sockets are dropped. */
struct TransportObject {
    PyObject_HEAD
    PyObject *base_words[AZS_TRANSPORT_BASE_WORDS]; /* owned, NULL but for mischief */
    PyObject *dict; /* owned or NULL: attributes that users set */
    PyObject *weakrefs;

    azs_state *st; /* borrowed: the loop holds it */
    const azs_transport_ops *ops;
    LoopObject *loop;   /* owned */
    PyObject *protocol; /* owned; NULL once gone */
    PyObject *context;  /* owned: protocol callbacks of the loop run in it */
    azs_watcher io;     /* the fd's readiness */
    azs_watcher later;  /* never has an fd: posts AZS_LATER_* to the ready queue */
    int fd;             /* -1 once gone; owned by `sock`, else by the transport */
    int dup_fd;         /* owned: watched in place of fd; -1 for none */
    uint32_t input;     /* EPOLL* bits that mean input; 0: never watch for it */

    bool closing;
    bool lost_posted;
    bool gone;
    bool paused;        /* pause_reading() was called */
    bool reading;       /* the loop watches for input */
    bool connected;     /* connection_made was called */
    bool is_socket;     /* recv/send work on the fd */
    unsigned conn_lost; /* writes after the end, for the warning */
    size_t queued;      /* bytes in the write queue, as water marks count */
    azs_flow flow;

    /* Cold. */
    PyObject *sock;     /* owned: a socket or pipe object, NULL where nobody asked */
    PyObject *waiter;   /* owned: a Future or a Waiter for the end of set-up, or NULL */
    PyObject *lost_exc; /* owned: what connection_lost gets, or NULL */
    PyObject *empty_waiter; /* owned: sendfile waits for an empty queue, or NULL */
    PyObject *extra;        /* owned: dict, or NULL until azs_transport_extra() */
    PyObject *server;       /* owned: asyncio's Server, which is called, or NULL */
    ClientsObject *clients; /* owned: where it is among a Server's, or NULL */
    TransportObject *next_client, *previous_client; /* borrowed: see server_clients.h */
    azs_inet_addr peername, sockname; /* shown by get_extra_info() on demand */
};

#define AZS_LATER_MADE ((uint32_t)1 << 0)
#define AZS_LATER_LOST ((uint32_t)1 << 1)
#define AZS_LATER_EOF  ((uint32_t)1 << 2) /* pipes: eof_received, then lost */
#define AZS_LATER_WAKE ((uint32_t)1 << 3) /* `waiter`, which had to wait for memory */

/* How a transport is made. */
typedef struct {
    PyTypeObject *type;
    const azs_transport_ops *ops;
    LoopObject *loop;
    int fd;                   /* taken over where sock is NULL, also on failure */
    PyObject *sock;           /* borrowed or NULL */
    PyObject *protocol;       /* borrowed */
    PyObject *waiter;         /* borrowed, NULL or None for none */
    PyObject *extra;          /* borrowed dict, NULL or None for none */
    PyObject *server;         /* borrowed, NULL or None for none */
    ClientsObject *clients;   /* borrowed: in place of `server`, or NULL */
    PyObject *context;        /* borrowed; NULL for a copy of the current one */
    const azs_addr *peer;     /* borrowed: where it is known, or NULL */
    const azs_addr *sockname; /* the same */
    bool is_socket;
    uint32_t input; /* EPOLL* bits that mean input */
} azs_transport_args;

/* New reference, or NULL. connection_made is posted for the next turn; then
 * reading starts and the waiter is done. */
TransportObject *azs_transport_new(const azs_transport_args *args);

/* Takes a transport back whose maker failed after azs_transport_new(): none of its
 * callbacks comes. The current exception stays. */
void azs_transport_unmake(TransportObject *self);

/* get_extra_info()'s dict, made where nobody needed it yet: borrowed, or NULL. */
PyObject *azs_transport_extra(TransportObject *self);

/* asyncio's transports have get_extra_info() of their base classes, where tests patch
 * it. The patch, borrowed, or NULL where there is none. */
PyObject *azs_transport_patched_extra(TransportObject *self);

/* get_extra_info()'s dict, or None: 0, or -1 with TypeError. */
int azs_transport_check_extra(PyObject *extra);

/* asyncio's own transport, made by `method` of its loop: for something with a socket's
 * methods that is no socket, since only Python can call those. New reference. */
PyObject *azs_transport_by_asyncio(LoopObject *loop, const char *method, PyObject *args,
                                   PyObject *kwargs);

/* set_protocol(): get_protocol() may be called in another thread. */
static inline void
azs_transport_set_protocol(TransportObject *self, PyObject *protocol)
{
    PyObject *old;
    AZS_LOCKED(self);
    old = self->protocol;
    self->protocol = Py_NewRef(protocol);
    AZS_UNLOCKED(self);
    Py_XDECREF(old);
}

/* Watches for input or stops, as `reading`, `paused` and `closing` say. */
int azs_transport_update_reading(TransportObject *self);

/* Watches for the fd to take more output, or stops. 0 or -1. */
int azs_transport_want_write(TransportObject *self, bool want);

/* ---- protocol callbacks ---- */

/* Around every callback made from the loop, whose exception stays set: the transport's
 * Context. Enter: 0 or -1. */
int azs_transport_enter(TransportObject *self);
void azs_transport_leave(TransportObject *self);

/* The current exception came out of the protocol or a system call: SystemExit
 * and KeyboardInterrupt stay set and make it -1; any other is reported as
 * asyncio's _fatal_error does, the transport is aborted, and it is 0. */
int azs_transport_fatal(TransportObject *self, const char *message);

/* The same for -errno of a system call. Always 0 but for a failing report. */
int azs_transport_fatal_errno(TransportObject *self, int neg_errno,
                              const char *message);

/* Reports `exc` (borrowed) to the loop's exception handler: one that closes the
 * transport (then an OSError is only logged, in debug mode) or any other. 0 or -1. */
int azs_transport_report(TransportObject *self, PyObject *exc, const char *message,
                         bool fatal);

/* As azs_transport_fatal, but the transport lives on: for what asyncio would report
 * as the exception of a handle. */
int azs_transport_failed(TransportObject *self, const char *message);

/* The queue grew: pause_writing() above the high mark. It shrank: the other way
 * round at the low mark. The protocol may do anything in there. 0, or -1 with
 * SystemExit or KeyboardInterrupt. */
int azs_transport_grew(TransportObject *self);
int azs_transport_shrank(TransportObject *self);

/* ---- closing ---- */

/* close(): no more input, connection_lost(None) when the queue is empty. */
int azs_transport_close(TransportObject *self);

/* abort(): drops the queue; connection_lost(exc) in the next turn. `exc`
 * borrowed, NULL for None. 0 or -1. */
int azs_transport_force_close(TransportObject *self, PyObject *exc);

/* The input of a pipe has ended: eof_received, then connection_lost(None), in the
 * next turn. 0 or -1. */
int azs_transport_eof_lost(TransportObject *self);

/* The queue of a closing transport has run empty. 0 or -1. */
int azs_transport_drained(TransportObject *self);

/* A write on a transport that lost its connection: counts and warns as asyncio
 * does. 0 or -1. */
int azs_transport_write_lost(TransportObject *self);

/* ---- type plumbing: what Python sees is transport_methods.c ---- */

int azs_transport_traverse(TransportObject *self, visitproc visit, void *arg);
int azs_transport_clear(TransportObject *self);
void azs_transport_finalize(TransportObject *self);
/* Ends a dealloc: the kind has dropped its own fields. */
void azs_transport_dealloc(TransportObject *self);

extern PyMethodDef azs_transport_methods[];
extern PyMethodDef azs_transport_read_methods[];
extern PyMethodDef azs_transport_write_methods[]; /* abort(), water marks */
extern PyGetSetDef azs_transport_getset[];
extern PyMemberDef azs_transport_members[];
PyObject *azs_transport_repr(TransportObject *self);

/* Makes a transport type below `base_name` of asyncio.transports, with the methods
 * above that it serves: `writes` adds the mix-in that asyncio has the water marks from,
 * too. The others are asyncio's, which raise NotImplementedError. 0 or -1. */
int azs_transport_type_add(PyObject *mod, azs_state *st, PyTypeObject **slot,
                           PyType_Spec *spec, const char *base_name, bool reads,
                           bool writes);

int azs_transport_init(PyObject *mod, azs_state *st);

#endif
