/* Waiting once for one direction of an fd: what sock_* operations are built on.
 *
 * A wait is an azs_watcher that is not started but put into the fd's reader or
 * writer place, where add_reader() and add_writer() put handles: one replaces
 * the other, as in asyncio. Readiness ends it; azs_watcher.on_ready is called
 * from the ready queue.
 *
 * An operation follows another on the same socket, and telling epoll of each
 * would cost two system calls. So the registration is kept after the wait, edge-
 * triggered: nobody tells us when the socket is closed, and a level-triggered
 * one would spin where a duplicate of the descriptor, in a forked child say,
 * keeps the file open (epoll(7), Q6). What makes that safe:
 *
 * - A kept registration is used again only for the very same socket object (a
 *   weak reference tells), so a descriptor number that was closed and used
 *   again is registered again.
 * - A wait begins only where the kernel has said EAGAIN since the last event. That a
 *   read was short says less: with SO_RCVLOWAT what comes then may be no event, and
 *   what has come is to be had without waiting, by a read in asyncio.timeout(0), say.
 * - Whatever the user does behind our back, dup2() onto the descriptor say,
 *   a wait that rests on a kept registration has epoll asked to look again once
 *   the loop has been idle for a moment.
 */
#ifndef AZS_LOOP_WAIT_READY_H
#define AZS_LOOP_WAIT_READY_H

#include "loop/watcher.h"

/* Starts a wait for `direction`, EPOLLIN or EPOLLOUT; `file` is the socket object
 * (with weak references) that fd is the descriptor of. A handle or a wait in its
 * place is cancelled. 0, or -1 with OSError, or RuntimeError where a transport
 * uses the fd or the loop is closed. May run Python code. */
int azs_wait_start(LoopObject *loop, azs_watcher *wait, int fd, uint32_t direction,
                   PyObject *file);

/* Ends a wait, on its way to on_ready included; harmless where there is none.
 * Drops the loop's reference to the owner: the caller needs one of its own. */
void azs_wait_stop(LoopObject *loop, azs_watcher *wait);

#endif
