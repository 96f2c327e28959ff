/* Flow control of what waits to be written: when a protocol is told to pause and when
 * to go on (asyncio's _FlowControlMixin). The transport counts and calls. */
#ifndef AZS_LOOP_FLOW_H
#define AZS_LOOP_FLOW_H

#include "base/common.h"

#include <stdbool.h>
#include <stddef.h>

typedef struct {
    size_t high, low; /* the water marks in bytes: low <= high */
    bool paused;      /* pause_writing() was called, resume_writing() not yet */
} azs_flow;

/* More waits now. True where pause_writing() is to be called: it is above the high mark
 * for the first time. */
static inline bool
azs_flow_grew(azs_flow *flow, size_t queued)
{
    if (azs_likely(queued <= flow->high) || flow->paused)
        return false;
    flow->paused = true;
    return true;
}

/* Less waits now. True where resume_writing() is to be called: it is at the low mark or
 * below again. */
static inline bool
azs_flow_shrank(azs_flow *flow, size_t queued)
{
    if (azs_likely(!flow->paused) || queued > flow->low)
        return false;
    flow->paused = false;
    return true;
}

#endif
