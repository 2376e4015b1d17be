/* Sleeping at the event of an endpoint that is served from an event loop: its second bell
 * (shmbus/shared/native/event.h), where nobody waits in a call of ours. Nothing of it exists until it is asked for
 * (show.h).
 *
 *   ep_event_need         ask to be told of space in an outgoing ring; ep_event_need_block: of a block
 *   ep_event_disarm       awake: nothing needs to be written; what the caller finds from now on counts as seen
 *   ep_event_arm          about to sleep at the descriptor: false. True: what is wanted is there, so do not sleep
 *   ep_event_rest         of a descriptor that others watch (fileno): nothing was found to receive
 *
 * The descriptor is readable from the first thing that is wanted on until the next ep_event_arm, and written once
 * meanwhile. It may be readable in vain; it is not silent while what is wanted is there.
 */
#pragma once

#include "shmbus/endpoint/native/want.h"
#include "shmbus/endpoint/native/watcher.h"

/* Tell when a record of `length` bytes fits into this ring; 0: no more. */
static inline void ep_event_need(struct ep_endpoint *e, uint32_t ring, uint64_t length)
{
    e->event_need[ring] = length ? rb_end_after(&e->out[ring], length) - e->out[ring].capacity : SB_NO_NEED;
    ep_store_ring_need(e, ring);
}

/* Tell when a block of so many pages may be had; 0: no more. */
static inline void ep_event_need_block(struct ep_endpoint *e, uint64_t pages)
{
    e->event_block = pages;
    ep_store_block_need(e);
}

static inline void ep_event_state(const struct ep_endpoint *e, uint64_t seen[4])
{
    seen[0] = rb_load_seq(&e->wakes);
    seen[1] = rb_load_seq(&e->down->state);
    seen[2] = rb_load_seq(&e->bus->state);
    seen[3] = rb_load_seq(&e->down->interests_seen);
}

static inline bool ep_event_data(struct ep_endpoint *e)
{
    bool there = rb_load_seq(e->in[SB_DATA].head) != e->in[SB_DATA].next ||
                 rb_load_seq(e->in[SB_URGENT_EVENTS].head) != e->in[SB_URGENT_EVENTS].next ||
                 (e->mailbox_count && ep_mail_waits(e));
    return (there || e->recalled || e->due) &&
           !(ep_trouble(e) & (EP_RING_BAD | EP_EVICTED));
}

static inline bool ep_event_due(struct ep_endpoint *e, uint64_t wants)
{
    if (wants & SB_EVENT_DATA && ep_event_data(e))
        return true;
    if (wants & SB_EVENT_REPLIES && rb_load_seq(e->in[SB_REPLIES].head) != e->in[SB_REPLIES].next)
        return true;
    for (uint32_t ring = 0; wants & SB_EVENT_SPACE && ring < SB_RINGS; ring++)
        if (e->event_need[ring] != SB_NO_NEED && rb_load_seq(e->out[ring].tail) >= e->event_need[ring])
            return true;
    if (wants & SB_EVENT_SPACE && e->event_block && ep_block_to_be_had(e, e->event_block))
        return true;
    if (wants & SB_EVENT_STATE) {
        uint64_t now[4];
        ep_event_state(e, now);
        if (memcmp(now, e->event_seen, sizeof now) != 0)
            return true;
    }
    return false;
}

static inline void ep_event_disarm(struct ep_endpoint *e)
{
    uint64_t epoch = rb_load(&e->up->event);
    if (epoch & 1)
        rb_store_release(&e->up->event, epoch + 1);
    ep_event_state(e, e->event_seen);
}

/* From here on it is written for `wants`. */
static inline void ep_event_odd(struct ep_endpoint *e, uint64_t wants)
{
    uint64_t tokens, epoch = rb_load(&e->up->event);
    (void)!read(e->event_fd, &tokens, sizeof tokens); /* all of them, and before the epoch is odd */
    if (wants & SB_EVENT_DATA && e->mailbox_count)
        wants |= ep_mail_wants(e);
    rb_store(&e->up->event_wants, wants);
    rb_store_seq(&e->up->event, (epoch + 1) | 1); /* then look; sb_ring_event looks here after what is new is stored */
    RB_FAIL("event.odd");
    if (e->serial != e->bus->serial || (!e->absent && ep_trouble(e) & EP_FOR_NOW))
        ep_wake_watcher(); /* it sleeps for good beside a dispatcher in this very process */
}

/* `wants`: enum sb_event_want. DATA: there is a message; REPLIES: there is a reply that nobody has drained; SPACE: as
 * asked by ep_event_need; STATE: something else has changed since ep_event_disarm, or since this said true; END is
 * among that. */
static inline bool ep_event_arm(struct ep_endpoint *e, uint64_t wants)
{
    if (e->event_fd < 0)
        return true;
    ep_event_odd(e, wants);
    bool due = ep_event_due(e, wants);
    if (due)
        ep_event_disarm(e);
    return due;
}

/* Whoever watches the descriptor shall find it readable while there is something to receive, or `event_minds` would end
 * a call. Nobody else takes what was written, so it is enough to come here where nothing was found: until then it is
 * readable, and from here on it is armed. */
static inline void ep_event_rest(struct ep_endpoint *e)
{
    if (e->event_fd < 0)
        return;
    ep_event_odd(e, SB_EVENT_DATA | SB_EVENT_END);
    rb_fence_seq(); /* before the looks of ep_trouble */
    if (ep_event_data(e) || ep_trouble(e) & e->event_minds)
        sb_write_event(e->event_fd);
}
