/* What moves the messages of a ZmqTransport: the seam between its life, flow control
 * and protocol calls, which know nothing of sockets, and an engine, which knows
 * nothing of protocols.
 *
 * An engine is pulled: recv() gives the next message, send() takes one or says EAGAIN.
 * It tells of what it cannot be asked for: by its descriptor `fd`, which the transport
 * watches, or by calling `ready`. What is seldom done (options, bind, connect, close)
 * are methods of `object`, by pyzmq's names: Python code calls them.
 */
#ifndef AZS_ZMQ_ENGINE_H
#define AZS_ZMQ_ENGINE_H

#include "loop/spare.h"

/* Of zmq.h: what transports and engines say to each other. */
enum {
    ZMQ_POLLIN = 1,
    ZMQ_POLLOUT = 2,

    ZMQ_PAIR = 0,
    ZMQ_PUB = 1,
    ZMQ_SUB = 2,
    ZMQ_REQ = 3,
    ZMQ_REP = 4,
    ZMQ_DEALER = 5,
    ZMQ_ROUTER = 6,
    ZMQ_PULL = 7,
    ZMQ_PUSH = 8,
    ZMQ_XPUB = 9,
    ZMQ_XSUB = 10,
    ZMQ_STREAM = 11,

    AZS_ZMQ_EFSM = 156384763, /* ZMQ_HAUSNUMERO + 51 */
};

/* What a frame counts in buffers, budgets and water marks beside its payload: the size
 * of libzmq's zmq_msg_t. aiozmq_speedups/_zmq/engine_libzmq.py has the same. */
enum { AZS_ZMQ_FRAME_OVERHEAD = 64 };

static inline Py_ssize_t
azs_zmq_message_size(PyObject *const *frames, Py_ssize_t nframes)
{
    Py_ssize_t size = nframes * AZS_ZMQ_FRAME_OVERHEAD;
    for (Py_ssize_t i = 0; i < nframes; i++)
        size += PyBytes_GET_SIZE(frames[i]);
    return size;
}

typedef struct azs_zmq_engine azs_zmq_engine;

/* A socket as its transport has it: embedded there. */
typedef struct azs_zmq_socket {
    const azs_zmq_engine *engine; /* NULL until it is opened */
    azs_state *st;                /* borrowed */
    PyObject *object;             /* owned or NULL: what Python has of it */
    void *handle; /* the engine's: borrowed from `object`; NULL where that is closed */
    int fd;   /* readable where recv() or send() may have more to do; -1: see watch */
    int type; /* ZMQ_DEALER, say */
    /* Whatever is called may take what `fd` would have told: see libzmq/engine.c. */
    bool look_after_calls;
    bool out_is_constant; /* look() cannot tell when to send again */
    bool tells_source;    /* recv() fills in `source` */
    int source; /* the descriptor of the connection that the last message came by, or
                 * -1: not told, or it came by none */
} azs_zmq_socket;

/* Functions return 0 or an errno, as sendmsg(2) and its like set it; -1 with an
 * exception. None runs Python code, but for watch(). `handle` is not NULL. */
struct azs_zmq_engine {
    /* Is `object` of this engine? Then `socket` is filled in: 1, 0, or -1 with an
     * exception. */
    int (*open)(azs_zmq_socket *socket, PyObject *object, int type);

    /* Is it not closed by the user behind our back? 1; 0; or -1 with an exception. To
     * be asked again after each Python call. */
    int (*usable)(azs_zmq_socket *socket);

    /* A new list of bytes in *message, its azs_zmq_message_size() in *size. *lent is
     * the first large frame, with a reference of its own, or has no bytes: to be given
     * back to `spare` when the list is gone. */
    int (*recv)(azs_zmq_socket *socket, azs_spare *spare, PyObject **message,
                size_t *size, azs_spare *lent);

    /* Takes back a message that its user may have finished with; steals the reference.
     * NULL: it is just dropped. `handle` may be NULL. */
    void (*recycle)(azs_zmq_socket *socket, PyObject *message);

    /* Sends bytes objects as one message. On EAGAIN nothing was sent. */
    int (*send)(azs_zmq_socket *socket, PyObject *const *parts, Py_ssize_t nparts,
                bool *zero_copy);

    /* Drops what send() was lent and the engine has finished with; finalizers may run.
     * Cheap. */
    void (*collect)(azs_zmq_socket *socket);

    /* ZMQ_POLLIN | ZMQ_POLLOUT. */
    int (*look)(azs_zmq_socket *socket, int *events);

    /* Where fd is -1: from now on ready(owner) is called when recv() or send() may have
     * more to do, until unwatch(). `owner` is held meanwhile. 1 where it will ask again
     * by itself, 0, or -1 with an exception. */
    int (*watch)(azs_zmq_socket *socket, int (*ready)(PyObject *owner),
                 PyObject *owner);
    void (*unwatch)(azs_zmq_socket *socket);
};

extern const azs_zmq_engine azs_libzmq_engine, azs_native_engine;

/* Sets OSError with the text of an engine's errno. Always NULL. */
PyObject *azs_zmq_set_error(azs_state *st, int err);

#endif
