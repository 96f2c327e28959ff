/* What an EpollSelector has registered, and the mapping get_map() returns.
 *
 * The selector owns its map and the map knows no selector, so there is no
 * cycle that would keep the epoll descriptor open until the collector runs.
 */
#ifndef AZS_SELECTOR_SELECTOR_MAP_H
#define AZS_SELECTOR_SELECTOR_MAP_H

#include "py/state.h"

/* The values of selectors.EVENT_READ and selectors.EVENT_WRITE. */
enum { AZS_EVENT_READ = 1, AZS_EVENT_WRITE = 2 };

typedef struct {
    PyObject *key;    /* owned SelectorKey; NULL where the fd is not registered */
    PyObject *ready;  /* owned (key, ready_events) of the last report, or NULL */
    PyObject *number; /* owned: the fd, the key in `keys` */
    int events;       /* EVENT_* bits wanted */
    int ready_events; /* EVENT_* bits of `ready` */
} azs_selector_slot;

typedef struct {
    PyObject_HEAD
    azs_selector_slot *slots; /* owned, indexed by fd */
    size_t nslots;
    /* owned: {fd: SelectorKey} of the same keys, for iteration in the order of
     * registration and its checks; its keys are exact ints, so that no look-up
     * runs Python code */
    PyObject *keys;
    azs_state *st; /* held */
} SelectorMapObject;

int azs_selector_map_init(PyObject *mod, azs_state *st);

/* New reference to an empty map. */
SelectorMapObject *azs_selector_map_new(azs_state *st);

/* The fd of `fileobj`, an int or an object with fileno(); LONG_MAX for an int
 * that is larger than any fd. Where fileno() does not work any more, looks for
 * `fileobj` itself among the registered ones, as selectors does. Runs Python
 * code. 0, or -1 with ValueError (or what fileno() raised). `fd_obj` may be
 * NULL; otherwise it gets a new reference to the fd as an int. */
int azs_selector_map_lookup(SelectorMapObject *map, PyObject *fileobj, long *fd,
                            PyObject **fd_obj);

/* The slot of a registered fd, or NULL: valid until Python code runs. */
static inline azs_selector_slot *
azs_selector_map_slot(SelectorMapObject *map, long fd)
{
    if (fd < 0 || (size_t)fd >= map->nslots || map->slots[fd].key == NULL)
        return NULL;
    return &map->slots[fd];
}

/* Sets KeyError "... is not registered". Always NULL. */
PyObject *azs_selector_map_not_registered(PyObject *fileobj);

/* Adds `key` for an fd that is not registered. Runs no Python code. 0, or -1
 * with MemoryError and the map as it was. */
int azs_selector_map_add(SelectorMapObject *map, int fd, PyObject *key, int events);

/* Puts `key` in the place of a registered fd's key, of which it returns a new
 * reference. Runs no Python code and cannot fail. */
PyObject *azs_selector_map_replace(SelectorMapObject *map, int fd, PyObject *key,
                                   int events);

/* Takes a registered fd's key out: new reference. Runs no Python code and
 * cannot fail; no exception may be set. */
PyObject *azs_selector_map_pop(SelectorMapObject *map, int fd);

/* Forgets all. Runs Python code: what the keys' data does when it dies. */
void azs_selector_map_clear(SelectorMapObject *map);

#endif
