/* csrc/base/ring.h */
#include "base/ring.h"

#include "check.h"

static void
push_range(azs_ring *ring, uintptr_t from, uintptr_t to)
{
    for (uintptr_t i = from; i < to; i++)
        CHECK_INT(azs_ring_push(ring, i), 0);
}

static void
pop_range(azs_ring *ring, uintptr_t from, uintptr_t to)
{
    for (uintptr_t i = from; i < to; i++)
        CHECK_INT(azs_ring_pop(ring), i);
}

TEST(ring_first_in_first_out)
{
    azs_ring ring;
    CHECK_INT(azs_ring_init(&ring, 4), 0);
    push_range(&ring, 0, 4);
    CHECK_INT(ring.count, 4);
    CHECK_INT(ring.mask, 3);
    pop_range(&ring, 0, 4);
    CHECK_INT(ring.count, 0);
    azs_ring_free(&ring);
}

/* The head stands anywhere, up to both ends, when the ring grows. */
TEST(ring_grows_at_each_head)
{
    for (uintptr_t head = 0; head <= 8; head++) {
        azs_ring ring;
        CHECK_INT(azs_ring_init(&ring, 8), 0);
        push_range(&ring, 0, head);
        pop_range(&ring, 0, head);
        push_range(&ring, 0, 20);
        CHECK_INT(ring.mask, 31);
        for (uintptr_t i = 0; i < 20; i++)
            CHECK_INT(azs_ring_at(&ring, i), i);
        pop_range(&ring, 0, 20);
        azs_ring_free(&ring);
    }
}

TEST(ring_of_one)
{
    azs_ring ring;
    CHECK_INT(azs_ring_init(&ring, 1), 0);
    for (uintptr_t i = 0; i < 3; i++) {
        push_range(&ring, i, i + 1);
        pop_range(&ring, i, i + 1);
    }
    push_range(&ring, 0, 3);
    pop_range(&ring, 0, 3);
    azs_ring_free(&ring);
}

TEST(ring_that_cannot_grow_stays_as_it_was)
{
    azs_ring ring = {.slots = NULL, .mask = SIZE_MAX / 2, .head = 0, .count = 0};
    CHECK_INT(azs_ring_grow(&ring), -ENOMEM);
    CHECK(ring.mask == SIZE_MAX / 2 && ring.slots == NULL);
}
