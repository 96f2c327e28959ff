/* A queue of bytes objects that wait to be sent. */
#ifndef AZS_NET_BUFQ_H
#define AZS_NET_BUFQ_H

#include <string.h>
#include <sys/uio.h>

#include "loop/spare.h"

/* Small pieces are copied together, lest a queue of many leaves slowly: a system call
 * takes a limited number of them. The first few are not, as most queues end there. */
enum {
    AZS_BUFQ_SMALL = 1024,
    AZS_BUFQ_CHUNK = 4000, /* with its header less than a page */
    AZS_BUFQ_FIRST = 8,
};

typedef struct {
    PyObject **items; /* owned array of owned exact bytes; NULL while capacity 0 */
    size_t head, count;
    size_t capacity; /* a power of two, or 0 */
    size_t offset;   /* bytes of the first item that are gone already */
    size_t room;     /* left in the last item, which only the queue knows; else 0 */
} azs_bufq;

/* Where the end of a queue was: see azs_bufq_cut. */
typedef struct {
    size_t count, room;
} azs_bufq_end;

static inline PyObject *
azs_bufq_last(const azs_bufq *queue)
{
    assert(queue->count > 0);
    return queue->items[(queue->head + queue->count - 1) & (queue->capacity - 1)];
}

/* Appends an item; takes a new reference. 0, or -1 with MemoryError. */
static inline int
azs_bufq_push(azs_bufq *queue, PyObject *bytes)
{
    assert(PyBytes_CheckExact(bytes));
    if (queue->count == queue->capacity) {
        size_t capacity = queue->capacity ? queue->capacity * 2 : 4;
        PyObject **items = PyMem_New(PyObject *, capacity);
        if (items == NULL) {
            PyErr_NoMemory();
            return -1;
        }
        for (size_t i = 0; i < queue->count; i++)
            items[i] = queue->items[(queue->head + i) & (queue->capacity - 1)];
        PyMem_Free(queue->items);
        queue->items = items;
        queue->head = 0;
        queue->capacity = capacity;
    }
    queue->items[(queue->head + queue->count++) & (queue->capacity - 1)] =
        Py_NewRef(bytes);
    queue->room = 0;
    return 0;
}

/* Copies bytes into the room of the last item, which they fit in. */
static inline void
azs_bufq_fill(azs_bufq *queue, const char *buf, size_t len)
{
    PyObject *last = azs_bufq_last(queue);
    size_t size = (size_t)PyBytes_GET_SIZE(last);
    memcpy(PyBytes_AS_STRING(last) + size, buf, len);
    azs_spare_set_size(last, size + len);
    queue->room -= len;
}

/* Appends `len` bytes at `buf`, those at the end of `data`, which is held where it is
 * exact bytes and worth it; else they are copied. 0, or -1 with MemoryError. */
static inline int
azs_bufq_add(azs_bufq *queue, PyObject *data, const char *buf, size_t len)
{
    if (len <= queue->room) {
        azs_bufq_fill(queue, buf, len);
        return 0;
    }
    bool chunk = len <= AZS_BUFQ_SMALL && queue->count >= AZS_BUFQ_FIRST;
    bool whole = !chunk && PyBytes_CheckExact(data);
    PyObject *bytes =
        whole ? Py_NewRef(data)
              : PyBytes_FromStringAndSize(chunk ? NULL : buf,
                                          chunk ? AZS_BUFQ_CHUNK : (Py_ssize_t)len);
    if (bytes == NULL)
        return -1;
    int res = azs_bufq_push(queue, bytes);
    Py_DECREF(bytes);
    if (res == 0 && chunk) {
        azs_spare_set_size(bytes, 0);
        queue->room = AZS_BUFQ_CHUNK;
        azs_bufq_fill(queue, buf, len);
    } else if (res == 0 && whole && queue->count == 1) {
        /* The head of a bytes object that was sent in part. */
        queue->offset = (size_t)PyBytes_GET_SIZE(data) - len;
    }
    return res;
}

static inline azs_bufq_end
azs_bufq_mark(const azs_bufq *queue)
{
    return (azs_bufq_end){queue->count, queue->room};
}

/* Takes back what was appended since the mark; nothing was sent meanwhile. */
static inline void
azs_bufq_cut(azs_bufq *queue, azs_bufq_end end)
{
    while (queue->count > end.count) {
        PyObject *last = azs_bufq_last(queue);
        queue->count--;
        queue->room = 0;
        Py_DECREF(last);
    }
    if (end.room > 0) {
        azs_spare_set_size(azs_bufq_last(queue), AZS_BUFQ_CHUNK - end.room);
        queue->room = end.room;
    }
}

/* Fills up to `max` vectors from the front; returns how many. */
static inline int
azs_bufq_iov(const azs_bufq *queue, struct iovec *iov, int max)
{
    int n = 0;
    size_t offset = queue->offset;
    for (size_t i = 0; i < queue->count && n < max; i++) {
        PyObject *item = queue->items[(queue->head + i) & (queue->capacity - 1)];
        iov[n].iov_base = PyBytes_AS_STRING(item) + offset;
        iov[n].iov_len = (size_t)PyBytes_GET_SIZE(item) - offset;
        offset = 0;
        n++;
    }
    return n;
}

/* Drops `sent` bytes from the front. Bytes objects have no finalizers: nothing
 * can run here. */
static inline void
azs_bufq_advance(azs_bufq *queue, size_t sent)
{
    while (queue->count > 0) {
        PyObject *item = queue->items[queue->head];
        size_t left = (size_t)PyBytes_GET_SIZE(item) - queue->offset;
        if (sent < left) {
            queue->offset += sent;
            return;
        }
        sent -= left;
        queue->offset = 0;
        queue->head = (queue->head + 1) & (queue->capacity - 1);
        if (--queue->count == 0)
            queue->room = 0;
        Py_DECREF(item);
    }
    assert(sent == 0);
}

static inline void
azs_bufq_clear(azs_bufq *queue)
{
    while (queue->count > 0) {
        PyObject *item = queue->items[queue->head];
        queue->head = (queue->head + 1) & (queue->capacity - 1);
        queue->count--;
        Py_DECREF(item);
    }
    PyMem_Free(queue->items);
    *queue = (azs_bufq){0};
}

#endif
