/* csrc/zmtp/greeting.h */
#include "zmtp/greeting.h"

#include "hex.h"

static int
check_greeting(const char *text, azs_zmtp_mechanism mechanism, azs_zmtp_fault *fault)
{
    octets o = hex(text);
    return azs_zmtp_greeting_check(o.data, o.size, mechanism, fault);
}

#define CHECK_GREETING(text, mechanism, result, expected_fault)                        \
    do {                                                                               \
        azs_zmtp_fault fault;                                                          \
        CHECK_INT(check_greeting(text, mechanism, &fault), result);                    \
        CHECK_INT(fault, expected_fault);                                              \
    } while (0)

TEST(greeting_is_what_a_3_1_peer_sends)
{
    static const char *const texts[] = {
        "ff 00*8 7f" GREETING_NULL,
        "ff 00*8 7f" GREETING_PLAIN,
        "ff 00*8 7f" GREETING_CURVE,
    };
    for (int mechanism = 0; mechanism < 3; mechanism++) {
        uint8_t greeting[AZS_ZMTP_GREETING_SIZE];
        octets expected = hex(texts[mechanism]);
        azs_zmtp_greeting_put(greeting, (azs_zmtp_mechanism)mechanism, false);
        CHECK_MEM(greeting, 64, expected.data, expected.size);
        azs_zmtp_greeting_put(greeting, (azs_zmtp_mechanism)mechanism, true);
        CHECK_INT(greeting[32], 1);
    }
}

/* libzmq puts the length of its id in the padding, and any as-server and filler go. */
TEST(greeting_of_libzmq_is_taken_at_each_length)
{
    octets o = hex("ff 0000000000000006 7f" GREETING_NULL);
    for (size_t size = 0; size <= o.size; size++) {
        uint8_t *copy = copy_of(o.data, size);
        azs_zmtp_fault fault;
        CHECK_INT(azs_zmtp_greeting_check(copy, size, AZS_ZMTP_NULL, &fault), 0);
        CHECK_INT(fault, 0);
        free(copy);
    }
    CHECK_INT(azs_zmtp_greeting_minor(o.data), 1);
    CHECK_GREETING("ff ab*8 01 0301 4e554c4c 00*16 ff*32", AZS_ZMTP_NULL, 0, 0);
}

TEST(greeting_versions)
{
    octets o = hex("ff 00*8 7f 0300 4e554c4c 00*48");
    azs_zmtp_fault fault;
    CHECK_INT(azs_zmtp_greeting_minor(o.data), 0);
    CHECK_INT(azs_zmtp_greeting_check(o.data, 64, AZS_ZMTP_NULL, &fault), 0);
    o.data[11] = 7;
    CHECK_INT(azs_zmtp_greeting_minor(o.data), 1);
    o.data[10] = 4, o.data[11] = 0; /* later: at least what 3.1 is */
    CHECK_INT(azs_zmtp_greeting_minor(o.data), 1);
    CHECK_INT(azs_zmtp_greeting_check(o.data, 64, AZS_ZMTP_NULL, &fault), 0);
    /* 2.0, 1.0, and 1.0 without a version. */
    CHECK_GREETING(SIGNATURE "01", AZS_ZMTP_NULL, -EPROTO, AZS_ZMTP_FAULT_ZMTP);
    CHECK_GREETING(SIGNATURE "00", AZS_ZMTP_NULL, -EPROTO, AZS_ZMTP_FAULT_ZMTP);
    CHECK_GREETING("ff 00*7 01 7e", AZS_ZMTP_NULL, -EPROTO, AZS_ZMTP_FAULT_ZMTP);
    CHECK_GREETING("01 00", AZS_ZMTP_NULL, -EPROTO, AZS_ZMTP_FAULT_ZMTP);
}

/* Turned away at the first octet: what follows never becomes a message. */
TEST(greeting_of_other_protocols)
{
    CHECK_GREETING("47", AZS_ZMTP_NULL, -EPROTO, AZS_ZMTP_FAULT_ZMTP); /* GET / */
    CHECK_GREETING("16", AZS_ZMTP_NULL, -EPROTO, AZS_ZMTP_FAULT_ZMTP); /* TLS */
    CHECK_GREETING("53", AZS_ZMTP_NULL, -EPROTO, AZS_ZMTP_FAULT_ZMTP); /* SSH */
}

TEST(greeting_mechanism_must_be_ours)
{
    enum { MISMATCH = AZS_ZMTP_FAULT_MECHANISM };
    CHECK_GREETING(SIGNATURE GREETING_PLAIN, AZS_ZMTP_NULL, -EPROTO, MISMATCH);
    CHECK_GREETING(SIGNATURE GREETING_NULL, AZS_ZMTP_CURVE, -EPROTO, MISMATCH);
    CHECK_GREETING(SIGNATURE "0301 6e756c6c", AZS_ZMTP_NULL, -EPROTO, MISMATCH);
    CHECK_GREETING(SIGNATURE "0301 4e", AZS_ZMTP_PLAIN, -EPROTO, MISMATCH);
    /* All 20 octets count. */
    CHECK_GREETING(SIGNATURE "0301 4e554c4c58", AZS_ZMTP_NULL, -EPROTO, MISMATCH);
    CHECK_GREETING(SIGNATURE "0301 4e554c4c 00*15 01", AZS_ZMTP_NULL, -EPROTO,
                   MISMATCH);
}
