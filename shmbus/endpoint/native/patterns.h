/* Patterns of one endpoint, each with the keys that were added under it, found by the types that they match.
 *
 * One thread at a time changes it or looks. Failing calls change nothing: no memory.
 *
 * Offers: ep_patterns_open, ep_patterns_close; ep_add_key, ep_remove_key; ep_match_type. */
#pragma once

#include "shmbus/shared/native/trie.h"

struct ep_pattern {
    struct sb_node at;
    int64_t *keys;       /* at.patterns of them */
    uint32_t capacity;
    uint32_t version;    /* of `callbacks`; 0: none */
    void *callbacks;     /* what is called where no other pattern matches; not owned */
};

struct ep_patterns {
    struct sb_trie trie;       /* of struct ep_pattern */
    struct ep_pattern **found; /* by the latest ep_match_type, the most specific first */
    uint32_t count, capacity;
    bool failed;
};

static inline bool ep_patterns_open(struct ep_patterns *p)
{
    memset(p, 0, sizeof *p);
    return sb_trie_open(&p->trie, sizeof(struct ep_pattern));
}

static inline void ep_free_keys(struct sb_node *n) { free(((struct ep_pattern *)n)->keys); }

static inline void ep_patterns_close(struct ep_patterns *p)
{
    sb_trie_close(&p->trie, ep_free_keys);
    free(p->found);
}

static inline bool ep_add_key(struct ep_patterns *p, const char *pattern, size_t length, int64_t key)
{
    struct ep_pattern *n = (struct ep_pattern *)sb_trie_find(&p->trie, pattern, length, true);
    if (!n)
        return false;
    int64_t *fresh = sb_grown(n->keys, n->at.patterns, &n->capacity, sizeof *fresh);
    if (!fresh) {
        sb_trie_prune(&p->trie, &n->at);
        return false;
    }
    n->keys = fresh;
    n->keys[n->at.patterns++] = key;
    return true;
}

/* False: there is none such. */
static inline bool ep_remove_key(struct ep_patterns *p, const char *pattern, size_t length, int64_t key)
{
    struct ep_pattern *n = (struct ep_pattern *)sb_trie_find(&p->trie, pattern, length, false);
    uint32_t i = 0;
    while (n && i < n->at.patterns && n->keys[i] != key)
        i++;
    if (!n || i == n->at.patterns)
        return false;
    n->at.patterns--;
    memmove(n->keys + i, n->keys + i + 1, (n->at.patterns - i) * sizeof *n->keys);
    if (!n->at.patterns) {
        free(n->keys);
        n->keys = NULL;
        n->capacity = 0;
        sb_trie_prune(&p->trie, &n->at);
    }
    return true;
}

static inline void ep_note_match(void *patterns, struct sb_node *n)
{
    struct ep_patterns *p = patterns;
    struct ep_pattern **fresh = sb_grown(p->found, p->count, &p->capacity, sizeof *fresh);
    if (!fresh) {
        p->failed = true;
        return;
    }
    p->found = fresh;
    p->found[p->count++] = (struct ep_pattern *)n;
}

#define EP_NO_MEMORY (~(uint64_t)0)

/* Find the patterns that match, into `found`; how many keys they have together, or EP_NO_MEMORY. */
static inline uint64_t ep_match_type(struct ep_patterns *p, const char *type, size_t length)
{
    uint64_t keys = 0;
    p->count = 0;
    p->failed = false;
    sb_trie_walk(&p->trie, type, length, ep_note_match, p);
    for (uint32_t i = 0; i < p->count; i++)
        keys += p->found[i]->at.patterns;
    return p->failed ? EP_NO_MEMORY : keys;
}
