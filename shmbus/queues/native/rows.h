/* Rows: who uses the queue. Their states are written by the holder of the book, who says in it what it is in the midst
 * of, so that the next one can do that again.
 *
 * A dead user's message in hand is lost, and counts as done; or its row becomes an orphan, from which the next get
 * takes (orphan.h). What a dead user took and did not say it had done counts as done, too: nobody else would say so.
 *
 * Offers: sq_take_book, sq_leave_book; sq_claim_row, sq_account, sq_give_back_row; sq_is_own, sq_is_dead;
 *         sq_name_pledge; sq_bury; sq_unfinished, sq_look_finished, sq_task_done. */
#pragma once

#include "shmbus/queues/native/get.h"
#include "shmbus/shared/native/process.h"

/* What the holder of the book was in the midst of is done, again. */
static inline void sq_finish_burial(struct sq_queue *q)
{
    struct sq_book *b = &q->book;
    struct sq_row *row = &q->rows[rb_load(&b->row) % SQ_ROWS];
    RB_FAIL("queue.buries");
    rb_store(&b->lost, rb_load(&b->next[0]));
    rb_store(&b->done, rb_load(&b->next[1]));
    RB_FAIL("queue.accounted");
    if (q->redeliver && rb_load(&row->hand_count)) {
        rb_store_release(&row->state, SQ_ORPHANED);
        rb_store_seq(&q->orphans, 1);
    } else {
        rb_store(&row->hand_count, 0);
        rb_store_release(&row->state, SQ_FREE);
    }
    RB_FAIL("queue.buried");
    rb_store_release(&b->step, SQ_NOTHING);
}

/* The taker has the message in hand, or it died before: then the orphan keeps it. */
static inline void sq_finish_taking_over(struct sq_queue *q)
{
    struct sq_book *b = &q->book;
    struct sq_row *orphan = &q->rows[rb_load(&b->row) % SQ_ROWS], *taker = &q->rows[rb_load(&b->taker) % SQ_ROWS];
    if (rb_load(&taker->hand_count) && rb_load(&taker->hand_from) == rb_load(&b->position)) {
        rb_store(&taker->taken, rb_load(&taker->taken_before) + 1);
        rb_store(&orphan->hand_at, rb_load(&b->next[0]));
        rb_store(&orphan->hand_count, rb_load(&b->next[1]));
        RB_FAIL("queue.handed");
        if (!rb_load(&orphan->hand_count))
            rb_store_release(&orphan->state, SQ_FREE);
    }
    RB_FAIL("queue.over");
    rb_store_release(&b->step, SQ_NOTHING);
}

static inline enum sq_status sq_take_book(struct sq_queue *q, uint64_t until)
{
    bool died;
    enum sq_status status = sq_lock(q->book.lock, until, &died);
    if (status != SQ_OK)
        return status;
    if (died) /* if this one dies, too, before all is done, the next is told of that */
        sq_consistent(q->book.lock);
    uint64_t step = rb_load(&q->book.step);
    if (step == SQ_BURIES)
        sq_finish_burial(q);
    else if (step == SQ_TAKES_OVER)
        sq_finish_taking_over(q);
    return SQ_OK;
}

static inline void sq_leave_book(struct sq_queue *q) { sq_unlock(q->book.lock); }

/* A row for this user: the pledged one, or any. With the book. */
static inline enum sq_status sq_fill_row(struct sq_core *c, uint64_t state, uint64_t tid, uint32_t *number)
{
    struct sq_row *rows = c->shared->rows;
    uint32_t i = *number - 1;
    if (!*number || i >= SQ_ROWS || rb_load(&rows[i].state) != SQ_PLEDGED)
        for (i = 0; i < SQ_ROWS && rb_load(&rows[i].state) != SQ_FREE; i++) {
        }
    if (i == SQ_ROWS)
        return SQ_NO_ROW;
    struct sq_row *row = &rows[i];
    rb_store(&row->pid, c->pid);
    rb_store(&row->start_time, c->start_time);
    rb_store(&row->tid, tid);
    rb_store(&row->namespace, c->namespace);
    rb_store(&row->hand_count, 0);
    rb_store(&row->taken, 0);
    rb_store(&row->done, 0);
    if (rb_load(&c->shared->rows_used) <= i)
        rb_store_release(&c->shared->rows_used, i + 1);
    RB_FAIL("queue.claims");
    rb_store_release(&row->state, state);
    *number = i + 1;
    return SQ_OK;
}

/* `*number`: of a pledged row, or 0; then of the row that it is. */
static inline enum sq_status sq_claim_row(struct sq_core *c, uint64_t state, uint64_t tid, uint32_t *number,
                                          uint64_t until)
{
    enum sq_status status = sq_take_book(c->shared, until);
    if (status != SQ_OK)
        return status;
    status = rb_load(&c->shared->gone) ? SQ_GONE : sq_fill_row(c, state, tid, number);
    sq_leave_book(c->shared);
    return status;
}

/* The row's user has left, or is dead. In good order nothing was in hand any more; what a dead one took and did not say
 * it had done counts as done. The consumers' role is healthy: what is in hand was taken. With the book. */
static inline void sq_account(struct sq_queue *q, uint32_t index, bool dead)
{
    struct sq_book *b = &q->book;
    struct sq_row *row = &q->rows[index];
    uint64_t in_hand = rb_load(&row->hand_count), taken = rb_load(&row->taken), done = rb_load(&row->done);
    if (dead && taken > done + in_hand)
        done = taken - in_hand;
    rb_store(&b->row, index);
    rb_store(&b->next[0], rb_load(&b->lost) + (q->redeliver ? 0 : in_hand));
    rb_store(&b->next[1], rb_load(&b->done) + done);
    rb_store_release(&b->step, SQ_BURIES);
    sq_finish_burial(q);
}

static inline enum sq_status sq_give_back_row(struct sq_core *c, uint32_t number, uint64_t until)
{
    rb_store(&c->shared->rows[number - 1].hand_count, 0);
    enum sq_status status = sq_take_book(c->shared, until);
    if (status != SQ_OK)
        return status;
    sq_account(c->shared, number - 1, false);
    sq_leave_book(c->shared);
    return SQ_OK;
}

/* Did this process write itself into the row? */
static inline bool sq_is_own(const struct sq_core *c, const struct sq_row *row)
{
    return rb_load(&row->pid) == c->pid && rb_load(&row->start_time) == c->start_time &&
           rb_load(&row->namespace) == c->namespace;
}

/* The row that this process kept as its pledge `number`, if nobody has taken it up, is kept by the child now that is to
 * do so; pid 0: there is none. */
static inline enum sq_status sq_name_pledge(struct sq_core *c, uint32_t row, uint64_t number, uint32_t pid,
                                            uint64_t until)
{
    enum sq_status status = sq_take_book(c->shared, until);
    if (status != SQ_OK)
        return status;
    struct sq_row *r = &c->shared->rows[row - 1];
    if (rb_load(&r->state) == SQ_PLEDGED && sq_is_own(c, r) && rb_load(&r->tid) == number) {
        struct sb_stat s;
        int fd = pid ? sb_open_stat(pid) : -1;
        if (fd >= 0 && sb_read_stat(fd, &s) != SB_VANISHED) {
            rb_store(&r->start_time, s.start_time); /* in between it seems dead, to those without the book */
            rb_store(&r->pid, pid);
        } else {
            rb_store_release(&r->state, SQ_FREE);
        }
        if (fd >= 0)
            close(fd);
    }
    sq_leave_book(c->shared);
    return SQ_OK;
}

/* Is the process that wrote itself into the row dead, as far as this one can know? */
static inline bool sq_is_dead(const struct sq_core *c, const struct sq_row *row)
{
    uint32_t pid = (uint32_t)rb_load(&row->pid);
    if (sq_is_own(c, row) || rb_load(&row->namespace) != c->namespace)
        return false;
    int fd = sb_open_stat(pid);
    if (fd < 0)
        return errno == ENOENT && !sb_process_there(pid);
    struct sb_stat s;
    enum sb_life life = sb_read_stat(fd, &s);
    bool dead = life == SB_VANISHED || (life != SB_UNKNOWN && s.start_time != rb_load(&row->start_time)) ||
                (life == SB_FINISHED && sb_process_finished(pid, fd));
    close(fd);
    return dead;
}

/* Free the row if its user is dead. `*in_hand`: messages that it had. */
static inline enum sq_status sq_bury(struct sq_core *c, const struct sq_user *u, uint32_t index, uint64_t until,
                                     uint64_t *in_hand)
{
    struct sq_queue *q = c->shared;
    struct sq_row *row = &q->rows[index];
    uint64_t state = rb_load_acquire(&row->state);
    *in_hand = 0;
    if ((state != SQ_USED && state != SQ_PLEDGED) || !sq_is_dead(c, row))
        return SQ_OK;
    enum sq_status status = sq_begin_get(c, u, until); /* the roles are healed, if it died with one */
    if (status != SQ_OK)
        return status;
    sq_unlock(q->consumers.lock);
    if ((status = sq_begin_put(c, u, until)) != SQ_OK)
        return status;
    sq_unlock(q->producers.lock);
    if ((status = sq_take_book(q, until)) != SQ_OK)
        return status;
    if (rb_load(&row->state) == state && sq_is_dead(c, row)) {
        *in_hand = rb_load(&row->hand_count);
        sq_account(q, index, true);
    }
    sq_leave_book(q);
    return SQ_OK;
}

/* Messages that were put, and neither done nor lost. Exact with the book. */
static inline uint64_t sq_unfinished(const struct sq_queue *q)
{
    uint64_t ended = rb_load_acquire(&q->book.done) + rb_load(&q->book.lost), used = rb_load_acquire(&q->rows_used);
    for (uint64_t i = 0; i < used && i < SQ_ROWS; i++)
        if (rb_load_acquire(&q->rows[i].state) == SQ_USED)
            ended += rb_load_seq(&q->rows[i].done);
    uint64_t put = rb_load_seq(&q->producers.count);
    return put > ended ? put - ended : 0;
}

static inline bool sq_look_finished(void *context)
{
    return !sq_unfinished(((struct sq_look_for *)context)->queue);
}

/* One message that this user took is done. SQ_WAIT: none is unfinished. */
static inline enum sq_status sq_task_done(struct sq_core *c, struct sq_user *u, uint64_t until)
{
    struct sq_queue *q = c->shared;
    struct sq_row *row = sq_row_of(c, u);
    uint64_t in_hand = rb_load(&row->hand_count);
    struct sq_call call = {0, 0};
    enum sq_status status = sq_take_book(q, until);
    if (status != SQ_OK)
        return status;
    if (sq_unfinished(q)) {
        if (in_hand)
            sq_drop_first(c, u, in_hand);
        rb_store_release(&row->done, rb_load(&row->done) + 1);
        RB_FAIL("queue.done");
        if (!sq_unfinished(q))
            call = sq_call(&q->book.bell, 0, UINT32_MAX / 2);
    } else {
        status = SQ_WAIT;
    }
    sq_leave_book(q);
    rb_word unused = 0;
    sq_wake(&q->book.bell, call, &unused);
    return status;
}
