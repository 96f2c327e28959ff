#include "base/ticker.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>

#include "base/clock.h"

typedef struct {
    azs_ticker shown; /* first */
    int64_t period_ns;
    pthread_t thread;
    pthread_mutex_t mutex; /* guards `stopping` */
    pthread_cond_t stopped;
    bool stopping;
} ticker_all;

static void *
ticker_run(void *arg)
{
    ticker_all *self = arg;
    pthread_mutex_lock(&self->mutex);
    while (!self->stopping) {
        atomic_fetch_add_explicit(&self->shown.ticks, 1, memory_order_relaxed);
        /* From now on: after a time without a processor there is nothing to catch up.
         */
        int64_t due_ns = azs_clock_ns() + self->period_ns;
        struct timespec due = {.tv_sec = (time_t)(due_ns / AZS_NS_PER_S),
                               .tv_nsec = (long)(due_ns % AZS_NS_PER_S)};
        while (!self->stopping &&
               pthread_cond_timedwait(&self->stopped, &self->mutex, &due) == 0)
            continue;
    }
    pthread_mutex_unlock(&self->mutex);
    return NULL;
}

/* The thread takes no signals: Python's handlers belong to the others. 0 or -errno. */
static int
ticker_create_thread(ticker_all *self)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int err = pthread_create(&self->thread, NULL, ticker_run, self);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return -err;
}

int
azs_ticker_start(azs_ticker **ticker, int64_t period_ns)
{
    ticker_all *self = calloc(1, sizeof(*self));
    if (self == NULL)
        return -ENOMEM;
    self->period_ns = period_ns;
    pthread_condattr_t attr;
    pthread_condattr_init(&attr); /* cannot fail on Linux, nor the two inits below */
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&self->stopped, &attr);
    pthread_condattr_destroy(&attr);
    pthread_mutex_init(&self->mutex, NULL);
    int err = ticker_create_thread(self);
    if (err < 0) {
        free(self);
        return err;
    }
    *ticker = &self->shown;
    return 0;
}

void
azs_ticker_stop(azs_ticker *ticker, int forked)
{
    ticker_all *self = (ticker_all *)ticker;
    if (self == NULL)
        return;
    if (!forked) { /* else the mutex may be held for ever */
        pthread_mutex_lock(&self->mutex);
        self->stopping = true;
        pthread_cond_signal(&self->stopped);
        pthread_mutex_unlock(&self->mutex);
        pthread_join(self->thread, NULL);
        pthread_cond_destroy(&self->stopped);
        pthread_mutex_destroy(&self->mutex);
    }
    free(self);
}
