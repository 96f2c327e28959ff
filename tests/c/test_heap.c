/* csrc/base/heap.h */
#include "base/heap.h"

#include "check.h"

static uint32_t random_state = 1;

static uint32_t
random_below(uint32_t n)
{
    random_state = random_state * 1664525u + 1013904223u;
    return (random_state >> 8) % n;
}

static char items[1000];

static void
push(azs_heap *heap, int64_t when_ns, int i)
{
    CHECK_INT(azs_heap_push(heap, when_ns, &items[i]), 0);
}

static void
check_pop(azs_heap *heap, int i)
{
    CHECK_INT((char *)azs_heap_pop(heap) - items, i);
}

TEST(heap_empty_gives_nothing)
{
    azs_heap heap;
    azs_heap_init(&heap);
    CHECK(azs_heap_pop(&heap) == NULL);
    azs_heap_rebuild(&heap);
    push(&heap, 1, 0);
    check_pop(&heap, 0);
    CHECK(azs_heap_pop(&heap) == NULL);
    azs_heap_free(&heap);
}

TEST(heap_equal_times_keep_their_order)
{
    azs_heap heap;
    azs_heap_init(&heap);
    for (int i = 0; i < 200; i++)
        push(&heap, i % 2, i);
    for (int i = 0; i < 200; i += 2)
        check_pop(&heap, i);
    for (int i = 1; i < 200; i += 2)
        check_pop(&heap, i);
    azs_heap_free(&heap);
}

TEST(heap_extreme_times)
{
    azs_heap heap;
    azs_heap_init(&heap);
    push(&heap, INT64_MAX, 2);
    push(&heap, INT64_MIN, 0);
    push(&heap, 0, 1);
    for (int i = 0; i < 3; i++)
        check_pop(&heap, i);
    azs_heap_free(&heap);
}

/* Times come out in order, whatever is pushed, popped and taken out in between. */
TEST(heap_random_operations)
{
    azs_heap heap;
    azs_heap_init(&heap);
    int64_t times[AZS_ARRAY_LEN(items)];
    int next = 0;
    while (next < (int)AZS_ARRAY_LEN(items)) {
        for (uint32_t n = random_below(40); n > 0 && next < 1000; n--, next++) {
            times[next] = random_below(50);
            push(&heap, times[next], next);
        }
        int64_t last = INT64_MIN;
        for (uint32_t n = random_below(30); n > 0 && heap.count > 0; n--) {
            int64_t when = times[(char *)azs_heap_pop(&heap) - items];
            CHECK(when >= last);
            last = when;
        }
        /* As the loop drops timers that were cancelled. */
        size_t kept = 0;
        for (size_t i = 0; i < heap.count; i++) {
            if (random_below(4) != 0)
                heap.entries[kept++] = heap.entries[i];
        }
        heap.count = kept;
        azs_heap_rebuild(&heap);
    }
    int64_t last = INT64_MIN;
    while (heap.count > 0) {
        int64_t when = times[(char *)azs_heap_pop(&heap) - items];
        CHECK(when >= last);
        last = when;
    }
    azs_heap_free(&heap);
}
