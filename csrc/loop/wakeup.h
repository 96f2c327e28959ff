/* Waking the loop from other threads. */
#ifndef AZS_LOOP_WAKEUP_H
#define AZS_LOOP_WAKEUP_H

#include "loop/handle.h"

/* The ready queue is only touched with the GIL held, so other threads append to it
 * directly and order is kept; all that is left is to end the poll, once. */
typedef struct {
    int efd;       /* -1 while closed */
    bool sleeping; /* the loop waits, or is about to, and was not woken yet */
    /* Since Python 3.14 cancel() and cancelled() of a handle that another thread runs
     * wait for the end of its callback. The lock is held while one of them runs. */
    HandleObject *running; /* borrowed: from the queue, whose reference the turn has */
    unsigned long runner;  /* the thread that runs it */
    PyThread_type_lock lock; /* owned; NULL until it is needed */
} azs_wakeup;

/* 0 or -errno. */
int azs_wakeup_init(azs_wakeup *wakeup);

void azs_wakeup_close(azs_wakeup *wakeup);

/* Frees what outlives close(). */
void azs_wakeup_free(azs_wakeup *wakeup);

/* Wakes the loop, which sleeps. 0, or -1 with OSError. */
int azs_wakeup_signal(LoopObject *loop);

/* Runs a handle of call_soon_threadsafe() by `run`; others may wait for its end. 0, or
 * -1 with an exception. */
int azs_wakeup_run(LoopObject *loop, HandleObject *handle,
                   int (*run)(LoopObject *loop, HandleObject *handle));

/* In another thread than that which runs the handle: waits until its callback has
 * ended, with the GIL released. 0, or -1 with what a signal handler raised. */
int azs_wakeup_wait_for(HandleObject *handle);

#endif
