/* Growth: how much of its pool an endpoint may have reserved. All pools together have `pool_total_bytes`. An endpoint
 * asks for as many pages as it wants to have (UP.pool_asked), and is answered with as many as it may (DOWN.pool_granted).
 *
 * A block has its pages in one piece, so part of what is asked for may be of no use. Therefore who has waited longest gets
 * all that is left, and the others wait behind: never do two wait for what the other one was given in part.
 *
 * While somebody lacks some, BUS says so (pools_short), and endpoints give back what they have not used lately.
 *
 * Who was answered in part asks anew, for no more than it needs. Then what is kept in pools of endpoints that have gone,
 * and nobody looks at, does not keep it from growing: where that is enough, it goes, as for want of space elsewhere. What
 * others have is another matter, see reclaim.h.
 *
 * Offers: dp_answer_pool, dp_feed_pools. */
#pragma once

#include "shmbus/dispatcher/native/keep.h"

static inline void dp_grant_pages(struct dp_forwarder *f, struct dp_port *port, uint64_t pages)
{
    f->pools_pages += pages - port->pool_pages;
    port->pool_pages = pages;
    rb_store(&f->bus->pools_granted, f->pools_pages * DP_PAGE);
    RB_FAIL("pool.granting");
    rb_store_release(&port->down->pool_granted, (port->pool_asked & ~sb_pool_pages(~0ull)) | pages);
    RB_FAIL("pool.granted");
    dp_note_pool(f, port);
}

/* As many as it asks for, within its limit. */
static inline uint64_t dp_wanted_pages(const struct dp_port *port)
{
    uint64_t most = port->up->pool_limit / DP_PAGE + 1, asked = sb_pool_pages(port->pool_asked);
    return asked < most ? asked : most;
}

/* It has what it asked for. */
static inline void dp_end_turn(struct dp_port *port)
{
    port->pool_turn = 0;
    port->pool_again = false;
}

/* May its pool grow? One that closes may still have to send what it has in hand. */
static inline bool dp_grows(const struct dp_port *port)
{
    return port->state == SB_ROW_LIVE || port->state == SB_ROW_LEAVING;
}

/* Whose turn is next after that. NULL: nobody's. */
static inline struct dp_port *dp_next_in_turn(struct dp_forwarder *f, uint64_t turn)
{
    struct dp_port *next = NULL;
    for (uint32_t slot = 0; slot < f->high_slot; slot++) {
        struct dp_port *port = &f->ports[slot];
        if (dp_grows(port) && port->pool_turn > turn && (!next || port->pool_turn < next->pool_turn))
            next = port;
    }
    return next;
}

/* Does its memory come back with it? That of one which has gone, and at whose block nobody else looks. */
static inline bool dp_frees_pages(const struct dp_value *v)
{
    return v->pool && v->pool->orphan && v->pool->blocks[v->block].shares == 1;
}

/* Of these those that were replaced and the oldest go first, until so many pages more may be had; none, where all are not
 * enough. */
static inline void dp_make_room_to_grow(struct dp_forwarder *f, uint64_t pages)
{
    uint64_t total = f->bus->pool_total_bytes / DP_PAGE, there = total;
    for (int replaced = f->orphans ? 1 : -1; replaced >= 0; replaced--)
        for (const struct dp_value *v = replaced ? f->values.replaced.first : f->values.last.first; v; v = v->behind)
            there += dp_frees_pages(v) ? dp_pages_of(&v->pool->blocks[v->block]) : 0;
    for (int replaced = there >= f->pools_pages + pages ? 1 : -1; replaced >= 0; replaced--)
        for (struct dp_value *v = replaced ? f->values.replaced.first : f->values.last.first, *behind; v; v = behind) {
            behind = v->behind;
            if (f->pools_pages + pages <= total)
                break;
            if (dp_frees_pages(v))
                dp_evict_value(f, v);
        }
    dp_say_values(f);
}

static inline void dp_say_short(struct dp_forwarder *f, uint64_t pages)
{
    if (rb_load(&f->bus->pools_short) == pages * DP_PAGE)
        return;
    RB_FAIL("pools.short");
    rb_store(&f->bus->pools_short, pages * DP_PAGE);
    RB_FAIL("pools.said");
}

/* Who asks for more gets what there is, in the order in which they asked. */
static inline void dp_feed_pools(struct dp_forwarder *f)
{
    uint64_t total = f->bus->pool_total_bytes / DP_PAGE, turn = 0, lacking = 0;
    f->pools_starve = false;
    for (struct dp_port *port; (port = dp_next_in_turn(f, turn));) {
        uint64_t had = port->pool_pages, wanted = dp_wanted_pages(port);
        if (port->pool_again && wanted > had && f->pools_pages + (wanted - had) > total)
            dp_make_room_to_grow(f, wanted - had);
        uint64_t left = total > f->pools_pages ? total - f->pools_pages : 0;
        uint64_t pages = wanted <= had + left ? wanted : had + left;
        turn = port->pool_turn;
        if (pages > had || port->pool_asked >> 40 != rb_load(&port->down->pool_granted) >> 40)
            dp_grant_pages(f, port, pages);
        if (pages == wanted)
            dp_end_turn(port);
        lacking += wanted - pages;
    }
    dp_say_short(f, lacking);
}

/* It asks anew: for more, which it gets at the end of this pass, or for less. What it gives back others may have: it is not
 * reserved any more. */
static inline void dp_answer_pool(struct dp_forwarder *f, struct dp_port *port, uint64_t asked)
{
    uint64_t had = port->pool_pages;
    port->pool_asked = asked;
    uint64_t wanted = dp_wanted_pages(port);
    port->pool_again |= port->pool_turn != 0;
    f->pools_starve = true;
    if (wanted > had) {
        port->pool_turn = port->pool_turn ? port->pool_turn : ++f->pools_turn;
        return;
    }
    dp_end_turn(port);
    dp_grant_pages(f, port, wanted);
}
