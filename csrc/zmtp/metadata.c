#include "zmtp/metadata.h"

#include <stdlib.h>
#include <strings.h>

int
azs_zmtp_property_next(const uint8_t **at, size_t *size, azs_zmtp_property *property)
{
    const uint8_t *p = *at;
    size_t left = *size;
    if (left == 0)
        return 0;
    size_t name_size = p[0];
    p++, left--;
    if (name_size == 0 || left < name_size)
        return -EPROTO;
    property->name = p;
    property->name_size = name_size;
    p += name_size, left -= name_size;
    if (left < 4)
        return -EPROTO;
    uint32_t value_size = azs_zmtp_get_u32(p);
    p += 4, left -= 4;
    if (left < value_size)
        return -EPROTO;
    property->value = p;
    property->value_size = value_size;
    *at = p + value_size;
    *size = left - value_size;
    return 1;
}

bool
azs_zmtp_property_is(const azs_zmtp_property *property, const char *name)
{
    return strlen(name) == property->name_size &&
           strncasecmp(name, (const char *)property->name, property->name_size) == 0;
}

size_t
azs_zmtp_property_size(size_t name_size, size_t value_size)
{
    return 1 + name_size + 4 + value_size;
}

size_t
azs_zmtp_property_put(uint8_t *out, const char *name, const void *value,
                      size_t value_size)
{
    size_t name_size = strlen(name);
    assert(name_size >= 1 && name_size <= 255 && value_size <= UINT32_MAX);
    out[0] = (uint8_t)name_size;
    memcpy(out + 1, name, name_size);
    azs_zmtp_put_u32(out + 1 + name_size, (uint32_t)value_size);
    azs_zmtp_copy(out + 1 + name_size + 4, value, value_size);
    return azs_zmtp_property_size(name_size, value_size);
}

void
azs_zmtp_peer_clear(azs_zmtp_peer *peer)
{
    free(peer->properties);
    peer->properties = NULL;
    peer->properties_size = 0;
}

/* Without a type it is refused, though libzmq lets it in: nothing that can be said
 * about what such a peer sends would be safe. */
int
azs_zmtp_peer_parse(azs_zmtp_peer *peer, azs_zmtp_type ours, const uint8_t *data,
                    size_t size)
{
    const uint8_t *at = data;
    size_t left = size;
    int type = -EPROTO, got;
    azs_zmtp_property property;
    peer->identity_size = 0;
    while ((got = azs_zmtp_property_next(&at, &left, &property)) > 0) {
        if (azs_zmtp_property_is(&property, "Socket-Type")) {
            type = azs_zmtp_type_of_name(property.value, property.value_size);
            if (type < 0)
                return type;
        } else if (azs_zmtp_property_is(&property, "Identity")) {
            if (property.value_size > AZS_ZMTP_IDENTITY_MAX)
                return -EPROTO;
            peer->identity_size = (uint8_t)property.value_size;
            azs_zmtp_copy(peer->identity, property.value, property.value_size);
        }
    }
    if (got < 0)
        return got;
    if (type < 0 || !azs_zmtp_type_accepts(ours, (azs_zmtp_type)type))
        return -EPROTO;
    peer->type = (azs_zmtp_type)type;
    uint8_t *properties = NULL;
    if (size > 0) {
        properties = malloc(size);
        if (properties == NULL)
            return -ENOMEM;
        memcpy(properties, data, size);
    }
    azs_zmtp_peer_clear(peer);
    peer->properties = properties;
    peer->properties_size = size;
    return 0;
}
