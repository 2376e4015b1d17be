/* Who gets a message of a type: a trie of pattern tokens, and in front of it a bounded cache of exact types.
 *
 * The forwarding thread alone owns all of this, so nothing is shared, copied or swapped: it applies the
 * interests that endpoints log, and every change outdates the cache by one number.
 *
 * A pattern is tokens between dots; `*` stands for one token, a final `>` for one or more. The walk takes the
 * literal branch first, then `*`, then `>`, so it meets matching patterns from the most specific to the least
 * (compared token by token), and the first with handlers is the one that handles.
 *
 * Offers: dp_routes_open, dp_routes_close; dp_add_interest, dp_remove_interest, dp_remove_interests;
 *         dp_intern_group; dp_lookup and dp_pin_routes; dp_valid_tokens. */
#pragma once

#include "shmbus/shared/native/layout.h"
#include "shmbus/dispatcher/native/hashtable.h"

#define DP_CACHE_SETS 2048u
#define DP_CACHE_WAYS 4u

struct dp_node;

struct dp_group { /* an interned group name */
    uint16_t length;
    uint64_t turn; /* rotates among equals */
    char name[];
};

struct dp_interest { /* one interest of one endpoint */
    uint64_t id;
    uint16_t slot;
    uint8_t role, bit, flags;
    struct dp_group *group;
    struct dp_node *node;
    struct dp_interest *next, **link;           /* in its node */
    struct dp_interest *next_of_slot, **slot_link; /* in its endpoint */
};

struct dp_node {
    struct dp_node *parent;
    struct dp_node *star, *rest; /* `*` and `>` */
    struct dp_interest *interests;      /* of patterns that end here: who came first is asked first */
    struct dp_interest **interests_end; /* where the next is linked in, if there are any */
    uint32_t children;           /* star, rest and literal ones */
    uint8_t token_length;
    char token[]; /* a literal; empty for root, star and rest */
};

struct dp_receiver {
    uint16_t slot;
    uint8_t bit;
    bool lossy; /* all that makes it a receiver would rather lose than wait */
};

struct dp_receivers {
    struct dp_receiver *list;
    uint32_t count, capacity;
};

struct dp_group_route {
    struct dp_group *group;
    struct dp_receivers members;
};

struct dp_route { /* what the trie says of one exact type */
    uint64_t hash;
    uint64_t version;
    uint64_t used; /* when last, in look-ups */
    uint16_t type_length;
    bool reserved; /* begins with $: only the bus itself may publish it */
    struct dp_receivers plain, handlers, observers;
    struct dp_group_route *groups;
    uint32_t group_count, group_capacity;
    uint64_t turn;
    uint8_t type[SB_MAX_TYPE + 1];
};

struct dp_routes {
    struct dp_node *root;
    struct dp_table nodes;  /* (parent, token) -> node */
    struct dp_table interests; /* (slot, id) -> interest */
    struct dp_table groups; /* name -> group */
    struct dp_interest **of_slot;
    uint32_t slots;
    uint64_t version, lookups, pattern_count, types_known;
    uint64_t observers; /* taps that are open */
    uint64_t pinned_from; /* routes used since this look-up belong to the run and may not be replaced */
    struct dp_route *cache[DP_CACHE_SETS][DP_CACHE_WAYS];
    struct dp_route *last; /* the route looked up before */
};

struct dp_token { const struct dp_node *parent; const char *text; size_t length; };

static inline uint64_t dp_token_hash(const struct dp_token *k)
{
    return dp_hash(k->text, k->length, (uint64_t)(uintptr_t)k->parent);
}
static inline bool dp_same_token(const void *item, const void *key)
{
    const struct dp_node *n = item;
    const struct dp_token *k = key;
    return n->parent == k->parent && n->token_length == k->length && memcmp(n->token, k->text, k->length) == 0;
}

struct dp_interest_key { uint64_t id; uint64_t slot; };
static inline bool dp_same_interest(const void *item, const void *key)
{
    const struct dp_interest *w = item;
    const struct dp_interest_key *k = key;
    return w->id == k->id && w->slot == k->slot;
}

struct dp_text { const char *text; size_t length; };
static inline bool dp_same_group(const void *item, const void *key)
{
    const struct dp_group *g = item;
    const struct dp_text *k = key;
    return g->length == k->length && memcmp(g->name, k->text, k->length) == 0;
}

static inline bool dp_routes_open(struct dp_routes *r, uint32_t slots)
{
    memset(r, 0, sizeof *r);
    r->root = calloc(1, sizeof *r->root);
    r->of_slot = calloc(slots, sizeof *r->of_slot);
    r->slots = slots;
    r->version = 1;
    return r->root && r->of_slot;
}

static inline bool dp_token_char(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-';
}

/* Are these the tokens of a type, or of a pattern where `wild` is allowed? */
static inline bool dp_valid_tokens(const char *text, size_t length, bool wild)
{
    if (length == 0 || length > SB_MAX_TYPE)
        return false;
    size_t start = 0;
    for (size_t i = 0; i <= length; i++) {
        if (i < length && text[i] != '.')
            continue;
        size_t n = i - start;
        if (n == 0)
            return false;
        if (wild && n == 1 && text[start] == '*') {
        } else if (wild && n == 1 && text[start] == '>' && i == length) {
        } else {
            for (size_t k = start; k < i; k++)
                if (!dp_token_char(text[k]) && !(text[k] == '$' && k == 0 && n > 1))
                    return false;
        }
        start = i + 1;
    }
    return true;
}

static inline struct dp_node *dp_child(struct dp_routes *r, struct dp_node *parent, const char *text, size_t length,
                                       bool make)
{
    struct dp_node **wild = NULL;
    if (length == 1 && *text == '*')
        wild = &parent->star;
    else if (length == 1 && *text == '>')
        wild = &parent->rest;
    struct dp_token key = {parent, text, length};
    uint64_t hash = wild ? 0 : dp_token_hash(&key);
    struct dp_node *n = wild ? *wild : dp_table_find(&r->nodes, hash, dp_same_token, &key);
    if (n || !make)
        return n;
    n = calloc(1, sizeof *n + (wild ? 0 : length));
    if (!n)
        return NULL;
    n->parent = parent;
    if (wild) {
        *wild = n;
    } else {
        n->token_length = (uint8_t)length;
        memcpy(n->token, text, length);
        if (!dp_table_put(&r->nodes, hash, n)) {
            free(n);
            return NULL;
        }
    }
    parent->children++;
    return n;
}

static inline void dp_prune(struct dp_routes *r, struct dp_node *n)
{
    while (n->parent && !n->interests && !n->children) {
        struct dp_node *parent = n->parent;
        if (parent->star == n) {
            parent->star = NULL;
        } else if (parent->rest == n) {
            parent->rest = NULL;
        } else {
            struct dp_token key = {parent, n->token, n->token_length};
            dp_table_remove(&r->nodes, dp_token_hash(&key), n);
        }
        parent->children--;
        free(n);
        n = parent;
    }
}

static inline struct dp_group *dp_intern_group(struct dp_routes *r, const char *name, size_t length)
{
    struct dp_text key = {name, length};
    uint64_t hash = dp_hash(name, length, 7);
    struct dp_group *g = dp_table_find(&r->groups, hash, dp_same_group, &key);
    if (g)
        return g;
    g = calloc(1, sizeof *g + length + 1);
    if (!g)
        return NULL;
    g->length = (uint16_t)length;
    memcpy(g->name, name, length);
    if (!dp_table_put(&r->groups, hash, g)) {
        free(g);
        return NULL;
    }
    return g;
}

static inline void dp_forget_interest(struct dp_routes *r, struct dp_interest *w)
{
    struct dp_interest_key key = {w->id, w->slot};
    dp_table_remove(&r->interests, dp_hash(&key, sizeof key, 3), w);
    *w->link = w->next;
    *(w->next ? &w->next->link : &w->node->interests_end) = w->link;
    *w->slot_link = w->next_of_slot;
    if (w->next_of_slot)
        w->next_of_slot->slot_link = w->slot_link;
    struct dp_node *n = w->node;
    r->observers -= w->role == SB_ROLE_OBSERVE;
    free(w);
    dp_prune(r, n);
    r->pattern_count--;
    r->version++;
}

static inline bool dp_remove_interest(struct dp_routes *r, uint16_t slot, uint64_t id)
{
    struct dp_interest_key key = {id, slot};
    struct dp_interest *w = dp_table_find(&r->interests, dp_hash(&key, sizeof key, 3), dp_same_interest, &key);
    if (w)
        dp_forget_interest(r, w);
    return w != NULL;
}

static inline void dp_remove_interests(struct dp_routes *r, uint16_t slot)
{
    while (r->of_slot[slot])
        dp_forget_interest(r, r->of_slot[slot]);
}

static inline bool dp_interest_sound(const struct sb_interest *e, const char *pattern)
{
    return dp_valid_tokens(pattern, e->pattern_length, true) && e->bit < SB_GROUPS && e->role >= SB_ROLE_SUBSCRIBE &&
           e->role <= SB_ROLE_OBSERVE && (e->role != SB_ROLE_SUBSCRIBE || !e->bit || e->group_length);
}

/* False: nothing that a sound endpoint logs, or no memory. */
static inline bool dp_add_interest(struct dp_routes *r, uint16_t slot, const struct sb_interest *e, const char *pattern,
                                   const char *group)
{
    struct dp_interest_key key = {e->id, slot};
    uint64_t hash = dp_hash(&key, sizeof key, 3);
    if (!dp_interest_sound(e, pattern) || dp_table_find(&r->interests, hash, dp_same_interest, &key))
        return false;
    struct dp_group *g = NULL;
    if (e->role == SB_ROLE_SUBSCRIBE && e->bit && !(g = dp_intern_group(r, group, e->group_length)))
        return false;
    struct dp_node *n = r->root;
    for (size_t start = 0; start <= e->pattern_length && n;) {
        const char *dot = memchr(pattern + start, '.', e->pattern_length - start);
        size_t end = dot ? (size_t)(dot - pattern) : e->pattern_length;
        n = dp_child(r, n, pattern + start, end - start, true);
        start = end + 1;
    }
    struct dp_interest *w = n ? calloc(1, sizeof *w) : NULL;
    if (!w || !dp_table_put(&r->interests, hash, w)) {
        free(w);
        return false;
    }
    *w = (struct dp_interest){.id = e->id, .slot = slot, .role = e->role, .bit = e->bit, .flags = e->flags,
                          .group = g, .node = n};
    w->link = n->interests ? n->interests_end : &n->interests;
    *w->link = w;
    n->interests_end = &w->next;
    w->next_of_slot = r->of_slot[slot];
    w->slot_link = &r->of_slot[slot];
    if (w->next_of_slot)
        w->next_of_slot->slot_link = &w->next_of_slot;
    r->of_slot[slot] = w;
    r->observers += w->role == SB_ROLE_OBSERVE;
    r->pattern_count++;
    r->version++;
    return true;
}

/* Looking up ----------------------------------------------------------------------------------------------- */

/* One entry an endpoint, which is lossy only if all its interests are. */
static inline void dp_add_receiver(struct dp_receivers *r, const struct dp_interest *w)
{
    bool lossy = w->flags & SB_DROP_NEWEST;
    for (uint32_t i = 0; i < r->count; i++)
        if (r->list[i].slot == w->slot) {
            r->list[i].lossy &= lossy;
            return;
        }
    struct dp_receiver *fresh = dp_grown(r->list, r->count, &r->capacity, sizeof *fresh);
    if (!fresh)
        return;
    r->list = fresh;
    r->list[r->count++] = (struct dp_receiver){w->slot, w->bit, lossy};
}

/* The members of a group in this route; NULL: no memory. */
static inline struct dp_receivers *dp_members_of(struct dp_route *route, struct dp_group *group)
{
    for (uint32_t i = 0; i < route->group_count; i++)
        if (route->groups[i].group == group)
            return &route->groups[i].members;
    struct dp_group_route *fresh = dp_grown(route->groups, route->group_count, &route->group_capacity, sizeof *fresh);
    if (!fresh)
        return NULL;
    route->groups = fresh;
    struct dp_group_route *added = &fresh[route->group_count++];
    added->group = group;
    added->members.count = 0; /* its list may be from an earlier look-up */
    return &added->members;
}

/* A pattern that ends at this node matches. */
static inline void dp_match(struct dp_route *route, const struct dp_node *n)
{
    bool most_specific = route->handlers.count == 0;
    for (const struct dp_interest *w = n->interests; w; w = w->next) {
        struct dp_receivers *receivers = &route->plain;
        if (w->role == SB_ROLE_OBSERVE)
            receivers = &route->observers;
        else if (w->role == SB_ROLE_HANDLE)
            receivers = most_specific ? &route->handlers : NULL;
        else if (w->bit)
            receivers = dp_members_of(route, w->group);
        if (receivers)
            dp_add_receiver(receivers, w);
    }
}

static inline void dp_walk(struct dp_routes *r, struct dp_route *route, const struct dp_node *n, const char *type,
                           size_t length, bool wild)
{
    const char *dot = memchr(type, '.', length);
    size_t token = dot ? (size_t)(dot - type) : length;
    struct dp_token key = {n, type, token};
    const struct dp_node *branch[2] = {dp_table_find(&r->nodes, dp_token_hash(&key), dp_same_token, &key),
                                       wild ? n->star : NULL};
    for (int i = 0; i < 2; i++)
        if (branch[i] && dot)
            dp_walk(r, route, branch[i], dot + 1, length - token - 1, true);
        else if (branch[i])
            dp_match(route, branch[i]);
    if (wild && n->rest)
        dp_match(route, n->rest);
}

static inline void dp_resolve(struct dp_routes *r, struct dp_route *route)
{
    route->plain.count = route->handlers.count = route->observers.count = route->group_count = 0;
    dp_walk(r, route, r->root, (const char *)route->type, route->type_length, route->type[0] != '$');
    route->version = r->version;
}

static inline bool dp_is_type(const struct dp_route *route, const uint8_t *type, uint16_t length)
{
    if (route->type_length != length)
        return false;
    if (length < 8)
        return memcmp(route->type, type, length) == 0;
    for (uint32_t i = 0, last = length - 8u;; i = i + 8 < last ? i + 8 : last) { /* a call would take longer */
        uint64_t a, b;
        memcpy(&a, (const uint8_t *)route->type + i, 8);
        memcpy(&b, type + i, 8);
        if (a != b)
            return false;
        if (i == last)
            return true;
    }
}

/* From here on, routes that are looked up stay until the next call: a run points into them. */
static inline void dp_pin_routes(struct dp_routes *r) { r->pinned_from = ++r->lookups; }

/* The route of a type, or NULL where it is none, no memory is left or its place in the cache is pinned. The
 * type is read once. */
static inline struct dp_route *dp_lookup(struct dp_routes *r, const uint8_t *shared_type, uint16_t length)
{
    struct dp_route *route = r->last;
    if (route && route->version == r->version && dp_is_type(route, shared_type, length)) {
        route->used = r->lookups;
        return route;
    }
    uint8_t type[SB_MAX_TYPE + 1];
    memcpy(type, shared_type, length);
    uint64_t hash = dp_hash(type, length, 11);
    struct dp_route **set = r->cache[hash % DP_CACHE_SETS], **oldest = &set[0];
    r->lookups++;
    for (uint32_t i = 0; i < DP_CACHE_WAYS; i++) {
        route = set[i];
        if (route && route->hash == hash && dp_is_type(route, type, length)) {
            if (route->version != r->version)
                dp_resolve(r, route);
            route->used = r->lookups;
            return r->last = route;
        }
        if (*oldest && (!route || route->used < (*oldest)->used))
            oldest = &set[i];
    }
    if (!dp_valid_tokens((const char *)type, length, false))
        return NULL;
    if (*oldest && (*oldest)->used >= r->pinned_from)
        return NULL;
    if (!*oldest) {
        if (!(*oldest = calloc(1, sizeof **oldest)))
            return NULL;
        r->types_known++;
    }
    route = *oldest;
    route->hash = hash;
    route->type_length = length;
    route->reserved = type[0] == '$';
    memcpy(route->type, type, length);
    route->used = r->lookups;
    dp_resolve(r, route);
    return r->last = route;
}

static inline void dp_free_route(struct dp_route *route)
{
    if (!route)
        return;
    free(route->plain.list);
    free(route->handlers.list);
    free(route->observers.list);
    for (uint32_t i = 0; i < route->group_capacity; i++)
        free(route->groups[i].members.list);
    free(route->groups);
    free(route);
}

static inline void dp_routes_close(struct dp_routes *r)
{
    for (uint32_t s = 0; r->of_slot && s < r->slots; s++)
        dp_remove_interests(r, (uint16_t)s);
    for (uint32_t i = 0; i < DP_CACHE_SETS; i++)
        for (uint32_t k = 0; k < DP_CACHE_WAYS; k++)
            dp_free_route(r->cache[i][k]);
    for (uint64_t i = 0; r->groups.slots && i <= r->groups.mask; i++)
        if (r->groups.slots[i].item && r->groups.slots[i].item != DP_TOMB)
            free(r->groups.slots[i].item);
    free(r->nodes.slots);
    free(r->interests.slots);
    free(r->groups.slots);
    free(r->of_slot);
    free(r->root);
}
