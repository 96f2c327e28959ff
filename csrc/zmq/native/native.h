/* The native engine: ZMTP spoken by the loop itself, over its own connections.
 *
 * A ZmtpSocket has peers. A ZmtpPeer is what libzmq calls a pipe: a queue in, a queue
 * out, and the connection they go over, if there is one just now. What is done once a
 * connection (names, connecting, accepting, timers, who gets in) is Python:
 * aiozmq_speedups/_zmq/engine_native.py, native_links.py.
 */
#ifndef AZS_ZMQ_NATIVE_NATIVE_H
#define AZS_ZMQ_NATIVE_NATIVE_H

#include "base/ring.h"
#include "loop/loop_object.h"
#include "zmq/engine.h"
#include "zmtp/batch.h"
#include "zmtp/decoder.h"
#include "zmtp/handshake.h"
#include "zmtp/heartbeat.h"
#include "zmtp/trie.h"

typedef struct ZmtpSocketObject ZmtpSocketObject;
typedef struct ZmtpPeerObject ZmtpPeerObject;

/* ---- what a socket's peers share ---- */

/* What handshakes are made with: frozen while one uses it. */
typedef struct {
    Py_ssize_t refs;
    azs_zmtp_config config; /* its pointers go into `memory` */
    uint8_t memory[4 * 256];
} azs_native_config;

typedef struct {
    int sndhwm, rcvhwm; /* messages a peer; 0: no limit */
    int64_t max_size;   /* of a frame; -1: no limit */
    size_t max_queued;  /* octets that wait for a peer; 0: no limit */
    int heartbeat_interval, heartbeat_timeout, heartbeat_ttl; /* ms */
    bool immediate;                 /* only to peers that are connected */
    bool mandatory;                 /* ROUTER: unknown peers are errors */
    bool handover;                  /* ROUTER: a new peer takes a known id */
    bool probe;                     /* an empty message first */
    bool correlate, relaxed;        /* REQ */
    bool nodrop, verbose, verboser; /* XPUB */
} azs_native_options;

/* Frames sealed and encoded, with the memory they need; see zmtp/batch.h. */
typedef struct azs_native_batch {
    azs_zmtp_batch batch;
    struct azs_native_batch *next; /* in the socket's spare ones */
    uint8_t memory[32 * 1024];
} azs_native_batch;

enum {
    AZS_NATIVE_READ_SIZE = 64 * 1024, /* of one recv(2) */
    AZS_NATIVE_SPARE_FRAMES = 8,
    AZS_NATIVE_SPARE_MAX = 4096, /* of a frame that is kept */
};

/* ---- ZmtpPeer ---- */

typedef enum {
    PEER_IDLE,    /* no connection: its connector makes one */
    PEER_SHAKING, /* connected; the handshake is under way */
    PEER_READY,   /* messages go */
    PEER_CLOSED,  /* for ever */
} azs_native_state;

typedef struct {
    azs_zmtp_handshake hs;
    azs_native_config *config; /* held */
} azs_native_handshake;

struct ZmtpPeerObject {
    PyObject_HEAD
    azs_state *st;            /* held */
    ZmtpSocketObject *socket; /* owned or NULL */
    PyObject *owner;          /* owned or NULL: its connector or listener */
    azs_watcher watcher;
    int fd; /* owned; -1 for none */
    azs_native_state state;
    bool connects; /* its queues are kept while there is no connection */
    bool piped;    /* among the socket's pipes */
    bool dirty;    /* among those to be flushed */
    bool active;   /* among those with messages */
    bool stuffed;  /* not read from: its queue in is full */
    bool garbled;  /* not read from: what came has no meaning */
    bool drops;    /* ROUTER: a message was dropped for want of room */
    bool told;     /* of that */
    bool leaving;  /* disconnected from: only what waits is sent still */
    bool beating;  /* Python has a timer for its heartbeats */
    bool deaf;     /* takes nothing any more */
    int broken;    /* an errno of sending: to be told of by the loop */
    int minor;     /* of its ZMTP version */

    azs_native_handshake *shaking; /* owned or NULL */
    azs_zmtp_curve *curve;         /* owned or NULL */
    azs_zmtp_heartbeat heartbeat;
    azs_zmtp_decoder decoder;
    PyObject *id; /* owned or NULL: ROUTER's name for it */

    /* in */
    uint8_t *buffer; /* owned or NULL: read, and fed to the decoder, but not decoded */
    PyObject *room;  /* owned or NULL: bytes that a large frame is received into */
    PyObject **frames; /* owned references: the message under way */
    int nframes, frames_room;
    azs_ring in; /* owned lists of bytes */

    /* out */
    azs_ring out;            /* owned, to be encoded: tuples of bytes; commands */
    size_t out_octets;       /* of the messages there */
    Py_ssize_t out_frame;    /* of the first: how many frames are encoded */
    azs_native_batch *batch; /* owned or NULL: encoded, not yet sent */
    int batched;             /* messages in it */

    azs_zmtp_subscriber subscriber; /* PUB, XPUB */
};

/* ---- ZmtpSocket ---- */

/* What a type of socket does with peers and messages. All return 0, or -1 with an
 * exception, unless said otherwise; none runs Python code. */
typedef struct {
    /* Sends: 0 or an errno; or -1. */
    int (*send)(ZmtpSocketObject *self, PyObject *const *parts, Py_ssize_t nparts);
    /* Takes the next message: 0 or an errno; or -1. */
    int (*recv)(ZmtpSocketObject *self, PyObject **message);
    /* A peer's message: `frames` are to be taken over, as azs_native_peer_push() does;
     * what is left is dropped by the caller. */
    int (*received)(ZmtpSocketObject *self, ZmtpPeerObject *peer);
    /* A peer is connected: 1 where it is to stay, 0 where not. */
    int (*ready)(ZmtpSocketObject *self, ZmtpPeerObject *peer);
    /* Its connection is gone. */
    void (*lost)(ZmtpSocketObject *self, ZmtpPeerObject *peer);
    /* Would send() or recv() do more than say EAGAIN or EFSM? */
    bool (*can_send)(ZmtpSocketObject *self);
    bool (*can_recv)(ZmtpSocketObject *self);
    bool pulls; /* recv() takes from whoever is active: see azs_native_peer_pull() */
} azs_native_pattern;

extern const azs_native_pattern azs_native_dealer, azs_native_push, azs_native_pull,
    azs_native_pair, azs_native_router, azs_native_req, azs_native_rep, azs_native_pub,
    azs_native_xpub, azs_native_sub, azs_native_xsub;

struct ZmtpSocketObject {
    PyObject_HEAD
    azs_state *st;    /* held */
    LoopObject *loop; /* owned or NULL */
    int type;
    bool closed;
    bool wants_room; /* a send() said EAGAIN: tell when there is room */
    const azs_native_pattern *pattern;
    azs_native_options options;
    azs_native_config *config; /* held or NULL */

    /* Who is told that there is something to be had: see azs_zmq_engine.watch. */
    int (*on_ready)(PyObject *owner);
    PyObject *watcher; /* owned or NULL: the transport */

    ZmtpPeerObject **pipes; /* owned references: those that messages may be sent to */
    size_t npipes, pipes_room, next_pipe;
    azs_ring active; /* owned references to peers that have messages in */
    azs_ring dirty;  /* owned references to peers to be flushed */
    azs_deferred flush;
    azs_native_batch *spares; /* owned */
    int nspares;
    uint8_t *spare_buffer; /* owned or NULL: of AZS_NATIVE_READ_SIZE */

    /* While a message is pulled from a peer: where it is put. */
    PyObject **pulled; /* borrowed or NULL */
    /* What is left of the last message, where nobody has kept it: an empty list, and
     * its frames, to be used again in their order. */
    PyObject *spare_list;                            /* owned or NULL */
    PyObject *spare_frames[AZS_NATIVE_SPARE_FRAMES]; /* owned, from next_spare on */
    unsigned next_spare, end_spare;

    PyObject *by_id;      /* owned: ROUTER's peers by id, a dict */
    uint32_t next_id;     /* of those without an id of their own; REQ's requests */
    azs_zmtp_trie topics; /* SUB, XSUB: ours; PUB, XPUB: the peers' */
    azs_zmtp_subscriber subscriber; /* SUB, XSUB */
    azs_ring news;                  /* XPUB: owned lists, of subscriptions */
    azs_ring sources; /* of each: one more than the descriptor it came by, or 0 */
    size_t news_octets;
    int source;        /* what azs_zmq_socket.source is to be */
    PyObject *welcome; /* owned or NULL: XPUB's first message */
    /* REQ: whom the request went to, while it is not answered. REP: who has asked. */
    ZmtpPeerObject *partner; /* owned or NULL */
    PyObject *envelope;      /* owned or NULL: REP's tuple; REQ: its id */
    bool waits;              /* REQ: for the answer. REP: to send it */
};

/* ---- socket.c ---- */

/* Free-threaded builds: its loop runs in no other thread. 0, or -1 with RuntimeError.
 * What Python calls begins with it. */
static inline int
azs_native_check_thread(const ZmtpSocketObject *self)
{
    return self == NULL || self->loop == NULL ? 0 : azs_loop_check_thread(self->loop);
}

bool azs_native_socket_check(azs_state *st, PyObject *object);

/* Adds to or takes off the pipes. */
int azs_native_socket_add_pipe(ZmtpSocketObject *self, ZmtpPeerObject *peer);
void azs_native_socket_drop_pipe(ZmtpSocketObject *self, ZmtpPeerObject *peer);

/* The next message of any peer, in turn. 0, or EAGAIN. */
int azs_native_socket_take(ZmtpSocketObject *self, PyObject **message,
                           ZmtpPeerObject **from);

/* Adds to those that have messages. 0, or -1 with MemoryError. */
int azs_native_socket_activate(ZmtpSocketObject *self, ZmtpPeerObject *peer);

/* A list for `n` frames, not filled in; new reference. NULL with MemoryError. */
PyObject *azs_native_socket_new_list(ZmtpSocketObject *self, Py_ssize_t n);

/* Tells the transport. 1 where it will ask for more, 0, or -1 with an exception. Runs
 * Python code. */
int azs_native_socket_tell(ZmtpSocketObject *self);

void azs_native_config_release(azs_native_config *config);

extern PyMethodDef azs_native_config_methods[]; /* of the socket: socket_config.c */

/* ---- peer.c ---- */

/* Events of zmq_socket_monitor(3). */
enum {
    AZS_NATIVE_DISCONNECTED = 0x200,
    AZS_NATIVE_FAILED_NO_DETAIL = 0x800,
    AZS_NATIVE_FAILED_PROTOCOL = 0x2000,
    AZS_NATIVE_FAILED_AUTH = 0x4000,
};

static inline bool
azs_native_peer_is_connected(const ZmtpPeerObject *peer)
{
    return peer->state == PEER_SHAKING || peer->state == PEER_READY;
}

ZmtpPeerObject *azs_native_peer_new(ZmtpSocketObject *socket, PyObject *owner,
                                    bool connects);

/* Takes it out of the loop and the socket: `state` is what it is from now on. Runs no
 * Python code. */
void azs_native_peer_end(ZmtpPeerObject *peer, azs_native_state state);

void azs_native_peer_drop_handshake(ZmtpPeerObject *peer);

/* Ends the connection; `event` and `value` are for the monitor. Calls
 * socket._peer_lost(). 0 or -1. Runs Python code. */
int azs_native_peer_lose(ZmtpPeerObject *peer, int event, int value);

/* The same for an errno. */
int azs_native_peer_fail(ZmtpPeerObject *peer, int err);

/* ---- peer_handshake.c: 0 or -1; may run Python code ---- */

/* After each step of it: sends what it has to say, and goes on to what follows. */
int azs_native_peer_shake_on(ZmtpPeerObject *peer);

/* Ends the connection for what azs_zmtp_handshake_receive() returned. */
int azs_native_peer_fail_handshake(ZmtpPeerObject *peer, int err);

/* The user's answer to _peer_asks(): a status of RFC 27. */
int azs_native_peer_decide(ZmtpPeerObject *peer, int status);

/* ---- peer_receive.c ---- */

/* Of its watcher. */
int azs_native_peer_on_ready(azs_watcher *watcher, uint32_t events);

/* The next message of what was read and not decoded: true with a new reference. Never
 * fails: what is wrong is left to the loop. */
bool azs_native_peer_pull(ZmtpPeerObject *peer, PyObject **message);

/* Gives back the memory that was read to. */
void azs_native_peer_drop_buffer(ZmtpPeerObject *peer);

/* Takes over the frames under way as a message, where `skip` of them are dropped. 0
 * or -1. */
int azs_native_peer_push(ZmtpPeerObject *peer, int skip, PyObject *first);

/* ---- peer_send.c ---- */

/* Is there room by the high water mark? */
bool azs_native_peer_has_room(const ZmtpPeerObject *peer);

/* Queues a message of exact bytes: 0, EAGAIN where there is no room, or -1 with
 * MemoryError. What it sends leaves when the callback that runs returns. */
int azs_native_peer_send(ZmtpPeerObject *peer, PyObject *const *parts,
                         Py_ssize_t nparts);

/* A command, whatever the marks are; dropped where the kernel takes nothing. 0 or -1.
 */
int azs_native_peer_send_command(ZmtpPeerObject *peer, unsigned flags,
                                 const uint8_t *body, size_t size);

/* The same for a subscription, which waits then. */
int azs_native_peer_send_subscription(ZmtpPeerObject *peer, unsigned flags,
                                      const uint8_t *body, size_t size);

/* Sends what the kernel takes. Never fails: an error is left to the loop. */
void azs_native_peer_flush(ZmtpPeerObject *peer);

/* Forgets what is encoded; with `all` the queue, too. */
void azs_native_peer_drop_out(ZmtpPeerObject *peer, bool all);

/* Messages that wait: queued, or encoded and not sent. */
static inline size_t
azs_native_peer_waiting(const ZmtpPeerObject *peer)
{
    return peer->out.count + (size_t)peer->batched;
}

/* ---- pattern_*.c ---- */

/* SUB, XSUB: subscribes or cancels, and tells the peers. 0 or -1. */
int azs_native_sub_change(ZmtpSocketObject *self, bool subscribe, const uint8_t *topic,
                          size_t size);

/* XPUB: are there so many subscriptions to be told of that peers have to wait? */
enum { AZS_NATIVE_NEWS_MAX = 64 * 1024, AZS_NATIVE_NEWS_OCTETS_MAX = 16 * 1024 * 1024 };

static inline bool
azs_native_news_full(const ZmtpSocketObject *self)
{
    return self->news.count >= AZS_NATIVE_NEWS_MAX ||
           self->news_octets >= AZS_NATIVE_NEWS_OCTETS_MAX;
}

/* ROUTER: nobody has the peer's id any more. */
void azs_native_router_forget(ZmtpSocketObject *self, ZmtpPeerObject *peer);

/* PUB, XPUB: a peer subscribes or cancels; others heed it not. 0 or -1. */
int azs_native_peer_subscription(ZmtpSocketObject *self, ZmtpPeerObject *peer,
                                 const azs_zmtp_subscription *subscription);

/* ---- types, sodium.c ---- */

extern PyType_Spec azs_native_socket_spec, azs_native_peer_spec;

/* The libsodium of the loaded image `path`, or NULL with ImportError. */
const azs_zmtp_crypto *azs_native_sodium(const char *path);

#endif
