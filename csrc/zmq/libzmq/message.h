/* Multipart messages: list[bytes] <-> zmq_msg_t, without a Python call. */
#ifndef AZS_ZMQ_LIBZMQ_MESSAGE_H
#define AZS_ZMQ_LIBZMQ_MESSAGE_H

#include "zmq/engine.h"
#include "zmq/libzmq/functions.h"

/* Frames of this size and more are sent from the bytes object's own memory. */
enum { AZS_ZERO_COPY_SIZE = 64 * 1024 };

/* Frames of these sizes are received into memory that is used again, where nobody
 * has kept the frame. Smaller ones cost malloc() little. */
enum { AZS_ZMQ_SPARE_MIN = 32 * 1024, AZS_ZMQ_SPARE_MAX = 4 * 1024 * 1024 };

/* Objects whose memory libzmq was given, and those it has finished with.
 *
 * libzmq says so in its own thread, which must never take the GIL: it pushes
 * onto a lock-free list, and whoever holds the GIL next and looks drops the
 * references. It lives outside any transport: frames may wait in a socket that
 * lingers after its transport. One for each interpreter. */
typedef struct azs_zmq_release azs_zmq_release;

/* New, or NULL with MemoryError. */
azs_zmq_release *azs_zmq_release_new(void);

/* Frees it; leaves it where libzmq still has frames, since it may call then. */
void azs_zmq_release_free(azs_zmq_release *release);

/* Drops what libzmq has finished with; finalizers may run. Needs the GIL. */
void azs_zmq_release_drain(azs_zmq_release *release);

/* Frames that libzmq has, or whose references were not dropped yet. */
size_t azs_zmq_release_outstanding(const azs_zmq_release *release);

/* Is there anything to drain? Cheap. */
bool azs_zmq_release_ready(const azs_zmq_release *release);

/* Sends bytes objects as one message, without blocking or running Python code.
 * 0; or libzmq's errno: on EAGAIN nothing was sent; or -1 with MemoryError.
 * `drops_rest`: the socket's type balances its load (PUSH, DEALER, REQ).
 * *zero_copy becomes true where a frame was not copied. */
int azs_zmq_send(const azs_libzmq *zmq, void *handle, azs_zmq_release *release,
                 PyObject *const *parts, Py_ssize_t nparts, bool drops_rest,
                 bool *zero_copy);

/* Receives one message without blocking. 0 with a new list in *message and its
 * azs_zmq_message_size() in *size; or libzmq's errno; or -1 with an exception, the
 * message being lost.
 *
 * *lent is the first large frame, with a reference of its own, or has no bytes. To
 * be given back to `spare` when the list is gone. *source, unless `source` is NULL, is
 * the descriptor of the connection that it came by, or -1. */
int azs_zmq_recv(const azs_libzmq *zmq, void *handle, azs_spare *spare,
                 PyObject **message, size_t *size, azs_spare *lent, int *source);

#endif
