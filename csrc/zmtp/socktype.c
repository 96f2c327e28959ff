#include "zmtp/socktype.h"

#define BIT(type) (1u << AZS_ZMTP_##type)

static const struct {
    const char *name;
    unsigned accepts; /* bits of types */
} types[AZS_ZMTP_TYPES] = {
    [AZS_ZMTP_PAIR] = {"PAIR", BIT(PAIR)},
    [AZS_ZMTP_PUB] = {"PUB", BIT(SUB) | BIT(XSUB)},
    [AZS_ZMTP_SUB] = {"SUB", BIT(PUB) | BIT(XPUB)},
    [AZS_ZMTP_REQ] = {"REQ", BIT(REP) | BIT(ROUTER)},
    [AZS_ZMTP_REP] = {"REP", BIT(REQ) | BIT(DEALER)},
    [AZS_ZMTP_DEALER] = {"DEALER", BIT(REP) | BIT(DEALER) | BIT(ROUTER)},
    [AZS_ZMTP_ROUTER] = {"ROUTER", BIT(REQ) | BIT(DEALER) | BIT(ROUTER)},
    [AZS_ZMTP_PULL] = {"PULL", BIT(PUSH)},
    [AZS_ZMTP_PUSH] = {"PUSH", BIT(PULL)},
    [AZS_ZMTP_XPUB] = {"XPUB", BIT(SUB) | BIT(XSUB)},
    [AZS_ZMTP_XSUB] = {"XSUB", BIT(PUB) | BIT(XPUB)},
};

const char *
azs_zmtp_type_name(azs_zmtp_type type)
{
    return types[type].name;
}

int
azs_zmtp_type_of_name(const void *name, size_t size)
{
    for (int type = 0; type < AZS_ZMTP_TYPES; type++) {
        if (strlen(types[type].name) == size &&
            memcmp(types[type].name, name, size) == 0)
            return type;
    }
    return -EPROTO;
}

bool
azs_zmtp_type_accepts(azs_zmtp_type ours, azs_zmtp_type theirs)
{
    return types[ours].accepts >> theirs & 1;
}
