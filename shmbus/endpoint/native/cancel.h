/* Cancelled requests: a requester that ends one before its reply tells the server, so that nobody works for nothing.
 *
 * It says so behind the request, in its outgoing data ring: so the dispatcher has dealt with the request when it
 * meets this (dispatcher/native/cancel.h), and tells whoever has it, among the replies, which a server drains
 * wherever it looks. The server remembers the ids of the last ones; it does not begin what it has not taken yet.
 *
 *   ep_push_cancel        the request of this id is not waited for any more
 *   ep_note_cancel        a requester says so of one that came here
 *   ep_cancelled_since    did one say so of this id?
 *   ep_withdrawn          is the request that ep_peek showed one of those?
 *
 * Modelled in tests/models/cancelling.py.
 */
#pragma once

#include "shmbus/endpoint/native/outflow.h"

/* RB_FULL: there is no space now. Never waits. */
static inline enum rb_status ep_push_cancel(struct ep_endpoint *e, const uint8_t id[16])
{
    const struct ep_message cancel = {.kind = SB_CANCEL, .flags = SB_NONE, .correlation = id, .type = ""};
    return ep_push(e, &cancel, ep_stamp(e), NULL, NULL);
}

static inline void ep_note_cancel(struct ep_endpoint *e, const struct sb_record *header)
{
    memcpy(e->cancels[e->cancels_seen % EP_CANCELS], header->correlation, 16);
    e->cancels_seen++;
    e->cancels_before = rb_load_acquire(e->in[SB_DATA].head); /* its request was published there before */
    ep_note_broken_off(e, header->correlation);
}

/* `since`: what `cancels_seen` was when this was last asked. */
static inline bool ep_cancelled_since(const struct ep_endpoint *e, const uint8_t id[16], uint64_t since)
{
    uint64_t oldest = e->cancels_seen > EP_CANCELS ? e->cancels_seen - EP_CANCELS : 0;
    for (uint64_t i = e->cancels_seen; i > since && i > oldest; i--)
        if (memcmp(e->cancels[(i - 1) % EP_CANCELS], id, 16) == 0)
            return true;
    return false;
}

/* Most are not looked for: they came after the last cancel. */
static inline bool ep_withdrawn(const struct ep_endpoint *e, const struct sb_record *header)
{
    return e->in[SB_DATA].next < e->cancels_before && ep_cancelled_since(e, header->correlation, 0);
}
