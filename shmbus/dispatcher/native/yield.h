/* Yielding: what only waits to be looked at makes no payload impossible.
 *
 * A sender that waits for memory of its pool says how much it needs in one piece (UP.pool_need). What others look at,
 * or are about to take, comes back by itself, or is revoked (revoke.h). What is kept, and what stands in mailboxes,
 * would stay: where the piece does not fit beside that, it goes, as for want of space elsewhere: first what newer
 * values of its type have replaced, then the rest, the oldest first. So a newer value can always replace an older one.
 *
 * Offers: dp_yield_pool. */
#pragma once

#include "shmbus/dispatcher/native/keep.h"
#include "shmbus/dispatcher/native/mailbox.h"

/* What a block holds that nobody has taken, bits. */
enum dp_rest {
    DP_REPLACED = 1, /* kept values that newer ones have replaced */
    DP_RESTS = 2,    /* one that is the newest of its type, or messages in mailboxes */
};

static inline void dp_find_rest(struct dp_forwarder *f, const struct dp_pool *pool, uint8_t rest[SB_BLOCKS])
{
    memset(rest, 0, SB_BLOCKS);
    for (int newest = pool->kept ? 0 : 2; newest < 2; newest++)
        for (const struct dp_value *v = newest ? f->values.last.first : f->values.replaced.first; v; v = v->behind)
            if (v->pool == pool)
                rest[v->block] |= newest ? DP_RESTS : DP_REPLACED;
    for (uint32_t slot = 0; slot < f->high_slot && f->mailboxes_open; slot++) {
        const struct dp_port *port = &f->ports[slot];
        for (uint32_t i = 0; port->state == SB_ROW_LIVE && i < port->shares.count; i++) {
            const struct dp_share *s = &port->shares.list[i];
            if (s->pool == pool && dp_is_in_mailbox(port, s))
                rest[s->index] |= DP_RESTS;
        }
    }
}

/* Is there place for a block of so many pages, of `most`, beside those that have something? `order`: by where they
 * lie. */
static inline bool dp_fits_beside(const struct dp_pool *pool, const uint8_t rest[SB_BLOCKS], const uint16_t *order,
                                  uint32_t count, uint64_t pages, uint64_t most)
{
    uint64_t at = 0;
    uint32_t taken = 0;
    bool fits = false;
    for (uint32_t k = 0; k < count; k++) {
        const struct dp_block *block = &pool->blocks[order[k]];
        uint64_t first = dp_first_page(block), end = first + dp_pages_of(block);
        if (!rest[order[k]])
            continue;
        taken++;
        first = first < most ? first : most;
        fits |= first > at && first - at >= pages;
        at = end > at ? end : at;
    }
    return taken < SB_BLOCKS && (fits || (most > at && most - at >= pages));
}

/* Which of them is to go first? There is one. */
static inline uint32_t dp_first_to_yield(const struct dp_pool *pool, const uint8_t rest[SB_BLOCKS])
{
    uint32_t first = SB_BLOCKS;
    for (uint32_t i = 0; i < SB_BLOCKS; i++) {
        if (!rest[i])
            continue;
        bool later = first < SB_BLOCKS && (rest[i] & DP_RESTS) > (rest[first] & DP_RESTS);
        bool sooner = first == SB_BLOCKS || (rest[i] & DP_RESTS) < (rest[first] & DP_RESTS);
        if (sooner || (!later && pool->blocks[i].use < pool->blocks[first].use))
            first = i;
    }
    return first;
}

/* All that is kept, or stands in mailboxes, of these blocks. */
static inline void dp_drop_rest(struct dp_forwarder *f, const struct dp_pool *pool, const uint8_t these[SB_BLOCKS])
{
    for (int newest = pool->kept ? 0 : 2; newest < 2; newest++)
        for (struct dp_value *v = newest ? f->values.last.first : f->values.replaced.first, *behind; v; v = behind) {
            behind = v->behind;
            if (v->pool == pool && these[v->block])
                dp_evict_value(f, v);
        }
    dp_say_values(f);
    for (uint32_t index = 0; index < SB_MAILBOXES && f->mailboxes_open; index++) {
        struct dp_port *port = &f->ports[SB_FIRST_MAILBOX + index];
        for (uint32_t i = 0; port->state != SB_ROW_FREE && i < port->mailbox->depth; i++) {
            uint64_t name = port->mailbox->mails[i].share;
            const struct dp_share *s = name ? dp_find_share(&f->ports[port->owner], name) : NULL;
            if (s && s->pool == pool && these[s->index])
                dp_drop_mail(f, port, i);
        }
    }
}

/* Its endpoint waits for so many pages of it in one piece. */
static inline void dp_yield_pool(struct dp_forwarder *f, const struct dp_pool *pool, uint64_t pages)
{
    uint8_t rest[SB_BLOCKS], yields[SB_BLOCKS] = {0};
    uint16_t order[SB_BLOCKS];
    uint64_t most = dp_pool_most(f, pool) / DP_PAGE;
    if (pages > most || (!pool->kept && !f->mailboxes_open))
        return;
    dp_find_rest(f, pool, rest);
    uint32_t count = dp_sort_blocks(pool, rest, order), left = count;
    for (; !dp_fits_beside(pool, rest, order, count, pages, most); left--) {
        uint32_t first = dp_first_to_yield(pool, rest);
        yields[first] = 1;
        rest[first] = 0;
    }
    if (left < count)
        dp_drop_rest(f, pool, yields);
}
