#include "loop/wait_ready.h"

#include "loop/fd_table.h"
#include "py/errors.h"

/* How long a wait on a registration that is lost goes unnoticed in a busy loop. */
#define VERIFY_BUSY_NS (1 * AZS_NS_PER_S)

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
        entry = azs_fd_get(loop, fd);
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
    azs_watcher *old_wait = azs_fd_take_wait(entry, writer);
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
    PyObject *old_file = entry->file, *old_object = azs_fd_take_object(entry);
    entry->file = ref;
    entry->unwanted = false;
    int err = azs_fd_sync(&loop->poller, fd, entry, true);
    if (err < 0) {
        (void)azs_fd_take_wait(entry, writer);
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
    if (azs_loop_check_usable(loop) < 0 || azs_loop_check_thread(loop) < 0)
        return -1;
    azs_poller *poller = &loop->poller;
    azs_fd *entry = azs_fd_lookup(poller, fd);
    if (entry == NULL || !(entry->kept & direction) || !fd_is_of(entry, file))
        return wait_start_registering(loop, wait, fd, direction, file);
    if (!entry->unverified) {
        if (azs_fd_list_push(&poller->unverified, &poller->nunverified,
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
    azs_fd *entry = azs_fd_lookup(&loop->poller, fd);
    assert(entry != NULL && (entry->in_wait == wait || entry->out_wait == wait));
    (void)azs_fd_take_wait(entry, entry->out_wait == wait);
    if (!entry->kept && loop->fork_generation == azs_fork_generation)
        azs_fd_dropped(&loop->poller, fd, entry);
    Py_DECREF(wait->owner);
}

int
azs_wait_fire(LoopObject *loop, azs_fd *entry, bool writer, uint32_t events)
{
    azs_watcher *wait = writer ? entry->out_wait : entry->in_wait;
    if (azs_watcher_post(loop, wait, events) < 0)
        return -1;
    (void)azs_fd_take_wait(entry, writer);
    Py_DECREF(wait->owner); /* the queue has one too: never the last */
    return 0;
}

int
azs_wait_dispatch(LoopObject *loop, int fd, azs_fd *entry, uint32_t events)
{
    bool fired = false;
    if (entry->in_wait != NULL && (events & ~(uint32_t)EPOLLOUT)) {
        if (azs_wait_fire(loop, entry, false, events) < 0)
            return -1;
        fired = true;
    }
    if (entry->out_wait != NULL && (events & (EPOLLOUT | EPOLLERR | EPOLLHUP))) {
        if (azs_wait_fire(loop, entry, true, events) < 0)
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
    azs_fd_defer(&loop->poller, fd, entry);
    return 0;
}

int
azs_wait_verify(LoopObject *loop)
{
    azs_poller *poller = &loop->poller;
    int res = 0;
    for (int i = 0; i < poller->nunverified; i++) {
        int fd = poller->unverified[i];
        azs_fd *entry = &poller->fds[fd];
        entry->unverified = false;
        if (!entry->kept || (entry->in_wait == NULL && entry->out_wait == NULL))
            continue;
        if (azs_likely(!azs_fd_is_no_room(azs_fd_sync(poller, fd, entry, true))))
            continue;
        /* They try again, and if they must wait still, they hear of it. */
        entry->kept = 0;
        for (int writer = 0; writer < 2; writer++) {
            if ((writer ? entry->out_wait : entry->in_wait) != NULL &&
                azs_wait_fire(loop, entry, writer, EPOLLERR) < 0)
                res = -1;
        }
    }
    poller->nunverified = 0;
    return res;
}
