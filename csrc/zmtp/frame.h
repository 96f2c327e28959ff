/* Frames: flags, a length of one or eight octets, the body. */
#ifndef AZS_ZMTP_FRAME_H
#define AZS_ZMTP_FRAME_H

#include "zmtp/wire.h"

enum {
    AZS_ZMTP_MORE = 1,
    AZS_ZMTP_LONG = 2, /* of the wire alone: no frame handed out has it */
    AZS_ZMTP_COMMAND = 4,

    AZS_ZMTP_HEADER_MAX = 9,
    AZS_ZMTP_SHORT_MAX = 255, /* of a body whose length takes one octet */
};

typedef struct {
    uint8_t *body; /* borrowed: see the function that gives it */
    size_t size;
    unsigned flags; /* AZS_ZMTP_MORE or AZS_ZMTP_COMMAND or 0 */
} azs_zmtp_frame;

/* Writes a header and returns its size, 2 or 9. */
static inline size_t
azs_zmtp_header_put(uint8_t *out, unsigned flags, size_t body_size)
{
    if (body_size <= AZS_ZMTP_SHORT_MAX) {
        out[0] = (uint8_t)flags;
        out[1] = (uint8_t)body_size;
        return 2;
    }
    out[0] = (uint8_t)(flags | AZS_ZMTP_LONG);
    azs_zmtp_put_u64(out + 1, body_size);
    return AZS_ZMTP_HEADER_MAX;
}

/* Its size, as the first octet tells. */
static inline size_t
azs_zmtp_header_size(uint8_t first)
{
    return first & AZS_ZMTP_LONG ? AZS_ZMTP_HEADER_MAX : 2;
}

/* Reads a whole header. Reserved bits are ignored, as libzmq does; a command is
 * whole, whatever its MORE says. */
static inline void
azs_zmtp_header_get(const uint8_t *header, unsigned *flags, uint64_t *body_size)
{
    unsigned all = header[0];
    *flags = all & AZS_ZMTP_COMMAND ? AZS_ZMTP_COMMAND : all & AZS_ZMTP_MORE;
    *body_size = all & AZS_ZMTP_LONG ? azs_zmtp_get_u64(header + 1) : header[1];
}

#endif
