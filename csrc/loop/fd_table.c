/* What the table says of an fd, and telling epoll of it. */
#include "loop/fd_table.h"

#include <stdlib.h>
#include <string.h>

#include "base/sys.h"
#include "py/errors.h"

azs_fd *
azs_fd_get(LoopObject *loop, int fd)
{
    azs_poller *poller = &loop->poller;
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
        azs_mutex_lock(&loop->inbox.mutex); /* another thread may count them */
        azs_fd *fds = realloc(poller->fds, (size_t)nfds * sizeof(azs_fd));
        if (fds != NULL) {
            memset(fds + poller->nfds, 0,
                   (size_t)(nfds - poller->nfds) * sizeof(azs_fd));
            poller->fds = fds;
            poller->nfds = nfds;
        }
        azs_mutex_unlock(&loop->inbox.mutex);
        if (fds == NULL) {
            PyErr_NoMemory();
            return NULL;
        }
    }
    return &poller->fds[fd];
}

int
azs_fd_sync(azs_poller *poller, int fd, azs_fd *entry, bool verify)
{
    uint32_t wanted = azs_fd_wanted(entry);
    if (wanted == entry->registered && !(verify && wanted))
        return 0;
    if (wanted & ~entry->registered)
        azs_poller_start_anew(poller);
    int err;
    if (wanted == 0) {
        /* The caller closed it already? Then the kernel has forgotten it. */
        azs_sys_epoll_ctl(poller->epfd, EPOLL_CTL_DEL, fd, 0);
        AZS_SET(&entry->registered, 0);
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
    AZS_SET(&entry->registered, err < 0 ? 0 : wanted);
    return err;
}

int
azs_fd_list_push(int **list, int *count, int *capacity, int fd)
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

void
azs_fd_defer(azs_poller *poller, int fd, azs_fd *entry)
{
    uint32_t wanted = azs_fd_wanted(entry);
    if (wanted & ~entry->registered)
        azs_poller_start_anew(poller);
    if (entry->dirty || wanted == entry->registered)
        return;
    if (azs_fd_list_push(&poller->dirty, &poller->ndirty, &poller->dirty_capacity, fd) <
        0)
        (void)azs_fd_sync(poller, fd, entry, false);
    else
        entry->dirty = true;
}

void
azs_fd_flush(azs_poller *poller)
{
    for (int i = 0; i < poller->ndirty; i++) {
        int fd = poller->dirty[i];
        azs_fd *entry = &poller->fds[fd];
        entry->dirty = false;
        /* An error means that the fd was closed under its handles: there is no
         * caller left to tell, and nothing will become ready. If another file has the
         * number now, the kernel may have no room for that. */
        int err = azs_fd_sync(poller, fd, entry, false);
        if (azs_unlikely(azs_fd_is_no_room(err))) {
            azs_set_errno(err);
            PyErr_WriteUnraisable(entry->watcher != NULL ? entry->watcher->owner
                                                         : (PyObject *)entry->reader);
        }
    }
    poller->ndirty = 0;
}

void
azs_fd_dropped(azs_poller *poller, int fd, azs_fd *entry)
{
    if (azs_fd_wanted(entry) == 0)
        (void)azs_fd_sync(poller, fd, entry, false);
    else
        azs_fd_defer(poller, fd, entry);
}
