/* PLAIN: HELLO with a name and a password, WELCOME, INITIATE, READY. RFC 24; its
 * names are length-prefixed as everywhere. */
#include "zmtp/handshake.h"

/* What comes next; sent where hs->sends. */
enum { HELLO, WELCOME, INITIATE, READY };

static int
plain_begin(azs_zmtp_handshake *hs)
{
    hs->step = HELLO;
    hs->sends = !hs->config->as_server;
    return 0;
}

static void
plain_accepted(azs_zmtp_handshake *hs)
{
    hs->step = WELCOME;
    hs->sends = true;
}

/* One of HELLO's two texts of at most 255 octets. */
static int
plain_text(const uint8_t **at, size_t *left, uint8_t *out, size_t *size)
{
    if (*left < 1 || (*at)[0] > *left - 1)
        return -EPROTO;
    *size = (*at)[0];
    azs_zmtp_copy(out, *at + 1, *size);
    *left -= 1 + *size;
    *at += 1 + *size;
    return 0;
}

static int
plain_receive_hello(azs_zmtp_handshake *hs, const azs_zmtp_command *command)
{
    const uint8_t *at = command->data;
    size_t left = command->size;
    if (plain_text(&at, &left, hs->credentials, &hs->username_size) < 0 ||
        plain_text(&at, &left, hs->credentials + hs->username_size,
                   &hs->password_size) < 0 ||
        left > 0)
        return azs_zmtp_handshake_fail(hs, AZS_ZMTP_FAULT_HELLO);
    hs->phase = AZS_ZMTP_DECIDE;
    /* Nobody decides: nobody may come in with a password that nobody has checked. */
    if (!hs->config->decides)
        azs_zmtp_handshake_decide(hs, 500);
    return 0;
}

static int
plain_receive(azs_zmtp_handshake *hs, const azs_zmtp_command *command,
              const azs_zmtp_frame *frame)
{
    (void)frame;
    bool as_server = hs->config->as_server;
    int err;
    if (as_server && hs->step == HELLO && command->kind == AZS_ZMTP_HELLO)
        return plain_receive_hello(hs, command);
    if (!as_server && hs->step == WELCOME && command->kind == AZS_ZMTP_WELCOME) {
        if (command->size > 0)
            return azs_zmtp_handshake_fail(hs, AZS_ZMTP_FAULT_WELCOME);
        hs->step = INITIATE;
        hs->sends = true;
        return 0;
    }
    if (as_server && hs->step == INITIATE && command->kind == AZS_ZMTP_INITIATE) {
        err = azs_zmtp_handshake_metadata(hs, command->data, command->size);
        hs->step = READY;
        hs->sends = err == 0;
        return err;
    }
    if (!as_server && hs->step == READY && command->kind == AZS_ZMTP_READY) {
        err = azs_zmtp_handshake_metadata(hs, command->data, command->size);
        if (err == 0)
            hs->phase = AZS_ZMTP_DONE;
        return err;
    }
    return azs_zmtp_handshake_fail(hs, AZS_ZMTP_FAULT_UNEXPECTED_COMMAND);
}

static size_t
plain_put_text(uint8_t *out, const uint8_t *text, size_t size)
{
    assert(size <= 255);
    out[0] = (uint8_t)size;
    azs_zmtp_copy(out + 1, text, size);
    return 1 + size;
}

static int
plain_send(azs_zmtp_handshake *hs, uint8_t *out)
{
    const azs_zmtp_config *config = hs->config;
    static const azs_zmtp_command_kind kinds[] = {
        [HELLO] = AZS_ZMTP_HELLO,
        [WELCOME] = AZS_ZMTP_WELCOME,
        [INITIATE] = AZS_ZMTP_INITIATE,
        [READY] = AZS_ZMTP_READY,
    };
    size_t n = azs_zmtp_command_put(out, kinds[hs->step]);
    if (hs->step == HELLO) {
        n += plain_put_text(out + n, config->username, config->username_size);
        n += plain_put_text(out + n, config->password, config->password_size);
    } else if (hs->step != WELCOME) {
        n += azs_zmtp_handshake_properties(hs, out + n);
    }
    hs->sends = false;
    if (hs->step == READY)
        hs->phase = AZS_ZMTP_DONE;
    else
        hs->step++;
    return (int)n;
}

const azs_zmtp_mechanism_ops azs_zmtp_plain_ops = {
    .begin = plain_begin,
    .receive = plain_receive,
    .accepted = plain_accepted,
    .send = plain_send,
};
