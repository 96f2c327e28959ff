/* A growing ring of tagged pointers: the loop's ready queue. */
#ifndef AZS_BASE_RING_H
#define AZS_BASE_RING_H

#include <errno.h>
#include <stdlib.h>

#include "base/common.h"

typedef struct {
    uintptr_t *slots; /* owned; capacity is mask + 1, a power of two */
    size_t mask;
    size_t head; /* index of the oldest entry, masked on use */
    size_t count;
} azs_ring;

static inline int
azs_ring_init(azs_ring *ring, size_t capacity)
{
    assert(capacity && (capacity & (capacity - 1)) == 0);
    ring->slots = malloc(capacity * sizeof(uintptr_t));
    if (ring->slots == NULL)
        return -ENOMEM;
    ring->mask = capacity - 1;
    ring->head = ring->count = 0;
    return 0;
}

static inline void
azs_ring_free(azs_ring *ring)
{
    free(ring->slots);
    ring->slots = NULL;
    ring->count = 0;
}

/* Doubles the capacity; -ENOMEM leaves the ring as it was. */
int azs_ring_grow(azs_ring *ring);

/* 0, or -ENOMEM with the ring as it was. */
static inline int
azs_ring_push(azs_ring *ring, uintptr_t entry)
{
    if (azs_unlikely(ring->count > ring->mask)) {
        int err = azs_ring_grow(ring);
        if (err < 0)
            return err;
    }
    ring->slots[(ring->head + ring->count) & ring->mask] = entry;
    ring->count++;
    return 0;
}

/* The ring must not be empty. */
static inline uintptr_t
azs_ring_pop(azs_ring *ring)
{
    assert(ring->count > 0);
    uintptr_t entry = ring->slots[ring->head & ring->mask];
    ring->head = (ring->head + 1) & ring->mask;
    ring->count--;
    return entry;
}

/* The i-th entry from the head, 0 <= i < count. */
static inline uintptr_t
azs_ring_at(const azs_ring *ring, size_t i)
{
    return ring->slots[(ring->head + i) & ring->mask];
}

#endif
