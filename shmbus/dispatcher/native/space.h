/* Space: a head of line that does not fit into its target's ring waits there, and other rings go on.
 *
 * It waits at most `block_timeout` since the target last made progress. Then the target is slow: what it would
 * have got is lost there, and nothing waits for it until it moves. A head of line may be passed over only once the
 * `need` is stored for which the target will ring (tests/models/space.py).
 *
 * Offers: dp_waits_until, dp_ask_for_space; dp_note_progress, dp_still_slow; dp_wake_waiters. */
#pragma once

#include "shmbus/dispatcher/native/port.h"

enum dp_space { DP_SPACE, DP_WAIT, DP_LOSE }; /* there is, there may be later, the waiting is over */

static inline void dp_set_slow(struct dp_port *port, bool slow)
{
    if (port->slow == slow)
        return;
    port->slow = slow;
    dp_set_health(port, SB_SLOW, slow);
}

/* Has the target taken something since we last looked? */
static inline void dp_note_progress(struct dp_forwarder *f, struct dp_port *target)
{
    for (int r = 0; r < SB_RINGS_IN; r++)
        if (target->in[r].tail_seen != target->progress_tail[r]) {
            target->progress_tail[r] = target->in[r].tail_seen;
            target->progress_ns = f->now;
            if (target->slow)
                dp_wake_backlogs(f);
            dp_set_slow(target, false);
        }
}

/* Likewise, whatever was seen last. True: it is slow still. */
static inline bool dp_still_slow(struct dp_forwarder *f, struct dp_port *target)
{
    if (!target->slow)
        return false;
    (void)rb_refresh_tail(&target->in[SB_DATA]);
    (void)rb_refresh_tail(&target->in[SB_URGENT_EVENTS]);
    dp_note_progress(f, target);
    return target->slow;
}

/* The source is woken when the target's ring has space up to `end`. True: there is by now. */
static inline bool dp_need_space(struct dp_port *source, struct dp_port *target, enum sb_ring_index ring, uint64_t end)
{
    struct rb_producer *out = &target->in[ring];
    uint64_t need = end - out->capacity; /* the tail that makes space */
    struct sb_down_incoming *down = &target->down->incoming[ring];
    if (need < rb_load(&down->need) || rb_load(&down->need) <= out->tail_seen)
        rb_store_seq(&down->need, need);
    rb_fence_seq(); /* with the target's tail.store, need.load: an acquire load alone could come before the store */
    if (rb_refresh_tail(out) == RB_OK && end - out->tail_seen <= out->capacity)
        return true;
    dp_set_add(&target->waiters, source->slot);
    return false;
}

/* The head of this line of the source waits for somebody whose last progress was then: until when, without another. */
static inline uint64_t dp_waits_until(struct dp_forwarder *f, struct dp_port *source, enum dp_line line,
                                      uint64_t progress_ns)
{
    uint64_t *since = &source->refused_since_ns[line];
    if (!*since)
        *since = f->now;
    return (*since > progress_ns ? *since : progress_ns) + f->block_timeout_ns;
}

/* The head of this line of the source needs space in the target's ring up to `end`. */
static inline enum dp_space dp_ask_for_space(struct dp_forwarder *f, struct dp_port *source, enum dp_line line,
                                           struct dp_port *target, enum sb_ring_index ring, uint64_t end)
{
    if (dp_need_space(source, target, ring, end))
        return DP_SPACE;
    dp_note_progress(f, target);
    uint64_t until = dp_waits_until(f, source, line, target->progress_ns);
    if (target->slow || until <= f->now) {
        dp_set_slow(target, true);
        return DP_LOSE;
    }
    if (until < f->next_deadline)
        f->next_deadline = until;
    return DP_WAIT;
}

static inline void dp_wake_waiters(struct dp_forwarder *f, struct dp_port *port)
{
    for (uint32_t w = 0; w < DP_SET_WORDS; w++) {
        f->active.word[w] |= port->waiters.word[w];
        port->waiters.word[w] = 0;
    }
    for (int r = 0; r < SB_RINGS_IN; r++)
        rb_store(&port->down->incoming[r].need, SB_NO_NEED);
}
