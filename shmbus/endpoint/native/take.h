/* Taking: the next message is looked at, then taken, under one hold of the lock.
 *
 *   ep_peek               the next message, which stays in the ring
 *   ep_take               what ep_peek showed is taken; it is held until ep_done, or done at once
 *   ep_peek_ring          the next record of either incoming ring, checked
 *   ep_mark_progress      this endpoint has just taken something
 */
#pragma once

#include "shmbus/endpoint/native/hold.h"
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

/* One that was evicted has no messages: they go to somebody else. */
static inline enum rb_status ep_peek(struct ep_endpoint *e, struct sb_record *header, const uint8_t **record)
{
    if (__builtin_expect(ep_trouble(e) & EP_EVICTED, 0))
        return RB_EMPTY;
    return ep_peek_ring(e, SB_DATA, header, record);
}

static inline void ep_count_received(struct ep_endpoint *e, uint16_t kind)
{
    switch (kind) {
    case SB_EVENT: rb_add(&e->up->received_events, 1); break;
    case SB_SEND: rb_add(&e->up->received_sends, 1); break;
    case SB_REQUEST: rb_add(&e->up->received_requests, 1); break;
    default: break;
    }
}

/* `how` is enum sb_held_state: SB_HELD_DONE holds nothing. Returns the message's position, for ep_done. */
static inline uint64_t ep_take(struct ep_endpoint *e, const struct sb_record *header, uint64_t how)
{
    struct rb_consumer *in = &e->in[SB_DATA];
    struct sb_incoming *mine = &e->up->incoming[SB_DATA];
    uint64_t position = in->next;
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
    ep_count_received(e, header->kind);
    return position;
}

static inline void ep_mark_progress(struct ep_endpoint *e)
{
    uint64_t now = rb_coarse_now();
    if (now != rb_load(&e->up->progress_ns))
        rb_store(&e->up->progress_ns, now);
}
