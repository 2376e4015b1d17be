/* Shares: which blocks a receiver has, or is to have. One begins when a record with SB_POOLED is published in a ring of
 * the receiver's, or comes into a mailbox of its; it lasts while that stands there, and after that while the receiver's
 * own table in POOL has it. The receiver enters it there before it takes the record, and clears it when nobody looks
 * any more; in between it says nothing.
 *
 * What is given back leaves with a record of its receiver's, which clears the entry once that is published. So a share
 * that is found ended is dropped only when what the receiver had published by then is forwarded.
 *
 * In a backlog it lasts until the record leaves there; of an endpoint that dies until its end, see departure.h.
 *
 * Offers: dp_add_share, dp_share_run, dp_share_record; dp_find_share, dp_shares_block; dp_taken_of, dp_sweep_shares,
 *         dp_drop_ended;
 *         dp_mail_left; dp_has_entries; dp_leave_shares, dp_drop_shares. */
#pragma once

#include "shmbus/dispatcher/native/pool.h"

/* Before the record is published there. Without memory the block is never returned, which harms its owner alone. */
static inline struct dp_share *dp_add_share(struct dp_forwarder *f, struct dp_port *port, uint64_t share,
                                            const struct sb_block *block)
{
    struct dp_shares *s = &port->shares;
    struct dp_pool *pool = dp_hold_block(f, block);
    struct dp_share *fresh = pool ? sb_grown(s->list, s->count, &s->capacity, sizeof *fresh) : NULL;
    if (!fresh)
        return NULL;
    s->list = fresh;
    fresh = &s->list[s->count++];
    *fresh = (struct dp_share){.share = share, .until = SB_NOWHERE, .pool = pool, .index = block->index,
                                .given_ns = f->now};
    return fresh;
}

/* A record that was committed to this ring of the port's, and is about to be published: it ends at `end`. */
static inline void dp_share_record(struct dp_forwarder *f, struct dp_port *port, enum sb_ring_index ring, uint64_t end,
                                   const struct sb_record *h, const struct sb_block *block)
{
    dp_add_share(f, port, sb_share_of(end - RB_ALIGN8(h->length), ring), block);
}

/* The run was copied into this ring. */
static inline void dp_share_run(struct dp_forwarder *f, const struct dp_run *run, struct dp_port *port,
                                enum sb_ring_index ring)
{
    uint64_t end = port->in[ring].published;
    for (uint32_t i = 0; i < run->count; i++) {
        end += rb_span(end, run->header[i].length, port->in[ring].capacity);
        if (run->header[i].flags & SB_POOLED)
            dp_share_record(f, port, ring, end, &run->header[i], &run->block[i]);
    }
}

/* NULL: it has none of that name. */
static inline struct dp_share *dp_find_share(const struct dp_port *port, uint64_t share)
{
    for (uint32_t i = 0; i < port->shares.count; i++)
        if (port->shares.list[i].share == share)
            return &port->shares.list[i];
    return NULL;
}

/* Does it have a share of this block, with this use? Where that is not known, since the pool could not be opened at an
 * adoption, any will do: who gives back what it has is not at fault. */
static inline bool dp_shares_block(const struct dp_port *port, const struct sb_block *b)
{
    for (uint32_t i = 0; i < port->shares.count; i++) {
        const struct dp_share *s = &port->shares.list[i];
        if (s->index == b->index && s->pool->slot == b->pool_slot && s->pool->generation == b->pool_generation &&
            (!s->pool->blocks[b->index].use || dp_is_block(&s->pool->blocks[b->index], b)) &&
             dp_block_sound(s->pool, b))
            return true;
    }
    return false;
}

/* Share `i`; the last one takes its place. */
static inline void dp_drop_share(struct dp_forwarder *f, struct dp_port *port, uint32_t i)
{
    struct dp_share over = port->shares.list[i];
    port->shares.list[i] = port->shares.list[--port->shares.count];
    dp_drop_block(f, over.pool, over.index);
}

/* All of them. */
static inline void dp_drop_shares(struct dp_forwarder *f, struct dp_port *port)
{
    while (port->shares.count)
        dp_drop_share(f, port, port->shares.count - 1);
    free(port->shares.list);
    port->shares = (struct dp_shares){0};
}

/* Those of a backlog's records up to there, which have left it. */
static inline void dp_leave_shares(struct dp_forwarder *f, struct dp_port *port, uint64_t to)
{
    for (uint32_t i = port->shares.count; i--;)
        if (port->shares.list[i].share < to)
            dp_drop_share(f, port, i);
}

/* It does not stand in its mailbox any more, where its number is void: does the receiver have it? */
static inline void dp_mail_left(struct dp_forwarder *f, struct dp_port *owner, uint64_t share)
{
    struct dp_share *s = dp_find_share(owner, share);
    if (s) {
        s->mailed = false;
        owner->shares.look = true;
        dp_set_add(&f->active, owner->slot);
    }
}

/* Has the receiver entered it? */
static inline bool dp_is_entered(const struct sb_pool *table, struct dp_share *s)
{
    uint64_t used = rb_load_acquire(&table->shares_used);
    if (s->place)
        return rb_load_acquire(&table->shares[s->place - 1].share) == s->share;
    for (uint32_t i = 0; i < used && i < SB_SHARES; i++)
        if (rb_load_acquire(&table->shares[i].share) == s->share) {
            s->place = (uint16_t)(i + 1);
            return true;
        }
    return false;
}

/* Has it anything in its table, as far as that can be read? */
static inline bool dp_has_entries(struct dp_forwarder *f, struct dp_port *port)
{
    struct dp_pool *pool = dp_open_pool(port);
    const struct sb_pool *table = pool ? dp_map_pool(f, pool) : NULL;
    uint64_t used = table ? rb_load_acquire(&table->shares_used) : 0;
    for (uint32_t i = 0; i < used && i < SB_SHARES; i++)
        if (rb_load_acquire(&table->shares[i].share))
            return true;
    return false;
}

/* Does it stand in a mailbox, of which it may still be taken? */
static inline bool dp_is_in_mailbox(const struct dp_port *port, const struct dp_share *s)
{
    const struct sb_had *had = &port->up->had[sb_share_mailbox(s->share)];
    if (!s->mailed)
        return false;
    uint64_t whom = rb_load_acquire(&had->whom);
    uint64_t taken = rb_load_acquire(&had->taken); /* what it took by then is entered */
    return rb_load(&had->whom) != whom || (uint16_t)sb_whom_generation(whom) != s->share >> 48 ||
           sb_share_number(s->share) > taken;
}

/* Does the record stand where it was given, and is for it? `taken`: up to where the receiver has taken of each ring. */
static inline bool dp_is_there(const struct dp_port *port, const struct dp_share *s, const uint64_t taken[SB_RINGS_IN])
{
    uint64_t ring = (s->share & 7) - 1;
    return ring < SB_RINGS_IN ? !s->revoked && (s->share & ~7ull) >= taken[ring] : dp_is_in_mailbox(port, s);
}

/* Of one that closes, which clears its table before it says so: has it this message in hand, or let go and not done?
 * That may have to be handed on. */
static inline bool dp_leaves_undone(const struct dp_port *port, const struct dp_share *s)
{
    uint64_t position = s->share & ~7ull;
    if ((s->share & 7) != SB_DATA + 1 || rb_load_acquire(&port->up->state) < SB_UP_CLOSING)
        return false;
    for (uint32_t i = 0; i < SB_HELD; i++)
        if (rb_load_acquire(&port->up->held[i].position) == position)
            return true;
    for (uint32_t i = 0; i < SB_KEPT; i++)
        if (rb_load_acquire(&port->up->kept[i].at) == position + 1)
            return true;
    return false;
}

/* Up to where the receiver has taken, of this ring: what it had taken by then is entered by now. */
static inline uint64_t dp_taken_of(const struct dp_port *port, int ring)
{
    uint64_t tail = rb_load_acquire(&port->up->incoming[ring].tail);
    uint64_t taken = rb_load_acquire(&port->up->incoming[ring].taken);
    return taken < tail ? tail : taken;
}

/* The same of each ring. True: it has gone on, or may have cleared entries. */
static inline bool dp_note_shares(const struct dp_forwarder *f, struct dp_port *port, uint64_t taken[SB_RINGS_IN])
{
    struct dp_shares *s = &port->shares;
    uint64_t ended = rb_load_acquire(&port->up->shares_ended);
    bool moved = s->look || ended != s->ended_seen;
    for (int r = 0; r < SB_RINGS_IN; r++) {
        taken[r] = dp_taken_of(port, r);
        if (taken[r] == s->taken_seen[r])
            continue;
        moved = true;
        s->taken_seen[r] = taken[r];
        s->taken_ns = f->now;
    }
    s->ended_seen = ended;
    s->look = false;
    return moved;
}

/* Which have ended by now? Before what it has published is forwarded. */
static inline void dp_sweep_shares(struct dp_forwarder *f, struct dp_port *port)
{
    struct dp_shares *s = &port->shares;
    uint64_t taken[SB_RINGS_IN];
    if (!dp_note_shares(f, port, taken))
        return;
    bool enters = rb_load_acquire(&port->up->pool_bytes); /* else it has entered nothing */
    struct dp_pool *pool = enters ? dp_open_pool(port) : NULL;
    const struct sb_pool *table = pool ? dp_map_pool(f, pool) : NULL;
    uint32_t ended = 0;
    rb_fence_seq(); /* with the receiver's entry of what it found in a mailbox or a ring, and its second look there */
    for (uint32_t i = 0; i < s->count; i++) {
        struct dp_share *one = &s->list[i];
        if (one->until != SB_NOWHERE || dp_is_there(port, one, taken) ||
            (enters && (!table || dp_is_entered(table, one))) ||
            dp_leaves_undone(port, one))
            continue;
        one->until = SB_NOWHERE - 1;
        ended++;
    }
    s->look = enters && !table; /* it is tried again */
    if (pool && pool->wrong)
        dp_quarantine(f, port);
    uint64_t head = rb_load_acquire(&port->up->outgoing[SB_DATA].head); /* after the entries were seen cleared */
    for (uint32_t i = 0; ended && i < s->count; i++)
        if (s->list[i].until == SB_NOWHERE - 1)
            s->list[i].until = head;
}

/* After that: those for which nothing can be on its way any more. */
static inline void dp_drop_ended(struct dp_forwarder *f, struct dp_port *port)
{
    for (uint32_t i = port->shares.count; i--;) {
        uint64_t until = port->shares.list[i].until;
        if (until != SB_NOWHERE && (port->corrupt || until <= port->out[SB_DATA].released))
            dp_drop_share(f, port, i);
    }
}
