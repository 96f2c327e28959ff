#include "net/addrcache.h"

#include <string.h>

enum { TABLE_BITS = 6, TABLE_SIZE = 1 << TABLE_BITS };

static size_t
hash_words(uint64_t a, uint64_t b)
{
    uint64_t h = (a ^ (b >> 32) ^ (b << 32)) * UINT64_C(0x9E3779B97F4A7C15);
    return (size_t)(h >> (64 - TABLE_BITS));
}

static size_t
hash_raw(const struct sockaddr *sa)
{
    if (sa->sa_family == AF_INET) {
        const struct sockaddr_in *in = (const struct sockaddr_in *)sa;
        return hash_words(in->sin_addr.s_addr, in->sin_port);
    }
    const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)sa;
    uint64_t words[2];
    memcpy(words, &in6->sin6_addr, sizeof(words));
    return hash_words(words[0] * 31 ^ words[1], in6->sin6_port);
}

static size_t
hash_object(PyObject *obj)
{
    return TABLE_SIZE + hash_words((uintptr_t)obj >> 4, 0);
}

static bool
same_raw(const azs_inet_addr *raw, const struct sockaddr *sa, socklen_t len)
{
    return raw->len == len && memcmp(&raw->sa, sa, len) == 0;
}

static void
known_set(azs_known_addr *known, PyObject *obj, const struct sockaddr *sa,
          socklen_t len)
{
    Py_XSETREF(known->obj, Py_NewRef(obj));
    memcpy(&known->raw.sa, sa, len);
    known->raw.len = len;
}

/* The entry at `index`; NULL where there is no memory, which is no error. */
static azs_known_addr *
table_entry(azs_addr_cache *cache, size_t index)
{
    if (cache->table == NULL) {
        cache->table = PyMem_Calloc(2 * TABLE_SIZE, sizeof(azs_known_addr));
        if (cache->table == NULL)
            return NULL;
    }
    return &cache->table[index];
}

PyObject *
azs_addr_cache_object(azs_addr_cache *cache, const struct sockaddr *sa, socklen_t len)
{
    azs_known_addr *last = &cache->last_in;
    if (azs_likely(last->obj != NULL && same_raw(&last->raw, sa, len)))
        return Py_NewRef(last->obj);
    if (len > sizeof(last->raw.in6) ||
        (sa->sa_family != AF_INET && sa->sa_family != AF_INET6))
        return azs_addr_to_python(sa, len);
    azs_known_addr *entry = NULL;
    if (last->obj != NULL) {
        entry = table_entry(cache, hash_raw(sa));
        if (entry != NULL && entry->obj != NULL && same_raw(&entry->raw, sa, len)) {
            PyObject *obj = Py_NewRef(entry->obj);
            known_set(last, obj, sa, len);
            return obj;
        }
    }
    PyObject *obj = azs_addr_to_python(sa, len);
    if (obj == NULL)
        return NULL;
    known_set(last, obj, sa, len);
    if (entry != NULL)
        known_set(entry, obj, sa, len);
    return obj;
}

const azs_inet_addr *
azs_addr_cache_find(const azs_addr_cache *cache, PyObject *obj)
{
    if (cache->last_out.obj == obj)
        return &cache->last_out.raw;
    if (cache->table != NULL) {
        const azs_known_addr *entry = &cache->table[hash_object(obj)];
        if (entry->obj == obj)
            return &entry->raw;
    }
    return NULL;
}

void
azs_addr_cache_keep(azs_addr_cache *cache, PyObject *obj, const azs_addr *addr)
{
    if (!PyTuple_CheckExact(obj) || addr->len > sizeof(cache->last_out.raw.in6))
        return;
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(obj); i++) {
        PyObject *item = PyTuple_GET_ITEM(obj, i);
        if (!PyUnicode_CheckExact(item) && !PyLong_CheckExact(item))
            return;
    }
    azs_known_addr *entry = &cache->last_out;
    if (entry->obj != NULL)
        entry = table_entry(cache, hash_object(obj));
    if (entry != NULL)
        known_set(entry, obj, &addr->sa, addr->len);
}

void
azs_addr_cache_clear(azs_addr_cache *cache)
{
    Py_CLEAR(cache->last_in.obj);
    Py_CLEAR(cache->last_out.obj);
    if (cache->table != NULL) {
        for (size_t i = 0; i < 2 * TABLE_SIZE; i++)
            Py_XDECREF(cache->table[i].obj);
        PyMem_Free(cache->table);
        cache->table = NULL;
    }
}
