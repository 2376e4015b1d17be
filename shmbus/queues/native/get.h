/* Getting: with the consumers' role, records are copied out of its ring, and the tail moves past them with one store.
 * Before that, the taker's row says what it has in hand (hand.h), and `next_count` what was taken (put.h).
 *
 * Offers: sq_get, sq_look_message. */
#pragma once

#include "shmbus/queues/native/hand.h"
#include "shmbus/queues/native/put.h"

#include <stdlib.h>

#define SQ_MOST_AT_ONCE 262144u /* bytes that one sq_get copies, unless a single record has more */

static inline enum sq_status sq_begin_get(struct sq_core *c, const struct sq_user *u, uint64_t until)
{
    struct sq_role *r = &c->shared->consumers;
    enum sq_status status = sq_take_role(r, u, until);
    if (status != SQ_OK)
        return status;
    status = sq_enter_get_ring(c);
    if (status == SQ_OK && rb_load(&r->hurt)) {
        const rb_word *tail = &sq_ring(&c->get_ring)->tail;
        uint64_t dead = rb_load(&r->holder), serial = c->get_ring.serial;
        sq_count(r, tail);
        if (dead && dead <= SQ_ROWS)
            sq_correct_hand(&c->shared->rows[dead - 1], rb_load(tail));
        if (serial > 1)
            sq_unlink_ring(c, serial - 1);
        sq_heal(r, u);
    }
    if (status != SQ_OK)
        sq_unlock(r->lock);
    return status;
}

/* The record at `*position`, in whichever ring of the chain; SQ_WAIT: there is none. */
static inline enum sq_status sq_peek(struct sq_core *c, uint64_t *position, struct rb_head8 *head,
                                     const uint8_t **record)
{
    for (;;) {
        enum rb_status found = rb_peek_at(&c->consumer, position, sizeof *head, head, record);
        if (found == RB_OK)
            return SQ_OK;
        if (found == RB_CORRUPT)
            return SQ_CORRUPT;
        if (rb_load_acquire(&c->shared->producers.ring) == c->get_ring.serial) /* sq_next_put_ring */
            return SQ_WAIT;
        /* What the producers published before they left it is visible by now. */
        if (rb_load(&sq_ring(&c->get_ring)->head) != *position)
            continue;
        enum sq_status status = sq_next_get_ring(c);
        if (status != SQ_OK)
            return status;
        *position = c->consumer.released;
    }
}

static inline bool sq_make_room(struct sq_user *u, uint64_t bytes)
{
    if (bytes <= u->size)
        return true;
    uint64_t size = u->size ? u->size : 512;
    while (size < bytes)
        size *= 2;
    uint8_t *data = realloc(u->data, size);
    if (!data)
        return false;
    u->data = data;
    u->size = size;
    return true;
}

/* Up to `most` records go to the end of what the user has in `data`; `*got`: how many. SQ_WAIT: none is there. */
static inline enum sq_status sq_get(struct sq_core *c, struct sq_user *u, uint64_t most, uint64_t *got, uint64_t until)
{
    struct sq_role *r = &c->shared->consumers;
    struct rb_head8 head;
    const uint8_t *record;
    *got = 0;
    enum sq_status status = sq_begin_get(c, u, until);
    if (status != SQ_OK)
        return status;
    uint64_t position = c->consumer.released, from = 0, end = position, copied = 0, start = u->end;
    while (*got < most) {
        if (*got) { /* the others are in the same ring */
            enum rb_status found = rb_peek_at(&c->consumer, &position, sizeof head, &head, &record);
            if (found != RB_OK)
                break;
        } else if ((status = sq_peek(c, &position, &head, &record)) != SQ_OK) {
            break;
        }
        uint64_t size = RB_ALIGN8(head.length);
        if (*got && u->end - start + size > SQ_MOST_AT_ONCE)
            break;
        if (!sq_make_room(u, u->end + size)) {
            status = *got ? SQ_OK : SQ_NO_SPACE;
            break;
        }
        if (c->shared->redeliver) {
            /* A hand that has something in it already cannot become larger without losing that. */
            uint64_t bytes = copied + sizeof(struct sq_copy) + size;
            bool fits = u->hand.serial == u->row && u->hand.size >= sizeof(struct sq_hand_segment) + bytes;
            if (*got && !fits)
                break;
            if (!fits && (status = sq_open_hand(c, u->row, bytes, &u->hand)) != SQ_OK)
                break;
            copied = sq_copy_to_hand(u, copied, position, record, head.length);
        }
        if (!*got)
            from = position;
        memcpy(u->data + u->end, &head, sizeof head);
        memcpy(u->data + u->end + sizeof head, record + sizeof head, head.length - sizeof head);
        u->end += size;
        position += size;
        end = position;
        ++*got;
    }
    struct sq_call call = {0, 0};
    if (*got) {
        uint64_t count = rb_load(&r->count) + *got;
        sq_note_hand(c, u, from, end, *got);
        rb_store(&r->next_count, count);
        rb_store(&r->next_position, end);
        rb_release_to(&c->consumer, end);
        rb_store_release(&r->count, count);
        RB_FAIL("queue.taken");
        call = sq_call(&r->bell, rb_load(&c->none_asleep[1]), *got);
    }
    sq_unlock(r->lock);
    sq_wake(&r->bell, call, &c->none_asleep[1]);
    return status;
}

/* Is there a message, or one that a dead user had in hand? */
static inline bool sq_look_message(void *context)
{
    const struct sq_queue *q = ((struct sq_look_for *)context)->queue;
    uint64_t taken = rb_load_seq(&q->consumers.count);
    return (int64_t)(rb_load_seq(&q->producers.count) - taken) > 0 || rb_load(&q->orphans);
}
