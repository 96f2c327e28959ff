/* csrc/zmtp/trie.h, against a list of all subscriptions. */
#include "zmtp/trie.h"

#include "hex.h"

static uint32_t random_state = 7;

static uint32_t
random_below(uint32_t n)
{
    random_state = random_state * 1664525u + 1013904223u;
    return (random_state >> 8) % n;
}

static int
add(azs_zmtp_trie *trie, azs_zmtp_subscriber *who, const char *topic)
{
    return azs_zmtp_trie_add(trie, who, (const uint8_t *)topic, strlen(topic));
}

static int
take(azs_zmtp_trie *trie, azs_zmtp_subscriber *who, const char *topic)
{
    return azs_zmtp_trie_remove(trie, who, (const uint8_t *)topic, strlen(topic));
}

static azs_zmtp_subscriber peers[3];

static void
visit(azs_zmtp_subscriber *subscriber, void *arg)
{
    strncat(arg,
            subscriber == &peers[0]   ? "0"
            : subscriber == &peers[1] ? "1"
                                      : "2",
            1);
}

/* Who gets it: "02", say, in whichever order. */
static void
check_match(azs_zmtp_trie *trie, const char *message, const char *expected)
{
    char got[64] = "";
    uint8_t *copy = copy_of(message, strlen(message));
    azs_zmtp_trie_match(trie, copy, strlen(message), visit, got);
    CHECK_INT(strlen(got), strlen(expected));
    for (const char *p = expected; *p != '\0'; p++)
        CHECK(strchr(got, *p) != NULL);
    CHECK_INT(azs_zmtp_trie_matches(trie, copy, strlen(message)), expected[0] != '\0');
    free(copy);
}

static void
leave(azs_zmtp_trie *trie, azs_zmtp_subscriber *who)
{
    while (azs_zmtp_trie_remove_any(trie, who, NULL, NULL) >= 0) {
    }
    CHECK(who->entries == NULL && who->count == 0 && who->octets == 0);
}

TEST(trie_prefixes)
{
    azs_zmtp_trie trie;
    azs_zmtp_trie_init(&trie, false);
    check_match(&trie, "", "");
    CHECK_INT(take(&trie, &peers[0], "a"), -ENOENT);
    CHECK_INT(add(&trie, &peers[0], "topic"), 1);
    CHECK_INT(add(&trie, &peers[1], "topic"), 0);
    CHECK_INT(add(&trie, &peers[0], "topic"), 0); /* twice is once */
    CHECK_INT(add(&trie, &peers[2], "top"), 1);
    CHECK_INT(add(&trie, &peers[0], "topple"), 1);
    CHECK_INT(add(&trie, &peers[0], "x"), 1);
    check_match(&trie, "topic.a", "012"); /* each once, though two match */
    check_match(&trie, "topic", "012");
    check_match(&trie, "topi", "2");
    check_match(&trie, "topple", "02");
    check_match(&trie, "to", "");
    check_match(&trie, "x", "0");
    check_match(&trie, "", "");
    CHECK_INT(add(&trie, &peers[1], ""), 1); /* all */
    check_match(&trie, "", "1");
    check_match(&trie, "zzz", "1");
    check_match(&trie, "topic", "012");
    CHECK_INT(peers[0].count, 3);
    CHECK_INT(peers[0].octets, 5 + 6 + 1);
    CHECK_INT(take(&trie, &peers[0], "topi"), -ENOENT);
    CHECK_INT(take(&trie, &peers[0], "topics"), -ENOENT);
    CHECK_INT(take(&trie, &peers[2], "topic"), -ENOENT);
    CHECK_INT(take(&trie, &peers[0], "topic"), 0);
    CHECK_INT(take(&trie, &peers[0], "topic"), -ENOENT);
    CHECK_INT(take(&trie, &peers[1], "topic"), 1);
    check_match(&trie, "topic", "12");
    for (int i = 0; i < 3; i++)
        leave(&trie, &peers[i]);
    check_match(&trie, "topic", "");
    azs_zmtp_trie_clear(&trie);
}

/* A subscriber's own: it counts. */
TEST(trie_counted)
{
    azs_zmtp_trie trie;
    azs_zmtp_trie_init(&trie, true);
    CHECK_INT(add(&trie, &peers[0], "a"), 1);
    CHECK_INT(add(&trie, &peers[0], "a"), 0);
    CHECK_INT(take(&trie, &peers[0], "a"), 0);
    check_match(&trie, "ab", "0");
    CHECK_INT(take(&trie, &peers[0], "a"), 1);
    check_match(&trie, "ab", "");
    CHECK_INT(add(&trie, &peers[0], "a"), 1);
    CHECK_INT(add(&trie, &peers[0], "a"), 0);
    leave(&trie, &peers[0]);
    azs_zmtp_trie_clear(&trie);
}

TEST(trie_tells_topics)
{
    static const char *const topics[] = {"", "a", "abc", "abd", "ab", "b\xff"};
    azs_zmtp_trie trie;
    azs_zmtp_trie_init(&trie, false);
    for (size_t i = 0; i < AZS_ARRAY_LEN(topics); i++)
        CHECK_INT(add(&trie, &peers[0], topics[i]), 1);
    CHECK_INT(add(&trie, &peers[1], "ab"), 0);
    uint8_t *topic;
    size_t size, i = AZS_ARRAY_LEN(topics);
    for (azs_zmtp_entry *entry = peers[0].entries; entry != NULL;) {
        entry = azs_zmtp_trie_topic(entry, &topic, &size);
        i--;
        CHECK_MEM(topic, size, topics[i], strlen(topics[i]));
        free(topic);
    }
    CHECK_INT(i, 0);
    for (i = AZS_ARRAY_LEN(topics); i-- > 0;) {
        int orphan = azs_zmtp_trie_remove_any(&trie, &peers[0], &topic, &size);
        CHECK_INT(orphan, strcmp(topics[i], "ab") != 0);
        CHECK_MEM(topic, size, topics[i], strlen(topics[i]));
        free(topic);
    }
    CHECK_INT(azs_zmtp_trie_remove_any(&trie, &peers[0], &topic, &size), -ENOENT);
    leave(&trie, &peers[1]);
    azs_zmtp_trie_clear(&trie);
}

/* 1 MB of topic, cut and joined at each kilobyte and around. */
TEST(trie_long_topics)
{
    enum { SIZE = 1024 * 1024 };
    uint8_t *topic = malloc(SIZE), *got;
    for (size_t i = 0; i < SIZE; i++)
        topic[i] = (uint8_t)(i % 253);
    azs_zmtp_trie trie;
    azs_zmtp_trie_init(&trie, false);
    CHECK_INT(azs_zmtp_trie_add(&trie, &peers[0], topic, SIZE), 1);
    for (int round = 0; round < 2; round++) {
        for (size_t size = 1; size < SIZE; size = size * 3 / 2 + 1) {
            CHECK_INT(azs_zmtp_trie_add(&trie, &peers[1], topic, size), 1);
            CHECK_INT(azs_zmtp_trie_add(&trie, &peers[2], topic, size), 0);
        }
        CHECK(azs_zmtp_trie_matches(&trie, topic, SIZE));
        topic[SIZE - 1] ^= 1;
        CHECK(azs_zmtp_trie_matches(&trie, topic, SIZE));
        leave(&trie, &peers[1]);
        leave(&trie, &peers[2]);
        CHECK(!azs_zmtp_trie_matches(&trie, topic, SIZE));
        topic[SIZE - 1] ^= 1;
        CHECK(azs_zmtp_trie_matches(&trie, topic, SIZE));
        CHECK(!azs_zmtp_trie_matches(&trie, topic, SIZE - 1));
    }
    size_t size;
    CHECK_INT(azs_zmtp_trie_remove_any(&trie, &peers[0], &got, &size), 1);
    CHECK_MEM(got, size, topic, SIZE);
    free(got);
    free(topic);
    azs_zmtp_trie_clear(&trie);
}

TEST(trie_all_first_octets)
{
    azs_zmtp_trie trie;
    azs_zmtp_trie_init(&trie, false);
    for (unsigned i = 0; i < 256; i++) {
        uint8_t topic[2] = {(uint8_t)(i * 7), 'x'};
        CHECK_INT(azs_zmtp_trie_add(&trie, &peers[i % 3], topic, 2), 1);
    }
    for (unsigned i = 0; i < 256; i++) {
        uint8_t topic[2] = {(uint8_t)(i * 7), 'x'};
        CHECK(azs_zmtp_trie_matches(&trie, topic, 2));
        CHECK(!azs_zmtp_trie_matches(&trie, topic, 1));
        CHECK_INT(azs_zmtp_trie_remove(&trie, &peers[i % 3], topic, 2), 1);
        CHECK(!azs_zmtp_trie_matches(&trie, topic, 2));
    }
    azs_zmtp_trie_clear(&trie);
}

/* Random operations beside a list that is looked through. */
TEST(trie_random_operations)
{
    enum { MOST = 400, LETTERS = 2, LONGEST = 8 };
    static struct {
        char topic[LONGEST + 1];
        int who, times;
    } list[MOST];
    for (int counted = 0; counted < 2; counted++) {
        azs_zmtp_trie trie;
        azs_zmtp_trie_init(&trie, counted);
        int n = 0;
        for (int step = 0; step < 20000; step++) {
            char topic[LONGEST + 1] = "";
            for (uint32_t left = random_below(LONGEST + 1), i = 0; i < left; i++)
                topic[i] = (char)('a' + random_below(LETTERS));
            int who = (int)random_below(3), found = -1;
            bool others = false;
            for (int i = 0; i < n; i++) {
                bool same = strcmp(list[i].topic, topic) == 0;
                if (same && list[i].who == who)
                    found = i;
                else if (same)
                    others = true;
            }
            uint32_t what = random_below(10);
            if (what < 5 && n < MOST) {
                CHECK_INT(add(&trie, &peers[who], topic), !others && found < 0);
                if (found < 0) {
                    strcpy(list[n].topic, topic);
                    list[n].who = who;
                    list[n++].times = 1;
                } else if (counted) {
                    list[found].times++;
                }
            } else if (what < 9) {
                int expected = found < 0 ? -ENOENT : list[found].times == 1 && !others;
                CHECK_INT(take(&trie, &peers[who], topic), expected);
                if (found >= 0 && --list[found].times == 0)
                    list[found] = list[--n];
            } else if (random_below(20) == 0) {
                leave(&trie, &peers[who]);
                for (int i = n; i-- > 0;)
                    if (list[i].who == who)
                        list[i] = list[--n];
            }
            char expected[4] = "";
            for (int peer = 0; peer < 3; peer++)
                for (int i = 0; i < n; i++)
                    if (list[i].who == peer &&
                        strncmp(list[i].topic, topic, strlen(list[i].topic)) == 0) {
                        strncat(expected, &"0\0001\0002"[2 * peer], 1);
                        break;
                    }
            check_match(&trie, topic, expected);
        }
        for (int i = 0; i < 3; i++)
            leave(&trie, &peers[i]);
        azs_zmtp_trie_clear(&trie);
    }
}
