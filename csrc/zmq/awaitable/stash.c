#include "zmq/awaitable/stash.h"

#include <string.h>

/* Room for one more item behind the last. 0, or -1 with MemoryError. */
static int
stash_reserve(azs_stash *stash)
{
    if (stash->first + stash->count < stash->capacity)
        return 0;
    if (stash->first > stash->capacity / 2) {
        memmove(stash->items, stash->items + stash->first,
                stash->count * sizeof(*stash->items));
        stash->first = 0;
        return 0;
    }
    size_t capacity = stash->capacity == 0 ? 8 : stash->capacity * 2;
    azs_stashed *grown = stash->items;
    PyMem_Resize(grown, azs_stashed, capacity);
    if (grown == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    stash->items = grown;
    stash->capacity = capacity;
    return 0;
}

int
azs_stash_put_steal(azs_stash *stash, azs_stashed item)
{
    if (stash->count == 0)
        stash->first = 0;
    if (stash->count > 0 && stash->first > 0 &&
        item.number < stash->items[stash->first].number) {
        stash->items[--stash->first] = item;
        stash->count++;
        return 0;
    }
    if (stash_reserve(stash) < 0) {
        Py_DECREF(item.message);
        return -1;
    }
    azs_stashed *begin = stash->items + stash->first, *at = begin + stash->count;
    while (at > begin && at[-1].number > item.number) {
        at[0] = at[-1];
        at--;
    }
    *at = item;
    stash->count++;
    return 0;
}

azs_stashed
azs_stash_pop(azs_stash *stash)
{
    stash->count--;
    return stash->items[stash->first++];
}

void
azs_stash_clear(azs_stash *stash)
{
    azs_stashed *items = stash->items;
    size_t first = stash->first, count = stash->count;
    *stash = (azs_stash){NULL};
    for (size_t i = 0; i < count; i++)
        Py_DECREF(items[first + i].message);
    PyMem_Free(items);
}
