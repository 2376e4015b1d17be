/* A trie of patterns, by their tokens: which of them match a type.
 *
 * A pattern is tokens between dots; `*` stands for one token, a final `>` for one or more. The walk takes the
 * literal branch first, then `*`, then `>`, so it meets matching patterns from the most specific to the least
 * (compared token by token). A type that begins with `$` is matched only by patterns that begin with that token.
 *
 * Whoever uses it keeps what belongs to a pattern in its nodes, which begin with a struct sb_node and are as large
 * as he says. One thread at a time may change or walk it.
 *
 * Offers: sb_trie_open, sb_trie_close; sb_trie_find, sb_trie_prune, sb_trie_pattern; sb_trie_walk. */
#pragma once

#include "shmbus/shared/native/hashtable.h"
#include "shmbus/shared/native/record.h"

struct sb_node { /* where the same tokens lead in all patterns that begin with them */
    struct sb_node *parent;
    struct sb_node *star, *rest; /* `*` and `>` */
    uint32_t children;           /* star, rest and literal ones */
    uint32_t patterns;           /* how much its user keeps here for the patterns that end here */
    uint32_t token_length;
    const char *token;           /* a literal; empty for root, star and rest */
};

struct sb_trie {
    struct sb_node *root;
    struct sb_table nodes; /* (parent, token) -> node */
    size_t node_size;
};

struct sb_token { const struct sb_node *parent; const char *text; size_t length; };

static inline uint64_t sb_token_hash(const struct sb_token *k)
{
    return sb_hash(k->text, k->length, (uint64_t)(uintptr_t)k->parent);
}
static inline bool sb_same_token(const void *item, const void *key)
{
    const struct sb_node *n = item;
    const struct sb_token *k = key;
    return n->parent == k->parent && n->token_length == k->length && sb_same_bytes(n->token, k->text, k->length);
}

static inline bool sb_trie_open(struct sb_trie *t, size_t node_size)
{
    memset(t, 0, sizeof *t);
    t->node_size = node_size;
    return (t->root = calloc(1, node_size)) != NULL;
}

static inline struct sb_node *sb_trie_child(struct sb_trie *t, struct sb_node *parent, const char *text, size_t length,
                                            bool make)
{
    struct sb_node **wild = NULL;
    if (length == 1 && *text == '*')
        wild = &parent->star;
    else if (length == 1 && *text == '>')
        wild = &parent->rest;
    struct sb_token key = {parent, text, length};
    uint64_t hash = wild ? 0 : sb_token_hash(&key);
    struct sb_node *n = wild ? *wild : sb_table_find(&t->nodes, hash, sb_same_token, &key);
    if (n || !make)
        return n;
    n = calloc(1, t->node_size + (wild ? 0 : length));
    if (!n)
        return NULL;
    n->parent = parent;
    n->token = (const char *)n + t->node_size;
    if (wild) {
        *wild = n;
    } else {
        n->token_length = (uint32_t)length;
        memcpy((char *)n + t->node_size, text, length);
        if (!sb_table_put(&t->nodes, hash, n)) {
            free(n);
            return NULL;
        }
    }
    parent->children++;
    return n;
}

/* Remove what leads to this node and nowhere else, unless a pattern ends here. */
static inline void sb_trie_prune(struct sb_trie *t, struct sb_node *n)
{
    while (n->parent && !n->patterns && !n->children) {
        struct sb_node *parent = n->parent;
        if (parent->star == n) {
            parent->star = NULL;
        } else if (parent->rest == n) {
            parent->rest = NULL;
        } else {
            struct sb_token key = {parent, n->token, n->token_length};
            sb_table_remove(&t->nodes, sb_token_hash(&key), n);
        }
        parent->children--;
        free(n);
        n = parent;
    }
}

/* The node of a pattern; `make` it where there is none. NULL: there is none, or no memory. */
static inline struct sb_node *sb_trie_find(struct sb_trie *t, const char *pattern, size_t length, bool make)
{
    struct sb_node *n = t->root;
    for (size_t start = 0; start <= length;) {
        const char *dot = memchr(pattern + start, '.', length - start);
        size_t end = dot ? (size_t)(dot - pattern) : length;
        struct sb_node *child = sb_trie_child(t, n, pattern + start, end - start, make);
        if (!child) {
            sb_trie_prune(t, n);
            return NULL;
        }
        n = child;
        start = end + 1;
    }
    return n;
}

/* The pattern that ends at this node, whose text ends where `text` does. Returns its length. */
static inline size_t sb_trie_pattern(const struct sb_node *n, char text[SB_MAX_TYPE])
{
    size_t at = SB_MAX_TYPE;
    for (; n->parent; n = n->parent) {
        bool wild = n == n->parent->star || n == n->parent->rest;
        size_t length = wild ? 1 : n->token_length;
        if (at < SB_MAX_TYPE)
            text[--at] = '.';
        at -= length;
        memcpy(text + at, !wild ? n->token : n == n->parent->star ? "*" : ">", length);
    }
    return SB_MAX_TYPE - at;
}

/* `empty` frees what its user keeps in a node, but not the node. */
static inline void sb_trie_free(struct sb_node *n, void (*empty)(struct sb_node *))
{
    if (!n)
        return;
    sb_trie_free(n->star, empty);
    sb_trie_free(n->rest, empty);
    empty(n);
    free(n);
}

static inline void sb_trie_close(struct sb_trie *t, void (*empty)(struct sb_node *))
{
    for (uint64_t i = 0; t->nodes.slots && i <= t->nodes.mask; i++)
        if (t->nodes.slots[i].item != SB_TOMB)
            sb_trie_free(t->nodes.slots[i].item, empty);
    sb_trie_free(t->root, empty);
    free(t->nodes.slots);
}

/* Called with each node at which a matching pattern ends. */
typedef void (*sb_matching)(void *context, struct sb_node *n);

/* A token is short: a call of memchr would take longer. */
static inline size_t sb_token_end(const char *text, size_t length)
{
    size_t end = 0;
    while (end < length && text[end] != '.')
        end++;
    return end;
}

static inline void sb_trie_walk_from(const struct sb_trie *t, const struct sb_node *n, const char *type, size_t length,
                                     bool wild, sb_matching match, void *context)
{
    size_t token = sb_token_end(type, length);
    bool last = token == length;
    struct sb_node *branch[2] = {NULL, wild ? n->star : NULL};
    if (n->children > (uint32_t)(n->star != NULL) + (n->rest != NULL)) { /* it has literal ones */
        struct sb_token key = {n, type, token};
        branch[0] = sb_table_find(&t->nodes, sb_token_hash(&key), sb_same_token, &key);
    }
    for (int i = 0; i < 2; i++) {
        if (!branch[i])
            continue;
        if (!last)
            sb_trie_walk_from(t, branch[i], type + token + 1, length - token - 1, true, match, context);
        else if (branch[i]->patterns)
            match(context, branch[i]);
    }
    if (wild && n->rest && n->rest->patterns)
        match(context, n->rest);
}

static inline void sb_trie_walk(const struct sb_trie *t, const char *type, size_t length, sb_matching match,
                                void *context)
{
    sb_trie_walk_from(t, t->root, type, length, length == 0 || type[0] != '$', match, context);
}
