/* CURVE's MESSAGE: frames sealed with the keys of one connection. RFC 25, 26.
 *
 * MORE and COMMAND are inside, COMMAND as 2. Outside, libzmq sends a plain frame, never
 * a command, and drops data that comes as one; others send commands, as RFC 37 has it.
 */
#ifndef AZS_ZMTP_CURVE_H
#define AZS_ZMTP_CURVE_H

#include "zmtp/crypto.h"
#include "zmtp/frame.h"

typedef struct {
    const azs_zmtp_crypto *crypto;
    uint8_t key[AZS_ZMTP_KEY_SIZE]; /* the precomputed one */
    uint64_t sent, received;        /* the last nonces; handshake's among them */
    bool as_server;
} azs_zmtp_curve;

/* By how much a sealed body is larger. */
enum { AZS_ZMTP_CURVE_OVERHEAD = 8 + 8 + AZS_ZMTP_MAC_SIZE + 1 };

/* Writes the body of a MESSAGE that carries `body`: size + OVERHEAD octets, to be
 * framed with no flags. 0; or -EPROTO where the nonces are used up. */
int azs_zmtp_curve_seal(azs_zmtp_curve *curve, unsigned flags, const uint8_t *body,
                        size_t size, uint8_t *out);

/* Opens a MESSAGE in place: `frame` becomes what it carries, within the same memory.
 * -EPROTO with *fault where it is none, replayed or forged. */
int azs_zmtp_curve_open(azs_zmtp_curve *curve, azs_zmtp_frame *frame,
                        azs_zmtp_fault *fault);

/* Wipes the key. */
void azs_zmtp_curve_clear(azs_zmtp_curve *curve);

/* A nonce of a 16-octet prefix and a counter. */
void azs_zmtp_nonce_put(uint8_t out[AZS_ZMTP_NONCE_SIZE], const char *prefix,
                        uint64_t counter);

#endif
