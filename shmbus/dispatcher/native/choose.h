/* Choosing: which member of a group, and which handler, gets a message: among those who are free the one that has
 * least to do. While nobody is free, or others wait already, the message waits in a backlog.
 *
 * Offers: dp_most, dp_free, dp_least_busy; dp_choose_event, dp_choose_handler, dp_choose_member. */
#pragma once

#include "shmbus/dispatcher/native/backlog.h"

#define DP_NO_SLOT DP_PORTS
#define DP_LAG_NS 20000000u /* who has been at one message for so long gets no more than one other */

static inline uint64_t dp_load(const struct dp_forwarder *f, const struct dp_port *port)
{
    uint64_t untouched = dp_untouched(port); /* first: what is taken meanwhile counts twice, not never */
    return untouched + dp_in_hand(port) + f->run.extra[port->slot];
}

/* How many messages it may have untouched and in hand: `prefetch`, or one for each of its threads. */
static inline uint64_t dp_most(const struct dp_forwarder *f, const struct dp_port *port)
{
    uint64_t threads = rb_load(&port->up->receivers);
    return threads > f->prefetch && threads < 1u << 16 ? threads : f->prefetch;
}

/* Does it take messages, by the looks of it, in a thread whose handler is not overdue? */
static inline bool dp_fit(const struct dp_port *port)
{
    return !port->stalled && !port->slow && (!port->overdue || port->overdue < rb_load(&port->up->receivers));
}

/* May it have another group message, command or request? Behind a job that takes long no more than one waits. */
static inline bool dp_free(const struct dp_forwarder *f, const struct dp_port *port)
{
    uint64_t untouched = dp_untouched(port) + f->run.extra[port->slot], in_hand = dp_in_hand(port);
    if (!dp_fit(port) || untouched + in_hand >= dp_most(f, port))
        return false;
    return !untouched || !in_hand || rb_load(&port->up->progress_ns) + DP_LAG_NS > f->now;
}

/* Among those who are free; equals in turn. `stay` keeps its choice until it has half as much again to do as the
 * least busy other: where all are busy runs are longer. NULL: nobody is free. */
static inline const struct dp_receiver *dp_least_busy(struct dp_forwarder *f, const struct dp_receivers *among,
                                                      uint64_t *turn, uint32_t stay)
{
    const struct dp_receiver *best = NULL, *kept = NULL;
    uint64_t best_load = ~0ull, kept_load = 0, others = ~0ull >> 1;
    uint32_t start = among->count > 1 ? (uint32_t)(*turn % among->count) : 0;
    for (uint32_t i = 0; i < among->count; i++) {
        const struct dp_receiver *r = &among->list[(start + i) % among->count];
        const struct dp_port *port = &f->ports[r->slot];
        if (!dp_free(f, port))
            continue;
        uint64_t load = dp_load(f, port);
        if (r->slot == stay) {
            kept = r;
            kept_load = load;
        } else if (load < others) {
            others = load;
        }
        if (load < best_load) {
            best_load = load;
            best = r;
        }
    }
    if (kept && kept_load < others + others / 2)
        return kept;
    if (best)
        *turn = (uint64_t)(best - among->list) + 1;
    return best;
}

/* Least busy of all, free or not: where no backlog can be made. */
static inline const struct dp_receiver *dp_overload(const struct dp_forwarder *f, const struct dp_receivers *among)
{
    const struct dp_receiver *best = among->list;
    uint64_t best_score = ~0ull;
    for (uint32_t i = 0; i < among->count; i++) {
        const struct dp_port *port = &f->ports[among->list[i].slot];
        uint64_t score = dp_load(f, port) + (dp_fit(port) ? 0 : 1ull << 40);
        if (score < best_score) {
            best_score = score;
            best = &among->list[i];
        }
    }
    return best;
}

/* One of the takers, or the backlog in which the message waits for one. */
static inline const struct dp_receiver *dp_choose(struct dp_forwarder *f, const struct dp_route *route,
                                                  const struct dp_group *group, const struct dp_receivers *takers,
                                                  uint64_t *turn, uint32_t stay)
{
    bool waits = false;
    struct dp_port *backlog = f->backlogs_open ? dp_find_backlog(f, group, takers, &waits) : NULL;
    if (!waits) {
        /* A single handler keeps nothing from others, and events and commands for it keep their order. */
        if (!group && takers->count == 1)
            return takers->list;
        const struct dp_receiver *free_one = dp_least_busy(f, takers, turn, stay);
        if (free_one)
            return free_one;
    }
    if (!backlog)
        backlog = dp_make_backlog(f, group, takers, route);
    return backlog ? &dp_backlog_of(f, backlog)->as_target : dp_overload(f, takers);
}

/* Whom the run goes to already. */
static inline uint32_t dp_stay(const struct dp_run *run, const struct dp_receivers *takers, bool by_bit)
{
    for (uint32_t i = 0; run && run->count && i < run->targets.count; i++)
        for (uint32_t t = 0; t < takers->count; t++)
            if (takers->list[t].slot == run->targets.list[i].slot &&
                (!by_bit || run->targets.list[i].bits >> takers->list[t].bit & 1))
                return run->targets.list[i].slot;
    return DP_NO_SLOT;
}

/* Who gets a command or request of this route, which has handlers, if it may be the one that `run` (NULL: none)
 * goes to. */
static inline const struct dp_receiver *dp_choose_handler(struct dp_forwarder *f, struct dp_route *route,
                                                          const struct dp_run *run)
{
    return dp_choose(f, route, NULL, &route->handlers, &route->turn, dp_stay(run, &route->handlers, false));
}

/* A member of a group that takes over from one that has gone; NULL: there is none. */
static inline const struct dp_receiver *dp_choose_member(struct dp_forwarder *f, const struct dp_route *route,
                                                         struct dp_group *group)
{
    const struct dp_receivers *members = route && group ? dp_takers(route, group) : NULL;
    return members ? dp_choose(f, route, group, members, &group->turn, DP_NO_SLOT) : NULL;
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
        uint32_t stay = dp_stay(run, &group->members, true);
        dp_add_choice(chosen, dp_choose(f, route, group->group, &group->members, &group->group->turn, stay));
    }
}
