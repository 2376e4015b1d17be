/* Room: a front that does not fit into its target's ring waits there, and other rings go on.
 *
 * It waits at most `block_timeout` since the target last made progress. Then the target is slow: what it would
 * have got is lost there, and nothing waits for it until it moves. A front may be passed over only once the
 * `need` is stored for which the target will ring (tests/models/space.py). */
#ifndef DP_ROOM_H
#define DP_ROOM_H

#include "shmbus/dispatcher/native/deliver.h"

/* `t` has taken something since we last looked. */
static inline void dp_note_progress(struct dp_forwarder *f, struct dp_port *t)
{
    for (int r = 0; r < SB_RINGS; r++)
        if (t->in[r].tail_seen != t->progress_tail[r]) {
            t->progress_tail[r] = t->in[r].tail_seen;
            t->progress_ns = f->now;
            if (t->slow) {
                t->slow = false;
                dp_row_set(t, &t->row->health, rb_load(&t->row->health) & ~(uint64_t)SB_SLOW);
            }
        }
}

/* `p` has something for `t` that would lead to `end`, and is woken when there is room. True: there is by now. */
static inline bool dp_need_room(struct dp_port *p, struct dp_port *t, enum sb_ring_index ring, uint64_t end)
{
    struct rb_producer *out = &t->in[ring];
    uint64_t need = end - out->capacity; /* the tail that makes room */
    struct sb_down_incoming *d = &t->down->incoming[ring];
    if (need < rb_load(&d->need) || rb_load(&d->need) <= out->tail_seen)
        rb_store_seq(&d->need, need);
    rb_fence_seq(); /* an acquire load alone could come before the store */
    if (rb_refresh_tail(out) == RB_OK && end - out->tail_seen <= out->capacity)
        return true;
    dp_set_add(&t->waiters, p->slot);
    return false;
}

/* The same for a front of `p`. */
static inline bool dp_ask_for_room(struct dp_forwarder *f, struct dp_port *p, enum sb_ring_index front_ring,
                                   struct dp_port *t, enum sb_ring_index ring, uint64_t end)
{
    if (dp_need_room(p, t, ring, end))
        return true;
    struct dp_head_of_line *front = &p->head_of_line[front_ring];
    if (!front->blocked || front->on != t->slot) {
        if (!front->since_ns)
            front->since_ns = f->now;
        front->blocked = true;
        front->on = (uint16_t)t->slot;
    }
    return false;
}

/* Until when may a front wait for `t`? In the past: no longer. */
static inline uint64_t dp_patience(struct dp_forwarder *f, const struct dp_head_of_line *front, struct dp_port *t)
{
    dp_note_progress(f, t);
    if (t->slow)
        return 0;
    uint64_t since = front->since_ns ? front->since_ns : f->now;
    return (since > t->progress_ns ? since : t->progress_ns) + f->block_timeout_ns;
}

static inline void dp_mark_slow(struct dp_port *t)
{
    if (!t->slow) {
        t->slow = true;
        dp_row_set(t, &t->row->health, rb_load(&t->row->health) | SB_SLOW);
    }
}

static inline void dp_clear_head_of_line(struct dp_head_of_line *front) { *front = (struct dp_head_of_line){0}; }

/* Wait for room in `t`, or give up on it: true when the caller shall lose the front there now. */
static inline bool dp_wait_or_lose(struct dp_forwarder *f, struct dp_port *p, enum sb_ring_index front_ring,
                                   struct dp_port *t, enum sb_ring_index ring, uint64_t end, bool lossy, bool *again)
{
    *again = false;
    if (lossy)
        return true;
    if (dp_ask_for_room(f, p, front_ring, t, ring, end)) {
        *again = true;
        return false;
    }
    uint64_t until = dp_patience(f, &p->head_of_line[front_ring], t);
    if (until <= f->now) {
        dp_mark_slow(t);
        return true;
    }
    if (until < f->next_deadline)
        f->next_deadline = until;
    return false;
}

#endif
