/* Fan-outs: a run for several targets, each of which gets it whole.
 *
 * What is still owed stands in the source's `todo` before the first of them gets anything, so that a kill
 * between two of them neither repeats nor forgets one, and so that one full target holds up nobody but the
 * source. `todo` belongs to the data ring and stands only while its `from` is that ring's tail.
 *
 * Offers: dp_todo_stands, dp_begin_fanout, dp_collect_todo, dp_continue_fanout, dp_abandon_fanout, dp_owed. */
#pragma once

#include "shmbus/dispatcher/native/deliver.h"
#include "shmbus/dispatcher/native/keep.h"

static inline bool dp_todo_stands(const struct dp_port *source)
{
    return rb_load(&source->down->todo.from) != SB_NOWHERE;
}

/* Read the records of a standing fan-out again: the sender may have written over them meanwhile, with what is no event,
 * or one that it may not publish. */
static inline bool dp_collect_todo(struct dp_forwarder *f, struct dp_port *source)
{
    struct dp_run *run = &f->run;
    dp_begin_run(f, run, source, SB_DATA); /* they fit: as one run they did before */
    uint64_t position = run->span.from = rb_load(&source->down->todo.from);
    run->span.to = rb_load(&source->down->todo.to);
    run->kept = dp_number_of(source, run->span.to);
    while (position < run->span.to && run->count < DP_RUN) {
        struct rb_head8 head;
        const uint8_t *record;
        struct sb_record *h = &run->header[run->count];
        if (rb_peek_at(&source->out[SB_DATA], &position, SB_HEADER, &head, &record) != RB_OK ||
            !dp_copy_header(&head, record, h) || h->kind != SB_EVENT)
            return false;
        run->record[run->count] = record;
        if (__builtin_expect(h->flags & SB_POOLED, 0) && !dp_copy_block(run, SB_DATA, position))
            return false;
        struct dp_route *route = dp_lookup(&f->routes, sb_type_of(record), h->type_length, h->flags);
        if (!route || (h->flags & SB_RELAYED && !dp_relays(run)) || dp_judge_publisher(source, route) != DP_DELIVER)
            return false;
        h->attempt = 1;
        run->urgent = dp_is_urgent(h);
        run->record[run->count] = record;
        run->type[run->count++] = route->type;
        position += RB_ALIGN8(h->length);
    }
    return position == run->span.to;
}

static inline struct dp_route *dp_route_of_run(struct dp_forwarder *f)
{
    const struct sb_record *h = &f->run.header[0];
    return dp_lookup(&f->routes, f->run.type[0], h->type_length, h->flags);
}

/* Give the run to `target` as `bits`, or count it lost there, upon which entry `index` owes no more than `left`.
 * False: it has to wait. */
static inline bool dp_settle(struct dp_forwarder *f, uint64_t index, struct dp_port *target, uint32_t bits, bool lossy,
                             uint32_t left)
{
    struct dp_run *run = &f->run;
    struct dp_port *source = run->span.source;
    enum sb_ring_index ring = dp_ring_at(run, target, bits);
    struct rb_producer *out = &target->in[ring];
    enum sb_outcome outcome = SB_OUTCOME_LOST;
    enum sb_loss why = lossy ? SB_LOSS_DROPPED : SB_LOSS_SLOW;
    bool too_large = false;
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < run->count; i++) {
        too_large |= run->header[i].length > rb_largest_record(out->capacity);
        bytes += RB_ALIGN8(run->header[i].length);
    }
    too_large |= bytes > out->capacity / 4 * 3; /* beside padding it might never fit, in one smaller than planned for */
    bool shut = !too_large && dp_shuts_out(f, run, target, bits, lossy);
    int fitted = too_large || shut ? 0 : dp_copy_run(f, run, target, ring, bits);
    if (fitted == (int)run->count) {
        dp_journal_run(f, &run->span, target, ring, left, index);
        dp_publish_run(f, target, ring);
        RB_FAIL("todo.published");
        outcome = SB_OUTCOME_DELIVERED;
    } else {
        uint64_t end = out->next; /* of what fitted; the rest needs as much again at the most */
        for (uint32_t i = fitted < 0 ? 0 : (uint32_t)fitted; i < run->count; i++)
            end += rb_span(end, run->header[i].length, out->capacity);
        rb_abort(out);
        enum dp_space space = DP_LOSE;
        if (fitted < 0) {
            dp_quarantine(f, target);
            space = DP_SPACE; /* for another, once this one has departed */
        } else if (!too_large && !lossy && !shut) {
            space = dp_ask_for_space(f, source, DP_LINE_DATA, target, ring, end);
        }
        if (space == DP_SPACE)
            dp_set_add(&f->active, source->slot);
        if (space != DP_LOSE)
            return false;
        if (too_large)
            why = SB_LOSS_TOO_LARGE;
        dp_count_lost(f, target, why, run->count, &run->span, left, index);
    }
    rb_store(&source->todo[index].bits, left);
    RB_FAIL("todo.struck");
    if (outcome == SB_OUTCOME_LOST && why != SB_LOSS_DROPPED)
        dp_emit_lost(f, target, why, &run->header[0], run->type[0], dp_size_in_run(run, 0), dp_source_of_run(f));
    if (dp_tapped(f))
        dp_tap_run(f, target, outcome);
    return true;
}

/* The run is lost at `target`, which somebody has not waited for any longer; entry `index` owes no more than `left`. */
static inline void dp_settle_lost(struct dp_forwarder *f, uint64_t index, struct dp_port *target, uint32_t left)
{
    struct dp_run *run = &f->run;
    struct dp_port *source = run->span.source;
    dp_count_lost(f, target, SB_LOSS_SLOW, run->count, &run->span, left, index);
    rb_store(&source->todo[index].bits, left);
    RB_FAIL("todo.struck");
    dp_emit_lost(f, target, SB_LOSS_SLOW, &run->header[0], run->type[0], dp_size_in_run(run, 0), dp_source_of_run(f));
    if (dp_tapped(f))
        dp_tap_run(f, target, SB_OUTCOME_LOST);
    dp_set_add(&f->active, target->slot); /* its end may have waited for this */
}

/* What entry `index` owes for these groups of `had`'s (NULL: it has gone wholly) goes to another member of each. False:
 * one has to wait. */
static inline bool dp_settle_elsewhere(struct dp_forwarder *f, uint64_t index, struct dp_port *had,
                                       struct dp_route *route, uint32_t bits)
{
    struct dp_run *run = &f->run;
    for (; bits; bits &= bits - 1) {
        uint32_t left = bits & (bits - 1);
        const struct dp_receiver *next =
            had ? dp_choose_member(f, route, had->group_of_bit[__builtin_ctz(bits)], NULL) : NULL;
        if (next == &dp_not_now) {
            if (!dp_wait_for_former(f, run->span.source))
                return false;
            dp_settle_lost(f, index, f->former, left);
            continue;
        }
        if (next && !dp_settle(f, index, &f->ports[next->slot], 1u << next->bit, false, left))
            return false;
        for (uint32_t i = 0; !next && i < run->count; i++)
            dp_dead_letter_of_run(f, i, "its queue group has no member left");
        rb_store(&run->span.source->todo[index].bits, left);
    }
    return true;
}

/* The target of entry `index` has gone (NULL: wholly). What it would have got as a plain subscriber is counted there,
 * and each group's message goes to another member. False: one has to wait. */
static inline bool dp_settle_gone(struct dp_forwarder *f, uint64_t index, struct dp_port *gone, uint32_t bits)
{
    struct dp_run *run = &f->run;
    rb_word *owed = &run->span.source->todo[index].bits;
    if (bits & SB_PLAIN) {
        bits &= ~SB_PLAIN;
        if (gone) {
            dp_count_lost(f, gone, SB_LOSS_ENDED, run->count, &run->span, bits, index);
            if (gone->state == SB_ROW_DYING)
                dp_remember_loss(f, gone, SB_LOSS_ENDED, &run->header[0], run->type[0], dp_size_in_run(run, 0),
                                 dp_source_of_run(f));
            dp_set_add(&f->active, gone->slot); /* one that closes is drained from here on */
        }
        rb_store(owed, bits);
    }
    struct dp_route *route = dp_route_of_run(f);
    if (!dp_settle_elsewhere(f, index, gone, route, bits))
        return false;
    if (gone)
        dp_set_add(&f->active, gone->slot); /* its end has waited for this */
    return true;
}

/* Of these bits of a target's, those for groups with a key. */
static inline uint32_t dp_keyed_bits(const struct dp_port *target, uint32_t bits)
{
    uint32_t keyed = 0;
    for (bits &= ~SB_PLAIN; bits; bits &= bits - 1)
        if (target->group_of_bit[__builtin_ctz(bits)] && target->group_of_bit[__builtin_ctz(bits)]->keyed)
            keyed |= bits & -bits;
    return keyed;
}

/* Some of what entry `index` owes is for groups with a key, which may have another owner by now. False: it has to
 * wait. */
static inline bool dp_settle_keyed(struct dp_forwarder *f, uint64_t index, struct dp_port *target, uint32_t bits,
                                   uint32_t keyed, bool lossy)
{
    struct dp_route *route = dp_route_of_run(f);
    uint32_t moved = 0;
    for (; keyed; keyed &= keyed - 1) {
        uint32_t bit = (uint32_t)__builtin_ctz(keyed);
        const struct dp_receiver *owner = dp_choose_member(f, route, target->group_of_bit[bit], NULL);
        moved |= owner && owner->slot == target->slot ? 0 : 1u << bit;
    }
    if (bits & ~moved && !dp_settle(f, index, target, bits & ~moved, lossy, moved))
        return false;
    return dp_settle_elsewhere(f, index, target, route, moved);
}

/* Deliver what a fan-out still owes. True: nothing is owed any more, go on. */
static inline bool dp_continue_fanout(struct dp_forwarder *f)
{
    struct dp_run *run = &f->run;
    struct dp_port *source = run->span.source;
    struct sb_todo *todo = &source->down->todo;
    bool settled = true;
    for (uint64_t i = 0; i < rb_load(&todo->count); i++) {
        uint64_t word = rb_load(&source->todo[i].bits);
        uint32_t bits = (uint32_t)word;
        struct dp_port *target = dp_port_of(f, rb_load(&source->todo[i].whom));
        if (!bits)
            continue;
        if (__builtin_expect(target && word >> 33 & 1, 0)) {
            dp_settle_lost(f, i, target, 0);
            continue;
        }
        uint32_t keyed = target && bits != SB_PLAIN ? dp_keyed_bits(target, bits) : 0;
        if (target && dp_open_for_messages(target))
            settled &= keyed ? dp_settle_keyed(f, i, target, bits, keyed, word >> 32 & 1)
                             : dp_settle(f, i, target, bits, word >> 32 & 1, 0);
        else
            settled &= dp_settle_gone(f, i, target, bits);
    }
    if (!settled)
        return false;
    RB_FAIL("todo.done");
    dp_consume(f, &run->span); /* first: a fan-out that is behind the tail is over */
    RB_FAIL("todo.consumed");
    rb_store_release(&todo->from, SB_NOWHERE);
    rb_add(&source->down->forwarded, run->count);
    for (uint32_t i = 0; i < run->count; i++)
        dp_note_sent(f, run->header[i].sent_ns);
    source->refused_since_ns[DP_LINE_DATA] = 0;
    return true;
}

static inline bool dp_begin_fanout(struct dp_forwarder *f)
{
    struct dp_run *run = &f->run;
    struct dp_port *source = run->span.source;
    struct sb_todo *todo = &source->down->todo;
    rb_store_release(&todo->from, SB_NOWHERE);
    rb_fence_release(); /* what follows stays below: a successor goes by `from` */
    for (uint32_t i = 0; i < run->targets.count; i++) {
        const struct dp_choice *target = &run->targets.list[i];
        rb_store(&source->todo[i].whom, dp_whom_of(&f->ports[target->slot]));
        rb_store(&source->todo[i].bits, target->bits | (uint64_t)target->lossy << 32 |
                                             (uint64_t)target->lost << 33);
    }
    rb_store(&todo->to, run->span.to);
    rb_store(&todo->count, run->targets.count);
    RB_FAIL("todo.filled");
    rb_store_release(&todo->from, run->span.from);
    RB_FAIL("todo.stored");
    for (uint32_t i = 0; i < run->count; i++)
        run->header[i].attempt = 1;
    return dp_continue_fanout(f);
}

/* What a fan-out of a quarantined port still owes is lost: its records are not read any more. */
static inline void dp_abandon_fanout(struct dp_forwarder *f, struct dp_port *source)
{
    struct sb_todo *todo = &source->down->todo;
    if (!dp_todo_stands(source))
        return;
    bool known = dp_collect_todo(f, source);
    uint32_t count = known ? f->run.count : 1;
    const struct sb_record *h = known ? &f->run.header[0] : NULL;
    for (uint64_t i = 0; i < rb_load(&todo->count); i++) {
        struct dp_port *target = dp_port_of(f, rb_load(&source->todo[i].whom));
        if (!target || !(uint32_t)rb_load(&source->todo[i].bits))
            continue;
        dp_count_lost(f, target, SB_LOSS_ABANDONED, count, NULL, 0, 0);
        dp_emit_lost(f, target, SB_LOSS_ABANDONED, h, known ? f->run.type[0] : NULL,
                     known ? dp_size_in_run(&f->run, 0) : 0, known ? dp_source_of_run(f) : source->name);
        dp_set_add(&f->active, target->slot); /* its end may have waited for this */
    }
    rb_store_release(&todo->from, SB_NOWHERE);
}

/* Is that the port, or a mailbox of it? */
static inline bool dp_owes_to(struct dp_forwarder *f, uint64_t whom, const struct dp_port *port)
{
    if (sb_whom_slot(whom) < SB_FIRST_MAILBOX)
        return whom == dp_whom_of(port);
    const struct dp_port *box = dp_port_of(f, whom);
    return box && dp_is_mailbox(box) && box->owner == port->slot;
}

/* As what does a standing fan-out still owe it something? 0: none does. */
static inline uint32_t dp_owed(struct dp_forwarder *f, const struct dp_port *port)
{
    uint32_t owed = 0;
    for (uint32_t slot = 0; slot < f->high_slot; slot++) {
        struct dp_port *source = &f->ports[slot];
        if (source->state == SB_ROW_FREE || !dp_todo_stands(source))
            continue;
        for (uint64_t i = 0; i < rb_load(&source->down->todo.count); i++)
            if (dp_owes_to(f, rb_load(&source->todo[i].whom), port))
                owed |= (uint32_t)rb_load(&source->todo[i].bits);
    }
    return owed;
}
