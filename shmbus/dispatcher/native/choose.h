/* Choosing: which member of a group, and which handler, gets a message: among those who are free the one that has
 * least to do. While nobody is free, or others wait already, the message waits in a backlog.
 *
 * Offers: dp_room, dp_free_now, dp_least_busy; dp_choose_event, and its parts dp_choose_plain, dp_choose_in_group;
 *         dp_choose_handler, dp_choose_member; dp_lose_at_former. */
#pragma once

#include "shmbus/dispatcher/native/keyed.h"

#define DP_NO_SLOT DP_PORTS
#define DP_LATELY_NS 10000000u /* what was finished within one to three of these was finished lately */

struct dp_load {
    uint64_t untouched, in_hand;
};

/* What the run being collected gives it included. `in_hand` comes last: what is taken meanwhile counts twice, not
 * never. */
static inline struct dp_load dp_load_of(const struct dp_forwarder *f, const struct dp_port *port)
{
    struct dp_load load;
    load.untouched = dp_untouched(port) + f->run.extra[port->slot];
    load.in_hand = dp_in_hand(port);
    return load;
}

/* How many group messages, commands and requests it has finished lately: not the events for itself, which say nothing
 * of how soon it does work. */
static inline uint64_t dp_finished_lately(const struct dp_forwarder *f, struct dp_port *port)
{
    uint64_t done = rb_load(&port->up->work_done), age = f->now - port->done_since_ns;
    if (age >= DP_LATELY_NS) {
        port->done_before = age < 2 * (uint64_t)DP_LATELY_NS ? port->done_then : done;
        port->done_then = done;
        port->done_since_ns = f->now;
    }
    return done > port->done_before ? done - port->done_before : 0;
}

/* Does it take messages, by the looks of it, in a thread whose handler is not overdue? */
static inline bool dp_fit(const struct dp_port *port)
{
    return !port->stalled && !port->slow && (!port->overdue || port->overdue < rb_load(&port->up->receivers));
}

/* How many it may have untouched: one for each thread that has nothing in hand, one at least, and as many again as it
 * has finished lately; with those in hand no more than `prefetch`, or than its threads. So what is put behind a
 * message that may take long is no more than it has just shown to do in no time. */
static inline uint64_t dp_room(const struct dp_forwarder *f, struct dp_port *port, const struct dp_load *load)
{
    uint64_t threads = rb_load(&port->up->receivers) & 0xffff;
    uint64_t most = threads > port->prefetch ? threads : port->prefetch;
    uint64_t room = threads > load->in_hand ? threads - load->in_hand : 1;
    room += dp_finished_lately(f, port);
    if (load->in_hand >= most)
        return 0;
    return room < most - load->in_hand ? room : most - load->in_hand;
}

/* May it have another group message, command or request? */
static inline bool dp_free(const struct dp_forwarder *f, struct dp_port *port, const struct dp_load *load)
{
    return dp_fit(port) && load->untouched < dp_room(f, port, load);
}

static inline bool dp_free_now(const struct dp_forwarder *f, struct dp_port *port)
{
    struct dp_load load = dp_load_of(f, port);
    return dp_free(f, port, &load);
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
        struct dp_load has = dp_load_of(f, &f->ports[r->slot]);
        if (!dp_free(f, &f->ports[r->slot], &has))
            continue;
        uint64_t load = has.untouched + has.in_hand;
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
        struct dp_load has = dp_load_of(f, port);
        uint64_t score = has.untouched + has.in_hand + (dp_fit(port) ? 0 : 1ull << 40);
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
    struct dp_port *backlog = dp_work_backlogs(f) ? dp_find_backlog(f, group, takers, &waits) : NULL;
    if (!waits) {
        /* A single handler keeps nothing from others, and events and commands for it keep their order. */
        if (!group && takers->count == 1)
            return takers->list;
        const struct dp_receiver *free_one = dp_least_busy(f, takers, turn, stay);
        if (free_one)
            return free_one;
    }
    if (!backlog)
        backlog = dp_make_backlog(f, group, takers, route, 0);
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

/* A member of a group that takes over from another; NULL: there is none. With a key it may be &dp_not_now, and `from`
 * is as in dp_own. */
static inline const struct dp_receiver *dp_choose_member(struct dp_forwarder *f, const struct dp_route *route,
                                                         struct dp_group *group, const struct dp_port *from)
{
    if (group && group->keyed)
        return dp_choose_owner(f, route, group, from);
    const struct dp_receivers *members = route && group ? dp_takers(route, group) : NULL;
    return members ? dp_choose(f, route, group, members, &group->turn, DP_NO_SLOT) : NULL;
}

static inline void dp_add_choice(struct dp_choices *chosen, const struct dp_receiver *r)
{
    for (uint32_t i = 0; i < chosen->count; i++)
        if (chosen->list[i].slot == r->slot && !chosen->list[i].lost) {
            chosen->list[i].bits |= 1u << r->bit;
            chosen->list[i].lossy &= r->lossy;
            return;
        }
    chosen->list[chosen->count++] = (struct dp_choice){.slot = r->slot, .lossy = r->lossy, .bits = 1u << r->bit};
}

/* Nobody may have the head of the source's line for a group with a key yet. True: it has waited for that long
 * enough. */
static inline bool dp_lose_at_former(struct dp_forwarder *f, struct dp_port *source, struct dp_choices *chosen)
{
    if (!dp_wait_for_former(f, source))
        return false;
    chosen->list[chosen->count++] = (struct dp_choice){.slot = (uint16_t)f->former->slot, .lost = true,
                                                       .bits = SB_PLAIN};
    return true;
}

/* The plain subscribers, and nobody else so far. */
static inline void dp_choose_plain(const struct dp_route *route, struct dp_choices *chosen)
{
    chosen->count = 0;
    chosen->not_now = false;
    for (uint32_t i = 0; i < route->plain.count; i++) {
        const struct dp_receiver *r = &route->plain.list[i];
        chosen->list[chosen->count++] = (struct dp_choice){.slot = r->slot, .lossy = r->lossy, .bits = SB_PLAIN};
    }
}

/* And a member of this group. */
static inline void dp_choose_in_group(struct dp_forwarder *f, struct dp_route *route, struct dp_group_route *group,
                                      const struct dp_run *run, struct dp_choices *chosen)
{
    if (__builtin_expect(group->group->keyed != NULL, 0)) {
        const struct dp_receiver *owner = dp_choose_owner(f, route, group->group, NULL);
        if (owner != &dp_not_now)
            dp_add_choice(chosen, owner);
        else if (!run || run->count || !dp_lose_at_former(f, run->span.source, chosen))
            chosen->not_now = true;
        return;
    }
    uint32_t stay = dp_stay(run, &group->members, true);
    dp_add_choice(chosen, dp_choose(f, route, group->group, &group->members, &group->group->turn, stay));
}

/* Who gets an event of this route: all plain subscribers and one member of each group, if it may be the one that
 * `run` (NULL: none) goes to. Or nobody yet: `not_now`. */
static inline void dp_choose_event(struct dp_forwarder *f, struct dp_route *route, const struct dp_run *run,
                                   struct dp_choices *chosen)
{
    dp_choose_plain(route, chosen);
    for (uint32_t g = 0; g < route->group_count; g++)
        dp_choose_in_group(f, route, &route->groups[g], run, chosen);
}
