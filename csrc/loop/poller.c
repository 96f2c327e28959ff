#include "loop/poller.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/sys.h"
#include "loop/loop_object.h"
#include "loop/wait_ready.h"
#include "py/errors.h"

/* asyncio's MAXIMUM_SELECT_TIMEOUT: one day. */
#define MAX_WAIT_NS (INT64_C(24) * 3600 * AZS_NS_PER_S)

/* A poll that does not wait keeps the GIL: giving it up among busy threads can cost a
 * whole switch interval (5 ms). It is offered this often, lest callbacks in C keep it.
 */
#define GIL_OFFER_NS (4 * AZS_NS_PER_MS)

/* How long a wait on a registration that is lost goes unnoticed: in a loop that
 * is idle, and in one that never is. */
#define VERIFY_IDLE_NS (50 * AZS_NS_PER_MS)
#define VERIFY_BUSY_NS (1 * AZS_NS_PER_S)

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
        /* A bad number must not make the table huge. The kernel's own limit on
         * descriptors is far below this one. */
        if (fd > 1 << 26 || !azs_sys_is_open(fd)) {
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
    if (entry->kept)
        return entry->kept;
    return (entry->reader != NULL || entry->in_wait != NULL ? EPOLLIN : 0u) |
           (entry->writer != NULL || entry->out_wait != NULL ? EPOLLOUT : 0u);
}

/* Tells the kernel what is wanted of the fd. 0 or -errno. */
static int
fd_sync(azs_poller *poller, int fd, azs_fd *entry, bool verify)
{
    uint32_t wanted = fd_wanted(entry);
    if (wanted == entry->registered && !(verify && wanted))
        return 0;
    if (wanted & ~entry->registered)
        azs_poller_start_anew(poller);
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

/* Appends to a list of fds. 0 or -ENOMEM. */
static int
fd_list_push(int **list, int *count, int *capacity, int fd)
{
    if (*count == *capacity) {
        int grown_capacity = *capacity ? *capacity * 2 : 64;
        int *grown = realloc(*list, (size_t)grown_capacity * sizeof(int));
        if (grown == NULL)
            return -ENOMEM;
        *list = grown;
        *capacity = grown_capacity;
    }
    (*list)[(*count)++] = fd;
    return 0;
}

/* Has the fd synchronised before the next wait. Where the list cannot grow it
 * is done at once. */
static void
fd_defer(azs_poller *poller, int fd, azs_fd *entry)
{
    uint32_t wanted = fd_wanted(entry);
    if (wanted & ~entry->registered)
        azs_poller_start_anew(poller);
    if (entry->dirty || wanted == entry->registered)
        return;
    if (fd_list_push(&poller->dirty, &poller->ndirty, &poller->dirty_capacity, fd) < 0)
        (void)fd_sync(poller, fd, entry, false);
    else
        entry->dirty = true;
}

/* The kernel has no room to watch the fd, as opposed to a file that is closed or that
 * cannot be watched. */
static inline bool
is_no_room(int err)
{
    return err == -ENOSPC || err == -ENOMEM;
}

static void
poller_flush(azs_poller *poller)
{
    for (int i = 0; i < poller->ndirty; i++) {
        int fd = poller->dirty[i];
        azs_fd *entry = &poller->fds[fd];
        entry->dirty = false;
        /* An error means that the fd was closed under its handles: there is no
         * caller left to tell, and nothing will become ready. If another file has the
         * number now, the kernel may have no room for that. */
        int err = fd_sync(poller, fd, entry, false);
        if (azs_unlikely(is_no_room(err))) {
            azs_set_errno(err);
            PyErr_WriteUnraisable(entry->watcher != NULL ? entry->watcher->owner
                                                         : (PyObject *)entry->reader);
        }
    }
    poller->ndirty = 0;
}

/* Something of the fd was let go. The caller is about to close it, maybe: a
 * number that is reused while we believe it registered would never become
 * ready. So the last interest goes at once. */
static void
fd_dropped_interest(azs_poller *poller, int fd, azs_fd *entry)
{
    if (fd_wanted(entry) == 0)
        (void)fd_sync(poller, fd, entry, false);
    else
        fd_defer(poller, fd, entry);
}

/* Takes the wait of a direction, or NULL, out of the table; the table's
 * reference to its owner is the caller's now. */
static azs_watcher *
fd_take_wait(azs_fd *entry, bool writer)
{
    azs_watcher **slot = writer ? &entry->out_wait : &entry->in_wait;
    azs_watcher *wait = *slot;
    if (wait != NULL) {
        *slot = NULL;
        wait->fd = -1;
    }
    return wait;
}

/* ---- handles ---- */

/* The object that the handles were for, where none is left; the reference is the
 * caller's. Else NULL. */
static PyObject *
fd_take_object(azs_fd *entry)
{
    PyObject *object = entry->object;
    if (object == NULL || entry->reader != NULL || entry->writer != NULL)
        return NULL;
    entry->object = NULL;
    return object;
}

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
    azs_fd *entry = fd_get(poller, fd);
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
    azs_watcher *old_wait = fd_take_wait(entry, writer);
    bool verify = old != NULL || old_wait != NULL || entry->kept;
    entry->kept = 0;
    /* New to epoll, or a second registration: an error belongs to the caller.
     * Otherwise the change can wait, it may be undone. */
    int err = 0;
    if (entry->registered == 0 || verify) {
        err = fd_sync(poller, fd, entry, verify);
        if (err < 0)
            *slot = old;
    } else {
        fd_defer(poller, fd, entry);
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
    azs_fd *entry = fd_lookup(poller, fd);
    if (entry == NULL)
        return 0;
    HandleObject **slot = writer ? &entry->writer : &entry->reader;
    HandleObject *old = *slot;
    azs_watcher *old_wait = fd_take_wait(entry, writer);
    if (old == NULL && old_wait == NULL)
        return 0;
    *slot = NULL;
    entry->kept = 0;
    PyObject *object = fd_take_object(entry);
    fd_dropped_interest(poller, fd, entry);
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
    /* Waits end without a word, as where add_reader() replaces them. */
    azs_watcher *in_wait = fd_take_wait(entry, false);
    azs_watcher *out_wait = fd_take_wait(entry, true);
    bool verify = entry->kept || in_wait != NULL || out_wait != NULL;
    entry->kept = 0;
    int err = fd_sync(&loop->poller, fd, entry, verify);
    if (err < 0) {
        entry->watcher = NULL;
        watcher->interest = 0;
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
    azs_fd *entry = fd_lookup(&loop->poller, watcher->fd);
    if (entry == NULL || entry->watcher != watcher)
        return 0; /* stopped, or the loop is closed */
    uint32_t before = watcher->interest;
    watcher->interest = interest;
    if (entry->registered != 0) {
        fd_defer(&loop->poller, watcher->fd, entry);
        return 0;
    }
    /* New to epoll: an error belongs to the caller. */
    int err = fd_sync(&loop->poller, watcher->fd, entry, false);
    if (err == 0)
        return 0;
    watcher->interest = before;
    return azs_set_errno(err);
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

void
azs_watcher_hand_over(LoopObject *loop, azs_watcher *from, azs_watcher *to)
{
    azs_fd *entry = fd_lookup(&loop->poller, from->fd);
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
    azs_fd *entry = fd_lookup(poller, fd);
    return entry == NULL || entry->watcher == NULL ? NULL : entry->watcher->owner;
}

/* ---- waits ---- */

/* Urgent data and a hang-up come with EPOLLIN or where EPOLLIN is wanted; they are
 * asked for because they tell when a short read is not the end of the data. */
#define WAIT_IN  ((uint32_t)(EPOLLIN | EPOLLRDHUP | EPOLLPRI))
#define WAIT_OUT ((uint32_t)EPOLLOUT)

static inline bool
fd_is_of(const azs_fd *entry, const PyObject *file)
{
    /* Compared only: the referent may be dead, and then it is None. */
    return entry->file != NULL && ((PyWeakReference *)entry->file)->wr_object == file;
}

/* Starts a wait with epoll told. */
static int
wait_start_registering(LoopObject *loop, azs_watcher *wait, int fd, uint32_t direction,
                       PyObject *file)
{
    PyObject *ref = PyWeakref_NewRef(file, NULL);
    if (ref == NULL)
        return -1;
    /* The allocation may have run finalizers, and one of them loop.close(). */
    azs_fd *entry = NULL;
    if (azs_loop_check_usable(loop) == 0)
        entry = fd_get(&loop->poller, fd);
    if (entry != NULL && entry->watcher != NULL) {
        PyErr_Format(PyExc_RuntimeError, "File descriptor %d is used by transport %R",
                     fd, entry->watcher->owner);
        entry = NULL;
    }
    if (entry == NULL) {
        Py_DECREF(ref);
        return -1;
    }
    bool writer = direction == EPOLLOUT;
    HandleObject **handle_slot = writer ? &entry->writer : &entry->reader;
    HandleObject *old = *handle_slot;
    azs_watcher *old_wait = fd_take_wait(entry, writer);
    *handle_slot = NULL;
    *(writer ? &entry->out_wait : &entry->in_wait) = wait;
    if (entry->reader != NULL || entry->writer != NULL) {
        entry->kept = 0; /* handles are level-triggered */
    } else {
        /* Reading goes on, writing seldom waits again. */
        bool in = entry->in_wait != NULL ||
                  ((entry->kept & EPOLLIN) && fd_is_of(entry, file));
        entry->kept =
            EPOLLET | (in ? WAIT_IN : 0) | (entry->out_wait != NULL ? WAIT_OUT : 0);
    }
    PyObject *old_file = entry->file, *old_object = fd_take_object(entry);
    entry->file = ref;
    entry->unwanted = false;
    int err = fd_sync(&loop->poller, fd, entry, true);
    if (err < 0) {
        (void)fd_take_wait(entry, writer);
        entry->kept = 0;
    } else {
        wait->fd = fd;
        Py_INCREF(wait->owner);
    }
    /* Runs finalizers: `entry` is stale after it. */
    Py_XDECREF(old_file);
    Py_XDECREF(old_object);
    if (old_wait != NULL)
        Py_DECREF(old_wait->owner);
    int res = 0;
    if (old != NULL) {
        res = azs_handle_cancel(old);
        Py_DECREF(old);
    }
    if (err < 0)
        return azs_set_errno(err);
    if (res < 0)
        azs_wait_stop(loop, wait);
    return res;
}

int
azs_wait_start(LoopObject *loop, azs_watcher *wait, int fd, uint32_t direction,
               PyObject *file)
{
    assert(wait->fd == -1);
    if (azs_loop_check_usable(loop) < 0)
        return -1;
    azs_poller *poller = &loop->poller;
    azs_fd *entry = fd_lookup(poller, fd);
    if (entry == NULL || !(entry->kept & direction) || !fd_is_of(entry, file))
        return wait_start_registering(loop, wait, fd, direction, file);
    if (!entry->unverified) {
        if (fd_list_push(&poller->unverified, &poller->nunverified,
                         &poller->unverified_capacity, fd) < 0) {
            PyErr_NoMemory();
            return -1;
        }
        entry->unverified = true;
        if (poller->nunverified == 1)
            poller->verify_due_ns = poller->polled_ns + VERIFY_BUSY_NS;
    }
    azs_watcher **slot = direction == EPOLLOUT ? &entry->out_wait : &entry->in_wait;
    azs_watcher *old = *slot;
    *slot = wait;
    wait->fd = fd;
    Py_INCREF(wait->owner);
    entry->unwanted = false;
    if (old != NULL) {
        old->fd = -1;
        Py_DECREF(old->owner); /* runs finalizers */
    }
    return 0;
}

void
azs_wait_stop(LoopObject *loop, azs_watcher *wait)
{
    wait->pending = 0;
    if (wait->fd < 0)
        return;
    int fd = wait->fd;
    azs_fd *entry = fd_lookup(&loop->poller, fd);
    assert(entry != NULL && (entry->in_wait == wait || entry->out_wait == wait));
    (void)fd_take_wait(entry, entry->out_wait == wait);
    if (!entry->kept && loop->fork_generation == azs_fork_generation)
        fd_dropped_interest(&loop->poller, fd, entry);
    Py_DECREF(wait->owner);
}

/* Queues a wait that is over. 0, or -1 with MemoryError. */
static int
wait_fire(LoopObject *loop, azs_fd *entry, bool writer, uint32_t events)
{
    azs_watcher *wait = writer ? entry->out_wait : entry->in_wait;
    if (azs_watcher_post(loop, wait, events) < 0)
        return -1;
    (void)fd_take_wait(entry, writer);
    Py_DECREF(wait->owner); /* the queue has one too: never the last */
    return 0;
}

/* An event of a kept registration. */
static int
dispatch_kept(LoopObject *loop, int fd, azs_fd *entry, uint32_t events)
{
    bool fired = false;
    if (entry->in_wait != NULL && (events & ~(uint32_t)EPOLLOUT)) {
        if (wait_fire(loop, entry, false, events) < 0)
            return -1;
        fired = true;
    }
    if (entry->out_wait != NULL && (events & (EPOLLOUT | EPOLLERR | EPOLLHUP))) {
        if (wait_fire(loop, entry, true, events) < 0)
            return -1;
        fired = true;
    }
    if (fired)
        return 0;
    /* Nobody waits. Room to write is no longer of interest; news to read may be
     * once more, but then they are left alone: the socket is somebody else's now,
     * or is closed while a duplicate is not. */
    if (!(events & ~(uint32_t)EPOLLOUT)) {
        entry->kept &= ~WAIT_OUT;
        if (entry->kept == EPOLLET)
            entry->kept = 0;
    } else if (entry->unwanted) {
        entry->kept = 0;
    }
    entry->unwanted = true;
    fd_defer(&loop->poller, fd, entry);
    return 0;
}

/* Has epoll look again at the fds of waits that began without asking it. 0, or -1 with
 * MemoryError. */
static int
poller_verify(LoopObject *loop)
{
    azs_poller *poller = &loop->poller;
    int res = 0;
    for (int i = 0; i < poller->nunverified; i++) {
        int fd = poller->unverified[i];
        azs_fd *entry = &poller->fds[fd];
        entry->unverified = false;
        if (!entry->kept || (entry->in_wait == NULL && entry->out_wait == NULL))
            continue;
        if (azs_likely(!is_no_room(fd_sync(poller, fd, entry, true))))
            continue;
        /* They try again, and if they must wait still, they hear of it. */
        entry->kept = 0;
        for (int writer = 0; writer < 2; writer++) {
            if ((writer ? entry->out_wait : entry->in_wait) != NULL &&
                wait_fire(loop, entry, writer, EPOLLERR) < 0)
                res = -1;
        }
    }
    poller->nunverified = 0;
    return res;
}

/* ---- polling ---- */

/* Queues a handle; one that was cancelled by itself watches no more, as in asyncio.
 * 0, or -1 with an exception. */
static int
handle_fire(LoopObject *loop, int fd, bool writer)
{
    azs_fd *entry = fd_lookup(&loop->poller, fd);
    HandleObject *handle = entry == NULL ? NULL
                           : writer      ? entry->writer
                                         : entry->reader;
    if (handle == NULL)
        return 0;
    if (azs_unlikely(handle->cancelled))
        return azs_poller_remove_handle(loop, fd, writer) < 0 ? -1 : 0;
    return azs_ready_push_handle(loop, handle);
}

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
    if (entry->kept)
        return dispatch_kept(loop, fd, entry, events);
    /* As asyncio: an error or hang-up wakes both sides. */
    if (events & ~(uint32_t)EPOLLOUT) {
        if (handle_fire(loop, fd, false) < 0)
            return -1;
        entry = fd_lookup(poller, fd);
        if (entry != NULL && entry->in_wait != NULL &&
            wait_fire(loop, entry, false, events) < 0)
            return -1;
    }
    if (events & ~(uint32_t)EPOLLIN) {
        if (handle_fire(loop, fd, true) < 0)
            return -1;
        entry = fd_lookup(poller, fd);
        if (entry != NULL && entry->out_wait != NULL &&
            wait_fire(loop, entry, true, events) < 0)
            return -1;
    }
    entry = fd_lookup(poller, fd); /* finalizers may have run */
    if (entry != NULL)
        fd_defer(poller, fd, entry); /* a wait may be over */
    return 0;
}

int
azs_poller_poll(LoopObject *loop, int64_t now_ns, int64_t timeout_ns)
{
    azs_poller *poller = &loop->poller;
    /* A callback forked, and this is the child: epoll is the parent's. */
    if (azs_unlikely(loop->fork_generation != azs_fork_generation))
        return azs_loop_fail_forked();
    loop->stats.polls++;
    poller->polled_ns = now_ns;
    poller_flush(poller);
    if (azs_unlikely(poller->nunverified > 0 && now_ns >= poller->verify_due_ns) &&
        poller_verify(loop) < 0)
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
        loop->wakeup.sleeping = timeout_ns != 0;
        if (azs_unlikely(spin_ns > 0)) {
            uint64_t polls = 0;
            Py_BEGIN_ALLOW_THREADS
            n = azs_poller_spin(epfd, events, &spin_ns, &polls);
            Py_END_ALLOW_THREADS
            poller->spun_ns += spin_ns;
            loop->stats.busy_polls += polls;
        } else {
            if (timeout_ns != 0) {
                loop->stats.sleeps++;
                azs_handle_free_lists_trim(loop->st);
            }
            Py_BEGIN_ALLOW_THREADS
            n = azs_sys_epoll_wait(epfd, events, AZS_POLL_EVENTS, timeout_ns);
            Py_END_ALLOW_THREADS
        }
        poller->gil_since_ns = 0;
        loop->wakeup.sleeping = false;
    }
    azs_poller_note(loop, n, timeout_ns != 0);
    /* Waiting goes on in the next turn: after busy polling, too, where the signal
     * handlers below may have added timers. */
    if (azs_unlikely(verify && n == 0 && spin_ns == 0 && poller->epfd >= 0) &&
        poller_verify(loop) < 0)
        return -1;
    for (int i = 0; i < n; i++) {
        if (dispatch_event(loop, poller->events[i].data.fd, poller->events[i].events) <
            0) {
            /* Edges are told once: the rest must not be lost. */
            for (; i < n; i++) {
                azs_fd *entry = fd_lookup(poller, poller->events[i].data.fd);
                if (entry != NULL && entry->kept)
                    (void)fd_sync(poller, poller->events[i].data.fd, entry, true);
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
        count += fd_wanted(&poller->fds[fd]) != 0;
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
    azs_fd *fds = poller->fds;
    int nfds = poller->nfds;
    poller->fds = NULL;
    poller->nfds = 0;
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
            watcher->interest = watcher->pending = 0;
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
