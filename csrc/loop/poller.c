#include "loop/poller.h"

#include <errno.h>
#include <stdlib.h>

#include "base/sys.h"
#include "loop/fd_table.h"
#include "py/errors.h"

/* asyncio's MAXIMUM_SELECT_TIMEOUT: one day. */
#define MAX_WAIT_NS (INT64_C(24) * 3600 * AZS_NS_PER_S)

/* A poll that does not wait keeps the GIL: giving it up among busy threads can cost a
 * whole switch interval (5 ms). It is offered this often, lest callbacks in C keep it.
 */
#define GIL_OFFER_NS (4 * AZS_NS_PER_MS)

/* How long a wait on a registration that is lost goes unnoticed in an idle loop. */
#define VERIFY_IDLE_NS (50 * AZS_NS_PER_MS)

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

/* ---- handles ---- */

int
azs_poller_fd_of(const azs_poller *poller, const PyObject *object)
{
    for (int fd = 0; fd < poller->nfds; fd++) {
        if (poller->fds[fd].object == object)
            return fd;
    }
    return -1;
}

int
azs_poller_set_handle(LoopObject *loop, int fd, bool writer, HandleObject *handle,
                      PyObject *object)
{
    azs_poller *poller = &loop->poller;
    if (azs_loop_check_thread(loop) < 0)
        return -1;
    azs_fd *entry = azs_fd_get(loop, fd);
    if (entry == NULL)
        return -1;
    if (entry->watcher != NULL) {
        PyErr_Format(PyExc_RuntimeError, "File descriptor %d is used by transport %R",
                     fd, entry->watcher->owner);
        return -1;
    }
    HandleObject **slot = writer ? &entry->writer : &entry->reader;
    HandleObject *old = *slot;
    *slot = (HandleObject *)Py_NewRef(handle);
    azs_watcher *old_wait = azs_fd_take_wait(entry, writer);
    bool verify = old != NULL || old_wait != NULL || entry->kept;
    entry->kept = 0;
    /* New to epoll, or a second registration: an error belongs to the caller.
     * Otherwise the change can wait, it may be undone. */
    int err = 0;
    if (entry->registered == 0 || verify) {
        err = azs_fd_sync(poller, fd, entry, verify);
        if (err < 0)
            *slot = old;
    } else {
        azs_fd_defer(poller, fd, entry);
    }
    PyObject *old_object = NULL;
    if (err == 0 && entry->object != object) {
        old_object = entry->object;
        entry->object = PyLong_Check(object) ? NULL : Py_NewRef(object);
    }
    /* What follows runs finalizers: `entry` is stale after it. */
    Py_XDECREF(old_object);
    if (old_wait != NULL)
        Py_DECREF(old_wait->owner);
    if (err < 0) {
        Py_DECREF(handle);
        return azs_set_errno(err);
    }
    if (old != NULL) {
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
    if (azs_loop_check_thread(loop) < 0)
        return -1;
    azs_fd *entry = azs_fd_lookup(poller, fd);
    if (entry == NULL)
        return 0;
    HandleObject **slot = writer ? &entry->writer : &entry->reader;
    HandleObject *old = *slot;
    azs_watcher *old_wait = azs_fd_take_wait(entry, writer);
    if (old == NULL && old_wait == NULL)
        return 0;
    *slot = NULL;
    entry->kept = 0;
    PyObject *object = azs_fd_take_object(entry);
    azs_fd_dropped(poller, fd, entry);
    int res = 0;
    Py_XDECREF(object); /* runs finalizers: `entry` is stale after it */
    if (old_wait != NULL)
        Py_DECREF(old_wait->owner);
    if (old != NULL) {
        res = azs_handle_cancel(old);
        Py_DECREF(old);
    }
    return res < 0 ? -1 : 1;
}

/* ---- watchers ---- */

int
azs_watcher_start(LoopObject *loop, azs_watcher *watcher, int fd, uint32_t interest)
{
    assert(watcher->fd == -1);
    if (azs_loop_check_usable(loop) < 0 || azs_loop_check_thread(loop) < 0)
        return -1;
    azs_fd *entry = azs_fd_get(loop, fd);
    if (entry == NULL)
        return -1;
    if (entry->watcher != NULL || entry->reader != NULL || entry->writer != NULL) {
        PyErr_Format(PyExc_RuntimeError, "File descriptor %d is watched already", fd);
        return -1;
    }
    entry->watcher = watcher;
    AZS_SET(&watcher->interest, interest); /* a repr may ask in another thread */
    /* Waits end without a word, as where add_reader() replaces them. */
    azs_watcher *in_wait = azs_fd_take_wait(entry, false);
    azs_watcher *out_wait = azs_fd_take_wait(entry, true);
    bool verify = entry->kept || in_wait != NULL || out_wait != NULL;
    entry->kept = 0;
    int err = azs_fd_sync(&loop->poller, fd, entry, verify);
    if (err < 0) {
        entry->watcher = NULL;
        AZS_SET(&watcher->interest, 0);
    } else {
        watcher->fd = fd;
        Py_INCREF(watcher->owner);
    }
    /* Runs finalizers: `entry` is stale after it. */
    if (in_wait != NULL)
        Py_DECREF(in_wait->owner);
    if (out_wait != NULL)
        Py_DECREF(out_wait->owner);
    return err < 0 ? azs_set_errno(err) : 0;
}

int
azs_watcher_modify(LoopObject *loop, azs_watcher *watcher, uint32_t interest)
{
    azs_fd *entry = azs_fd_lookup(&loop->poller, watcher->fd);
    if (entry == NULL || entry->watcher != watcher)
        return 0; /* stopped, or the loop is closed */
    uint32_t before = watcher->interest;
    AZS_SET(&watcher->interest, interest); /* a repr may ask in another thread */
    if (entry->registered != 0) {
        azs_fd_defer(&loop->poller, watcher->fd, entry);
        return 0;
    }
    /* New to epoll: an error belongs to the caller. */
    int err = azs_fd_sync(&loop->poller, watcher->fd, entry, false);
    if (err == 0)
        return 0;
    AZS_SET(&watcher->interest, before);
    return azs_set_errno(err);
}

void
azs_watcher_stop(LoopObject *loop, azs_watcher *watcher)
{
    azs_fd *entry = azs_fd_lookup(&loop->poller, watcher->fd);
    int fd = watcher->fd;
    watcher->fd = -1;
    AZS_SET(&watcher->interest, 0);
    watcher->pending = 0;
    if (entry == NULL || entry->watcher != watcher)
        return;
    entry->watcher = NULL;
    if (loop->fork_generation == azs_fork_generation)
        (void)azs_fd_sync(&loop->poller, fd, entry, false);
    else
        AZS_SET(&entry->registered, 0);
    Py_DECREF(watcher->owner);
}

void
azs_watcher_hand_over(LoopObject *loop, azs_watcher *from, azs_watcher *to)
{
    azs_fd *entry = azs_fd_lookup(&loop->poller, from->fd);
    assert(to->fd == -1);
    if (entry == NULL || entry->watcher != from) {
        azs_watcher_stop(loop, from);
        return;
    }
    entry->watcher = to;
    to->fd = from->fd;
    from->fd = -1;
    from->interest = from->pending = 0;
    Py_INCREF(to->owner);
    Py_DECREF(from->owner);
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

void
azs_watcher_unpost(LoopObject *loop, azs_watcher *watcher)
{
    if (!watcher->queued)
        return;
    for (size_t left = loop->ready.count; left > 0; left--) {
        uintptr_t entry = azs_ring_pop(&loop->ready);
        if (entry != ((uintptr_t)watcher | AZS_READY_WATCHER)) {
            (void)azs_ring_push(&loop->ready, entry); /* where it has just left */
            continue;
        }
        watcher->queued = false;
        watcher->pending = 0;
        Py_DECREF(watcher->owner); /* the caller has one, too */
    }
}

PyObject *
azs_poller_owner(azs_poller *poller, int fd)
{
    azs_fd *entry = azs_fd_lookup(poller, fd);
    return entry == NULL || entry->watcher == NULL ? NULL : entry->watcher->owner;
}

/* ---- polling ---- */

/* Queues a handle; one that was cancelled by itself watches no more, as in asyncio.
 * 0, or -1 with an exception. */
static int
handle_fire(LoopObject *loop, int fd, bool writer)
{
    azs_fd *entry = azs_fd_lookup(&loop->poller, fd);
    HandleObject *handle = entry == NULL ? NULL
                           : writer      ? entry->writer
                                         : entry->reader;
    if (handle == NULL)
        return 0;
    if (azs_unlikely(azs_handle_is_cancelled(handle)))
        return azs_poller_remove_handle(loop, fd, writer) < 0 ? -1 : 0;
    return azs_ready_push_handle(loop, handle);
}

/* Queues what belongs to one event. 0, or -1 with MemoryError. */
static int
dispatch_event(LoopObject *loop, int fd, uint32_t events)
{
    azs_poller *poller = &loop->poller;
    azs_fd *entry = azs_fd_lookup(poller, fd);
    if (azs_unlikely(entry == NULL || azs_fd_wanted(entry) == 0)) {
        if (fd == loop->wakeup.efd)
            return 0; /* edge-triggered: waking up was all it is for */
        /* Closed without removal while a duplicate keeps the file open: without
         * this the loop would spin. */
        azs_sys_epoll_ctl(poller->epfd, EPOLL_CTL_DEL, fd, 0);
        if (entry != NULL)
            AZS_SET(&entry->registered, 0);
        return 0;
    }
    if (entry->watcher != NULL)
        return azs_watcher_post(loop, entry->watcher, events);
    if (entry->kept)
        return azs_wait_dispatch(loop, fd, entry, events);
    /* As asyncio: an error or hang-up wakes both sides. */
    if (events & ~(uint32_t)EPOLLOUT) {
        if (handle_fire(loop, fd, false) < 0)
            return -1;
        entry = azs_fd_lookup(poller, fd);
        if (entry != NULL && entry->in_wait != NULL &&
            azs_wait_fire(loop, entry, false, events) < 0)
            return -1;
    }
    if (events & ~(uint32_t)EPOLLIN) {
        if (handle_fire(loop, fd, true) < 0)
            return -1;
        entry = azs_fd_lookup(poller, fd);
        if (entry != NULL && entry->out_wait != NULL &&
            azs_wait_fire(loop, entry, true, events) < 0)
            return -1;
    }
    entry = azs_fd_lookup(poller, fd); /* finalizers may have run */
    if (entry != NULL)
        azs_fd_defer(poller, fd, entry); /* a wait may be over */
    return 0;
}

int
azs_poller_poll(LoopObject *loop, int64_t now_ns, int64_t timeout_ns)
{
    azs_poller *poller = &loop->poller;
    /* A callback forked, and this is the child: epoll is the parent's. */
    if (azs_unlikely(loop->fork_generation != azs_fork_generation))
        return azs_loop_fail_forked();
    AZS_COUNT(&loop->stats.polls, 1);
    poller->polled_ns = now_ns;
    azs_fd_flush(poller);
    if (azs_unlikely(poller->nunverified > 0 && now_ns >= poller->verify_due_ns) &&
        azs_wait_verify(loop) < 0)
        return -1;
    if (timeout_ns > MAX_WAIT_NS)
        timeout_ns = MAX_WAIT_NS;
    bool verify =
        poller->nunverified > 0 && (timeout_ns < 0 || timeout_ns > VERIFY_IDLE_NS);
    if (verify)
        timeout_ns = VERIFY_IDLE_NS;
    int64_t spin_ns = 0;
    if (azs_unlikely(loop->busy_poll_ns > 0 && timeout_ns != 0))
        spin_ns = azs_poller_spin_time(loop, timeout_ns);
    int n;
    if (poller->gil_since_ns == 0)
        poller->gil_since_ns = now_ns;
    if (timeout_ns == 0 && now_ns - poller->gil_since_ns < GIL_OFFER_NS) {
        n = azs_sys_epoll_wait(poller->epfd, poller->events, AZS_POLL_EVENTS, 0);
    } else {
        int epfd = poller->epfd;
        struct epoll_event *events = poller->events;
        /* With the GIL held nothing can have come in since the caller saw an empty
         * queue; what comes in from now on ends the wait. */
#ifdef Py_GIL_DISABLED
        if (timeout_ns != 0 && !azs_inbox_may_sleep(loop))
            timeout_ns = spin_ns = 0;
#else
        loop->wakeup.sleeping = timeout_ns != 0;
#endif
        if (azs_unlikely(spin_ns > 0)) {
            uint64_t polls = 0;
            Py_BEGIN_ALLOW_THREADS
            n = azs_poller_spin(epfd, events, &spin_ns, &polls);
            Py_END_ALLOW_THREADS
            poller->spun_ns += spin_ns;
            AZS_COUNT(&loop->stats.busy_polls, polls);
        } else {
            if (timeout_ns != 0) {
                AZS_COUNT(&loop->stats.sleeps, 1);
                azs_handle_free_lists_trim(loop);
            }
            Py_BEGIN_ALLOW_THREADS
            n = azs_sys_epoll_wait(epfd, events, AZS_POLL_EVENTS, timeout_ns);
            Py_END_ALLOW_THREADS
        }
        poller->gil_since_ns = 0;
        AZS_ATOMIC_STORE(&loop->wakeup.sleeping, false);
    }
    azs_poller_note(loop, n, timeout_ns != 0);
    /* Waiting goes on in the next turn: after busy polling, too, where the signal
     * handlers below may have added timers. */
    if (azs_unlikely(verify && n == 0 && spin_ns == 0 && poller->epfd >= 0) &&
        azs_wait_verify(loop) < 0)
        return -1;
    for (int i = 0; i < n; i++) {
        if (dispatch_event(loop, poller->events[i].data.fd, poller->events[i].events) <
            0) {
            /* Edges are told once: the rest must not be lost. */
            for (; i < n; i++) {
                azs_fd *entry = azs_fd_lookup(poller, poller->events[i].data.fd);
                if (entry != NULL && entry->kept)
                    (void)azs_fd_sync(poller, poller->events[i].data.fd, entry, true);
            }
            return -1;
        }
    }
    if (azs_unlikely(n < 0 && n != -EINTR))
        return azs_set_errno(n);
    /* Signal handlers run here where no Python callback lets them in. */
    return PyErr_CheckSignals();
}

/* ---- collection and close ---- */

size_t
azs_poller_count(const azs_poller *poller)
{
    size_t count = 0;
    for (int fd = 0; fd < poller->nfds; fd++)
        count += azs_fd_wanted(&poller->fds[fd]) != 0;
    return count;
}

int
azs_poller_traverse(azs_poller *poller, visitproc visit, void *arg)
{
    for (int fd = 0; fd < poller->nfds; fd++) {
        azs_fd *entry = &poller->fds[fd];
        Py_VISIT(entry->reader);
        Py_VISIT(entry->writer);
        if (entry->watcher != NULL)
            Py_VISIT(entry->watcher->owner);
        if (entry->in_wait != NULL)
            Py_VISIT(entry->in_wait->owner);
        if (entry->out_wait != NULL)
            Py_VISIT(entry->out_wait->owner);
        Py_VISIT(entry->file);
        Py_VISIT(entry->object);
    }
    return 0;
}

void
azs_poller_close(LoopObject *loop)
{
    azs_poller *poller = &loop->poller;
    /* Detached first: finalizers below see a poller without fds. */
    azs_mutex_lock(&loop->inbox.mutex);
    azs_fd *fds = poller->fds;
    int nfds = poller->nfds;
    poller->fds = NULL;
    poller->nfds = 0;
    azs_mutex_unlock(&loop->inbox.mutex);
    poller->ndirty = poller->nunverified = 0;
    azs_sys_close(poller->epfd);
    poller->epfd = -1;
    /* All of them before the first finalizer runs. */
    for (int fd = 0; fd < nfds; fd++) {
        if (fds[fd].in_wait != NULL)
            fds[fd].in_wait->fd = -1;
        if (fds[fd].out_wait != NULL)
            fds[fd].out_wait->fd = -1;
    }
    for (int fd = 0; fd < nfds; fd++) {
        Py_XDECREF(fds[fd].reader);
        Py_XDECREF(fds[fd].writer);
        azs_watcher *watcher = fds[fd].watcher;
        if (watcher != NULL) {
            watcher->fd = -1;
            AZS_SET(&watcher->interest, 0);
            watcher->pending = 0;
            Py_DECREF(watcher->owner);
        }
        if (fds[fd].in_wait != NULL)
            Py_DECREF(fds[fd].in_wait->owner);
        if (fds[fd].out_wait != NULL)
            Py_DECREF(fds[fd].out_wait->owner);
        Py_XDECREF(fds[fd].file);
        Py_XDECREF(fds[fd].object);
    }
    free(fds);
    free(poller->dirty);
    poller->dirty = NULL;
    poller->dirty_capacity = 0;
    free(poller->unverified);
    poller->unverified = NULL;
    poller->unverified_capacity = 0;
    free(poller->events);
    poller->events = NULL;
}
