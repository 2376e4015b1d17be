/* Blocks: pieces of the endpoint's own pool, of whole pages, one for each payload that is too large for a ring.
 *
 * The first gap that is large enough is taken, so that the same pages are used again and again: they are reserved,
 * mapped and warm. A block is free once nobody fills it or has it lent, and the dispatcher says that the record that
 * was sent with it is over (DOWN.returned). That is looked at when the next block is asked for: the dispatcher rings
 * only while somebody waits for one (UP.pool_need).
 *
 *   ep_take_block         one of so many bytes, which the caller then holds
 *   ep_block_memory       where it lies
 *   ep_describe_block     what its record says of it
 *   ep_use_block          the record is about to be published at this position
 *   ep_let_block          the caller holds it no more: it is free, or was sent; called without the lock
 *   ep_block_to_be_had    could one be taken, or be made room for?
 *   ep_held_bytes         of those that are filled, lent to the user, or viewed by it after they were sent
 *   ep_blocks_most        how many there are, if no more can be; else 0
 *   ep_largest_gap        bytes of the longest payload that there is space for now
 *   ep_blocks_returned    has the dispatcher returned one that is not taken note of? Needs no lock
 *   ep_give_back_gaps     it closes: what no block takes is given back, whoever holds the others
 *   ep_tend_pool          give back what has not been used, or granted in vain, for some time: when to look again
 */
#pragma once

#include "shmbus/endpoint/native/pool.h"

#define EP_IDLE_NS 5000000000u /* so long after its last use the end of the pool is given back, */
#define EP_SHORT_NS 500000000u /* or this, after a question that was granted in part, or where others lack it */

enum ep_block_status {
    EP_BLOCK_TAKEN = 0,
    EP_BLOCK_FULL = 1,  /* wait: for blocks, for more to be granted, or for another thread that reserves more */
    EP_BLOCK_GROW = 2,  /* call ep_reserve_pages, then come again */
};

static inline bool ep_block_over(const struct ep_endpoint *e, uint32_t i)
{
    const struct ep_pool *pool = e->pool;
    uint64_t use = rb_load(&pool->memory->blocks[i].use);
    return !rb_load_acquire(&pool->blocks[i].held) && (!use || use == rb_load_acquire(&e->down->returned[i]));
}

/* Those that are over are free. */
static inline void ep_reap_blocks(struct ep_endpoint *e)
{
    struct ep_pool *pool = e->pool;
    uint32_t left = 0;
    uint64_t freed = 0;
    for (uint32_t k = 0; k < pool->count; k++) {
        uint32_t i = pool->order[k];
        if (ep_block_over(e, i)) {
            freed += pool->blocks[i].pages;
            pool->blocks[i].pages = 0;
            rb_store(&pool->memory->blocks[i].bytes, 0);
        } else {
            pool->order[left++] = (uint16_t)i;
        }
    }
    if (!freed)
        return;
    pool->count = left;
    rb_store(&e->up->pool_in_use, rb_load(&e->up->pool_in_use) - freed * EP_PAGE);
}

/* The first gap of so many pages: before which block in the order, and where. False: there is none. */
static inline bool ep_find_gap(const struct ep_pool *pool, uint64_t pages, uint32_t *before, uint64_t *first)
{
    uint64_t at = 0;
    uint32_t k = 0;
    for (; k < pool->count; k++) {
        const struct ep_block *block = &pool->blocks[pool->order[k]];
        if (block->first - at >= pages)
            break;
        at = block->first + block->pages;
    }
    *before = k;
    *first = at;
    return pool->count < SB_BLOCKS && pages <= pool->pages && at <= pool->pages - pages;
}

static inline enum ep_block_status ep_take_block(struct ep_endpoint *e, uint64_t bytes, uint32_t *index)
{
    struct ep_pool *pool = e->pool;
    uint64_t pages = ep_pool_pages(bytes), first;
    uint32_t before, i = 0;
    ep_reap_blocks(e);
    if (!ep_find_gap(pool, pages, &before, &first))
        return EP_BLOCK_FULL;
    if (first + pages > pool->reserved) {
        if (pool->grows_to || !ep_may_reserve(e, first + pages))
            return EP_BLOCK_FULL;
        pool->grows_to = first + pages;
        return EP_BLOCK_GROW;
    }
    while (pool->blocks[i].pages)
        i++;
    if (i >= rb_load(&pool->indices))
        rb_store(&pool->indices, i + 1);
    memmove(pool->order + before + 1, pool->order + before, (pool->count++ - before) * sizeof *pool->order);
    pool->order[before] = (uint16_t)i;
    pool->blocks[i].first = first;
    pool->blocks[i].pages = pages;
    rb_store(&pool->blocks[i].held, 1);
    rb_store(&pool->memory->blocks[i].use, 0);
    rb_store(&pool->memory->blocks[i].bytes, pages * EP_PAGE);
    rb_store(&e->up->pool_in_use, rb_load(&e->up->pool_in_use) + pages * EP_PAGE);
    pool->used_ns = rb_coarse_now();
    *index = i;
    return EP_BLOCK_TAKEN;
}

static inline uint8_t *ep_block_memory(const struct ep_endpoint *e, uint32_t index)
{
    return ep_pool_data(e->pool) + e->pool->blocks[index].first * EP_PAGE;
}

/* All but `use`. `at`: where in the block the payload begins. */
static inline void ep_describe_block(const struct ep_endpoint *e, uint32_t index, uint64_t at, uint64_t length,
                                     struct sb_block *block)
{
    *block = (struct sb_block){
        .offset = SB_POOL_DATA + e->pool->blocks[index].first * EP_PAGE + at, .length = length,
        .pool_generation = e->generation, .pool_slot = (uint16_t)e->slot, .index = (uint16_t)index,
    };
}

/* Whoever sees the record, by the head that is stored (release) after it, sees this, too. */
static inline void ep_use_block(struct ep_endpoint *e, struct sb_block *block, uint64_t position, uint32_t ring)
{
    block->use = sb_use(position, ring);
    RB_FAIL("pool.use");
    rb_store(&e->pool->memory->blocks[block->index].use, block->use);
    RB_FAIL("pool.used");
}

/* From any thread, also by the garbage collector while this one has the lock. False: so the watcher is to be woken,
 * which tells who waits for a block (ep_tend_pool). */
static inline bool ep_let_block(struct ep_endpoint *e, uint32_t index)
{
    rb_store_release(&e->pool->blocks[index].held, 0); /* ep_block_over */
    if (e->pool->vacated)
        return true;
    if (pthread_mutex_trylock(&e->lock) != 0) {
        rb_store_seq(&e->pool->let, 1);
        return false;
    }
    if (rb_load(&e->up->pool_need))
        ep_wake(e, SB_EVENT_SPACE);
    ep_unlock(e);
    return true;
}

static inline bool ep_block_to_be_had(struct ep_endpoint *e, uint64_t pages)
{
    uint32_t before;
    uint64_t first;
    ep_reap_blocks(e);
    if (!ep_find_gap(e->pool, pages, &before, &first))
        return false;
    return first + pages <= e->pool->reserved || (!e->pool->grows_to && ep_may_reserve(e, first + pages));
}

static inline uint64_t ep_held_bytes(const struct ep_endpoint *e)
{
    const struct ep_pool *pool = e->pool;
    uint64_t pages = 0;
    for (uint32_t k = 0; pool && k < pool->count; k++) {
        const struct ep_block *block = &pool->blocks[pool->order[k]];
        pages += rb_load(&block->held) ? block->pages : 0;
    }
    return pages * EP_PAGE;
}

static inline uint32_t ep_blocks_most(const struct ep_endpoint *e)
{
    return e->pool && e->pool->count == SB_BLOCKS ? SB_BLOCKS : 0;
}

/* Up to what the pool may grow to. */
static inline uint64_t ep_largest_gap(const struct ep_endpoint *e)
{
    const struct ep_pool *pool = e->pool;
    if (!pool || pool->count == SB_BLOCKS)
        return 0;
    uint64_t asked = sb_pool_pages(rb_load(&e->up->pool_asked));
    uint64_t granted = sb_pool_pages(rb_load_acquire(&e->down->pool_granted));
    uint64_t end = asked > granted ? granted : pool->pages, at = 0, largest = 0;
    for (uint32_t k = 0; k <= pool->count; k++) {
        const struct ep_block *block = k < pool->count ? &pool->blocks[pool->order[k]] : NULL;
        uint64_t next = block ? block->first : end;
        if (next > at && next - at > largest)
            largest = next - at;
        at = block ? next + block->pages : at;
    }
    return largest * EP_PAGE;
}

static inline bool ep_blocks_returned(const struct ep_endpoint *e)
{
    uint64_t count = rb_load(&e->pool->indices);
    for (uint32_t i = 0; i < count; i++) {
        const struct sb_use *block = &e->pool->memory->blocks[i];
        uint64_t use = rb_load(&block->use);
        if (use && use == rb_load_seq(&e->down->returned[i]) && rb_load(&block->bytes) &&
            !rb_load(&e->pool->blocks[i].held)) /* ep_block_over will agree, so that whoever waits does not spin */
            return true;
    }
    return false;
}

static inline void ep_give_back_gaps(struct ep_endpoint *e)
{
    struct ep_pool *pool = e->pool;
    uint64_t at = 0;
    if (!pool || pool->vacated || pool->fd < 0 || pool->grows_to)
        return;
    ep_reap_blocks(e);
    for (uint32_t k = 0; k <= pool->count; k++) {
        const struct ep_block *block = k < pool->count ? &pool->blocks[pool->order[k]] : NULL;
        uint64_t end = block ? block->first : pool->reserved;
        if (end > at)
            (void)fallocate(pool->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)(SB_POOL_DATA + at * EP_PAGE),
                            (off_t)((end - at) * EP_PAGE));
        at = block ? end + block->pages : end;
    }
}

/* By the watcher. Whoever waits for more than was granted asks anew once that is answered: so, of pools that have a
 * part each, the first to give its part back has all it wants as soon as the others do so, too. */
static inline uint64_t ep_tend_pool(struct ep_endpoint *e, uint64_t now)
{
    struct ep_pool *pool = e->pool;
    if (!pool || pool->vacated)
        return SB_NOWHERE;
    ep_reap_blocks(e);
    if (rb_load_seq(&pool->let)) {
        rb_store_seq(&pool->let, 0);
        if (rb_load(&e->up->pool_need))
            ep_wake(e, SB_EVENT_SPACE);
    }
    uint64_t asked = sb_pool_pages(rb_load(&e->up->pool_asked));
    uint64_t granted = rb_load_acquire(&e->down->pool_granted), end = 0;
    if (pool->count) {
        const struct ep_block *last = &pool->blocks[pool->order[pool->count - 1]];
        end = last->first + last->pages;
    }
    if (!pool->reserved && !asked)
        return SB_NOWHERE;
    bool in_part = !ep_grant_is_open(e) && sb_pool_pages(granted) < asked;
    uint64_t due = pool->used_ns + (in_part || rb_load(&e->bus->pools_short) ? EP_SHORT_NS : EP_IDLE_NS);
    if (now < due) /* others may lack it by then */
        return due < now + EP_SHORT_NS ? due : now + EP_SHORT_NS;
    if (pool->grows_to)
        return now + EP_SHORT_NS;
    if (ep_give_back_pages(e, end))
        return now;
    if (pool->reserved <= end)
        ep_want_no_more(e, end);
    if (rb_load(&e->up->pool_need))
        return now + EP_SHORT_NS;
    return pool->count ? now + EP_SHORT_NS : SB_NOWHERE;
}
