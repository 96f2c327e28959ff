/* Sockets of one libzmq handle: zmq.Socket.shadow(), from_socket(), copies.
 *
 * libzmq tells of an event once for all of them. So whoever may have taken its word has
 * those looked at that wait at the others, and who closes the handle closes it for all.
 */
#include "zmq/awaitable/async_socket.h"

/* The list that a handle's sockets are in, among others'. */
static AsyncSocketObject **
list_of(azs_state *st, void *handle)
{
    uint64_t mixed = (uint64_t)(uintptr_t)handle * 0x9E3779B97F4A7C15u;
    return &st->zmq_async_sockets[mixed >> 56];
}

static void
unregister(AsyncSocketObject *self)
{
    if (self->handle == NULL)
        return;
    AsyncSocketObject **at = list_of(self->st, self->handle);
    while (*at != self)
        at = &(*at)->next_listed;
    *at = self->next_listed;
    self->next_listed = NULL;
    self->handle = NULL;
}

void
azs_async_register(AsyncSocketObject *self, void *handle, bool is_new)
{
    AsyncSocketObject **list = list_of(self->st, handle);
    azs_mutex_lock(&self->st->zmq_async_mutex);
    static_assert(AZS_ARRAY_LEN(self->st->zmq_async_sockets) == 256, "see list_of()");
    for (AsyncSocketObject *other = *list, *next; other != NULL; other = next) {
        next = other->next_listed;
        if (other->handle != handle)
            continue;
        if (is_new) {
            unregister(other);
            other->handle_closed = true;
        } else {
            other->has_siblings = self->has_siblings = true;
        }
    }
    azs_enable_try_incref((PyObject *)self);
    self->handle = handle;
    self->next_listed = *list;
    *list = self;
    azs_mutex_unlock(&self->st->zmq_async_mutex);
}

void
azs_async_unregister(AsyncSocketObject *self)
{
    azs_mutex_lock(&self->st->zmq_async_mutex);
    unregister(self);
    azs_mutex_unlock(&self->st->zmq_async_mutex);
}

PyObject *
azs_async_siblings(AsyncSocketObject *self)
{
    PyObject *found = PyList_New(0);
    if (found == NULL || self->handle == NULL)
        return found;
    /* A list that grows does not set the collector off: the chain stays as it is. */
    azs_mutex_lock(&self->st->zmq_async_mutex);
    AsyncSocketObject *other = *list_of(self->st, self->handle), *failed = NULL;
    for (; failed == NULL && other != NULL; other = other->next_listed) {
        if (other == self || other->handle != self->handle ||
            !azs_try_incref((PyObject *)other))
            continue;
        if (PyList_Append(found, (PyObject *)other) < 0)
            failed = other;
        else
            Py_DECREF(other);
    }
    azs_mutex_unlock(&self->st->zmq_async_mutex);
    if (failed != NULL) {
        Py_DECREF(failed); /* may be its last reference by now */
        Py_CLEAR(found);
    }
    return found;
}
