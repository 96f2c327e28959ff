/* csrc/zmtp/trie.h beside a plain list of who has subscribed to what. */
#include "zmtp/trie.h"

#include "fuzz.h"

const char *const fuzz_seeds[] = {
    "00 00 05 746f706963 01 03 746f70 10 05 746f706963 20 06 746f70696364 40 05 746f706963",
    "01 00 01 61 00 01 61 40 01 61 40 01 61 80 00 00 00",
    "00 00 ff 61*255 01 80 61*128 41 80 61*128 80 00",
    "00 00 02 6162 00 02 6163 00 02 6164 00 01 61 40 02 6163 40 02 6162 c0 01 61",
    NULL,
};

enum { PEERS = 4, MOST = 64 };

static struct {
    uint8_t topic[260];
    size_t size;
    int who;
    size_t times;
} list[MOST];
static int n_list;

static int
find(int who, const uint8_t *topic, size_t size)
{
    for (int i = 0; i < n_list; i++) {
        if ((who < 0 || list[i].who == who) && list[i].size == size &&
            memcmp(list[i].topic, topic, size) == 0)
            return i;
    }
    return -1;
}

static azs_zmtp_subscriber peers[PEERS];

static void
visit(azs_zmtp_subscriber *subscriber, void *arg)
{
    unsigned bit = 1u << (subscriber - peers);
    CHECK(!(*(unsigned *)arg & bit));
    *(unsigned *)arg |= bit;
}

static void
leave(azs_zmtp_trie *trie, int who)
{
    uint8_t *topic;
    size_t size;
    int orphan;
    while ((orphan = azs_zmtp_trie_remove_any(trie, &peers[who], &topic, &size)) >= 0) {
        int i = find(who, topic, size);
        CHECK(i >= 0);
        list[i] = list[--n_list];
        CHECK_INT(orphan, find(-1, topic, size) < 0);
        free(topic);
    }
    CHECK_INT(orphan, -ENOENT);
    CHECK(peers[who].count == 0 && peers[who].octets == 0);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_input in = {data, size};
    azs_zmtp_trie trie;
    bool counted = fuzz_octet(&in) & 1;
    azs_zmtp_trie_init(&trie, counted);
    memset(peers, 0, sizeof(peers));
    n_list = 0;
    while (in.size > 0) {
        uint8_t op = fuzz_octet(&in);
        int who = op % PEERS;
        if (op >> 6 == 2) {
            leave(&trie, who);
            continue;
        }
        const uint8_t *topic;
        size_t topic_size = fuzz_octets(&in, fuzz_octet(&in), &topic);
        uint8_t *copy = copy_of(topic, topic_size);
        int i = find(who, copy, topic_size);
        if (op >> 6 == 0 && (i >= 0 || n_list < MOST)) {
            CHECK_INT(azs_zmtp_trie_add(&trie, &peers[who], copy, topic_size),
                      find(-1, copy, topic_size) < 0);
            if (i < 0) {
                i = n_list++;
                memcpy(list[i].topic, copy, topic_size);
                list[i].size = topic_size;
                list[i].who = who;
                list[i].times = 1;
            } else if (counted) {
                list[i].times++;
            }
        } else if (op >> 6 == 1) {
            bool last = i >= 0 && --list[i].times == 0;
            if (last)
                list[i] = list[--n_list];
            CHECK_INT(azs_zmtp_trie_remove(&trie, &peers[who], copy, topic_size),
                      i < 0 ? -ENOENT : last && find(-1, copy, topic_size) < 0);
        }
        unsigned got = 0, expected = 0;
        azs_zmtp_trie_match(&trie, copy, topic_size, visit, &got);
        for (int j = 0; j < n_list; j++) {
            if (list[j].size <= topic_size &&
                memcmp(list[j].topic, copy, list[j].size) == 0)
                expected |= 1u << list[j].who;
        }
        CHECK_INT(got, expected);
        CHECK_INT(azs_zmtp_trie_matches(&trie, copy, topic_size), expected != 0);
        free(copy);
    }
    for (int who = 0; who < PEERS; who++)
        leave(&trie, who);
    CHECK_INT(n_list, 0);
    azs_zmtp_trie_clear(&trie);
    return 0;
}
