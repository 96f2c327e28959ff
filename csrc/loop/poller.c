#include "loop/poller.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/sys.h"
#include "loop/loop_object.h"
#include "py/errors.h"

/* asyncio's MAXIMUM_SELECT_TIMEOUT: one day. */
#define MAX_WAIT_NS (INT64_C(24) * 3600 * AZS_NS_PER_S)

/* A poll that does not wait keeps the GIL: giving it up among busy threads can
 * cost a whole switch interval (5 ms). Every so many of them it is offered all
 * the same, for the sake of threads behind callbacks that are all C. */
enum { GIL_OFFER_EVERY = 16 };

int
azs_poller_init(azs_poller *poller)
{
    *poller = (azs_poller){.epfd = -1};
    poller->events = malloc(AZS_POLL_EVENTS * sizeof(struct epoll_event));
    if (poller->events == NULL)
        return -ENOMEM;
    poller->epfd = azs_sys_epoll_create();
    return poller->epfd < 0 ? poller->epfd : 0;
}

int
azs_poller_add_wakeup(azs_poller *poller, int efd)
{
    /* Edge-triggered: every write to it is a new event, so nobody reads it. */
    return azs_sys_epoll_ctl(poller->epfd, EPOLL_CTL_ADD, efd, EPOLLIN | EPOLLET);
}

/* ---- the table ---- */

static azs_fd *
fd_lookup(azs_poller *poller, int fd)
{
    return fd >= 0 && fd < poller->nfds ? &poller->fds[fd] : NULL;
}

/* The fd's entry, made where needed; NULL with an exception. */
static azs_fd *
fd_get(azs_poller *poller, int fd)
{
    if (fd < 0) {
        PyErr_Format(PyExc_ValueError, "Invalid file descriptor: %d", fd);
        return NULL;
    }
    if (fd >= poller->nfds) {
        /* A bad number must not make the table huge: the kernel's own limit on
         * descriptors is far below this. */
        if (fd > 1 << 26) {
            azs_set_errno(-EBADF);
            return NULL;
        }
        int nfds = poller->nfds ? poller->nfds : 64;
        while (nfds <= fd)
            nfds *= 2;
        azs_fd *fds = realloc(poller->fds, (size_t)nfds * sizeof(azs_fd));
        if (fds == NULL) {
            PyErr_NoMemory();
            return NULL;
        }
        memset(fds + poller->nfds, 0, (size_t)(nfds - poller->nfds) * sizeof(azs_fd));
        poller->fds = fds;
        poller->nfds = nfds;
    }
    return &poller->fds[fd];
}

static inline uint32_t
fd_wanted(const azs_fd *entry)
{
    if (entry->watcher != NULL)
        return entry->watcher->interest;
    return (entry->reader != NULL ? EPOLLIN : 0u) |
           (entry->writer != NULL ? EPOLLOUT : 0u);
}

/* Tells the kernel what is wanted of the fd. 0 or -errno. */
static int
fd_sync(azs_poller *poller, int fd, azs_fd *entry, bool verify)
{
    uint32_t wanted = fd_wanted(entry);
    if (wanted == entry->registered && !(verify && wanted))
        return 0;
    int err;
    if (wanted == 0) {
        /* The caller closed it already? Then the kernel has forgotten it. */
        azs_sys_epoll_ctl(poller->epfd, EPOLL_CTL_DEL, fd, 0);
        entry->registered = 0;
        return 0;
    }
    if (entry->registered != 0) {
        err = azs_sys_epoll_ctl(poller->epfd, EPOLL_CTL_MOD, fd, wanted);
        /* Closed without removal and opened again under the same number. */
        if (err == -ENOENT)
            err = azs_sys_epoll_ctl(poller->epfd, EPOLL_CTL_ADD, fd, wanted);
    } else {
        err = azs_sys_epoll_ctl(poller->epfd, EPOLL_CTL_ADD, fd, wanted);
        /* Another number of the same open file was closed with this one in
         * epoll still: take it over. */
        if (err == -EEXIST)
            err = azs_sys_epoll_ctl(poller->epfd, EPOLL_CTL_MOD, fd, wanted);
    }
    entry->registered = err < 0 ? 0 : wanted;
    return err;
}

/* Has the fd synchronised before the next wait. Where the list cannot grow it
 * is done at once. */
static void
fd_defer(azs_poller *poller, int fd, azs_fd *entry)
{
    if (entry->dirty || fd_wanted(entry) == entry->registered)
        return;
    if (poller->ndirty == poller->dirty_capacity) {
        int capacity = poller->dirty_capacity ? poller->dirty_capacity * 2 : 64;
        int *dirty = realloc(poller->dirty, (size_t)capacity * sizeof(int));
        if (dirty == NULL) {
            (void)fd_sync(poller, fd, entry, false);
            return;
        }
        poller->dirty = dirty;
        poller->dirty_capacity = capacity;
    }
    entry->dirty = true;
    poller->dirty[poller->ndirty++] = fd;
}

static void
poller_flush(azs_poller *poller)
{
    for (int i = 0; i < poller->ndirty; i++) {
        int fd = poller->dirty[i];
        azs_fd *entry = &poller->fds[fd];
        entry->dirty = false;
        /* An error means that the fd was closed under its handles: there is no
         * caller left to tell, and nothing will become ready. */
        (void)fd_sync(poller, fd, entry, false);
    }
    poller->ndirty = 0;
}

/* ---- handles ---- */

int
azs_poller_set_handle(LoopObject *loop, int fd, bool writer, HandleObject *handle)
{
    azs_poller *poller = &loop->poller;
    azs_fd *entry = fd_get(poller, fd);
    if (entry == NULL)
        return -1;
    if (entry->watcher != NULL) {
        PyErr_Format(PyExc_RuntimeError,
                     "File descriptor %d is used by transport %R", fd,
                     entry->watcher->owner);
        return -1;
    }
    HandleObject **slot = writer ? &entry->writer : &entry->reader;
    HandleObject *old = *slot;
    *slot = (HandleObject *)Py_NewRef(handle);
    /* New to epoll, or a second registration: an error belongs to the caller.
     * Otherwise the change can wait, it may be undone. */
    if (entry->registered == 0 || old != NULL) {
        int err = fd_sync(poller, fd, entry, old != NULL);
        if (err < 0) {
            *slot = old;
            Py_DECREF(handle);
            return azs_set_errno(err);
        }
    } else {
        fd_defer(poller, fd, entry);
    }
    if (old != NULL) {
        /* Runs finalizers: `entry` is stale after it. */
        int res = azs_handle_cancel(old);
        Py_DECREF(old);
        return res;
    }
    return 0;
}

int
azs_poller_remove_handle(LoopObject *loop, int fd, bool writer)
{
    azs_poller *poller = &loop->poller;
    azs_fd *entry = fd_lookup(poller, fd);
    if (entry == NULL)
        return 0;
    HandleObject **slot = writer ? &entry->writer : &entry->reader;
    HandleObject *old = *slot;
    if (old == NULL)
        return 0;
    *slot = NULL;
    /* The caller is about to close the fd, maybe: a number that is reused while
     * we believe it registered would never become ready. So the last interest
     * goes at once. */
    if (fd_wanted(entry) == 0)
        (void)fd_sync(poller, fd, entry, false);
    else
        fd_defer(poller, fd, entry);
    int res = azs_handle_cancel(old);
    Py_DECREF(old);
    return res < 0 ? -1 : 1;
}

/* ---- watchers ---- */

int
azs_watcher_start(LoopObject *loop, azs_watcher *watcher, int fd, uint32_t interest)
{
    assert(watcher->fd == -1);
    if (azs_loop_check_usable(loop) < 0)
        return -1;
    azs_fd *entry = fd_get(&loop->poller, fd);
    if (entry == NULL)
        return -1;
    if (entry->watcher != NULL || entry->reader != NULL || entry->writer != NULL) {
        PyErr_Format(PyExc_RuntimeError, "File descriptor %d is watched already", fd);
        return -1;
    }
    entry->watcher = watcher;
    watcher->interest = interest;
    int err = fd_sync(&loop->poller, fd, entry, false);
    if (err < 0) {
        entry->watcher = NULL;
        watcher->interest = 0;
        return azs_set_errno(err);
    }
    watcher->fd = fd;
    Py_INCREF(watcher->owner);
    return 0;
}

int
azs_watcher_modify(LoopObject *loop, azs_watcher *watcher, uint32_t interest)
{
    azs_fd *entry = fd_lookup(&loop->poller, watcher->fd);
    if (entry == NULL || entry->watcher != watcher)
        return 0; /* stopped, or the loop is closed */
    watcher->interest = interest;
    fd_defer(&loop->poller, watcher->fd, entry);
    return 0;
}

void
azs_watcher_stop(LoopObject *loop, azs_watcher *watcher)
{
    azs_fd *entry = fd_lookup(&loop->poller, watcher->fd);
    int fd = watcher->fd;
    watcher->fd = -1;
    watcher->interest = 0;
    watcher->pending = 0;
    if (entry == NULL || entry->watcher != watcher)
        return;
    entry->watcher = NULL;
    if (loop->fork_generation == azs_fork_generation)
        (void)fd_sync(&loop->poller, fd, entry, false);
    else
        entry->registered = 0;
    Py_DECREF(watcher->owner);
}

int
azs_watcher_post(LoopObject *loop, azs_watcher *watcher, uint32_t events)
{
    if (!watcher->queued) {
        uintptr_t entry = (uintptr_t)watcher | AZS_READY_WATCHER;
        if (azs_ring_push(&loop->ready, entry) < 0) {
            PyErr_NoMemory();
            return -1;
        }
        watcher->queued = true;
        Py_INCREF(watcher->owner);
    }
    watcher->pending |= events;
    return 0;
}

PyObject *
azs_poller_owner(azs_poller *poller, int fd)
{
    azs_fd *entry = fd_lookup(poller, fd);
    return entry == NULL || entry->watcher == NULL ? NULL : entry->watcher->owner;
}

/* ---- polling ---- */

/* Queues what belongs to one event. 0, or -1 with MemoryError. */
static int
dispatch_event(LoopObject *loop, int fd, uint32_t events)
{
    azs_poller *poller = &loop->poller;
    azs_fd *entry = fd_lookup(poller, fd);
    if (azs_unlikely(entry == NULL || fd_wanted(entry) == 0)) {
        if (fd == loop->wakeup.efd)
            return 0; /* edge-triggered: waking up was all it is for */
        /* Closed without removal while a duplicate keeps the file open: without
         * this the loop would spin. */
        azs_sys_epoll_ctl(poller->epfd, EPOLL_CTL_DEL, fd, 0);
        if (entry != NULL)
            entry->registered = 0;
        return 0;
    }
    if (entry->watcher != NULL)
        return azs_watcher_post(loop, entry->watcher, events);
    /* As asyncio: an error or hang-up wakes both sides. */
    if ((events & ~(uint32_t)EPOLLOUT) && entry->reader != NULL &&
        azs_ready_push_handle(loop, entry->reader) < 0)
        return -1;
    if ((events & ~(uint32_t)EPOLLIN) && entry->writer != NULL &&
        azs_ready_push_handle(loop, entry->writer) < 0)
        return -1;
    return 0;
}

int
azs_poller_poll(LoopObject *loop, int64_t timeout_ns)
{
    azs_poller *poller = &loop->poller;
    poller_flush(poller);
    if (timeout_ns > MAX_WAIT_NS)
        timeout_ns = MAX_WAIT_NS;
    int n;
    if (timeout_ns == 0 && ++poller->polls_with_gil % GIL_OFFER_EVERY != 0) {
        n = azs_sys_epoll_wait(poller->epfd, poller->events, AZS_POLL_EVENTS, 0);
    } else {
        int epfd = poller->epfd;
        struct epoll_event *events = poller->events;
        /* With the GIL held nothing can have come in since the caller saw an empty
         * queue; what comes in from now on ends the wait. */
        loop->wakeup.sleeping = timeout_ns != 0;
        Py_BEGIN_ALLOW_THREADS
        n = azs_sys_epoll_wait(epfd, events, AZS_POLL_EVENTS, timeout_ns);
        Py_END_ALLOW_THREADS
        poller->polls_with_gil = 0;
        loop->wakeup.sleeping = false;
    }
    for (int i = 0; i < n; i++) {
        if (dispatch_event(loop, poller->events[i].data.fd, poller->events[i].events) <
            0)
            return -1;
    }
    if (azs_unlikely(n < 0 && n != -EINTR))
        return azs_set_errno(n);
    /* Signal handlers run here where no Python callback lets them in. */
    return PyErr_CheckSignals();
}

/* ---- collection and close ---- */

int
azs_poller_traverse(azs_poller *poller, visitproc visit, void *arg)
{
    for (int fd = 0; fd < poller->nfds; fd++) {
        azs_fd *entry = &poller->fds[fd];
        Py_VISIT(entry->reader);
        Py_VISIT(entry->writer);
        if (entry->watcher != NULL)
            Py_VISIT(entry->watcher->owner);
    }
    return 0;
}

void
azs_poller_close(LoopObject *loop)
{
    azs_poller *poller = &loop->poller;
    /* Detached first: finalizers below see a poller without fds. */
    azs_fd *fds = poller->fds;
    int nfds = poller->nfds;
    poller->fds = NULL;
    poller->nfds = 0;
    poller->ndirty = 0;
    azs_sys_close(poller->epfd);
    poller->epfd = -1;
    for (int fd = 0; fd < nfds; fd++) {
        Py_XDECREF(fds[fd].reader);
        Py_XDECREF(fds[fd].writer);
        azs_watcher *watcher = fds[fd].watcher;
        if (watcher != NULL) {
            watcher->fd = -1;
            watcher->interest = watcher->pending = 0;
            Py_DECREF(watcher->owner);
        }
    }
    free(fds);
    free(poller->dirty);
    poller->dirty = NULL;
    poller->dirty_capacity = 0;
    free(poller->events);
    poller->events = NULL;
}
