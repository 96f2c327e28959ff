#include "zmtp/command.h"

#define NAME(name)                                                                     \
    {                                                                                  \
        name, sizeof(name) - 1                                                         \
    }

static const struct {
    const char *octets;
    uint8_t size;
} names[] = {
    [AZS_ZMTP_UNKNOWN] = NAME(""),        [AZS_ZMTP_READY] = NAME("READY"),
    [AZS_ZMTP_ERROR] = NAME("ERROR"),     [AZS_ZMTP_PING] = NAME("PING"),
    [AZS_ZMTP_PONG] = NAME("PONG"),       [AZS_ZMTP_SUBSCRIBE] = NAME("SUBSCRIBE"),
    [AZS_ZMTP_CANCEL] = NAME("CANCEL"),   [AZS_ZMTP_HELLO] = NAME("HELLO"),
    [AZS_ZMTP_WELCOME] = NAME("WELCOME"), [AZS_ZMTP_INITIATE] = NAME("INITIATE"),
    [AZS_ZMTP_MESSAGE] = NAME("MESSAGE"),
};

int
azs_zmtp_command_parse(uint8_t *body, size_t size, azs_zmtp_command *command)
{
    if (size < 1 || body[0] > size - 1)
        return -EPROTO;
    size_t name_size = body[0];
    *command = (azs_zmtp_command){
        AZS_ZMTP_UNKNOWN,
        body + 1 + name_size,
        size - 1 - name_size,
    };
    for (size_t kind = AZS_ZMTP_READY; kind < AZS_ARRAY_LEN(names); kind++) {
        if (names[kind].size == name_size &&
            memcmp(names[kind].octets, body + 1, name_size) == 0) {
            command->kind = (azs_zmtp_command_kind)kind;
            break;
        }
    }
    return 0;
}

size_t
azs_zmtp_command_put(uint8_t *out, azs_zmtp_command_kind kind)
{
    out[0] = names[kind].size;
    memcpy(out + 1, names[kind].octets, names[kind].size);
    return (size_t)1 + names[kind].size;
}

int
azs_zmtp_ping_parse(const azs_zmtp_command *ping, uint16_t *ttl, uint8_t **context,
                    size_t *size)
{
    if (ping->size < 2)
        return -EPROTO;
    *ttl = azs_zmtp_get_u16(ping->data);
    *context = ping->data + 2;
    *size = ping->size - 2;
    if (*size > AZS_ZMTP_CONTEXT_MAX)
        *size = AZS_ZMTP_CONTEXT_MAX;
    return 0;
}

size_t
azs_zmtp_ping_put(uint8_t *out, uint16_t ttl)
{
    assert(ttl <= AZS_ZMTP_TTL_MAX);
    size_t n = azs_zmtp_command_put(out, AZS_ZMTP_PING);
    azs_zmtp_put_u16(out + n, ttl);
    return n + 2;
}

size_t
azs_zmtp_pong_put(uint8_t *out, const uint8_t *context, size_t size)
{
    assert(size <= AZS_ZMTP_CONTEXT_MAX);
    size_t n = azs_zmtp_command_put(out, AZS_ZMTP_PONG);
    azs_zmtp_copy(out + n, context, size);
    return n + size;
}

int
azs_zmtp_error_parse(const azs_zmtp_command *error, uint8_t **reason, size_t *size)
{
    if (error->size < 1 || error->data[0] != error->size - 1)
        return -EPROTO;
    *reason = error->data + 1;
    *size = error->size - 1;
    return 0;
}

bool
azs_zmtp_subscription_parse(const azs_zmtp_frame *frame,
                            azs_zmtp_subscription *subscription)
{
    if (frame->flags & AZS_ZMTP_COMMAND) {
        azs_zmtp_command command;
        if (azs_zmtp_command_parse(frame->body, frame->size, &command) < 0)
            return false;
        subscription->subscribe = command.kind == AZS_ZMTP_SUBSCRIBE;
        if (!subscription->subscribe && command.kind != AZS_ZMTP_CANCEL)
            return false;
        subscription->topic = command.data;
        subscription->size = command.size;
        return true;
    }
    if (frame->size < 1 || frame->body[0] > 1)
        return false;
    subscription->subscribe = frame->body[0] == 1;
    subscription->topic = frame->body + 1;
    subscription->size = frame->size - 1;
    return true;
}

size_t
azs_zmtp_subscription_put(uint8_t *out, bool subscribe, int minor, unsigned *flags)
{
    if (minor > 0) {
        *flags = AZS_ZMTP_COMMAND;
        return azs_zmtp_command_put(out,
                                    subscribe ? AZS_ZMTP_SUBSCRIBE : AZS_ZMTP_CANCEL);
    }
    *flags = 0;
    out[0] = subscribe;
    return 1;
}
