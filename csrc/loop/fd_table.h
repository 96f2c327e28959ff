/* The table of watched fds, for the files that fill it: poller.c and wait_ready.c. */
#ifndef AZS_LOOP_FD_TABLE_H
#define AZS_LOOP_FD_TABLE_H

#include <errno.h>

#include "loop/loop_object.h"

static inline azs_fd *
azs_fd_lookup(azs_poller *poller, int fd)
{
    return fd >= 0 && fd < poller->nfds ? &poller->fds[fd] : NULL;
}

static inline uint32_t
azs_fd_wanted(const azs_fd *entry)
{
    if (entry->watcher != NULL)
        return entry->watcher->interest;
    if (entry->kept)
        return entry->kept;
    return (entry->reader != NULL || entry->in_wait != NULL ? EPOLLIN : 0u) |
           (entry->writer != NULL || entry->out_wait != NULL ? EPOLLOUT : 0u);
}

/* The kernel has no room to watch the fd, as opposed to a file that is closed or that
 * cannot be watched. */
static inline bool
azs_fd_is_no_room(int err)
{
    return err == -ENOSPC || err == -ENOMEM;
}

/* Takes the wait of a direction, or NULL, out of the table; the table's
 * reference to its owner is the caller's now. */
static inline azs_watcher *
azs_fd_take_wait(azs_fd *entry, bool writer)
{
    azs_watcher **slot = writer ? &entry->out_wait : &entry->in_wait;
    azs_watcher *wait = *slot;
    if (wait != NULL) {
        *slot = NULL;
        wait->fd = -1;
    }
    return wait;
}

/* The object that the handles were for, where none is left; the reference is the
 * caller's. Else NULL. */
static inline PyObject *
azs_fd_take_object(azs_fd *entry)
{
    PyObject *object = entry->object;
    if (object == NULL || entry->reader != NULL || entry->writer != NULL)
        return NULL;
    entry->object = NULL;
    return object;
}

/* The fd's entry, made where needed; NULL with an exception. */
azs_fd *azs_fd_get(LoopObject *loop, int fd);

/* Tells the kernel what is wanted of the fd. 0 or -errno. */
int azs_fd_sync(azs_poller *poller, int fd, azs_fd *entry, bool verify);

/* Appends to a list of fds. 0 or -ENOMEM. */
int azs_fd_list_push(int **list, int *count, int *capacity, int fd);

/* Has the fd synchronised before the next wait. Where the list cannot grow it
 * is done at once. */
void azs_fd_defer(azs_poller *poller, int fd, azs_fd *entry);

/* Tells the kernel of all that was put off. */
void azs_fd_flush(azs_poller *poller);

/* Something of the fd was let go. The caller is about to close it, maybe: a
 * number that is reused while we believe it registered would never become
 * ready. So the last interest goes at once. */
void azs_fd_dropped(azs_poller *poller, int fd, azs_fd *entry);

/* ---- wait_ready.c ---- */

/* Queues a wait that is over. 0, or -1 with MemoryError. */
int azs_wait_fire(LoopObject *loop, azs_fd *entry, bool writer, uint32_t events);

/* An event of a kept registration. */
int azs_wait_dispatch(LoopObject *loop, int fd, azs_fd *entry, uint32_t events);

/* Has epoll look again at the fds of waits that began without asking it. 0, or -1 with
 * MemoryError. */
int azs_wait_verify(LoopObject *loop);

#endif
