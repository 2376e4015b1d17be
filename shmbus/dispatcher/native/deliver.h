/* Delivering: the run into a target's ring, and copies of it to those who tap.
 *
 * Offers: dp_copy_run, dp_shuts_out, dp_end_of_run, dp_publish_run; dp_tapped, dp_tap_run. */
#pragma once

#include "shmbus/dispatcher/native/losses.h"
#include "shmbus/dispatcher/native/space.h"
#include "shmbus/dispatcher/native/run.h"

/* Towards a receiver it says under which number it is kept. */
static inline void dp_mark_kept(struct sb_record *h, uint64_t number)
{
    h->flags |= SB_RETAIN;
    memset(h->correlation, 0, sizeof h->correlation);
    memcpy(h->correlation, &number, sizeof number);
}

/* As many records of the run as fit, from the first on, into this ring of the target's, not yet published. -1: its
 * tail is garbage. */
static inline int dp_copy_run(struct dp_forwarder *f, const struct dp_run *run, struct dp_port *target,
                              enum sb_ring_index ring, uint32_t bits)
{
    bool replies = ring == SB_REPLIES;
    struct rb_producer *out = &target->in[ring];
    if (dp_is_mailbox(target)) {
        dp_post_run(f, run, target);
        return (int)run->count;
    }
    uint64_t reserve = replies ? target->reserve : 0;
    /* Those that a sender may set. */
    uint16_t of_ring = replies ? SB_REMOTE : SB_STREAM | SB_DIRECTED;
    uint16_t keep_flags = SB_PAYLOAD_FLAGS | of_ring | (run->urgent ? SB_URGENT : 0);
    uint32_t lost = (uint32_t)rb_load(&target->down->lost);
    for (uint32_t i = 0; i < run->count; i++) {
        const struct sb_record *h = &run->header[i];
        uint8_t *at;
        enum rb_status status = rb_claim(out, h->length, reserve, &at);
        if (status != RB_OK)
            return status == RB_FULL ? (int)i : -1;
        struct sb_record *w = (struct sb_record *)(void *)at;
        *w = *h;
        w->path = 0;
        w->epoch = 0;
        w->interests = bits;
        w->lost = lost;
        if (!run->span.reclaim && !run->returned) { /* else it comes with what was written here before */
            w->flags = h->flags & keep_flags; /* those that a sender may set */
            w->peer = (uint16_t)run->span.source->slot;
            w->peer_generation = run->span.source->generation;
            if (__builtin_expect(run->kept != 0, 0))
                dp_mark_kept(w, run->kept);
            if (__builtin_expect(target->alone != 0, 0)) {
                w->flags |= SB_ALONE;
                w->deadline_ns = target->alone;
            }
        }
        uint32_t done = SB_HEADER;
        if (run->type[i]) { /* the type as it was looked up, whatever the sender's memory says now */
            memcpy(at + done, run->type[i], h->type_length);
            done += h->type_length;
        }
        memcpy(at + done, run->record[i] + done, h->length - done);
        if (__builtin_expect(run->pooled, 0) && h->flags & SB_POOLED) /* likewise */
            memcpy(at + h->length - sizeof *run->block, &run->block[i], sizeof *run->block);
        rb_commit(out, h->length);
    }
    return (int)run->count;
}

/* Is the run lost at this target at once, since that is slow, or would rather lose? What lies in a pool would keep its
 * sender from that; see revoke.h and lossy.h for what may. Runs are pooled as a whole, and for one that is lossy one by
 * one. */
static inline bool dp_shuts_out(struct dp_forwarder *f, const struct dp_run *run, struct dp_port *target, uint32_t bits,
                                bool lossy)
{
    const struct sb_record *h = &run->header[0];
    if (__builtin_expect(!run->pooled, 1) || !(h->flags & SB_POOLED) || h->kind != SB_EVENT)
        return false;
    struct dp_port *to = bits == SB_PLAIN && !dp_is_mailbox(target) ? dp_receiving(f, target) : NULL;
    bool slow = to && to->slot < SB_MAX_SLOTS && dp_still_slow(f, to);
    return slow || (lossy && dp_has_its_quarter(f, target, &run->block[0]));
}

/* The position after the first `count` records of the run, which lie in an endpoint's ring. */
static inline uint64_t dp_end_of_run(const struct dp_run *run, uint32_t count)
{
    const struct rb_consumer *c = &run->span.source->out[run->span.ring];
    if (run->returned)
        return run->span.to; /* it has one record */
    uint64_t offset = (uint64_t)(run->record[count - 1] - c->data);
    uint64_t position = (c->next & ~(c->capacity - 1)) + offset;
    if (position < c->next)
        position += c->capacity;
    return position + RB_ALIGN8(run->header[count - 1].length);
}

static inline bool dp_tapped(const struct dp_forwarder *f) { return __builtin_expect(f->routes.observers != 0, 0); }

/* Copies for observers, each with what became of the message (`target`: NULL where it had none); what does not fit
 * is lost to them alone. Before the source's tail moves. */
static inline void dp_tap_run(struct dp_forwarder *f, struct dp_port *target, enum sb_outcome outcome)
{
    const struct dp_run *run = &f->run;
    if (target && target->alone)
        target = dp_receiving(f, target); /* in its order, and sooner or later */
    if (target && dp_is_backlog(target)) {
        if (outcome == SB_OUTCOME_DELIVERED) /* it is told of when it has left there */
            return;
        target = NULL;
    }
    struct sb_tap tap = {.forwarded_ns = rb_now(), /* f->now may be from before they came */
                         .outcome = (uint8_t)outcome, .target = target ? (uint16_t)target->slot : SB_FROM_BUS,
                         .target_generation = target ? target->generation : 0};
    for (uint32_t i = 0; i < run->count; i++) {
        struct sb_record h = run->header[i];
        const uint8_t *record = run->record[i], *type = run->type[i] ? run->type[i] : sb_type_of(record);
        struct dp_route *route = h.type_length ? dp_lookup(&f->routes, type, h.type_length, h.flags) : NULL;
        uint32_t front = SB_HEADER + h.type_length, block = h.flags & SB_POOLED ? sizeof *run->block : 0;
        const struct dp_part parts[4] = {{type, h.type_length}, /* as it was looked up, too */
                                         {&tap, (uint32_t)sizeof tap},
                                         {record + front, h.length - front - block},
                                         {&run->block[i], block}};
        tap.kind = (uint8_t)h.kind;
        h.length += (uint32_t)sizeof tap;
        h.kind = SB_TAP;
        h.extension_length += (uint16_t)sizeof tap;
        h.interests = SB_PLAIN;
        if (!run->span.reclaim && !run->returned) {
            h.peer = (uint16_t)run->span.source->slot;
            h.peer_generation = run->span.source->generation;
        }
        for (uint32_t k = 0; route && k < route->observers.count; k++) {
            struct dp_port *observer = &f->ports[route->observers.list[k].slot];
            h.lost = (uint32_t)rb_load(&observer->down->lost);
            dp_offer(f, observer, true, &h, parts, 4);
        }
    }
}

/* Publish what was copied of the run, which the journal holds. */
static inline void dp_publish_run(struct dp_forwarder *f, struct dp_port *target, enum sb_ring_index ring)
{
    if (__builtin_expect(f->run.pooled, 0) && !dp_is_mailbox(target))
        dp_share_run(f, &f->run, target, ring);
    dp_publish(f, target, ring, f->run.count);
    if (__builtin_expect(f->run.urgent && target->live_at && ring == SB_DATA, 0))
        target->live_at = target->in[SB_DATA].published; /* the next urgent one does not pass this one */
    if (!dp_is_backlog(target))
        rb_add(&f->bus->routed, f->run.count);
}
