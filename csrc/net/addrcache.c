#include "net/addrcache.h"

#include <string.h>

enum {
    MIN_BITS = 4,
    /* 4,096 addresses are known at most, some 0.8 MB: a flood of forged ones costs
     * no more. */
    MAX_BITS = 12,
    /* An entry is among so many from its hash on. */
    WINDOW = 4,
};

/* ---- keys ---- */

static inline uint64_t
mix(uint64_t word)
{
    return word * UINT64_C(0x9E3779B97F4A7C15);
}

static inline uint64_t
hash_raw(const struct sockaddr *sa)
{
    if (azs_likely(sa->sa_family == AF_INET)) {
        const struct sockaddr_in *in = (const struct sockaddr_in *)sa;
        return mix(in->sin_addr.s_addr ^ (uint64_t)in->sin_port << 32);
    }
    const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)sa;
    uint64_t words[2];
    memcpy(words, &in6->sin6_addr, sizeof(words));
    return mix(mix(words[0]) ^ words[1] ^ (uint64_t)in6->sin6_port << 32);
}

static inline uint64_t
hash_object(PyObject *obj)
{
    return mix((uintptr_t)obj >> 4);
}

static inline bool
same_raw(const azs_inet_addr *raw, const struct sockaddr *sa, socklen_t len)
{
    if (raw->len != len)
        return false;
    if (azs_unlikely(len != sizeof(raw->in)))
        return memcmp(&raw->sa, sa, len) == 0;
    uint64_t a[2], b[2];
    memcpy(a, &raw->sa, sizeof(a));
    memcpy(b, sa, sizeof(b));
    return a[0] == b[0] && a[1] == b[1];
}

/* ---- tables ---- */

static inline azs_known_addr *
entry_at(const azs_addr_table *table, uint64_t hash, unsigned i)
{
    size_t mask = ((size_t)1 << table->bits) - 1;
    return &table->entries[((size_t)(hash >> (64 - table->bits)) + i) & mask];
}

static void
known_set(azs_known_addr *known, PyObject *obj, const struct sockaddr *sa,
          socklen_t len)
{
    Py_XSETREF(known->obj, Py_NewRef(obj));
    memcpy(&known->raw.sa, sa, len);
    known->raw.len = len;
}

static void
table_clear(azs_addr_table *table)
{
    for (size_t i = 0; table->entries != NULL && i < (size_t)1 << table->bits; i++)
        Py_XDECREF(table->entries[i].obj);
    PyMem_Free(table->entries);
    *table = (azs_addr_table){0};
}

/* Doubles the table; entries without a place in the new one are forgotten. False where
 * there is no memory, or it is as large as it gets: no error. */
static bool
table_grow(azs_addr_table *table, bool by_object)
{
    if (table->entries != NULL && table->bits == MAX_BITS)
        return false;
    azs_addr_table grown = {.bits = table->entries == NULL ? (unsigned)MIN_BITS
                                                           : table->bits + 1};
    grown.entries = PyMem_Calloc((size_t)1 << grown.bits, sizeof(azs_known_addr));
    if (grown.entries == NULL)
        return false;
    size_t old_size = table->entries == NULL ? 0 : (size_t)1 << table->bits;
    for (size_t i = 0; i < old_size; i++) {
        azs_known_addr *old = &table->entries[i];
        if (old->obj == NULL)
            continue;
        uint64_t hash = by_object ? hash_object(old->obj) : hash_raw(&old->raw.sa);
        for (unsigned j = 0; j < WINDOW; j++) {
            azs_known_addr *entry = entry_at(&grown, hash, j);
            if (entry->obj == NULL) {
                *entry = *old;
                old->obj = NULL;
                break;
            }
        }
    }
    table_clear(table);
    *table = grown;
    return true;
}

/* Adds what is not there; without memory it does nothing. */
static void
table_add(azs_addr_table *table, bool by_object, PyObject *obj,
          const struct sockaddr *sa, socklen_t len)
{
    uint64_t hash = by_object ? hash_object(obj) : hash_raw(sa);
    do {
        for (unsigned i = 0; table->entries != NULL && i < WINDOW; i++) {
            azs_known_addr *entry = entry_at(table, hash, i);
            if (entry->obj == NULL) {
                known_set(entry, obj, sa, len);
                return;
            }
        }
    } while (table_grow(table, by_object));
    if (table->entries != NULL)
        known_set(entry_at(table, hash, table->victim++ % WINDOW), obj, sa, len);
}

/* ---- the cache ---- */

PyObject *
azs_addr_cache_object(azs_addr_cache *cache, const struct sockaddr *sa, socklen_t len)
{
    azs_known_addr *first = &cache->first_in;
    if (azs_likely(first->obj != NULL && same_raw(&first->raw, sa, len)))
        return Py_NewRef(first->obj);
    if (len > sizeof(first->raw.in6) ||
        (sa->sa_family != AF_INET && sa->sa_family != AF_INET6))
        return azs_addr_to_python(sa, len);
    if (cache->in.entries != NULL) {
        uint64_t hash = hash_raw(sa);
        for (unsigned i = 0; i < WINDOW; i++) {
            azs_known_addr *entry = entry_at(&cache->in, hash, i);
            if (entry->obj == NULL)
                break;
            if (same_raw(&entry->raw, sa, len))
                return Py_NewRef(entry->obj);
        }
    }
    PyObject *obj = azs_addr_to_python(sa, len);
    if (obj == NULL)
        return NULL;
    if (first->obj == NULL)
        known_set(first, obj, sa, len);
    else
        table_add(&cache->in, false, obj, sa, len);
    return obj;
}

const azs_inet_addr *
azs_addr_cache_find(const azs_addr_cache *cache, PyObject *obj)
{
    if (cache->first_out.obj == obj)
        return &cache->first_out.raw;
    if (cache->out.entries == NULL)
        return NULL;
    uint64_t hash = hash_object(obj);
    for (unsigned i = 0; i < WINDOW; i++) {
        azs_known_addr *entry = entry_at(&cache->out, hash, i);
        if (entry->obj == obj)
            return &entry->raw;
    }
    return NULL;
}

void
azs_addr_cache_keep(azs_addr_cache *cache, PyObject *obj, const azs_addr *addr)
{
    if (!PyTuple_CheckExact(obj) || addr->len > sizeof(cache->first_out.raw.in6))
        return;
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(obj); i++) {
        PyObject *item = PyTuple_GET_ITEM(obj, i);
        if (!PyUnicode_CheckExact(item) && !PyLong_CheckExact(item))
            return;
    }
    if (cache->first_out.obj == NULL)
        known_set(&cache->first_out, obj, &addr->sa, addr->len);
    else if (azs_addr_cache_find(cache, obj) == NULL)
        table_add(&cache->out, true, obj, &addr->sa, addr->len);
}

void
azs_addr_cache_clear(azs_addr_cache *cache)
{
    Py_CLEAR(cache->first_in.obj);
    Py_CLEAR(cache->first_out.obj);
    table_clear(&cache->in);
    table_clear(&cache->out);
}
