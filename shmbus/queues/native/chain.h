/* The chain of rings. Where a record does not fit, the holder of the producers' role makes the next, larger ring, and
 * then moves the role to it with one store: that store is the link, for whoever consumes goes on from a ring that
 * is drained and that the producers have left, and unlinks it.
 *
 * A record that is too large for the largest ring has a ring to itself, of which only as much is reserved as the
 * record takes.
 *
 * Offers: sq_make_ring; sq_enter_put_ring, sq_enter_get_ring; sq_next_put_ring, sq_next_get_ring. */
#pragma once

#include "shmbus/queues/native/segment.h"

#ifndef SQ_MOST_RING
#define SQ_MOST_RING (64u << 20) /* bytes: capacity that rings for any record grow to */
#endif

static inline struct sq_ring_segment *sq_ring(const struct sq_mapped *m) { return m->at; }

static inline uint64_t sq_capacity_for(uint64_t length)
{
    uint64_t capacity = RB_MIN_CAPACITY;
    while (rb_largest_record(capacity) < length)
        capacity *= 2;
    return capacity;
}

/* The ring with this serial, from `base` on. `length`: it is for one record of so many bytes alone; 0: for any. */
static inline bool sq_make_ring(const struct sq_core *c, uint64_t serial, uint64_t base, uint64_t capacity,
                                uint64_t length, uint64_t usual, struct sq_mapped *m)
{
    char name[SQ_MAX_FILE + 32];
    uint64_t usable = length ? RB_ALIGN8(length) : capacity;
    uint64_t size = sizeof(struct sq_ring_segment) + usable;
    if (!sq_make_segment(sq_part_name(c, "", serial, name), size, serial, m))
        return false;
    struct sq_ring_segment *ring = m->at;
    ring->capacity = capacity;
    ring->base = base;
    ring->usable = usable;
    ring->usual = usual;
    rb_store(&ring->head, base);
    rb_store(&ring->tail, base);
    sq_write_prefix(m, SQ_RING_KIND);
    return true;
}

static inline enum sq_status sq_open_ring(const struct sq_core *c, uint64_t serial, struct sq_mapped *m)
{
    char name[SQ_MAX_FILE + 32];
    sq_unmap(m);
    enum sq_status status = sq_open_segment(sq_part_name(c, "", serial, name), SQ_RING_KIND, serial, m);
    if (status != SQ_OK)
        return status;
    struct sq_ring_segment *r = m->at;
    if (m->size >= sizeof *r && rb_capacity_valid(r->capacity) && m->size - sizeof *r == r->usable &&
        r->usable <= r->capacity)
        return SQ_OK;
    sq_unmap(m);
    return SQ_CORRUPT;
}

static inline enum sq_status sq_open_producer(struct sq_core *c)
{
    struct sq_ring_segment *r = sq_ring(&c->put_ring);
    enum rb_status status = rb_producer_open(&c->producer, &r->head, &r->tail, &c->high, r->data, r->capacity);
    c->producer.high_seen = UINT64_MAX; /* nobody asks for it */
    return status == RB_OK ? SQ_OK : SQ_CORRUPT;
}

/* By the producers' holder: be at its ring, where others have left it. */
static inline enum sq_status sq_enter_put_ring(struct sq_core *c)
{
    uint64_t serial = rb_load(&c->shared->producers.ring);
    if (c->put_ring.serial != serial) {
        enum sq_status status = sq_open_ring(c, serial, &c->put_ring);
        return status == SQ_OK ? sq_open_producer(c) : status;
    }
    c->producer.next = c->producer.published = rb_load(&sq_ring(&c->put_ring)->head);
    return SQ_OK;
}

/* By the consumers' holder, likewise. */
static inline enum sq_status sq_enter_get_ring(struct sq_core *c)
{
    uint64_t serial = rb_load(&c->shared->consumers.ring);
    if (c->get_ring.serial != serial) {
        enum sq_status status = sq_open_ring(c, serial, &c->get_ring);
        if (status != SQ_OK)
            return status;
        struct sq_ring_segment *r = sq_ring(&c->get_ring);
        return rb_consumer_open(&c->consumer, &r->head, &r->tail, r->data, r->capacity) ? SQ_CORRUPT : SQ_OK;
    }
    c->consumer.next = c->consumer.released = rb_load(&sq_ring(&c->get_ring)->tail);
    if (c->consumer.head_seen < c->consumer.released)
        c->consumer.head_seen = c->consumer.released;
    return SQ_OK;
}

/* Has the ring room for one more record, as far as its reserved memory goes? */
static inline bool sq_is_for(const struct sq_ring_segment *r, uint64_t position, uint64_t length)
{
    return r->usable == r->capacity ? length <= rb_largest_record(r->capacity)
                                    : position == r->base && RB_ALIGN8(length) == r->usable;
}

/* By the producers' holder, all being published: go on to a new ring, in which a record of `length` fits. */
static inline enum sq_status sq_next_put_ring(struct sq_core *c, uint64_t length)
{
    struct sq_ring_segment *old = sq_ring(&c->put_ring);
    uint64_t serial = c->put_ring.serial + 1, base = c->producer.published, least = sq_capacity_for(length);
    struct sq_mapped m;
    bool made;
    if (least > SQ_MOST_RING && least > old->usual) {
        base = (base + least - 1) & ~(least - 1); /* so that it begins at the beginning */
        made = sq_make_ring(c, serial, base, least, length, old->usual, &m);
    } else {
        uint64_t wanted = old->usable != old->capacity || old->usual >= SQ_MOST_RING ? old->usual : 2 * old->usual;
        wanted = wanted > least ? wanted : least;
        made = sq_make_ring(c, serial, base, wanted, 0, wanted, &m) ||
               (wanted > least && sq_make_ring(c, serial, base, least, 0, least, &m));
    }
    if (!made)
        return SQ_NO_SPACE;
    RB_FAIL("queue.grown");
    sq_unmap(&c->put_ring);
    c->put_ring = m;
    rb_store_release(&c->shared->producers.ring, serial); /* sq_next_get_ring */
    RB_FAIL("queue.linked");
    return sq_open_producer(c);
}

static inline void sq_unlink_ring(const struct sq_core *c, uint64_t serial)
{
    char name[SQ_MAX_FILE + 32];
    shm_unlink(sq_part_name(c, "", serial, name));
}

/* By the consumers' holder, at a ring that is drained and that the producers have left. */
static inline enum sq_status sq_next_get_ring(struct sq_core *c)
{
    uint64_t serial = c->get_ring.serial;
    rb_store_release(&c->shared->consumers.ring, serial + 1);
    RB_FAIL("queue.left");
    sq_unlink_ring(c, serial);
    return sq_enter_get_ring(c);
}
