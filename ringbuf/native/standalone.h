/* A ring that stands alone: everything in one segment, with a bell for each side.
 *
 * Who waits for space says in `need` where the tail must be, before its epoch turns odd; the consumer stores the
 * tail and then looks at `need`, in one total order, so that it rings neither too seldom nor at every record.
 *
 * Offers: rb_look_reached; rb_wait_for_space; rb_ring_consumer, rb_ring_producer. */
#pragma once

#include "ringbuf/native/bell.h"
#include "ringbuf/native/prefix.h"
#include "ringbuf/native/ring.h"

#define RB_STANDALONE_KIND 0x676e6972u /* "ring" in memory order */
#define RB_STANDALONE_VERSION 1u

struct rb_standalone {
    struct rb_prefix prefix;
    uint64_t capacity;                   /* by the creator, before anybody can attach */
    uint64_t doorbells;                  /* likewise: 1 if there are semaphores to wait at */
    _Alignas(RB_LINE) rb_word head;      /* by the producer */
    _Alignas(RB_LINE) rb_word high;      /* by the producer: high-water mark, bytes */
    rb_word need;                        /* by the producer: the tail that it waits for */
    rb_word producer_epoch;              /* by the producer: odd while it is parked */
    _Alignas(RB_LINE) rb_word tail;      /* by the consumer */
    _Alignas(RB_LINE) rb_word consumer_epoch; /* by the consumer: odd while it is parked */
    _Alignas(RB_LINE) uint8_t data[];    /* by the producer: `capacity` bytes */
};

#include "ringbuf/native/generated.h"

/* The word that a wait is about has reached `least`. Positions and counters only rise, so a stale
 * look is a late one and never a wrong one. */
struct rb_reached {
    const rb_word *word;
    uint64_t least;
};

static inline bool rb_look_reached(void *context)
{
    const struct rb_reached *r = context;
    return rb_load_seq(r->word) >= r->least;
}

/* Producer: before waiting until a record of `length` fits. The store of `need`, then rb_look_reached's look at the
 * tail, pair with rb_ring_producer. */
static inline struct rb_reached rb_wait_for_space(const struct rb_producer *p, rb_word *need, uint64_t length)
{
    uint64_t tail = rb_end_after(p, length) - p->capacity;
    rb_store_seq(need, tail);
    return (struct rb_reached){p->tail, tail};
}

/* Producer, after rb_publish. Its store of the head and this fence pair with rb_park. */
static inline void rb_ring_consumer(struct rb_poster *consumer)
{
    rb_fence_seq();
    rb_ring_bell(consumer);
}

/* Consumer, after rb_release_to. Its store of the tail and this fence pair with rb_wait_for_space and rb_park. */
static inline void rb_ring_producer(struct rb_poster *producer, const struct rb_consumer *c, const rb_word *need)
{
    rb_fence_seq();
    if (c->released >= rb_load_seq(need))
        rb_ring_bell(producer);
}
