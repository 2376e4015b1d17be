/* Holding: a message of a group, or a send to be delivered again, stays in the ring from its taking until it is
 * done, so that the dispatcher can hand it on when this process dies. At most `hold_limit` are held, and none that
 * pins more than a quarter of the ring: the oldest is let go, and leaves the ring undone.
 *
 *   ep_hold, ep_done      a message was taken; it is done
 *   ep_settle             it is done for some of the groups for which it came
 *   ep_mark_returned      it is given back
 *   ep_postpone, ep_resume    it is to be given back later; it is not any more
 *   ep_unhold_all         at the end, all are done but those that are still to be given back
 *   ep_let_go             the oldest leaves the ring undone; UP.let_go_from says from where on some are undone
 *   ep_set_in_hand        how many were begun and are not done, held or not
 *   ep_set_work_done      how much work was begun and is done
 *   ep_release, ep_release_data     move the tail of an incoming ring
 *
 * Modelled in tests/models/holding.py.
 */
#pragma once

#include "shmbus/endpoint/native/work.h"

static inline void ep_set_in_hand(struct ep_endpoint *e, uint64_t count, uint64_t now)
{
    bool fewer = count < e->in_hand;
    if (e->in_hand == 0 && count)
        rb_store(&e->up->in_hand_since_ns, now);
    e->in_hand = count;
    rb_store_release(&e->up->in_hand, count);
    if (fewer)
        ep_offer_work(e, true);
}

/* Never back: what is put off counts twice for a moment. */
static inline void ep_set_work_done(struct ep_endpoint *e, uint64_t count)
{
    if ((int64_t)(count - rb_load(&e->up->work_done)) > 0)
        rb_store(&e->up->work_done, count);
}

/* Move the tail of an incoming ring, and ring the dispatcher if it waits for that space. A ring that was less
 * crowded when we last looked keeps nobody waiting; the dispatcher's own look is the backstop. */
static inline void ep_release(struct ep_endpoint *e, uint32_t ring, uint64_t position)
{
    struct rb_consumer *in = &e->in[ring];
    if (position == in->released)
        return;
    if (in->head_seen - in->released < e->crowded[ring]) {
        rb_release_to(in, position);
        return;
    }
    in->released = position;
    rb_store_seq(in->tail, position); /* then `need`; dp_need_space stores `need`, then looks at the tail */
    uint64_t need = rb_load_seq(&e->down->incoming[ring].need);
    if (position >= need && need != e->rung_for[ring]) {
        e->rung_for[ring] = need;
        ep_ring_dispatcher(e);
    }
}

static inline void ep_release_data(struct ep_endpoint *e)
{
    ep_release(e, SB_DATA, e->held_count ? rb_load(&e->held[0]->position) : e->in[SB_DATA].next);
}

static inline void ep_unhold(struct ep_endpoint *e, uint32_t i)
{
    rb_store_release(&e->held[i]->done, SB_HELD_DONE); /* dp_holds reads it after the position */
    RB_FAIL("take.done");
    rb_store_release(&e->held[i]->position, SB_NOWHERE);
    e->held_count--;
    for (; i < e->held_count; i++)
        e->held[i] = e->held[i + 1];
}

/* There is no bound to how many are let go and not done, so they are only counted, in two parts: what is let go while
 * there are any belongs to the second, which takes the place of the first when all of that are done. So those of before
 * any position are shown to be done in the end, whatever goes on being let go. */
static inline void ep_note_let_go(struct ep_endpoint *e, uint64_t position)
{
    struct ep_let_go *part = &e->let_go[e->let_go[0].count != 0];
    if (part->count++ == 0)
        part->from = position;
    if (part == &e->let_go[0])
        rb_store(&e->up->let_go_from, position + 1); /* before the tail passes it, for dp_done_to */
}

static inline void ep_note_let_go_done(struct ep_endpoint *e, uint64_t position)
{
    struct ep_let_go *part = e->let_go;
    bool second = part[1].count && position >= part[1].from;
    if (part[second].count == 0 || --part[second].count || second)
        return;
    part[0] = part[1];
    part[1].count = 0;
    rb_store_release(&e->up->let_go_from, part[0].count ? part[0].from + 1 : 0);
}

/* The oldest message held leaves the ring, undone. Its first bytes are kept, so that it is a dead letter if we
 * die; where there is no space for that, the one kept longest is only counted from then on. */
static inline void ep_let_go(struct ep_endpoint *e)
{
    struct rb_consumer *in = &e->in[SB_DATA];
    struct sb_let_go *kept = e->up->kept;
    uint64_t position = rb_load(&e->held[0]->position);
    for (uint32_t i = 1; i < SB_KEPT; i++)
        if (rb_load(&e->up->kept[i].at) < rb_load(&kept->at)) /* 0, a free one, is the least */
            kept = &e->up->kept[i];
    if (rb_load(&kept->at))
        rb_add(&e->up->let_go_unkept, 1);
    rb_store(&kept->at, 0);
    rb_fence_release(); /* with the store below: dp_dead_letter_kept sees all of a record or at == 0 */
    const uint8_t *record = in->data + (position & (in->capacity - 1));
    struct rb_head8 head;
    memcpy(&head, record, sizeof head);
    memcpy(kept->record, record, head.length < sizeof kept->record ? head.length : sizeof kept->record);
    rb_store(&kept->returned, rb_load(&e->held[0]->returned));
    RB_FAIL("take.kept");
    rb_store_release(&kept->at, position + 1);
    rb_add(&e->up->let_go, 1);
    ep_note_let_go(e, position);
    ep_unhold(e, 0);
}

static inline void ep_hold(struct ep_endpoint *e, uint64_t position, uint64_t how)
{
    if (e->held_count >= e->hold_limit)
        ep_let_go(e);
    for (uint32_t i = 0; i < SB_HELD; i++) {
        struct sb_held_entry *entry = &e->up->held[i];
        if (rb_load(&entry->position) != SB_NOWHERE)
            continue;
        rb_store(&entry->done, how);
        rb_store(&entry->returned, 0);
        rb_store(&entry->settled, 0);
        RB_FAIL("take.hold");
        rb_store_release(&entry->position, position); /* before ep_take moves `taken`; dp_holds looks for it */
        e->held[e->held_count++] = entry;
        return;
    }
}

static inline void ep_unhold_all(struct ep_endpoint *e)
{
    uint64_t unkept = e->postponed; /* without those that are held or kept */
    for (uint32_t i = e->held_count; i-- > 0;)
        if (rb_load(&e->held[i]->returned) != SB_NOWHERE)
            ep_unhold(e, i);
        else
            unkept--;
    for (uint32_t i = 0; i < SB_KEPT; i++)
        if (rb_load(&e->up->kept[i].returned) != SB_NOWHERE)
            rb_store_release(&e->up->kept[i].at, 0);
        else if (rb_load(&e->up->kept[i].at))
            unkept--;
    rb_store(&e->up->let_go_unkept, unkept);
}

/* For these interests nobody else is to have it if we die. */
static inline void ep_settle(struct ep_endpoint *e, uint64_t position, uint32_t bits)
{
    for (uint32_t i = 0; i < e->held_count; i++)
        if (rb_load(&e->held[i]->position) == position)
            rb_store_release(&e->held[i]->settled, rb_load(&e->held[i]->settled) | bits);
}

/* `returned` of the message that was taken at `position`: it leaves this endpoint by the SB_NACK that ends there. */
static inline void ep_mark_returned(struct ep_endpoint *e, uint64_t position, uint64_t end)
{
    for (uint32_t i = 0; i < e->held_count; i++)
        if (rb_load(&e->held[i]->position) == position)
            rb_store_release(&e->held[i]->returned, end);
    for (uint32_t i = 0; i < SB_KEPT; i++)
        if (rb_load(&e->up->kept[i].at) == position + 1)
            rb_store_release(&e->up->kept[i].returned, end);
}

/* It is to be given back later, and goes on even if we die before; so does a command, whose handler says that it is
 * not done. Returns what ep_resume needs. */
static inline uint64_t ep_postpone(struct ep_endpoint *e, uint64_t position)
{
    uint64_t how = SB_HELD_OPEN;
    for (uint32_t i = 0; i < e->held_count; i++)
        if (rb_load(&e->held[i]->position) == position) {
            how = rb_load(&e->held[i]->done);
            rb_store(&e->held[i]->done, SB_HELD_OPEN);
        }
    ep_mark_returned(e, position, SB_NOWHERE);
    e->postponed++;
    return how;
}

static inline void ep_resume(struct ep_endpoint *e, uint64_t position, uint64_t how)
{
    ep_mark_returned(e, position, 0);
    e->postponed--;
    for (uint32_t i = 0; i < e->held_count; i++)
        if (rb_load(&e->held[i]->position) == position)
            rb_store(&e->held[i]->done, how);
}

/* The message that was taken at `position` is done, whether it is held, kept or only counted. */
static inline void ep_done(struct ep_endpoint *e, uint64_t position)
{
    for (uint32_t i = 0; i < e->held_count; i++)
        if (rb_load(&e->held[i]->position) == position) {
            ep_unhold(e, i);
            ep_release_data(e);
            return;
        }
    ep_note_let_go_done(e, position);
    for (uint32_t i = 0; i < SB_KEPT; i++)
        if (rb_load(&e->up->kept[i].at) == position + 1) {
            rb_store_release(&e->up->kept[i].at, 0);
            return;
        }
    if (rb_load(&e->up->let_go_unkept))
        rb_store(&e->up->let_go_unkept, rb_load(&e->up->let_go_unkept) - 1);
}
