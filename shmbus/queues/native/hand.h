/* What a thread has in hand: the messages of its last get. Its row names their positions before the tail moves past
 * them, so at its death it is known what died with it; where that is to be delivered again, copies stand in a segment
 * of the row's, too.
 *
 * A row names a message that its user never took if it died in between: the next holder of the consumers' role sees
 * that the tail is not beyond, and takes it out of that hand.
 *
 * Offers: sq_empty_hand; sq_open_hand, sq_copy_to_hand; sq_note_hand, sq_drop_first; sq_correct_hand. */
#pragma once

#include "shmbus/queues/native/segment.h"

struct sq_copy { /* in the memory of a row; the record comes behind it */
    uint64_t position;
};

static inline void sq_empty_hand(const struct sq_core *c, const struct sq_user *u)
{
    rb_store(&sq_row_of(c, u)->hand_count, 0);
}

/* The memory of the row, with at least so many bytes of data; what is in it may be lost. */
static inline enum sq_status sq_open_hand(const struct sq_core *c, uint64_t row, uint64_t bytes, struct sq_mapped *m)
{
    char name[SQ_MAX_FILE + 32];
    uint64_t size = 4096;
    sq_part_name(c, "hand-", row, name);
    if (m->serial == row && m->size >= sizeof(struct sq_hand_segment) + bytes)
        return SQ_OK;
    sq_unmap(m);
    if (sq_open_segment(name, SQ_HAND_KIND, row, m) == SQ_OK) {
        if (m->size >= sizeof(struct sq_hand_segment) + bytes)
            return SQ_OK;
        sq_unmap(m);
    }
    while (size < sizeof(struct sq_hand_segment) + bytes)
        size *= 2;
    if (!sq_make_segment(name, size, row, m))
        return SQ_NO_SPACE;
    sq_write_prefix(m, SQ_HAND_KIND);
    return SQ_OK;
}

static inline uint8_t *sq_hand(const struct sq_mapped *m) { return ((struct sq_hand_segment *)m->at)->data; }

/* Before the tail moves. `offset`: behind the copies made before; the new end. */
static inline uint64_t sq_copy_to_hand(struct sq_user *u, uint64_t offset, uint64_t position, const uint8_t *record,
                                       uint32_t length)
{
    struct sq_copy copy = {position};
    memcpy(sq_hand(&u->hand) + offset, &copy, sizeof copy);
    memcpy(sq_hand(&u->hand) + offset + sizeof copy, record, length);
    return offset + sizeof copy + RB_ALIGN8(length);
}

/* `count` messages between these positions are in hand. */
static inline void sq_note_hand(const struct sq_core *c, const struct sq_user *u, uint64_t from, uint64_t to,
                                uint64_t count)
{
    struct sq_row *row = sq_row_of(c, u);
    uint64_t taken = rb_load(&row->taken);
    rb_store(&row->hand_from, from);
    rb_store(&row->hand_to, to);
    rb_store(&row->hand_at, 0);
    rb_store(&row->taken_before, taken);
    rb_store_release(&row->hand_count, count);
    RB_FAIL("queue.notes");
    rb_store_release(&row->taken, taken + count); /* behind the count: sq_correct_hand takes both back */
    RB_FAIL("queue.noted");
}

/* The first of what is in hand is not any more. */
static inline void sq_drop_first(const struct sq_core *c, const struct sq_user *u, uint64_t in_hand)
{
    struct sq_row *row = sq_row_of(c, u);
    if (in_hand > 1 && c->shared->redeliver && u->hand.at) {
        uint64_t at = rb_load(&row->hand_at);
        struct rb_head8 head;
        memcpy(&head, sq_hand(&u->hand) + at + sizeof(struct sq_copy), sizeof head);
        rb_store(&row->hand_at, at + sizeof(struct sq_copy) + RB_ALIGN8(head.length));
    }
    rb_store_release(&row->hand_count, in_hand - 1);
}

/* The holder of the consumers' role died, and the tail is there. */
static inline void sq_correct_hand(struct sq_row *dead, uint64_t tail)
{
    if (rb_load(&dead->hand_count) && rb_load(&dead->hand_to) > tail) {
        rb_store_release(&dead->taken, rb_load(&dead->taken_before));
        rb_store_release(&dead->hand_count, 0);
    }
}
