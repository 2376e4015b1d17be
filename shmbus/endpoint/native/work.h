/* Work: the dispatcher gives an endpoint group messages, commands and requests while it is free for them, and
 * asks it to ring when it is free again (DOWN.wanted).
 *
 *   ep_offer_work         after a message was taken or is done: ring if the dispatcher asked for it
 *
 * Modelled in tests/models/work.py.
 */
#pragma once

#include "shmbus/endpoint/native/endpoint.h"

/* With `fence` what was taken or done comes before the look at `wanted`: at the latest with the last message that
 * lies there, and whenever something is done. Pairs with dp_want, which stores `wanted`, then looks at those. */
static inline void ep_offer_work(struct ep_endpoint *e, bool fence)
{
    const struct sb_down_incoming *down = &e->down->incoming[SB_DATA];
    if (fence)
        rb_fence_seq();
    uint64_t wanted = rb_load(&down->wanted);
    uint32_t fewer = (uint32_t)wanted;
    if (__builtin_expect(!fewer, 1))
        return;
    uint64_t untouched = rb_load(&down->delivered) - rb_load(&e->up->incoming[SB_DATA].taken_count);
    uint64_t threads = rb_load(&e->up->receivers), most = threads > e->up->prefetch ? threads : e->up->prefetch;
    if (untouched >= fewer || untouched + e->in_hand >= most || wanted == e->offered_for)
        return;
    e->offered_for = wanted; /* once for each question; the dispatcher asks another while we are not free after all */
    ep_ring_dispatcher(e);
}
