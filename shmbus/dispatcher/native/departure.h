/* How an endpoint leaves the bus, by closing, by dying or by being put out: its routes go at once, its pending
 * callers are told at once, `down` is said at once. What it leaves behind see farewell.h.
 *
 * Its incoming ring lies in DOWN, which the dispatcher itself wrote; its tail, `taken` and `held` lie in UP and
 * are believed only where they make sense. */
#ifndef DP_DEPARTURE_H
#define DP_DEPARTURE_H

#include "shmbus/dispatcher/native/interests.h"
#include "shmbus/dispatcher/native/emit.h"

/* What the endpoint says it has taken: between its tail and our head, or the tail where it says nonsense. */
static inline uint64_t dp_taken(struct dp_port *p)
{
    struct rb_producer *in = &p->in[SB_DATA];
    (void)rb_refresh_tail(in);
    uint64_t taken = rb_load_acquire(&p->up->incoming[SB_DATA].taken);
    return (taken & 7) || taken < in->tail_seen || taken > in->published ? in->tail_seen : taken;
}

/* One that was put out, or let go of its door, may go on writing: what it had sent and released by now is all that
 * counts. */
static inline void dp_freeze(struct dp_port *p)
{
    struct sb_down_incoming *d = &p->down->incoming[SB_DATA];
    for (int ring = 0; ring < SB_RINGS; ring++)
        p->last[ring] = rb_load_acquire(&p->up->outgoing[ring].head);
    if (rb_load(&d->reclaim) != SB_NOWHERE)
        return;
    (void)rb_refresh_tail(&p->in[SB_DATA]);
    rb_store(&d->reclaim_bits, 0);
    rb_store_release(&d->reclaim, p->in[SB_DATA].tail_seen);
}

/* Our own record at `*position` of its incoming data ring; false at the end. Moves past padding. The walk begins
 * at a tail that the endpoint wrote, which may lie in the midst of a record: what does not look like one of ours
 * is the end, too. */
static inline bool dp_own_record(const struct dp_forwarder *f, struct dp_port *p, uint64_t *position,
                                 struct sb_record *h, const uint8_t **record)
{
    struct rb_producer *in = &p->in[SB_DATA];
    while (*position < in->published) {
        struct rb_head8 head;
        uint64_t offset = *position & (in->capacity - 1), to_end = in->capacity - offset;
        memcpy(&head, in->data + offset, sizeof head);
        uint64_t size = RB_ALIGN8(head.length);
        if (head.length < sizeof head || size > to_end || size > in->published - *position)
            return false;
        if (head.kind != RB_PADDING) {
            if (head.length < SB_HEADER)
                return false;
            *record = in->data + offset;
            memcpy(h, *record, sizeof *h);
            bool ours = h->peer < f->slots || (h->peer == SB_FROM_BUS && h->kind != SB_REQUEST);
            return ours && sb_record_sound(h) && h->type_length;
        }
        *position += size;
    }
    return false;
}

static inline uint64_t dp_request_key(uint32_t slot, uint32_t index)
{
    return ((uint64_t)slot << 16 | index) * 0x9fb21c651e98df25ull;
}
static inline bool dp_any(const void *item, const void *key) { (void)item; (void)key; return true; }

/* Every request that it had begun and not answered ends with an error now; those it had not touched are handed
 * on later. */
static inline void dp_fail_begun(struct dp_forwarder *f, struct dp_port *p)
{
    struct dp_table untouched = {0};
    uint64_t position = dp_taken(p);
    struct sb_record h;
    const uint8_t *record;
    if (p->reason != SB_REASON_QUARANTINED)
        for (; dp_own_record(f, p, &position, &h, &record); position += RB_ALIGN8(h.length))
            if (h.kind == SB_REQUEST)
                dp_table_put(&untouched, dp_request_key(h.peer, sb_index_of(h.correlation)), (void *)(uintptr_t)2);
    for (uint32_t slot = 0; slot < f->high_slot; slot++) {
        struct dp_port *q = &f->ports[slot];
        if (q->state == SB_ROW_FREE || q->state == SB_ROW_DYING)
            continue;
        for (uint32_t i = 0; i < q->pending_count; i++) {
            struct sb_target *t = &q->target[i];
            if (rb_load(&t->whom) != dp_whom_of(p) || rb_load(&t->done) ||
                dp_table_find(&untouched, dp_request_key(slot, i), dp_any, NULL))
                continue;
            dp_fail_request(f, q, (uint16_t)i, t->id, SB_FAULT_ENDPOINT_DIED, p, p->reason, NULL);
        }
    }
    free(untouched.slots);
}

static inline const char *dp_source_name(struct dp_forwarder *f, const struct sb_record *h)
{
    if (h->peer >= f->slots || rb_load(&f->rows[h->peer].generation) != h->peer_generation)
        return "";
    return f->rows[h->peer].name; /* which stands there until the slot is given away again */
}

/* The index in `held` of the message at `position` that was begun and not done, or SB_HELD. */
static inline uint32_t dp_held_at(const struct dp_port *p, uint64_t position, uint64_t *how)
{
    for (uint32_t i = 0; i < SB_HELD; i++)
        if (rb_load_acquire(&p->up->held[i].position) == position &&
            (*how = rb_load(&p->up->held[i].done)) != SB_HELD_DONE)
            return i;
    return SB_HELD;
}

/* What it had let go and not done is not in its ring any more, so nobody else can have it. What such a letter
 * says is the word of the dead. */
static inline void dp_bury_let_go(struct dp_forwarder *f, struct dp_port *p)
{
    for (uint32_t i = 0; i < SB_KEPT; i++) {
        uint8_t record[sizeof p->up->kept[i].record];
        struct sb_record h;
        uint64_t at = rb_load_acquire(&p->up->kept[i].at), how;
        if (!at || dp_held_at(p, at - 1, &how) != SB_HELD) /* it was killed as it let it go */
            continue;
        memcpy(record, p->up->kept[i].record, sizeof record);
        memcpy(&h, record, sizeof h);
        uint64_t front = sb_payload_offset(&h), there = h.length < sizeof record ? h.length : sizeof record;
        if ((h.kind == SB_EVENT || h.kind == SB_SEND) && sb_record_sound(&h) && front <= there &&
            dp_valid_tokens((const char *)sb_type_of(record), h.type_length, false))
            dp_dead_letter_of(f, &h, sb_type_of(record), record + front, there - front, dp_source_name(f, &h), NULL,
                              "its holder died, which had let it go");
    }
    uint64_t unkept = rb_load(&p->up->let_go_unkept), most = rb_load(&p->down->incoming[SB_DATA].delivered);
    dp_count_lost(f, p, unkept < most ? unkept : 0);
}

static inline void dp_wake_waiters(struct dp_forwarder *f, struct dp_port *p)
{
    for (uint32_t w = 0; w < DP_SET_WORDS; w++) {
        f->active.word[w] |= p->waiters.word[w];
        p->waiters.word[w] = 0;
    }
    for (int r = 0; r < SB_RINGS; r++)
        rb_store(&p->down->incoming[r].need, SB_NO_NEED);
}

static inline void dp_emit_down(struct dp_forwarder *f, struct dp_port *p)
{
    dp_emit_endpoint(f, "$bus.endpoint.down", p, sb_reason_word(p->reason));
    dp_row_set(p, &p->row->said, 1);
}

/* It takes no part any more: its state says so, nothing is routed to it, nobody waits for it. */
static inline void dp_depart(struct dp_forwarder *f, struct dp_port *p, enum sb_reason reason)
{
    bool leaving = reason == SB_REASON_DETACHED;
    p->reason = reason;
    p->state = leaving ? SB_ROW_LEAVING : SB_ROW_DYING;
    dp_row_begin(p->row);
    rb_store(&p->row->reason, reason);
    rb_store(&p->row->down_ns, f->now);
    rb_store_release(&p->row->state, p->state); /* last: whoever adopts it knows why */
    dp_row_end(p->row);
    RB_FAIL("farewell.begun");
    dp_remove_interests(&f->routes, (uint16_t)p->slot);
    dp_set_add(&f->departing, p->slot);
    dp_set_add(&f->active, p->slot);
    dp_wake_waiters(f, p);
    if (leaving)
        return;
    if (reason == SB_REASON_EVICTED || reason == SB_REASON_QUARANTINED) {
        rb_store_release(&p->down->state, SB_DOWN_EVICTED);
        dp_touch(f, p);
    }
    dp_freeze(p);
}

/* Who waits for it, or wants to know, is told. */
static inline void dp_announce_end(struct dp_forwarder *f, struct dp_port *p)
{
    dp_fail_begun(f, p);
    RB_FAIL("farewell.told");
    dp_bury_let_go(f, p);
    dp_emit_down(f, p);
    RB_FAIL("farewell.said");
    if (p->reason == SB_REASON_QUARANTINED)
        dp_notify(f, DP_QUARANTINED_PORT, p);
}

/* It wrote what no endpoint may: nothing more is read from its rings. */
static inline void dp_quarantine(struct dp_forwarder *f, struct dp_port *p)
{
    p->corrupt = true;
    rb_add(&f->bus->violations, 1);
    if (p->state != SB_ROW_LIVE && p->state != SB_ROW_LEAVING)
        return;
    dp_depart(f, p, SB_REASON_QUARANTINED);
    dp_announce_end(f, p);
}

#endif
