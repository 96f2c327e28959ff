#include "zmtp/greeting.h"

enum { MAJOR_AT = 10, MINOR_AT = 11, MECHANISM_AT = 12, AS_SERVER_AT = 32 };

static const char mechanism_names[][AZS_ZMTP_MECHANISM_SIZE] = {
    [AZS_ZMTP_NULL] = "NULL",
    [AZS_ZMTP_PLAIN] = "PLAIN",
    [AZS_ZMTP_CURVE] = "CURVE",
};

void
azs_zmtp_greeting_put(uint8_t out[AZS_ZMTP_GREETING_SIZE], azs_zmtp_mechanism mechanism,
                      bool as_server)
{
    memset(out, 0, AZS_ZMTP_GREETING_SIZE);
    out[0] = 0xff;
    out[9] = 0x7f;
    out[MAJOR_AT] = 3;
    out[MINOR_AT] = 1;
    memcpy(out + MECHANISM_AT, mechanism_names[mechanism], AZS_ZMTP_MECHANISM_SIZE);
    out[AS_SERVER_AT] = as_server;
}

/* Octets 1 to 8 may be anything: libzmq puts the length of its id there, for peers
 * that speak 1.0. Of octet 9 only the lowest bit counts. What follows the mechanism
 * is not looked at: libzmq sends no true as-server. */
int
azs_zmtp_greeting_check(const uint8_t *greeting, size_t size,
                        azs_zmtp_mechanism mechanism, azs_zmtp_fault *fault)
{
    assert(size <= AZS_ZMTP_GREETING_SIZE);
    *fault = AZS_ZMTP_FAULT_ZMTP;
    if (size > 0 && greeting[0] != 0xff)
        return -EPROTO;
    if (size > 9 && (greeting[9] & 1) == 0)
        return -EPROTO;
    if (size > MAJOR_AT && greeting[MAJOR_AT] < 3)
        return -EPROTO;
    if (size > MECHANISM_AT) {
        size_t have = size - MECHANISM_AT;
        if (have > AZS_ZMTP_MECHANISM_SIZE)
            have = AZS_ZMTP_MECHANISM_SIZE;
        *fault = AZS_ZMTP_FAULT_MECHANISM;
        if (memcmp(greeting + MECHANISM_AT, mechanism_names[mechanism], have) != 0)
            return -EPROTO;
    }
    *fault = AZS_ZMTP_NO_FAULT;
    return 0;
}

int
azs_zmtp_greeting_minor(const uint8_t greeting[AZS_ZMTP_GREETING_SIZE])
{
    return greeting[MAJOR_AT] > 3 || greeting[MINOR_AT] > 0;
}
