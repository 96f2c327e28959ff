/* The 64 octets with which each side begins. */
#ifndef AZS_ZMTP_GREETING_H
#define AZS_ZMTP_GREETING_H

#include "zmtp/wire.h"

enum { AZS_ZMTP_GREETING_SIZE = 64, AZS_ZMTP_MECHANISM_SIZE = 20 };

typedef enum {
    AZS_ZMTP_NULL,
    AZS_ZMTP_PLAIN,
    AZS_ZMTP_CURVE,
} azs_zmtp_mechanism;

/* Writes the greeting of a 3.1 peer. */
void azs_zmtp_greeting_put(uint8_t out[AZS_ZMTP_GREETING_SIZE],
                           azs_zmtp_mechanism mechanism, bool as_server);

/* Checks the first `size` octets of the peer's greeting, at most 64, as soon as they
 * are there, so that an HTTP client is turned away at its first octet. 0 where they
 * can be a greeting with this mechanism; -EPROTO with *fault. 1.0 and 2.0 peers are
 * refused: with those, what a port scanner sends would become messages. */
int azs_zmtp_greeting_check(const uint8_t *greeting, size_t size,
                            azs_zmtp_mechanism mechanism, azs_zmtp_fault *fault);

/* The minor version of a whole greeting: 0, or 1 for 3.1 and whatever is later. */
int azs_zmtp_greeting_minor(const uint8_t greeting[AZS_ZMTP_GREETING_SIZE]);

#endif
