#include "base/ring.h"

#include <string.h>

int
azs_ring_grow(azs_ring *ring)
{
    size_t old = ring->mask + 1;
    if (old > SIZE_MAX / 2 / sizeof(uintptr_t))
        return -ENOMEM;
    uintptr_t *slots = malloc(old * 2 * sizeof(uintptr_t));
    if (slots == NULL)
        return -ENOMEM;
    size_t head = ring->head & ring->mask;
    size_t tail_len = old - head; /* entries from head to the array's end */
    size_t first = ring->count < tail_len ? ring->count : tail_len;
    memcpy(slots, ring->slots + head, first * sizeof(uintptr_t));
    memcpy(slots + first, ring->slots, (ring->count - first) * sizeof(uintptr_t));
    free(ring->slots);
    ring->slots = slots;
    ring->head = 0;
    ring->mask = old * 2 - 1;
    return 0;
}
