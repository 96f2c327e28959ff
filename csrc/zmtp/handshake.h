/* A connection until both sides are ready: greeting, then NULL, PLAIN or CURVE.
 *
 *     azs_zmtp_handshake_init(&hs, &config);        send hs.greeting's 64 octets
 *     azs_zmtp_handshake_greet(&hs, data, n);       until hs.phase leaves GREETING
 *     azs_zmtp_handshake_receive(&hs, &frame);      for each frame while in EXCHANGE
 *     azs_zmtp_handshake_decide(&hs, status);       where hs.phase is DECIDE
 *     n = azs_zmtp_handshake_send(&hs, out, room);  after each of them, until it is 0
 *     azs_zmtp_handshake_finish(&hs, ...)           once hs.phase is DONE
 *
 * No message may be sent before DONE: libzmq takes it for a handshake's command. The
 * octets that come behind the last frame are traffic already.
 */
#ifndef AZS_ZMTP_HANDSHAKE_H
#define AZS_ZMTP_HANDSHAKE_H

#include "zmtp/command.h"
#include "zmtp/curve.h"
#include "zmtp/greeting.h"
#include "zmtp/metadata.h"

/* What we are. It outlives the handshakes that use it. */
typedef struct {
    azs_zmtp_mechanism mechanism;
    bool as_server;
    /* Somebody decides who gets in (RFC 27): of a PLAIN or CURVE server, or of either
     * side of NULL with a ZAP domain. A PLAIN server without lets nobody in. */
    bool decides;
    azs_zmtp_type type;
    const uint8_t *identity;   /* borrowed; sent where the type has one */
    size_t identity_size;      /* at most AZS_ZMTP_IDENTITY_MAX */
    const uint8_t *properties; /* borrowed: more for the peer, as written by
                                * azs_zmtp_property_put() */
    size_t properties_size;    /* at most AZS_ZMTP_PROPERTIES_MAX */

    /* PLAIN's client: at most 255 octets each. */
    const uint8_t *username, *password; /* borrowed */
    size_t username_size, password_size;

    /* CURVE. */
    const azs_zmtp_crypto *crypto; /* checked by azs_zmtp_crypto_check() */
    uint8_t public_key[AZS_ZMTP_KEY_SIZE], secret_key[AZS_ZMTP_KEY_SIZE];
    uint8_t server_key[AZS_ZMTP_KEY_SIZE]; /* a client's */
} azs_zmtp_config;

/* The whole INITIATE stays below AZS_ZMTP_HANDSHAKE_MAX. */
enum { AZS_ZMTP_PROPERTIES_MAX = AZS_ZMTP_HANDSHAKE_MAX - 1024 };

typedef enum {
    AZS_ZMTP_GREETING,
    AZS_ZMTP_EXCHANGE,
    AZS_ZMTP_DECIDE, /* the user is asked: read no frame before the answer */
    AZS_ZMTP_DONE,
    AZS_ZMTP_REFUSED, /* we have refused the peer: it is to close, having been told
                       * so or not */
} azs_zmtp_phase;

typedef struct {
    azs_zmtp_phase phase;
    /* Why receive() or greet() gave -EPROTO; and the three digits of the reason that
     * came with -EACCES, or 0. */
    azs_zmtp_fault fault;
    int refusal;

    /* To be sent first: AZS_ZMTP_GREETING_SIZE octets. */
    uint8_t greeting[AZS_ZMTP_GREETING_SIZE];

    /* What the user decides by; username and password in PLAIN, key in CURVE. Valid
     * until clear(). */
    uint8_t credentials[2 * 255];
    size_t username_size, password_size; /* the password follows the username */
    uint8_t client_key[AZS_ZMTP_KEY_SIZE];

    /* The rest is private. */
    const azs_zmtp_config *config; /* borrowed */
    azs_zmtp_peer peer;
    unsigned greeted;
    uint8_t peer_greeting[AZS_ZMTP_GREETING_SIZE];
    int step;   /* of the mechanism */
    int status; /* what was decided, where that is no */
    bool sends; /* the mechanism has a command to be sent */

    azs_zmtp_curve curve;
    uint8_t peer_key[AZS_ZMTP_KEY_SIZE]; /* C' or S' */
    uint8_t short_public[AZS_ZMTP_KEY_SIZE], short_secret[AZS_ZMTP_KEY_SIZE]; /* ours */
    uint8_t cookie_key[AZS_ZMTP_KEY_SIZE];
    uint8_t cookie[96];
} azs_zmtp_handshake;

void azs_zmtp_handshake_init(azs_zmtp_handshake *hs, const azs_zmtp_config *config);

/* Wipes keys and passwords, frees what is held. */
void azs_zmtp_handshake_clear(azs_zmtp_handshake *hs);

/* Takes octets of the peer's greeting: how many of them, the rest being frames; or
 * -EPROTO. */
int azs_zmtp_handshake_greet(azs_zmtp_handshake *hs, const uint8_t *data, size_t size);

/* Takes a frame, whose body may be changed. 0; -EPROTO; -EACCES where the peer
 * refuses us; -ENOMEM. */
int azs_zmtp_handshake_receive(azs_zmtp_handshake *hs, const azs_zmtp_frame *frame);

/* The user's answer: 200 yes, 300 not now, 400 no, 500 an error (RFC 27). */
void azs_zmtp_handshake_decide(azs_zmtp_handshake *hs, int status);

/* Writes the body of the next command to be sent: its size, 0 where there is none;
 * or -EPROTO. `out` has azs_zmtp_handshake_room() octets. */
int azs_zmtp_handshake_send(azs_zmtp_handshake *hs, uint8_t *out);
size_t azs_zmtp_handshake_room(const azs_zmtp_handshake *hs);

/* Once DONE: what is known of the peer, which becomes the caller's, and CURVE's keys
 * (curve->crypto is NULL for another mechanism). */
void azs_zmtp_handshake_finish(azs_zmtp_handshake *hs, azs_zmtp_peer *peer,
                               azs_zmtp_curve *curve);

/* ---- between handshake.c and the mechanisms ---- */

typedef struct {
    /* After the greeting. */
    int (*begin)(azs_zmtp_handshake *hs);
    int (*receive)(azs_zmtp_handshake *hs, const azs_zmtp_command *command,
                   const azs_zmtp_frame *frame);
    /* Was decided with yes. */
    void (*accepted)(azs_zmtp_handshake *hs);
    /* Only while hs->sends: its size, or -errno. */
    int (*send)(azs_zmtp_handshake *hs, uint8_t *out);
} azs_zmtp_mechanism_ops;

extern const azs_zmtp_mechanism_ops azs_zmtp_null_ops, azs_zmtp_plain_ops,
    azs_zmtp_curve_ops;

/* -EPROTO with this fault. */
int azs_zmtp_handshake_fail(azs_zmtp_handshake *hs, azs_zmtp_fault fault);

/* The peer's properties: 0, or -errno with the fault set. */
int azs_zmtp_handshake_metadata(azs_zmtp_handshake *hs, const uint8_t *data,
                                size_t size);

/* Writes our own; the size. */
size_t azs_zmtp_handshake_properties(const azs_zmtp_handshake *hs, uint8_t *out);

#endif
