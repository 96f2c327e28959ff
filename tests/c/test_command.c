/* csrc/zmtp/command.h, metadata.h, socktype.h */
#include "zmtp/command.h"
#include "zmtp/metadata.h"

#include "hex.h"

/* Parses a copy, so that reading beyond its end is seen. The kind, or -errno. */
static int
kind_of(const uint8_t *body, size_t size)
{
    uint8_t *copy = copy_of(body, size);
    azs_zmtp_command command;
    int err = azs_zmtp_command_parse(copy, size, &command);
    if (err == 0)
        CHECK(command.data + command.size == copy + size);
    free(copy);
    return err < 0 ? err : (int)command.kind;
}

TEST(command_names)
{
    static const struct {
        const char *body;
        int kind;
    } cases[] = {
        {"05 5245414459 aabb", AZS_ZMTP_READY},
        {"05 4552524f52", AZS_ZMTP_ERROR},
        {"04 50494e47 000a", AZS_ZMTP_PING},
        {"04 504f4e47", AZS_ZMTP_PONG},
        {"09 535542534352494245 746f706963", AZS_ZMTP_SUBSCRIBE},
        {"06 43414e43454c", AZS_ZMTP_CANCEL},
        {"05 48454c4c4f", AZS_ZMTP_HELLO},
        {"07 57454c434f4d45", AZS_ZMTP_WELCOME},
        {"08 494e495449415445", AZS_ZMTP_INITIATE},
        {"07 4d455353414745", AZS_ZMTP_MESSAGE},
        {"04 4a4f494e", AZS_ZMTP_UNKNOWN},
        {"05 7265616479", AZS_ZMTP_UNKNOWN},
        {"00", AZS_ZMTP_UNKNOWN},
        {"", -EPROTO},
        {"01", -EPROTO},
        {"05 50494e47", -EPROTO},
        {"ff 50494e47", -EPROTO},
    };
    for (size_t i = 0; i < AZS_ARRAY_LEN(cases); i++) {
        octets o = hex(cases[i].body);
        CHECK_INT(kind_of(o.data, o.size), cases[i].kind);
        uint8_t name[10];
        if (cases[i].kind > AZS_ZMTP_UNKNOWN) {
            size_t n = azs_zmtp_command_put(name, cases[i].kind);
            CHECK_MEM(name, n, o.data, n);
        }
        /* Truncated at each octet: never read beyond. */
        for (size_t size = 0; size < o.size; size++)
            kind_of(o.data, size);
    }
}

TEST(command_ping_and_pong)
{
    azs_zmtp_command command;
    uint16_t ttl;
    uint8_t *context, out[AZS_ZMTP_PING_MAX];
    size_t size;
    octets o = hex("04 50494e47 0010 637478");
    CHECK_INT(azs_zmtp_command_parse(o.data, o.size, &command), 0);
    CHECK_INT(azs_zmtp_ping_parse(&command, &ttl, &context, &size), 0);
    CHECK_INT(ttl, 16);
    CHECK_MEM(context, size, "ctx", 3);
    o = hex("04 504f4e47 637478");
    CHECK_MEM(out, azs_zmtp_pong_put(out, context, size), o.data, o.size);
    o = hex("04 50494e47 000a");
    CHECK_MEM(out, azs_zmtp_ping_put(out, 10), o.data, o.size);
    /* Cut at 16 octets of context; libzmq reads beyond what is too short. */
    o = hex("04 50494e47 0000 61*17");
    CHECK_INT(azs_zmtp_command_parse(o.data, o.size, &command), 0);
    CHECK_INT(azs_zmtp_ping_parse(&command, &ttl, &context, &size), 0);
    CHECK_INT(size, 16);
    for (size_t cut = 5; cut < 7; cut++) {
        CHECK_INT(azs_zmtp_command_parse(o.data, cut, &command), 0);
        CHECK_INT(azs_zmtp_ping_parse(&command, &ttl, &context, &size), -EPROTO);
    }
}

TEST(command_error_reason)
{
    static const struct {
        const char *data;
        int result;
    } cases[] = {
        {"03 343030", 0},       {"00", 0}, {"", -EPROTO}, {"04 343030", -EPROTO},
        {"02 343030", -EPROTO},
    };
    for (size_t i = 0; i < AZS_ARRAY_LEN(cases); i++) {
        octets o = hex(cases[i].data);
        azs_zmtp_command command = {AZS_ZMTP_ERROR, o.data, o.size};
        uint8_t *reason;
        size_t size;
        CHECK_INT(azs_zmtp_error_parse(&command, &reason, &size), cases[i].result);
        if (cases[i].result == 0)
            CHECK_MEM(reason, size, o.data + 1, o.size - 1);
    }
}

/* Both forms are taken from any peer, each peer gets the one that it knows. */
TEST(command_subscriptions)
{
    static const struct {
        unsigned flags;
        const char *body;
        int subscribe; /* -1: it is none */
        const char *topic;
    } cases[] = {
        {AZS_ZMTP_COMMAND, "09 535542534352494245 746f706963", 1, "746f706963"},
        {AZS_ZMTP_COMMAND, "06 43414e43454c 746f706963", 0, "746f706963"},
        {AZS_ZMTP_COMMAND, "09 535542534352494245", 1, ""},
        {0, "01 78", 1, "78"},
        {0, "00 78", 0, "78"},
        {AZS_ZMTP_MORE, "01", 1, ""},
        {0, "", -1, ""},
        {0, "02 78", -1, ""},
        {0, "09 535542534352494245 746f706963", -1, ""},
        {AZS_ZMTP_COMMAND, "01 78", -1, ""},
        {AZS_ZMTP_COMMAND, "04 504f4e47", -1, ""},
        {AZS_ZMTP_COMMAND, "0a 535542534352494245", -1, ""},
    };
    for (size_t i = 0; i < AZS_ARRAY_LEN(cases); i++) {
        octets body = hex(cases[i].body), topic = hex(cases[i].topic);
        azs_zmtp_frame frame = {body.data, body.size, cases[i].flags};
        azs_zmtp_subscription got;
        CHECK_INT(azs_zmtp_subscription_parse(&frame, &got), cases[i].subscribe >= 0);
        if (cases[i].subscribe < 0)
            continue;
        CHECK_INT(got.subscribe, cases[i].subscribe);
        CHECK_MEM(got.topic, got.size, topic.data, topic.size);
        uint8_t prefix[10];
        unsigned flags;
        int minor = (cases[i].flags & AZS_ZMTP_COMMAND) != 0;
        size_t n = azs_zmtp_subscription_put(prefix, got.subscribe, minor, &flags);
        CHECK_MEM(prefix, n, body.data, body.size - topic.size);
        CHECK_INT(flags, minor ? AZS_ZMTP_COMMAND : 0);
    }
}

TEST(socket_types)
{
    /* mechanism.cpp, check_socket_type() */
    static const char *const accepted[AZS_ZMTP_TYPES] = {
        [AZS_ZMTP_PAIR] = "PAIR",
        [AZS_ZMTP_PUB] = "SUB XSUB",
        [AZS_ZMTP_SUB] = "PUB XPUB",
        [AZS_ZMTP_REQ] = "REP ROUTER",
        [AZS_ZMTP_REP] = "REQ DEALER",
        [AZS_ZMTP_DEALER] = "REP DEALER ROUTER",
        [AZS_ZMTP_ROUTER] = "REQ DEALER ROUTER",
        [AZS_ZMTP_PULL] = "PUSH",
        [AZS_ZMTP_PUSH] = "PULL",
        [AZS_ZMTP_XPUB] = "SUB XSUB",
        [AZS_ZMTP_XSUB] = "PUB XPUB",
    };
    for (int ours = 0; ours < AZS_ZMTP_TYPES; ours++) {
        const char *name = azs_zmtp_type_name(ours);
        CHECK_INT(azs_zmtp_type_of_name(name, strlen(name)), ours);
        for (int theirs = 0; theirs < AZS_ZMTP_TYPES; theirs++) {
            char list[64], word[16];
            snprintf(list, sizeof(list), " %s ", accepted[ours]);
            snprintf(word, sizeof(word), " %s ", azs_zmtp_type_name(theirs));
            CHECK_INT(azs_zmtp_type_accepts(ours, theirs), strstr(list, word) != NULL);
        }
    }
    CHECK_INT(azs_zmtp_type_of_name("DEALERS", 7), -EPROTO);
    CHECK_INT(azs_zmtp_type_of_name("DEAL", 4), -EPROTO);
    CHECK_INT(azs_zmtp_type_of_name("", 0), -EPROTO);
    CHECK_INT(azs_zmtp_type_of_name("dealer", 6), -EPROTO);
    CHECK_INT(azs_zmtp_type_of_name("STREAM", 6), -EPROTO);
}

/* ---- properties ---- */

#define TYPE_DEALER "0b 536f636b65742d54797065 00000006 4445414c4552"
#define IDENTITY    "08 4964656e74697479 00000005 636c692d31"

static int
parse_peer(azs_zmtp_peer *peer, azs_zmtp_type ours, const char *text)
{
    octets o = hex(text);
    uint8_t *copy = copy_of(o.data, o.size);
    int err = azs_zmtp_peer_parse(peer, ours, copy, o.size);
    free(copy);
    return err;
}

TEST(metadata_of_a_peer)
{
    azs_zmtp_peer peer = {0};
    CHECK_INT(parse_peer(&peer, AZS_ZMTP_ROUTER,
                         TYPE_DEALER IDENTITY "03 582d61 00000001 62"),
              0);
    CHECK_INT(peer.type, AZS_ZMTP_DEALER);
    CHECK_MEM(peer.identity, peer.identity_size, "cli-1", 5);
    const uint8_t *at = peer.properties;
    size_t left = peer.properties_size;
    azs_zmtp_property property;
    for (int i = 0; i < 3; i++)
        CHECK_INT(azs_zmtp_property_next(&at, &left, &property), 1);
    CHECK(azs_zmtp_property_is(&property, "X-a") &&
          azs_zmtp_property_is(&property, "x-A"));
    CHECK(!azs_zmtp_property_is(&property, "X-") &&
          !azs_zmtp_property_is(&property, "X-ab"));
    CHECK_MEM(property.value, property.value_size, "b", 1);
    CHECK_INT(azs_zmtp_property_next(&at, &left, &property), 0);
    /* Once more: what was held is freed. */
    CHECK_INT(parse_peer(&peer, AZS_ZMTP_ROUTER, TYPE_DEALER), 0);
    CHECK_INT(peer.identity_size, 0);
    azs_zmtp_peer_clear(&peer);
}

TEST(metadata_truncated_at_each_octet)
{
    azs_zmtp_peer peer = {0};
    octets o = hex(TYPE_DEALER IDENTITY);
    octets type = hex(TYPE_DEALER);
    for (size_t size = 0; size <= o.size; size++) {
        uint8_t *copy = copy_of(o.data, size);
        bool whole = size == o.size || size == type.size;
        CHECK_INT(azs_zmtp_peer_parse(&peer, AZS_ZMTP_ROUTER, copy, size),
                  whole ? 0 : -EPROTO);
        free(copy);
    }
    azs_zmtp_peer_clear(&peer);
}

TEST(metadata_that_is_refused)
{
    static const char *const cases[] = {
        "",
        IDENTITY,                     /* no type */
        TYPE_DEALER "00",             /* a trailing octet */
        TYPE_DEALER "00 00000000",    /* a name without octets */
        TYPE_DEALER "01 61 ffffffff", /* a value too long */
        TYPE_DEALER "01 61 7fffffff",
        "0b 536f636b65742d54797065 00000003 524550", /* REP to ROUTER */
        "0b 536f636b65742d54797065 00000003 464f4f", /* FOO */
        "0b 536f636b65742d54797065 00000000",
        TYPE_DEALER "08 4964656e74697479 00000100 61*256", /* an id too long */
    };
    azs_zmtp_peer peer = {0};
    for (size_t i = 0; i < AZS_ARRAY_LEN(cases); i++)
        CHECK_INT(parse_peer(&peer, AZS_ZMTP_ROUTER, cases[i]), -EPROTO);
    CHECK_INT(parse_peer(&peer, AZS_ZMTP_ROUTER,
                         TYPE_DEALER "08 4964656e74697479 000000ff 61*255"),
              0);
    CHECK_INT(peer.identity_size, 255);
    /* The last of two ids counts, as in libzmq's routing. */
    CHECK_INT(parse_peer(&peer, AZS_ZMTP_ROUTER,
                         TYPE_DEALER IDENTITY "08 6964454e54697479 00000001 78"),
              0);
    CHECK_MEM(peer.identity, peer.identity_size, "x", 1);
    azs_zmtp_peer_clear(&peer);
}
