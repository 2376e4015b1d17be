/* From claim to publication: one record, put together here, into a port's incoming ring.
 *
 * Offers: dp_write (not yet visible), dp_publish; dp_offer, for what never waits. */
#pragma once

#include "shmbus/dispatcher/native/journal.h"
#include "shmbus/dispatcher/native/lossy.h"
#include "shmbus/dispatcher/native/mailbox.h"
#include "shmbus/dispatcher/native/space.h"

struct dp_part { /* of what follows a record's header */
    const void *bytes;
    uint32_t length;
};

static inline enum rb_status dp_write(struct dp_port *target, enum sb_ring_index ring, const struct sb_record *header,
                                      const struct dp_part *parts, uint32_t count)
{
    uint8_t *at;
    enum rb_status status = rb_claim(&target->in[ring], header->length, 0, &at);
    if (status != RB_OK)
        return status;
    memcpy(at, header, sizeof *header);
    at += SB_HEADER;
    for (uint32_t i = 0; i < count; i++) {
        memcpy(at, parts[i].bytes, parts[i].length);
        at += parts[i].length;
    }
    rb_commit(&target->in[ring], header->length);
    return RB_OK;
}

/* What was written there, `count` records. */
static inline void dp_publish(struct dp_forwarder *f, struct dp_port *target, enum sb_ring_index ring, uint32_t count)
{
    if (ring == SB_DATA) {
        target->delivered += count;
        rb_store(&target->down->incoming[SB_DATA].delivered, target->delivered);
    } else if (ring == SB_URGENT_EVENTS) {
        rb_add(&target->down->incoming[SB_URGENT_EVENTS].delivered, count);
    }
    rb_publish(&target->in[ring]);
    dp_touch(f, target, ring == SB_REPLIES ? SB_EVENT_REPLIES : SB_EVENT_DATA);
}

/* Publish one record among the data, or count it lost there; `lossy`: as the target chose. With SB_POOLED its last part
 * is a struct sb_block. */
static inline bool dp_offer(struct dp_forwarder *f, struct dp_port *target, bool lossy, const struct sb_record *header,
                            const struct dp_part *parts, uint32_t count)
{
    bool too_large = header->length > rb_largest_record(target->in[SB_DATA].capacity);
    const struct sb_block *block = header->flags & SB_POOLED ? parts[count - 1].bytes : NULL;
    if (!too_large && dp_is_mailbox(target)) /* the type, and the payload */
        dp_post(f, target, ++target->in[SB_DATA].next, header, parts[0].bytes, parts[1].bytes,
                block ? 0 : parts[1].length, block);
    else if (too_large || (block && (dp_still_slow(f, target) || (lossy && dp_has_its_quarter(f, target, block)))) ||
             dp_write(target, SB_DATA, header, parts, count) != RB_OK) {
        enum sb_loss why = too_large ? SB_LOSS_TOO_LARGE : lossy ? SB_LOSS_DROPPED : SB_LOSS_SLOW;
        dp_count_lost(f, target, why, 1, NULL, 0, 0);
        return false;
    }
    if (__builtin_expect(block != NULL, 0) && !dp_is_mailbox(target))
        dp_share_record(f, target, SB_DATA, target->in[SB_DATA].next, header, block);
    dp_publish(f, target, SB_DATA, 1);
    return true;
}
