/* csrc/zmtp/decoder.h: in pieces of whatever size, kept or not, read into room or fed,
 * the frames are those of one feed. */
#include "zmtp/decoder.h"

#include "fuzz.h"

const char *const fuzz_seeds[] = {
    "00 00 0000 0100 0005 68656c6c6f 0405 04504f4e47 8801aa",
    "03 05 02 0000000000000003 616263 03 000000000000012c 78*300 0000",
    "07 55 06 0000000000000900 41*2304 0001 5a",
    "01 13 02 7fffffffffffffff 41*3000",
    "02 01 02 8000000000000000",
    NULL,
};

typedef struct {
    azs_zmtp_decoder d;
    uint8_t *room;
    uint64_t sum; /* of all that was handed out */
    size_t frames;
    int error;
} reader;

static void
add(reader *r, const uint8_t *data, size_t size)
{
    for (size_t i = 0; i < size; i++)
        r->sum = (r->sum ^ data[i]) * 1099511628211u;
}

/* Takes at most `limit` frames. */
static void
drain(reader *r, size_t limit)
{
    while (limit-- > 0 && r->error == 0) {
        azs_zmtp_frame frame;
        int got = azs_zmtp_decoder_next(&r->d, &frame);
        if (got <= 0) {
            r->error = got;
            return;
        }
        if (got == AZS_ZMTP_ROOM) {
            size_t have = azs_zmtp_decoder_have(&r->d);
            size_t wants = azs_zmtp_decoder_wants(&r->d);
            CHECK(wants > have && wants <= azs_zmtp_decoder_body_size(&r->d));
            CHECK(wants <= AZS_ZMTP_ROOM_FIRST || wants <= 2 * have);
            r->room = realloc(r->room, wants);
            azs_zmtp_decoder_give(&r->d, r->room, wants);
            continue;
        }
        uint8_t head[] = {(uint8_t)frame.flags, (uint8_t)frame.size,
                          (uint8_t)(frame.size >> 8)};
        CHECK(frame.flags == 0 || frame.flags == 1 || frame.flags == 4);
        CHECK(frame.size <= r->d.max_size);
        add(r, head, sizeof(head));
        add(r, frame.body, frame.size);
        r->frames++;
        if (frame.size > 0 && frame.body == r->room) {
            free(r->room);
            r->room = NULL;
        }
    }
}

static void
finish(reader *r)
{
    azs_zmtp_decoder_clear(&r->d);
    free(r->room);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_input in = {data, size};
    uint64_t limits[] = {UINT64_MAX, 10, 5000, 0};
    uint64_t max_size = limits[fuzz_octet(&in) % 4];
    uint32_t how = fuzz_octet(&in);
    reader whole = {0}, pieces = {0};
    azs_zmtp_decoder_init(&whole.d, max_size);
    azs_zmtp_decoder_init(&pieces.d, max_size);
    uint8_t *copy = copy_of(in.data, in.size);
    azs_zmtp_decoder_feed(&whole.d, copy, in.size);
    drain(&whole, SIZE_MAX);
    free(copy);

    while (in.size > 0 && pieces.error == 0) {
        how = how * 1664525u + 1013904223u;
        const uint8_t *piece;
        size_t n, room;
        uint8_t *target = azs_zmtp_decoder_target(&pieces.d, &room);
        if (target != NULL && how >> 30 != 0) {
            n = fuzz_octets(&in, 1 + (how >> 8) % room, &piece);
            memcpy(target, piece, n);
            azs_zmtp_decoder_read(&pieces.d, n);
            drain(&pieces, SIZE_MAX);
            continue;
        }
        n = fuzz_octets(&in, 1 + (how >> 8) % ((how & 64) ? 3000 : 12), &piece);
        copy = copy_of(piece, n);
        azs_zmtp_decoder_feed(&pieces.d, copy, n);
        drain(&pieces, (how & 128) ? 1 : SIZE_MAX);
        if (pieces.error == 0) {
            CHECK_INT(azs_zmtp_decoder_keep(&pieces.d), 0);
        }
        free(copy);
    }
    if (pieces.error == 0)
        drain(&pieces, SIZE_MAX);
    CHECK_INT(pieces.error, whole.error);
    CHECK_INT(pieces.frames, whole.frames);
    CHECK(pieces.sum == whole.sum);
    finish(&whole);
    finish(&pieces);
    return 0;
}
