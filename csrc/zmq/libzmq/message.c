#include "zmq/libzmq/message.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

/* ---- what libzmq has finished with ---- */

typedef struct release_node {
    struct release_node *next;
    azs_zmq_release *release;
    PyObject *object; /* owned; touched by Python threads only */
} release_node;

struct azs_zmq_release {
    _Atomic(release_node *) head; /* pushed by any thread, taken all at once */
    size_t outstanding;           /* with the GIL, or changed in one step */
};

azs_zmq_release *
azs_zmq_release_new(void)
{
    azs_zmq_release *release = calloc(1, sizeof(*release));
    if (release == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    atomic_init(&release->head, NULL);
    return release;
}

void
azs_zmq_release_free(azs_zmq_release *release)
{
    if (release != NULL && release->outstanding == 0)
        free(release);
}

bool
azs_zmq_release_ready(const azs_zmq_release *release)
{
    return atomic_load_explicit(&release->head, memory_order_relaxed) != NULL;
}

size_t
azs_zmq_release_outstanding(const azs_zmq_release *release)
{
    return AZS_ATOMIC_LOAD(&release->outstanding);
}

void
azs_zmq_release_drain(azs_zmq_release *release)
{
    release_node *node =
        atomic_exchange_explicit(&release->head, NULL, memory_order_acquire);
    while (node != NULL) {
        release_node *next = node->next;
        PyObject *object = node->object;
        free(node);
        (void)AZS_ATOMIC_ADD(&release->outstanding, -1);
        Py_DECREF(object); /* a subclass of bytes may run Python code here */
        node = next;
    }
}

/* zmq_free_fn: in any thread, without the GIL. */
static void
release_push(void *Py_UNUSED(data), void *hint)
{
    release_node *node = hint;
    AZS_TSAN_ACQUIRE(node); /* libzmq has put us after who sent it */
    azs_zmq_release *release = node->release;
    node->next = atomic_load_explicit(&release->head, memory_order_relaxed);
    while (!atomic_compare_exchange_weak_explicit(
        &release->head, &node->next, node, memory_order_release, memory_order_relaxed))
        ;
}

/* ---- sending ---- */

/* 0, or -1 with MemoryError. */
static int
frame_init(const azs_libzmq *zmq, zmq_msg_t *msg, azs_zmq_release *release,
           PyObject *part, bool *zero_copy)
{
    size_t size = (size_t)PyBytes_GET_SIZE(part);
    if (size < AZS_ZERO_COPY_SIZE) {
        if (zmq->msg_init_size(msg, size) != 0) {
            PyErr_NoMemory();
            return -1;
        }
        memcpy(zmq->msg_data(msg), PyBytes_AS_STRING(part), size);
        return 0;
    }
    release_node *node = malloc(sizeof(*node));
    if (node == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    node->release = release;
    node->object = part;
    AZS_TSAN_RELEASE(node);
    if (zmq->msg_init_data(msg, PyBytes_AS_STRING(part), size, release_push, node) !=
        0) {
        free(node);
        PyErr_NoMemory();
        return -1;
    }
    Py_INCREF(part);
    (void)AZS_ATOMIC_ADD(&release->outstanding, 1);
    *zero_copy = true;
    return 0;
}

/* zmq_msg_send, again where a signal came. 0, or the errno. */
static int
frame_send(const azs_libzmq *zmq, zmq_msg_t *msg, void *handle, int flags)
{
    /* Bounded: where libzmq believes that it runs in a forked child it answers
     * EINTR for ever. */
    for (int tries = 0; tries < 100; tries++) {
        if (azs_likely(zmq->msg_send(msg, handle, flags) >= 0))
            return 0;
        if (errno != EINTR)
            return errno;
    }
    return EINTR;
}

int
azs_zmq_send(const azs_libzmq *zmq, void *handle, azs_zmq_release *release,
             PyObject *const *parts, Py_ssize_t nparts, bool drops_rest,
             bool *zero_copy)
{
    enum { INLINE_FRAMES = 8 };
    zmq_msg_t inline_frames[INLINE_FRAMES];
    zmq_msg_t *frames = inline_frames;
    Py_ssize_t ready = 0, sent = 0;
    int result = 0;
    if (azs_unlikely(nparts > INLINE_FRAMES)) {
        frames = PyMem_New(zmq_msg_t, (size_t)nparts);
        if (frames == NULL) {
            PyErr_NoMemory();
            return -1;
        }
    }
    /* All are made before the first is sent: a message is never cut short by a
     * lack of memory. */
    for (; ready < nparts; ready++) {
        if (azs_unlikely(frame_init(zmq, &frames[ready], release, parts[ready],
                                    zero_copy) < 0)) {
            result = -1;
            goto done;
        }
    }
    for (; sent < nparts; sent++) {
        int more = sent < nparts - 1 ? ZMQ_SNDMORE : 0;
        result = frame_send(zmq, &frames[sent], handle, ZMQ_DONTWAIT | more);
        if (azs_likely(result == 0))
            continue;
        if (result == EAGAIN && sent > 0 && more && drops_rest) {
            /* The peer's pipe went away inside the message. libzmq has dropped
             * what it had of it, and will drop every frame up to one without
             * ZMQ_SNDMORE (lb.cpp): the next message must not be swallowed. */
            zmq_msg_t end;
            zmq->msg_init(&end);
            if (frame_send(zmq, &end, handle, ZMQ_DONTWAIT) != 0)
                zmq->msg_close(&end);
        }
        break;
    }
done:
    /* libzmq owns what was sent. */
    while (azs_unlikely(ready > sent))
        zmq->msg_close(&frames[--ready]);
    if (azs_unlikely(frames != inline_frames))
        PyMem_Free(frames);
    return result;
}

/* ---- receiving ---- */

/* Takes the rest of a message that cannot be delivered. */
static void
discard_rest(const azs_libzmq *zmq, zmq_msg_t *msg, void *handle)
{
    while (zmq->msg_more(msg) && zmq->msg_recv(msg, handle, ZMQ_DONTWAIT) >= 0)
        ;
}

/* The frame in `msg` as new bytes, or NULL with MemoryError. */
static PyObject *
message_frame_bytes(const azs_libzmq *zmq, zmq_msg_t *msg, size_t size,
                    azs_spare *spare, azs_spare *lent)
{
    if (azs_likely(size < AZS_ZMQ_SPARE_MIN || size > AZS_ZMQ_SPARE_MAX ||
                   lent->bytes != NULL))
        return PyBytes_FromStringAndSize(zmq->msg_data(msg), (Py_ssize_t)size);
    PyObject *frame = azs_spare_take(spare, size, &lent->capacity);
    if (azs_unlikely(frame == NULL))
        return NULL;
    memcpy(PyBytes_AS_STRING(frame), zmq->msg_data(msg), size);
    lent->bytes = Py_NewRef(frame);
    return frame;
}

int
azs_zmq_recv(const azs_libzmq *zmq, void *handle, azs_spare *spare, PyObject **message,
             size_t *size, azs_spare *lent, int *source)
{
    enum { INLINE_FRAMES = 8 };
    PyObject *inline_frames[INLINE_FRAMES];
    PyObject **frames = inline_frames; /* owned references */
    Py_ssize_t count = 0, capacity = INLINE_FRAMES;
    PyObject *list;
    int result = 0;
    zmq_msg_t msg;
    zmq->msg_init(&msg);
    lent->bytes = NULL;
    /* No Python code runs before the last frame is here (a collection might close
     * the socket): bytes objects and PyMem do not start the collector. */
    for (;;) {
        /* libzmq frees the frame before, if any. The frames of one message
         * arrive together, so none but the first can be missing. */
        if (azs_unlikely(zmq->msg_recv(&msg, handle, ZMQ_DONTWAIT) < 0)) {
            result = errno;
            if (result == EINTR && count > 0)
                continue;
            goto done;
        }
        if (azs_unlikely(count == capacity)) {
            PyObject **grown = PyMem_New(PyObject *, (size_t)capacity * 2);
            if (grown == NULL) {
                PyErr_NoMemory();
                goto fail;
            }
            memcpy(grown, frames, (size_t)count * sizeof(*frames));
            if (frames != inline_frames)
                PyMem_Free(frames);
            frames = grown;
            capacity *= 2;
        }
        if (azs_unlikely(source != NULL))
            *source = zmq->msg_get(&msg, ZMQ_SRCFD);
        size_t frame_size = zmq->msg_size(&msg);
        PyObject *frame = message_frame_bytes(zmq, &msg, frame_size, spare, lent);
        if (azs_unlikely(frame == NULL))
            goto fail;
        frames[count++] = frame;
        if (azs_likely(!zmq->msg_more(&msg)))
            break;
    }
    *size = (size_t)azs_zmq_message_size(frames, count);
    list = PyList_New(count);
    if (azs_unlikely(list == NULL))
        goto fail;
    memcpy(((PyListObject *)list)->ob_item, frames, (size_t)count * sizeof(*frames));
    count = 0;
    *message = list;
    goto done;

fail:
    result = -1;
    Py_CLEAR(lent->bytes);
    discard_rest(zmq, &msg, handle);
done:
    zmq->msg_close(&msg);
    while (azs_unlikely(count > 0))
        Py_DECREF(frames[--count]);
    if (azs_unlikely(frames != inline_frames))
        PyMem_Free(frames);
    return result;
}
