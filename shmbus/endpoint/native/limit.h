/* Limits: how long a handler may take stands in shared memory while it runs, so that the dispatcher can end what it was
 * asked for, whatever it does then: it may hold Python's lock for ever, or its process be stopped.
 *
 *   ep_begin_limit        a handler with a limit begins with a message, or gets one while it is at work
 *   ep_end_limit          it has returned; or is about to answer, if the limit was of that one message
 *
 * Modelled in tests/models/limits.py.
 */
#pragma once

#include "shmbus/endpoint/native/endpoint.h"

#include <stdio.h>

#define EP_NO_LIMIT UINT32_MAX
#define EP_SHORT_LIMIT_NS 250000000u /* the dispatcher finds longer ones in time by itself, see DP_LOOK_NS */

static inline void ep_note_first_limit(struct ep_endpoint *e)
{
    uint64_t first = 0;
    for (uint32_t i = 0; i < SB_LIMITS; i++) {
        uint64_t until = rb_load(&e->up->limits[i]);
        if (until && (!first || until < first))
            first = until;
    }
    rb_store(&e->up->first_limit_ns, first);
}

/* Its place, for ep_end_limit. EP_NO_LIMIT: as many others run, and this one goes without. `origin`: where it was sent;
 * NULL: on this bus. */
static inline uint32_t ep_begin_limit(struct ep_endpoint *e, const struct sb_record *header, const char *type,
                                      const struct sb_origin *origin, uint64_t limit_ns, uint64_t now)
{
    uint32_t i = 0;
    while (i < SB_LIMITS && rb_load(&e->up->limits[i]))
        i++;
    if (i == SB_LIMITS)
        return EP_NO_LIMIT;
    struct sb_limited *limited = &e->up->limited[i];
    uint64_t until = limit_ns < SB_NOWHERE - now ? now + limit_ns : SB_NOWHERE;
    rb_store(&limited->limit_ns, limit_ns);
    rb_store(&limited->whom, sb_whom(header->peer, header->peer_generation));
    rb_store(&limited->kind, header->kind);
    rb_store(&limited->type_length, header->type_length);
    memcpy(limited->id, header->correlation, 16);
    memcpy(limited->type, type, header->type_length);
    limited->source[0] = 0;
    if (origin)
        snprintf(limited->source, sizeof limited->source, "%.*s@%.*s", (int)sizeof origin->source, origin->source,
                 (int)sizeof origin->site, origin->site);
    RB_FAIL("limit.filled");
    rb_store_release(&e->up->limits[i], until); /* dp_read_limited acquires it, then reads the rest */
    RB_FAIL("limit.begun");
    uint64_t first = rb_load(&e->up->first_limit_ns);
    if (!first || until < first)
        rb_store_release(&e->up->first_limit_ns, until); /* dp_look_at_limits acquires it, then looks at `limits` */
    if (limit_ns < EP_SHORT_LIMIT_NS)
        ep_ring_dispatcher(e);
    return i;
}

static inline void ep_end_limit(struct ep_endpoint *e, uint32_t i, uint64_t now)
{
    bool over = rb_load(&e->up->limits[i]) <= now;
    rb_store(&e->up->limits[i], 0);
    rb_fence_release(); /* with dp_read_limited: whoever sees what is written next there sees that this has ended */
    RB_FAIL("limit.ended");
    ep_note_first_limit(e);
    if (over)
        ep_ring_dispatcher(e); /* which believes it to be overdue */
}
