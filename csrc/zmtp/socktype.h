/* Socket types: their names on the wire and who may talk to whom. */
#ifndef AZS_ZMTP_SOCKTYPE_H
#define AZS_ZMTP_SOCKTYPE_H

#include "zmtp/wire.h"

/* The values are zmq.h's. */
typedef enum {
    AZS_ZMTP_PAIR,
    AZS_ZMTP_PUB,
    AZS_ZMTP_SUB,
    AZS_ZMTP_REQ,
    AZS_ZMTP_REP,
    AZS_ZMTP_DEALER,
    AZS_ZMTP_ROUTER,
    AZS_ZMTP_PULL,
    AZS_ZMTP_PUSH,
    AZS_ZMTP_XPUB,
    AZS_ZMTP_XSUB,
    AZS_ZMTP_TYPES,
} azs_zmtp_type;

/* "DEALER" */
const char *azs_zmtp_type_name(azs_zmtp_type type);

/* Its type, or -EPROTO. */
int azs_zmtp_type_of_name(const void *name, size_t size);

/* Does `ours` accept a peer of type `theirs`? */
bool azs_zmtp_type_accepts(azs_zmtp_type ours, azs_zmtp_type theirs);

/* Does a socket of this type send its id? */
static inline bool
azs_zmtp_type_has_identity(azs_zmtp_type type)
{
    return type == AZS_ZMTP_REQ || type == AZS_ZMTP_DEALER || type == AZS_ZMTP_ROUTER;
}

#endif
