/* Putting: with the producers' role, records are written into its ring and made visible with one store of the head.
 *
 * What `count` is to be once the head is at `next_position` is stored before the head moves: who finds that the holder
 * died looks where the head is, and knows how many messages were put.
 *
 * Offers: sq_put. */
#pragma once

#include "shmbus/queues/native/chain.h"
#include "shmbus/queues/native/role.h"
#include "shmbus/queues/native/sleep.h"

struct sq_item {                   /* a message that is to be put */
    struct rb_head8 head;
    uint64_t value;                /* the payload, where it has 8 bytes and `payload` is NULL */
    const void *payload;
};

static inline void sq_count(struct sq_role *r, const rb_word *position)
{
    if (rb_load(position) == rb_load(&r->next_position))
        rb_store_release(&r->count, rb_load(&r->next_count));
}

static inline enum sq_status sq_begin_put(struct sq_core *c, const struct sq_user *u, uint64_t until)
{
    struct sq_role *r = &c->shared->producers;
    enum sq_status status = sq_take_role(r, u, until);
    if (status != SQ_OK)
        return status;
    status = sq_enter_put_ring(c);
    if (status == SQ_OK && rb_load(&r->hurt)) {
        sq_count(r, &sq_ring(&c->put_ring)->head);
        sq_heal(r, u);
    }
    if (status != SQ_OK)
        sq_unlock(r->lock);
    return status;
}

/* How many more the queue may have. */
static inline uint64_t sq_room(struct sq_core *c, uint64_t wanted)
{
    uint64_t maxsize = c->shared->maxsize, count = rb_load(&c->shared->producers.count);
    if (!maxsize)
        return wanted;
    if (count + wanted > c->taken_seen + maxsize)
        c->taken_seen = rb_load_acquire(&c->shared->consumers.count);
    uint64_t room = c->taken_seen + maxsize > count ? c->taken_seen + maxsize - count : 0;
    return room < wanted ? room : wanted;
}

static inline void sq_publish(struct sq_core *c, uint64_t count)
{
    struct sq_role *r = &c->shared->producers;
    rb_store(&r->next_count, count);
    rb_store(&r->next_position, c->producer.next);
    rb_publish(&c->producer);
    rb_store_release(&r->count, count);
    RB_FAIL("queue.counted");
}

/* Put the first of `items` that there is room for; `*put`: how many. SQ_WAIT: the queue has `maxsize` messages. */
static inline enum sq_status sq_put(struct sq_core *c, const struct sq_user *u, const struct sq_item *items,
                                    uint64_t number, uint64_t *put, uint64_t until)
{
    struct sq_role *r = &c->shared->producers;
    *put = 0;
    enum sq_status status = sq_begin_put(c, u, until);
    if (status != SQ_OK)
        return status;
    uint64_t room = sq_room(c, number), count = rb_load(&r->count), i = 0;
    if (room < number)
        status = SQ_WAIT;
    while (i < room) {
        const struct sq_item *item = &items[i];
        uint32_t length = item->head.length;
        uint8_t *at;
        enum rb_status fits = sq_is_for(sq_ring(&c->put_ring), c->producer.next, length)
                                  ? rb_claim(&c->producer, length, 0, &at) : RB_FULL;
        if (fits == RB_FULL) {
            if (c->producer.next != c->producer.published)
                sq_publish(c, count + i);
            enum sq_status grown = sq_next_put_ring(c, length);
            if (grown == SQ_OK)
                continue;
            status = grown;
            break;
        }
        if (fits == RB_CORRUPT) {
            status = SQ_CORRUPT;
            break;
        }
        memcpy(at, &item->head, sizeof item->head);
        if (length > sizeof item->head)
            memcpy(at + sizeof item->head, item->payload ? item->payload : &item->value, length - sizeof item->head);
        rb_commit(&c->producer, length);
        i++;
    }
    if (c->producer.next != c->producer.published)
        sq_publish(c, count + i);
    *put = i;
    struct sq_call call = {0, 0};
    if (i)
        call = sq_call(&r->bell, rb_load(&c->none_asleep[0]), i);
    sq_unlock(r->lock);
    sq_wake(&r->bell, call, &c->none_asleep[0]);
    return status;
}

struct sq_look_for {
    const struct sq_queue *queue;
};

/* Is there room for a message? */
static inline bool sq_look_room(void *context)
{
    const struct sq_queue *q = ((struct sq_look_for *)context)->queue;
    uint64_t taken = rb_load_seq(&q->consumers.count);
    return (int64_t)(taken + q->maxsize - rb_load_seq(&q->producers.count)) > 0;
}
