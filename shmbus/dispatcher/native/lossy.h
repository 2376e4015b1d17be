/* Lossy: who would rather lose than delay its senders keeps none of them from its pool. All who are so have a quarter
 * of it untaken at the most, of the bytes and of the blocks, and each its equal part of that though others were there
 * first; what comes beyond that is lost there at once. One payload each may always have. Where the sender waits all the
 * same, it goes at once, too, see revoke.h.
 *
 * Offers: dp_is_lossy, dp_has_its_quarter. */
#pragma once

#include "shmbus/dispatcher/native/backlog.h"
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

/* Would this receiver of such an event rather lose it, whatever makes it one? */
static inline bool dp_would_lose(struct dp_forwarder *f, struct dp_port *port, const struct sb_record *h,
                                 const uint8_t *record)
{
    const struct dp_route *route = dp_lookup(&f->routes, sb_type_of(record), h->type_length, h->flags);
    uint32_t patient = 0, lossy = 0;
    for (uint32_t i = 0; route && i < route->plain.count; i++) {
        struct dp_port *to = &f->ports[route->plain.list[i].slot];
        if (to != port && (dp_is_mailbox(to) || dp_receiving(f, to) != dp_receiving(f, port)))
            continue;
        lossy += route->plain.list[i].lossy;
        patient += !route->plain.list[i].lossy;
    }
    return lossy && !patient;
}

/* A share whose record stands there, untaken: would its receiver rather lose it? */
static inline bool dp_is_lossy(struct dp_forwarder *f, struct dp_port *port, struct dp_share *s)
{
    enum sb_ring_index ring = (enum sb_ring_index)((s->share & 7) - 1);
    uint64_t position = s->share & ~7ull;
    struct sb_record h;
    const uint8_t *record;
    if (s->judged || !dp_own_record_in(f, port, ring, &position, &h, &record))
        return s->lossy;
    bool plain = h.kind == SB_EVENT && h.interests == SB_PLAIN;
    s->lossy = h.kind == SB_TAP || (plain && dp_would_lose(f, port, &h, record));
    s->judged = true;
    return s->lossy;
}

/* Those that have shares, endpoints and backlogs of those that catch up, one after the other. NULL at the end. */
struct dp_sharers {
    uint32_t slot;
    uint64_t left; /* which begins as f->catching_up */
};

static inline struct dp_port *dp_next_sharer(struct dp_forwarder *f, struct dp_sharers *s)
{
    struct dp_port *port, *to;
    do {
        port = s->slot < f->high_slot ? &f->ports[s->slot++] : dp_next_backlog(f, &s->left);
        to = port && port->shares.count ? dp_receiving(f, port) : NULL;
    } while (port && !(to && (to->state == SB_ROW_LIVE || to->state == SB_ROW_LEAVING)));
    return port;
}

/* What a receiver has not taken so of its rings for events, or what waits in a backlog. False: nothing. */
static inline bool dp_find_untaken(struct dp_forwarder *f, struct dp_port *port, const struct dp_pool *pool,
                                   struct dp_untaken *u)
{
    uint64_t taken[SB_RINGS_IN] = {0};
    bool any = false;
    for (int r = 0; port->up && r < SB_RINGS_IN; r++)
        taken[r] = dp_taken_of(port, r);
    for (uint32_t i = 0; i < port->shares.count; i++) {
        struct dp_share *s = &port->shares.list[i];
        uint64_t ring = (s->share & 7) - 1;
        if (s->pool != pool || (ring != SB_DATA && ring != SB_URGENT_EVENTS) || s->revoked ||
            (s->share & ~7ull) < taken[ring] || !dp_is_lossy(f, port, s))
            continue;
        dp_count_untaken(u, s->index, pool->blocks[s->index].length);
        any = true;
    }
    return any;
}

/* More than one part of the quarter, of so many? */
static inline bool dp_is_beyond(const struct dp_untaken *u, uint64_t most, uint32_t parts)
{
    return u->bytes > most / 4 / parts || u->blocks > SB_BLOCKS / 4 / parts;
}

/* One that is lossy: has it its part of that pool, without this block? */
static inline bool dp_has_its_quarter(struct dp_forwarder *f, struct dp_port *target, const struct sb_block *b)
{
    struct dp_untaken own = {0}, all = {0};
    const struct dp_pool *pool = dp_pool_of(f, b->pool_slot, b->pool_generation);
    if (!pool || dp_is_mailbox(target)) /* which has a rule of its own */
        return false;
    const struct dp_port *to = dp_receiving(f, target);
    struct dp_sharers sharers = {.left = f->catching_up};
    uint64_t most = dp_pool_most(f, pool);
    uint32_t parts = 1;
    for (struct dp_port *port; (port = dp_next_sharer(f, &sharers));)
        if (dp_find_untaken(f, port, pool, &all) &&
            (dp_receiving(f, port) != to || !dp_find_untaken(f, port, pool, &own)))
            parts++;
    dp_count_untaken(&all, b->index, b->length);
    return own.blocks && dp_count_untaken(&own, b->index, b->length) && dp_is_beyond(&all, most, 1) &&
           dp_is_beyond(&own, most, parts);
}
