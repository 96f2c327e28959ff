/* csrc/zmtp/crypto.h, curve.h, and CURVE's handshake; where there is a libsodium. */
#include "ends.h"

/* Skips the test. */
#define NEED_LIBSODIUM()                                                               \
    if (libsodium() == NULL) {                                                         \
        printf("skip: no libsodium\n");                                                \
        return;                                                                        \
    }

/* The secret keys of both, C and S. */
static uint8_t public_keys[2][AZS_ZMTP_KEY_SIZE], secret_keys[2][AZS_ZMTP_KEY_SIZE];

static end
curve_end(bool as_server)
{
    /* A flag: a key may have any octet, 0 too. */
    static bool have_keys;
    for (int i = 0; i < 2 && !have_keys; i++)
        libsodium()->keypair(public_keys[i], secret_keys[i]);
    have_keys = true;
    end e = {.config = {.mechanism = AZS_ZMTP_CURVE, .as_server = as_server}};
    e.config.type = as_server ? AZS_ZMTP_ROUTER : AZS_ZMTP_DEALER;
    e.config.identity = (const uint8_t *)"cli";
    e.config.identity_size = as_server ? 0 : 3;
    e.config.crypto = libsodium();
    memcpy(e.config.public_key, public_keys[as_server], AZS_ZMTP_KEY_SIZE);
    memcpy(e.config.secret_key, secret_keys[as_server], AZS_ZMTP_KEY_SIZE);
    memcpy(e.config.server_key, public_keys[1], AZS_ZMTP_KEY_SIZE);
    e.decision = 200;
    return e;
}

TEST(crypto_check_finds_what_is_wrong)
{
    NEED_LIBSODIUM();
    azs_zmtp_crypto wrong = *libsodium();
    CHECK_INT(azs_zmtp_crypto_check(&wrong), 0);
    wrong.box_open_afternm = wrong.box_afternm;
    CHECK_INT(azs_zmtp_crypto_check(&wrong), -ENOSYS);
    wrong = *libsodium();
    wrong.secretbox = wrong.secretbox_open;
    CHECK_INT(azs_zmtp_crypto_check(&wrong), -ENOSYS);
}

/* Two of ours, in pieces of each size; then frames both ways. */
TEST(curve_with_ourselves)
{
    NEED_LIBSODIUM();
    for (size_t piece = 1; piece < 400; piece = piece * 2 + 1) {
        end client = curve_end(false), server = curve_end(true);
        server.config.decides = piece % 4 == 3;
        end_start(&client);
        end_start(&server);
        ends_talk(&client, &server, piece);
        CHECK_INT(client.error, 0);
        CHECK_INT(server.error, 0);
        CHECK_INT(client.hs.phase, AZS_ZMTP_DONE);
        CHECK_INT(server.hs.phase, AZS_ZMTP_DONE);
        CHECK_MEM(server.hs.client_key, AZS_ZMTP_KEY_SIZE, public_keys[0],
                  AZS_ZMTP_KEY_SIZE);
        CHECK_MEM(server.hs.peer.identity, server.hs.peer.identity_size, "cli", 3);
        azs_zmtp_curve *a = &client.hs.curve, *b = &server.hs.curve;
        static const unsigned flags[] = {0, AZS_ZMTP_MORE, AZS_ZMTP_COMMAND};
        static const size_t sizes[] = {0, 1, 255, 256, 70000};
        for (size_t i = 0; i < 15; i++) {
            size_t size = sizes[i / 3];
            uint8_t *body = malloc(size + 1);
            uint8_t *sealed = malloc(size + AZS_ZMTP_CURVE_OVERHEAD);
            memset(body, 'x', size);
            CHECK_INT(azs_zmtp_curve_seal(a, flags[i % 3], body, size, sealed), 0);
            azs_zmtp_frame frame = {sealed, size + AZS_ZMTP_CURVE_OVERHEAD, 0};
            azs_zmtp_fault fault;
            CHECK_INT(azs_zmtp_curve_open(b, &frame, &fault), 0);
            CHECK_INT(frame.flags, flags[i % 3]);
            CHECK_MEM(frame.body, frame.size, body, size);
            free(body);
            free(sealed);
            azs_zmtp_curve *other = a;
            a = b;
            b = other;
        }
        /* HELLO 1, INITIATE 2, READY 1: messages go on from there. */
        CHECK_INT(client.hs.curve.sent, 2 + 8);
        CHECK_INT(server.hs.curve.sent, 1 + 7);
        end_clear(&client);
        end_clear(&server);
    }
}

/* Any octet that is changed on the way, in any command of the handshake, ends it on
 * the side that gets it. */
TEST(curve_forged_at_each_octet)
{
    NEED_LIBSODIUM();
    int refused = 0, padding = 0;
    /* Of the four commands: who sends it, and how large its frame is. */
    static const struct {
        bool from_server;
        size_t size;
    } commands[] = {
        {false, 2 + 200}, {true, 2 + 168}, {false, 9 + 257 + 38}, {true, 2 + 30 + 35}};
    for (size_t c = 0; c < AZS_ARRAY_LEN(commands); c++) {
        size_t header = c == 2 ? 9 : 2;
        for (size_t at = header; at < commands[c].size; at++) {
            end client = curve_end(false), server = curve_end(true);
            end_start(&client);
            end_start(&server);
            octets g = hex("ff 00*8 7f " GREETING_CURVE);
            end_receive(&client, g.data, g.size);
            end_receive(&server, g.data, g.size);
            client.out_size = client.out_size - 64;
            memmove(client.out, client.out + 64, client.out_size);
            server.out_size = 0;
            for (size_t step = 0; step <= c; step++) {
                end *from = commands[step].from_server ? &server : &client;
                end *to = commands[step].from_server ? &client : &server;
                CHECK_INT(from->out_size, commands[step].size);
                if (step == c)
                    from->out[at] ^= 0x40;
                size_t size = from->out_size;
                uint8_t *out = copy_of(from->out, size);
                from->out_size = 0;
                end_receive(to, out, size);
                free(out);
            }
            end *hit = commands[c].from_server ? &client : &server;
            if (c == 0 && at >= 2 + 8 && at < 2 + 80) {
                padding++; /* HELLO's zeros are not looked at */
                CHECK_INT(hit->error, 0);
            } else {
                refused++;
                CHECK_INT(hit->error, -EPROTO);
                CHECK(hit->hs.fault != 0);
                CHECK_INT(hit->hs.phase, AZS_ZMTP_EXCHANGE);
            }
            end_clear(&client);
            end_clear(&server);
        }
    }
    CHECK_INT(padding, 72);
    CHECK_INT(refused, 200 + 168 + 295 + 65 - 72);
}

TEST(curve_wrong_server_key)
{
    NEED_LIBSODIUM();
    end client = curve_end(false), server = curve_end(true);
    client.config.server_key[3] ^= 1;
    end_start(&client);
    end_start(&server);
    ends_talk(&client, &server, 1000);
    CHECK_INT(server.error, -EPROTO);
    CHECK_INT(server.hs.fault, AZS_ZMTP_FAULT_CRYPTOGRAPHIC);
    CHECK_INT(client.error, 0);
    CHECK_INT(client.hs.phase, AZS_ZMTP_EXCHANGE);
    end_clear(&client);
    end_clear(&server);
}

/* A vouch for another server, at which libzmq does not look, or for another
 * connection's key. */
static void
check_vouch_is_refused(bool another_server)
{
    end client = curve_end(false), server = curve_end(true);
    end_start(&client);
    end_start(&server);
    octets g = hex("ff 00*8 7f " GREETING_CURVE);
    end_receive(&client, g.data, g.size); /* HELLO is made */
    client.config.server_key[0] ^= 1;
    server.out_size = client.out_size - 64;
    uint8_t *hello = copy_of(client.out + 64, server.out_size);
    size_t hello_size = server.out_size;
    client.out_size = server.out_size = 0;
    end_receive(&server, g.data, g.size);
    end_receive(&server, hello, hello_size);
    free(hello);
    client.config.server_key[0] ^= 1; /* WELCOME opens */
    uint8_t *welcome = copy_of(server.out, server.out_size);
    azs_zmtp_frame frame = {welcome + 2, server.out_size - 2, AZS_ZMTP_COMMAND};
    CHECK_INT(azs_zmtp_handshake_receive(&client.hs, &frame), 0);
    free(welcome);
    if (another_server)
        client.config.server_key[0] ^= 1;
    else
        client.hs.short_public[0] ^= 1;
    uint8_t *initiate = malloc(azs_zmtp_handshake_room(&client.hs));
    int n = azs_zmtp_handshake_send(&client.hs, initiate);
    frame = (azs_zmtp_frame){initiate, (size_t)n, AZS_ZMTP_COMMAND};
    CHECK_INT(azs_zmtp_handshake_receive(&server.hs, &frame), -EPROTO);
    CHECK_INT(server.hs.fault, AZS_ZMTP_FAULT_KEY_EXCHANGE);
    free(initiate);
    end_clear(&client);
    end_clear(&server);
}

TEST(curve_vouch_must_be_for_this_connection)
{
    NEED_LIBSODIUM();
    check_vouch_is_refused(true);
    check_vouch_is_refused(false);
}

TEST(curve_decided)
{
    NEED_LIBSODIUM();
    static const int statuses[] = {300, 400, 500};
    for (size_t i = 0; i < AZS_ARRAY_LEN(statuses); i++) {
        end client = curve_end(false), server = curve_end(true);
        server.config.decides = true;
        server.decision = statuses[i];
        end_start(&client);
        end_start(&server);
        ends_talk(&client, &server, 1000);
        CHECK_INT(server.hs.phase, AZS_ZMTP_REFUSED);
        CHECK_INT(client.error, statuses[i] == 300 ? 0 : -EACCES);
        CHECK_INT(client.hs.refusal, statuses[i] == 300 ? 0 : statuses[i]);
        end_clear(&client);
        end_clear(&server);
    }
}

/* Commands of the wrong size or at the wrong time. */
TEST(curve_what_breaks_it)
{
    NEED_LIBSODIUM();
    static const struct {
        bool as_server;
        const char *frame;
        azs_zmtp_fault fault;
    } cases[] = {
        {true, "04 c8 05 48454c4c4f 02 00 00*192", AZS_ZMTP_FAULT_HELLO},
        {true, "04 c7 05 48454c4c4f 01 00 00*191", AZS_ZMTP_FAULT_HELLO},
        {true, "04 06 05 48454c4c4f", AZS_ZMTP_FAULT_HELLO},
        {true, "04 c8 05 48454c4c4f 01 00 00*192", AZS_ZMTP_FAULT_CRYPTOGRAPHIC},
        {true, "04 a8 07 57454c434f4d45 00*160", AZS_ZMTP_FAULT_UNEXPECTED_COMMAND},
        {true, "06 0000000000000127 08 494e495449415445 00*286",
         AZS_ZMTP_FAULT_UNEXPECTED_COMMAND},
        {true, "04 08 07 4d455353414745", AZS_ZMTP_FAULT_UNEXPECTED_COMMAND},
        {true, "04 01 00", AZS_ZMTP_FAULT_UNEXPECTED_COMMAND},
        {false, "04 a7 07 57454c434f4d45 00*159", AZS_ZMTP_FAULT_WELCOME},
        {false, "04 08 07 57454c434f4d45", AZS_ZMTP_FAULT_WELCOME},
        {false, "04 a8 07 57454c434f4d45 00*160", AZS_ZMTP_FAULT_CRYPTOGRAPHIC},
        {false, "04 06 05 5245414459", AZS_ZMTP_FAULT_UNEXPECTED_COMMAND},
        {false, "04 c8 05 48454c4c4f 01 00 00*192", AZS_ZMTP_FAULT_UNEXPECTED_COMMAND},
    };
    octets g = hex("ff 00*8 7f " GREETING_CURVE);
    for (size_t i = 0; i < AZS_ARRAY_LEN(cases); i++) {
        end e = curve_end(cases[i].as_server);
        octets o = hex(cases[i].frame);
        end_start(&e);
        end_receive(&e, g.data, g.size);
        end_receive(&e, o.data, o.size);
        CHECK_INT(e.error, -EPROTO);
        CHECK_INT(e.hs.fault, cases[i].fault);
        end_clear(&e);
    }
}

/* INITIATE and READY cut short: checked before anything is opened. */
TEST(curve_truncated_commands)
{
    NEED_LIBSODIUM();
    for (int of_server = 0; of_server < 2; of_server++) {
        for (size_t size = of_server ? 6 : 9; size < (of_server ? 30 : 257); size++) {
            end e = curve_end(!of_server);
            end_start(&e);
            octets g = hex("ff 00*8 7f " GREETING_CURVE);
            end_receive(&e, g.data, g.size);
            e.hs.step = of_server ? 3 : 2;
            e.hs.sends = false;
            octets o =
                hex(of_server ? "05 5245414459 00*300" : "08 494e495449415445 00*300");
            uint8_t *body = copy_of(o.data, size);
            azs_zmtp_frame frame = {body, size, AZS_ZMTP_COMMAND};
            CHECK_INT(azs_zmtp_handshake_receive(&e.hs, &frame), -EPROTO);
            CHECK_INT(e.hs.fault,
                      of_server ? AZS_ZMTP_FAULT_READY : AZS_ZMTP_FAULT_INITIATE);
            free(body);
            end_clear(&e);
        }
    }
}

/* ---- MESSAGE ---- */

typedef struct {
    azs_zmtp_curve client, server;
} sessions;

static sessions
sessions_new(void)
{
    sessions s = {.client = {.crypto = libsodium(), .sent = 2, .received = 1},
                  .server = {.crypto = libsodium(), .sent = 1, .received = 2}};
    s.server.as_server = true;
    s.client.crypto->random(s.client.key, sizeof(s.client.key));
    memcpy(s.server.key, s.client.key, sizeof(s.server.key));
    return s;
}

static int
open_copy(azs_zmtp_curve *curve, const uint8_t *body, size_t size, unsigned flags,
          azs_zmtp_fault *fault)
{
    uint8_t *copy = copy_of(body, size);
    azs_zmtp_frame frame = {copy, size, flags};
    int err = azs_zmtp_curve_open(curve, &frame, fault);
    free(copy);
    return err;
}

TEST(curve_message_layout)
{
    NEED_LIBSODIUM();
    sessions s = sessions_new();
    uint8_t out[2 + AZS_ZMTP_CURVE_OVERHEAD];
    CHECK_INT(azs_zmtp_curve_seal(&s.client, 0, (const uint8_t *)"hi", 2, out), 0);
    octets head = hex("07 4d455353414745 0000000000000003");
    CHECK_INT(sizeof(out), 0x23);
    CHECK_MEM(out, head.size, head.data, head.size);
    /* Sealed as the RFC says, by the other way to seal. */
    uint8_t nonce[AZS_ZMTP_NONCE_SIZE], text[3];
    azs_zmtp_nonce_put(nonce, "CurveZMQMESSAGEC", 3);
    CHECK_INT(libsodium()->secretbox_open(text, out + 16, 19, nonce, s.client.key), 0);
    CHECK_MEM(text, 3, "\0hi", 3);
}

TEST(curve_message_forged_truncated_or_out_of_order)
{
    NEED_LIBSODIUM();
    enum { SIZE = 5 + AZS_ZMTP_CURVE_OVERHEAD };
    sessions s = sessions_new();
    uint8_t out[4][SIZE];
    for (int i = 0; i < 4; i++)
        CHECK_INT(
            azs_zmtp_curve_seal(&s.client, 0, (const uint8_t *)"hello", 5, out[i]), 0);
    azs_zmtp_fault fault;
    for (size_t i = 0; i < SIZE; i++) {
        CHECK_INT(open_copy(&s.server, out[0], i, 0, &fault), -EPROTO);
        out[0][i] ^= 0x80;
        CHECK_INT(open_copy(&s.server, out[0], SIZE, 0, &fault), -EPROTO);
        out[0][i] ^= 0x80;
    }
    /* From ourselves: the other direction's nonce. */
    CHECK_INT(open_copy(&s.client, out[0], SIZE, 0, &fault), -EPROTO);
    CHECK_INT(fault, AZS_ZMTP_FAULT_CRYPTOGRAPHIC);
    /* None of it has counted; a gap is allowed, going back is not. */
    CHECK_INT(open_copy(&s.server, out[0], SIZE, 0, &fault), 0);
    CHECK_INT(open_copy(&s.server, out[0], SIZE, 0, &fault), -EPROTO);
    CHECK_INT(fault, AZS_ZMTP_FAULT_SEQUENCE);
    CHECK_INT(open_copy(&s.server, out[2], SIZE, 0, &fault), 0);
    CHECK_INT(open_copy(&s.server, out[1], SIZE, 0, &fault), -EPROTO);
    CHECK_INT(fault, AZS_ZMTP_FAULT_SEQUENCE);
    /* The outer flags are nobody's word. RFC 37 has COMMAND there, libzmq nothing. */
    uint8_t *copy = copy_of(out[3], SIZE);
    azs_zmtp_frame frame = {copy, SIZE, AZS_ZMTP_MORE | AZS_ZMTP_COMMAND};
    CHECK_INT(azs_zmtp_curve_open(&s.server, &frame, &fault), 0);
    CHECK_INT(frame.flags, 0);
    CHECK_MEM(frame.body, frame.size, "hello", 5);
    free(copy);
    /* A peer that seals nothing at all: not even flags. */
    uint8_t nonce[AZS_ZMTP_NONCE_SIZE];
    memcpy(out[0], out[3], 16);
    out[0][15] = 200;
    azs_zmtp_nonce_put(nonce, "CurveZMQMESSAGEC", 200);
    CHECK_INT(libsodium()->secretbox(out[0] + 16, out[1], 0, nonce, s.client.key), 0);
    CHECK_INT(open_copy(&s.server, out[0], 32, 0, &fault), -EPROTO);
    CHECK_INT(fault, AZS_ZMTP_FAULT_MESSAGE);
    s.client.sent = UINT64_MAX;
    CHECK_INT(azs_zmtp_curve_seal(&s.client, 0, NULL, 0, out[0]), -EPROTO);
}
