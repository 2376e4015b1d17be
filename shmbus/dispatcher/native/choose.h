/* Choosing: which member of a group, and which handler, gets a message: the one that has least to do.
 *
 * Offers: dp_choose_event, dp_choose_handler, dp_choose_member. */
#pragma once

#include "shmbus/dispatcher/native/port.h"

#define DP_NO_SLOT SB_MAX_SLOTS

/* Fit ones before others; equals in turn. `stay` keeps its choice while it is not `prefetch` ahead of the least busy
 * other. */
static inline const struct dp_receiver *dp_least_busy(struct dp_forwarder *f, const struct dp_receivers *among,
                                                      uint64_t *turn, uint32_t stay)
{
    if (among->count == 1)
        return among->list;
    const struct dp_receiver *best = NULL, *kept = NULL;
    uint64_t best_score = ~0ull, kept_score = 0, others = ~0ull;
    uint32_t start = (uint32_t)(*turn % among->count);
    for (uint32_t i = 0; i < among->count; i++) {
        const struct dp_receiver *r = &among->list[(start + i) % among->count];
        const struct dp_port *port = &f->ports[r->slot];
        uint64_t score = dp_untouched(port) + dp_in_hand(port) + f->run.extra[r->slot];
        if (port->stalled || port->slow)
            score += 1ull << 40;
        if (r->slot == stay) {
            kept = r;
            kept_score = score;
        } else if (score < others) {
            others = score;
        }
        if (score < best_score) {
            best_score = score;
            best = r;
        }
    }
    if (kept && kept_score < others + f->prefetch)
        return kept;
    *turn = (uint64_t)(best - among->list) + 1;
    return best;
}

static inline const struct dp_receiver *dp_choose_handler(struct dp_forwarder *f, struct dp_route *route)
{
    return dp_least_busy(f, &route->handlers, &route->turn, DP_NO_SLOT);
}

/* A member of a group that takes over from one that has gone; NULL: there is none. */
static inline const struct dp_receiver *dp_choose_member(struct dp_forwarder *f, const struct dp_route *route,
                                                         struct dp_group *group)
{
    for (uint32_t g = 0; route && g < route->group_count; g++)
        if (route->groups[g].group == group)
            return dp_least_busy(f, &route->groups[g].members, &group->turn, DP_NO_SLOT);
    return NULL;
}

/* The member to which the run goes already. */
static inline uint32_t dp_member_of_run(const struct dp_run *run, const struct dp_receivers *members)
{
    uint32_t slot = DP_NO_SLOT;
    for (uint32_t i = 0; i < run->targets.count; i++)
        for (uint32_t m = 0; m < members->count; m++)
            if (members->list[m].slot == run->targets.list[i].slot &&
                run->targets.list[i].bits >> members->list[m].bit & 1)
                slot = run->targets.list[i].slot;
    return slot;
}

static inline void dp_add_choice(struct dp_choices *chosen, const struct dp_receiver *r)
{
    for (uint32_t i = 0; i < chosen->count; i++)
        if (chosen->list[i].slot == r->slot) {
            chosen->list[i].bits |= 1u << r->bit;
            chosen->list[i].lossy &= r->lossy;
            return;
        }
    chosen->list[chosen->count++] = (struct dp_choice){r->slot, r->lossy, 1u << r->bit};
}

/* Who gets an event of this route: all plain subscribers and one member of each group, if it may be the one that
 * `run` (NULL: none) goes to. */
static inline void dp_choose_event(struct dp_forwarder *f, struct dp_route *route, const struct dp_run *run,
                                   struct dp_choices *chosen)
{
    chosen->count = 0;
    for (uint32_t i = 0; i < route->plain.count; i++) {
        const struct dp_receiver *r = &route->plain.list[i];
        chosen->list[chosen->count++] = (struct dp_choice){r->slot, r->lossy, SB_PLAIN};
    }
    for (uint32_t g = 0; g < route->group_count; g++) {
        struct dp_group_route *group = &route->groups[g];
        uint32_t stay = run && run->count ? dp_member_of_run(run, &group->members) : DP_NO_SLOT;
        dp_add_choice(chosen, dp_least_busy(f, &group->members, &group->group->turn, stay));
    }
}
