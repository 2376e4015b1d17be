/* Our own records: what the dispatcher has written into a ring of DOWN or of a backlog, read again.
 *
 * Offers: dp_own_record, dp_own_record_in. */
#pragma once

#include "shmbus/dispatcher/native/port.h"

/* The record at `*position` of one of the port's incoming rings; false at the end. Moves past padding. The walk may
 * begin at a tail that an endpoint wrote, in the midst of a record: what does not look like one of ours is the
 * end, too. */
static inline bool dp_own_record_in(const struct dp_forwarder *f, const struct dp_port *port, enum sb_ring_index ring,
                                    uint64_t *position, struct sb_record *h, const uint8_t **record)
{
    const struct rb_producer *in = &port->in[ring];
    while (*position < in->published) {
        struct rb_head8 head;
        uint64_t offset = *position & (in->capacity - 1), to_end = in->capacity - offset;
        memcpy(&head, in->data + offset, sizeof head);
        uint64_t size = RB_ALIGN8(head.length);
        if (head.length < sizeof head || size > to_end || size > in->published - *position)
            return false;
        if (head.kind != RB_PADDING) {
            if (head.length < SB_HEADER)
                return false;
            *record = in->data + offset;
            memcpy(h, *record, sizeof *h);
            bool ours = h->peer < f->slots || (h->peer == SB_FROM_BUS && h->kind != SB_REQUEST);
            bool typed = h->type_length || h->kind == SB_LIVE || ring == SB_REPLIES;
            return ours && typed && sb_record_sound(h);
        }
        *position += size;
    }
    return false;
}

/* Of its data ring. */
static inline bool dp_own_record(const struct dp_forwarder *f, const struct dp_port *port, uint64_t *position,
                                 struct sb_record *h, const uint8_t **record)
{
    return dp_own_record_in(f, port, SB_DATA, position, h, record);
}
