/* Who gets a message of a type: a trie of pattern tokens, and in front of it a bounded cache of exact types.
 *
 * The forwarding thread alone owns all of this, so nothing is shared, copied or swapped: it applies the
 * interests that endpoints log, and every change outdates the cache by one number.
 *
 * The trie's walk meets matching patterns from the most specific to the least, and the first with handlers of the
 * lowest rank there is (enum sb_rank) handles. A type has a route of its own for messages that a link brought, which
 * has nobody but those of SB_RANK_HERE: what came from one bus goes to no other.
 *
 * A look-up mostly touches memory that the processor has at hand, also where types are so many that each has been
 * forgotten when it comes again: marks and places of a set lie in one line, what such a look-up writes in the first
 * two of the route's, and these are fetched while the trie is walked.
 *
 * Offers: dp_routes_open, dp_routes_close; dp_add_interest, dp_remove_interest, dp_remove_interests;
 *         dp_interest_of, dp_lead;
 *         dp_intern_group, dp_drop_group; dp_key_refused, dp_open_keyed, dp_close_keyed; dp_lookup and dp_pin_routes;
 *         dp_who_matches; dp_valid_tokens. */
#pragma once

#include "shmbus/dispatcher/native/matching.h"
#include "shmbus/shared/native/key.h"
#include "shmbus/shared/native/layout.h"
#include "shmbus/shared/native/trie.h"
#include "shmbus/shared/native/type.h"

#define DP_CACHE_SETS 2048u
#define DP_CACHE_WAYS 4u
#define DP_CACHE_PLACES (DP_CACHE_SETS * DP_CACHE_WAYS)

#define DP_FEW 2u /* receivers that need no list of their own */

struct dp_group { /* an interned group name */
    uint32_t uses; /* by interests, bits of endpoints, backlogs; without any it goes */
    uint16_t length;
    uint64_t turn; /* rotates among equals */
    uint32_t interests;
    struct dp_keyed *keyed; /* NULL: it has no key */
    char name[];
};

struct dp_keyed { /* of a group with a key, beside what stands in BUS */
    struct sb_keyed *at;
    struct dp_group *group;
    uint64_t done; /* a bit for each member that is known to have passed its mark */
    uint32_t high; /* its members in BUS stand below this */
    uint32_t interests_of[SB_MAX_SLOTS];
};

struct dp_interest { /* one interest of one endpoint */
    uint64_t id;
    uint16_t slot;
    uint16_t via; /* to which slot its messages go: its own, a mailbox, or a backlog while it catches up. DP_NO_WAY: not
                   * yet */
    uint8_t role, bit, flags, rank;
    uint32_t history;
    struct dp_group *group;
    struct dp_node *node;
    struct dp_matching *matching;               /* of a role SB_ROLE_MATCH */
    struct dp_interest *next, **link;           /* in its node */
    struct dp_interest *next_of_slot, **slot_link; /* in its endpoint */
};

#define DP_NO_WAY 0xffffu

struct dp_node {
    struct sb_node at;
    struct dp_interest *interests;      /* of patterns that end here: who came first is asked first */
    struct dp_interest **interests_end; /* where the next is linked in, if there are any */
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
    uint64_t key; /* hashed; of a group with a key */
    uint8_t rank; /* of its members */
    struct dp_receivers members;
};

struct dp_route { /* what the trie says of one exact type */
    uint64_t version;
    uint64_t number; /* of this type's place in the cache: each that is learnt has a new one */
    struct dp_receivers plain;
    struct dp_receiver few[DP_FEW]; /* the list of `plain`, as long as they suffice */
    struct dp_receivers handlers;
    uint16_t type_length;
    uint16_t key;     /* the same, and SB_RELAYED in that of messages that a link brought */
    bool reserved;    /* begins with $: only the bus itself may publish it, */
    bool of_links;    /* and links */
    bool keyed;       /* a group with a key is among its groups */
    bool uniform;     /* all events have the same targets */
    uint32_t group_count, group_capacity;
    uint32_t place; /* in the cache, below DP_CACHE_PLACES: where it stays, whatever type is learnt there */
    uint8_t rank;   /* of its handlers */
    struct dp_group_route *groups;
    uint64_t turn;
    uint8_t type[SB_MAX_TYPE + 1];
    struct dp_receivers observers;
};

_Static_assert(SB_RELAYED > SB_MAX_TYPE, "a key has both");
static inline bool dp_of_relayed(const struct dp_route *route) { return route->key & SB_RELAYED; }

struct dp_set_of_types { /* one line of the processor's */
    uint64_t mark[DP_CACHE_WAYS]; /* when last used, in look-ups, and 16 bits of the type's hash: dp_mark */
    struct dp_route *route[DP_CACHE_WAYS];
};
_Static_assert(sizeof(struct dp_set_of_types) == RB_LINE, "a set is one line");

struct dp_routes {
    struct sb_trie trie;       /* of struct dp_node */
    struct sb_table interests; /* (slot, id) -> interest */
    struct sb_table groups; /* name -> group */
    struct dp_interest **of_slot;
    uint32_t slots;
    uint8_t ranks[SB_MAX_SLOTS]; /* of the endpoints in them */
    uint64_t version, lookups, pattern_count, types_known, types_learnt;
    uint64_t changes; /* of who receives or handles what; versions change more often */
    uint64_t observers; /* taps that are open */
    struct sb_keyed *keyed_at; /* in BUS; SB_KEYED_GROUPS */
    struct dp_keyed *keyed[SB_KEYED_GROUPS];
    uint32_t keyed_count;
    struct dp_matchings matchings;
    uint64_t pinned_from; /* routes used since this look-up belong to the run and may not be replaced */
    struct dp_set_of_types *cache; /* DP_CACHE_SETS */
    struct dp_route *last; /* the route looked up before */
    uint64_t *last_mark;
};

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
    r->of_slot = calloc(slots, sizeof *r->of_slot);
    r->cache = aligned_alloc(RB_LINE, DP_CACHE_SETS * sizeof *r->cache);
    if (!sb_trie_open(&r->trie, sizeof(struct dp_node)) || !r->of_slot || !r->cache)
        return false;
    memset(r->cache, 0, DP_CACHE_SETS * sizeof *r->cache);
    r->slots = slots;
    r->version = r->changes = 1;
    return true;
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

/* For one more use, until dp_drop_group. NULL: no memory. */
static inline struct dp_group *dp_intern_group(struct dp_routes *r, const char *name, size_t length)
{
    struct dp_text key = {name, length};
    uint64_t hash = sb_hash(name, length, 7);
    struct dp_group *g = sb_table_find(&r->groups, hash, dp_same_group, &key);
    if (g) {
        g->uses++;
        return g;
    }
    g = calloc(1, sizeof *g + length + 1);
    if (!g)
        return NULL;
    g->uses = 1;
    g->length = (uint16_t)length;
    memcpy(g->name, name, length);
    if (!sb_table_put(&r->groups, hash, g)) {
        free(g);
        return NULL;
    }
    return g;
}

/* One use less; NULL is none. Routes that name it still are outdated: its last interest has gone. */
static inline void dp_drop_group(struct dp_routes *r, struct dp_group *g)
{
    if (!g || --g->uses)
        return;
    sb_table_remove(&r->groups, sb_hash(g->name, g->length, 7), g);
    free(g);
}

/* Groups with a key: a group has one from its first interest to its last, and beyond that as long as keyed.h needs
 * it. */

/* One interest more or less of this endpoint in a group; NULL is none. */
static inline void dp_count_member(struct dp_group *g, uint16_t slot, int step)
{
    if (!g)
        return;
    g->interests += (uint32_t)step;
    if (g->keyed)
        g->keyed->interests_of[slot] += (uint32_t)step;
}

static inline bool dp_same_text(const char *kept, const char *text, size_t length)
{
    return strlen(kept) == length && memcmp(kept, text, length) == 0;
}

/* May it not be a member of this group with this key? 0: it may; otherwise why not. */
static inline enum sb_refusal dp_key_refused(const struct dp_routes *r, const struct sb_interest *e,
                                             const char *pattern, const char *group)
{
    struct dp_text key = {group, e->group_length};
    const struct dp_group *g = sb_table_find(&r->groups, sb_hash(group, e->group_length, 7), dp_same_group, &key);
    const struct sb_keyed *at = g && g->keyed ? g->keyed->at : NULL;
    if (at && e->key)
        return rb_load(&at->key) == e->key && dp_same_text(at->pattern, pattern, e->pattern_length)
                   ? 0 : SB_REFUSED_KEY;
    if (at || (e->key && g && g->interests))
        return SB_REFUSED_GROUP;
    return e->key && r->keyed_count == SB_KEYED_GROUPS ? SB_REFUSED_FULL : 0;
}

/* The group has the key that stands in entry `index` of BUS. False: no memory. */
static inline bool dp_open_keyed(struct dp_routes *r, struct dp_group *g, uint32_t index)
{
    struct dp_keyed *k = calloc(1, sizeof *k);
    if (!k)
        return false;
    *k = (struct dp_keyed){.at = &r->keyed_at[index], .group = g};
    g->uses++;
    g->keyed = r->keyed[index] = k;
    r->keyed_count++;
    return true;
}

/* It has no interests, and nothing of it is on its way. */
static inline void dp_close_keyed(struct dp_routes *r, uint32_t index)
{
    struct dp_keyed *k = r->keyed[index];
    r->keyed[index] = NULL;
    r->keyed_count--;
    k->group->keyed = NULL;
    dp_drop_group(r, k->group);
    free(k);
}

/* The first of its members brings the key. False: no memory. */
static inline bool dp_make_keyed(struct dp_routes *r, struct dp_group *g, const struct sb_interest *e,
                                 const char *pattern)
{
    uint32_t index = 0;
    while (index < SB_KEYED_GROUPS && r->keyed[index])
        index++;
    if (index == SB_KEYED_GROUPS || !dp_open_keyed(r, g, index))
        return false;
    struct sb_keyed *at = g->keyed->at;
    memset(at->name, 0, sizeof at->name);
    memset(at->pattern, 0, sizeof at->pattern);
    memcpy(at->name, g->name, g->length);
    memcpy(at->pattern, pattern, e->pattern_length);
    for (uint32_t i = 0; i < SB_MEMBERS; i++)
        rb_store(&at->member[i].whom, 0);
    rb_store(&at->epoch, 1);
    rb_store(&at->settled, 1);
    RB_FAIL("keyed.filled");
    rb_store_release(&at->key, e->key); /* a successor and observers go by it */
    return true;
}

/* Keepers count for nobody. */
static inline bool dp_is_receiver(const struct dp_interest *w)
{
    return w->role == SB_ROLE_SUBSCRIBE && w->rank < SB_RANK_KEEPER;
}

/* One came (step: 1) or goes (-1): whoever asked whether anybody receives this is to know. */
static inline void dp_count_receiver(struct dp_routes *r, const struct dp_interest *w, int step)
{
    char text[SB_MAX_TYPE];
    if (!r->matchings.first || !dp_is_receiver(w))
        return;
    size_t length = sb_trie_pattern(&w->node->at, text);
    dp_count_everywhere(&r->matchings, text + sizeof text - length, length, w->slot, step);
}

/* Of an endpoint that asks so from now on. False: no memory. */
static inline bool dp_begin_matching(struct dp_routes *r, struct dp_interest *w, const char *pattern, size_t length)
{
    w->matching = dp_matching_open(&r->matchings, w->id, w->slot, r->slots, pattern, length);
    for (uint32_t slot = 0; w->matching && slot < r->slots; slot++)
        for (const struct dp_interest *of = r->of_slot[slot]; of; of = of->next_of_slot) {
            char text[SB_MAX_TYPE];
            size_t n = dp_is_receiver(of) ? sb_trie_pattern(&of->node->at, text) : 0;
            if (n)
                dp_matching_count(w->matching, text + sizeof text - n, n, of->slot, 1);
        }
    return w->matching;
}

static inline void dp_forget_interest(struct dp_routes *r, struct dp_interest *w)
{
    if (w->matching)
        dp_matching_close(w->matching);
    struct dp_interest_key key = {w->id, w->slot};
    sb_table_remove(&r->interests, sb_hash(&key, sizeof key, 3), w);
    *w->link = w->next;
    *(w->next ? &w->next->link : &w->node->interests_end) = w->link;
    *w->slot_link = w->next_of_slot;
    if (w->next_of_slot)
        w->next_of_slot->slot_link = w->slot_link;
    struct dp_node *n = w->node;
    r->observers -= w->role == SB_ROLE_OBSERVE;
    dp_count_member(w->group, w->slot, -1);
    dp_drop_group(r, w->group);
    free(w);
    n->at.patterns--;
    sb_trie_prune(&r->trie, &n->at);
    r->pattern_count--;
    r->version++;
    r->changes++;
}

/* NULL: there is none. */
static inline struct dp_interest *dp_interest_of(const struct dp_routes *r, uint16_t slot, uint64_t id)
{
    struct dp_interest_key key = {id, slot};
    return sb_table_find(&r->interests, sb_hash(&key, sizeof key, 3), dp_same_interest, &key);
}

/* From now on its messages go there. Whoever receives or handles them is the same. */
static inline void dp_lead(struct dp_routes *r, struct dp_interest *w, uint16_t via)
{
    w->via = via;
    r->version++;
}

static inline bool dp_remove_interest(struct dp_routes *r, uint16_t slot, uint64_t id)
{
    struct dp_interest *w = dp_interest_of(r, slot, id);
    if (w) {
        dp_count_receiver(r, w, -1);
        dp_forget_interest(r, w);
    }
    return w != NULL;
}

static inline void dp_remove_interests(struct dp_routes *r, uint16_t slot)
{
    dp_count_none(&r->matchings, slot);
    while (r->of_slot[slot])
        dp_forget_interest(r, r->of_slot[slot]);
}

static inline bool dp_interest_sound(const struct sb_interest *e, const char *pattern)
{
    if (e->key && (e->role != SB_ROLE_SUBSCRIBE || !e->bit || pattern[0] == '$'))
        return false;
    return dp_valid_tokens(pattern, e->pattern_length, true) && e->bit < SB_GROUPS && e->role >= SB_ROLE_SUBSCRIBE &&
           e->role <= SB_ROLE_MATCH && (e->role != SB_ROLE_SUBSCRIBE || !e->bit || e->group_length);
}

/* False: nothing that a sound endpoint logs, or no memory. */
static inline bool dp_add_interest(struct dp_routes *r, uint16_t slot, const struct sb_interest *e, const char *pattern,
                                   const char *group)
{
    struct dp_interest_key key = {e->id, slot};
    uint64_t hash = sb_hash(&key, sizeof key, 3);
    if (!dp_interest_sound(e, pattern) || sb_table_find(&r->interests, hash, dp_same_interest, &key))
        return false;
    struct dp_group *g = NULL;
    if (e->role == SB_ROLE_SUBSCRIBE && e->bit && !(g = dp_intern_group(r, group, e->group_length)))
        return false;
    if (g && e->key && !g->keyed && !dp_make_keyed(r, g, e, pattern)) {
        dp_drop_group(r, g);
        return false;
    }
    struct dp_node *n = (struct dp_node *)sb_trie_find(&r->trie, pattern, e->pattern_length, true);
    struct dp_interest *w = n ? calloc(1, sizeof *w) : NULL;
    if (!w || !sb_table_put(&r->interests, hash, w)) {
        free(w);
        dp_drop_group(r, g);
        if (n)
            sb_trie_prune(&r->trie, &n->at);
        return false;
    }
    *w = (struct dp_interest){.id = e->id, .slot = slot, .via = slot, .role = e->role, .bit = e->bit,
                              .flags = e->flags, .rank = r->ranks[slot], .history = e->history, .group = g,
                              .node = n};
    w->link = n->interests ? n->interests_end : &n->interests;
    *w->link = w;
    n->interests_end = &w->next;
    n->at.patterns++;
    w->next_of_slot = r->of_slot[slot];
    w->slot_link = &r->of_slot[slot];
    if (w->next_of_slot)
        w->next_of_slot->slot_link = &w->next_of_slot;
    r->of_slot[slot] = w;
    r->observers += w->role == SB_ROLE_OBSERVE;
    dp_count_member(g, slot, 1);
    r->pattern_count++;
    r->version++;
    r->changes++;
    dp_count_receiver(r, w, 1);
    if (w->role == SB_ROLE_MATCH && !dp_begin_matching(r, w, pattern, e->pattern_length)) {
        dp_forget_interest(r, w);
        return false;
    }
    return true;
}

/* Looking up ----------------------------------------------------------------------------------------------- */

/* Is there space for one more? */
static inline bool dp_more_receivers(struct dp_route *route, struct dp_receivers *r)
{
    bool few = r->list == route->few;
    if (few && r->count == DP_FEW) {
        uint32_t capacity = 0;
        struct dp_receiver *fresh = sb_grown(NULL, 0, &capacity, sizeof *fresh);
        if (!fresh)
            return false;
        memcpy(fresh, route->few, sizeof route->few);
        r->list = fresh;
        r->capacity = capacity;
    }
    struct dp_receiver *fresh = few ? r->list : sb_grown(r->list, r->count, &r->capacity, sizeof *fresh);
    if (fresh)
        r->list = fresh;
    return fresh;
}

/* That list, which is to have the lowest rank alone, for one more of this rank; NULL: it has lower ones. */
static inline struct dp_receivers *dp_lowest(struct dp_receivers *r, uint8_t *lowest, uint8_t rank)
{
    if (r->count && rank > *lowest)
        return NULL;
    if (rank < *lowest)
        r->count = 0;
    *lowest = rank;
    return r;
}

/* One entry an endpoint or backlog, which is lossy only if all its interests are. */
static inline void dp_add_receiver(struct dp_route *route, struct dp_receivers *r, const struct dp_interest *w)
{
    bool lossy = w->flags & SB_DROP_NEWEST;
    for (uint32_t i = 0; i < r->count; i++)
        if (r->list[i].slot == w->via) {
            r->list[i].lossy &= lossy;
            return;
        }
    if (dp_more_receivers(route, r))
        r->list[r->count++] = (struct dp_receiver){w->via, w->bit, lossy};
}

/* A group in this route; NULL: no memory. */
static inline struct dp_group_route *dp_group_in(struct dp_route *route, struct dp_group *group)
{
    for (uint32_t i = 0; i < route->group_count; i++)
        if (route->groups[i].group == group)
            return &route->groups[i];
    struct dp_group_route *fresh = sb_grown(route->groups, route->group_count, &route->group_capacity, sizeof *fresh);
    if (!fresh)
        return NULL;
    route->groups = fresh;
    struct dp_group_route *added = &fresh[route->group_count++];
    added->group = group;
    if (group->keyed) {
        added->key = sb_key_hash(route->type, route->type_length, rb_load(&group->keyed->at->key));
        route->keyed = true;
    }
    added->members.count = 0; /* its list may be from an earlier look-up */
    return added;
}

/* A pattern that ends at this node matches. */
static inline void dp_match(void *of, struct sb_node *n)
{
    struct dp_route *route = of;
    const uint8_t highest = dp_of_relayed(route) ? SB_RANK_HERE : SB_RANK_KEEPER;
    const uint8_t handled = route->handlers.count ? route->rank : UINT8_MAX; /* by more specific ones */
    for (const struct dp_interest *w = ((const struct dp_node *)n)->interests; w; w = w->next) {
        struct dp_receivers *receivers = NULL;
        struct dp_group_route *group;
        if (w->role == SB_ROLE_OBSERVE)
            receivers = &route->observers;
        else if (w->rank > highest || w->role == SB_ROLE_MATCH)
            continue;
        else if (w->role == SB_ROLE_HANDLE)
            receivers = w->rank < handled ? dp_lowest(&route->handlers, &route->rank, w->rank) : NULL;
        else if (w->bit && (group = dp_group_in(route, w->group)))
            receivers = dp_lowest(&group->members, &group->rank, w->rank);
        else if (w->bit)
            continue;
        else if (w->via != DP_NO_WAY && w->rank < SB_RANK_KEEPER)
            receivers = &route->plain;
        if (receivers)
            dp_add_receiver(route, receivers, w);
    }
}

static inline void dp_resolve(struct dp_routes *r, struct dp_route *route)
{
    route->plain.count = route->handlers.count = route->observers.count = route->group_count = 0;
    route->keyed = false;
    sb_trie_walk(&r->trie, (const char *)route->type, route->type_length, dp_match, route);
    route->uniform = !route->group_count && !dp_of_relayed(route);
    route->version = r->version;
}

/* Of this type, and with this key? */
static inline bool dp_is_route(const struct dp_route *route, const uint8_t *type, uint16_t length, uint16_t key)
{
    return route->key == key && sb_same_bytes(route->type, type, length);
}

/* From here on, routes that are looked up stay until the next call: a run points into them. */
static inline void dp_pin_routes(struct dp_routes *r) { r->pinned_from = ++r->lookups; }

#define DP_TAG_BITS 16
/* Look-ups are counted modulo 2^48, and ages are differences: where the count begins anew nothing happens. */
static inline uint64_t dp_mark(const struct dp_routes *r, uint64_t hash)
{
    return r->lookups << DP_TAG_BITS | hash >> (64 - DP_TAG_BITS);
}
static inline uint64_t dp_age(uint64_t lookups, uint64_t since)
{
    return (lookups - since) & (~0ull >> DP_TAG_BITS);
}
static inline uint64_t dp_age_of_mark(const struct dp_routes *r, uint64_t mark)
{
    return dp_age(r->lookups, mark >> DP_TAG_BITS);
}

/* A place for another route in this set: a free one, or the one not used for longest. DP_CACHE_WAYS: all pinned. */
static inline uint32_t dp_place(const struct dp_routes *r, const struct dp_set_of_types *set)
{
    uint32_t oldest = 0;
    for (uint32_t i = 0; i < DP_CACHE_WAYS; i++) {
        if (!set->route[i])
            return i;
        if (dp_age_of_mark(r, set->mark[i]) > dp_age_of_mark(r, set->mark[oldest]))
            oldest = i;
    }
    bool pinned = dp_age_of_mark(r, set->mark[oldest]) <= dp_age(r->lookups, r->pinned_from);
    return pinned ? DP_CACHE_WAYS : oldest;
}

/* The route of a type that is not in this set; `type` is a private copy, with SB_MAX_TYPE + 1 bytes. */
static inline struct dp_route *dp_learn(struct dp_routes *r, struct dp_set_of_types *set, uint64_t hash,
                                        const uint8_t *type, uint16_t length, uint16_t key)
{
    uint32_t place = dp_place(r, set);
    if (place == DP_CACHE_WAYS)
        return NULL;
    struct dp_route *route = set->route[place];
    if (route) {
        rb_will_write(route);
        rb_will_write((uint8_t *)route + RB_LINE);
    }
    if (!sb_is_type((const char *)type, length) && !dp_valid_tokens((const char *)type, length, false))
        return NULL;
    if (!route) {
        size_t size = (sizeof *route + RB_LINE - 1) / RB_LINE * RB_LINE;
        if (!(route = aligned_alloc(RB_LINE, size)))
            return NULL;
        memset(route, 0, sizeof *route);
        route->plain = (struct dp_receivers){.list = route->few, .capacity = DP_FEW};
        route->place = (uint32_t)(set - r->cache) * DP_CACHE_WAYS + place;
        set->route[place] = route;
        r->types_known++;
    }
    route->number = ++r->types_learnt;
    route->type_length = length;
    route->key = key;
    route->reserved = type[0] == '$';
    route->of_links = length >= strlen(SB_LINK_TYPES) && memcmp(type, SB_LINK_TYPES, strlen(SB_LINK_TYPES)) == 0;
    memcpy(route->type, type, length);
    r->last_mark = &set->mark[place];
    *r->last_mark = dp_mark(r, hash);
    dp_resolve(r, route);
    return r->last = route;
}

/* The route of a type, by the flags of a record; or NULL where it is none, no memory is left or its place in the cache
 * is pinned. The type is read once. */
static inline struct dp_route *dp_lookup(struct dp_routes *r, const uint8_t *shared_type, uint16_t length,
                                         uint16_t flags)
{
    struct dp_route *route = r->last;
    const uint16_t key = length | (flags & SB_RELAYED);
    if (route && route->version == r->version && dp_is_route(route, shared_type, length, key)) {
        *r->last_mark = r->lookups << DP_TAG_BITS | (*r->last_mark & ((1u << DP_TAG_BITS) - 1));
        return route;
    }
    uint8_t type[SB_MAX_TYPE + 1];
    memcpy(type, shared_type, length);
    uint64_t hash = sb_hash(type, length, 11u + (flags & SB_RELAYED));
    struct dp_set_of_types *set = &r->cache[hash % DP_CACHE_SETS];
    r->lookups++;
    uint64_t mark = dp_mark(r, hash);
    for (uint32_t i = 0; i < DP_CACHE_WAYS; i++) {
        route = set->route[i];
        if (!route || (uint16_t)(set->mark[i] ^ mark) || !dp_is_route(route, type, length, key))
            continue;
        if (route->version != r->version)
            dp_resolve(r, route);
        r->last_mark = &set->mark[i];
        *r->last_mark = mark;
        return r->last = route;
    }
    return dp_learn(r, set, hash, type, length, key);
}

/* The members of the group of this name; NULL: it has none for messages of this route. */
static inline struct dp_group_route *dp_group_named(const struct dp_route *route, const char *name, size_t length)
{
    const struct dp_text key = {name, length};
    for (uint32_t g = 0; g < route->group_count; g++)
        if (dp_same_group(route->groups[g].group, &key))
            return &route->groups[g];
    return NULL;
}

/* Who matches ----------------------------------------------------------------------------------------------- */

struct dp_matches { /* the endpoints, each once, whatever its interests are */
    uint8_t highest; /* of their ranks */
    uint64_t receivers[SB_MAX_SLOTS / 64]; /* of events: plain subscribers and members of groups */
    uint64_t handlers[SB_MAX_SLOTS / 64];  /* of commands and requests, by the most specific pattern or not */
};

static inline void dp_note_match(struct dp_matches *found, const struct dp_interest *w)
{
    if (w->rank > found->highest)
        return;
    if (w->role == SB_ROLE_SUBSCRIBE)
        found->receivers[w->slot / 64] |= 1ull << (w->slot % 64);
    else if (w->role == SB_ROLE_HANDLE)
        found->handlers[w->slot / 64] |= 1ull << (w->slot % 64);
}

static inline void dp_note_matches(void *of, struct sb_node *n)
{
    for (const struct dp_interest *w = ((const struct dp_node *)n)->interests; w; w = w->next)
        dp_note_match(of, w);
}

/* Who receives or handles this type, or some type that this pattern matches, up to this rank. Apart from the cache of
 * types, which keeps what is sent. */
static inline void dp_who_matches(struct dp_routes *r, const char *pattern, size_t length, uint8_t highest,
                                  struct dp_matches *found)
{
    *found = (struct dp_matches){.highest = highest};
    if (!sb_is_wild(pattern, length)) {
        sb_trie_walk(&r->trie, pattern, length, dp_note_matches, found);
        return;
    }
    for (uint32_t slot = 0; slot < r->slots; slot++)
        for (const struct dp_interest *w = r->of_slot[slot]; w; w = w->next_of_slot) {
            char text[SB_MAX_TYPE];
            size_t n = sb_trie_pattern(&w->node->at, text);
            if (sb_overlap(pattern, length, text + sizeof text - n, n))
                dp_note_match(found, w);
        }
}

static inline void dp_free_route(struct dp_route *route)
{
    if (!route)
        return;
    if (route->plain.list != route->few)
        free(route->plain.list);
    free(route->handlers.list);
    free(route->observers.list);
    for (uint32_t i = 0; i < route->group_capacity; i++)
        free(route->groups[i].members.list);
    free(route->groups);
    free(route);
}

static inline void dp_keep_nothing(struct sb_node *n) { (void)n; /* the interests have gone already */ }

static inline void dp_routes_close(struct dp_routes *r)
{
    for (uint32_t s = 0; r->of_slot && s < r->slots; s++)
        dp_remove_interests(r, (uint16_t)s);
    for (uint32_t i = 0; r->cache && i < DP_CACHE_SETS; i++)
        for (uint32_t k = 0; k < DP_CACHE_WAYS; k++)
            dp_free_route(r->cache[i].route[k]);
    free(r->cache);
    for (uint32_t i = 0; i < SB_KEYED_GROUPS; i++)
        free(r->keyed[i]);
    for (uint64_t i = 0; r->groups.slots && i <= r->groups.mask; i++)
        if (r->groups.slots[i].item && r->groups.slots[i].item != SB_TOMB)
            free(r->groups.slots[i].item);
    free(r->interests.slots);
    free(r->groups.slots);
    free(r->of_slot);
    sb_trie_close(&r->trie, dp_keep_nothing);
}
