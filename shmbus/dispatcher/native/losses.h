/* Losses that nobody chose, told of: BUS remembers the last ones, where, why and of what, and `$bus.lost` says so: with
 * the first one, then once a second at most for each receiver and reason, and once more after the last. What is still
 * to be told stands in DOWN, so that a successor tells it.
 *
 * Offers: dp_remember_loss; dp_emit_lost, dp_tell_rest. */
#pragma once

#include "shmbus/dispatcher/native/emit.h"

#define DP_TELL_LOST_NS 1000000000u

/* Where BUS remembers such losses of the target's; else where the oldest stand. */
static inline struct sb_last_loss *dp_last_loss(struct dp_forwarder *f, const struct dp_port *target, enum sb_loss why)
{
    struct sb_last_loss *oldest = f->bus->last_losses;
    for (uint32_t i = 0; i < SB_LAST_LOSSES; i++) {
        struct sb_last_loss *known = &f->bus->last_losses[i];
        if (rb_load(&known->whom) == dp_whom_of(target) && rb_load(&known->why) == why)
            return known;
        if (rb_load(&known->at_ns) < rb_load(&oldest->at_ns))
            oldest = known;
    }
    return oldest;
}

/* After the loss was counted. `h`: what was lost last, or one of that, whose payload has `size` bytes; NULL: it is not
 * known. */
static inline void dp_remember_loss(struct dp_forwarder *f, const struct dp_port *target, enum sb_loss why,
                                    const struct sb_record *h, const uint8_t *type, uint64_t size, const char *source)
{
    struct sb_last_loss *last = dp_last_loss(f, target, why);
    uint64_t largest = rb_largest_record(target->in[SB_DATA].capacity), frame = h ? sb_frame_size(h) : 0;
    uint32_t type_length = h ? h->type_length : 0;
    rb_store(&last->seq, (rb_load(&last->seq) + 1) | 1); /* odd also where a kill had left it odd */
    rb_fence_release(); /* with steady() in shmbus/views/memory.py: who saw a new word sees that it is odd */
    rb_store(&last->whom, dp_whom_of(target));
    rb_store(&last->why, why);
    rb_store(&last->pid, target->pid);
    rb_store(&last->count, rb_load(&target->down->lost_by[why]));
    rb_store(&last->at_ns, f->now);
    rb_store(&last->size, size);
    rb_store(&last->limit, largest > frame ? largest - frame : 0);
    memcpy(last->name, target->name, sizeof last->name);
    snprintf(last->source, sizeof last->source, "%s", h ? source : "");
    if (type_length)
        memcpy(last->type, type, type_length);
    last->type[type_length] = 0;
    rb_store_release(&last->seq, rb_load(&last->seq) + 1);
}

/* $bus.lost: how many the target has lost for that reason by now. */
static inline void dp_tell_lost(struct dp_forwarder *f, struct dp_port *target, enum sb_loss why)
{
    static const struct sb_last_loss forgotten;
    const struct sb_last_loss *last = dp_last_loss(f, target, why);
    if (rb_load(&last->whom) != dp_whom_of(target) || rb_load(&last->why) != why)
        last = &forgotten; /* so many others have lost since */
    struct dp_pack pack = {.bytes = f->scratch, .capacity = DP_EVENT_BYTES};
    target->lost_told_ns[why] = f->now;
    dp_pack_map(&pack, 9);
    dp_pack_string(&pack, "name", target->name);
    dp_pack_number(&pack, "pid", target->pid);
    dp_pack_number(&pack, "generation", target->generation);
    dp_pack_string(&pack, "reason", sb_loss_word(why));
    dp_pack_number(&pack, "count", rb_load(&target->down->lost_by[why]));
    dp_pack_string(&pack, "type", last->type);
    dp_pack_string(&pack, "source", last->source);
    dp_pack_number(&pack, "size", rb_load(&last->size));
    dp_pack_number(&pack, "limit", rb_load(&last->limit));
    dp_emit(f, "$bus.lost", &pack);
    RB_FAIL("lost.told");
    rb_store(&target->down->lost_untold, rb_load(&target->down->lost_untold) & ~(1ull << why));
}

/* The target does not get events from `source` such as this one, though it did not choose so. After the loss was
 * counted, and never about one of the bus's own. */
static inline void dp_emit_lost(struct dp_forwarder *f, struct dp_port *target, enum sb_loss why,
                                const struct sb_record *h, const uint8_t *type, uint64_t size, const char *source)
{
    if (!(target = dp_receiving(f, target)))
        return;
    dp_remember_loss(f, target, why, h, type, size, source);
    if (target->lost_told_ns[why] && f->now - target->lost_told_ns[why] < DP_TELL_LOST_NS)
        rb_store(&target->down->lost_untold, rb_load(&target->down->lost_untold) | 1ull << why);
    else
        dp_tell_lost(f, target, why);
}

/* What it has lost since $bus.lost told of it last; `ends`: now or never. */
static inline void dp_tell_rest(struct dp_forwarder *f, struct dp_port *target, bool ends)
{
    uint64_t untold = rb_load(&target->down->lost_untold);
    for (uint32_t why = 0; untold && why < SB_LOSSES; why++)
        if (untold >> why & 1 && (ends || f->now - target->lost_told_ns[why] >= DP_TELL_LOST_NS))
            dp_tell_lost(f, target, (enum sb_loss)why);
}
