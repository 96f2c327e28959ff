/* A queue of datagrams to send. */
#ifndef AZS_NET_DATAGRAM_QUEUE_H
#define AZS_NET_DATAGRAM_QUEUE_H

#include "py/addr.h"

typedef struct {
    PyObject *data;    /* owned: exact bytes */
    PyObject *addr;    /* owned or NULL: the connected peer's */
    azs_inet_addr raw; /* of `addr`; len 0 where that must be converted first */
} azs_datagram;

typedef struct {
    azs_datagram *items; /* owned ring; NULL while capacity 0 */
    size_t head, count;
    size_t capacity; /* a power of two, or 0 */
} azs_datagram_queue;

static inline azs_datagram *
azs_datagram_queue_at(const azs_datagram_queue *queue, size_t i)
{
    assert(i < queue->count);
    return &queue->items[(queue->head + i) & (queue->capacity - 1)];
}

static inline void
azs_datagram_drop(azs_datagram *dgram)
{
    Py_CLEAR(dgram->data);
    Py_CLEAR(dgram->addr);
}

/* Makes room for one more. 0, or -1 with MemoryError. */
static inline int
azs_datagram_queue_reserve(azs_datagram_queue *queue)
{
    if (azs_likely(queue->count < queue->capacity))
        return 0;
    size_t capacity = queue->capacity ? queue->capacity * 2 : 4;
    azs_datagram *items = PyMem_New(azs_datagram, capacity);
    if (items == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    for (size_t i = 0; i < queue->count; i++)
        items[i] = *azs_datagram_queue_at(queue, i);
    PyMem_Free(queue->items);
    queue->items = items;
    queue->head = 0;
    queue->capacity = capacity;
    return 0;
}

/* Appends and takes the references over. 0, or -1 with MemoryError: then they
 * are still the caller's. */
static inline int
azs_datagram_queue_push_steal(azs_datagram_queue *queue, const azs_datagram *dgram)
{
    if (azs_datagram_queue_reserve(queue) < 0)
        return -1;
    queue->count++;
    *azs_datagram_queue_at(queue, queue->count - 1) = *dgram;
    return 0;
}

/* Puts back what was popped. The same results. */
static inline int
azs_datagram_queue_unpop_steal(azs_datagram_queue *queue, const azs_datagram *dgram)
{
    if (azs_datagram_queue_reserve(queue) < 0)
        return -1;
    queue->head = (queue->head - 1) & (queue->capacity - 1);
    queue->count++;
    *azs_datagram_queue_at(queue, 0) = *dgram;
    return 0;
}

/* The first one, with its references. The queue must not be empty. */
static inline azs_datagram
azs_datagram_queue_pop(azs_datagram_queue *queue)
{
    azs_datagram dgram = *azs_datagram_queue_at(queue, 0);
    queue->head = (queue->head + 1) & (queue->capacity - 1);
    queue->count--;
    return dgram;
}

static inline int
azs_datagram_queue_traverse(const azs_datagram_queue *queue, visitproc visit, void *arg)
{
    for (size_t i = 0; i < queue->count; i++) {
        Py_VISIT(azs_datagram_queue_at(queue, i)->data);
        Py_VISIT(azs_datagram_queue_at(queue, i)->addr);
    }
    return 0;
}

/* An address may be any object, and its end run any code: the queue is detached
 * first. */
static inline void
azs_datagram_queue_clear(azs_datagram_queue *queue)
{
    azs_datagram_queue old = *queue;
    *queue = (azs_datagram_queue){0};
    while (old.count > 0) {
        azs_datagram dgram = azs_datagram_queue_pop(&old);
        azs_datagram_drop(&dgram);
    }
    PyMem_Free(old.items);
}

#endif
