#include "base/heap.h"

#include <errno.h>
#include <stdlib.h>

enum { ARITY = 4, FIRST_CAPACITY = 64 };

static inline bool
entry_before(const azs_heap_entry *a, const azs_heap_entry *b)
{
    return a->when_ns < b->when_ns || (a->when_ns == b->when_ns && a->seq < b->seq);
}

void
azs_heap_init(azs_heap *heap)
{
    *heap = (azs_heap){0};
}

void
azs_heap_free(azs_heap *heap)
{
    free(heap->entries);
    *heap = (azs_heap){0};
}

static void
sift_up(azs_heap *heap, size_t i)
{
    azs_heap_entry moving = heap->entries[i];
    while (i > 0) {
        size_t parent = (i - 1) / ARITY;
        if (!entry_before(&moving, &heap->entries[parent]))
            break;
        heap->entries[i] = heap->entries[parent];
        i = parent;
    }
    heap->entries[i] = moving;
}

static void
sift_down(azs_heap *heap, size_t i)
{
    azs_heap_entry moving = heap->entries[i];
    for (;;) {
        size_t child = i * ARITY + 1;
        if (child >= heap->count)
            break;
        size_t end = child + ARITY < heap->count ? child + ARITY : heap->count;
        size_t least = child;
        for (size_t c = child + 1; c < end; c++) {
            if (entry_before(&heap->entries[c], &heap->entries[least]))
                least = c;
        }
        if (!entry_before(&heap->entries[least], &moving))
            break;
        heap->entries[i] = heap->entries[least];
        i = least;
    }
    heap->entries[i] = moving;
}

int
azs_heap_push(azs_heap *heap, int64_t when_ns, void *item)
{
    if (heap->count == heap->capacity) {
        size_t capacity = heap->capacity ? heap->capacity * 2 : FIRST_CAPACITY;
        azs_heap_entry *entries =
            realloc(heap->entries, capacity * sizeof(azs_heap_entry));
        if (entries == NULL)
            return -ENOMEM;
        heap->entries = entries;
        heap->capacity = capacity;
    }
    heap->entries[heap->count] = (azs_heap_entry){when_ns, heap->next_seq++, item};
    sift_up(heap, heap->count++);
    return 0;
}

void *
azs_heap_pop(azs_heap *heap)
{
    if (heap->count == 0)
        return NULL;
    void *item = heap->entries[0].item;
    heap->count--;
    if (heap->count > 0) {
        heap->entries[0] = heap->entries[heap->count];
        sift_down(heap, 0);
    }
    return item;
}

void
azs_heap_rebuild(azs_heap *heap)
{
    if (heap->count < 2)
        return;
    for (size_t i = (heap->count - 2) / ARITY + 1; i-- > 0;)
        sift_down(heap, i);
}
