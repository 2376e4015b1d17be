/* Is anybody there? Endpoints that asked to be told of it (SB_ROLE_MATCH), each with a pattern, and how many endpoints
 * receive something that it matches. That is counted with each interest that comes or goes, so that nothing is looked
 * through; telling of it is tell.h.
 *
 * Receivers are plain subscribers and members of groups; an endpoint with several such interests is one.
 *
 * Offers: dp_matching_open, dp_matching_close; dp_matching_count, dp_count_everywhere, dp_count_none. */
#pragma once

#include "shmbus/shared/native/layout.h"
#include "shmbus/shared/native/overlap.h"

#include <stdlib.h>

/* What the endpoint was told last, by this dispatcher. */
enum dp_told { DP_TOLD_NOTHING, DP_TOLD_NOBODY, DP_TOLD_SOMEBODY };

struct dp_matching {
    uint64_t id;  /* of the interest */
    uint16_t slot; /* whose it is */
    enum dp_told told;
    uint32_t receivers;
    struct dp_matching *next, **link;
    uint32_t *interests; /* by slot: how many of its interests make it a receiver */
    size_t length;
    char pattern[SB_MAX_TYPE];
};

struct dp_matchings {
    struct dp_matching *first;
    bool changed; /* there may be something to tell */
};

/* NULL: no memory, or the slot has as many as it may have, since each takes some for every slot. */
static inline struct dp_matching *dp_matching_open(struct dp_matchings *all, uint64_t id, uint16_t slot, uint32_t slots,
                                                   const char *pattern, size_t length)
{
    uint32_t own = 0;
    for (struct dp_matching *other = all->first; other; other = other->next)
        own += other->slot == slot;
    struct dp_matching *m = own < SB_OWN_MATCHINGS ? calloc(1, sizeof *m) : NULL;
    if (!m || !(m->interests = calloc(slots, sizeof *m->interests))) {
        free(m);
        return NULL;
    }
    m->id = id;
    m->slot = slot;
    m->length = length;
    memcpy(m->pattern, pattern, length);
    m->next = all->first;
    m->link = &all->first;
    if (m->next)
        m->next->link = &m->next;
    all->first = m;
    all->changed = true;
    return m;
}

static inline void dp_matching_close(struct dp_matching *m)
{
    *m->link = m->next;
    if (m->next)
        m->next->link = m->link;
    free(m->interests);
    free(m);
}

/* A subscription to this pattern came to the slot (step: 1) or left it (-1). */
static inline void dp_matching_count(struct dp_matching *m, const char *pattern, size_t length, uint16_t slot, int step)
{
    if (!sb_overlap(m->pattern, m->length, pattern, length))
        return;
    bool was = m->interests[slot];
    m->interests[slot] += (uint32_t)step;
    m->receivers += (uint32_t)((m->interests[slot] != 0) - was);
}

static inline void dp_count_everywhere(struct dp_matchings *all, const char *pattern, size_t length, uint16_t slot,
                                       int step)
{
    for (struct dp_matching *m = all->first; m; m = m->next)
        dp_matching_count(m, pattern, length, slot, step);
    all->changed = true;
}

/* All that it subscribed to goes. */
static inline void dp_count_none(struct dp_matchings *all, uint16_t slot)
{
    for (struct dp_matching *m = all->first; m; m = m->next) {
        m->receivers -= m->interests[slot] != 0;
        m->interests[slot] = 0;
    }
    all->changed = true;
}
