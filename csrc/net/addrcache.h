/* The internet addresses that a datagram transport met lately, in both forms. */
#ifndef AZS_NET_ADDRCACHE_H
#define AZS_NET_ADDRCACHE_H

#include "py/addr.h"

typedef struct {
    PyObject *obj; /* owned: a tuple of str and int alone, or NULL; no code runs when
                    * it goes */
    azs_inet_addr raw;
} azs_known_addr;

typedef struct {
    azs_known_addr *entries; /* owned; NULL while empty */
    unsigned bits;           /* 2 ** bits entries */
    unsigned victim;         /* what goes next where a full table must make room */
} azs_addr_table;

/* Incoming addresses are looked up by their raw form. Outgoing ones are by the
 * tuple's identity: a caller's tuple need not be in the form that the socket
 * module gives, so the two are never mixed. The tables are for the second address
 * on. */
typedef struct {
    azs_known_addr first_in, first_out;
    azs_addr_table in, out;
} azs_addr_cache;

/* The address as the socket module shows it. New reference, or NULL. */
PyObject *azs_addr_cache_object(azs_addr_cache *cache, const struct sockaddr *sa,
                                socklen_t len);

/* The raw form of a tuple that was kept; NULL for none. */
const azs_inet_addr *azs_addr_cache_find(const azs_addr_cache *cache, PyObject *obj);

/* Keeps the raw form of `obj` if that can never change. */
void azs_addr_cache_keep(azs_addr_cache *cache, PyObject *obj, const azs_addr *addr);

void azs_addr_cache_clear(azs_addr_cache *cache);

#endif
