/* A queue of bytes objects that wait to be sent. */
#ifndef AZS_NET_BUFQ_H
#define AZS_NET_BUFQ_H

#include <sys/uio.h>

#include "py/state.h"

typedef struct {
    PyObject **items; /* owned array of owned exact bytes; NULL while capacity 0 */
    size_t head, count;
    size_t capacity; /* a power of two, or 0 */
    size_t offset;   /* bytes of the first item that are gone already */
} azs_bufq;

/* Appends; takes a new reference. 0, or -1 with MemoryError. */
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
    return 0;
}

/* Takes the last `n` items back that were appended. */
static inline void
azs_bufq_unpush(azs_bufq *queue, size_t n)
{
    assert(n <= queue->count);
    for (; n > 0; n--) {
        queue->count--;
        Py_DECREF(queue->items[(queue->head + queue->count) & (queue->capacity - 1)]);
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
        queue->count--;
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
