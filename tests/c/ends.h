/* One end of a connection, without a socket: what the engine does with csrc/zmtp. */
#ifndef AZS_TESTS_ENDS_H
#define AZS_TESTS_ENDS_H

#include "zmtp/decoder.h"
#include "zmtp/handshake.h"

#include "hex.h"

typedef struct {
    azs_zmtp_config config;
    azs_zmtp_handshake hs;
    azs_zmtp_decoder decoder;
    uint8_t *room; /* of a large frame under way */
    int decision;  /* what the user says: 200, or another status */
    int error;     /* the first one */

    uint8_t *out; /* to be sent to the other end */
    size_t out_size;
    uint8_t *traffic; /* what came behind the handshake */
    size_t traffic_size;
} end;

/* With its greeting, and nothing else, to be sent. */
void end_start(end *e);
void end_clear(end *e);

/* Octets have come, in one read; an end that has failed takes none. */
void end_receive(end *e, const uint8_t *data, size_t size);

/* Both ends' octets to the other until there are no more, `piece` at a time. */
void ends_talk(end *a, end *b, size_t piece);

/* libsodium's functions; NULL where there is none. From the file that is named in
 * AZS_TEST_LIBSODIUM, else the system's. */
const azs_zmtp_crypto *libsodium(void);

#endif
