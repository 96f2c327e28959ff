/* The monotonic clock in nanoseconds: see clock_gettime(2). */
#ifndef AZS_BASE_CLOCK_H
#define AZS_BASE_CLOCK_H

#include <stdint.h>
#include <time.h>

#define AZS_NS_PER_S  INT64_C(1000000000)
#define AZS_NS_PER_MS INT64_C(1000000)
#define AZS_NS_PER_US INT64_C(1000)

static inline int64_t
azs_clock_ns(void)
{
    struct timespec ts;
    /* CLOCK_MONOTONIC cannot fail on Linux: no error to report. */
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * AZS_NS_PER_S + ts.tv_nsec;
}

#endif
