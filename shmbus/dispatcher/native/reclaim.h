/* Reclaiming: what only lies in other pools does not keep a sender from the memory that all pools have together.
 *
 * Who has been first in turn for `block_timeout` (growth.h) may have what others gain nothing by: of events what
 * receivers have not taken for so long (revoke.h), and values that are kept. It is taken from them only where that is
 * enough for what the sender needs, and no more than that, of pools that give most first.
 *
 * A pool gives back what lies behind its last block, so of one whose endpoint is there only the last blocks count; and
 * none, where the endpoint fills or lends some, of which we do not know where they lie. Of an orphan each block
 * counts. What comes back so takes its owner some time, so after that the sender waits anew.
 *
 * Offers: dp_look_at_pools. */
#pragma once

#include "shmbus/dispatcher/native/growth.h"
#include "shmbus/dispatcher/native/revoke.h"

#define DP_GIVEN_BACK_NS 3000000000u /* as long as its owner may take until it gives back what has returned */

/* The next one of all pools, from NULL on. NULL: there is none. */
static inline struct dp_pool *dp_pool_after(const struct dp_forwarder *f, const struct dp_pool *pool)
{
    if (pool && pool->orphan)
        return pool->next;
    for (uint32_t slot = pool ? pool->slot + 1 : 0; slot < f->high_slot; slot++)
        if (f->ports[slot].pool)
            return f->ports[slot].pool;
    return f->orphans;
}

/* What this one has, in its rings or in a backlog, and has not taken for too long. */
static inline void dp_count_going(struct dp_forwarder *f, const struct dp_port *source, struct dp_port *port)
{
    struct dp_port *to = port->shares.count ? dp_receiving(f, port) : NULL;
    struct sb_record h;
    if (!to || (to->state != SB_ROW_LIVE && to->state != SB_ROW_LEAVING))
        return;
    dp_sweep_shares(f, to);
    uint64_t until = dp_pool_waits_until(f, source, port, to, NULL);
    if (until == SB_NOWHERE)
        return;
    if (!to->slow && until > f->now) {
        f->next_deadline = until < f->next_deadline ? until : f->next_deadline;
        return;
    }
    for (uint32_t i = 0; i < port->shares.count; i++) {
        const struct dp_share *s = &port->shares.list[i];
        if (dp_revocable(port, s, NULL, &h))
            s->pool->blocks[s->index].going++;
    }
}

static inline void dp_find_going(struct dp_forwarder *f, const struct dp_port *source)
{
    uint64_t left = f->catching_up;
    for (struct dp_pool *pool = NULL; (pool = dp_pool_after(f, pool));)
        for (uint32_t i = 0; i < SB_BLOCKS; i++)
            pool->blocks[i].going = 0;
    for (int newest = 0; newest < 2; newest++)
        for (const struct dp_value *v = newest ? f->values.last.first : f->values.replaced.first; v; v = v->behind)
            if (v->pool)
                v->pool->blocks[v->block].going++;
    for (uint32_t slot = 0; slot < f->high_slot; slot++)
        dp_count_going(f, source, &f->ports[slot]);
    for (struct dp_port *port; (port = dp_next_backlog(f, &left));)
        dp_count_going(f, source, port);
}

/* Has it any share that stays? */
static inline bool dp_block_goes(const struct dp_pool *pool, uint32_t i)
{
    return pool->blocks[i].going && pool->blocks[i].going == pool->blocks[i].shares && !dp_on_its_way(pool, i);
}

/* Pages that this pool gives if blocks of it go, until there are so many. `ends`: these are marked. */
static inline uint64_t dp_pool_gives(const struct dp_forwarder *f, struct dp_pool *pool, uint64_t lacking, bool ends)
{
    uint8_t known[SB_BLOCKS];
    uint16_t order[SB_BLOCKS];
    uint64_t pages = 0, gained = 0, end = pool->orphan ? 0 : f->ports[pool->slot].pool_pages;
    for (uint32_t i = 0; i < SB_BLOCKS; i++) {
        known[i] = pool->blocks[i].shares || dp_on_its_way(pool, i);
        if (known[i] && !pool->blocks[i].length)
            return 0;
        pages += known[i] ? dp_pages_of(&pool->blocks[i]) : 0;
    }
    if (!pool->orphan && rb_load(&f->ports[pool->slot].up->pool_in_use) / DP_PAGE > pages)
        return 0;
    for (uint32_t k = dp_sort_blocks(pool, known, order); k-- && gained < lacking;) {
        struct dp_block *block = &pool->blocks[order[k]];
        const struct dp_block *before = k ? &pool->blocks[order[k - 1]] : NULL;
        if (!dp_block_goes(pool, order[k])) {
            if (pool->orphan)
                continue;
            break;
        }
        gained = pool->orphan ? gained + dp_pages_of(block)
                              : end - (before ? dp_first_page(before) + dp_pages_of(before) : 0);
        if (ends)
            block->going = DP_GOES;
    }
    return gained;
}

/* Mark what is to go. False: all that may is not enough. */
static inline bool dp_choose_going(const struct dp_forwarder *f, const struct dp_pool *own, uint64_t lacking)
{
    uint64_t all = 0;
    for (struct dp_pool *pool = NULL; (pool = dp_pool_after(f, pool));)
        all += pool->gives = pool == own ? 0 : dp_pool_gives(f, pool, lacking, false);
    while (all >= lacking && lacking) {
        struct dp_pool *most = NULL;
        for (struct dp_pool *pool = NULL; (pool = dp_pool_after(f, pool));)
            most = pool->gives && (!most || pool->gives > most->gives) ? pool : most;
        uint64_t gained = most ? dp_pool_gives(f, most, lacking, true) : lacking;
        all -= most ? most->gives : 0;
        if (most)
            most->gives = 0;
        if (gained >= lacking)
            return true;
        lacking -= gained;
    }
    return false;
}

static inline void dp_end_going(struct dp_forwarder *f)
{
    uint64_t left = f->catching_up;
    for (int newest = 0; newest < 2; newest++)
        for (struct dp_value *v = newest ? f->values.last.first : f->values.replaced.first, *behind; v; v = behind) {
            behind = v->behind;
            if (v->pool && v->pool->blocks[v->block].going == DP_GOES)
                dp_evict_value(f, v);
        }
    dp_say_values(f);
    for (uint32_t slot = 0; slot < f->high_slot; slot++)
        dp_revoke_from(f, &f->ports[slot], NULL, false);
    for (struct dp_port *port; (port = dp_next_backlog(f, &left));)
        dp_revoke_from(f, port, NULL, false);
}

/* It waits for more than all pools together have left. */
static inline void dp_reclaim(struct dp_forwarder *f, struct dp_port *source)
{
    uint64_t total = f->bus->pool_total_bytes / DP_PAGE, wanted = dp_wanted_pages(source);
    uint64_t had = source->pool_pages + (total > f->pools_pages ? total - f->pools_pages : 0);
    uint64_t since = source->pool_waits_since_ns > source->pool_reclaimed_ns ? source->pool_waits_since_ns
                                                                             : source->pool_reclaimed_ns;
    if (!source->pool_turn || !source->pool_again || wanted <= had || f->now - since < f->block_timeout_ns ||
        dp_next_in_turn(f, 0) != source)
        return;
    dp_find_going(f, source);
    if (!dp_choose_going(f, source->pool, wanted - had))
        return;
    dp_end_going(f);
    source->pool_reclaimed_ns = f->now + DP_GIVEN_BACK_NS;
}

/* Who waits for its pool now, or has since the last look? Senders that try again and again wait all the time. */
static inline void dp_look_at_pools(struct dp_forwarder *f)
{
    for (uint32_t slot = 0; slot < f->high_slot; slot++) {
        struct dp_port *port = &f->ports[slot];
        if (port->state == SB_ROW_FREE || !dp_open_pool(port))
            continue;
        uint64_t waits = rb_load(&port->up->pool_waits), need = rb_load_seq(&port->up->pool_need);
        if (need) {
            dp_free_lossy(f, port->pool, need);
            dp_yield_pool(f, port->pool, need);
        }
        if (need || waits != port->pool_waits_seen) {
            port->pool_waits_seen = waits;
            port->pool_waited_ns = f->now;
            if (!port->pool_waits_since_ns)
                port->pool_waits_since_ns = f->now;
            dp_free_pool(f, port);
            dp_reclaim(f, port);
        } else if (f->now - port->pool_waited_ns > 2 * f->block_timeout_ns + DP_WAITS_AGAIN_NS) {
            port->pool_waits_since_ns = 0;
        }
    }
}
