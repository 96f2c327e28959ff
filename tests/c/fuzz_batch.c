/* csrc/zmtp/batch.h: whatever is put and however much is sent at a time, the octets are
 * those of the frames, one behind the other, and each owner is released once. */
#include "zmtp/batch.h"

#include "zmtp/decoder.h"

#include "fuzz.h"

const char *const fuzz_seeds[] = {
    "00 05 08 09 0a 0b c0 ff 0c 03 c0 01 c0 02 c0 80",
    "40 10 41 20 43 00 c0 05 c1 05 42 00",
    "0f ff 0e ff 0d ff 0c ff 0b ff 0a ff 80 ff 81 ff 82 ff c3 ff",
    NULL,
};

enum { MEMORY = 4096, BODY = 3000 };

static int held;
static uint8_t body[BODY];

static void
release(void *owner)
{
    CHECK(owner == &held);
    held--;
}

typedef struct {
    azs_zmtp_decoder decoder;
    uint8_t *room;
    size_t frames, octets;
} receiver;

/* Sends `n` octets to the decoder. */
static void
send_octets(azs_zmtp_batch *batch, receiver *to, size_t n)
{
    uint8_t *wire = malloc(n > 0 ? n : 1);
    size_t at = 0;
    for (unsigned i = batch->first; at < n; i++) {
        CHECK(i < batch->end);
        struct iovec piece = batch->pieces[i];
        size_t take = piece.iov_len < n - at ? piece.iov_len : n - at;
        azs_zmtp_copy(wire + at, piece.iov_base, take);
        at += take;
    }
    azs_zmtp_batch_sent(batch, n);
    azs_zmtp_decoder_feed(&to->decoder, wire, n);
    azs_zmtp_frame frame;
    int got;
    while ((got = azs_zmtp_decoder_next(&to->decoder, &frame)) > 0) {
        if (got == AZS_ZMTP_ROOM) {
            size_t wants = azs_zmtp_decoder_wants(&to->decoder);
            to->room = realloc(to->room, wants);
            azs_zmtp_decoder_give(&to->decoder, to->room, wants);
            continue;
        }
        CHECK(frame.size <= BODY && memcmp(frame.body, body, frame.size) == 0);
        to->frames++;
        to->octets += frame.size;
    }
    CHECK_INT(got, AZS_ZMTP_STARVED);
    free(wire);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_input in = {data, size};
    receiver to = {0};
    azs_zmtp_batch batch;
    uint8_t *memory = malloc(MEMORY);
    size_t frames = 0, octets = 0;
    held = 0;
    for (size_t i = 0; i < BODY; i++)
        body[i] = (uint8_t)(i * 31);
    azs_zmtp_decoder_init(&to.decoder, BODY);
    azs_zmtp_batch_init(&batch, memory, MEMORY, release);
    while (in.size > 0) {
        uint8_t op = fuzz_octet(&in);
        size_t n = fuzz_octet(&in) * (op & 8 ? 11u : 1u);
        unsigned flags = op & 1 ? AZS_ZMTP_MORE : op & 2 ? AZS_ZMTP_COMMAND : 0;
        if (op >> 6 == 3) {
            n = n << (op & 7);
            send_octets(&batch, &to, n < batch.octets ? n : batch.octets);
            continue;
        }
        if (op >> 6 == 2) {
            uint8_t *at = azs_zmtp_batch_reserve(&batch, flags, n);
            azs_zmtp_copy(at, body, at == NULL ? 0 : n);
            CHECK(at != NULL || batch.octets > 0);
            frames += at != NULL;
            octets += at != NULL ? n : 0;
            continue;
        }
        int put = azs_zmtp_batch_put(&batch, flags, body, n, op & 4 ? &held : NULL);
        held += put == 1;
        frames += put >= 0;
        octets += put >= 0 ? n : 0;
        CHECK(put >= 0 || batch.octets > 0);
    }
    send_octets(&batch, &to, batch.octets);
    CHECK_INT(held, 0);
    CHECK_INT(to.frames, frames);
    CHECK_INT(to.octets, octets);
    azs_zmtp_batch_put(&batch, 0, body, BODY, &held);
    held++;
    azs_zmtp_batch_clear(&batch);
    CHECK_INT(held, 0);
    azs_zmtp_decoder_clear(&to.decoder);
    free(to.room);
    free(memory);
    return 0;
}
