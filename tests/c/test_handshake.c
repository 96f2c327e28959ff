/* csrc/zmtp/handshake.h: NULL and PLAIN, with what libzmq 4.3.5 was recorded to send.
 */
#include "ends.h"

#define READY_DEALER                                                                   \
    "04 2e 05 5245414459 0b 536f636b65742d54797065 00000006 4445414c4552 "             \
    "08 4964656e74697479 00000005 636c692d31 "
#define READY_ROUTER                                                                   \
    "04 29 05 5245414459 0b 536f636b65742d54797065 00000006 524f55544552 "             \
    "08 4964656e74697479 00000000 "
#define GREETING_OF_DEALER "ff 0000000000000006 7f" GREETING_NULL
#define GREETING_OF_ROUTER "ff 0000000000000001 7f" GREETING_NULL
#define OUR_GREETING_NULL  "ff 00*8 7f" GREETING_NULL
#define TRAFFIC            "01 00 00 05 68656c6c6f "

static const uint8_t cli_1[] = "cli-1";

static end
null_end(azs_zmtp_type type)
{
    end e = {.config = {.mechanism = AZS_ZMTP_NULL, .type = type}, .decision = 200};
    if (type == AZS_ZMTP_DEALER) {
        e.config.identity = cli_1;
        e.config.identity_size = 5;
    }
    return e;
}

static void
check_out(end *e, const char *text)
{
    octets expected = hex(text);
    CHECK_MEM(e->out, e->out_size, expected.data, expected.size);
}

static void
receive_text(end *e, const char *text)
{
    octets o = hex(text);
    end_receive(e, o.data, o.size);
}

/* ---- NULL ---- */

/* The recorded exchange, from both sides, the peer's octets cut anywhere. */
TEST(null_as_recorded)
{
    octets o = hex(GREETING_OF_DEALER READY_DEALER TRAFFIC);
    for (size_t cut = 0; cut <= o.size; cut++) {
        end e = null_end(AZS_ZMTP_ROUTER);
        end_start(&e);
        end_receive(&e, o.data, cut);
        end_receive(&e, o.data + cut, o.size - cut);
        CHECK_INT(e.error, 0);
        CHECK_INT(e.hs.phase, AZS_ZMTP_DONE);
        check_out(&e, OUR_GREETING_NULL READY_ROUTER);
        octets traffic = hex(TRAFFIC);
        CHECK_MEM(e.traffic, e.traffic_size, traffic.data, traffic.size);
        azs_zmtp_peer peer;
        azs_zmtp_curve curve;
        azs_zmtp_handshake_finish(&e.hs, &peer, &curve);
        CHECK_INT(peer.type, AZS_ZMTP_DEALER);
        CHECK_INT(peer.minor, 1);
        CHECK_MEM(peer.identity, peer.identity_size, "cli-1", 5);
        CHECK(curve.crypto == NULL);
        azs_zmtp_peer_clear(&peer);
        end_clear(&e);
    }
    end e = null_end(AZS_ZMTP_DEALER);
    end_start(&e);
    receive_text(&e, GREETING_OF_ROUTER READY_ROUTER);
    CHECK_INT(e.hs.phase, AZS_ZMTP_DONE);
    check_out(&e, OUR_GREETING_NULL READY_DEALER);
    end_clear(&e);
}

/* READY goes out when the peer's greeting is there: no mechanism before it is known. */
TEST(null_each_octet_alone)
{
    octets o = hex(GREETING_OF_DEALER READY_DEALER);
    end e = null_end(AZS_ZMTP_ROUTER);
    end_start(&e);
    for (size_t i = 0; i < o.size; i++) {
        CHECK_INT(e.hs.phase, i < 64 ? AZS_ZMTP_GREETING : AZS_ZMTP_EXCHANGE);
        CHECK_INT(e.out_size, i < 64 ? 64 : 64 + 43);
        end_receive(&e, o.data + i, 1);
        CHECK_INT(e.error, 0);
    }
    CHECK_INT(e.hs.phase, AZS_ZMTP_DONE);
    end_clear(&e);
}

TEST(null_with_ourselves)
{
    for (int ours = 0; ours < AZS_ZMTP_TYPES; ours++) {
        for (int theirs = 0; theirs < AZS_ZMTP_TYPES; theirs++) {
            end a = null_end(ours), b = null_end(theirs);
            end_start(&a);
            end_start(&b);
            ends_talk(&a, &b, 7);
            bool accept = azs_zmtp_type_accepts(ours, theirs);
            CHECK_INT(a.error, accept ? 0 : -EPROTO);
            CHECK_INT(b.error, accept ? 0 : -EPROTO);
            CHECK_INT(a.hs.phase == AZS_ZMTP_DONE, accept);
            if (!accept)
                CHECK_INT(a.hs.fault, AZS_ZMTP_FAULT_METADATA);
            end_clear(&a);
            end_clear(&b);
        }
    }
}

/* A long READY: an id of 255 octets and properties of our own. */
TEST(null_long_ready)
{
    octets id = hex("69*255"), properties = hex("03 582d61 0000ffff 62*65535");
    end a = null_end(AZS_ZMTP_DEALER), b = null_end(AZS_ZMTP_ROUTER);
    a.config.identity = id.data;
    a.config.identity_size = id.size;
    a.config.properties = properties.data;
    a.config.properties_size = AZS_ZMTP_PROPERTIES_MAX;
    azs_zmtp_put_u32(properties.data + 4, AZS_ZMTP_PROPERTIES_MAX - 8);
    end_start(&a);
    end_start(&b);
    ends_talk(&a, &b, SIZE_MAX);
    CHECK_INT(a.hs.phase, AZS_ZMTP_DONE);
    CHECK_INT(b.hs.phase, AZS_ZMTP_DONE);
    CHECK_INT(b.hs.peer.identity_size, 255);
    CHECK(b.hs.peer.properties_size > AZS_ZMTP_PROPERTIES_MAX);
    end_clear(&a);
    end_clear(&b);
}

#define CHECK_REFUSED(e, text, expected_error, expected_fault)                         \
    do {                                                                               \
        end refused_end = e;                                                           \
        end_start(&refused_end);                                                       \
        receive_text(&refused_end, text);                                              \
        CHECK_INT(refused_end.error, expected_error);                                  \
        CHECK_INT(refused_end.hs.fault, expected_fault);                               \
        CHECK(refused_end.hs.phase != AZS_ZMTP_DONE);                                  \
        end_clear(&refused_end);                                                       \
    } while (0)

TEST(null_what_breaks_it)
{
    end e = null_end(AZS_ZMTP_ROUTER);
    CHECK_REFUSED(e, SIGNATURE GREETING_PLAIN, -EPROTO, AZS_ZMTP_FAULT_MECHANISM);
    CHECK_REFUSED(e, "47", -EPROTO, AZS_ZMTP_FAULT_ZMTP);
    /* A message, a PING, somebody else's command before READY. */
    CHECK_REFUSED(e, GREETING_OF_DEALER TRAFFIC, -EPROTO,
                  AZS_ZMTP_FAULT_UNEXPECTED_COMMAND);
    CHECK_REFUSED(e, GREETING_OF_DEALER "00 05 68656c6c6f", -EPROTO,
                  AZS_ZMTP_FAULT_COMMAND);
    CHECK_REFUSED(e, GREETING_OF_DEALER "04 07 04 50494e47 000a", -EPROTO,
                  AZS_ZMTP_FAULT_UNEXPECTED_COMMAND);
    CHECK_REFUSED(e, GREETING_OF_DEALER "04 08 07 57454c434f4d45", -EPROTO,
                  AZS_ZMTP_FAULT_UNEXPECTED_COMMAND);
    CHECK_REFUSED(e, GREETING_OF_DEALER "04 00", -EPROTO, AZS_ZMTP_FAULT_COMMAND);
    /* A command in a command: its name is READY's, with more behind. */
    CHECK_REFUSED(e, GREETING_OF_DEALER "04 0c 05 5245414459 05 5245414459", -EPROTO,
                  AZS_ZMTP_FAULT_METADATA);
    /* Lengths: more than any handshake has, and those that no memory has. */
    CHECK_REFUSED(e, GREETING_OF_DEALER "06 0000000000010001", -EMSGSIZE, 0);
    CHECK_REFUSED(e, GREETING_OF_DEALER "06 8000000000000000", -EMSGSIZE, 0);
    CHECK_REFUSED(e, GREETING_OF_DEALER "02 ffffffffffffffff", -EMSGSIZE, 0);
}

/* As libzmq: a handshake's command without the COMMAND flag is taken, too. */
TEST(null_ready_without_the_flag)
{
    octets o = hex(GREETING_OF_DEALER READY_DEALER);
    o.data[64] = 0;
    end e = null_end(AZS_ZMTP_ROUTER);
    end_start(&e);
    end_receive(&e, o.data, o.size);
    CHECK_INT(e.hs.phase, AZS_ZMTP_DONE);
    end_clear(&e);
}

TEST(null_peer_refuses_us)
{
    static const struct {
        const char *error;
        int result, refusal;
    } cases[] = {
        {"04 0a 05 4552524f52 03 343030", -EACCES, 400},
        {"04 0a 05 4552524f52 03 333030", -EACCES, 300},
        {"04 0a 05 4552524f52 03 353030", -EACCES, 500},
        {"04 0a 05 4552524f52 03 323030", -EACCES, 0},
        {"04 07 05 4552524f52 00", -EACCES, 0},
        {"04 0b 05 4552524f52 04 34303030", -EACCES, 0},
        {"04 09 5e 52524f52 03 343030", -EACCES, 400},
        {"04 06 05 4552524f52", -EPROTO, 0},
        {"04 0a 05 4552524f52 ff 343030", -EPROTO, 0},
    };
    for (size_t i = 0; i < AZS_ARRAY_LEN(cases); i++) {
        end e = null_end(AZS_ZMTP_DEALER);
        end_start(&e);
        receive_text(&e, GREETING_OF_ROUTER);
        receive_text(&e, cases[i].error);
        CHECK_INT(e.error, cases[i].result);
        CHECK_INT(e.hs.refusal, cases[i].refusal);
        CHECK_INT(e.hs.fault, cases[i].result == -EPROTO ? AZS_ZMTP_FAULT_ERROR : 0);
        end_clear(&e);
    }
}

/* With a ZAP domain the user decides before READY is sent. */
TEST(null_decided)
{
    static const struct {
        int status;
        const char *sent;
    } cases[] = {
        {200, OUR_GREETING_NULL READY_ROUTER},
        {300, OUR_GREETING_NULL},
        {400, OUR_GREETING_NULL "04 0a 05 4552524f52 03 343030"},
        {500, OUR_GREETING_NULL "04 0a 05 4552524f52 03 353030"},
    };
    for (size_t i = 0; i < AZS_ARRAY_LEN(cases); i++) {
        end e = null_end(AZS_ZMTP_ROUTER);
        e.config.decides = true;
        e.decision = cases[i].status;
        end_start(&e);
        receive_text(&e, GREETING_OF_DEALER);
        CHECK_INT(e.hs.phase,
                  cases[i].status == 200 ? AZS_ZMTP_EXCHANGE : AZS_ZMTP_REFUSED);
        check_out(&e, cases[i].sent);
        receive_text(&e, READY_DEALER);
        CHECK_INT(e.error, cases[i].status == 200 ? 0 : -EPROTO);
        end_clear(&e);
    }
}

/* ---- PLAIN ---- */

#define HELLO         "04 13 05 48454c4c4f 05 61646d696e 06 736563726574 "
#define WELCOME       "04 08 07 57454c434f4d45 "
#define INITIATE                                                                       \
    "04 2f 08 494e495449415445 0b 536f636b65742d54797065 00000006 4445414c4552 "       \
    "08 4964656e74697479 00000003 636c69 "
#define READY_OF_SRV                                                                   \
    "04 2c 05 5245414459 0b 536f636b65742d54797065 00000006 524f55544552 "             \
    "08 4964656e74697479 00000003 535256 "
#define PEER_PLAIN  "ff 0000000000000004 7f" GREETING_PLAIN
#define OURS_CLIENT "ff 00*8 7f" GREETING_PLAIN
#define OURS_SERVER "ff 00*8 7f 0301 504c41494e 00*15 01 00*31 "

static end
plain_end(bool as_server)
{
    end e = {.config = {.mechanism = AZS_ZMTP_PLAIN, .as_server = as_server}};
    e.config.decides = as_server;
    e.decision = 200;
    e.config.type = as_server ? AZS_ZMTP_ROUTER : AZS_ZMTP_DEALER;
    e.config.identity = (const uint8_t *)(as_server ? "SRV" : "cli");
    e.config.identity_size = 3;
    e.config.username = (const uint8_t *)"admin";
    e.config.username_size = 5;
    e.config.password = (const uint8_t *)"secret";
    e.config.password_size = 6;
    return e;
}

TEST(plain_as_recorded)
{
    octets of_client = hex(PEER_PLAIN HELLO INITIATE TRAFFIC);
    octets of_server = hex(PEER_PLAIN WELCOME READY_OF_SRV TRAFFIC);
    for (size_t piece = 1; piece < 200; piece++) {
        end server = plain_end(true), client = plain_end(false);
        end_start(&server);
        end_start(&client);
        for (size_t at = 0; at < of_client.size; at += piece)
            end_receive(&server, of_client.data + at,
                        of_client.size - at < piece ? of_client.size - at : piece);
        for (size_t at = 0; at < of_server.size; at += piece)
            end_receive(&client, of_server.data + at,
                        of_server.size - at < piece ? of_server.size - at : piece);
        CHECK_INT(server.error, 0);
        CHECK_INT(client.error, 0);
        CHECK_INT(server.hs.phase, AZS_ZMTP_DONE);
        CHECK_INT(client.hs.phase, AZS_ZMTP_DONE);
        CHECK_MEM(server.hs.credentials, server.hs.username_size, "admin", 5);
        CHECK_MEM(server.hs.credentials + 5, server.hs.password_size, "secret", 6);
        CHECK_MEM(server.hs.peer.identity, server.hs.peer.identity_size, "cli", 3);
        check_out(&server, OURS_SERVER WELCOME READY_OF_SRV);
        check_out(&client, OURS_CLIENT HELLO INITIATE);
        octets traffic = hex(TRAFFIC);
        CHECK_MEM(server.traffic, server.traffic_size, traffic.data, traffic.size);
        CHECK_MEM(client.traffic, client.traffic_size, traffic.data, traffic.size);
        end_clear(&server);
        end_clear(&client);
    }
}

/* No password before the peer has said that it speaks PLAIN. */
TEST(plain_tells_nothing_to_others)
{
    end e = plain_end(false);
    end_start(&e);
    receive_text(&e, SIGNATURE GREETING_NULL);
    CHECK_INT(e.error, -EPROTO);
    check_out(&e, OURS_CLIENT);
    end_clear(&e);
}

TEST(plain_decided)
{
    static const struct {
        int status;
        const char *sent;
    } cases[] = {
        {300, ""},
        {400, "04 09 5e 52524f52 03 343030"},
        {500, "04 09 5e 52524f52 03 353030"},
    };
    for (size_t i = 0; i < AZS_ARRAY_LEN(cases); i++) {
        end server = plain_end(true), client = plain_end(false);
        server.decision = cases[i].status;
        end_start(&server);
        end_start(&client);
        receive_text(&server, PEER_PLAIN HELLO);
        CHECK_INT(server.hs.phase, AZS_ZMTP_REFUSED);
        octets sent = hex(cases[i].sent);
        CHECK_MEM(server.out + 64, server.out_size - 64, sent.data, sent.size);
        receive_text(&client, PEER_PLAIN);
        receive_text(&client, cases[i].sent);
        CHECK_INT(client.error, sent.size > 0 ? -EACCES : 0);
        CHECK_INT(client.hs.refusal, sent.size > 0 ? cases[i].status : 0);
        end_clear(&server);
        end_clear(&client);
    }
    /* Where nobody is asked, nobody gets in. */
    end server = plain_end(true);
    server.config.decides = false;
    end_start(&server);
    receive_text(&server, PEER_PLAIN HELLO);
    CHECK_INT(server.hs.phase, AZS_ZMTP_REFUSED);
    end_clear(&server);
}

TEST(plain_what_breaks_it)
{
    end server = plain_end(true), client = plain_end(false);
    static const char *const hellos[] = {
        "04 06 05 48454c4c4f",
        "04 07 05 48454c4c4f 05",
        "04 0c 05 48454c4c4f 05 61646d696e",
        "04 0d 05 48454c4c4f 05 61646d696e 01",
        "04 0f 05 48454c4c4f 05 61646d696e 01 61 62",
        "04 07 05 48454c4c4f ff",
    };
    for (size_t i = 0; i < AZS_ARRAY_LEN(hellos); i++) {
        char text[512];
        snprintf(text, sizeof(text), "%s%s", PEER_PLAIN, hellos[i]);
        CHECK_REFUSED(server, text, -EPROTO, AZS_ZMTP_FAULT_HELLO);
    }
    enum { UNEXPECTED = AZS_ZMTP_FAULT_UNEXPECTED_COMMAND };
    CHECK_REFUSED(server, PEER_PLAIN INITIATE, -EPROTO, UNEXPECTED);
    CHECK_REFUSED(server, PEER_PLAIN WELCOME, -EPROTO, UNEXPECTED);
    CHECK_REFUSED(server, PEER_PLAIN READY_DEALER, -EPROTO, UNEXPECTED);
    CHECK_REFUSED(server, PEER_PLAIN HELLO HELLO, -EPROTO, UNEXPECTED);
    CHECK_REFUSED(server, PEER_PLAIN HELLO "04 09 08 494e495449415445", -EPROTO,
                  AZS_ZMTP_FAULT_METADATA);
    CHECK_REFUSED(client, PEER_PLAIN HELLO, -EPROTO, UNEXPECTED);
    CHECK_REFUSED(client, PEER_PLAIN READY_OF_SRV, -EPROTO, UNEXPECTED);
    CHECK_REFUSED(client, PEER_PLAIN WELCOME WELCOME, -EPROTO, UNEXPECTED);
    CHECK_REFUSED(client, PEER_PLAIN "04 09 07 57454c434f4d45 00", -EPROTO,
                  AZS_ZMTP_FAULT_WELCOME);
}

TEST(plain_longest_texts)
{
    octets text = hex("75*255");
    end server = plain_end(true), client = plain_end(false);
    client.config.username = client.config.password = text.data;
    client.config.username_size = client.config.password_size = text.size;
    end_start(&server);
    end_start(&client);
    ends_talk(&client, &server, 100);
    CHECK_INT(server.hs.phase, AZS_ZMTP_DONE);
    CHECK_INT(client.hs.phase, AZS_ZMTP_DONE);
    CHECK_INT(server.hs.username_size, 255);
    CHECK_MEM(server.hs.credentials + 255, server.hs.password_size, text.data, 255);
    end_clear(&server);
    end_clear(&client);
}

/* Two of a kind never agree. */
TEST(plain_two_of_a_kind)
{
    for (int as_server = 0; as_server < 2; as_server++) {
        end a = plain_end(as_server), b = plain_end(as_server);
        end_start(&a);
        end_start(&b);
        ends_talk(&a, &b, 64);
        CHECK_INT(a.error, as_server ? 0 : -EPROTO);
        CHECK_INT(a.hs.phase, AZS_ZMTP_EXCHANGE);
        end_clear(&a);
        end_clear(&b);
    }
}
