#include "zmtp/trie.h"

#include <stdlib.h>

/* A subscription: of one subscriber, at one node. */
struct azs_zmtp_entry {
    azs_zmtp_node *node;             /* borrowed: it lives while it has entries */
    azs_zmtp_subscriber *subscriber; /* borrowed: owns us */
    azs_zmtp_entry *newer, *older;   /* of the subscriber */
    size_t times;                    /* 1, or as often as it has subscribed */
};

/* Of a longer topic the tree has a chain of nodes: cutting and joining labels must not
 * cost a megabyte of copying for each short topic that a hostile peer subscribes to. */
enum { LABEL_MAX = 1024 };

/* The topic of a node is the labels from the root to it. Besides the root, a node has
 * an entry or at least two children: else it is taken out, or merged with its only
 * child where both labels are one. */
struct azs_zmtp_node {
    azs_zmtp_node *parent; /* borrowed; NULL: the root, or one not hung in yet */
    uint8_t *label;        /* owned; empty in the root alone */
    size_t label_size;
    azs_zmtp_node **children; /* owned; by the first octet of their labels */
    unsigned n_children, children_capacity;
    azs_zmtp_entry **entries; /* owned; by the subscriber's address */
    size_t n_entries, entries_capacity;
};

void
azs_zmtp_trie_init(azs_zmtp_trie *trie, bool counted)
{
    *trie = (azs_zmtp_trie){.counted = counted};
}

static void
node_free(azs_zmtp_node *node)
{
    assert(node->n_children == 0 && node->n_entries == 0);
    free(node->label);
    free(node->children);
    free(node->entries);
    free(node);
}

void
azs_zmtp_trie_clear(azs_zmtp_trie *trie)
{
    if (trie->root != NULL)
        node_free(trie->root);
    trie->root = NULL;
}

static azs_zmtp_node *
node_new(const uint8_t *label, size_t size)
{
    azs_zmtp_node *node = calloc(1, sizeof(*node));
    if (node == NULL)
        return NULL;
    if (size > 0) {
        node->label = malloc(size);
        if (node->label == NULL) {
            free(node);
            return NULL;
        }
        memcpy(node->label, label, size);
        node->label_size = size;
    }
    return node;
}

/* ---- sorted arrays ---- */

/* Where the child whose label begins with `first` is, or belongs. */
static unsigned
child_index(const azs_zmtp_node *node, uint8_t first)
{
    unsigned low = 0, high = node->n_children;
    while (low < high) {
        unsigned middle = (low + high) / 2;
        if (node->children[middle]->label[0] < first)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static azs_zmtp_node *
child_at(const azs_zmtp_node *node, uint8_t first)
{
    unsigned i = child_index(node, first);
    if (i < node->n_children && node->children[i]->label[0] == first)
        return node->children[i];
    return NULL;
}

/* Room for one child more: 0 or -ENOMEM. */
static int
children_reserve(azs_zmtp_node *node)
{
    if (node->n_children < node->children_capacity)
        return 0;
    unsigned capacity = node->children_capacity ? node->children_capacity * 2 : 2;
    azs_zmtp_node **children = realloc(node->children, capacity * sizeof(*children));
    if (children == NULL)
        return -ENOMEM;
    node->children = children;
    node->children_capacity = capacity;
    return 0;
}

static void
child_insert(azs_zmtp_node *node, azs_zmtp_node *child)
{
    assert(node->n_children < node->children_capacity);
    unsigned i = child_index(node, child->label[0]);
    memmove(node->children + i + 1, node->children + i,
            (node->n_children - i) * sizeof(*node->children));
    node->children[i] = child;
    node->n_children++;
    child->parent = node;
}

static size_t
entry_index(const azs_zmtp_node *node, const azs_zmtp_subscriber *subscriber)
{
    size_t low = 0, high = node->n_entries;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if ((uintptr_t)node->entries[middle]->subscriber < (uintptr_t)subscriber)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static azs_zmtp_entry *
trie_entry_at(const azs_zmtp_node *node, const azs_zmtp_subscriber *subscriber)
{
    size_t i = entry_index(node, subscriber);
    if (i < node->n_entries && node->entries[i]->subscriber == subscriber)
        return node->entries[i];
    return NULL;
}

/* ---- finding ---- */

static size_t
common_prefix(const azs_zmtp_node *node, const uint8_t *text, size_t size)
{
    size_t n = node->label_size < size ? node->label_size : size, i = 0;
    while (i < n && node->label[i] == text[i])
        i++;
    return i;
}

/* The node of exactly this topic, or NULL. */
static azs_zmtp_node *
trie_find(const azs_zmtp_trie *trie, const uint8_t *topic, size_t size)
{
    azs_zmtp_node *node = trie->root;
    while (node != NULL && size > 0) {
        node = child_at(node, topic[0]);
        if (node == NULL || common_prefix(node, topic, size) < node->label_size)
            return NULL;
        topic += node->label_size;
        size -= node->label_size;
    }
    return node;
}

/* ---- changing the tree ---- */

/* Cuts the node's label after `at` octets: returns a new node, in its place in the
 * tree, with the first part and the node as its only child. NULL on ENOMEM. */
static azs_zmtp_node *
split(azs_zmtp_node *node, size_t at)
{
    assert(at > 0 && at < node->label_size);
    azs_zmtp_node *upper = node_new(node->label, at);
    if (upper == NULL)
        return NULL;
    if (children_reserve(upper) < 0) {
        node_free(upper);
        return NULL;
    }
    azs_zmtp_node *parent = node->parent;
    parent->children[child_index(parent, node->label[0])] = upper;
    upper->parent = parent;
    node->label_size -= at;
    memmove(node->label, node->label + at, node->label_size);
    uint8_t *shorter = realloc(node->label, node->label_size);
    if (shorter != NULL)
        node->label = shorter;
    child_insert(upper, node);
    return upper;
}

static void tidy(azs_zmtp_node *node);

/* The node of this topic, made where it is not there. NULL on ENOMEM, with the tree as
 * it was. */
static azs_zmtp_node *
find_or_make(azs_zmtp_trie *trie, const uint8_t *topic, size_t size)
{
    if (trie->root == NULL)
        trie->root = node_new(NULL, 0);
    azs_zmtp_node *node = trie->root;
    while (node != NULL && size > 0) {
        azs_zmtp_node *child = child_at(node, topic[0]);
        if (child == NULL) {
            child = node_new(topic, size < LABEL_MAX ? size : LABEL_MAX);
            if (child == NULL || children_reserve(node) < 0) {
                if (child != NULL)
                    node_free(child);
                tidy(node); /* it may have been split or made for this */
                return NULL;
            }
            child_insert(node, child);
        }
        size_t same = common_prefix(child, topic, size);
        azs_zmtp_node *parent = node;
        node = same < child->label_size ? split(child, same) : child;
        if (node == NULL)
            tidy(parent);
        topic += same;
        size -= same;
    }
    return node;
}

/* Puts the node's only child in its place. Left as it is on ENOMEM: correct, only
 * larger than need be. */
static void
merge(azs_zmtp_node *node)
{
    azs_zmtp_node *child = node->children[0];
    size_t size = node->label_size + child->label_size;
    if (size > LABEL_MAX)
        return;
    uint8_t *label = realloc(child->label, size);
    if (label == NULL)
        return;
    memmove(label + node->label_size, label, child->label_size);
    memcpy(label, node->label, node->label_size);
    child->label = label;
    child->label_size = size;
    azs_zmtp_node *parent = node->parent;
    parent->children[child_index(parent, label[0])] = child;
    child->parent = parent;
    node->n_children = 0;
    node_free(node);
}

/* Takes out what has lost its last entry: the node, or what keeps it no more apart
 * from its child. At most its parent is concerned, too. */
static void
tidy(azs_zmtp_node *node)
{
    while (node->parent != NULL && node->n_entries == 0 && node->n_children == 0) {
        azs_zmtp_node *parent = node->parent;
        unsigned i = child_index(parent, node->label[0]);
        parent->n_children--;
        memmove(parent->children + i, parent->children + i + 1,
                (parent->n_children - i) * sizeof(*parent->children));
        node_free(node);
        node = parent;
    }
    if (node->parent != NULL && node->n_entries == 0 && node->n_children == 1)
        merge(node);
}

/* ---- subscriptions ---- */

static int
entry_add(azs_zmtp_node *node, azs_zmtp_subscriber *subscriber)
{
    if (node->n_entries == node->entries_capacity) {
        size_t capacity = node->entries_capacity ? node->entries_capacity * 2 : 1;
        azs_zmtp_entry **entries = realloc(node->entries, capacity * sizeof(*entries));
        if (entries == NULL)
            return -ENOMEM;
        node->entries = entries;
        node->entries_capacity = capacity;
    }
    azs_zmtp_entry *entry = malloc(sizeof(*entry));
    if (entry == NULL)
        return -ENOMEM;
    *entry = (azs_zmtp_entry){
        .node = node,
        .subscriber = subscriber,
        .older = subscriber->entries,
        .times = 1,
    };
    if (entry->older != NULL)
        entry->older->newer = entry;
    subscriber->entries = entry;
    size_t i = entry_index(node, subscriber);
    memmove(node->entries + i + 1, node->entries + i,
            (node->n_entries - i) * sizeof(*node->entries));
    node->entries[i] = entry;
    node->n_entries++;
    return 0;
}

/* 1 where the node's topic has lost its last entry, else 0. */
static int
entry_remove(azs_zmtp_entry *entry, size_t topic_size)
{
    azs_zmtp_node *node = entry->node;
    azs_zmtp_subscriber *subscriber = entry->subscriber;
    if (entry->newer != NULL)
        entry->newer->older = entry->older;
    else
        subscriber->entries = entry->older;
    if (entry->older != NULL)
        entry->older->newer = entry->newer;
    subscriber->count--;
    subscriber->octets -= topic_size;
    size_t i = entry_index(node, subscriber);
    assert(node->entries[i] == entry);
    node->n_entries--;
    memmove(node->entries + i, node->entries + i + 1,
            (node->n_entries - i) * sizeof(*node->entries));
    free(entry);
    if (node->n_entries > 0)
        return 0;
    tidy(node);
    return 1;
}

int
azs_zmtp_trie_add(azs_zmtp_trie *trie, azs_zmtp_subscriber *subscriber,
                  const uint8_t *topic, size_t size)
{
    azs_zmtp_node *node = find_or_make(trie, topic, size);
    if (node == NULL)
        return -ENOMEM;
    azs_zmtp_entry *entry = trie_entry_at(node, subscriber);
    if (entry != NULL) {
        if (trie->counted)
            entry->times++;
        return 0;
    }
    int err = entry_add(node, subscriber);
    if (err < 0) {
        tidy(node);
        return err;
    }
    subscriber->count++;
    subscriber->octets += size;
    return node->n_entries == 1;
}

int
azs_zmtp_trie_remove(azs_zmtp_trie *trie, azs_zmtp_subscriber *subscriber,
                     const uint8_t *topic, size_t size)
{
    azs_zmtp_node *node = trie_find(trie, topic, size);
    azs_zmtp_entry *entry = node == NULL ? NULL : trie_entry_at(node, subscriber);
    if (entry == NULL)
        return -ENOENT;
    if (--entry->times > 0)
        return 0;
    return entry_remove(entry, size);
}

static size_t
topic_size(const azs_zmtp_node *node)
{
    size_t size = 0;
    for (; node != NULL; node = node->parent)
        size += node->label_size;
    return size;
}

azs_zmtp_entry *
azs_zmtp_trie_topic(const azs_zmtp_entry *entry, uint8_t **topic, size_t *size)
{
    *size = topic_size(entry->node);
    *topic = malloc(*size > 0 ? *size : 1);
    if (*topic != NULL) {
        uint8_t *end = *topic + *size;
        for (azs_zmtp_node *node = entry->node; node != NULL; node = node->parent) {
            end -= node->label_size;
            azs_zmtp_copy(end, node->label, node->label_size);
        }
    }
    return entry->older;
}

int
azs_zmtp_trie_remove_any(azs_zmtp_trie *trie, azs_zmtp_subscriber *subscriber,
                         uint8_t **topic, size_t *size)
{
    (void)trie;
    azs_zmtp_entry *entry = subscriber->entries;
    if (entry == NULL)
        return -ENOENT;
    if (topic == NULL)
        return entry_remove(entry, topic_size(entry->node));
    azs_zmtp_trie_topic(entry, topic, size);
    if (*topic == NULL)
        return -ENOMEM;
    return entry_remove(entry, *size);
}

/* ---- matching ---- */

void
azs_zmtp_trie_match(azs_zmtp_trie *trie, const uint8_t *message, size_t size,
                    azs_zmtp_visit_fn *visit, void *arg)
{
    uint64_t match = ++trie->matches;
    azs_zmtp_node *node = trie->root;
    while (node != NULL) {
        for (size_t i = 0; i < node->n_entries; i++) {
            azs_zmtp_subscriber *subscriber = node->entries[i]->subscriber;
            if (subscriber->matched != match) {
                subscriber->matched = match;
                visit(subscriber, arg);
            }
        }
        if (size == 0)
            return;
        node = child_at(node, message[0]);
        if (node == NULL || common_prefix(node, message, size) < node->label_size)
            return;
        message += node->label_size;
        size -= node->label_size;
    }
}

bool
azs_zmtp_trie_matches(const azs_zmtp_trie *trie, const uint8_t *message, size_t size)
{
    azs_zmtp_node *node = trie->root;
    while (node != NULL) {
        if (node->n_entries > 0)
            return true;
        if (size == 0)
            return false;
        node = child_at(node, message[0]);
        if (node == NULL || common_prefix(node, message, size) < node->label_size)
            return false;
        message += node->label_size;
        size -= node->label_size;
    }
    return false;
}
