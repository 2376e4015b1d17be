/* Pools at adoption: who has shares of which blocks follows from what stands in shared memory, and is counted anew,
 * after what the journal says is finished and before anything is forwarded.
 *
 * A block is in use while `use` of its owner is not what DOWN.returned says. Of such a block there is a share for each
 * record with it that stands in a ring towards an endpoint, in a backlog or in a mailbox, for each that is kept, for
 * each entry of a receiver's table, and for each record that gives it back and is not forwarded. The receivers go on
 * meanwhile; so of each its rings are read first, then its table, then what it gives back: what leaves one place is
 * found in the next. Each block that has none, and whose record is consumed, is returned.
 *
 * Where an endpoint that may live could not be adopted, or its table not be read, nobody knows what it has: blocks in
 * use stay so.
 *
 * Offers: dp_recount_pools; dp_recount_block. */
#pragma once

#include "shmbus/dispatcher/native/backlog.h"
#include "shmbus/dispatcher/native/departure.h"
#include "shmbus/dispatcher/native/growth.h"

#include <stdio.h>

/* Is it in use, as far as its owner's memory says? */
static inline bool dp_in_use(const struct dp_forwarder *f, const struct dp_pool *pool, uint32_t index)
{
    uint64_t use = pool->head ? rb_load_acquire(&pool->head->blocks[index].use) : 0;
    return use && (pool->orphan || use != rb_load(&f->ports[pool->slot].down->returned[index]));
}

/* What an endpoint's ring, or our own memory, says of a block: does it name a use that is not over? */
static inline bool dp_recount_block(struct dp_forwarder *f, const struct sb_block *b)
{
    const struct dp_pool *pool = dp_pool_of(f, b->pool_slot, b->pool_generation);
    return pool && dp_block_sound(pool, b) && (!pool->head || pool->blocks[b->index].use == b->use);
}

/* And where it lies. */
static inline void dp_recount_place(struct dp_forwarder *f, const struct sb_block *b)
{
    dp_note_block(&dp_pool_of(f, b->pool_slot, b->pool_generation)->blocks[b->index], b);
}

/* The records that stand in this ring from there on. */
static inline void dp_recount_ring(struct dp_forwarder *f, struct dp_port *port, enum sb_ring_index ring,
                                   uint64_t position)
{
    struct sb_record h;
    const uint8_t *record;
    for (; dp_own_record_in(f, port, ring, &position, &h, &record); position += RB_ALIGN8(h.length)) {
        struct sb_block block;
        if (!(h.flags & SB_POOLED) || !h.interests || h.length - sb_payload_offset(&h) != sizeof block)
            continue;
        block = sb_block_in(&h, record);
        if (!dp_recount_block(f, &block))
            continue;
        dp_recount_place(f, &block);
        dp_add_share(f, port, sb_share_of(position, ring), &block);
    }
}

/* What it has entered. Of a mailbox's only what was taken there: the rest stands in the mailbox. */
static inline void dp_recount_table(struct dp_forwarder *f, struct dp_port *port, const struct sb_pool *table)
{
    uint64_t used = rb_load_acquire(&table->shares_used);
    for (uint32_t i = 0; i < used && i < SB_SHARES; i++) {
        const struct sb_share *entry = &table->shares[i];
        uint64_t share, whom, block;
        int tries = 16; /* it may be cleared meanwhile, and entered anew */
        do {
            share = rb_load_acquire(&entry->share);
            whom = rb_load(&entry->pool);
            block = rb_load(&entry->block);
            rb_fence_acquire();
        } while (rb_load(&entry->share) != share && --tries);
        if (!share || dp_find_share(port, share))
            continue;
        if ((share & 7) == 0 || (share & 7) > 4 || !(whom >> 63) || !(block >> 63) || (uint16_t)block >= SB_BLOCKS) {
            dp_quarantine(f, port);
            continue;
        }
        const struct sb_block b = {.index = (uint16_t)block, .pool_slot = (uint16_t)sb_whom_slot(whom),
                                   .pool_generation = sb_whom_generation(whom)};
        struct dp_pool *pool = dp_pool_of(f, b.pool_slot, b.pool_generation);
        bool used = pool && (!pool->head || pool->blocks[b.index].use); /* else it is free: whoever names it never had
                                                                         * it */
        struct dp_share *s = used ? dp_add_share(f, port, share, &b) : NULL;
        if (s)
            s->place = (uint16_t)(i + 1);
    }
}

/* What it gives back, which is on its way to us. */
static inline void dp_recount_nacks(struct dp_forwarder *f, struct dp_port *port)
{
    struct rb_consumer *c = &port->out[SB_DATA];
    uint64_t position = c->next;
    struct rb_head8 head;
    const uint8_t *record;
    struct sb_record h;
    while (!port->corrupt && position < port->last[SB_DATA] &&
           rb_peek_at(c, &position, SB_HEADER, &head, &record) == RB_OK && dp_copy_header(&head, record, &h)) {
        struct sb_block block;
        bool pooled = h.kind == SB_NACK && h.flags & SB_POOLED && h.length - sb_payload_offset(&h) == sizeof block;
        position += RB_ALIGN8(h.length);
        if (!pooled)
            continue;
        block = sb_block_in(&h, record);
        struct dp_share *s = dp_recount_block(f, &block) ? dp_add_share(f, port, 0, &block) : NULL;
        if (s)
            s->until = position;
    }
}

/* What stands in it, taken or not: that shows at the first look. What lies in a pool that has gone, goes, too. */
static inline void dp_recount_mailbox(struct dp_forwarder *f, struct dp_port *port)
{
    const struct dp_mailbox *box = port->mailbox;
    struct sb_block block;
    for (uint32_t i = 0; i < box->depth; i++) {
        if (!box->mails[i].cells || !dp_block_of_mail(box, i, &block))
            continue;
        bool there = dp_recount_block(f, &block);
        if (there)
            dp_recount_place(f, &block);
        if (!there || !dp_share_mail(f, port, i, rb_load(&box->entries[i].number), &block))
            dp_drop_mail(f, port, i);
    }
}

/* Of the values that are kept, likewise. */
static inline void dp_recount_values(struct dp_forwarder *f)
{
    struct dp_values *s = &f->values;
    for (int ages = 0; ages < 2; ages++)
        for (struct dp_value *v = ages ? s->last.first : s->replaced.first, *behind; v; v = behind) {
            struct sb_block block;
            behind = v->behind;
            if (!dp_block_of_value(s, v, &block))
                continue;
            if (!dp_recount_block(f, &block) || !dp_keep_block(f, v, &block))
                dp_evict_value(f, v);
            else
                dp_recount_place(f, &block);
        }
    dp_say_values(f);
}

static inline void dp_recount_port(struct dp_forwarder *f, struct dp_port *port)
{
    for (uint32_t r = 0; r < SB_RINGS_IN; r++) {
        enum sb_ring_index ring = (enum sb_ring_index)r;
        uint64_t reclaim = rb_load(&port->down->incoming[ring].reclaim);
        (void)rb_refresh_tail(&port->in[r]);
        bool ours = ring != SB_REPLIES && reclaim != SB_NOWHERE; /* else from its tail: it may close, see
                                                                  * dp_leaves_undone */
        dp_recount_ring(f, port, ring, ours ? reclaim : port->in[r].tail_seen);
    }
    struct dp_pool *pool = dp_open_pool(port);
    const struct sb_pool *table = pool ? dp_map_pool(f, pool) : NULL;
    if (table)
        dp_recount_table(f, port, table);
    dp_recount_nacks(f, port);
    RB_FAIL("recover.shares");
}

/* A pool in /dev/shm, by the end of its name: that of an endpoint which has gone? */
static inline void dp_find_orphan(void *forwarder, const char *name)
{
    struct dp_forwarder *f = forwarder;
    unsigned slot, generation;
    int length = 0;
    if (sscanf(name, "%u:%u%n", &slot, &generation, &length) != 2 || name[length] || slot >= f->slots)
        return;
    const struct sb_row *row = &f->rows[slot]; /* before an endpoint makes its pool it has a row */
    if (rb_load(&row->state) != SB_ROW_FREE && rb_load(&row->generation) == generation)
        return;
    struct dp_pool *pool = calloc(1, sizeof *pool);
    if (!pool)
        return;
    *pool = (struct dp_pool){.slot = slot, .generation = generation};
    dp_add_orphan(f, pool);
    (void)dp_map_pool(f, pool);
    f->pools_pages += pool->pages;
}

/* Which uses are not over? */
static inline void dp_read_uses(struct dp_forwarder *f, struct dp_pool *pool)
{
    for (uint32_t i = 0; i < SB_BLOCKS; i++)
        if (dp_in_use(f, pool, i)) {
            pool->blocks[i].use = rb_load(&pool->head->blocks[i].use);
            pool->blocks[i].shares = f->incomplete; /* one that is never dropped */
            pool->shares += f->incomplete;
        }
}

/* All shares are counted: which blocks are over? */
static inline void dp_judge_uses(struct dp_forwarder *f, struct dp_port *owner)
{
    struct dp_pool *pool = owner->pool;
    for (uint32_t i = 0; i < SB_BLOCKS; i++) {
        uint64_t use = pool->blocks[i].use, ring = (use & 7) - 1;
        if (!use)
            continue;
        if (ring >= SB_RINGS || (use & ~7ull) >= owner->out[ring].released) { /* its record comes, or is not there
                                                                               * yet */
            if (pool->blocks[i].shares)
                pool->on_its_way[i / 64] |= 1ull << (i % 64);
            else
                pool->blocks[i].use = 0;
        } else {
            dp_look_at_block(f, pool, i);
        }
    }
}

static inline void dp_recount_pools(struct dp_forwarder *f)
{
    char prefix[160];
    rb_store(&f->bus->pools_left, 0);
    for (uint32_t slot = 0; slot < f->high_slot; slot++) {
        struct dp_port *port = &f->ports[slot];
        if (port->state == SB_ROW_FREE || rb_load_acquire(&port->up->pool_bytes) <= SB_POOL_DATA ||
            (dp_open_pool(port) && dp_map_pool(f, port->pool)))
            continue;
        if (port->pool && port->pool->wrong) /* it has a second for what it looks at */
            dp_quarantine(f, port);
        else
            f->incomplete = true;
    }
    snprintf(prefix, sizeof prefix, "%s:pool:", f->prefix);
    dp_list_segments(prefix, dp_find_orphan, f);
    for (struct dp_pool *pool = f->orphans; pool; pool = pool->next)
        dp_read_uses(f, pool);
    for (uint32_t slot = 0; slot < f->high_slot; slot++)
        if (f->ports[slot].pool)
            dp_read_uses(f, f->ports[slot].pool);
    for (uint32_t slot = SB_FIRST_MAILBOX; slot < DP_PORTS; slot++)
        if (f->ports[slot].state != SB_ROW_FREE)
            dp_recount_mailbox(f, &f->ports[slot]);
    dp_recount_values(f);
    for (uint32_t slot = 0; slot < f->high_slot; slot++)
        if (f->ports[slot].state != SB_ROW_FREE)
            dp_recount_port(f, &f->ports[slot]);
    uint64_t left = f->backlogs_open;
    for (struct dp_port *port; (port = dp_next_backlog(f, &left));)
        dp_recount_ring(f, port, SB_DATA, rb_load(&port->down->incoming[SB_DATA].reclaim));
    RB_FAIL("recover.counted");
    for (uint32_t slot = 0; slot < f->high_slot; slot++)
        if (f->ports[slot].pool)
            dp_judge_uses(f, &f->ports[slot]);
    for (struct dp_pool *pool = f->orphans, *next; pool; pool = next) {
        next = pool->next;
        if (pool->shares)
            dp_trim_orphan(f, pool, 0, 0);
        else if (pool->head || pool->unfinished)
            dp_end_orphan(f, pool);
    }
    rb_store(&f->bus->pools_granted, f->pools_pages * DP_PAGE);
}
