/* The functions of libzmq, bound to the image that pyzmq has loaded.
 *
 * A second libzmq in the process could not use pyzmq's contexts and sockets, so
 * none is linked: the addresses come from dlsym, and the few declarations
 * needed are here (zmq.h of libzmq 4.x, whose ABI is stable).
 */
#ifndef AZS_ZMQ_LIBZMQ_FUNCTIONS_H
#define AZS_ZMQ_LIBZMQ_FUNCTIONS_H

#include "py/state.h"

/* zmq.h: opaque, 64 bytes since 4.1, aligned as a pointer. */
typedef union {
    unsigned char opaque[64];
    void *align;
} zmq_msg_t;

typedef void zmq_free_fn(void *data, void *hint);

enum {
    ZMQ_DONTWAIT = 1,
    ZMQ_SNDMORE = 2,

    ZMQ_SRCFD = 2,

    ZMQ_FD = 14,
    ZMQ_EVENTS = 15,
};

/* X(name, result, arguments): the field `name` is zmq_<name>. */
#define AZS_LIBZMQ_FUNCTIONS(X)                                                        \
    X(msg_init, int, (zmq_msg_t *))                                                    \
    X(msg_init_size, int, (zmq_msg_t *, size_t))                                       \
    X(msg_init_data, int, (zmq_msg_t *, void *, size_t, zmq_free_fn *, void *))        \
    X(msg_send, int, (zmq_msg_t *, void *, int))                                       \
    X(msg_recv, int, (zmq_msg_t *, void *, int))                                       \
    X(msg_close, int, (zmq_msg_t *))                                                   \
    X(msg_data, void *, (zmq_msg_t *))                                                 \
    X(msg_size, size_t, (const zmq_msg_t *))                                           \
    X(msg_more, int, (const zmq_msg_t *))                                              \
    X(msg_get, int, (const zmq_msg_t *, int))                                          \
    X(getsockopt, int, (void *, int, void *, size_t *))                                \
    X(strerror, const char *, (int))                                                   \
    X(version, void, (int *, int *, int *))

typedef struct azs_libzmq {
#define X(name, result, args) result(*name) args;
    AZS_LIBZMQ_FUNCTIONS(X)
#undef X
} azs_libzmq;

/* Binds to the image that is or depends on the shared object `path`, which must
 * be loaded already. 0, or -1 with ImportError. */
int azs_libzmq_bind(azs_libzmq *zmq, const char *path);

/* Sets OSError with libzmq's text for `err`, an errno of libzmq. Always NULL. */
PyObject *azs_libzmq_set_error(const azs_libzmq *zmq, int err);

#endif
