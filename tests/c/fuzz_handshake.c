/* csrc/zmtp/handshake.h and the mechanisms, then traffic. The first octet says who we
 * are; what follows comes from the peer. CURVE's boxes are not sealed here, so that
 * what is in them is changed, too: sixteen zeros stand for each MAC. */
#include "ends.h"
#include "fuzz.h"

#define PROPERTIES "0b 536f636b65742d54797065 00000006 524f55544552 "
#define CLIENT     "0b 536f636b65742d54797065 00000006 4445414c4552 "
#define COOKIE     "11*16 00*16 22*32 33*32 "

const char *const fuzz_seeds[] = {
    "00 07 " SIGNATURE GREETING_NULL "04 1c 05 5245414459 " CLIENT
    "01 00 00 05 68656c6c6f",
    "01 ff " SIGNATURE GREETING_NULL "04 1c 05 5245414459 " PROPERTIES,
    "00 30 " SIGNATURE GREETING_NULL "04 0a 05 4552524f52 03 343030",
    "02 11 " SIGNATURE GREETING_PLAIN
    "04 13 05 48454c4c4f 05 61646d696e 06 736563726574 "
    "04 1f 08 494e495449415445 " CLIENT,
    "03 11 " SIGNATURE GREETING_PLAIN
    "04 08 07 57454c434f4d45 04 1c 05 5245414459 " PROPERTIES "04 07 04 50494e47 000a",
    "04 81 " SIGNATURE GREETING_CURVE
    "04 c8 05 48454c4c4f 01 00 00*72 22*32 0000000000000001 00*80 "
    "06 0000000000000117 08 494e495449415445 " COOKIE
    "0000000000000002 00*16 44*32 55*16 00*16 22*32 33*32 " CLIENT
    "00 23 07 4d455353414745 0000000000000003 00*16 00 6869",
    "05 81 " SIGNATURE GREETING_CURVE "04 a8 07 57454c434f4d45 55*16 00*16 22*32 66*96 "
    "04 34 05 5245414459 0000000000000001 00*16 " PROPERTIES
    "00 29 07 4d455353414745 0000000000000002 00*16 02 04 504f4e47 637478",
    NULL,
};

/* ---- a libsodium that seals nothing ---- */

static int
fake_init(void)
{
    return 0;
}

static int
fake_keypair(uint8_t *pk, uint8_t *sk)
{
    memset(pk, 0x33, 32);
    memset(sk, 0x33, 32);
    return 0;
}

static int
fake_beforenm(uint8_t *k, const uint8_t *pk, const uint8_t *sk)
{
    (void)sk;
    memcpy(k, pk, 32);
    return 0;
}

static int
fake_afternm(uint8_t *c, const uint8_t *m, unsigned long long size, const uint8_t *n,
             const uint8_t *k)
{
    CHECK(n[0] != 0);
    (void)k;
    memmove(c + 16, m, size);
    memset(c, 0, 16);
    return 0;
}

static int
fake_open_afternm(uint8_t *m, const uint8_t *c, unsigned long long size,
                  const uint8_t *n, const uint8_t *k)
{
    static const uint8_t mac[16];
    CHECK(n[0] != 0);
    (void)k;
    if (size < 16 || memcmp(c, mac, 16) != 0)
        return -1;
    memmove(m, c + 16, size - 16);
    return 0;
}

static int
fake_box(uint8_t *c, const uint8_t *m, unsigned long long size, const uint8_t *n,
         const uint8_t *pk, const uint8_t *sk)
{
    (void)sk;
    return fake_afternm(c, m, size, n, pk);
}

static int
fake_open(uint8_t *m, const uint8_t *c, unsigned long long size, const uint8_t *n,
          const uint8_t *pk, const uint8_t *sk)
{
    (void)sk;
    return fake_open_afternm(m, c, size, n, pk);
}

static void
fake_random(void *p, size_t size)
{
    memset(p, 0x11, size);
}

static void
fake_memzero(void *p, size_t size)
{
    memset(p, 0, size);
}

static const azs_zmtp_crypto fake = {
    .init = fake_init,
    .keypair = fake_keypair,
    .beforenm = fake_beforenm,
    .box = fake_box,
    .box_open = fake_open,
    .box_afternm = fake_afternm,
    .box_open_afternm = fake_open_afternm,
    .secretbox = fake_afternm,
    .secretbox_open = fake_open_afternm,
    .random = fake_random,
    .memzero = fake_memzero,
    .memcmp = memcmp,
};

/* ---- traffic ---- */

static void
take_traffic(azs_zmtp_curve *curve, uint8_t *data, size_t size)
{
    azs_zmtp_decoder decoder;
    azs_zmtp_frame frame;
    azs_zmtp_fault fault;
    azs_zmtp_command command;
    azs_zmtp_decoder_init(&decoder, UINT64_MAX);
    azs_zmtp_decoder_feed(&decoder, data, size);
    while (azs_zmtp_decoder_next(&decoder, &frame) == AZS_ZMTP_FRAME) {
        uint8_t *body = copy_of(frame.body, frame.size);
        frame.body = body;
        uint64_t last = curve->received;
        int err =
            curve->crypto == NULL ? 0 : azs_zmtp_curve_open(curve, &frame, &fault);
        if (err == 0) {
            CHECK(curve->crypto == NULL || curve->received > last);
            azs_zmtp_command_parse(frame.body, frame.size, &command);
        } else {
            CHECK(fault != 0 && curve->received == last);
        }
        free(body);
    }
    azs_zmtp_decoder_clear(&decoder);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_input in = {data, size};
    uint8_t who = fuzz_octet(&in), how = fuzz_octet(&in);
    end e = {.config = {.mechanism = (azs_zmtp_mechanism)(who / 2 % 3)}};
    e.config.as_server = who % 2 == 0;
    e.config.decides = how & 1;
    e.config.type = e.config.as_server ? AZS_ZMTP_ROUTER : AZS_ZMTP_DEALER;
    e.config.crypto = &fake;
    memset(e.config.public_key, 0x33, 32);
    memset(e.config.server_key, 0x33, 32);
    static const int decisions[] = {200, 200, 300, 400, 500};
    e.decision = decisions[how % 5];
    end_start(&e);
    const uint8_t *piece;
    while (in.size > 0) {
        size_t n = fuzz_octets(&in, how & 2 ? in.size : 1u + how, &piece);
        end_receive(&e, piece, n);
    }
    azs_zmtp_phase phase = e.hs.phase;
    if (e.error < 0)
        CHECK(phase != AZS_ZMTP_DONE);
    if (e.error == -EPROTO)
        CHECK(e.hs.fault != 0);
    if (phase == AZS_ZMTP_DONE) {
        azs_zmtp_peer peer;
        azs_zmtp_curve curve;
        azs_zmtp_handshake_finish(&e.hs, &peer, &curve);
        CHECK(azs_zmtp_type_accepts(e.config.type, peer.type));
        if (e.config.mechanism == AZS_ZMTP_PLAIN && e.config.as_server)
            CHECK(e.config.decides && e.decision == 200);
        take_traffic(&curve, e.traffic, e.traffic_size);
        azs_zmtp_peer_clear(&peer);
    }
    end_clear(&e);
    return 0;
}
