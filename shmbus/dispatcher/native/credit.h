/* Credit: a requester grants its server more parts of a reply (endpoint/native/stream.h).
 *
 * It is told as a cancel is: only to whom the request was given, among its replies, and never waits. Of the space there
 * beside what is kept for errors it leaves half, so a requester that grants without end is in the way of credit alone.
 * Nothing of it is in the journal, because a grant is absolute: a successor that finds the record again says it again,
 * and one for which there was no space is said again by the requester.
 *
 * Offers: dp_credit. */
#pragma once

#include "shmbus/dispatcher/native/cancel.h"

static inline void dp_credit(struct dp_forwarder *f, struct dp_port *source, const struct sb_record *h)
{
    const struct sb_target *given = &source->given[sb_index_of(h->correlation)];
    struct dp_port *server = dp_server_of(f, given);
    if (!server || rb_load(&given->done) || memcmp(given->id, h->correlation, 16) != 0)
        return;
    uint64_t half = (server->in[SB_REPLIES].capacity - server->reserve) / 2;
    if (!dp_tell_server(f, server, source, SB_CREDIT, h->correlation, h->deadline_ns, server->reserve + half))
        rb_add(&f->bus->credits_lost, 1);
}
