/* The beginning and the end of a queue: the last user that leaves in good order removes all its names.
 *
 * Offers: sq_create, sq_take_leave. */
#pragma once

#include "shmbus/queues/native/orphan.h"

/* In a segment of zeros, before its prefix is written. */
static inline enum sq_status sq_create(struct sq_core *c, uint64_t maxsize, bool redeliver, uint64_t ring_bytes)
{
    struct sq_queue *q = c->shared;
    q->maxsize = maxsize;
    q->redeliver = redeliver;
    if (sq_make_lock(q->producers.lock) || sq_make_lock(q->consumers.lock) || sq_make_lock(q->book.lock))
        return SQ_CORRUPT;
    struct sq_mapped m;
    if (!sq_make_ring(c, 1, 0, ring_bytes, 0, ring_bytes, &m))
        return SQ_NO_SPACE;
    sq_unmap(&m);
    rb_store(&q->producers.ring, 1);
    rb_store(&q->consumers.ring, 1);
    return SQ_OK;
}

static inline void sq_unlink_all(const struct sq_core *c)
{
    char name[SQ_MAX_FILE + 32];
    uint64_t last = rb_load(&c->shared->producers.ring) + 1, first = rb_load(&c->shared->consumers.ring);
    for (uint64_t serial = first > 1 ? first - 1 : first; serial <= last; serial++)
        sq_unlink_ring(c, serial);
    for (uint64_t row = 1; c->shared->redeliver && row <= SQ_ROWS; row++)
        shm_unlink(sq_part_name(c, "hand-", row, name));
    shm_unlink(c->name);
}

/* If nobody uses the queue any more, its names go: true. `at_exit`: this process does not, whatever its rows say. What
 * it keeps for others is free; those of threads that still wait go on saying what is in hand. */
static inline bool sq_take_leave(struct sq_core *c, bool at_exit, uint64_t until)
{
    struct sq_queue *q = c->shared;
    if (sq_take_book(q, until) != SQ_OK)
        return false;
    bool last = !rb_load(&q->gone);
    for (uint32_t i = 0; i < SQ_ROWS; i++) {
        uint64_t state = rb_load(&q->rows[i].state);
        bool mine = at_exit && sq_is_own(c, &q->rows[i]);
        if (mine && state == SQ_PLEDGED)
            rb_store_release(&q->rows[i].state, state = SQ_FREE);
        last = last && (state == SQ_FREE || state == SQ_ORPHANED || mine || sq_is_dead(c, &q->rows[i]));
    }
    if (last) {
        rb_store(&q->gone, 1);
        sq_unlink_all(c);
    }
    sq_leave_book(q);
    return last;
}
