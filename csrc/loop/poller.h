/* epoll and the table of watched fds. */
#ifndef AZS_LOOP_POLLER_H
#define AZS_LOOP_POLLER_H

#include <sys/epoll.h>

#include "loop/handle.h"
#include "loop/watcher.h"

enum { AZS_POLL_EVENTS = 256 };

/* One fd. It has one watcher; or, for each direction, a handle (add_reader and
 * add_writer) or a wait (wait_ready.h). */
typedef struct {
    HandleObject *reader;  /* owned */
    HandleObject *writer;  /* owned */
    azs_watcher *watcher;  /* its owner is owned */
    azs_watcher *in_wait;  /* its owner is owned */
    azs_watcher *out_wait; /* its owner is owned */
    PyObject *file;        /* owned: weak reference to what `kept` is for, or NULL */
    PyObject *object;      /* owned with a handle: whose fileno() it was, or NULL */
    /* Edge-triggered events that stay registered between waits, 0 for none; not
     * 0 only where there is neither watcher nor handle. */
    uint32_t kept;
    uint32_t registered; /* what the kernel was told; 0 where not in epoll */
    bool dirty;          /* in the poller's dirty list */
    bool unverified;     /* in the poller's unverified list */
    bool unwanted;       /* an event found nobody waiting */
} azs_fd;

typedef struct {
    int epfd;    /* -1 while closed */
    azs_fd *fds; /* owned; indexed by fd */
    int nfds;
    /* fds whose wanted events may differ from `registered`; told to the kernel
     * before the next wait, so that toggling within a turn costs nothing. */
    int *dirty; /* owned */
    int ndirty, dirty_capacity;
    /* fds where a wait began without asking the kernel: see wait_ready.h. */
    int *unverified; /* owned */
    int nunverified, unverified_capacity;
    int64_t verify_due_ns;      /* while there are any */
    struct epoll_event *events; /* owned: AZS_POLL_EVENTS */
    /* When to poll while callbacks are ready: see azs_poller_is_due. */
    bool spare_next;      /* the latest poll brought events */
    unsigned vain_polls;  /* that did not, in a row */
    uint64_t sent_before; /* how much the loop had sent at the latest poll */
    int64_t polled_ns;    /* when that was */
    int64_t gil_since_ns; /* of the first poll since it gave the GIL up, or 0 */
    /* Busy polling: nanoseconds of it since the loop ran its `spun_after`th callback,
     * the latest then. */
    int64_t spun_ns;
    uint64_t spun_after;
} azs_poller;

/* 0 or -errno; close it in both cases. */
int azs_poller_init(azs_poller *poller);

/* Has the eventfd wake the poll up. 0 or -errno. */
int azs_poller_add_wakeup(azs_poller *poller, int efd);

/* Whether a turn that has callbacks to run polls first; called once a turn. */
bool azs_poller_is_due(LoopObject *loop, int64_t now_ns);

/* Something may come of what was done just now: the next turns poll. */
static inline void
azs_poller_start_anew(azs_poller *poller)
{
    poller->spare_next = false;
    poller->vain_polls = 0;
}

/* What azs_poller_is_due() goes by: a poll, which waited or not, has ended with `n`
 * events or -errno. */
void azs_poller_note(LoopObject *loop, int n, bool waited);

/* How long to poll without sleeping, up to timeout_ns (negative: no limit); 0 for not
 * at all. */
int64_t azs_poller_spin_time(LoopObject *loop, int64_t timeout_ns);

/* epoll_wait(2) again and again, without the GIL, for *spin_ns: the number of events,
 * or -errno; *spin_ns and *polls say what it took. */
int azs_poller_spin(int epfd, struct epoll_event *events, int64_t *spin_ns,
                    uint64_t *polls);

/* Waits up to timeout_ns (negative: for ever) with the GIL released and queues
 * what became ready. 0 (EINTR too), or -1 with an exception. */
int azs_poller_poll(LoopObject *loop, int64_t now_ns, int64_t timeout_ns);

/* Sets (handle owned by the caller, a reference is taken) or replaces the
 * reader or writer of an fd. The old one is cancelled. `object` is an int, or has the
 * fd for its fileno(). 0 or -1 with OSError. */
int azs_poller_set_handle(LoopObject *loop, int fd, bool writer, HandleObject *handle,
                          PyObject *object);

/* The fd that has a handle for this object, which may be closed by now; or -1. */
int azs_poller_fd_of(const azs_poller *poller, const PyObject *object);

/* 1 where there was a handle, which is cancelled; 0 where not; -1 error. */
int azs_poller_remove_handle(LoopObject *loop, int fd, bool writer);

/* The owner of the watcher of an fd; borrowed, NULL for none. */
PyObject *azs_poller_owner(azs_poller *poller, int fd);

/* How many fds are watched for something. */
size_t azs_poller_count(const azs_poller *poller);

int azs_poller_traverse(azs_poller *poller, visitproc visit, void *arg);

/* Forgets every fd and closes epoll; running it twice is harmless. */
void azs_poller_close(LoopObject *loop);

#endif
