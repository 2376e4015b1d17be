/* The journal: what the dispatcher does next stands in BUS before it is done.
 *
 * Every field is an absolute value, so a successor may repeat the operation without harm; it asks the target's
 * head (of which the dispatcher is the only writer) whether the run was published. `kind` is stored 0 before any
 * other field changes and its value last, because the words are written one at a time and a kill may fall
 * between any two. tests/models/forwarding.py explores kills at every step.
 *
 * Offers: dp_journal, dp_journal_run, dp_count_lost; dp_consume; dp_reclaimed, dp_reclaimed_of. */
#pragma once

#include "shmbus/dispatcher/native/share.h"

#define DP_FROM_RECLAIM (1u << 24)
#define DP_RING_NAME(slot, ring) ((uint64_t)(slot) | (uint64_t)(ring) << 16)

/* What `head`, `bits` and `detail` mean for each kind, struct sb_journal says. */
static inline void dp_journal(struct dp_forwarder *f, enum sb_journal_kind kind, const struct dp_span *span,
                              const struct dp_port *target, enum sb_ring_index ring, uint64_t head, uint64_t bits,
                              uint64_t detail)
{
    struct sb_journal *j = &f->bus->journal;
    rb_store_release(&j->kind, SB_JOURNAL_NONE);
    rb_fence_release(); /* the fields below stay below: dp_read_journal() in a successor goes by `kind` */
    RB_FAIL("journal.cleared");
    rb_store(&j->source, DP_RING_NAME(span->source->slot, span->ring) | (span->reclaim ? DP_FROM_RECLAIM : 0));
    rb_store(&j->source_generation, span->source->generation);
    rb_store(&j->from, span->from);
    rb_store(&j->to, span->to);
    rb_store(&j->target, DP_RING_NAME(target->slot, ring));
    rb_store(&j->target_generation, target->generation);
    rb_store(&j->head, head);
    rb_store(&j->bits, bits);
    rb_store(&j->detail, detail);
    RB_FAIL("journal.filled");
    rb_store_release(&j->kind, kind);
    RB_FAIL("journal.stored");
}

/* What was copied into this ring of the target's is about to be published. */
static inline void dp_journal_run(struct dp_forwarder *f, const struct dp_span *span, const struct dp_port *target,
                                  enum sb_ring_index ring, uint64_t bits, uint64_t detail)
{
    dp_journal(f, SB_JOURNAL_RUN, span, target, ring, target->in[ring].published, bits, detail);
}

/* `n` messages that `target` does not get, and why; of one that catches up, its endpoint. With a span, the
 * journal ties that to the records there. */
static inline void dp_count_lost(struct dp_forwarder *f, struct dp_port *target, enum sb_loss why, uint64_t n,
                                 const struct dp_span *span, uint64_t bits, uint64_t detail)
{
    if (!(target = dp_receiving(f, target)))
        return;
    uint64_t after = rb_load(&target->down->lost) + n;
    if (span)
        dp_journal(f, SB_JOURNAL_LOST, span, target, SB_DATA, after, bits, detail | (uint64_t)why << 32);
    rb_store_release(&target->down->lost, after); /* before `lost_by`: dp_recover_lost() goes by that */
    RB_FAIL("lost.counted");
    rb_store_release(&target->down->lost_by[why], rb_load(&target->down->lost_by[why]) + n);
    rb_add(&f->bus->lost, n);
    rb_add(&f->bus->lost_by[why], n);
}

/* The interests of one reclaimed record that are dealt with, and which record it is, in one word: so that moving
 * on is one store as well. */
static inline uint64_t dp_reclaimed(uint64_t position, uint32_t bits) { return position >> 3 << 32 | bits; }
static inline uint32_t dp_reclaimed_of(uint64_t position, uint64_t word)
{
    return word >> 32 == (uint32_t)(position >> 3) ? (uint32_t)word : 0;
}

/* The records up to `to` need nothing more. */
static inline void dp_consume(struct dp_forwarder *f, const struct dp_span *span)
{
    struct dp_port *source = span->source;
    if (span->reclaim) {
        RB_FAIL("reclaim.consume");
        rb_store_release(&source->down->incoming[span->ring].reclaim, span->to);
        if (__builtin_expect(source->shares.count && dp_is_backlog(source), 0))
            dp_leave_shares(f, source, span->to);
        return;
    }
    rb_release_to(&source->out[span->ring], span->to);
    source->out[span->ring].next = span->to;
    dp_note_moved(f, source, span->ring);
    if (__builtin_expect(source->pool != NULL, 0))
        dp_records_consumed(f, source->pool, span->ring, span->to);
}
