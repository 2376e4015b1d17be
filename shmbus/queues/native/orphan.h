/* Taking over what a dead user had in hand: one message goes from its row's copies into the taker's hand.
 *
 * The book says which message, and what the orphaned row is to say afterwards, before the taker's row names it. So if
 * the taker dies, one of the two rows has it: positions never come twice.
 *
 * Offers: sq_take_over. */
#pragma once

#include "shmbus/queues/native/rows.h"

/* The first message of an orphaned row: its copy. NULL: it cannot be, and what the row has is given up. */
static inline const uint8_t *sq_first_copy(const struct sq_core *c, uint32_t index, struct sq_mapped *m,
                                           struct sq_copy *copy, struct rb_head8 *head)
{
    char name[SQ_MAX_FILE + 32];
    uint64_t at = rb_load(&c->shared->rows[index].hand_at);
    if (sq_open_segment(sq_part_name(c, "hand-", index + 1, name), SQ_HAND_KIND, index + 1, m) != SQ_OK)
        return NULL;
    uint64_t room = m->size - sizeof(struct sq_hand_segment);
    if (at > room || room - at < sizeof *copy + sizeof *head)
        return NULL;
    memcpy(copy, sq_hand(m) + at, sizeof *copy);
    memcpy(head, sq_hand(m) + at + sizeof *copy, sizeof *head);
    bool fits = head->length >= sizeof *head && head->length <= room - at - sizeof *copy;
    return fits ? sq_hand(m) + at + sizeof *copy : NULL;
}

static inline enum sq_status sq_take_from(struct sq_core *c, struct sq_user *u, uint32_t index)
{
    struct sq_queue *q = c->shared;
    struct sq_row *orphan = &q->rows[index];
    struct sq_mapped m = {0};
    struct sq_copy copy;
    struct rb_head8 head;
    enum sq_status status = SQ_OK;
    const uint8_t *record = sq_first_copy(c, index, &m, &copy, &head);
    if (!record) {
        rb_store(&orphan->hand_count, 0);
        rb_store_release(&orphan->state, SQ_FREE);
        status = SQ_CORRUPT;
    } else if (!sq_make_room(u, u->end + RB_ALIGN8(head.length)) ||
               sq_open_hand(c, u->row, sizeof copy + RB_ALIGN8(head.length), &u->hand) != SQ_OK) {
        status = SQ_NO_SPACE;
    } else {
        memcpy(u->data + u->end, record, head.length);
        u->end += RB_ALIGN8(head.length);
        sq_copy_to_hand(u, 0, copy.position, record, head.length);
        rb_store(&q->book.row, index);
        rb_store(&q->book.taker, u->row - 1);
        rb_store(&q->book.position, copy.position);
        rb_store(&q->book.next[0], rb_load(&orphan->hand_at) + sizeof copy + RB_ALIGN8(head.length));
        rb_store(&q->book.next[1], rb_load(&orphan->hand_count) - 1);
        rb_store_release(&q->book.step, SQ_TAKES_OVER);
        sq_note_hand(c, u, copy.position, copy.position, 1);
        sq_finish_taking_over(q);
    }
    sq_unmap(&m);
    return status;
}

/* SQ_WAIT: nobody has left anything. */
static inline enum sq_status sq_take_over(struct sq_core *c, struct sq_user *u, uint64_t until)
{
    struct sq_queue *q = c->shared;
    enum sq_status status = sq_take_book(q, until);
    if (status != SQ_OK)
        return status;
    uint32_t i = 0;
    while (i < SQ_ROWS && rb_load(&q->rows[i].state) != SQ_ORPHANED)
        i++;
    if (i < SQ_ROWS) {
        status = sq_take_from(c, u, i);
    } else {
        rb_store(&q->orphans, 0);
        status = SQ_WAIT;
    }
    sq_leave_book(q);
    return status;
}
