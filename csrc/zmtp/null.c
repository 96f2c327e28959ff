/* NULL: each side sends READY. RFC 37. */
#include "zmtp/handshake.h"

enum { READY_SENT = 1, READY_RECEIVED = 2 };

static void
null_step(azs_zmtp_handshake *hs, int done)
{
    hs->step |= done;
    if (hs->step == (READY_SENT | READY_RECEIVED))
        hs->phase = AZS_ZMTP_DONE;
}

static void
null_accepted(azs_zmtp_handshake *hs)
{
    hs->sends = true;
}

static int
null_begin(azs_zmtp_handshake *hs)
{
    if (hs->config->decides)
        hs->phase = AZS_ZMTP_DECIDE;
    else
        null_accepted(hs);
    return 0;
}

static int
null_receive(azs_zmtp_handshake *hs, const azs_zmtp_command *command,
             const azs_zmtp_frame *frame)
{
    (void)frame;
    if (command->kind != AZS_ZMTP_READY || hs->step & READY_RECEIVED)
        return azs_zmtp_handshake_fail(hs, AZS_ZMTP_FAULT_UNEXPECTED_COMMAND);
    int err = azs_zmtp_handshake_metadata(hs, command->data, command->size);
    if (err < 0)
        return err;
    null_step(hs, READY_RECEIVED);
    return 0;
}

static int
null_send(azs_zmtp_handshake *hs, uint8_t *out)
{
    size_t n = azs_zmtp_command_put(out, AZS_ZMTP_READY);
    n += azs_zmtp_handshake_properties(hs, out + n);
    hs->sends = false;
    null_step(hs, READY_SENT);
    return (int)n;
}

const azs_zmtp_mechanism_ops azs_zmtp_null_ops = {
    .begin = null_begin,
    .receive = null_receive,
    .accepted = null_accepted,
    .send = null_send,
};
