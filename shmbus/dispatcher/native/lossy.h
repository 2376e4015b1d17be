/* Lossy: who would rather lose than delay its senders keeps none of them from its pool. Of what lies there it has a
 * quarter untaken at the most, of the bytes and of the blocks; what comes beyond that is lost there at once. One
 * payload it may always have.
 *
 * Offers: dp_has_its_quarter. */
#pragma once

#include "shmbus/dispatcher/native/mailbox.h"

struct dp_untaken { /* of one pool */
    uint64_t bytes, blocks;
    uint64_t seen[SB_BLOCKS / 64]; /* a bit each: a block may be there for several records */
};

/* False: it was there already. */
static inline bool dp_count_untaken(struct dp_untaken *u, uint32_t index, uint64_t bytes)
{
    uint64_t bit = 1ull << (index % 64);
    if (u->seen[index / 64] & bit)
        return false;
    u->seen[index / 64] |= bit;
    u->bytes += bytes;
    u->blocks++;
    return true;
}

/* What a receiver has not taken of its rings for events, or what waits in a backlog. */
static inline void dp_find_untaken(const struct dp_port *port, const struct dp_pool *pool, struct dp_untaken *u)
{
    uint64_t taken[SB_RINGS_IN] = {0};
    for (int r = 0; port->up && r < SB_RINGS_IN; r++)
        taken[r] = dp_taken_of(port, r);
    for (uint32_t i = 0; i < port->shares.count; i++) {
        const struct dp_share *s = &port->shares.list[i];
        uint64_t ring = (s->share & 7) - 1;
        if (s->pool == pool && (ring == SB_DATA || ring == SB_URGENT_EVENTS) && !s->revoked &&
            (s->share & ~7ull) >= taken[ring])
            dp_count_untaken(u, s->index, pool->blocks[s->index].length);
    }
}

/* One that is lossy: has it its part of that pool, without this block? */
static inline bool dp_has_its_quarter(struct dp_forwarder *f, struct dp_port *target, const struct sb_block *b)
{
    struct dp_untaken untaken = {0};
    const struct dp_pool *pool = dp_pool_of(f, b->pool_slot, b->pool_generation);
    if (!pool || dp_is_mailbox(target)) /* which has a rule of its own */
        return false;
    dp_find_untaken(target, pool, &untaken);
    if (dp_is_backlog(target) && target->alone && dp_receiving(f, target))
        dp_find_untaken(dp_receiving(f, target), pool, &untaken);
    return untaken.blocks && dp_count_untaken(&untaken, b->index, b->length) &&
           (untaken.bytes > dp_pool_most(f, pool) / 4 || untaken.blocks > SB_BLOCKS / 4);
}
