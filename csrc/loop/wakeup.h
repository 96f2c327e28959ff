/* Waking the loop from other threads. */
#ifndef AZS_LOOP_WAKEUP_H
#define AZS_LOOP_WAKEUP_H

#include "loop/handle.h"

/* The ready queue is only touched with the GIL held, so other threads append to it
 * directly and order is kept; all that is left is to end the poll, once. */
typedef struct {
    int efd;       /* -1 while closed */
    bool sleeping; /* the loop waits, or is about to, and was not woken yet */
} azs_wakeup;

/* 0 or -errno. */
int azs_wakeup_init(azs_wakeup *wakeup);

void azs_wakeup_close(azs_wakeup *wakeup);

#endif
