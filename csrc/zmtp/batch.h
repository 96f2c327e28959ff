/* Frames in, an iovec for one sendmsg(2) out.
 *
 * Headers and small bodies are copied one behind the other into the batch's memory,
 * so that hundreds of messages leave as one piece. A body of AZS_ZMTP_REFERENCE_MIN
 * and more is sent from where it lies, and its owner held until it is gone.
 *
 * One batch serves all peers of a loop, as long as the kernel takes everything. Where
 * it does not, the batch stays with the peer until it is empty.
 */
#ifndef AZS_ZMTP_BATCH_H
#define AZS_ZMTP_BATCH_H

#include <sys/uio.h>

#include "zmtp/frame.h"

enum {
    AZS_ZMTP_REFERENCE_MIN = 2048,
    AZS_ZMTP_BATCH_PIECES = 64,
};

typedef void azs_zmtp_release_fn(void *owner);

typedef struct {
    size_t octets; /* to be sent yet */
    unsigned first, end;
    struct iovec pieces[AZS_ZMTP_BATCH_PIECES]; /* first to end are to be sent */
    void *owners[AZS_ZMTP_BATCH_PIECES];        /* held; NULL: of a piece of memory */

    uint8_t *memory; /* owned by the caller */
    size_t size, used;
    azs_zmtp_release_fn *release;
} azs_zmtp_batch;

/* `memory`: what small frames are copied to, at least REFERENCE_MIN + HEADER_MAX.
 * `release` drops an owner. */
void azs_zmtp_batch_init(azs_zmtp_batch *batch, uint8_t *memory, size_t size,
                         azs_zmtp_release_fn *release);

/* Releases every owner; nothing is left to be sent. */
void azs_zmtp_batch_clear(azs_zmtp_batch *batch);

/* Adds a frame; `flags` are MORE or COMMAND or 0. 0 where the body was copied; 1
 * where it is referenced, and `owner` is the batch's now; -ENOBUFS where it has no
 * room: send first. An empty batch has room for any frame. */
int azs_zmtp_batch_put(azs_zmtp_batch *batch, unsigned flags, const void *body,
                       size_t size, void *owner);

/* Adds a frame whose body the caller writes to the memory returned; NULL where there
 * is no room. */
uint8_t *azs_zmtp_batch_reserve(azs_zmtp_batch *batch, unsigned flags, size_t size);

/* `n` octets were sent, at most batch->octets: owners are released. */
void azs_zmtp_batch_sent(azs_zmtp_batch *batch, size_t n);

#endif
