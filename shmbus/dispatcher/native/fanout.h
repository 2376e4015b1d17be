/* Fan-outs: a run for several targets, each of which gets it whole.
 *
 * What is still owed stands in the source's `todo` before the first of them gets anything, so that a kill
 * between two of them neither repeats nor forgets one, and so that one full target holds up nobody but the
 * source. `todo` belongs to the data ring and stands only while its `from` is that ring's tail. */
#ifndef DP_FANOUT_H
#define DP_FANOUT_H

#include "shmbus/dispatcher/native/departure.h"
#include "shmbus/dispatcher/native/room.h"

/* Read the records of a standing fan-out again: the sender may have written over them meanwhile. */
static inline bool dp_collect_todo(struct dp_forwarder *f, struct dp_source *s)
{
    struct rb_consumer *c = &s->port->out[SB_DATA];
    uint64_t position = s->from;
    f->run_count = 0;
    dp_pin_routes(&f->routes); /* they fit: as one run they did before */
    while (position < s->to && f->run_count < DP_RUN) {
        struct rb_head8 head;
        const uint8_t *record;
        struct sb_record *h = &f->run_header[f->run_count];
        if (rb_peek_at(c, &position, SB_HEADER, &head, &record) != RB_OK || !dp_copy_header(&head, record, h) ||
            h->kind != SB_EVENT)
            return false;
        struct dp_route *route = dp_lookup(&f->routes, sb_type_of(record), h->type_length);
        if (!route || route->reserved)
            return false;
        h->attempt = 1;
        f->run_record[f->run_count] = record;
        f->run_type[f->run_count++] = route->type;
        position += RB_ALIGN8(h->length);
    }
    return position == s->to;
}

static inline void dp_strike(struct sb_todo_target *w) { rb_store(&w->bits, 0); }

/* The target of entry `index` of a standing fan-out has gone: what it would have got as a plain subscriber is
 * counted there, and each group's message goes to another member. */
static inline void dp_rechoose(struct dp_forwarder *f, struct dp_source *s, uint64_t index)
{
    struct dp_port *p = s->port;
    struct sb_todo *todo = &p->down->todo;
    struct sb_todo_target *w = &p->todo[index];
    struct dp_port *gone = dp_port_of(f, rb_load(&w->whom));
    uint32_t bits = (uint32_t)rb_load(&w->bits);
    if (gone && bits & SB_PLAIN) {
        uint64_t after = rb_load(&gone->down->lost) + f->run_count;
        dp_journal_lost(f, s, gone, after, index, bits & ~SB_PLAIN);
        rb_store(&gone->down->lost, after);
        rb_add(&f->bus->lost, f->run_count);
    }
    bits &= ~SB_PLAIN;
    rb_store(&w->bits, bits);
    struct dp_route *route = dp_lookup(&f->routes, sb_type_of(f->run_record[0]), f->run_header[0].type_length);
    for (uint32_t bit = 1; bits; bit++) {
        if (!(bits >> bit & 1))
            continue;
        bits &= ~(1u << bit);
        const struct dp_receiver *next = NULL;
        for (uint32_t g = 0; gone && route && g < route->group_count; g++)
            if (route->groups[g].group == gone->group_of_bit[bit])
                next = dp_least_busy(f, &route->members[route->groups[g].first], route->groups[g].count,
                                     &route->groups[g].group->turn, SB_MAX_SLOTS);
        uint64_t count = rb_load(&todo->count);
        if (next && count < p->down->todo_count) {
            uint64_t member = dp_whom_of(&f->ports[next->slot]);
            dp_journal_rechoose(f, s, index, count, bits, 1u << next->bit, member);
            RB_FAIL("rechoose.begin");
            rb_store(&p->todo[count].whom, member);
            rb_store(&p->todo[count].bits, 1u << next->bit);
            rb_store_release(&todo->count, count + 1);
            RB_FAIL("rechoose.added");
        } else {
            for (uint32_t i = 0; i < f->run_count; i++)
                dp_dead_letter(f, &f->run_header[i], sb_type_of(f->run_record[i]),
                               f->run_record[i] + sb_payload_offset(&f->run_header[i]), p->name, p,
                               "its queue group has no member left");
        }
        rb_store(&w->bits, bits);
    }
}

/* Deliver what a fan-out still owes. True: nothing is owed any more, go on. */
static inline bool dp_continue_fanout(struct dp_forwarder *f, struct dp_source *s)
{
    struct dp_port *p = s->port;
    struct sb_todo *todo = &p->down->todo;
    struct dp_head_of_line *front = &p->head_of_line[SB_DATA];
    bool waiting = false;
    for (uint64_t i = 0; i < rb_load(&todo->count); i++) {
        struct sb_todo_target *w = &p->todo[i];
        uint32_t bits = (uint32_t)rb_load(&w->bits);
        if (!bits)
            continue;
        struct dp_port *t = dp_port_of(f, rb_load(&w->whom));
        if (!t || !dp_open_for_messages(t)) {
            dp_rechoose(f, s, i);
            continue;
        }
        bool lossy = rb_load(&w->bits) >> 32 & 1;
        uint64_t largest = rb_largest_record(t->in[SB_DATA].capacity);
        bool too_large = false;
        for (uint32_t k = 0; k < f->run_count; k++)
            too_large |= f->run_header[k].length > largest;
        if (!too_large) {
            int fitted = dp_copy_run(f, p, t, SB_DATA, bits, SB_RAW | SB_NONE);
            if (fitted < 0) {
                rb_abort(&t->in[SB_DATA]);
                dp_quarantine(f, t);
                dp_rechoose(f, s, i);
                continue;
            }
            if ((uint32_t)fitted == f->run_count) {
                dp_journal_run(f, s, t, SB_DATA, SB_JOURNAL_RUN, 0, i);
                dp_publish_at(f, t, SB_DATA, f->run_count);
                RB_FAIL("todo.published");
                dp_strike(w);
                RB_FAIL("todo.struck");
                if (dp_tapped(f))
                    dp_tap_run(f, p, t, f->run_count, SB_OUTCOME_DELIVERED);
                continue;
            }
            uint64_t end = t->in[SB_DATA].next; /* of what fitted; the rest needs as much again at the most */
            for (uint32_t k = (uint32_t)fitted; k < f->run_count; k++)
                end += rb_span(end, f->run_header[k].length, t->in[SB_DATA].capacity);
            rb_abort(&t->in[SB_DATA]);
            bool again;
            if (!dp_wait_or_lose(f, p, SB_DATA, t, SB_DATA, end, lossy, &again)) {
                waiting = true;
                if (again)
                    dp_set_add(&f->active, p->slot);
                continue;
            }
        }
        uint64_t after = rb_load(&t->down->lost) + f->run_count;
        dp_journal_lost(f, s, t, after, i, 0);
        rb_store(&t->down->lost, after);
        rb_add(&f->bus->lost, f->run_count);
        dp_strike(w);
        if (dp_tapped(f))
            dp_tap_run(f, p, t, f->run_count, SB_OUTCOME_LOST);
    }
    if (waiting)
        return false;
    RB_FAIL("todo.done");
    dp_consume(f, s); /* first: a fan-out that is behind the tail is over */
    RB_FAIL("todo.consumed");
    rb_store_release(&todo->from, SB_NOWHERE);
    rb_add(&p->down->forwarded, f->run_count);
    for (uint32_t i = 0; i < f->run_count; i++)
        dp_note_sent(f, f->run_header[i].sent_ns);
    dp_clear_head_of_line(front);
    return true;
}

/* What a fan-out of a quarantined port still owes is lost: its records are not read any more. */
static inline void dp_abandon_fanout(struct dp_forwarder *f, struct dp_port *p)
{
    struct sb_todo *todo = &p->down->todo;
    struct dp_source s = {.port = p, .ring = SB_DATA, .from = rb_load(&todo->from), .to = rb_load(&todo->to)};
    if (s.from == SB_NOWHERE)
        return;
    uint32_t count = dp_collect_todo(f, &s) ? f->run_count : 1;
    for (uint64_t i = 0; i < rb_load(&todo->count); i++) {
        struct dp_port *t = dp_port_of(f, rb_load(&p->todo[i].whom));
        if (t && (uint32_t)rb_load(&p->todo[i].bits))
            dp_count_lost(f, t, count);
    }
    rb_store_release(&todo->from, SB_NOWHERE);
}

static inline bool dp_begin_fanout(struct dp_forwarder *f, struct dp_source *s)
{
    struct dp_port *p = s->port;
    struct sb_todo *todo = &p->down->todo;
    rb_store_release(&todo->from, SB_NOWHERE);
    rb_fence_release();
    for (uint32_t i = 0; i < f->run_targets; i++) {
        rb_store(&p->todo[i].whom, dp_whom_of(&f->ports[f->run_target[i].slot]));
        rb_store(&p->todo[i].bits, f->run_target[i].bits | (uint64_t)f->run_target[i].lossy << 32);
    }
    rb_store(&todo->to, s->to);
    rb_store(&todo->count, f->run_targets);
    RB_FAIL("todo.filled");
    rb_store_release(&todo->from, s->from);
    RB_FAIL("todo.stored");
    for (uint32_t i = 0; i < f->run_count; i++)
        f->run_header[i].attempt = 1;
    return dp_continue_fanout(f, s);
}

#endif
