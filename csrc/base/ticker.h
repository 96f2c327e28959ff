/* A thread that counts up at short intervals: to see that time has passed costs one
 * load, where the clock costs tens of nanoseconds. It runs no Python code. */
#ifndef AZS_BASE_TICKER_H
#define AZS_BASE_TICKER_H

#include <stdatomic.h>
#include <stdint.h>

typedef struct azs_ticker azs_ticker;

struct azs_ticker {
    atomic_uint ticks;
};

/* A ticker that runs, in *ticker. 0 or -errno. */
int azs_ticker_start(azs_ticker **ticker, int64_t period_ns);

/* Ends the thread and frees it; NULL is fine. `forked`: the thread is the parent's. */
void azs_ticker_stop(azs_ticker *ticker, int forked);

static inline unsigned
azs_ticker_now(azs_ticker *ticker)
{
    return atomic_load_explicit(&ticker->ticks, memory_order_relaxed);
}

#endif
