/* Growth: how much of its pool an endpoint may have reserved. All pools together have `pool_total_bytes`. An endpoint
 * asks for as many pages as it wants to have (UP.pool_asked), and is answered with as many as it may (DOWN.pool_granted);
 * where those are fewer, it gets more when others give some back, or go.
 *
 * Offers: dp_answer_pool, dp_feed_pools. */
#pragma once

#include "shmbus/dispatcher/native/pool.h"

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

/* As many as it wants within its limit, or what is left. */
static inline uint64_t dp_pages_for(const struct dp_forwarder *f, const struct dp_port *port)
{
    uint64_t total = f->bus->pool_total_bytes / DP_PAGE, had = port->pool_pages;
    uint64_t most = port->up->pool_limit / DP_PAGE + 1, asked = sb_pool_pages(port->pool_asked);
    uint64_t wanted = asked < most ? asked : most, left = total > f->pools_pages ? total - f->pools_pages : 0;
    return wanted <= had + left ? wanted : had + left;
}

/* Those that have less than they asked for get more, if there is more. */
static inline void dp_feed_pools(struct dp_forwarder *f)
{
    f->pools_starve = false;
    for (uint32_t slot = 0; slot < f->high_slot; slot++) {
        struct dp_port *port = &f->ports[slot];
        if (port->state != SB_ROW_LIVE || sb_pool_pages(port->pool_asked) <= port->pool_pages)
            continue;
        uint64_t pages = dp_pages_for(f, port);
        if (pages > port->pool_pages)
            dp_grant_pages(f, port, pages);
    }
}

/* It asks anew. What it gives back others may have: it is not reserved any more. */
static inline void dp_answer_pool(struct dp_forwarder *f, struct dp_port *port, uint64_t asked)
{
    uint64_t had = port->pool_pages;
    port->pool_asked = asked;
    dp_grant_pages(f, port, dp_pages_for(f, port));
    f->pools_starve |= port->pool_pages < had;
}
