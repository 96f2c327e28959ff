/* csrc/zmtp/batch.h */
#include "zmtp/batch.h"

#include "hex.h"

static int released;

static void
release(void *owner)
{
    (*(int *)owner)--;
    released++;
}

enum { MEMORY = 4096 };

typedef struct {
    azs_zmtp_batch batch;
    uint8_t *memory;
    uint8_t *sent;
    size_t sent_size;
} writer;

static void
writer_init(writer *w)
{
    w->memory = malloc(MEMORY);
    w->sent = malloc(1 << 20);
    w->sent_size = 0;
    released = 0;
    azs_zmtp_batch_init(&w->batch, w->memory, MEMORY, release);
}

static void
writer_clear(writer *w)
{
    azs_zmtp_batch_clear(&w->batch);
    CHECK_INT(w->batch.octets, 0);
    free(w->memory);
    free(w->sent);
}

/* As sendmsg(2) does that takes `n` octets. */
static void
send_octets(writer *w, size_t n)
{
    size_t left = n;
    for (unsigned i = w->batch.first; i < w->batch.end && left > 0; i++) {
        struct iovec *piece = &w->batch.pieces[i];
        size_t take = piece->iov_len < left ? piece->iov_len : left;
        memcpy(w->sent + w->sent_size, piece->iov_base, take);
        w->sent_size += take;
        left -= take;
    }
    CHECK_INT(left, 0);
    azs_zmtp_batch_sent(&w->batch, n);
}

TEST(batch_copies_small_frames_together)
{
    writer w;
    writer_init(&w);
    CHECK_INT(azs_zmtp_batch_put(&w.batch, AZS_ZMTP_MORE, NULL, 0, NULL), 0);
    CHECK_INT(azs_zmtp_batch_put(&w.batch, 0, "hello", 5, NULL), 0);
    CHECK_INT(azs_zmtp_batch_put(&w.batch, AZS_ZMTP_COMMAND, "\x04PONG", 5, NULL), 0);
    uint8_t *body = azs_zmtp_batch_reserve(&w.batch, 0, 300);
    memset(body, 'x', 300);
    CHECK_INT(w.batch.end, 1);
    octets o = hex("0100 0005 68656c6c6f 0405 04504f4e47 02 000000000000012c 78*300");
    CHECK_INT(w.batch.octets, o.size);
    send_octets(&w, o.size);
    CHECK_MEM(w.sent, w.sent_size, o.data, o.size);
    CHECK_INT(w.batch.used, 0);
    writer_clear(&w);
}

/* Whatever the kernel takes at a time, the octets are the same, and each owner is
 * released when the last of its octets has gone. */
TEST(batch_sent_in_pieces_of_each_size)
{
    static uint8_t large[AZS_ZMTP_REFERENCE_MIN + 5];
    memset(large, 'L', sizeof(large));
    octets o = hex("0001 61 02 0000000000000805 4c*2053 0001 62 03 0000000000000800 "
                   "4c*2048 02 00000000000007ff 4c*2047");
    for (size_t piece = 1; piece < 5000; piece = piece < 20 ? piece + 1 : piece * 3) {
        writer w;
        writer_init(&w);
        int first = 1, second = 1, third = 1;
        CHECK_INT(azs_zmtp_batch_put(&w.batch, 0, "a", 1, &third), 0);
        CHECK_INT(azs_zmtp_batch_put(&w.batch, 0, large, 2053, &first), 1);
        CHECK_INT(azs_zmtp_batch_put(&w.batch, 0, "b", 1, NULL), 0);
        CHECK_INT(azs_zmtp_batch_put(&w.batch, AZS_ZMTP_MORE, large, 2048, &second), 1);
        CHECK_INT(azs_zmtp_batch_put(&w.batch, 0, large, 2047, &third), 0);
        while (w.batch.octets > 0) {
            send_octets(&w, w.batch.octets < piece ? w.batch.octets : piece);
            CHECK_INT(first, w.sent_size < 3 + 9 + 2053);
            CHECK_INT(second, w.sent_size < 3 + 9 + 2053 + 3 + 9 + 2048);
        }
        CHECK_MEM(w.sent, w.sent_size, o.data, o.size);
        CHECK_INT(third, 1);
        CHECK_INT(released, 2);
        writer_clear(&w);
    }
}

TEST(batch_full_says_so)
{
    static uint8_t large[AZS_ZMTP_REFERENCE_MIN];
    writer w;
    writer_init(&w);
    int owner = 0, put = 0;
    while (azs_zmtp_batch_put(&w.batch, 0, large, sizeof(large), &owner) == 1)
        owner++, put++;
    CHECK_INT(put, AZS_ZMTP_BATCH_PIECES / 2);
    CHECK_INT(w.batch.octets, put * (9 + sizeof(large)));
    CHECK_INT(azs_zmtp_batch_put(&w.batch, 0, "", 0, NULL), -ENOBUFS);
    send_octets(&w, w.batch.octets - 1);
    CHECK_INT(owner, 1);
    azs_zmtp_batch_clear(&w.batch);
    CHECK_INT(owner, 0);
    /* By memory: the last octet is used, and no more. */
    CHECK(azs_zmtp_batch_reserve(&w.batch, 0, MEMORY - 9) != NULL);
    CHECK(azs_zmtp_batch_reserve(&w.batch, 0, 0) == NULL);
    azs_zmtp_batch_clear(&w.batch);
    CHECK(azs_zmtp_batch_reserve(&w.batch, 0, MEMORY - 8) == NULL);
    CHECK(azs_zmtp_batch_reserve(&w.batch, 0, SIZE_MAX) == NULL);
    CHECK(azs_zmtp_batch_reserve(&w.batch, 0, SIZE_MAX - 8) == NULL);
    CHECK_INT(w.batch.octets, 0);
    /* Without an owner even a large one is copied, where it fits. */
    CHECK_INT(azs_zmtp_batch_put(&w.batch, 0, large, sizeof(large), NULL), 0);
    CHECK_INT(azs_zmtp_batch_put(&w.batch, 0, large, sizeof(large), NULL), -ENOBUFS);
    writer_clear(&w);
}

/* What is copied after a large frame is a piece of its own, though its memory lies
 * right behind what was copied before. */
TEST(batch_keeps_the_order_of_pieces)
{
    static uint8_t large[AZS_ZMTP_REFERENCE_MIN];
    writer w;
    writer_init(&w);
    int owner = 1;
    azs_zmtp_batch_put(&w.batch, 0, "a", 1, NULL);
    azs_zmtp_batch_put(&w.batch, 0, large, sizeof(large), &owner);
    azs_zmtp_batch_put(&w.batch, 0, "b", 1, NULL);
    CHECK_INT(w.batch.end, 3);
    send_octets(&w, 3 + 9 + sizeof(large)); /* all before "b" */
    azs_zmtp_batch_put(&w.batch, 0, "c", 1, NULL);
    CHECK_INT(w.batch.end - w.batch.first, 1);
    w.sent_size = 0;
    send_octets(&w, w.batch.octets);
    octets o = hex("0001 62 0001 63");
    CHECK_MEM(w.sent, w.sent_size, o.data, o.size);
    writer_clear(&w);
}
