/* The properties that peers tell each other in READY and INITIATE. */
#ifndef AZS_ZMTP_METADATA_H
#define AZS_ZMTP_METADATA_H

#include "zmtp/socktype.h"

typedef struct {
    const uint8_t *name, *value; /* borrowed */
    size_t name_size, value_size;
} azs_zmtp_property;

/* Takes the next property off the *size octets at *at. 1; 0 at the end; -EPROTO. */
int azs_zmtp_property_next(const uint8_t **at, size_t *size,
                           azs_zmtp_property *property);

/* RFC 37: names have no case. */
bool azs_zmtp_property_is(const azs_zmtp_property *property, const char *name);

/* The size of a property, and writing one: `name` of 1 to 255 octets. */
size_t azs_zmtp_property_size(size_t name_size, size_t value_size);
size_t azs_zmtp_property_put(uint8_t *out, const char *name, const void *value,
                             size_t value_size);

/* What a peer has told of itself. */
typedef struct {
    azs_zmtp_type type;
    int minor; /* of its greeting */
    uint8_t identity_size;
    uint8_t identity[AZS_ZMTP_IDENTITY_MAX];
    uint8_t *properties; /* owned or NULL: all, for azs_zmtp_property_next() */
    size_t properties_size;
} azs_zmtp_peer;

void azs_zmtp_peer_clear(azs_zmtp_peer *peer);

/* Reads the peer's properties. 0; -EPROTO where they are malformed, name no type or
 * one that `ours` does not accept, or too long an id; -ENOMEM. */
int azs_zmtp_peer_parse(azs_zmtp_peer *peer, azs_zmtp_type ours, const uint8_t *data,
                        size_t size);

#endif
