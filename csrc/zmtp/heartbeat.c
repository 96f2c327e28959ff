#include "zmtp/heartbeat.h"

#include "zmtp/command.h"

void
azs_zmtp_heartbeat_start(azs_zmtp_heartbeat *hb, int interval_ms, int timeout_ms,
                         int64_t now_ns)
{
    if (interval_ms < 0)
        interval_ms = 0;
    if (timeout_ms < 0)
        timeout_ms = interval_ms;
    *hb = (azs_zmtp_heartbeat){
        .interval_ns = interval_ms * AZS_NS_PER_MS,
        .timeout_ns = timeout_ms * AZS_NS_PER_MS,
    };
    hb->ping_at_ns = interval_ms > 0 ? now_ns + hb->interval_ns : AZS_ZMTP_NEVER_NS;
    azs_zmtp_heartbeat_received(hb);
}

void
azs_zmtp_heartbeat_pinged(azs_zmtp_heartbeat *hb, uint16_t ttl, int64_t now_ns)
{
    hb->alive_by_ns =
        ttl > 0 && !hb->paused ? now_ns + ttl * 100 * AZS_NS_PER_MS : AZS_ZMTP_NEVER_NS;
}

/* The terms end with the pause: after it, the next PING, of ours or of the peer's,
 * sets new ones. */
void
azs_zmtp_heartbeat_pause(azs_zmtp_heartbeat *hb)
{
    hb->paused = true;
    azs_zmtp_heartbeat_received(hb);
}

void
azs_zmtp_heartbeat_resume(azs_zmtp_heartbeat *hb)
{
    hb->paused = false;
}

static inline int64_t
earlier(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

int64_t
azs_zmtp_heartbeat_due(const azs_zmtp_heartbeat *hb)
{
    return earlier(hb->ping_at_ns, earlier(hb->answer_by_ns, hb->alive_by_ns));
}

azs_zmtp_beat
azs_zmtp_heartbeat_look(azs_zmtp_heartbeat *hb, int64_t now_ns)
{
    if (now_ns >= earlier(hb->answer_by_ns, hb->alive_by_ns))
        return AZS_ZMTP_EXPIRED;
    if (now_ns < hb->ping_at_ns)
        return AZS_ZMTP_QUIET;
    /* A loop that was late sends one, not all that it has missed. */
    hb->ping_at_ns += hb->interval_ns;
    if (hb->ping_at_ns <= now_ns)
        hb->ping_at_ns = now_ns + hb->interval_ns;
    if (hb->timeout_ns > 0 && !hb->paused && hb->answer_by_ns == AZS_ZMTP_NEVER_NS)
        hb->answer_by_ns = now_ns + hb->timeout_ns;
    return AZS_ZMTP_PING_IT;
}

uint16_t
azs_zmtp_heartbeat_ttl(int ttl_ms)
{
    int ttl = ttl_ms > 0 ? ttl_ms / 100 : 0;
    return (uint16_t)(ttl < AZS_ZMTP_TTL_MAX ? ttl : AZS_ZMTP_TTL_MAX);
}
