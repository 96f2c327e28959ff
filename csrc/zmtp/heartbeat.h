/* When to send a PING, and when a peer counts as gone. Times are handed in. */
#ifndef AZS_ZMTP_HEARTBEAT_H
#define AZS_ZMTP_HEARTBEAT_H

#include "base/clock.h"
#include "zmtp/wire.h"

typedef enum {
    AZS_ZMTP_QUIET,   /* nothing to do before azs_zmtp_heartbeat_due() */
    AZS_ZMTP_PING_IT, /* send a PING */
    AZS_ZMTP_EXPIRED, /* the peer is gone */
} azs_zmtp_beat;

#define AZS_ZMTP_NEVER_NS INT64_MAX

typedef struct {
    int64_t ping_at_ns;   /* the next PING */
    int64_t answer_by_ns; /* something must come after a PING of ours */
    int64_t alive_by_ns;  /* ... after a PING of the peer's: its time to live */
    int64_t interval_ns;  /* 0: we send none */
    int64_t timeout_ns;   /* 0: we wait for ever */
    bool paused;
} azs_zmtp_heartbeat;

/* ZMQ_HEARTBEAT_IVL and ZMQ_HEARTBEAT_TIMEOUT in ms: 0 for none; a negative timeout
 * is the interval, as where the option was not set. From READY on. */
void azs_zmtp_heartbeat_start(azs_zmtp_heartbeat *hb, int interval_ms, int timeout_ms,
                              int64_t now_ns);

/* Octets have come, of whatever: cheap. Where libzmq waits for a whole frame, it
 * cuts the peer in the middle of a long one. */
static inline void
azs_zmtp_heartbeat_received(azs_zmtp_heartbeat *hb)
{
    hb->answer_by_ns = hb->alive_by_ns = AZS_ZMTP_NEVER_NS;
}

/* A PING has come, with this time to live in tenths of seconds. */
void azs_zmtp_heartbeat_pinged(azs_zmtp_heartbeat *hb, uint16_t ttl, int64_t now_ns);

/* While we do not read, a peer's silence means nothing. */
void azs_zmtp_heartbeat_pause(azs_zmtp_heartbeat *hb);
void azs_zmtp_heartbeat_resume(azs_zmtp_heartbeat *hb);

/* When to look again: AZS_ZMTP_NEVER_NS where there is nothing to wait for. It only
 * grows by what is received, so a timer that fires early looks and waits on. */
int64_t azs_zmtp_heartbeat_due(const azs_zmtp_heartbeat *hb);

/* What is to be done now; to be asked until it says that all is quiet, and after what
 * has come was read: else a loop that was busy takes a living peer for gone. */
azs_zmtp_beat azs_zmtp_heartbeat_look(azs_zmtp_heartbeat *hb, int64_t now_ns);

/* ZMQ_HEARTBEAT_TTL in ms as a PING has it. */
uint16_t azs_zmtp_heartbeat_ttl(int ttl_ms);

#endif
