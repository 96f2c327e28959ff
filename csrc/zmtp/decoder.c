#include "zmtp/decoder.h"

#include <stdlib.h>

void
azs_zmtp_decoder_init(azs_zmtp_decoder *d, uint64_t max_size)
{
    *d = (azs_zmtp_decoder){0};
    azs_zmtp_decoder_limit(d, max_size);
}

static void
stash_free(azs_zmtp_decoder *d)
{
    free(d->stash);
    d->stash = NULL;
    d->stash_pos = d->stash_end = d->stash_capacity = 0;
}

void
azs_zmtp_decoder_clear(azs_zmtp_decoder *d)
{
    stash_free(d);
    d->feed = d->room = NULL;
    d->feed_size = d->room_size = d->room_have = d->body_size = 0;
}

void
azs_zmtp_decoder_feed(azs_zmtp_decoder *d, uint8_t *data, size_t size)
{
    assert(d->feed_size == 0);
    d->feed = data;
    d->feed_size = size;
}

static inline size_t
stashed(const azs_zmtp_decoder *d)
{
    return d->stash_end - d->stash_pos;
}

/* Moves `n` octets of the feed to the stash's end. 0, or -ENOMEM. */
static int
stash_feed(azs_zmtp_decoder *d, size_t n)
{
    size_t have = stashed(d);
    if (n == 0)
        return 0;
    if (n > d->stash_capacity - d->stash_end) {
        if (d->stash_pos > 0) {
            memmove(d->stash, d->stash + d->stash_pos, have);
            d->stash_pos = 0;
            d->stash_end = have;
        }
        if (n > d->stash_capacity - have) {
            /* Both are sizes of memory that is there: their sum is no overflow. */
            uint8_t *stash = realloc(d->stash, have + n);
            if (stash == NULL)
                return -ENOMEM;
            d->stash = stash;
            d->stash_capacity = have + n;
        }
    }
    memcpy(d->stash + d->stash_end, d->feed, n);
    d->stash_end += n;
    d->feed += n;
    d->feed_size -= n;
    return 0;
}

/* The next octets in one piece where there are `n` of them: 1 with *at; 0 with all
 * that is there in the stash; or -ENOMEM. */
static int
decoder_look(azs_zmtp_decoder *d, size_t n, uint8_t **at)
{
    size_t have = stashed(d);
    if (have == 0 && d->feed_size >= n) {
        *at = d->feed;
        return 1;
    }
    if (have < n) {
        size_t missing = n - have;
        bool enough = d->feed_size >= missing;
        int err = stash_feed(d, enough ? missing : d->feed_size);
        if (err < 0)
            return err;
        if (!enough)
            return 0;
    }
    *at = d->stash + d->stash_pos;
    return 1;
}

static inline void
skip(azs_zmtp_decoder *d, size_t n)
{
    if (stashed(d) > 0) {
        assert(stashed(d) >= n);
        d->stash_pos += n;
    } else {
        assert(d->feed_size >= n);
        d->feed += n;
        d->feed_size -= n;
    }
}

/* Moves at most `n` octets to `to`; how many. */
static size_t
decoder_take(azs_zmtp_decoder *d, uint8_t *to, size_t n)
{
    size_t from_stash = stashed(d) < n ? stashed(d) : n;
    if (from_stash > 0) {
        memcpy(to, d->stash + d->stash_pos, from_stash);
        d->stash_pos += from_stash;
    }
    size_t from_feed = d->feed_size < n - from_stash ? d->feed_size : n - from_stash;
    if (from_feed > 0) {
        memcpy(to + from_stash, d->feed, from_feed);
        d->feed += from_feed;
        d->feed_size -= from_feed;
    }
    return from_stash + from_feed;
}

static int
starved(azs_zmtp_decoder *d)
{
    assert(d->feed_size == 0);
    d->feed = NULL;
    if (stashed(d) == 0)
        stash_free(d); /* an idle peer holds no memory */
    return AZS_ZMTP_STARVED;
}

static int
next_of_body(azs_zmtp_decoder *d, azs_zmtp_frame *frame)
{
    if (d->room_have < d->room_size)
        d->room_have +=
            decoder_take(d, d->room + d->room_have, d->room_size - d->room_have);
    if (d->room_have < d->room_size)
        return starved(d);
    if (d->room_have < d->body_size)
        return AZS_ZMTP_ROOM;
    *frame = (azs_zmtp_frame){d->room, d->body_size, d->body_flags};
    d->room = NULL;
    d->room_size = d->room_have = d->body_size = 0;
    return AZS_ZMTP_FRAME;
}

/* A frame that lies whole in the feed, with nothing before it, as almost all do:
 * true, or false where it is for the long way to tell. */
static inline bool
next_in_place(azs_zmtp_decoder *d, azs_zmtp_frame *frame)
{
    uint8_t *at = d->feed;
    if (stashed(d) > 0 || d->feed_size < 2)
        return false;
    size_t header_size = azs_zmtp_header_size(at[0]);
    if (d->feed_size < header_size)
        return false;
    uint64_t size;
    azs_zmtp_header_get(at, &frame->flags, &size);
    if (size > d->feed_size - header_size || size > d->max_size)
        return false;
    frame->body = at + header_size;
    frame->size = (size_t)size;
    d->feed = frame->body + size;
    d->feed_size -= header_size + (size_t)size;
    return true;
}

int
azs_zmtp_decoder_next(azs_zmtp_decoder *d, azs_zmtp_frame *frame)
{
    if (azs_unlikely(d->body_size > 0))
        return next_of_body(d, frame);
    if (d->stash_pos == d->stash_end)
        d->stash_pos = d->stash_end = 0; /* the frame handed out is done with */
    if (azs_likely(next_in_place(d, frame)))
        return AZS_ZMTP_FRAME;
    if (stashed(d) + d->feed_size == 0)
        return starved(d);
    uint8_t *at;
    int got = decoder_look(d, 1, &at);
    assert(got != 0);
    if (got < 0)
        return got;
    size_t header_size = azs_zmtp_header_size(at[0]);
    got = decoder_look(d, header_size, &at);
    if (got <= 0)
        return got < 0 ? got : starved(d);
    unsigned flags;
    uint64_t body_size;
    azs_zmtp_header_get(at, &flags, &body_size);
    if (azs_unlikely(body_size > d->max_size))
        return -EMSGSIZE;
    size_t size = (size_t)body_size;
    /* The sum is no overflow: max_size is PTRDIFF_MAX at most. */
    if (size >= AZS_ZMTP_ROOM_MIN && stashed(d) < header_size + size) {
        skip(d, header_size);
        d->body_size = size;
        d->body_flags = flags;
        d->room_size = d->room_have = 0;
        return AZS_ZMTP_ROOM;
    }
    got = decoder_look(d, header_size + size, &at);
    if (got <= 0)
        return got < 0 ? got : starved(d);
    skip(d, header_size + size);
    *frame = (azs_zmtp_frame){at + header_size, size, flags};
    return AZS_ZMTP_FRAME;
}

size_t
azs_zmtp_decoder_wants(const azs_zmtp_decoder *d)
{
    size_t wants = AZS_ZMTP_ROOM_FIRST;
    size_t here = d->room_have + stashed(d) + d->feed_size;
    if (wants < here)
        wants = here;
    /* Twice as much each time, so that growing costs what receiving does. */
    if (d->room_have >= AZS_ZMTP_ROOM_FIRST && wants / 2 < d->room_have)
        wants = d->room_have <= SIZE_MAX / 2 ? d->room_have * 2 : SIZE_MAX;
    return wants < d->body_size ? wants : d->body_size;
}

void
azs_zmtp_decoder_give(azs_zmtp_decoder *d, uint8_t *room, size_t size)
{
    assert(d->body_size > 0 && size > d->room_have && size <= d->body_size);
    d->room = room;
    d->room_size = size;
}

uint8_t *
azs_zmtp_decoder_target(const azs_zmtp_decoder *d, size_t *size)
{
    *size = d->room_size - d->room_have;
    if (*size == 0 || stashed(d) + d->feed_size > 0)
        return NULL;
    return d->room + d->room_have;
}

void
azs_zmtp_decoder_read(azs_zmtp_decoder *d, size_t n)
{
    assert(n <= d->room_size - d->room_have);
    assert(stashed(d) + d->feed_size == 0);
    d->room_have += n;
}

int
azs_zmtp_decoder_keep(azs_zmtp_decoder *d)
{
    if (d->feed_size == 0)
        return 0;
    return stash_feed(d, d->feed_size);
}
