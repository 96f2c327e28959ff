/* Topics and who has subscribed to them: a radix tree of prefixes.
 *
 * A publisher asks for the subscribers of a message: azs_zmtp_trie_match(). There,
 * subscribing twice is as subscribing once, as libzmq does it. A subscriber counts
 * its own subscriptions (`counted`) and asks whether a message is for it:
 * azs_zmtp_trie_matches().
 *
 * No function recurses: a topic may be of any size. Each topic costs its own octets
 * and some 150 more; how much a peer may have is the caller's to say, with the
 * subscriber's `count` and `octets`.
 */
#ifndef AZS_ZMTP_TRIE_H
#define AZS_ZMTP_TRIE_H

#include "zmtp/wire.h"

typedef struct azs_zmtp_node azs_zmtp_node;
typedef struct azs_zmtp_entry azs_zmtp_entry;

/* One for each peer, embedded in it. */
typedef struct {
    azs_zmtp_entry *entries; /* owned: its subscriptions, the newest first */
    size_t count;            /* of them */
    size_t octets;           /* of their topics */
    uint64_t matched;        /* the last match that has found it */
} azs_zmtp_subscriber;

typedef struct {
    azs_zmtp_node *root; /* owned or NULL */
    uint64_t matches;
    bool counted;
} azs_zmtp_trie;

void azs_zmtp_trie_init(azs_zmtp_trie *trie, bool counted);

/* Every subscriber must have left before. */
void azs_zmtp_trie_clear(azs_zmtp_trie *trie);

/* 1 where nobody had subscribed to the topic, 0 where somebody had; -ENOMEM. */
int azs_zmtp_trie_add(azs_zmtp_trie *trie, azs_zmtp_subscriber *subscriber,
                      const uint8_t *topic, size_t size);

/* 1 where nobody is left, 0 where somebody is; -ENOENT where it had not subscribed. */
int azs_zmtp_trie_remove(azs_zmtp_trie *trie, azs_zmtp_subscriber *subscriber,
                         const uint8_t *topic, size_t size);

/* Takes away one subscription of the subscriber, whatever its count is: 1 where
 * nobody is left, 0 where somebody is, -ENOENT where it had none; -ENOMEM with
 * nothing done. *topic gets the topic, to be freed by free(); may be NULL. Until
 * -ENOENT: the peer has left. */
int azs_zmtp_trie_remove_any(azs_zmtp_trie *trie, azs_zmtp_subscriber *subscriber,
                             uint8_t **topic, size_t *size);

/* The subscriber's topics, the oldest last: `entry` starts as subscriber->entries,
 * the next is returned, NULL after the last. *topic as above; NULL on ENOMEM. */
azs_zmtp_entry *azs_zmtp_trie_topic(const azs_zmtp_entry *entry, uint8_t **topic,
                                    size_t *size);

/* Calls visit for each who has subscribed to a prefix of the message, once. It must
 * not change the trie. */
typedef void azs_zmtp_visit_fn(azs_zmtp_subscriber *subscriber, void *arg);
void azs_zmtp_trie_match(azs_zmtp_trie *trie, const uint8_t *message, size_t size,
                         azs_zmtp_visit_fn *visit, void *arg);

/* Has anybody subscribed to a prefix of it? */
bool azs_zmtp_trie_matches(const azs_zmtp_trie *trie, const uint8_t *message,
                           size_t size);

#endif
