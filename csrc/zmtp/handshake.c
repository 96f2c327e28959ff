#include "zmtp/handshake.h"

#include <stdlib.h>

static const azs_zmtp_mechanism_ops *
ops_of(const azs_zmtp_handshake *hs)
{
    static const azs_zmtp_mechanism_ops *const ops[] = {
        [AZS_ZMTP_NULL] = &azs_zmtp_null_ops,
        [AZS_ZMTP_PLAIN] = &azs_zmtp_plain_ops,
        [AZS_ZMTP_CURVE] = &azs_zmtp_curve_ops,
    };
    return ops[hs->config->mechanism];
}

void
azs_zmtp_handshake_init(azs_zmtp_handshake *hs, const azs_zmtp_config *config)
{
    memset(hs, 0, sizeof(*hs));
    hs->config = config;
    hs->phase = AZS_ZMTP_GREETING;
    azs_zmtp_greeting_put(hs->greeting, config->mechanism,
                          config->mechanism != AZS_ZMTP_NULL && config->as_server);
}

void
azs_zmtp_handshake_clear(azs_zmtp_handshake *hs)
{
    azs_zmtp_peer_clear(&hs->peer);
    explicit_bzero(hs, sizeof(*hs));
}

int
azs_zmtp_handshake_fail(azs_zmtp_handshake *hs, azs_zmtp_fault fault)
{
    hs->fault = fault;
    return -EPROTO;
}

int
azs_zmtp_handshake_greet(azs_zmtp_handshake *hs, const uint8_t *data, size_t size)
{
    assert(hs->phase == AZS_ZMTP_GREETING);
    size_t n = AZS_ZMTP_GREETING_SIZE - hs->greeted;
    if (n > size)
        n = size;
    azs_zmtp_copy(hs->peer_greeting + hs->greeted, data, n);
    hs->greeted += (unsigned)n;
    int err = azs_zmtp_greeting_check(hs->peer_greeting, hs->greeted,
                                      hs->config->mechanism, &hs->fault);
    if (err < 0)
        return err;
    if (hs->greeted == AZS_ZMTP_GREETING_SIZE) {
        hs->peer.minor = azs_zmtp_greeting_minor(hs->peer_greeting);
        hs->phase = AZS_ZMTP_EXCHANGE;
        err = ops_of(hs)->begin(hs);
        if (err < 0)
            return err;
    }
    return (int)n;
}

/* Also in the form in which libzmq's PLAIN server sends it since 4.3.0: C++ reads
 * "\x05ERROR" as 5e "RROR". */
static bool
is_error(const azs_zmtp_frame *frame, azs_zmtp_command *command)
{
    if (command->kind == AZS_ZMTP_ERROR)
        return true;
    static const char other[] = "\x5eRROR";
    size_t n = sizeof(other) - 1;
    if (frame->size < n || memcmp(frame->body, other, n) != 0)
        return false;
    *command = (azs_zmtp_command){AZS_ZMTP_ERROR, frame->body + n, frame->size - n};
    return true;
}

static int
refused(azs_zmtp_handshake *hs, const azs_zmtp_command *command)
{
    uint8_t *reason;
    size_t size;
    if (azs_zmtp_error_parse(command, &reason, &size) < 0)
        return azs_zmtp_handshake_fail(hs, AZS_ZMTP_FAULT_ERROR);
    if (size == 3 && (reason[0] >= '3' && reason[0] <= '5') && reason[1] == '0' &&
        reason[2] == '0')
        hs->refusal = (reason[0] - '0') * 100;
    return -EACCES;
}

int
azs_zmtp_handshake_receive(azs_zmtp_handshake *hs, const azs_zmtp_frame *frame)
{
    assert(hs->phase == AZS_ZMTP_EXCHANGE || hs->phase == AZS_ZMTP_REFUSED);
    if (hs->phase == AZS_ZMTP_REFUSED || frame->flags & AZS_ZMTP_MORE)
        return azs_zmtp_handshake_fail(hs, AZS_ZMTP_FAULT_UNEXPECTED_COMMAND);
    /* Without COMMAND, too: libzmq takes such. */
    azs_zmtp_command command = {0};
    int err = azs_zmtp_command_parse(frame->body, frame->size, &command);
    if (is_error(frame, &command))
        return refused(hs, &command);
    if (err < 0)
        return azs_zmtp_handshake_fail(hs, AZS_ZMTP_FAULT_COMMAND);
    return ops_of(hs)->receive(hs, &command, frame);
}

void
azs_zmtp_handshake_decide(azs_zmtp_handshake *hs, int status)
{
    assert(hs->phase == AZS_ZMTP_DECIDE);
    if (status == 200) {
        hs->phase = AZS_ZMTP_EXCHANGE;
        ops_of(hs)->accepted(hs);
        return;
    }
    /* RFC 27: 300 is a temporary failure, of which the peer is told nothing. */
    hs->phase = AZS_ZMTP_REFUSED;
    hs->status = status;
    hs->sends = status != 300;
}

/* A PLAIN peer is told in the form that libzmq's client knows: see is_error(). */
static int
send_error(azs_zmtp_handshake *hs, uint8_t *out)
{
    size_t n = azs_zmtp_command_put(out, AZS_ZMTP_ERROR);
    if (hs->config->mechanism == AZS_ZMTP_PLAIN) {
        n = 5;
        memcpy(out, "\x5eRROR", n);
    }
    out[n] = 3;
    memcpy(out + n + 1, hs->status == 400 ? "400" : "500", 3);
    hs->sends = false;
    return (int)n + 4;
}

int
azs_zmtp_handshake_send(azs_zmtp_handshake *hs, uint8_t *out)
{
    if (!hs->sends)
        return 0;
    if (hs->phase == AZS_ZMTP_REFUSED)
        return send_error(hs, out);
    return ops_of(hs)->send(hs, out);
}

/* ---- metadata ---- */

int
azs_zmtp_handshake_metadata(azs_zmtp_handshake *hs, const uint8_t *data, size_t size)
{
    int err = azs_zmtp_peer_parse(&hs->peer, hs->config->type, data, size);
    if (err == -EPROTO)
        hs->fault = AZS_ZMTP_FAULT_METADATA;
    return err;
}

/* As libzmq has it: the id is told though it is empty. */
size_t
azs_zmtp_handshake_properties(const azs_zmtp_handshake *hs, uint8_t *out)
{
    const azs_zmtp_config *config = hs->config;
    const char *type = azs_zmtp_type_name(config->type);
    size_t n = azs_zmtp_property_put(out, "Socket-Type", type, strlen(type));
    if (azs_zmtp_type_has_identity(config->type))
        n += azs_zmtp_property_put(out + n, "Identity", config->identity,
                                   config->identity_size);
    azs_zmtp_copy(out + n, config->properties, config->properties_size);
    return n + config->properties_size;
}

/* Of the largest command: CURVE's INITIATE. */
size_t
azs_zmtp_handshake_room(const azs_zmtp_handshake *hs)
{
    return 1024 + hs->config->properties_size;
}

void
azs_zmtp_handshake_finish(azs_zmtp_handshake *hs, azs_zmtp_peer *peer,
                          azs_zmtp_curve *curve)
{
    assert(hs->phase == AZS_ZMTP_DONE);
    *peer = hs->peer;
    hs->peer.properties = NULL;
    *curve = hs->curve;
}
