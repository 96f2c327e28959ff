/* What is put off to the end of a turn. */
#include "loop/loop_object.h"

enum { DEFERRED_NS = 100 * 1000 };

void
azs_loop_defer(LoopObject *loop, azs_deferred *deferred)
{
    if (deferred->listed)
        return;
    if (!loop->turning || loop->closed) {
        deferred->run(deferred);
        return;
    }
    if (loop->deferred == NULL)
        loop->deferred_ns = azs_clock_ns();
    deferred->listed = true;
    deferred->next = loop->deferred;
    loop->deferred = deferred;
}

void
azs_loop_undefer(LoopObject *loop, azs_deferred *deferred)
{
    if (!deferred->listed)
        return;
    azs_deferred **at = &loop->deferred;
    while (*at != deferred)
        at = &(*at)->next;
    *at = deferred->next;
    deferred->listed = false;
}

void
azs_loop_run_deferred(LoopObject *loop)
{
    while (loop->deferred != NULL) {
        azs_deferred *first = loop->deferred;
        loop->deferred = first->next;
        first->listed = false;
        first->run(first);
    }
}

void
azs_loop_run_due_deferred(LoopObject *loop)
{
    if (azs_clock_ns() - loop->deferred_ns >= DEFERRED_NS)
        azs_loop_run_deferred(loop);
}
