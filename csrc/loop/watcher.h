/* A C-level subscriber of one fd's readiness: what transports are built on.
 *
 * The owner embeds it; while it is started the loop owns a reference to the owner,
 * as asyncio's reader handles keep a transport alive. Readiness is delivered from the
 * ready queue, in order with handles, at most once a turn with all the events seen so
 * far; so a watcher that another callback stops in the same turn is not called.
 */
#ifndef AZS_LOOP_WATCHER_H
#define AZS_LOOP_WATCHER_H

#include "py/state.h"

typedef struct LoopObject LoopObject;
typedef struct azs_watcher azs_watcher;

/* Runs with the owner kept alive and no Context entered. 0, or -1 with an
 * exception, which the loop hands to its exception handler (KeyboardInterrupt
 * and SystemExit leave run_forever). `events` are EPOLL* bits. */
typedef int (*azs_watcher_cb)(azs_watcher *watcher, uint32_t events);

struct azs_watcher {
    azs_watcher_cb on_ready;
    PyObject *owner;   /* borrowed: embeds this; never NULL */
    uint32_t interest; /* EPOLLIN | EPOLLOUT wanted now; 0 while not started */
    uint32_t pending;  /* events to deliver while queued */
    int fd;            /* -1 while not started */
    bool queued;       /* in the ready queue, which then owns a ref to owner */
};

static inline void
azs_watcher_init(azs_watcher *watcher, PyObject *owner, azs_watcher_cb on_ready)
{
    *watcher = (azs_watcher){.on_ready = on_ready, .owner = owner, .fd = -1};
}

/* Starts watching `fd` for `interest`. 0, or -1 with OSError, or RuntimeError
 * where the fd has a watcher, a reader or a writer already. */
int azs_watcher_start(LoopObject *loop, azs_watcher *watcher, int fd,
                      uint32_t interest);

/* Changes the interest of a started watcher. 0, or -1 with OSError. */
int azs_watcher_modify(LoopObject *loop, azs_watcher *watcher, uint32_t interest);

/* Has `to` watch, for nothing yet, what the started `from` watches, which stops. The
 * kernel hears of it with the next change of interest, and may wake the loop for the
 * old one until then: that must be edge-triggered. No more than a stop where the loop
 * is closed. Drops the loop's reference to the owner of `from`. */
void azs_watcher_hand_over(LoopObject *loop, azs_watcher *from, azs_watcher *to);

/* Stops; pending events are forgotten. Harmless where it is not started or the
 * loop is closed. Call it before the fd is closed. Never fails. Drops the loop's
 * reference to the owner: the caller needs one of its own. */
void azs_watcher_stop(LoopObject *loop, azs_watcher *watcher);

/* Has on_ready called with `events` in the next turn, as if the fd were ready;
 * the loop does not block before that. 0, or -1 with MemoryError. */
int azs_watcher_post(LoopObject *loop, azs_watcher *watcher, uint32_t events);

/* Takes back what was posted: the watcher goes on with another loop. Only while `loop`
 * does not run; the caller holds the owner. */
void azs_watcher_unpost(LoopObject *loop, azs_watcher *watcher);

#endif
