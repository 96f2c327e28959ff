#include "ends.h"

#include <dlfcn.h>

static void
append(uint8_t **to, size_t *to_size, const uint8_t *data, size_t size)
{
    if (size == 0)
        return;
    *to = realloc(*to, *to_size + size);
    memcpy(*to + *to_size, data, size);
    *to_size += size;
}

void
end_start(end *e)
{
    azs_zmtp_handshake_init(&e->hs, &e->config);
    azs_zmtp_decoder_init(&e->decoder, AZS_ZMTP_HANDSHAKE_MAX);
    append(&e->out, &e->out_size, e->hs.greeting, AZS_ZMTP_GREETING_SIZE);
}

void
end_clear(end *e)
{
    azs_zmtp_handshake_clear(&e->hs);
    azs_zmtp_decoder_clear(&e->decoder);
    free(e->out);
    free(e->traffic);
    free(e->room);
    e->out = e->traffic = e->room = NULL;
    e->out_size = e->traffic_size = 0;
    e->error = 0;
}

/* Whatever the handshake has to say. */
static int
send_commands(end *e)
{
    for (;;) {
        size_t room = azs_zmtp_handshake_room(&e->hs);
        uint8_t *body = malloc(room), header[AZS_ZMTP_HEADER_MAX];
        int n = azs_zmtp_handshake_send(&e->hs, body);
        if (n > 0) {
            CHECK((size_t)n <= room && n <= AZS_ZMTP_HANDSHAKE_MAX);
            append(&e->out, &e->out_size, header,
                   azs_zmtp_header_put(header, AZS_ZMTP_COMMAND, (size_t)n));
            append(&e->out, &e->out_size, body, (size_t)n);
        }
        free(body);
        if (n <= 0)
            return n;
    }
}

static int
receive_frames(end *e)
{
    azs_zmtp_frame frame;
    int got = 0;
    while (e->hs.phase == AZS_ZMTP_EXCHANGE || e->hs.phase == AZS_ZMTP_REFUSED) {
        got = azs_zmtp_decoder_next(&e->decoder, &frame);
        if (got <= 0)
            break;
        if (got == AZS_ZMTP_ROOM) {
            size_t wants = azs_zmtp_decoder_wants(&e->decoder);
            e->room = realloc(e->room, wants);
            azs_zmtp_decoder_give(&e->decoder, e->room, wants);
            continue;
        }
        /* Of its own size, so that what is read or written beyond is seen. */
        uint8_t *body = copy_of(frame.body, frame.size);
        frame.body = body;
        got = azs_zmtp_handshake_receive(&e->hs, &frame);
        free(body);
        if (e->hs.phase == AZS_ZMTP_DECIDE)
            azs_zmtp_handshake_decide(&e->hs, e->decision);
        if (got == 0)
            got = send_commands(e);
        if (got < 0)
            break;
    }
    return got < 0 ? got : 0;
}

void
end_receive(end *e, const uint8_t *data, size_t size)
{
    if (e->error < 0)
        return;
    while (size > 0 && e->hs.phase == AZS_ZMTP_GREETING) {
        int n = azs_zmtp_handshake_greet(&e->hs, data, size);
        if (n < 0) {
            e->error = n;
            return;
        }
        data += n;
        size -= (size_t)n;
        if (e->hs.phase == AZS_ZMTP_DECIDE)
            azs_zmtp_handshake_decide(&e->hs, e->decision);
        e->error = send_commands(e);
    }
    if (e->error == 0 && e->hs.phase != AZS_ZMTP_DONE) {
        uint8_t *copy = copy_of(data, size);
        azs_zmtp_decoder_feed(&e->decoder, copy, size);
        e->error = receive_frames(e);
        if (e->hs.phase == AZS_ZMTP_DONE)
            append(&e->traffic, &e->traffic_size, e->decoder.feed,
                   e->decoder.feed_size);
        e->decoder.feed_size = 0;
        free(copy);
    } else if (e->error == 0) {
        append(&e->traffic, &e->traffic_size, data, size);
    }
}

static bool
talk(end *from, end *to, size_t piece)
{
    if (from->out_size == 0)
        return false;
    uint8_t *out = from->out;
    size_t size = from->out_size;
    from->out = NULL;
    from->out_size = 0;
    for (size_t at = 0; at < size; at += piece)
        end_receive(to, out + at, size - at < piece ? size - at : piece);
    free(out);
    return true;
}

void
ends_talk(end *a, end *b, size_t piece)
{
    bool more;
    do {
        more = talk(a, b, piece);
        more = talk(b, a, piece) || more;
    } while (more);
}

const azs_zmtp_crypto *
libsodium(void)
{
    static azs_zmtp_crypto crypto;
    if (crypto.init != NULL)
        return &crypto;
    const char *const names[] = {getenv("AZS_TEST_LIBSODIUM"), "libsodium.so.26",
                                 "libsodium.so.23"};
    void *image = NULL;
    for (size_t i = 0; i < AZS_ARRAY_LEN(names) && image == NULL; i++)
        image = names[i] == NULL ? NULL : dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
    if (image == NULL)
        return NULL;
    void *symbol;
#define X(field, name, result, args)                                                   \
    symbol = dlsym(image, name);                                                       \
    CHECK(symbol != NULL);                                                             \
    memcpy(&crypto.field, &symbol, sizeof(symbol));
    AZS_ZMTP_CRYPTO_FUNCTIONS(X)
#undef X
    CHECK_INT(azs_zmtp_crypto_check(&crypto), 0);
    return &crypto;
}
