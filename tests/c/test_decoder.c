/* csrc/zmtp/decoder.h, frame.h */
#include "zmtp/decoder.h"

#include "hex.h"

/* What was handed out, as text: "flags:body" in hex, large bodies cut. */
typedef struct {
    azs_zmtp_decoder d;
    uint8_t *room;
    size_t most_room;
    char text[4096];
    size_t used;
    int error;
} reader;

static void
reader_init(reader *r, uint64_t max_size)
{
    memset(r, 0, sizeof(*r));
    azs_zmtp_decoder_init(&r->d, max_size);
}

static void
reader_clear(reader *r)
{
    azs_zmtp_decoder_clear(&r->d);
    free(r->room);
}

static void
note(reader *r, const azs_zmtp_frame *frame)
{
    char *at = r->text + r->used;
    size_t left = sizeof(r->text) - r->used;
    int n = snprintf(at, left, "%x:", frame->flags);
    for (size_t i = 0; i < frame->size && i < 8; i++)
        n += snprintf(at + n, left - (size_t)n, "%02x", frame->body[i]);
    if (frame->size > 8)
        n += snprintf(at + n, left - (size_t)n, "...%02x(%zu)",
                      frame->body[frame->size - 1], frame->size);
    n += snprintf(at + n, left - (size_t)n, " ");
    r->used += (size_t)n;
    CHECK(r->used < sizeof(r->text));
}

/* Takes frames until the decoder is starved; stops after `limit` of them. */
static void
drain(reader *r, int limit)
{
    while (limit-- > 0) {
        azs_zmtp_frame frame;
        int got = azs_zmtp_decoder_next(&r->d, &frame);
        if (got < 0)
            r->error = got;
        if (got <= 0)
            return;
        if (got == AZS_ZMTP_ROOM) {
            size_t wants = azs_zmtp_decoder_wants(&r->d);
            if (wants > r->most_room)
                r->most_room = wants;
            r->room = realloc(r->room, wants);
            azs_zmtp_decoder_give(&r->d, r->room, wants);
            continue;
        }
        note(r, &frame);
        if (frame.body == r->room) {
            CHECK(!azs_zmtp_decoder_has_room(&r->d));
            free(r->room);
            r->room = NULL;
        }
    }
}

static void
feed(reader *r, const uint8_t *data, size_t size)
{
    uint8_t *copy = copy_of(data, size);
    azs_zmtp_decoder_feed(&r->d, copy, size);
    drain(r, 1000);
    free(copy);
}

static void
check_text(reader *r, const char *expected)
{
    CHECK_MEM(r->text, r->used, expected, strlen(expected));
}

/* Frames of each kind, and what is handed out. The reserved bits are ignored, a long
 * length of a short frame is taken, a command's MORE means nothing. */
static const char stream[] =
    "00 00  01 00  00 05 68656c6c6f  04 05 04 504f4e47  05 01 00  88 01 aa  02 "
    "0000000000000003 616263  03 000000000000012c 78*299 79  06 0000000000000800 "
    "41*2047 42  00 01 5a";
static const char handed_out[] =
    "0: 1: 0:68656c6c6f 4:04504f4e47 4:00 0:aa 0:616263 "
    "1:7878787878787878...79(300) 4:4141414141414141...42(2048) 0:5a ";

TEST(decoder_hands_out_in_place)
{
    reader r;
    octets o = hex(stream);
    reader_init(&r, UINT64_MAX);
    feed(&r, o.data, o.size);
    check_text(&r, handed_out);
    CHECK(r.most_room == 0);
    CHECK(r.d.stash == NULL);
    reader_clear(&r);
}

TEST(decoder_cut_at_each_octet)
{
    octets o = hex(stream);
    for (size_t cut = 0; cut <= o.size; cut++) {
        reader r;
        reader_init(&r, UINT64_MAX);
        feed(&r, o.data, cut);
        feed(&r, o.data + cut, o.size - cut);
        check_text(&r, handed_out);
        CHECK(r.d.stash == NULL && azs_zmtp_decoder_pending(&r.d) == 0);
        reader_clear(&r);
    }
}

TEST(decoder_in_pieces_of_each_size)
{
    octets o = hex(stream);
    for (size_t piece = 1; piece < 40; piece++) {
        reader r;
        reader_init(&r, UINT64_MAX);
        for (size_t at = 0; at < o.size; at += piece)
            feed(&r, o.data + at, at + piece < o.size ? piece : o.size - at);
        check_text(&r, handed_out);
        reader_clear(&r);
    }
}

/* The user stops after each frame, and the feed's memory goes to another peer. */
TEST(decoder_keeps_what_is_left)
{
    octets o = hex(stream);
    for (size_t cut = 0; cut <= o.size; cut += 7) {
        for (int limit = 1; limit < 9; limit++) {
            reader r;
            reader_init(&r, UINT64_MAX);
            for (int half = 0; half < 2; half++) {
                size_t size = half == 0 ? cut : o.size - cut;
                uint8_t *copy = copy_of(o.data + (half == 0 ? 0 : cut), size);
                azs_zmtp_decoder_feed(&r.d, copy, size);
                drain(&r, limit);
                CHECK_INT(azs_zmtp_decoder_keep(&r.d), 0);
                free(copy);
            }
            drain(&r, 1000);
            check_text(&r, handed_out);
            CHECK(r.d.stash == NULL);
            reader_clear(&r);
        }
    }
}

/* A large body is read straight to where it belongs. */
TEST(decoder_reads_into_room)
{
    enum { SIZE = 1000 * 1000 };
    reader r;
    reader_init(&r, UINT64_MAX);
    octets header = hex("01 01 61 02 00000000000f4240 00*100");
    feed(&r, header.data, header.size);
    size_t have = 100, n;
    uint8_t *target;
    while ((target = azs_zmtp_decoder_target(&r.d, &n)) != NULL) {
        CHECK(r.most_room <= AZS_ZMTP_ROOM_FIRST || r.most_room <= 2 * have);
        size_t piece = n < 77777 ? n : 77777;
        memset(target, 0x11, piece);
        azs_zmtp_decoder_read(&r.d, piece);
        have += piece;
        drain(&r, 1000);
    }
    CHECK_INT(have, SIZE);
    check_text(&r, "1:61 0:0000000000000000...11(1000000) ");
    feed(&r, hex("00 01 62").data, 3);
    check_text(&r, "1:61 0:0000000000000000...11(1000000) 0:62 ");
    reader_clear(&r);
}

/* The body's size counts before any of it is there, in both forms and each state. */
TEST(decoder_refuses_by_the_length_alone)
{
    static const struct {
        uint64_t max_size;
        const char *header;
        int error;
    } cases[] = {
        {10, "00 0a", 0},
        {10, "00 0b", -EMSGSIZE},
        {10, "04 0b", -EMSGSIZE},
        {10, "02 000000000000000b", -EMSGSIZE},
        {0, "00 00", 0},
        {0, "00 01", -EMSGSIZE},
        {UINT64_MAX, "02 8000000000000000", -EMSGSIZE},
        {UINT64_MAX, "02 ffffffffffffffff", -EMSGSIZE},
        {UINT64_MAX, "06 ffffffffffffffff", -EMSGSIZE},
        {UINT64_MAX, "02 7fffffffffffffff", 0},
        {UINT64_MAX, "02 0000010000000000", 0},
        {UINT64_MAX, "02 0000000080000000", 0},
        {UINT64_MAX, "02 0000000100000000", 0},
    };
    for (size_t i = 0; i < AZS_ARRAY_LEN(cases); i++) {
        octets o = hex(cases[i].header);
        for (size_t cut = 0; cut < o.size; cut++) {
            reader r;
            reader_init(&r, cases[i].max_size);
            feed(&r, hex("00 00").data, cases[i].max_size == 0 ? 2 : 0);
            feed(&r, o.data, cut);
            CHECK_INT(r.error, 0);
            feed(&r, o.data + cut, o.size - cut);
            CHECK_INT(r.error, cases[i].error);
            /* Nothing is taken because of what was said. */
            CHECK(r.most_room <= AZS_ZMTP_ROOM_FIRST);
            reader_clear(&r);
        }
    }
}

TEST(decoder_grows_room_with_what_comes)
{
    reader r;
    reader_init(&r, UINT64_MAX);
    feed(&r, hex("02 7fffffffffffffff").data, 9);
    CHECK_INT(r.most_room, AZS_ZMTP_ROOM_FIRST);
    size_t have = 0;
    uint8_t *block = calloc(1, 100000);
    while (have < 5000000) {
        feed(&r, block, 100000);
        have += 100000;
        CHECK(r.most_room <=
              (have < AZS_ZMTP_ROOM_FIRST ? AZS_ZMTP_ROOM_FIRST : 2 * have));
    }
    CHECK_INT(azs_zmtp_decoder_have(&r.d), have);
    free(block);
    reader_clear(&r);
}

/* Bodies below AZS_ZMTP_ROOM_MIN are completed here, others are not; both at their
 * limits, and at those of the headers. */
TEST(decoder_sizes_at_the_limits)
{
    static const size_t sizes[] = {0,    1,    254,   255,   256,   257,    2046,  2047,
                                   2048, 2049, 65535, 65536, 65537, 262143, 262145};
    for (size_t i = 0; i < AZS_ARRAY_LEN(sizes); i++) {
        size_t size = sizes[i];
        uint8_t *wire = malloc(AZS_ZMTP_HEADER_MAX + size + 2);
        size_t n = azs_zmtp_header_put(wire, AZS_ZMTP_MORE, size);
        CHECK_INT(n, azs_zmtp_header_size(wire[0]));
        memset(wire + n, 0x61, size);
        n += size;
        wire[n++] = 0, wire[n++] = 0;
        for (size_t cut = 0; cut <= n; cut += cut < 12 || cut + 12 > n ? 1 : n / 7) {
            reader r;
            reader_init(&r, size);
            feed(&r, wire, cut);
            CHECK((r.most_room > 0) ==
                  (size >= AZS_ZMTP_ROOM_MIN && cut >= 9 && cut < 9 + size));
            feed(&r, wire + cut, n - cut);
            char expected[64];
            if (size > 8)
                snprintf(expected, sizeof(expected),
                         "1:6161616161616161...61(%zu) 0: ", size);
            else
                snprintf(expected, sizeof(expected), "1:%s 0: ", size ? "61" : "");
            check_text(&r, expected);
            reader_clear(&r);
        }
        free(wire);
    }
}
