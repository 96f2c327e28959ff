/* Commands: a name of one length octet, then data; and subscriptions, which peers
 * below 3.1 send as messages. */
#ifndef AZS_ZMTP_COMMAND_H
#define AZS_ZMTP_COMMAND_H

#include "zmtp/frame.h"

typedef enum {
    AZS_ZMTP_UNKNOWN, /* to be ignored: RFC 37 leaves room for more */
    AZS_ZMTP_READY,
    AZS_ZMTP_ERROR,
    AZS_ZMTP_PING,
    AZS_ZMTP_PONG,
    AZS_ZMTP_SUBSCRIBE,
    AZS_ZMTP_CANCEL,
    AZS_ZMTP_HELLO,
    AZS_ZMTP_WELCOME,
    AZS_ZMTP_INITIATE,
    AZS_ZMTP_MESSAGE,
} azs_zmtp_command_kind;

typedef struct {
    azs_zmtp_command_kind kind;
    uint8_t *data; /* borrowed from the body: what follows the name */
    size_t size;
} azs_zmtp_command;

/* 0; or -EPROTO where the name does not fit in. */
int azs_zmtp_command_parse(uint8_t *body, size_t size, azs_zmtp_command *command);

/* Writes a name as a command's body begins with it; its size, at most 10. */
size_t azs_zmtp_command_put(uint8_t *out, azs_zmtp_command_kind kind);

/* ---- heartbeats ---- */

enum {
    AZS_ZMTP_CONTEXT_MAX = 16,
    AZS_ZMTP_PING_MAX = 5 + 2 + AZS_ZMTP_CONTEXT_MAX,
    /* libzmq multiplies a time to live by 100 in 16 bits (its issue 4226), so that
     * it must not be sent more tenths of seconds than these. */
    AZS_ZMTP_TTL_MAX = 655,
};

/* A PING's time to live in tenths of seconds, and its context to be sent back, cut
 * at 16 octets as libzmq does. 0, or -EPROTO. */
int azs_zmtp_ping_parse(const azs_zmtp_command *ping, uint16_t *ttl, uint8_t **context,
                        size_t *size);

/* Write the bodies; their size, at most AZS_ZMTP_PING_MAX. */
size_t azs_zmtp_ping_put(uint8_t *out, uint16_t ttl);
size_t azs_zmtp_pong_put(uint8_t *out, const uint8_t *context, size_t size);

/* ---- ERROR ---- */

/* The reason; 0, or -EPROTO. */
int azs_zmtp_error_parse(const azs_zmtp_command *error, uint8_t **reason, size_t *size);

/* ---- subscriptions ---- */

typedef struct {
    bool subscribe; /* or cancel */
    uint8_t *topic; /* borrowed from the body */
    size_t size;
} azs_zmtp_subscription;

/* Is the frame one, of whichever form? */
bool azs_zmtp_subscription_parse(const azs_zmtp_frame *frame,
                                 azs_zmtp_subscription *subscription);

/* What precedes the topic in the body of a frame to a peer of this minor version,
 * and the frame's flags: libzmq below 4.3 and others know no such commands. The
 * prefix's size, at most 10. */
size_t azs_zmtp_subscription_put(uint8_t *out, bool subscribe, int minor,
                                 unsigned *flags);

#endif
