/* The internet addresses that a datagram transport met lately, in both forms. */
#ifndef AZS_NET_ADDRCACHE_H
#define AZS_NET_ADDRCACHE_H

#include "py/addr.h"

typedef struct {
    PyObject *obj; /* owned: a tuple of str and int alone, or NULL; no code runs when
                    * it goes */
    azs_inet_addr raw;
} azs_known_addr;

/* Incoming addresses are looked up by their raw form. Outgoing ones are by the
 * tuple's identity: a caller's tuple need not be in the form that the socket
 * module gives, so the two are never mixed. */
typedef struct {
    azs_known_addr last_in, last_out;
    /* owned, or NULL while a single address did: by hash, first the incoming
     * ones, then the outgoing. */
    azs_known_addr *table;
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
