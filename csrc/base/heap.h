/* A 4-ary min-heap of timers, ordered by (time, sequence number).
 *
 * The key lives in the array beside the pointer, so sifting touches no timer
 * object except to store its new index. Equal times keep their order.
 */
#ifndef AZS_BASE_HEAP_H
#define AZS_BASE_HEAP_H

#include "base/common.h"

typedef struct {
    int64_t when_ns;
    uint64_t seq;
    void *item;
} azs_heap_entry;

typedef struct {
    azs_heap_entry *entries; /* owned */
    size_t count;
    size_t capacity;
    uint64_t next_seq;
} azs_heap;

void azs_heap_init(azs_heap *heap);
void azs_heap_free(azs_heap *heap);

/* 0, or -ENOMEM with the heap as it was. */
int azs_heap_push(azs_heap *heap, int64_t when_ns, void *item);

/* Takes out the earliest item; NULL where the heap is empty. */
void *azs_heap_pop(azs_heap *heap);

/* Restores the order after entries were removed from the array in place. */
void azs_heap_rebuild(azs_heap *heap);

#endif
