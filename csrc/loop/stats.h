/* What Loop.stats() counts. The loop's thread writes, any may look. */
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
    /* Where the time goes, by the two readings of the clock that a turn takes. */
    int64_t ran_ns, idle_ns;  /* in runs that are over; asleep or polling for events */
    int64_t running_since_ns; /* while the loop runs, else 0 */
    int64_t asleep_since_ns;  /* while it waits for events, else 0 */
    int64_t turn_began_ns;    /* the latest: its poll was over */
    /* Since they were last set to 0. */
    int64_t longest_turn_ns, longest_callback_ns, lag_ns;
} azs_stats;

/* One system call's stream data, or one datagram. */
static inline void
azs_stats_received(azs_stats *stats, size_t bytes)
{
    AZS_COUNT(&stats->packets_received, 1);
    AZS_COUNT(&stats->bytes_received, bytes);
}

static inline void
azs_stats_sent(azs_stats *stats, size_t bytes)
{
    AZS_COUNT(&stats->packets_sent, 1);
    AZS_COUNT(&stats->bytes_sent, bytes);
}

/* The same by a socket object, which returned the number of bytes. */
static inline void
azs_stats_sent_by(azs_stats *stats, PyObject *bytes)
{
    if (PyLong_CheckExact(bytes))
        azs_stats_sent(stats, PyLong_AsUnsignedLongMask(bytes));
}

static inline void
azs_stats_peak(int64_t *peak, int64_t ns)
{
    if (azs_unlikely(ns > AZS_LOOK(peak)))
        AZS_SET(peak, ns);
}

static inline void
azs_stats_run_begins(azs_stats *stats, int64_t now_ns)
{
    AZS_SET(&stats->turn_began_ns, now_ns);
    AZS_ATOMIC_STORE(&stats->running_since_ns, now_ns);
}

/* What the turn ran has come back. */
static inline void
azs_stats_turn_ends(azs_stats *stats, int64_t now_ns)
{
    azs_stats_peak(&stats->longest_turn_ns, now_ns - stats->turn_began_ns);
}

static inline void
azs_stats_run_ends(azs_stats *stats, int64_t now_ns)
{
    azs_stats_turn_ends(stats, now_ns);
    AZS_COUNT(&stats->ran_ns, now_ns - stats->running_since_ns);
    AZS_ATOMIC_STORE(&stats->running_since_ns, 0);
}

static inline void
azs_stats_wakes(azs_stats *stats, int64_t now_ns)
{
    if (stats->asleep_since_ns != 0)
        AZS_COUNT(&stats->idle_ns, now_ns - stats->asleep_since_ns);
    AZS_ATOMIC_STORE(&stats->asleep_since_ns, 0);
}

/* The first of the timers that are due was for `when_ns`. A time that had passed when
 * it was set counts from the turn it was set in: the loop is not to blame for more. */
static inline void
azs_stats_timer_due(azs_stats *stats, int64_t when_ns, int64_t now_ns)
{
    if (when_ns < stats->turn_began_ns)
        when_ns = stats->turn_began_ns;
    azs_stats_peak(&stats->lag_ns, now_ns - when_ns);
}

#endif
