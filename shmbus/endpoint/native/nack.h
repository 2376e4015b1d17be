/* Giving back: a message of a group, or a command, that is begun and not done goes to somebody else.
 *
 * A copy of it goes out as an SB_NACK, after which it is done here. A kill in between shall neither lose nor double it:
 * before the copy is published, `returned` of the held message says where it ends, so whoever deals with our death
 * knows whether to find the message in the outgoing ring, or here as one begun and not done. An eviction is no
 * different, but we live on: so the message is done here only if we have not been evicted by the time the copy is
 * published (with dp_freeze: it sees the copy, or we see the eviction).
 *
 * What came for several groups of this endpoint goes out in a copy for each that gives it back, all published at once
 * and when nothing else of it is in hand. With the first copy alone, our death would hand on the whole as well.
 *
 * A copy has the source and the time of the message, its attempt plus one, and the text of the reason as extension. A
 * payload in the pool of its sender goes by its block, of which this endpoint has a share until the copy is published.
 * Where it has none (its table was full), or the payload came through a ring that takes more than its own, each copy
 * goes with a block of its own pool.
 *
 *   ep_nack               give it back
 *
 * Modelled in tests/models/returning.py.
 */
#pragma once

#include "shmbus/endpoint/native/send.h"
#include "shmbus/endpoint/native/take.h"

#define EP_COPIES 32u            /* one for each interest that a message may have */

struct ep_returned {             /* what is given back */
    uint64_t position;           /* where it was taken */
    const struct sb_record *header; /* as it came */
    uint32_t bit;                /* which of its interests: that of a group, or SB_PLAIN, a command's */
    bool final;                  /* as a dead letter */
    const char *type;
    const char *reason;
    uint32_t reason_length;
    const void *payload;
    uint64_t size;
    struct sb_block *own;        /* not NULL: that is the payload, which was copied into this block of our pool */
    uint64_t whole;              /* not 0: so long is what came by a block, and this is the beginning of a copy of it */
};

/* Bytes of the reason and of the payload that fit: a dead letter takes part of it, all else must be whole. False: the
 * ring never takes it. */
static inline bool ep_fit_returned(const struct ep_endpoint *e, struct ep_returned *r)
{
    uint64_t frame = SB_HEADER + r->header->type_length, limit = rb_largest_record(e->out[SB_DATA].capacity);
    if (r->reason_length > SB_MAX_REASON)
        r->reason_length = SB_MAX_REASON;
    if (r->final && frame + r->reason_length + r->size > limit)
        r->size = limit - frame - r->reason_length;
    if (frame + r->size > limit)
        return false;
    if (frame + r->reason_length + r->size > limit)
        r->reason_length = 0;
    return true;
}

static inline uint64_t ep_returned_length(const struct ep_returned *r)
{
    return SB_HEADER + (uint64_t)r->header->type_length + r->reason_length + r->size;
}

static inline void ep_write_returned(uint8_t *at, const struct ep_returned *r)
{
    const struct sb_record *h = r->header;
    uint16_t length = h->type_length, flags = h->flags & SB_PAYLOAD_FLAGS & ~(r->whole ? SB_POOLED : 0);
    struct sb_record header = {
        .length = (uint32_t)ep_returned_length(r), .kind = SB_NACK,
        .flags = (uint16_t)(flags | (r->own ? SB_POOLED : 0) | (r->final ? SB_FINAL : 0)), .interests = r->bit,
        .peer = h->peer, .attempt = (uint16_t)(h->attempt + !r->final), .peer_generation = h->peer_generation,
        .sent_ns = h->sent_ns, .type_length = length,
        .deadline_ns = !r->final ? 0 : r->whole ? r->whole : h->length - sb_payload_offset(h),
        .extension_length = (uint16_t)r->reason_length,
    };
    memcpy(at, &header, sizeof header);
    memcpy(at + SB_HEADER, r->type, length);
    memcpy(at + SB_HEADER + length, r->reason, r->reason_length);
    if (r->size)
        memcpy(at + SB_HEADER + length + r->reason_length, r->payload, r->size);
}

/* All copies, unpublished, or none. */
static inline enum rb_status ep_write_copies(struct ep_endpoint *e, const struct ep_returned *r, uint32_t count)
{
    struct rb_producer *out = &e->out[SB_DATA];
    uint64_t start = out->next, position[EP_COPIES];
    uint8_t *at[EP_COPIES];
    for (uint32_t i = 0; i < count; i++) {
        enum rb_status status = rb_claim(out, ep_returned_length(&r[i]), 0, &at[i]);
        if (status != RB_OK) {
            out->next = start;
            return status;
        }
        position[i] = out->next;
        rb_commit(out, ep_returned_length(&r[i]));
    }
    for (uint32_t i = 0; i < count; i++) {
        if (r[i].own) /* once it has its place for good */
            ep_use_block(e, r[i].own, position[i], SB_DATA);
        ep_write_returned(at[i], &r[i]);
    }
    return RB_OK;
}

/* Give it back in `count` copies; `last`: nothing else of it is in hand, so it is done. RB_OK, RB_FULL, or RB_CORRUPT
 * where something else is in the way (ep_trouble). After ep_fit_returned of each. */
static inline enum rb_status ep_nack(struct ep_endpoint *e, const struct ep_returned *r, uint32_t count, bool last)
{
    struct rb_producer *out = &e->out[SB_DATA];
    if (ep_trouble(e) & EP_FOR_GOOD)
        return RB_CORRUPT;
    enum rb_status status = ep_write_copies(e, r, count);
    if (status != RB_OK) {
        if (status == RB_CORRUPT)
            ep_found_bad(e, SB_RINGS_IN + SB_DATA, rb_load(out->tail));
        else
            ep_flush(e); /* only what is published can make space */
        return status;
    }
    if (last)
        ep_mark_returned(e, r->position, out->next);
    RB_FAIL("nack.marked");
    ep_publish(e, SB_DATA);
    RB_FAIL("nack.published");
    rb_fence_seq(); /* with the fence in dp_freeze, which stands between its store of EVICTED and its look at our
                     * head */
    for (uint32_t i = 0; i < count; i++)
        rb_add(&e->up->nacked, !r[i].final);
    if (last && !(ep_trouble(e) & EP_EVICTED))
        ep_done(e, r->position);
    return RB_OK;
}
