/* Waking the loop from other threads: one eventfd, one inbox. */
#ifndef AZS_LOOP_WAKEUP_H
#define AZS_LOOP_WAKEUP_H

#include <pthread.h>
#include <stdatomic.h>

#include "loop/handle.h"

typedef struct {
    int efd; /* -1 while closed */
    pthread_mutex_t lock; /* guards what follows */
    HandleObject **inbox; /* owned array of owned references */
    size_t count, capacity;
    bool sleeping; /* the loop waits, or is about to, and was not woken yet */
    atomic_bool filled; /* count > 0: may be read without the lock */
} azs_wakeup;

/* 0 or -errno. */
int azs_wakeup_init(azs_wakeup *wakeup);

/* The loop is about to block. False where the inbox has something: do not. */
bool azs_wakeup_may_sleep(azs_wakeup *wakeup);
void azs_wakeup_woke(azs_wakeup *wakeup);

/* Moves the inbox to the ready queue. 0, or -1 with MemoryError. */
int azs_wakeup_drain(LoopObject *loop);

int azs_wakeup_traverse(azs_wakeup *wakeup, visitproc visit, void *arg);
void azs_wakeup_clear(azs_wakeup *wakeup);
void azs_wakeup_close(azs_wakeup *wakeup);

#endif
