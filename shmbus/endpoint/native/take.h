/* Taking: the next message is looked at, then taken, under one hold of the lock.
 *
 *   ep_peek               the next message, which stays in the ring
 *   ep_take               what ep_peek showed is taken; it is held until ep_done, or done at once
 *   ep_enter_peeked       before that, where it is pooled: its share
 *   ep_drop_revoked       after that: it was lost meanwhile
 *   ep_lost_before        how many were lost before it since the one taken last
 *   ep_peek_ring          the next record of an incoming ring, checked
 *   ep_mark_progress      this endpoint has just taken something
 */
#pragma once

#include "shmbus/endpoint/native/hold.h"
#include "shmbus/endpoint/native/share.h"
#include "shmbus/endpoint/native/trouble.h"

/* The next record, past padding: RB_OK with a private copy of its header, whose first 8 bytes are those that were
 * checked; RB_CORRUPT is trouble from then on. */
static inline enum rb_status ep_peek_ring(struct ep_endpoint *e, uint32_t ring, struct sb_record *header,
                                          const uint8_t **record)
{
    struct rb_consumer *in = &e->in[ring];
    struct rb_head8 head;
    uint64_t position = in->next;
    enum rb_status status = rb_peek_at(in, &position, SB_HEADER, &head, record);
    if (status == RB_OK) {
        in->next = position;
        memcpy(header, *record, sizeof *header);
        memcpy(header, &head, sizeof head);
        if (!sb_record_sound(header))
            status = RB_CORRUPT;
    }
    if (__builtin_expect(status == RB_CORRUPT, 0))
        ep_found_bad(e, ring, position);
    return status;
}

/* Of what is urgent, the first; without any, the first of the others. The word that shows urgent ones has a cache line
 * of its own, which nobody writes while none come. One that was evicted has no messages: they go to somebody else. */
static inline enum rb_status ep_peek(struct ep_endpoint *e, struct sb_record *header, const uint8_t **record)
{
    if (__builtin_expect(ep_trouble(e) & EP_EVICTED, 0))
        return RB_EMPTY;
    bool urgent = rb_load(e->in[SB_URGENT_EVENTS].head) != e->in[SB_URGENT_EVENTS].next;
    e->peeked = __builtin_expect(urgent, 0) ? SB_URGENT_EVENTS : SB_DATA;
    return ep_peek_ring(e, e->peeked, header, record);
}

static inline void ep_count_received(struct ep_endpoint *e, const struct sb_record *header)
{
    if (!header->interests) /* it was revoked */
        return;
    switch (header->kind) {
    case SB_EVENT: rb_add(&e->up->received_events, 1); break;
    case SB_SEND: rb_add(&e->up->received_sends, 1); break;
    case SB_REQUEST: rb_add(&e->up->received_requests, 1); break;
    default: break;
    }
}

/* NULL: no memory, or its pool cannot be mapped. */
static inline struct ep_share *ep_enter_peeked(struct ep_endpoint *e, const struct sb_record *header,
                                               const uint8_t *record, bool pinned)
{
    struct ep_share *share = ep_enter_share(e, sb_share_of(e->in[e->peeked].next, e->peeked), header, record, pinned);
    return share && !ep_drop_unmapped(e, share) ? share : NULL;
}

/* Has the dispatcher revoked it, before this share of it was entered, or before it was copied? Then the share goes. */
static inline bool ep_drop_revoked(struct ep_share *share, const uint8_t *record)
{
    rb_fence_seq(); /* with dp_sweep_shares: it sees the entry, or we that the record is for nobody any more */
    if (!sb_is_revoked(record))
        return false;
    ep_free_share(share);
    return true;
}

/* An urgent event is never held: it leaves its ring as it is taken. */
static inline uint64_t ep_take_urgent(struct ep_endpoint *e, const struct sb_record *header)
{
    struct rb_consumer *in = &e->in[SB_URGENT_EVENTS];
    struct sb_incoming *mine = &e->up->incoming[SB_URGENT_EVENTS];
    in->next += RB_ALIGN8(header->length);
    rb_store_release(&mine->taken, in->next); /* dp_lose_urgent counts from there on */
    RB_FAIL("take.urgent");
    rb_store_release(&mine->taken_count, rb_load(&mine->taken_count) + 1);
    ep_release(e, SB_URGENT_EVENTS, in->next);
    ep_count_received(e, header);
    return SB_NOWHERE;
}

/* `how` is enum sb_held_state: SB_HELD_DONE holds nothing. Returns the message's position, for ep_done. */
static inline uint64_t ep_take(struct ep_endpoint *e, const struct sb_record *header, uint64_t how)
{
    struct rb_consumer *in = &e->in[SB_DATA];
    struct sb_incoming *mine = &e->up->incoming[SB_DATA];
    uint64_t position = in->next;
    if (__builtin_expect(e->peeked == SB_URGENT_EVENTS, 0))
        return ep_take_urgent(e, header);
    if (how != SB_HELD_DONE)
        ep_hold(e, position, how);
    in->next = position + RB_ALIGN8(header->length);
    RB_FAIL("take.held");
    rb_store_release(&mine->taken, in->next); /* dp_taken loads it, then looks for it among the held */
    RB_FAIL("take.taken");
    rb_store_release(&mine->taken_count, rb_load(&mine->taken_count) + 1); /* dp_untouched: then `in_hand` is there */
    RB_FAIL("take.counted");
    while (e->held_count && in->next - rb_load(&e->held[0]->position) > in->capacity / 4)
        ep_let_go(e);
    ep_release_data(e);
    ep_offer_work(e, in->next == in->head_seen);
    ep_count_received(e, header);
    return position;
}

/* One that was overtaken says less than what has overtaken it: that has told of it. */
static inline uint32_t ep_lost_before(struct ep_endpoint *e, const struct sb_record *header)
{
    uint32_t lost = header->lost - e->lost_seen;
    if (lost > UINT32_MAX / 2)
        return 0;
    e->lost_seen = header->lost;
    return lost;
}

static inline void ep_mark_progress(struct ep_endpoint *e)
{
    uint64_t now = rb_coarse_now();
    if (now != rb_load(&e->up->progress_ns))
        rb_store(&e->up->progress_ns, now);
}
