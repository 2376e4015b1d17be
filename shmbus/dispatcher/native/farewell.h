/* What an endpoint leaves behind: what it had sent is forwarded, what it had not finished is handed on, the rest is
 * counted, and its slot is free. */
#ifndef DP_FAREWELL_H
#define DP_FAREWELL_H

#include "shmbus/dispatcher/native/forward.h"

/* What it had answered is no loss of those who asked. */
static inline void dp_forward_replies(struct dp_forwarder *f, struct dp_port *p)
{
    while (p->reason != SB_REASON_QUARANTINED && dp_forward_ring(f, p, SB_REPLIES)) {
    }
}

static inline void dp_farewell_begin(struct dp_forwarder *f, struct dp_port *p, enum sb_reason reason)
{
    dp_depart(f, p, reason);
    if (reason == SB_REASON_DETACHED)
        return;
    dp_forward_replies(f, p);
    dp_announce_end(f, p);
}

/* Handing on ------------------------------------------------------------------------------------------------- */

/* Give one record to `t`. 1: given. 0: no room yet, or (`over`) no more waiting for it. */
static inline int dp_give(struct dp_forwarder *f, struct dp_source *s, struct dp_port *t, const struct sb_record *h,
                          const uint8_t *record, uint32_t bits, uint64_t bits_after, bool *over)
{
    struct dp_port *p = s->port;
    struct rb_producer *out = &t->in[SB_DATA];
    uint8_t *at;
    *over = h->length > rb_largest_record(out->capacity);
    if (*over)
        return 0;
    enum rb_status status;
    do
        status = rb_claim(out, h->length, 0, &at);
    while (status == RB_FULL && dp_need_room(p, t, SB_DATA, rb_end_after(out, h->length)));
    if (status == RB_CORRUPT) {
        dp_quarantine(f, t);
        dp_set_add(&f->active, p->slot); /* to somebody else, then */
        return 0;
    }
    if (status == RB_FULL) {
        if (!p->hand_on_since_ns)
            p->hand_on_since_ns = f->now;
        struct dp_head_of_line front = {.since_ns = p->hand_on_since_ns};
        uint64_t until = dp_patience(f, &front, t);
        if (until <= f->now) {
            dp_mark_slow(t);
            *over = true;
        } else if (until < f->next_deadline) {
            f->next_deadline = until;
        }
        return 0;
    }
    struct sb_record w = *h;
    w.flags |= SB_REDELIVERED;
    w.interests = bits;
    w.lost = (uint32_t)rb_load(&t->down->lost);
    memcpy(at, &w, sizeof w);
    memcpy(at + SB_HEADER, record + SB_HEADER, h->length - SB_HEADER);
    rb_commit(out, h->length);
    dp_journal_run(f, s, t, SB_DATA, SB_JOURNAL_RUN, bits_after, 0);
    if (h->kind == SB_REQUEST) {
        struct dp_port *q = &f->ports[h->peer];
        rb_store(&q->target[sb_index_of(h->correlation)].whom, dp_whom_of(t));
    }
    RB_FAIL("reclaim.chosen");
    dp_publish_at(f, t, SB_DATA, 1);
    RB_FAIL("reclaim.published");
    rb_add(&t->down->redelivered, 1);
    rb_add(&f->bus->redelivered, 1);
    p->hand_on_since_ns = 0;
    return 1;
}

static inline void dp_bury(struct dp_forwarder *f, const struct sb_record *h, const uint8_t *record, const char *reason)
{
    struct dp_port *sender = NULL;
    if (h->peer < f->slots && f->ports[h->peer].state != SB_ROW_FREE && f->ports[h->peer].generation == h->peer_generation)
        sender = &f->ports[h->peer];
    dp_dead_letter(f, h, sb_type_of(record), record + sb_payload_offset(h), dp_source_name(f, h), sender, reason);
}

/* One record of what lay in its incoming ring. False: it must wait. */
static inline bool dp_hand_on(struct dp_forwarder *f, struct dp_source *s, uint64_t taken, struct sb_record *h,
                              const uint8_t *record)
{
    struct dp_port *p = s->port;
    bool begun = s->from < taken, over = false;
    if (begun && h->kind != SB_REQUEST) {
        uint64_t how;
        if (dp_held_at(p, s->from, &how) == SB_HELD)
            return true; /* finished */
        bool final = how == SB_HELD_FINAL;
        if (final || ++h->attempt > f->max_deliveries) {
            dp_bury(f, h, record, final ? "its handler died" : "its receivers died of it");
            return true;
        }
    }
    dp_pin_routes(&f->routes);
    struct dp_route *route = dp_lookup(&f->routes, sb_type_of(record), h->type_length);
    if (h->kind == SB_REQUEST || h->kind == SB_SEND) {
        struct dp_port *q = h->kind == SB_REQUEST ? &f->ports[h->peer] : NULL;
        uint16_t index = sb_index_of(h->correlation);
        if (q && (q->state == SB_ROW_FREE || q->generation != h->peer_generation || index >= q->pending_count ||
                  memcmp(q->target[index].id, h->correlation, 16) != 0 || rb_load(&q->target[index].done)))
            return true; /* nobody waits for it */
        if (route && route->handler_count && !(q && begun)) {
            const struct dp_receiver *r =
                dp_least_busy(f, route->handlers, route->handler_count, &route->turn, SB_MAX_SLOTS);
            if (dp_give(f, s, &f->ports[r->slot], h, record, SB_PLAIN, 0, &over))
                return true;
            if (!over)
                return false;
        }
        if (q)
            dp_fail_request(f, q, index, h->correlation, SB_FAULT_ENDPOINT_DIED, p, p->reason, s);
        else
            dp_bury(f, h, record, "its handler died");
        return true;
    }
    struct sb_down_incoming *d = &p->down->incoming[SB_DATA];
    uint32_t bits = dp_reclaimed_of(s->from, rb_load(&d->reclaim_bits)), left = h->interests & ~bits;
    if (left & SB_PLAIN) {
        bits |= SB_PLAIN;
        if (!begun) {
            uint64_t after = rb_load(&p->down->lost) + 1;
            dp_journal_lost(f, s, p, after, 0, dp_reclaimed(s->from, bits));
            rb_store(&p->down->lost, after);
            rb_add(&f->bus->lost, 1);
        }
        rb_store(&d->reclaim_bits, dp_reclaimed(s->from, bits));
        left &= ~SB_PLAIN;
    }
    for (uint32_t bit = 1; left; bit++) {
        if (!(left >> bit & 1))
            continue;
        const struct dp_receiver *next = NULL;
        for (uint32_t g = 0; route && g < route->group_count; g++)
            if (route->groups[g].group == p->group_of_bit[bit])
                next = dp_least_busy(f, &route->members[route->groups[g].first], route->groups[g].count,
                                     &route->groups[g].group->turn, SB_MAX_SLOTS);
        bits |= 1u << bit;
        uint64_t bits_after = dp_reclaimed(s->from, bits);
        if (!next) {
            dp_bury(f, h, record, "its queue group has no member left");
        } else if (!dp_give(f, s, &f->ports[next->slot], h, record, 1u << next->bit, bits_after, &over)) {
            if (!over)
                return false;
            dp_bury(f, h, record, "no other member of its queue group had room");
        }
        rb_store(&d->reclaim_bits, bits_after);
        left &= ~(1u << bit);
    }
    return true;
}

static inline bool dp_ring_empty(const struct dp_port *p, enum sb_ring_index ring)
{
    uint64_t released = p->out[ring].released;
    return p->corrupt || released >= p->last[ring] || rb_load_acquire(&p->up->outgoing[ring].head) == released;
}

/* Is anything of a standing fan-out or a refused front still meant for it? They settle as they are visited. */
static inline bool dp_owed(struct dp_forwarder *f, const struct dp_port *p)
{
    for (uint32_t slot = 0; slot < f->high_slot; slot++) {
        struct dp_port *q = &f->ports[slot];
        if (q->state == SB_ROW_FREE || rb_load(&q->down->todo.from) == SB_NOWHERE)
            continue;
        for (uint64_t i = 0; i < rb_load(&q->down->todo.count); i++)
            if (rb_load(&q->todo[i].whom) == dp_whom_of(p) && (uint32_t)rb_load(&q->todo[i].bits)) {
                dp_set_add(&f->active, slot);
                dp_set_add(&f->active, p->slot);
                return true;
            }
    }
    return false;
}

static inline void dp_farewell_end(struct dp_forwarder *f, struct dp_port *p)
{
    if (p->state == SB_ROW_LEAVING) {
        dp_forward_replies(f, p);
        dp_fail_begun(f, p);
        dp_emit_down(f, p);
    }
    RB_FAIL("farewell.end");
    rb_store_release(&p->down->state, SB_DOWN_RECLAIMED);
    RB_FAIL("farewell.reclaimed");
    dp_set_drop(&f->departing, p->slot);
    dp_interests_close(p);
    dp_touch(f, p);
    p->state = SB_ROW_FREE;
    f->ended_slots[f->ended_count++] = p->slot; /* told once its bell has been rung for the last time */
}

/* Go on with the end of an endpoint as far as it goes now. */
static inline void dp_farewell_continue(struct dp_forwarder *f, struct dp_port *p)
{
    for (int ring = SB_RINGS - 1; ring >= 0; ring--)
        if (!dp_ring_empty(p, (enum sb_ring_index)ring) && dp_forward_ring(f, p, (enum sb_ring_index)ring))
            dp_set_add(&f->active, p->slot);
    if (p->corrupt)
        dp_abandon_fanout(f, p);
    bool forwarded = dp_ring_empty(p, SB_DATA) && dp_ring_empty(p, SB_REPLIES);
    if (dp_owed(f, p))
        return;
    if (p->state == SB_ROW_LEAVING) {
        if (!forwarded)
            return;
        if (!p->leaving_drained) {
            p->leaving_drained = true;
            rb_store_release(&p->down->state, SB_DOWN_DRAINED);
            RB_FAIL("farewell.drained");
            dp_touch(f, p);
        }
        if (rb_load_acquire(&p->up->state) != SB_UP_CLOSED)
            return;
        if (!(dp_ring_empty(p, SB_DATA) && dp_ring_empty(p, SB_REPLIES)))
            return; /* it sent while it drained */
        dp_freeze(p);
    }
    struct sb_down_incoming *d = &p->down->incoming[SB_DATA];
    struct dp_source s = {.port = p, .ring = SB_DATA, .reclaim = true};
    uint64_t taken = dp_taken(p), position = rb_load(&d->reclaim);
    struct sb_record h;
    const uint8_t *record;
    for (uint32_t n = 0; dp_own_record(f, p, &position, &h, &record); n++) {
        if (n >= f->batch) {
            dp_set_add(&f->active, p->slot);
            return;
        }
        s.from = position;
        s.to = position + RB_ALIGN8(h.length);
        if (!dp_hand_on(f, &s, taken, &h, record))
            return;
        dp_consume(f, &s);
        p->hand_on_since_ns = 0;
        position = s.to;
    }
    if (forwarded)
        dp_farewell_end(f, p);
}

#endif
