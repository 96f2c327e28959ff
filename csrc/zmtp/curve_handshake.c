/* CURVE's HELLO, WELCOME, INITIATE, READY. RFC 25 and 26; the names of keys are
 * theirs: C and S are the permanent keys of client and server, C' and S' those of the
 * connection. hs->short_public and hs->short_secret are our C' or S', hs->peer_key is
 * the other's. */
#include "zmtp/handshake.h"

enum {
    KEY = AZS_ZMTP_KEY_SIZE,
    MAC = AZS_ZMTP_MAC_SIZE,
    ZEROS = 64, /* what HELLO's box holds */

    HELLO_SIZE = 200,
    HELLO_KEY_AT = 80,
    HELLO_NONCE_AT = 112,
    HELLO_BOX_AT = 120,

    WELCOME_SIZE = 168,
    WELCOME_NONCE_AT = 8,
    WELCOME_BOX_AT = 24,

    COOKIE_SIZE = 96,
    COOKIE_BOX_AT = 16,

    INITIATE_COOKIE_AT = 9,
    INITIATE_NONCE_AT = 105,
    INITIATE_BOX_AT = 113,
    /* In its box: C, the vouch's nonce and box, properties. */
    VOUCH_NONCE_AT = 32,
    VOUCH_BOX_AT = 48,
    VOUCH_BOX_SIZE = 2 * KEY + MAC,
    VOUCH_END = VOUCH_BOX_AT + VOUCH_BOX_SIZE,
    INITIATE_MIN = INITIATE_BOX_AT + MAC + VOUCH_END,

    READY_NONCE_AT = 6,
    READY_BOX_AT = 14,
    READY_MIN = READY_BOX_AT + MAC,
};

/* What comes next; sent where hs->sends. */
enum { HELLO, WELCOME, INITIATE, READY };

static inline const azs_zmtp_crypto *
crypto_of(const azs_zmtp_handshake *hs)
{
    return hs->config->crypto;
}

static int
curve_fail(azs_zmtp_handshake *hs)
{
    return azs_zmtp_handshake_fail(hs, AZS_ZMTP_FAULT_CRYPTOGRAPHIC);
}

/* A nonce of a prefix of 8 octets and 16 that are told. */
static void
long_nonce(uint8_t out[AZS_ZMTP_NONCE_SIZE], const char *prefix, const uint8_t *rest)
{
    assert(strlen(prefix) == 8);
    memcpy(out, prefix, 8);
    memcpy(out + 8, rest, 16);
}

static int
curve_begin(azs_zmtp_handshake *hs)
{
    hs->step = HELLO;
    hs->sends = !hs->config->as_server;
    hs->curve = (azs_zmtp_curve){
        .crypto = crypto_of(hs),
        .as_server = hs->config->as_server,
    };
    if (crypto_of(hs)->keypair(hs->short_public, hs->short_secret) != 0)
        return curve_fail(hs);
    return 0;
}

/* ---- HELLO ---- */

static int
send_hello(azs_zmtp_handshake *hs, uint8_t *out)
{
    memset(out, 0, HELLO_SIZE);
    size_t n = azs_zmtp_command_put(out, AZS_ZMTP_HELLO);
    out[n] = 1; /* version 1.0 */
    memcpy(out + HELLO_KEY_AT, hs->short_public, KEY);
    azs_zmtp_put_u64(out + HELLO_NONCE_AT, ++hs->curve.sent);
    uint8_t nonce[AZS_ZMTP_NONCE_SIZE];
    azs_zmtp_nonce_put(nonce, "CurveZMQHELLO---", hs->curve.sent);
    static const uint8_t zeros[ZEROS];
    if (crypto_of(hs)->box(out + HELLO_BOX_AT, zeros, ZEROS, nonce,
                           hs->config->server_key, hs->short_secret) != 0)
        return curve_fail(hs);
    return HELLO_SIZE;
}

static int
receive_hello(azs_zmtp_handshake *hs, const uint8_t *body, size_t size)
{
    if (size != HELLO_SIZE || body[6] != 1 || body[7] != 0)
        return azs_zmtp_handshake_fail(hs, AZS_ZMTP_FAULT_HELLO);
    memcpy(hs->peer_key, body + HELLO_KEY_AT, KEY);
    uint8_t nonce[AZS_ZMTP_NONCE_SIZE], zeros[ZEROS];
    azs_zmtp_nonce_put(nonce, "CurveZMQHELLO---",
                       azs_zmtp_get_u64(body + HELLO_NONCE_AT));
    if (crypto_of(hs)->box_open(zeros, body + HELLO_BOX_AT, ZEROS + MAC, nonce,
                                hs->peer_key, hs->config->secret_key) != 0)
        return curve_fail(hs);
    return 0;
}

/* ---- WELCOME ---- */

/* The cookie is real, though what is in it is kept here, too: a peer cannot tell. */
static int
make_cookie(azs_zmtp_handshake *hs)
{
    const azs_zmtp_crypto *crypto = crypto_of(hs);
    uint8_t text[2 * KEY], nonce[AZS_ZMTP_NONCE_SIZE];
    crypto->random(hs->cookie_key, KEY);
    crypto->random(hs->cookie, COOKIE_BOX_AT);
    memcpy(text, hs->peer_key, KEY);
    memcpy(text + KEY, hs->short_secret, KEY);
    long_nonce(nonce, "COOKIE--", hs->cookie);
    int err = crypto->secretbox(hs->cookie + COOKIE_BOX_AT, text, sizeof(text), nonce,
                                hs->cookie_key);
    crypto->memzero(text, sizeof(text));
    return err == 0 ? 0 : curve_fail(hs);
}

static int
send_welcome(azs_zmtp_handshake *hs, uint8_t *out)
{
    if (make_cookie(hs) < 0)
        return -EPROTO;
    azs_zmtp_command_put(out, AZS_ZMTP_WELCOME);
    crypto_of(hs)->random(out + WELCOME_NONCE_AT, 16);
    uint8_t nonce[AZS_ZMTP_NONCE_SIZE], text[KEY + COOKIE_SIZE];
    long_nonce(nonce, "WELCOME-", out + WELCOME_NONCE_AT);
    memcpy(text, hs->short_public, KEY);
    memcpy(text + KEY, hs->cookie, COOKIE_SIZE);
    if (crypto_of(hs)->box(out + WELCOME_BOX_AT, text, sizeof(text), nonce,
                           hs->peer_key, hs->config->secret_key) != 0)
        return curve_fail(hs);
    return WELCOME_SIZE;
}

static int
receive_welcome(azs_zmtp_handshake *hs, const uint8_t *body, size_t size)
{
    if (size != WELCOME_SIZE)
        return azs_zmtp_handshake_fail(hs, AZS_ZMTP_FAULT_WELCOME);
    uint8_t nonce[AZS_ZMTP_NONCE_SIZE], text[KEY + COOKIE_SIZE];
    long_nonce(nonce, "WELCOME-", body + WELCOME_NONCE_AT);
    if (crypto_of(hs)->box_open(text, body + WELCOME_BOX_AT, sizeof(text) + MAC, nonce,
                                hs->config->server_key, hs->short_secret) != 0)
        return curve_fail(hs);
    memcpy(hs->peer_key, text, KEY);
    memcpy(hs->cookie, text + KEY, COOKIE_SIZE);
    if (crypto_of(hs)->beforenm(hs->curve.key, hs->peer_key, hs->short_secret) != 0)
        return curve_fail(hs);
    return 0;
}

/* ---- INITIATE ---- */

static int
send_initiate(azs_zmtp_handshake *hs, uint8_t *out)
{
    const azs_zmtp_crypto *crypto = crypto_of(hs);
    azs_zmtp_command_put(out, AZS_ZMTP_INITIATE);
    memcpy(out + INITIATE_COOKIE_AT, hs->cookie, COOKIE_SIZE);
    azs_zmtp_put_u64(out + INITIATE_NONCE_AT, ++hs->curve.sent);
    /* Sealed in place: where the text in the box will be. */
    uint8_t *box = out + INITIATE_BOX_AT, *text = box + MAC;
    memcpy(text, hs->config->public_key, KEY);
    crypto->random(text + VOUCH_NONCE_AT, 16);
    uint8_t nonce[AZS_ZMTP_NONCE_SIZE], vouch[2 * KEY];
    long_nonce(nonce, "VOUCH---", text + VOUCH_NONCE_AT);
    memcpy(vouch, hs->short_public, KEY);
    memcpy(vouch + KEY, hs->config->server_key, KEY);
    if (crypto->box(text + VOUCH_BOX_AT, vouch, sizeof(vouch), nonce, hs->peer_key,
                    hs->config->secret_key) != 0)
        return curve_fail(hs);
    size_t n = VOUCH_END + azs_zmtp_handshake_properties(hs, text + VOUCH_END);
    azs_zmtp_nonce_put(nonce, "CurveZMQINITIATE", hs->curve.sent);
    if (crypto->box_afternm(box, text, n, nonce, hs->curve.key) != 0)
        return curve_fail(hs);
    return (int)(INITIATE_BOX_AT + MAC + n);
}

/* Is it the cookie that this connection has got? */
static bool
cookie_is_ours(azs_zmtp_handshake *hs, const uint8_t *cookie)
{
    const azs_zmtp_crypto *crypto = crypto_of(hs);
    uint8_t nonce[AZS_ZMTP_NONCE_SIZE], text[2 * KEY];
    long_nonce(nonce, "COOKIE--", cookie);
    bool ours = crypto->secretbox_open(text, cookie + COOKIE_BOX_AT, sizeof(text) + MAC,
                                       nonce, hs->cookie_key) == 0 &&
                crypto->memcmp(text, hs->peer_key, KEY) == 0 &&
                crypto->memcmp(text + KEY, hs->short_secret, KEY) == 0;
    crypto->memzero(text, sizeof(text));
    return ours;
}

static int
receive_initiate(azs_zmtp_handshake *hs, uint8_t *body, size_t size)
{
    const azs_zmtp_crypto *crypto = crypto_of(hs);
    if (size < INITIATE_MIN)
        return azs_zmtp_handshake_fail(hs, AZS_ZMTP_FAULT_INITIATE);
    if (!cookie_is_ours(hs, body + INITIATE_COOKIE_AT) ||
        crypto->beforenm(hs->curve.key, hs->peer_key, hs->short_secret) != 0)
        return curve_fail(hs);
    uint8_t nonce[AZS_ZMTP_NONCE_SIZE];
    hs->curve.received = azs_zmtp_get_u64(body + INITIATE_NONCE_AT);
    azs_zmtp_nonce_put(nonce, "CurveZMQINITIATE", hs->curve.received);
    uint8_t *text = body + INITIATE_BOX_AT + MAC;
    if (crypto->box_open_afternm(text, body + INITIATE_BOX_AT, size - INITIATE_BOX_AT,
                                 nonce, hs->curve.key) != 0)
        return curve_fail(hs);
    memcpy(hs->client_key, text, KEY);
    uint8_t vouch[2 * KEY];
    long_nonce(nonce, "VOUCH---", text + VOUCH_NONCE_AT);
    if (crypto->box_open(vouch, text + VOUCH_BOX_AT, VOUCH_BOX_SIZE, nonce,
                         hs->client_key, hs->short_secret) != 0)
        return curve_fail(hs);
    /* The second half is what libzmq does not look at: without it, a server that the
     * client also talks to could use the vouch here. */
    if (crypto->memcmp(vouch, hs->peer_key, KEY) != 0 ||
        crypto->memcmp(vouch + KEY, hs->config->public_key, KEY) != 0)
        return azs_zmtp_handshake_fail(hs, AZS_ZMTP_FAULT_KEY_EXCHANGE);
    return azs_zmtp_handshake_metadata(hs, text + VOUCH_END,
                                       size - INITIATE_BOX_AT - MAC - VOUCH_END);
}

/* ---- READY ---- */

static int
send_ready(azs_zmtp_handshake *hs, uint8_t *out)
{
    azs_zmtp_command_put(out, AZS_ZMTP_READY);
    azs_zmtp_put_u64(out + READY_NONCE_AT, ++hs->curve.sent);
    uint8_t nonce[AZS_ZMTP_NONCE_SIZE], *text = out + READY_BOX_AT + MAC;
    azs_zmtp_nonce_put(nonce, "CurveZMQREADY---", hs->curve.sent);
    size_t n = azs_zmtp_handshake_properties(hs, text);
    if (crypto_of(hs)->box_afternm(out + READY_BOX_AT, text, n, nonce, hs->curve.key) !=
        0)
        return curve_fail(hs);
    return (int)(READY_BOX_AT + MAC + n);
}

static int
receive_ready(azs_zmtp_handshake *hs, uint8_t *body, size_t size)
{
    if (size < READY_MIN)
        return azs_zmtp_handshake_fail(hs, AZS_ZMTP_FAULT_READY);
    uint8_t nonce[AZS_ZMTP_NONCE_SIZE], *text = body + READY_BOX_AT + MAC;
    hs->curve.received = azs_zmtp_get_u64(body + READY_NONCE_AT);
    azs_zmtp_nonce_put(nonce, "CurveZMQREADY---", hs->curve.received);
    if (crypto_of(hs)->box_open_afternm(text, body + READY_BOX_AT, size - READY_BOX_AT,
                                        nonce, hs->curve.key) != 0)
        return curve_fail(hs);
    return azs_zmtp_handshake_metadata(hs, text, size - READY_MIN);
}

/* ---- the order of them ---- */

static void
curve_accepted(azs_zmtp_handshake *hs)
{
    hs->step = READY;
    hs->sends = true;
}

static int
curve_receive(azs_zmtp_handshake *hs, const azs_zmtp_command *command,
              const azs_zmtp_frame *frame)
{
    bool as_server = hs->config->as_server;
    azs_zmtp_command_kind kind = command->kind;
    uint8_t *body = frame->body;
    int err;
    if (as_server && hs->step == HELLO && kind == AZS_ZMTP_HELLO) {
        err = receive_hello(hs, body, frame->size);
        hs->step = WELCOME;
        hs->sends = err == 0;
        return err;
    }
    if (!as_server && hs->step == WELCOME && kind == AZS_ZMTP_WELCOME) {
        err = receive_welcome(hs, body, frame->size);
        hs->step = INITIATE;
        hs->sends = err == 0;
        return err;
    }
    if (as_server && hs->step == INITIATE && kind == AZS_ZMTP_INITIATE) {
        err = receive_initiate(hs, body, frame->size);
        if (err < 0)
            return err;
        if (hs->config->decides)
            hs->phase = AZS_ZMTP_DECIDE;
        else
            curve_accepted(hs);
        return 0;
    }
    if (!as_server && hs->step == READY && kind == AZS_ZMTP_READY) {
        err = receive_ready(hs, body, frame->size);
        if (err == 0)
            hs->phase = AZS_ZMTP_DONE;
        return err;
    }
    return azs_zmtp_handshake_fail(hs, AZS_ZMTP_FAULT_UNEXPECTED_COMMAND);
}

static int
curve_send(azs_zmtp_handshake *hs, uint8_t *out)
{
    static int (*const senders[])(azs_zmtp_handshake *, uint8_t *) = {
        [HELLO] = send_hello,
        [WELCOME] = send_welcome,
        [INITIATE] = send_initiate,
        [READY] = send_ready,
    };
    int n = senders[hs->step](hs, out);
    if (n < 0)
        return n;
    hs->sends = false;
    if (hs->step == READY)
        hs->phase = AZS_ZMTP_DONE;
    else
        hs->step++;
    return n;
}

const azs_zmtp_mechanism_ops azs_zmtp_curve_ops = {
    .begin = curve_begin,
    .receive = curve_receive,
    .accepted = curve_accepted,
    .send = curve_send,
};
