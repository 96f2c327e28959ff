/* When to poll, and how long without sleeping. */
#include "base/sys.h"
#include "loop/loop_object.h"

/* asyncio polls in every turn. While callbacks are ready that system call is most of a
 * turn, so after this many that brought nothing it is made at most this often. */
enum { VAIN_POLLS = 16 };
#define VAIN_INTERVAL_NS (250 * AZS_NS_PER_US)

/* Busy polling gets the GIL back this often: a signal that no wake-up descriptor tells
 * of is seen then. */
#define SPIN_SLICE_NS (10 * AZS_NS_PER_MS)

/* Everything that the loop has sent. */
static inline uint64_t
sent_so_far(const LoopObject *loop)
{
    return loop->stats.packets_sent + loop->stats.zmq_messages_sent;
}

/* In every turn, but a poll that brought events spares the next turn's: that one runs
 * what waited for them. Polls in vain are soon made seldom, until events come or the
 * loop has waited. What it sends may have been answered by now: then it polls. */
bool
azs_poller_is_due(LoopObject *loop, int64_t now_ns)
{
    azs_poller *poller = &loop->poller;
    bool spared = poller->spare_next;
    poller->spare_next = false;
    if (sent_so_far(loop) != poller->sent_before)
        return true;
    return !spared && (poller->vain_polls < VAIN_POLLS ||
                       now_ns - poller->polled_ns >= VAIN_INTERVAL_NS);
}

void
azs_poller_note(LoopObject *loop, int n, bool waited)
{
    azs_poller *poller = &loop->poller;
    uint64_t sent = sent_so_far(loop);
    if (n > 0 || waited || sent != poller->sent_before)
        poller->vain_polls = 0;
    if (n <= 0)
        poller->vain_polls++;
    poller->spare_next = n > 0;
    poller->sent_before = sent;
}

/* Only a callback that ran earns the loop a new busy_poll_ns: an idle loop is woken now
 * and then without one. */
int64_t
azs_poller_spin_time(LoopObject *loop, int64_t timeout_ns)
{
    azs_poller *poller = &loop->poller;
    if (poller->spun_after != loop->stats.callbacks) {
        poller->spun_after = loop->stats.callbacks;
        poller->spun_ns = 0;
    }
    int64_t left_ns = loop->busy_poll_ns - poller->spun_ns;
    if (left_ns > SPIN_SLICE_NS)
        left_ns = SPIN_SLICE_NS;
    if (timeout_ns >= 0 && left_ns > timeout_ns)
        left_ns = timeout_ns;
    return left_ns > 0 ? left_ns : 0;
}

int
azs_poller_spin(int epfd, struct epoll_event *events, int64_t *spin_ns, uint64_t *polls)
{
    int64_t start_ns = azs_clock_ns(), spun_ns;
    int n;
    do {
        n = azs_sys_epoll_wait(epfd, events, AZS_POLL_EVENTS, 0);
        ++*polls;
        spun_ns = azs_clock_ns() - start_ns;
    } while (n == 0 && spun_ns < *spin_ns);
    *spin_ns = spun_ns;
    return n;
}
