#include "zmtp/batch.h"

void
azs_zmtp_batch_init(azs_zmtp_batch *batch, uint8_t *memory, size_t size,
                    azs_zmtp_release_fn *release)
{
    assert(size >= AZS_ZMTP_REFERENCE_MIN + AZS_ZMTP_HEADER_MAX);
    batch->octets = batch->first = batch->end = 0;
    batch->memory = memory;
    batch->size = size;
    batch->used = 0;
    batch->release = release;
}

void
azs_zmtp_batch_clear(azs_zmtp_batch *batch)
{
    azs_zmtp_batch_sent(batch, batch->octets);
}

/* Memory for `n` octets; NULL where it, or the pieces, do not suffice. `pieces`: how
 * many more may be needed than one for the memory. */
static uint8_t *
memory_for(azs_zmtp_batch *batch, size_t n, unsigned pieces)
{
    if (n > batch->size - batch->used ||
        batch->end + 1 + pieces > AZS_ZMTP_BATCH_PIECES)
        return NULL;
    uint8_t *at = batch->memory + batch->used;
    unsigned last = batch->end - 1;
    if (batch->end > batch->first && batch->owners[last] == NULL) {
        /* Nothing but memory came since: what is added lies right behind it. */
        assert((uint8_t *)batch->pieces[last].iov_base + batch->pieces[last].iov_len ==
               at);
        batch->pieces[last].iov_len += n;
    } else {
        batch->pieces[batch->end] = (struct iovec){at, n};
        batch->owners[batch->end++] = NULL;
    }
    batch->used += n;
    batch->octets += n;
    return at;
}

int
azs_zmtp_batch_put(azs_zmtp_batch *batch, unsigned flags, const void *body, size_t size,
                   void *owner)
{
    if (azs_likely(size < AZS_ZMTP_REFERENCE_MIN || owner == NULL)) {
        uint8_t *at = azs_zmtp_batch_reserve(batch, flags, size);
        if (azs_unlikely(at == NULL))
            return -ENOBUFS;
        azs_zmtp_copy(at, body, size);
        return 0;
    }
    uint8_t *header = memory_for(batch, AZS_ZMTP_HEADER_MAX, 1);
    if (header == NULL)
        return -ENOBUFS;
    size_t header_size = azs_zmtp_header_put(header, flags, size);
    assert(header_size == AZS_ZMTP_HEADER_MAX);
    (void)header_size;
    batch->pieces[batch->end] = (struct iovec){(void *)body, size};
    batch->owners[batch->end++] = owner;
    batch->octets += size;
    return 1;
}

uint8_t *
azs_zmtp_batch_reserve(azs_zmtp_batch *batch, unsigned flags, size_t size)
{
    size_t header_size = size <= AZS_ZMTP_SHORT_MAX ? 2 : AZS_ZMTP_HEADER_MAX;
    if (size > batch->size) /* no overflow below */
        return NULL;
    uint8_t *at = memory_for(batch, header_size + size, 0);
    if (at == NULL)
        return NULL;
    return at + azs_zmtp_header_put(at, flags, size);
}

void
azs_zmtp_batch_sent(azs_zmtp_batch *batch, size_t n)
{
    assert(n <= batch->octets);
    batch->octets -= n;
    while (batch->first < batch->end) {
        struct iovec *piece = &batch->pieces[batch->first];
        if (n < piece->iov_len) {
            piece->iov_base = (uint8_t *)piece->iov_base + n;
            piece->iov_len -= n;
            return;
        }
        n -= piece->iov_len;
        void *owner = batch->owners[batch->first++];
        if (owner != NULL)
            batch->release(owner);
    }
    batch->first = batch->end = 0;
    batch->used = 0;
}
