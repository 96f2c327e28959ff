/* Octets in, frames out.
 *
 *     azs_zmtp_decoder_feed(&d, buffer, n);
 *     while ((got = azs_zmtp_decoder_next(&d, &frame)) == AZS_ZMTP_FRAME)
 *         use(frame);
 *
 * The caller pulls, so a callback in between may do what it likes. A frame that lies
 * whole in what was fed is handed out in place. What is left of a small one is kept
 * here until the rest comes. A larger one is received into the caller's own room (a
 * bytes object, say): by reading from the socket straight to azs_zmtp_decoder_target()
 * where there is one.
 *
 * No memory is taken because of a length alone: the room that is asked for grows
 * with what has really arrived.
 */
#ifndef AZS_ZMTP_DECODER_H
#define AZS_ZMTP_DECODER_H

#include "zmtp/frame.h"

enum {
    /* Bodies of this size and more that are cut by the end of a feed get room. */
    AZS_ZMTP_ROOM_MIN = 2048,
    /* The most room that is asked for before any octet of the body has come. */
    AZS_ZMTP_ROOM_FIRST = 256 * 1024,
};

typedef enum {
    AZS_ZMTP_STARVED = 0, /* all is consumed: read, and feed */
    AZS_ZMTP_FRAME = 1,
    AZS_ZMTP_ROOM = 2, /* azs_zmtp_decoder_give() wanted */
} azs_zmtp_decoded;

typedef struct {
    uint8_t *feed; /* borrowed until it is consumed or kept; written to by nobody
                    * here, but a frame's user may decrypt in place */
    size_t feed_size;

    /* What earlier feeds have left: the beginning of a small frame, or all that
     * was kept. Comes before `feed`. */
    uint8_t *stash; /* owned or NULL */
    size_t stash_pos, stash_end, stash_capacity;

    /* The body under way, where it gets room. */
    uint8_t *room;               /* borrowed: the caller's */
    size_t room_size, room_have; /* room_have <= room_size <= body_size */
    size_t body_size;            /* 0: none is under way */
    unsigned body_flags;

    uint64_t max_size; /* of a body; at most PTRDIFF_MAX */
} azs_zmtp_decoder;

/* `max_size`: the largest body that is accepted; beyond PTRDIFF_MAX none is. */
void azs_zmtp_decoder_init(azs_zmtp_decoder *d, uint64_t max_size);

/* Another limit, between two frames: a handshake's is not that of traffic. */
static inline void
azs_zmtp_decoder_limit(azs_zmtp_decoder *d, uint64_t max_size)
{
    d->max_size = max_size < PTRDIFF_MAX ? max_size : PTRDIFF_MAX;
}

/* Frees what is kept. The room stays the caller's. */
void azs_zmtp_decoder_clear(azs_zmtp_decoder *d);

/* Hands in what was read, once the feed before is consumed or kept. Borrowed. */
void azs_zmtp_decoder_feed(azs_zmtp_decoder *d, uint8_t *data, size_t size);

/* An azs_zmtp_decoded, or -EMSGSIZE, -ENOMEM. A frame's body is in the feed, in the
 * stash (both valid until the next call of any function here), or it is the room
 * that was given, which thereby goes back to the caller: `frame->body` is its
 * beginning then and azs_zmtp_decoder_in_room(). After an error nothing but clear()
 * is allowed. */
int azs_zmtp_decoder_next(azs_zmtp_decoder *d, azs_zmtp_frame *frame);

/* After AZS_ZMTP_ROOM: the size of the body, the octets of it that are in the room
 * so far, and how much room to give now. */
static inline size_t
azs_zmtp_decoder_body_size(const azs_zmtp_decoder *d)
{
    return d->body_size;
}

static inline size_t
azs_zmtp_decoder_have(const azs_zmtp_decoder *d)
{
    return d->room_have;
}

size_t azs_zmtp_decoder_wants(const azs_zmtp_decoder *d);

/* Room for the body under way: what it has so far is at its beginning (the caller
 * has realloc'ed it, say). More than azs_zmtp_decoder_have(), at most the body. */
void azs_zmtp_decoder_give(azs_zmtp_decoder *d, uint8_t *room, size_t size);

/* Is a body under way into the caller's room? It is given back at the latest when
 * the frame is handed out. */
static inline bool
azs_zmtp_decoder_has_room(const azs_zmtp_decoder *d)
{
    return d->room != NULL;
}

/* Where the socket may be read to directly, with its size; NULL where nothing is
 * gained by it. */
uint8_t *azs_zmtp_decoder_target(const azs_zmtp_decoder *d, size_t *size);

/* `n` octets were read there. To be followed by azs_zmtp_decoder_next(). */
void azs_zmtp_decoder_read(azs_zmtp_decoder *d, size_t n);

/* Copies what is left of the feed, so that its memory may be used for another peer.
 * 0, or -ENOMEM. */
int azs_zmtp_decoder_keep(azs_zmtp_decoder *d);

/* What of the feed is not consumed yet. */
static inline size_t
azs_zmtp_decoder_feeds(const azs_zmtp_decoder *d)
{
    return d->feed_size;
}

/* Octets handed in and not yet handed out. */
static inline size_t
azs_zmtp_decoder_pending(const azs_zmtp_decoder *d)
{
    return d->feed_size + (d->stash_end - d->stash_pos) + d->room_have;
}

#endif
