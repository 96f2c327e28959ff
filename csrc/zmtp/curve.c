#include "zmtp/curve.h"

#include "zmtp/command.h"

enum {
    NONCE_AT = 8,
    BOX_AT = NONCE_AT + 8,
    /* Inside the box. */
    INNER_MORE = 1,
    INNER_COMMAND = 2,
};

static const char *
message_prefix(bool from_server)
{
    return from_server ? "CurveZMQMESSAGES" : "CurveZMQMESSAGEC";
}

void
azs_zmtp_nonce_put(uint8_t out[AZS_ZMTP_NONCE_SIZE], const char *prefix,
                   uint64_t counter)
{
    assert(strlen(prefix) == 16);
    memcpy(out, prefix, 16);
    azs_zmtp_put_u64(out + 16, counter);
}

int
azs_zmtp_curve_seal(azs_zmtp_curve *curve, unsigned flags, const uint8_t *body,
                    size_t size, uint8_t *out)
{
    if (curve->sent == UINT64_MAX)
        return -EPROTO;
    size_t n = azs_zmtp_command_put(out, AZS_ZMTP_MESSAGE);
    assert(n == NONCE_AT);
    azs_zmtp_put_u64(out + n, ++curve->sent);
    uint8_t nonce[AZS_ZMTP_NONCE_SIZE];
    azs_zmtp_nonce_put(nonce, message_prefix(curve->as_server), curve->sent);
    /* Sealed in place: where the text in the box will be. */
    uint8_t *text = out + BOX_AT + AZS_ZMTP_MAC_SIZE;
    text[0] = (uint8_t)((flags & AZS_ZMTP_MORE ? INNER_MORE : 0) |
                        (flags & AZS_ZMTP_COMMAND ? INNER_COMMAND : 0));
    azs_zmtp_copy(text + 1, body, size);
    if (curve->crypto->box_afternm(out + BOX_AT, text, size + 1, nonce, curve->key) !=
        0)
        return -EPROTO;
    return 0;
}

int
azs_zmtp_curve_open(azs_zmtp_curve *curve, azs_zmtp_frame *frame, azs_zmtp_fault *fault)
{
    azs_zmtp_command command;
    *fault = AZS_ZMTP_FAULT_COMMAND;
    if (azs_zmtp_command_parse(frame->body, frame->size, &command) < 0)
        return -EPROTO;
    *fault = AZS_ZMTP_FAULT_UNEXPECTED_COMMAND;
    if (command.kind != AZS_ZMTP_MESSAGE)
        return -EPROTO;
    *fault = AZS_ZMTP_FAULT_MESSAGE;
    if (frame->size < AZS_ZMTP_CURVE_OVERHEAD)
        return -EPROTO;
    uint64_t counter = azs_zmtp_get_u64(frame->body + NONCE_AT);
    *fault = AZS_ZMTP_FAULT_SEQUENCE;
    if (counter <= curve->received)
        return -EPROTO;
    uint8_t nonce[AZS_ZMTP_NONCE_SIZE];
    azs_zmtp_nonce_put(nonce, message_prefix(!curve->as_server), counter);
    uint8_t *text = frame->body + BOX_AT + AZS_ZMTP_MAC_SIZE;
    *fault = AZS_ZMTP_FAULT_CRYPTOGRAPHIC;
    if (curve->crypto->box_open_afternm(text, frame->body + BOX_AT,
                                        frame->size - BOX_AT, nonce, curve->key) != 0)
        return -EPROTO;
    *fault = AZS_ZMTP_NO_FAULT;
    /* Only an authentic counter counts. */
    curve->received = counter;
    /* The outer flags are not: anybody on the way may have set them. libzmq sets none,
     * others COMMAND, as RFC 37 has it. */
    frame->flags = text[0] & INNER_COMMAND ? AZS_ZMTP_COMMAND
                   : text[0] & INNER_MORE  ? AZS_ZMTP_MORE
                                           : 0;
    frame->body = text + 1;
    frame->size -= AZS_ZMTP_CURVE_OVERHEAD;
    return 0;
}

void
azs_zmtp_curve_clear(azs_zmtp_curve *curve)
{
    if (curve->crypto != NULL)
        curve->crypto->memzero(curve->key, sizeof(curve->key));
}
