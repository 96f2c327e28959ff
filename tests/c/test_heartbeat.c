/* csrc/zmtp/heartbeat.h: the times are those measured with libzmq. */
#include "zmtp/heartbeat.h"

#include "check.h"

static int64_t
ms(int64_t n)
{
    return n * AZS_NS_PER_MS;
}

#define CHECK_LOOK(hb, at_ms, expected)                                                \
    do {                                                                               \
        CHECK_INT(azs_zmtp_heartbeat_due(hb), ms(at_ms));                              \
        CHECK_INT(azs_zmtp_heartbeat_look(hb, ms(at_ms) - 1), AZS_ZMTP_QUIET);         \
        CHECK_INT(azs_zmtp_heartbeat_look(hb, ms(at_ms)), expected);                   \
    } while (0)

TEST(heartbeat_off)
{
    azs_zmtp_heartbeat hb;
    azs_zmtp_heartbeat_start(&hb, 0, -1, ms(5));
    CHECK_INT(azs_zmtp_heartbeat_due(&hb), AZS_ZMTP_NEVER_NS);
    CHECK_INT(azs_zmtp_heartbeat_look(&hb, INT64_MAX - 1), AZS_ZMTP_QUIET);
    azs_zmtp_heartbeat_start(&hb, -1, -1, ms(5));
    CHECK_INT(azs_zmtp_heartbeat_due(&hb), AZS_ZMTP_NEVER_NS);
}

TEST(heartbeat_of_a_silent_peer)
{
    azs_zmtp_heartbeat hb;
    azs_zmtp_heartbeat_start(&hb, 100, -1, 0); /* the timeout is the interval */
    CHECK_LOOK(&hb, 100, AZS_ZMTP_PING_IT);
    CHECK_LOOK(&hb, 200, AZS_ZMTP_EXPIRED);

    azs_zmtp_heartbeat_start(&hb, 100, 250, 0);
    CHECK_LOOK(&hb, 100, AZS_ZMTP_PING_IT);
    CHECK_LOOK(&hb, 200, AZS_ZMTP_PING_IT);
    CHECK_LOOK(&hb, 300, AZS_ZMTP_PING_IT);
    CHECK_LOOK(&hb, 350, AZS_ZMTP_EXPIRED);

    azs_zmtp_heartbeat_start(&hb, 100, 0, 0); /* for ever */
    for (int i = 1; i < 50; i++)
        CHECK_LOOK(&hb, 100 * i, AZS_ZMTP_PING_IT);
}

TEST(heartbeat_of_a_peer_that_sends)
{
    azs_zmtp_heartbeat hb;
    azs_zmtp_heartbeat_start(&hb, 100, 150, 0);
    for (int i = 1; i < 20; i++) {
        CHECK_LOOK(&hb, 100 * i, AZS_ZMTP_PING_IT); /* traffic does not postpone it */
        azs_zmtp_heartbeat_received(&hb);
    }
    CHECK_LOOK(&hb, 2000, AZS_ZMTP_PING_IT);
    CHECK_LOOK(&hb, 2100, AZS_ZMTP_PING_IT);
    CHECK_LOOK(&hb, 2150, AZS_ZMTP_EXPIRED);
}

TEST(heartbeat_late_loop_sends_one_ping)
{
    azs_zmtp_heartbeat hb;
    azs_zmtp_heartbeat_start(&hb, 100, 0, 0);
    CHECK_INT(azs_zmtp_heartbeat_look(&hb, ms(1234)), AZS_ZMTP_PING_IT);
    CHECK_INT(azs_zmtp_heartbeat_look(&hb, ms(1234)), AZS_ZMTP_QUIET);
    CHECK_INT(azs_zmtp_heartbeat_due(&hb), ms(1334));
}

TEST(heartbeat_time_to_live_of_the_peer)
{
    azs_zmtp_heartbeat hb;
    azs_zmtp_heartbeat_start(&hb, 0, -1, 0);
    azs_zmtp_heartbeat_pinged(&hb, 10, ms(5));
    CHECK_LOOK(&hb, 1005, AZS_ZMTP_EXPIRED);
    azs_zmtp_heartbeat_received(&hb);
    CHECK_INT(azs_zmtp_heartbeat_due(&hb), AZS_ZMTP_NEVER_NS);
    azs_zmtp_heartbeat_pinged(&hb, 0, ms(5));
    CHECK_INT(azs_zmtp_heartbeat_due(&hb), AZS_ZMTP_NEVER_NS);
    azs_zmtp_heartbeat_pinged(&hb, UINT16_MAX, 0); /* without libzmq's overflow */
    CHECK_LOOK(&hb, 6553500, AZS_ZMTP_EXPIRED);
}

TEST(heartbeat_paused_reading_is_no_silence)
{
    azs_zmtp_heartbeat hb;
    azs_zmtp_heartbeat_start(&hb, 100, -1, 0);
    azs_zmtp_heartbeat_pinged(&hb, 1, ms(50));
    CHECK_LOOK(&hb, 100, AZS_ZMTP_PING_IT);
    azs_zmtp_heartbeat_pause(&hb);
    azs_zmtp_heartbeat_pinged(&hb, 1, ms(110));
    for (int i = 2; i < 10; i++)
        CHECK_LOOK(&hb, 100 * i, AZS_ZMTP_PING_IT);
    azs_zmtp_heartbeat_resume(&hb);
    CHECK_LOOK(&hb, 1000, AZS_ZMTP_PING_IT);
    CHECK_LOOK(&hb, 1100, AZS_ZMTP_EXPIRED);
}

TEST(heartbeat_ttl_option)
{
    CHECK_INT(azs_zmtp_heartbeat_ttl(-1), 0);
    CHECK_INT(azs_zmtp_heartbeat_ttl(99), 0);
    CHECK_INT(azs_zmtp_heartbeat_ttl(1099), 10);
    CHECK_INT(azs_zmtp_heartbeat_ttl(65500), 655);
    CHECK_INT(azs_zmtp_heartbeat_ttl(70000), 655);
}
