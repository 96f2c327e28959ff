/* The system calls the loop makes, each 0 (or a result) or -errno. */
#ifndef AZS_BASE_SYS_H
#define AZS_BASE_SYS_H

#include <sys/epoll.h>
#include <sys/socket.h>

#include "base/common.h"

int azs_sys_epoll_create(void);

/* epoll_ctl(2). */
int azs_sys_epoll_ctl(int epfd, int op, int fd, uint32_t events);

/* Waits for events at most `timeout_ns`; negative means for ever. Never returns
 * early by rounding: epoll_pwait2 where the kernel has it, else milliseconds
 * rounded up. The number of events, or -errno (-EINTR included). */
int azs_sys_epoll_wait(int epfd, struct epoll_event *events, int max,
                       int64_t timeout_ns);

int azs_sys_eventfd(void);

/* pidfd_open(2): readable once the process has ended; close-on-exec. */
int azs_sys_pidfd_open(int pid);

/* Adds one to the eventfd's counter; retries EINTR, ignores EAGAIN (the counter
 * is full, so its reader wakes up anyway). */
int azs_sys_eventfd_signal(int fd);

/* accept4(2), close-on-exec and non-blocking: the new descriptor. `len` is the
 * room for the address and becomes its length. Retries EINTR. */
int azs_sys_accept(int fd, struct sockaddr *addr, socklen_t room, socklen_t *len);

/* sendto(2), recvfrom(2): bytes or -errno. Retry EINTR, raise no SIGPIPE. `len` of the
 * address is its room and becomes its length. */
ssize_t azs_sys_sendto(int fd, const void *buf, size_t size,
                       const struct sockaddr *addr, socklen_t len);
ssize_t azs_sys_recvfrom(int fd, void *buf, size_t size, struct sockaddr *addr,
                         socklen_t *len);

/* sendmmsg(2) that never waits: datagrams or -errno. Retries EINTR. */
struct mmsghdr;
int azs_sys_sendmmsg(int fd, struct mmsghdr *messages, unsigned n);

void azs_sys_close(int fd);

/* fcntl(2) F_DUPFD_CLOEXEC: the new descriptor or -errno. */
int azs_sys_dup_cloexec(int fd);

/* Does the process have this descriptor? */
bool azs_sys_is_open(int fd);

#ifdef AZS_DEBUG
/* Tests make the `countdown`-th next call of the named wrapper fail with
 * `neg_errno`. The name is the wrapper's, without azs_sys_. */
void azs_sys_inject(const char *name, int neg_errno, int countdown);
#endif

#endif
