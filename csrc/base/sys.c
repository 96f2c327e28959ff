#include "base/sys.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#ifdef AZS_DEBUG
/* One pending fault for the whole process: tests are single-threaded here. */
static char fault_name[32];
static int fault_errno, fault_countdown;

void
azs_sys_inject(const char *name, int neg_errno, int countdown)
{
    strncpy(fault_name, name, sizeof(fault_name) - 1);
    fault_errno = neg_errno;
    fault_countdown = countdown;
}

static int
fault(const char *name)
{
    if (fault_countdown > 0 && strcmp(name, fault_name) == 0 && --fault_countdown == 0)
        return fault_errno;
    return 0;
}
#define FAULT(name)                                                                    \
    do {                                                                               \
        int azs_err = fault(name);                                                     \
        if (azs_err < 0)                                                               \
            return azs_err;                                                            \
    } while (0)
/* For calls that are repeated on EINTR: true where this one fails, with errno set. */
static bool
fails(const char *name)
{
    int err = fault(name);
    errno = err < 0 ? -err : errno;
    return err < 0;
}
#define FAILS(name) fails(name)
#else
#define FAULT(name) ((void)0)
#define FAILS(name) false
#endif

int
azs_sys_epoll_create(void)
{
    FAULT("epoll_create");
    int fd = epoll_create1(EPOLL_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

int
azs_sys_epoll_ctl(int epfd, int op, int fd, uint32_t events)
{
    FAULT("epoll_ctl");
    struct epoll_event event = {.events = events, .data.fd = fd};
    return epoll_ctl(epfd, op, fd, &event) < 0 ? -errno : 0;
}

#ifdef SYS_epoll_pwait2
/* Kernel 5.11. glibc has a wrapper from 2.35 on; the raw call also serves older
 * ones. The time is two 64-bit words on every 64-bit ABI. */
static atomic_bool no_pwait2 = sizeof(long) < 8;
#endif

int
azs_sys_epoll_wait(int epfd, struct epoll_event *events, int max, int64_t timeout_ns)
{
    FAULT("epoll_wait");
    int n;
#ifdef SYS_epoll_pwait2
    if (timeout_ns > 0 && !atomic_load_explicit(&no_pwait2, memory_order_relaxed)) {
        struct timespec ts = {timeout_ns / 1000000000, timeout_ns % 1000000000};
        n = (int)syscall(SYS_epoll_pwait2, epfd, events, max, &ts, NULL, 0);
        if (n >= 0)
            return n;
        /* Sandboxes are known to answer EPERM for calls they do not know. */
        if (errno != ENOSYS && errno != EPERM)
            return -errno;
        atomic_store_explicit(&no_pwait2, true, memory_order_relaxed);
    }
#endif
    int timeout_ms = -1;
    if (timeout_ns >= 0) {
        int64_t ms = timeout_ns / 1000000 + (timeout_ns % 1000000 != 0);
        timeout_ms = ms > INT_MAX ? INT_MAX : (int)ms;
    }
    n = epoll_wait(epfd, events, max, timeout_ms);
    return n < 0 ? -errno : n;
}

int
azs_sys_eventfd(void)
{
    FAULT("eventfd");
    int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    return fd < 0 ? -errno : fd;
}

int
azs_sys_pidfd_open(int pid)
{
#ifdef SYS_pidfd_open
    long fd = syscall(SYS_pidfd_open, pid, 0);
#else
    long fd = syscall(434, pid, 0); /* on every architecture but Alpha */
#endif
    return fd < 0 ? -errno : (int)fd;
}

int
azs_sys_eventfd_signal(int fd)
{
    FAULT("eventfd_signal");
    uint64_t one = 1;
    for (;;) {
        if (write(fd, &one, sizeof(one)) >= 0 || errno == EAGAIN)
            return 0;
        if (errno != EINTR)
            return -errno;
    }
}

/* accept(2), for sandboxes that do not know the newer call. The result as that of
 * accept4(2). */
static int
accept_plain(int fd, struct sockaddr *addr, socklen_t *len)
{
    int conn = accept(fd, addr, len);
    if (conn < 0)
        return -1;
    if (fcntl(conn, F_SETFD, FD_CLOEXEC) < 0 || fcntl(conn, F_SETFL, O_NONBLOCK) < 0) {
        int err = errno;
        close(conn);
        errno = err;
        return -1;
    }
    return conn;
}

int
azs_sys_accept(int fd, struct sockaddr *addr, socklen_t room, socklen_t *len)
{
    FAULT("accept");
    int conn;
    do {
        *len = room;
        conn = accept4(fd, addr, len, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (azs_unlikely(conn < 0 && errno == ENOSYS))
            conn = accept_plain(fd, addr, len);
    } while (conn < 0 && errno == EINTR);
    return conn < 0 ? -errno : conn;
}

ssize_t
azs_sys_sendto(int fd, const void *buf, size_t size, const struct sockaddr *addr,
               socklen_t len)
{
    ssize_t n;
    do {
        n = FAILS("sendto") ? -1 : sendto(fd, buf, size, MSG_NOSIGNAL, addr, len);
    } while (azs_unlikely(n < 0) && errno == EINTR);
    return n < 0 ? -errno : n;
}

ssize_t
azs_sys_recvfrom(int fd, void *buf, size_t size, struct sockaddr *addr, socklen_t *len)
{
    socklen_t room = *len;
    ssize_t n;
    do {
        *len = room;
        n = FAILS("recvfrom") ? -1 : recvfrom(fd, buf, size, 0, addr, len);
    } while (azs_unlikely(n < 0) && errno == EINTR);
    return n < 0 ? -errno : n;
}

int
azs_sys_sendmmsg(int fd, struct mmsghdr *messages, unsigned n)
{
    int sent;
    do {
        sent = FAILS("sendmmsg")
                   ? -1
                   : sendmmsg(fd, messages, n, MSG_NOSIGNAL | MSG_DONTWAIT);
    } while (azs_unlikely(sent < 0) && errno == EINTR);
    return sent < 0 ? -errno : sent;
}

void
azs_sys_close(int fd)
{
    /* Linux closes the descriptor even where close(2) reports EINTR. */
    if (fd >= 0)
        close(fd);
}

int
azs_sys_dup_cloexec(int fd)
{
    int copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    return copy < 0 ? -errno : copy;
}

bool
azs_sys_is_open(int fd)
{
    return fcntl(fd, F_GETFD) >= 0;
}
