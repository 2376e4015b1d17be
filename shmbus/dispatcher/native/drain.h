/* Draining: what waits in a backlog goes to those who become free, first in, first out.
 *
 * Consecutive messages for the same endpoint leave as one run. A request's target is chosen, and written down,
 * only here. What waits for a key goes to its owner, once all former ones are done with what they had (keyed.h).
 * While nobody is free, whoever may take the first message is asked to ring as soon as it is
 * (DOWN.wanted, endpoint/native/work.h); tests/models/work.py explores that.
 *
 * Offers: dp_drain_backlog, dp_look_for_work, dp_look_at_backlogs. */
#pragma once

#include "shmbus/dispatcher/native/departure.h"

/* Have it ring once half of what it may have untouched is taken. Each question is another one, because an endpoint
 * rings once for each. */
static inline void dp_ask(const struct dp_forwarder *f, struct dp_port *port)
{
    rb_word *wanted = &port->down->incoming[SB_DATA].wanted;
    struct dp_load load = dp_load_of(f, port);
    rb_store(wanted, ((rb_load(wanted) >> 32) + 1) << 32 | (uint32_t)(dp_room(f, port, &load) / 2 + 1));
}

/* Have all of them ring once they are free. True: one is by now. */
static inline bool dp_want(struct dp_forwarder *f, const struct dp_receivers *takers)
{
    bool any = false;
    for (uint32_t i = 0; i < takers->count; i++)
        dp_ask(f, &f->ports[takers->list[i].slot]);
    rb_fence_seq(); /* with ep_offer_work: it sees `wanted`, or we see what it has taken or done */
    for (uint32_t i = 0; i < takers->count && !any; i++)
        any = dp_free_now(f, &f->ports[takers->list[i].slot]);
    return any;
}

/* An endpoint has rung: was it asked, and is it free? If it is not (any more), ask it again. */
static inline void dp_look_for_work(struct dp_forwarder *f, struct dp_port *port)
{
    rb_word *wanted = &port->down->incoming[SB_DATA].wanted;
    if (!(uint32_t)rb_load(wanted) || port->state != SB_ROW_LIVE)
        return;
    if (!dp_free_now(f, port)) {
        dp_ask(f, port);
        rb_fence_seq(); /* as in dp_want */
        if (!dp_free_now(f, port))
            return;
    }
    rb_store(wanted, rb_load(wanted) >> 32 << 32);
    dp_wake_backlogs(f);
}

enum dp_leaving { /* of one record in a backlog */
    DP_LEAVES,    /* one endpoint may have it now */
    DP_STAYS,     /* nobody may */
    DP_WITHDRAWN, /* a request that nobody waits for any more */
    DP_HOMELESS,  /* nobody takes its type any more */
    DP_OVERSIZE,  /* whoever is to have it does not take so large a message */
};

/* `target`: who may have it now. `takers`: who could. */
static inline enum dp_leaving dp_judge_waiting(struct dp_forwarder *f, struct dp_backlog *b, const struct sb_record *h,
                                               const uint8_t *record, uint32_t stay,
                                               const struct dp_receiver **target, const struct dp_receivers **takers)
{
    if (h->kind == SB_REQUEST &&
        (!h->interests || !dp_still_wanted(dp_port_of(f, sb_whom(h->peer, h->peer_generation)), h)))
        return DP_WITHDRAWN;
    struct dp_route *route = dp_lookup(&f->routes, sb_type_of(record), h->type_length, h->flags);
    if (!route) /* its place in the cache is taken: it begins the next run */
        return DP_STAYS;
    if (!(*takers = dp_takers(route, b->group)))
        return DP_HOMELESS;
    *target = b->former ? dp_owner_of_waiting(f, b, dp_route_of_group(route, b->group))
                        : dp_least_busy(f, *takers, b->group ? &b->group->turn : &route->turn, stay);
    if (!*target)
        return DP_STAYS;
    return h->length > rb_largest_record(f->ports[(*target)->slot].in[SB_DATA].capacity) ? DP_OVERSIZE : DP_LEAVES;
}

/* Collect from the front what one endpoint may have, into f->run with its target. What becomes of the first
 * record is the result; unless it leaves, it is alone in the run, which is empty at the end of the backlog. */
static inline enum dp_leaving dp_collect_waiting(struct dp_forwarder *f, struct dp_port *port, uint32_t limit,
                                                 const struct dp_receivers **takers)
{
    struct dp_run *run = &f->run;
    uint64_t position = rb_load(&port->down->incoming[SB_DATA].reclaim);
    uint32_t slot = DP_NO_SLOT;
    enum dp_leaving first = DP_STAYS;
    run->span = (struct dp_span){port, SB_DATA, true, position, position};
    dp_empty_run(run);
    dp_pin_routes(&f->routes);
    dp_backlog_of(f, port)->awaits = SB_MEMBERS;
    while (run->count < limit) {
        struct sb_record *h = &run->header[run->count];
        const uint8_t **record = &run->record[run->count];
        const struct dp_receiver *target = NULL;
        const struct dp_receivers *could = NULL;
        if (!dp_own_record(f, port, &position, h, record))
            break;
        if (!run->count)
            run->span.from = position; /* past padding */
        enum dp_leaving now = dp_judge_waiting(f, dp_backlog_of(f, port), h, *record, slot, &target, &could);
        if (run->count && (now != DP_LEAVES || target->slot != slot))
            break;
        if (!run->count) {
            first = now;
            *takers = could;
        }
        dp_note_own_block(run);
        run->type[run->count++] = NULL;
        run->span.to = position += RB_ALIGN8(h->length);
        if (target)
            dp_choose_one(&run->targets, slot = target->slot, 1u << target->bit);
        if (now != DP_LEAVES)
            break;
        run->extra[slot]++;
    }
    if (slot != DP_NO_SLOT)
        run->extra[slot] = 0;
    return first;
}

/* The only record of the run goes to nobody. */
static inline void dp_dismiss(struct dp_forwarder *f, enum dp_leaving why)
{
    struct dp_run *run = &f->run;
    const struct sb_record *h = &run->header[0];
    struct dp_port *requester = h->kind == SB_REQUEST ? dp_port_of(f, sb_whom(h->peer, h->peer_generation)) : NULL;
    struct dp_port *target = why == DP_OVERSIZE ? &f->ports[run->targets.list[0].slot] : NULL;
    bool group = dp_backlog_of(f, run->span.source)->group;
    if (why == DP_HOMELESS && !group)
        rb_add(&f->bus->no_route, 1);
    if (requester && why != DP_WITHDRAWN) {
        uint64_t largest = target ? rb_largest_record(target->in[SB_DATA].capacity) : 0, frame = sb_frame_size(h);
        dp_fail_request(f, requester, h->correlation, target ? SB_FAULT_TOO_LARGE : SB_FAULT_NO_ROUTE, target,
                        largest > frame ? largest - frame : 0, &run->span);
    } else if (target && group) {
        dp_count_lost(f, target, SB_LOSS_TOO_LARGE, 1, &run->span, 0, 0);
        dp_emit_lost(f, target, SB_LOSS_TOO_LARGE, h, sb_type_of(run->record[0]), dp_size_in_run(run, 0),
                     dp_source_of(f, h, run->record[0], dp_sender_name(f, h)));
    } else if (why != DP_WITHDRAWN) {
        dp_dead_letter_reclaimed(f, h, run->record[0],
                                 target  ? "too large for its handler"
                                 : group ? "its queue group has no member left"
                                         : "nobody handles it");
    }
    if (dp_tapped(f) && h->interests) /* else its payload has gone, see revoke.h */
        dp_tap_run(f, target,
                   why == DP_WITHDRAWN ? SB_OUTCOME_DROPPED : target ? SB_OUTCOME_LOST : SB_OUTCOME_NOBODY);
}

/* Only the first `count` records of the run go. */
static inline void dp_shorten(struct dp_forwarder *f, uint32_t count)
{
    struct dp_run *run = &f->run;
    uint64_t position = run->span.from;
    struct sb_record h;
    const uint8_t *record;
    for (run->count = 0; run->count < count && dp_own_record(f, run->span.source, &position, &h, &record); run->count++)
        run->span.to = position += RB_ALIGN8(h.length);
}

/* Nobody but its target may have the first record of the run, and that has no space for it. True: it is lost there. */
static inline bool dp_lose_waiting(struct dp_forwarder *f, struct dp_port *target)
{
    struct dp_run *run = &f->run;
    const struct sb_record *h = &run->header[0];
    bool lossy = dp_backlog_of(f, run->span.source)->as_target.lossy;
    enum sb_loss why = lossy ? SB_LOSS_DROPPED : SB_LOSS_SLOW;
    uint64_t end = rb_end_after(&target->in[SB_DATA], h->length);
    enum dp_space space = lossy ? DP_LOSE : dp_ask_for_space(f, run->span.source, DP_LINE_DATA, target, SB_DATA, end);
    if (space == DP_SPACE)
        dp_set_add(&f->active, run->span.source->slot);
    if (space != DP_LOSE)
        return false;
    dp_shorten(f, 1);
    dp_count_lost(f, target, why, 1, &run->span, 0, 0);
    if (!lossy)
        dp_emit_lost(f, target, why, h, sb_type_of(run->record[0]), dp_size_in_run(run, 0),
                     dp_source_of(f, h, run->record[0], dp_sender_name(f, h)));
    if (dp_tapped(f))
        dp_tap_run(f, target, SB_OUTCOME_LOST);
    return true;
}

/* Give the run to its target, as much as fits. False: nothing does, or the target is corrupt. */
static inline bool dp_give_waiting(struct dp_forwarder *f)
{
    struct dp_run *run = &f->run;
    struct dp_port *port = run->span.source, *target = &f->ports[run->targets.list[0].slot];
    struct rb_producer *out = &target->in[SB_DATA];
    int fitted;
    while ((fitted = dp_copy_run(f, run, target, SB_DATA, run->targets.list[0].bits)) == 0) {
        if (dp_backlog_of(f, port)->former)
            return dp_lose_waiting(f, target);
        if (!dp_need_space(port, target, SB_DATA, rb_end_after(out, run->header[0].length)))
            return false;
    }
    if (fitted < 0) {
        rb_abort(out);
        dp_quarantine(f, target); /* another has it once that one has departed */
        return false;
    }
    if ((uint32_t)fitted < run->count)
        dp_shorten(f, (uint32_t)fitted);
    dp_journal_run(f, &run->span, target, SB_DATA, 0, 0);
    for (uint32_t i = 0; i < run->count; i++) {
        const struct sb_record *h = &run->header[i];
        if (h->kind == SB_REQUEST)
            rb_store(&f->ports[h->peer].given[sb_index_of(h->correlation)].whom, dp_whom_of(target));
        if (h->flags & SB_REDELIVERED) /* somebody had it before */
            rb_add(&target->down->redelivered, 1);
        else if (!(h->flags & SB_RETAINED)) /* that was sent long ago */
            dp_note_sent(f, h->sent_ns);
    }
    RB_FAIL("drain.chosen");
    dp_publish_run(f, target, SB_DATA);
    RB_FAIL("drain.published");
    if (dp_tapped(f) && !port->alone) /* else those who tap were told when it came */
        dp_tap_run(f, target, SB_OUTCOME_DELIVERED);
    return true;
}

/* What was given or dismissed is gone from the backlog, and whoever waits for space there may have it. */
static inline void dp_leave_backlog(struct dp_forwarder *f)
{
    struct dp_run *run = &f->run;
    struct dp_port *port = run->span.source;
    dp_consume(f, &run->span);
    RB_FAIL("drain.consumed");
    port->refused_since_ns[DP_LINE_DATA] = 0;
    rb_add(&port->down->forwarded, run->count);
    if (rb_load(&port->down->incoming[SB_DATA].need) <= run->span.to)
        dp_wake_waiters(f, port);
    if (!dp_waits(f, port)) {
        dp_backlog_of(f, port)->emptied_ns = f->now;
        dp_wake_backlogs(f); /* a younger one of the same takers has waited for this */
    }
}

/* What came earlier for the same takers waits in another backlog. */
static inline bool dp_behind_another(struct dp_forwarder *f, const struct dp_port *port)
{
    const struct dp_backlog *b = dp_backlog_of(f, port);
    uint64_t left = dp_work_backlogs(f);
    for (struct dp_port *other; (other = dp_next_backlog(f, &left));) {
        const struct dp_backlog *o = dp_backlog_of(f, other);
        if (other->generation < port->generation && o->group == b->group && o->former == b->former &&
            dp_waits(f, other) && (b->former || memcmp(&o->takers, &b->takers, sizeof o->takers) == 0))
            return true;
    }
    return false;
}

/* Give away what can be given now, a batch at the most. */
static inline void dp_drain_backlog(struct dp_forwarder *f, struct dp_port *port)
{
    struct dp_run *run = &f->run;
    uint32_t left = f->batch;
    while (left && dp_waits(f, port) && !dp_behind_another(f, port)) {
        const struct dp_receivers *takers = NULL;
        enum dp_leaving first = dp_collect_waiting(f, port, left < DP_RUN ? left : DP_RUN, &takers);
        if (!run->count)
            return;
        if (first == DP_STAYS) {
            const bool former = dp_backlog_of(f, port)->former;
            if (former ? !dp_await_former(f, port) : !takers || !dp_want(f, takers))
                return;
            continue;
        }
        if (first != DP_LEAVES)
            dp_dismiss(f, first);
        else if (!dp_give_waiting(f))
            return;
        left -= run->count;
        dp_leave_backlog(f);
    }
    if (!left)
        dp_set_add(&f->active, port->slot);
}

/* Now and then: all that wait are visited, and what has been empty for long is removed. */
static inline void dp_look_at_backlogs(struct dp_forwarder *f)
{
    uint64_t left = dp_work_backlogs(f);
    f->active.word[DP_BACKLOG_WORD] |= f->catching_up;
    for (struct dp_port *port; (port = dp_next_backlog(f, &left));) {
        bool over = !dp_waits(f, port) && f->now - dp_backlog_of(f, port)->emptied_ns > DP_BACKLOG_IDLE_NS &&
                    !dp_owed(f, port);
        dp_tell_rest(f, port, over);
        if (over)
            dp_close_backlog(f, port, true);
        else if (dp_waits(f, port))
            dp_set_add(&f->active, port->slot);
    }
    dp_settle_groups(f);
}
