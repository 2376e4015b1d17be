/* Pools: memory of an endpoint's for payloads that are too large for rings. A block of it is sent with one record, its
 * use, and each copy of that record is a share of the block: one that a receiver has or is to have (share.h), or a
 * value that is kept. Once the record is consumed and no share is left, DOWN.returned of its owner says so: the block
 * is free.
 *
 * Uses and shares are counted here alone. They follow from what stands in shared memory, so a successor counts anew
 * (recount.h).
 *
 * A pool may outlive its endpoint: an orphan, whose name is removed when its last share ends. Until then only what has
 * shares counts against `pool_total_bytes`. The memory of the rest goes, by the control plane, once the endpoint looks
 * at it no more: it says so when it closes, by `bytes` of the block (ep_vacate_pool), and has given back what was free.
 *
 * Offers: dp_open_pool, dp_map_pool, dp_pool_of; dp_check_block; dp_hold_block, dp_drop_block; dp_records_consumed;
 *         dp_leave_pool, dp_add_orphan, dp_end_orphan, dp_close_pools; dp_read_block. */
#pragma once

#include "shmbus/dispatcher/native/port.h"
#include "shmbus/dispatcher/native/segment.h"

#include <stdio.h>

#define DP_PAGE 4096u               /* bytes: blocks begin at multiples of it, whatever the system's pages are */
#define DP_WAITS_AGAIN_NS 1000000000u /* who has not waited for its pool for so long, and some, begins to wait anew */
#define DP_POOL_AGAIN_NS 100000000u /* one that could not be opened is tried again after so long */

static inline void dp_pool_name(const struct dp_forwarder *f, uint32_t slot, uint32_t generation, char name[160])
{
    snprintf(name, 160, "%s:pool:%u:%u", f->prefix, slot, generation);
}

/* Of a port. NULL: it says that it has none, or there is no memory. */
static inline struct dp_pool *dp_open_pool(struct dp_port *port)
{
    uint64_t bytes = port->pool ? 0 : rb_load_acquire(&port->up->pool_bytes);
    if (bytes > SB_POOL_DATA && (port->pool = calloc(1, sizeof *port->pool)))
        *port->pool = (struct dp_pool){.slot = port->slot, .generation = port->generation, .bytes = bytes};
    return port->pool;
}

/* Its tables. NULL: they cannot be read, now or at all. */
static inline const struct sb_pool *dp_map_pool(struct dp_forwarder *f, struct dp_pool *pool)
{
    char name[160];
    struct dp_extent extent = {0};
    if (pool->head || f->now < pool->again_ns)
        return pool->head;
    dp_pool_name(f, pool->slot, pool->generation, name);
    const struct sb_pool *head = dp_map_head(name, SB_POOL_DATA, &extent);
    if (pool->orphan) {
        pool->bytes = extent.size;
        pool->pages = extent.reserved / DP_PAGE;
    }
    if (head && extent.size >= pool->bytes && head->prefix.kind == SB_SEGMENT_POOL && head->slot == pool->slot &&
        head->generation == pool->generation)
        return pool->head = head;
    pool->wrong = head != NULL;
    if (head)
        dp_unmap_head(head, SB_POOL_DATA);
    pool->unfinished = extent.known;
    pool->again_ns = f->now + DP_POOL_AGAIN_NS;
    return NULL;
}

/* NULL: there is none. */
static inline struct dp_pool *dp_pool_of(struct dp_forwarder *f, uint32_t slot, uint32_t generation)
{
    struct dp_pool *pool = slot < f->slots ? f->ports[slot].pool : NULL;
    if (pool && pool->generation == generation)
        return pool;
    for (pool = f->orphans; pool && (pool->slot != slot || pool->generation != generation);)
        pool = pool->next;
    return pool;
}

static inline bool dp_on_its_way(const struct dp_pool *pool, uint32_t index)
{
    return pool->on_its_way[index / 64] >> (index % 64) & 1;
}

/* Others may have so many pages more. */
static inline void dp_give_back(struct dp_forwarder *f, uint64_t pages)
{
    f->pools_pages -= pages;
    f->pools_starve |= pages > 0;
    rb_store(&f->bus->pools_granted, f->pools_pages * DP_PAGE);
}

/* The pages of a block: the first of them, and how many. */
static inline uint64_t dp_first_page(const struct dp_block *b) { return (b->offset - SB_POOL_DATA) / DP_PAGE; }
static inline uint64_t dp_pages_of(const struct dp_block *b) { return (b->length + DP_PAGE - 1) / DP_PAGE; }
static inline uint64_t dp_pool_pages(const struct dp_pool *pool) { return (pool->bytes - SB_POOL_DATA) / DP_PAGE; }

/* Bytes: of these what waits to be looked at has a part. */
static inline uint64_t dp_pool_most(const struct dp_forwarder *f, const struct dp_pool *pool)
{
    return sb_pool_most(pool->bytes, f->bus->pool_total_bytes);
}

/* These blocks of a pool, by where they lie: how many. */
static inline uint32_t dp_sort_blocks(const struct dp_pool *pool, const uint8_t these[SB_BLOCKS],
                                      uint16_t order[SB_BLOCKS])
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < SB_BLOCKS; i++) {
        uint32_t k = these[i] ? count++ : 0;
        for (; k && pool->blocks[order[k - 1]].offset > pool->blocks[i].offset; k--)
            order[k] = order[k - 1];
        if (these[i])
            order[k] = (uint16_t)i;
    }
    return count;
}

/* Nobody has anything there, page by page: the memory goes, which takes long where that is much. */
static inline void dp_free_pages(struct dp_forwarder *f, const struct dp_pool *pool, uint64_t from, uint64_t to)
{
    if (from < to)
        dp_notify(&f->orders, &(struct dp_notice){.kind = DP_UNUSED_PAGES,
                                                  .slot = pool->slot,
                                                  .generation = pool->generation,
                                                  .from = SB_POOL_DATA + from * DP_PAGE,
                                                  .bytes = (to - from) * DP_PAGE});
}

/* Of these pages of an orphan those that nobody holds. Others may have all that nobody holds of it. Nothing, where it
 * is not known where that lies: after an adoption. */
static inline void dp_trim_orphan(struct dp_forwarder *f, struct dp_pool *pool, uint64_t from, uint64_t to)
{
    uint8_t held[SB_BLOCKS];
    uint16_t order[SB_BLOCKS];
    uint64_t pages = 0;
    for (uint32_t i = 0; i < SB_BLOCKS; i++) {
        held[i] = pool->blocks[i].shares != 0;
        if (held[i] && !pool->blocks[i].length)
            return;
        pages += held[i] ? dp_pages_of(&pool->blocks[i]) : 0;
    }
    if (pages < pool->pages) {
        dp_give_back(f, pool->pages - pages);
        pool->pages = pages;
    }
    uint32_t count = dp_sort_blocks(pool, held, order);
    for (uint32_t k = 0; k < count && from < to; k++) {
        const struct dp_block *block = &pool->blocks[order[k]];
        uint64_t first = dp_first_page(block), end = first + dp_pages_of(block);
        dp_free_pages(f, pool, from, first < to ? first : to);
        from = end > from ? end : from;
    }
    dp_free_pages(f, pool, from, to);
}

/* A block of an orphan is over, and others are not. */
static inline void dp_trim_block(struct dp_forwarder *f, struct dp_pool *pool, uint32_t index)
{
    const struct dp_block *block = &pool->blocks[index];
    bool unseen = pool->dead || (pool->head && !rb_load(&pool->head->blocks[index].bytes));
    uint64_t first = block->length ? dp_first_page(block) : 0;
    dp_trim_orphan(f, pool, first, unseen ? first + dp_pages_of(block) : first);
}

/* The name of an orphan goes, which takes long where it is large. */
static inline void dp_end_orphan(struct dp_forwarder *f, struct dp_pool *pool)
{
    struct dp_pool **at = &f->orphans;
    while (*at != pool)
        at = &(*at)->next;
    *at = pool->next;
    dp_give_back(f, pool->pages);
    rb_store(&f->bus->pools_left, rb_load(&f->bus->pools_left) - 1);
    dp_notify(&f->orders,
              &(struct dp_notice){.kind = DP_UNUSED_POOL, .slot = pool->slot, .generation = pool->generation});
    if (pool->head)
        dp_unmap_head(pool->head, SB_POOL_DATA);
    free(pool);
}

/* Is this block over? Then its owner may use it again, if that is still there. */
static inline void dp_look_at_block(struct dp_forwarder *f, struct dp_pool *pool, uint32_t index)
{
    const struct dp_block *block = &pool->blocks[index];
    if (block->shares || dp_on_its_way(pool, index))
        return;
    if (pool->orphan) {
        if (pool->shares)
            dp_trim_block(f, pool, index);
        else
            dp_end_orphan(f, pool);
        return;
    }
    struct dp_port *owner = &f->ports[pool->slot];
    RB_FAIL("pool.returning");
    rb_store_release(&owner->down->returned[index], block->use); /* after all have looked: they said so with release */
    RB_FAIL("pool.returned");
    dp_note_pool(f, owner);
}

/* One share more of what a record of ours names. NULL: there is no such pool any more. */
static inline struct dp_pool *dp_hold_block(struct dp_forwarder *f, const struct sb_block *b)
{
    struct dp_pool *pool = dp_pool_of(f, b->pool_slot, b->pool_generation);
    if (pool) {
        pool->blocks[b->index].shares++;
        pool->shares++;
    }
    return pool;
}

/* And one less. The pool may be gone after that. */
static inline void dp_drop_block(struct dp_forwarder *f, struct dp_pool *pool, uint32_t index)
{
    pool->blocks[index].shares--;
    pool->shares--;
    dp_look_at_block(f, pool, index);
}

/* Whole, and within the pool, as far as its size is known. */
static inline bool dp_block_sound(const struct dp_pool *pool, const struct sb_block *b)
{
    uint64_t bytes = pool->bytes ? pool->bytes : INT64_MAX;
    return b->index < SB_BLOCKS && b->length && b->offset >= SB_POOL_DATA && b->offset % DP_PAGE == 0 &&
           b->length <= bytes && b->offset <= bytes - b->length;
}

/* Its use is this one, of this memory? */
static inline bool dp_is_block(const struct dp_block *block, const struct sb_block *b)
{
    return block->use == b->use && (!block->length || (block->offset == b->offset && block->length == b->length));
}

static inline void dp_note_block(struct dp_block *block, const struct sb_block *b)
{
    block->use = b->use;
    block->offset = b->offset;
    block->length = b->length;
}

/* A record with this block stands at `position` of its owner's ring, where it may be looked at more than once. False:
 * no endpoint writes that: one has no blocks beyond the pages that it may have. */
static inline bool dp_check_block(const struct dp_port *owner, const struct sb_block *b, enum sb_ring_index ring,
                                  uint64_t position)
{
    struct dp_pool *pool = owner->pool;
    if (!pool || b->pool_slot != pool->slot || b->pool_generation != pool->generation ||
        b->use != sb_use(position, ring) || !dp_block_sound(pool, b) ||
        b->offset + b->length > SB_POOL_DATA + owner->pool_pages * DP_PAGE)
        return false;
    struct dp_block *block = &pool->blocks[b->index];
    if (dp_on_its_way(pool, b->index))
        return dp_is_block(block, b);
    if (block->shares)
        return false;
    dp_note_block(block, b);
    pool->on_its_way[b->index / 64] |= 1ull << (b->index % 64);
    return true;
}

/* The records of this ring up to there are. */
static inline void dp_records_consumed(struct dp_forwarder *f, struct dp_pool *pool, enum sb_ring_index ring,
                                       uint64_t to)
{
    for (uint32_t w = 0; w < SB_BLOCKS / 64; w++)
        for (uint64_t bits = pool->on_its_way[w]; bits; bits &= bits - 1) {
            uint32_t index = w * 64 + (uint32_t)__builtin_ctzll(bits);
            uint64_t use = pool->blocks[index].use;
            if ((use & 7) != (uint64_t)ring + 1 || use >= to)
                continue;
            pool->on_its_way[w] &= ~(bits & -bits);
            dp_look_at_block(f, pool, index);
        }
}

static inline void dp_add_orphan(struct dp_forwarder *f, struct dp_pool *pool)
{
    pool->orphan = true;
    pool->next = f->orphans;
    f->orphans = pool;
    rb_add(&f->bus->pools_left, 1);
}

/* Its endpoint goes, of which nothing is on its way any more. */
static inline void dp_leave_pool(struct dp_forwarder *f, struct dp_port *port)
{
    struct dp_pool *pool = dp_open_pool(port);
    port->pool = NULL;
    if (!pool) { /* it may have been about to make one, of which a name is left */
        dp_give_back(f, port->pool_pages);
        port->pool_pages = 0;
        dp_notify(&f->orders,
                  &(struct dp_notice){.kind = DP_UNUSED_POOL, .slot = port->slot, .generation = port->generation});
        return;
    }
    memset(pool->on_its_way, 0, sizeof pool->on_its_way); /* of one that was quarantined they never come */
    if (pool->shares)
        (void)dp_map_pool(f, pool); /* dp_trim_block */
    pool->pages = port->pool_pages;
    port->pool_pages = 0;
    pool->dead = port->reason == SB_REASON_KILLED || port->reason == SB_REASON_EXITED ||
                 port->reason == SB_REASON_DIED;
    dp_add_orphan(f, pool);
    if (pool->shares)
        dp_trim_orphan(f, pool, 0, pool->dead ? dp_pool_pages(pool) : 0);
    else
        dp_end_orphan(f, pool);
}

/* What is mapped; the segments stay. */
static inline void dp_close_pools(struct dp_forwarder *f)
{
    for (uint32_t slot = 0; slot < f->slots + 1; slot++)
        for (struct dp_pool *pool = slot < f->slots ? f->ports[slot].pool : f->orphans, *next; pool; pool = next) {
            next = slot < f->slots ? NULL : pool->next;
            if (pool->head)
                dp_unmap_head(pool->head, SB_POOL_DATA);
            free(pool);
        }
    for (uint32_t port = 0; port < DP_PORTS; port++)
        free(f->ports[port].shares.list);
    f->orphans = NULL;
}

/* The first bytes of a payload, how many there are, 0 where the block may have been used again. Not by a mapping, since
 * the file may have a hole or an end there. */
static inline uint32_t dp_read_block(struct dp_forwarder *f, const struct sb_block *b, uint64_t from, uint8_t *to,
                                     uint64_t most)
{
    char name[160];
    const struct dp_pool *pool = dp_pool_of(f, b->pool_slot, b->pool_generation);
    if (!pool || !dp_block_sound(pool, b) || pool->blocks[b->index].use != b->use ||
        !(pool->blocks[b->index].shares || dp_on_its_way(pool, b->index)))
        return 0;
    dp_pool_name(f, b->pool_slot, b->pool_generation, name);
    return dp_read_segment(name, b->offset + from, to, b->length - from < most ? b->length - from : most);
}
