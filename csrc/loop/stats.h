/* What Loop.stats() counts. */
#ifndef AZS_LOOP_STATS_H
#define AZS_LOOP_STATS_H

#include <stdint.h>

#include "py/state.h"

/* X(name): totals since the loop was made. */
#define AZS_STATS_TOTALS(X)                                                            \
    X(turns)                                                                           \
    X(polls)                                                                           \
    X(busy_polls)                                                                      \
    X(sleeps)                                                                          \
    X(callbacks)                                                                       \
    X(transports_made)                                                                 \
    X(accepted)                                                                        \
    X(bytes_received)                                                                  \
    X(bytes_sent)                                                                      \
    X(packets_received)                                                                \
    X(packets_sent)                                                                    \
    X(zmq_messages_received)                                                           \
    X(zmq_messages_sent)

typedef struct {
#define X(name) uint64_t name;
    AZS_STATS_TOTALS(X)
#undef X
    uint64_t transports; /* those that are open now */
} azs_stats;

/* One system call's stream data, or one datagram. */
static inline void
azs_stats_received(azs_stats *stats, size_t bytes)
{
    stats->packets_received++;
    stats->bytes_received += bytes;
}

static inline void
azs_stats_sent(azs_stats *stats, size_t bytes)
{
    stats->packets_sent++;
    stats->bytes_sent += bytes;
}

/* The same by a socket object, which returned the number of bytes. */
static inline void
azs_stats_sent_by(azs_stats *stats, PyObject *bytes)
{
    if (PyLong_CheckExact(bytes))
        azs_stats_sent(stats, PyLong_AsUnsignedLongMask(bytes));
}

#endif
