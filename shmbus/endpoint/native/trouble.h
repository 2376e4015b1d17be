/* What keeps an endpoint's calls from proceeding: what this process knows, and what the dispatcher says.
 *
 *   ep_trouble            all of it now
 *   ep_set_trouble        this process has learned something; whoever waits looks again
 *   ep_found_bad          the other side wrote what it never may
 */
#pragma once

#include "shmbus/endpoint/native/endpoint.h"

/* What keeps an endpoint's calls from proceeding. */
enum ep_trouble {
    EP_CLOSED_HERE = 1 << 0, /* this process closed the endpoint */
    EP_BUS_DEAD = 1 << 1,    /* the dispatcher's process is finished; a successor may adopt us */
    EP_BUS_HANDED = 1 << 2,  /* the dispatcher went and left the bus to a successor */
    EP_BUS_OVER = 1 << 3,    /* the bus has ended, or another took its place */
    EP_EVICTED = 1 << 4,     /* the dispatcher evicted us */
    EP_RING_BAD = 1 << 5,    /* an incoming ring, or a tail of an outgoing one, is not what the dispatcher writes */
    EP_STOPPING = 1 << 6,    /* whoever receives shall come to an end */
};
#define EP_FOR_GOOD ((uint64_t)(EP_CLOSED_HERE | EP_BUS_OVER | EP_EVICTED | EP_RING_BAD))
#define EP_FOR_NOW ((uint64_t)(EP_BUS_DEAD | EP_BUS_HANDED))

static inline void ep_set_trouble(struct ep_endpoint *e, uint64_t set, uint64_t clear)
{
    uint64_t before = rb_load(&e->trouble), after = (before | set) & ~clear;
    if (after != before) {
        rb_store(&e->trouble, after);
        ep_wake(e, set ? SB_EVENT_STATE | SB_EVENT_END : SB_EVENT_STATE);
    }
}

/* `ring`: an incoming one, or SB_RINGS_IN and an outgoing one. Only the first is reported. */
static inline void ep_found_bad(struct ep_endpoint *e, uint32_t ring, uint64_t position)
{
    if (!(rb_load(&e->trouble) & EP_RING_BAD)) {
        e->bad_ring = ring;
        e->bad_position = position;
    }
    ep_set_trouble(e, EP_RING_BAD, 0);
}

static inline uint64_t ep_trouble(struct ep_endpoint *e)
{
    uint64_t trouble = rb_load(&e->trouble);
    uint64_t bus_state = rb_load_acquire(&e->bus->state), down_state = rb_load_acquire(&e->down->state);
    if (__builtin_expect(bus_state >= SB_BUS_ENDED, 0))
        trouble |= bus_state == SB_BUS_ENDED ? EP_BUS_OVER : EP_BUS_HANDED;
    if (__builtin_expect(down_state >= SB_DOWN_EVICTED, 0)) {
        bool reclaimed = down_state == SB_DOWN_RECLAIMED && rb_load(&e->up->state) < SB_UP_CLOSED;
        if (down_state == SB_DOWN_ENDED)
            trouble |= EP_BUS_OVER;
        else if (down_state == SB_DOWN_EVICTED || reclaimed)
            trouble |= EP_EVICTED;
    }
    if (__builtin_expect(rb_load(&e->bus->prefix.superseded_by) != 0, 0))
        trouble |= EP_BUS_OVER;
    return trouble;
}
