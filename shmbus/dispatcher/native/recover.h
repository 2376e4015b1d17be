/* Adoption: a new dispatcher finds a bus as a killed one left it, and goes on as if nothing had happened.
 *
 * In this order: what stood in the journal is finished or forgotten, the wishes of all who are attached are
 * read (before anything is routed), requests that name nobody any more are answered, ends that had begun go on,
 * and every bell is rung, because the dead may have owed it. A fan-out half done stands in `todo` and goes on
 * by itself. Each step may be repeated, so a kill in here does no harm either. */
#ifndef DP_RECOVER_H
#define DP_RECOVER_H

#include "shmbus/dispatcher/native/farewell.h"

/* Records in its incoming data ring that it has not taken; its own two words may be torn by a kill. */
static inline void dp_count_delivered(const struct dp_forwarder *f, struct dp_port *p)
{
    uint64_t count, position, again, untouched = 0;
    int tries = 16; /* one that never holds still has its count to blame for what follows */
    do {
        count = rb_load_acquire(&p->up->incoming[SB_DATA].taken_count);
        position = dp_taken(p);
        again = rb_load_acquire(&p->up->incoming[SB_DATA].taken_count);
    } while (count != again && --tries);
    struct sb_record h;
    const uint8_t *record;
    for (; dp_own_record(f, p, &position, &h, &record); position += RB_ALIGN8(h.length))
        untouched++;
    p->delivered = count + untouched;
    rb_store(&p->down->incoming[SB_DATA].delivered, p->delivered);
}

/* The requests of a run that was not published were chosen for in vain: choose again. */
static inline void dp_forget_targets(struct dp_port *p, uint64_t from, uint64_t to)
{
    struct rb_consumer *c = &p->out[SB_DATA];
    uint64_t position = from;
    struct rb_head8 head;
    const uint8_t *record;
    struct sb_record h;
    while (position < to && rb_peek_at(c, &position, SB_HEADER, &head, &record) == RB_OK && position < to &&
           dp_copy_header(&head, record, &h)) {
        uint16_t index = sb_index_of(h.correlation);
        if (h.kind == SB_REQUEST && index < p->pending_count && memcmp(p->target[index].id, h.correlation, 16) == 0)
            rb_store_release(&p->target[index].whom, 0);
        position += RB_ALIGN8(h.length);
    }
}

/* Likewise for a request that was about to be handed on: it is the ended endpoint's still, untouched, whoever
 * else has died meanwhile. */
static inline void dp_forget_handed_on(struct dp_forwarder *f, struct dp_port *p, uint64_t from, uint64_t whom)
{
    struct sb_record h;
    const uint8_t *record;
    if (rb_load(&p->down->incoming[SB_DATA].reclaim) != from || !dp_own_record(f, p, &from, &h, &record) ||
        h.kind != SB_REQUEST || h.peer >= f->slots)
        return;
    struct dp_port *q = &f->ports[h.peer];
    uint16_t index = sb_index_of(h.correlation);
    if (q->state != SB_ROW_FREE && q->generation == h.peer_generation && index < q->pending_count &&
        memcmp(q->target[index].id, h.correlation, 16) == 0 && !rb_load(&q->target[index].done) &&
        rb_load(&q->target[index].whom) == whom)
        rb_store_release(&q->target[index].whom, dp_whom_of(p));
}

static inline bool dp_standing(const struct dp_port *p, uint64_t from)
{
    return rb_load(&p->down->todo.from) != SB_NOWHERE && rb_load(&p->down->todo.from) == from;
}

static inline void dp_recover_journal(struct dp_forwarder *f)
{
    struct sb_journal *hand = &f->bus->journal;
    uint64_t kind = rb_load_acquire(&hand->kind), name = rb_load(&hand->source), detail = rb_load(&hand->detail);
    uint64_t from = rb_load(&hand->from), to = rb_load(&hand->to), bits = rb_load(&hand->bits);
    uint32_t slot = (uint32_t)(name & 0xffff), ring = (uint32_t)(name >> 16 & 0xff);
    if (kind == SB_JOURNAL_NONE || slot >= f->slots || ring >= SB_RINGS)
        return;
    struct dp_port *p = &f->ports[slot];
    if (p->state == SB_ROW_FREE || p->generation != rb_load(&hand->source_generation))
        return;
    bool reclaim = name & DP_FROM_RECLAIM, done = true;
    bool todo = !reclaim && ring == SB_DATA && dp_standing(p, from);
    if (kind == SB_JOURNAL_RECHOOSE) {
        uint64_t index = detail & 0xffffffff, count = detail >> 32;
        if (todo && index < p->down->todo_count && count < p->down->todo_count) {
            rb_store(&p->todo[count].whom, rb_load(&hand->target));
            rb_store(&p->todo[count].bits, rb_load(&hand->head));
            if (rb_load(&p->down->todo.count) <= count)
                rb_store_release(&p->down->todo.count, count + 1);
            rb_store(&p->todo[index].bits, bits);
        }
        return;
    }
    uint32_t target_slot = (uint32_t)(rb_load(&hand->target) & 0xffff);
    uint32_t target_ring = (uint32_t)(rb_load(&hand->target) >> 16 & 0xff);
    if (target_slot >= f->slots || target_ring >= SB_RINGS)
        return;
    struct dp_port *t = &f->ports[target_slot];
    uint64_t whom = sb_whom(target_slot, (uint32_t)rb_load(&hand->target_generation));
    if (!dp_port_of(f, whom)) {
        if (kind == SB_JOURNAL_RUN && reclaim) /* published, its farewell would have dealt with it */
            dp_forget_handed_on(f, p, from, whom);
        return;
    }
    if (kind == SB_JOURNAL_LOST) {
        if (rb_load(&t->down->lost) < rb_load(&hand->head))
            rb_store(&t->down->lost, rb_load(&hand->head));
    } else {
        done = t->in[target_ring].published != rb_load(&hand->head);
    }
    if (!done) {
        if (kind == SB_JOURNAL_RUN && reclaim)
            dp_forget_handed_on(f, p, from, whom);
        else if (kind == SB_JOURNAL_RUN && ring == SB_DATA && !todo && p->out[ring].released == from)
            dp_forget_targets(p, from, to);
        return;
    }
    if (kind == SB_JOURNAL_ERROR && detail < t->pending_count)
        rb_store(&t->target[detail].done, SB_DONE_BY_ERROR);
    struct dp_source s = {.port = p, .ring = (enum sb_ring_index)ring, .reclaim = reclaim, .from = from, .to = to};
    if (todo && kind != SB_JOURNAL_ERROR) {
        if (detail < p->down->todo_count)
            rb_store(&p->todo[detail].bits, kind == SB_JOURNAL_LOST ? bits : 0);
    } else if (reclaim) {
        struct sb_down_incoming *d = &p->down->incoming[SB_DATA];
        struct sb_record h;
        const uint8_t *record;
        uint64_t position = from;
        if (rb_load(&d->reclaim) != from || !dp_own_record(f, p, &position, &h, &record))
            return;
        if (h.kind == SB_EVENT)
            rb_store(&d->reclaim_bits, bits);
        else
            dp_consume(f, &s);
    } else if (p->out[ring].released == from && rb_refresh_head(&p->out[ring]) == RB_OK &&
               to <= p->out[ring].head_seen) {
        dp_consume(f, &s);
    }
}

/* What an endpoint that is ending wished for: its groups have to be known to hand its messages on. */
static inline void dp_recover_interests(struct dp_forwarder *f, struct dp_port *p)
{
    (void)dp_read_interests(f, p);
    if (p->state != SB_ROW_LIVE)
        dp_remove_interests(&f->routes, (uint16_t)p->slot);
}

/* Requests whose target is not there any more at all. */
static inline void dp_fail_orphaned(struct dp_forwarder *f, struct dp_port *q)
{
    for (uint32_t i = 0; i < q->pending_count; i++) {
        uint64_t whom = rb_load(&q->target[i].whom);
        if (whom && !rb_load(&q->target[i].done) && !dp_port_of(f, whom))
            dp_fail_request(f, q, (uint16_t)i, q->target[i].id, SB_FAULT_ENDPOINT_DIED, NULL, SB_REASON_DIED, NULL);
    }
}

static inline void dp_recover(struct dp_forwarder *f)
{
    RB_FAIL("recover.begin");
    dp_recover_journal(f);
    RB_FAIL("recover.journal");
    rb_store_release(&f->bus->journal.kind, SB_JOURNAL_NONE);
    RB_FAIL("recover.cleared");
    for (uint32_t slot = 0; slot < f->high_slot; slot++) {
        struct dp_port *p = &f->ports[slot];
        if (p->state == SB_ROW_FREE)
            continue;
        if (rb_load(&p->down->todo.from) != SB_NOWHERE && rb_load(&p->down->todo.from) != p->out[SB_DATA].released)
            rb_store_release(&p->down->todo.from, SB_NOWHERE);
        dp_count_delivered(f, p);
        dp_recover_interests(f, p);
        RB_FAIL("recover.read");
    }
    for (uint32_t slot = 0; slot < f->high_slot; slot++) {
        struct dp_port *p = &f->ports[slot];
        if (p->state == SB_ROW_FREE)
            continue;
        dp_fail_orphaned(f, p);
        if (p->state == SB_ROW_DYING) {
            dp_freeze(p);
            dp_forward_replies(f, p);
            dp_fail_begun(f, p);
            if (!rb_load(&p->row->said)) {
                dp_bury_let_go(f, p);
                dp_emit_down(f, p);
            }
        }
        if (p->state != SB_ROW_LIVE)
            dp_set_add(&f->departing, slot);
        p->corrupt |= p->state == SB_ROW_DYING && p->reason == SB_REASON_QUARANTINED;
        dp_touch(f, p);
        if (!p->tail_moved[SB_DATA] && !p->tail_moved[SB_REPLIES])
            f->moved_slots[f->moved_count++] = slot;
        p->tail_moved[SB_DATA] = p->tail_moved[SB_REPLIES] = true;
        dp_set_add(&f->active, slot);
        RB_FAIL("recover.port");
    }
}

#endif
