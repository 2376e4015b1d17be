/* The journal: what the dispatcher has in hand stands in BUS before it is done.
 *
 * Every field is an absolute value, so a successor may repeat the operation without harm; it asks the target's
 * head (of which the dispatcher is the only writer) whether the run was published. `kind` is stored 0 before any
 * other field changes and its value last, because the words are written one at a time and a kill may fall
 * between any two. tests/models/forwarding.py explores kills at every step. */
#ifndef DP_JOURNAL_H
#define DP_JOURNAL_H

#include "shmbus/dispatcher/native/port.h"

#define DP_FROM_RECLAIM (1u << 24)
#define DP_RING_NAME(slot, ring) ((uint64_t)(slot) | (uint64_t)(ring) << 16)

struct dp_source { /* where the records of a run stand */
    struct dp_port *port;
    enum sb_ring_index ring;
    bool reclaim; /* not an outgoing ring, but the incoming data ring of a port that ended */
    uint64_t from, to;
};

static inline void dp_journal_begin(struct dp_forwarder *f, const struct dp_source *s)
{
    struct sb_journal *h = &f->bus->journal;
    rb_store_release(&h->kind, SB_JOURNAL_NONE);
    rb_fence_release(); /* the fields below stay below */
    RB_FAIL("journal.cleared");
    rb_store(&h->source, DP_RING_NAME(s->port->slot, s->ring) | (s->reclaim ? DP_FROM_RECLAIM : 0));
    rb_store(&h->source_generation, s->port->generation);
    rb_store(&h->from, s->from);
    rb_store(&h->to, s->to);
}

static inline void dp_journal_run(struct dp_forwarder *f, const struct dp_source *s, const struct dp_port *t,
                               enum sb_ring_index ring, enum sb_journal_kind kind, uint64_t bits,
                               uint64_t detail)
{
    struct sb_journal *h = &f->bus->journal;
    dp_journal_begin(f, s);
    rb_store(&h->target, DP_RING_NAME(t->slot, ring));
    rb_store(&h->target_generation, t->generation);
    rb_store(&h->head, t->in[ring].published);
    rb_store(&h->bits, bits);
    rb_store(&h->detail, detail);
    RB_FAIL("journal.filled");
    rb_store_release(&h->kind, kind);
    RB_FAIL("journal.stored");
}

static inline void dp_journal_lost(struct dp_forwarder *f, const struct dp_source *s, const struct dp_port *t,
                                uint64_t lost_after, uint64_t detail, uint64_t bits_after)
{
    struct sb_journal *h = &f->bus->journal;
    dp_journal_begin(f, s);
    rb_store(&h->target, DP_RING_NAME(t->slot, SB_DATA));
    rb_store(&h->target_generation, t->generation);
    rb_store(&h->head, lost_after);
    rb_store(&h->bits, bits_after);
    rb_store(&h->detail, detail);
    RB_FAIL("journal.filled");
    rb_store_release(&h->kind, SB_JOURNAL_LOST);
    RB_FAIL("journal.stored");
}

/* Entry `index` of a standing fan-out keeps `bits_after`; `member` gets `bits` in a new entry at `count`. */
static inline void dp_journal_rechoose(struct dp_forwarder *f, const struct dp_source *s, uint64_t index, uint64_t count,
                                    uint64_t bits_after, uint64_t bits, uint64_t member)
{
    struct sb_journal *h = &f->bus->journal;
    dp_journal_begin(f, s);
    rb_store(&h->target, member);
    rb_store(&h->head, bits);
    rb_store(&h->bits, bits_after);
    rb_store(&h->detail, index | count << 32);
    RB_FAIL("journal.filled");
    rb_store_release(&h->kind, SB_JOURNAL_RECHOOSE);
    RB_FAIL("journal.stored");
}

/* The interests of one reclaimed record that are dealt with, and which record it is, in one word: so that moving
 * on is one store as well. */
static inline uint64_t dp_reclaimed(uint64_t position, uint32_t bits) { return position >> 3 << 32 | bits; }
static inline uint32_t dp_reclaimed_of(uint64_t position, uint64_t word)
{
    return word >> 32 == (uint32_t)(position >> 3) ? (uint32_t)word : 0;
}

/* The records up to `to` need nothing more. */
static inline void dp_consume(struct dp_forwarder *f, const struct dp_source *s)
{
    struct dp_port *p = s->port;
    if (s->reclaim) {
        RB_FAIL("reclaim.consume");
        rb_store_release(&p->down->incoming[SB_DATA].reclaim, s->to);
        return;
    }
    rb_release_to(&p->out[s->ring], s->to);
    p->out[s->ring].next = s->to;
    if (!p->tail_moved[SB_DATA] && !p->tail_moved[SB_REPLIES])
        f->moved_slots[f->moved_count++] = p->slot;
    p->tail_moved[s->ring] = true;
}

#endif
