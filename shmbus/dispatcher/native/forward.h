/* Forwarding: from the rings that lead to the dispatcher into the rings that lead away from it.
 *
 * A run is collected (run.h), copied into its target's ring (deliver.h), written down in the journal
 * (journal.h), published with one store of the target's head, and then the source's tail moves. What the bus is to keep
 * is kept before (keep.h). For several
 * targets see fanout.h, for a target whose ring is full space.h.
 *
 * Offers: dp_forward_ring. */
#pragma once

#include "shmbus/dispatcher/native/fanout.h"

static inline void dp_remember_target(struct dp_port *source, const struct sb_record *h, const struct dp_port *target)
{
    struct sb_target *given = &source->given[sb_index_of(h->correlation)];
    rb_store_release(&given->whom, 0); /* while it changes it names nobody */
    rb_fence_release(); /* what follows stays below: a successor goes by `whom` */
    RB_FAIL("target.cleared");
    memcpy(given->id, h->correlation, 16);
    rb_store(&given->done, 0);
    rb_store_release(&given->whom, dp_whom_of(target));
}

/* The run is done with: tell who taps, and let go of it. */
static inline void dp_finish_run(struct dp_forwarder *f, struct dp_port *target, enum sb_outcome outcome)
{
    uint16_t kind = f->run.header[0].kind;
    bool message = kind != SB_CANCEL && kind != SB_CREDIT && kind != SB_QUERY;
    if (dp_tapped(f) && message)
        dp_tap_run(f, target, outcome);
    dp_consume(f, &f->run.span);
    RB_FAIL("forward.consumed");
    f->run.span.source->refused_since_ns[f->run.span.ring] = 0; /* the next head of line has not waited */
    if (!f->run.returned && message) /* its source has not counted it as sent */
        rb_add(&f->run.span.source->down->forwarded, f->run.count);
}

/* The run has no chance at the target: its first record is too large, or there is no waiting for space (any more). */
static inline void dp_lose_run(struct dp_forwarder *f, struct dp_port *target, enum sb_loss why)
{
    bool too_large = why == SB_LOSS_TOO_LARGE;
    struct dp_run *run = &f->run;
    struct dp_port *source = run->span.source;
    struct sb_record *h = &run->header[0];
    enum sb_ring_index ring = dp_ring_at(run, target, run->targets.list[0].bits);
    uint64_t largest = rb_largest_record(target->in[ring].capacity), frame = sb_frame_size(h);
    uint64_t limit = largest > frame ? largest - frame : 0;
    run->span.to = dp_end_of_run(run, run->count);
    if (run->span.ring == SB_REPLIES) {
        if (h->kind == SB_PART) /* its source has more of them, and nobody wants those any more */
            dp_tell_cancel(f, source, target, h->correlation);
        dp_fail_request(f, target, h->correlation, SB_FAULT_REPLY_LOST, source, limit, &run->span);
    } else if (h->kind == SB_REQUEST) {
        enum sb_fault_code code = too_large ? SB_FAULT_TOO_LARGE : SB_FAULT_HANDLER_FULL;
        const struct dp_port *at_fault = dp_is_backlog(target) ? NULL : target;
        dp_fail_request(f, source, h->correlation, code, at_fault, limit, &run->span);
    } else if (run->returned) {
        dp_dead_letter_nacked(f, too_large ? "given back, and too large for who was to have it next"
                                           : "given back, and nobody else had space for it");
    } else if (h->kind == SB_SEND) {
        const char *full = dp_is_backlog(target) ? "nobody who handles it was free, and the backlog stayed full"
                                                 : "its handler's queue stayed full";
        dp_dead_letter_of_run(f, 0, too_large ? "too large for its handler" : full);
    } else {
        dp_count_lost(f, target, why, run->count, &run->span, 0, 0);
    }
    bool told = h->kind == SB_EVENT && why != SB_LOSS_DROPPED && !run->returned;
    const char *sender = told ? dp_source_of_run(f) : ""; /* while its payload is there */
    dp_finish_run(f, target, SB_OUTCOME_LOST);
    if (told)
        dp_emit_lost(f, target, why, h, run->type[0], dp_size_in_run(run, 0), sender);
}

/* Publish what was copied of the run: the journal first, then whom its requests were given to. */
static inline void dp_deliver_run(struct dp_forwarder *f, struct dp_port *target, enum sb_ring_index ring)
{
    struct dp_run *run = &f->run;
    struct dp_port *source = run->span.source;
    run->span.to = dp_end_of_run(run, run->count);
    dp_journal_run(f, &run->span, target, ring, 0, 0);
    for (uint32_t i = 0; i < run->count; i++) {
        struct sb_record *h = &run->header[i];
        if (h->kind == SB_REQUEST)
            dp_remember_target(source, h, target);
        else if (run->span.ring == SB_REPLIES && h->kind != SB_PART)
            rb_store(&target->given[sb_index_of(h->correlation)].done,
                     1 + dp_end_of_run(run, i + 1) - RB_ALIGN8(h->length));
        if (!dp_is_backlog(target) && !run->returned)
            dp_note_sent(f, h->sent_ns);
    }
    RB_FAIL("forward.chosen");
    dp_publish_run(f, target, ring);
    RB_FAIL("forward.published");
    if (run->returned) {
        rb_add(&target->down->redelivered, !dp_is_backlog(target)); /* of who gets it out of there, see drain.h */
        rb_add(&f->bus->redelivered, 1);
    }
    dp_finish_run(f, target, SB_OUTCOME_DELIVERED);
}

/* What counts as the attempt of a record that its sender wrote: of a request what that says, since nobody but the
 * handler goes by it. */
static inline uint16_t dp_first_attempt(const struct sb_record *h)
{
    return h->kind == SB_REQUEST && h->attempt ? h->attempt : 1;
}

/* As many records of the run, from the first on, as none is larger than what this ring takes. */
static inline uint32_t dp_small_enough(const struct dp_run *run, const struct rb_producer *out)
{
    uint64_t largest = rb_largest_record(out->capacity); /* the reserve is half a ring at most */
    uint32_t count = 0;
    while (count < run->count && run->header[count].length <= largest)
        count++;
    return count;
}

/* Forward a run that has one target. True: go on with this ring. */
static inline bool dp_forward_single(struct dp_forwarder *f)
{
    struct dp_run *run = &f->run;
    const struct dp_choice choice = run->targets.list[0];
    struct dp_port *source = run->span.source, *target = &f->ports[choice.slot];
    enum sb_ring_index ring = dp_ring_at(run, target, choice.bits);
    struct rb_producer *out = &target->in[ring];
    if (__builtin_expect(choice.lost, 0)) {
        dp_lose_run(f, target, SB_LOSS_SLOW);
        return true;
    }
    uint32_t small = dp_small_enough(run, out);
    run->count = small ? small : 1;
    if (!small) {
        dp_lose_run(f, target, SB_LOSS_TOO_LARGE);
        return true;
    }
    if (dp_shuts_out(f, run, target, choice.bits, choice.lossy)) {
        dp_lose_run(f, target, choice.lossy ? SB_LOSS_DROPPED : SB_LOSS_SLOW);
        return true;
    }
    for (uint32_t i = 0; i < small && ring != SB_REPLIES && !run->returned; i++)
        run->header[i].attempt = dp_first_attempt(&run->header[i]);
    int fitted = dp_copy_run(f, run, target, ring, choice.bits);
    if (fitted > 0) {
        run->count = (uint32_t)fitted;
        dp_deliver_run(f, target, ring);
        return true;
    }
    rb_abort(out);
    if (fitted < 0) {
        dp_quarantine(f, target);
        dp_set_add(&f->active, source->slot); /* to choose again once that one has departed */
        return ring == SB_REPLIES; /* nobody else can have those: the next look drops them */
    }
    bool directed = run->header[0].flags & SB_DIRECTED && run->header[0].kind == SB_REQUEST;
    if (!choice.lossy && !directed) { /* who asks many, one by one, does not wait behind one of them */
        uint64_t reserve = ring == SB_REPLIES ? target->reserve : 0;
        uint64_t end = rb_end_after(out, run->header[0].length) + reserve;
        enum dp_space space = dp_ask_for_space(f, source, (enum dp_line)run->span.ring, target, ring, end);
        if (space != DP_LOSE)
            return space == DP_SPACE;
        run->count = 1;
    }
    if (directed)
        run->count = 1;
    dp_lose_run(f, target, choice.lossy ? SB_LOSS_DROPPED : SB_LOSS_SLOW);
    return true;
}

/* The endpoint that a request was for is not there (any more), and nobody else shall have it. */
static inline void dp_refuse_directed(struct dp_forwarder *f, struct dp_port *source, const struct sb_record *h,
                                      const struct dp_span *span)
{
    const struct dp_port *target = &f->ports[h->peer];
    bool known = target->generation == h->peer_generation; /* and not another in its slot */
    uint64_t reason = known && target->reason ? target->reason : SB_REASON_DIED;
    dp_fail_request(f, source, h->correlation, SB_FAULT_ENDPOINT_DIED, known ? target : NULL, reason, span);
}

/* Its source may not send it, and learns so where it waits for a reply. */
static inline void dp_forbid(struct dp_forwarder *f, struct dp_port *source, const struct sb_record *h)
{
    enum sb_right right = h->kind == SB_EVENT ? SB_RIGHT_PUBLISH : SB_RIGHT_REQUEST;
    dp_note_forbidden(f, source, right, f->run.type[0], h->type_length);
    if (h->kind == SB_REQUEST)
        dp_fail_request(f, source, h->correlation, SB_FAULT_FORBIDDEN, NULL, 0, &f->run.span);
}

static inline void dp_refuse(struct dp_forwarder *f, enum dp_verdict verdict)
{
    struct dp_run *run = &f->run;
    struct dp_port *source = run->span.source;
    struct sb_record *h = &run->header[0];
    run->count = 1;
    if (verdict == DP_NOBODY && h->kind == SB_EVENT) {
        dp_dead_letter_of_run(f, 0, "its queue group has no member left");
    } else if (verdict == DP_NOBODY) {
        rb_add(&f->bus->no_route, 1);
        if (h->kind == SB_REQUEST)
            dp_fail_request(f, source, h->correlation, SB_FAULT_NO_ROUTE, NULL, 0, &run->span);
        else
            dp_dead_letter_of_run(f, 0, "nobody handles it");
    } else if (verdict == DP_RETURNED) {
        dp_dead_letter_nacked(f, h->interests == SB_PLAIN ? "nobody handles it" : "its queue group has no member left");
        dp_restore(h);
    } else if (verdict == DP_GONE) {
        dp_refuse_directed(f, source, h, &run->span);
    } else if (verdict == DP_FORBIDDEN) {
        dp_forbid(f, source, h);
    } else if (verdict == DP_CANCEL) {
        dp_cancel(f, source, h);
    } else if (verdict == DP_CREDIT) {
        dp_credit(f, source, h);
    } else if (verdict == DP_QUERY) {
        dp_answer(f, source, h, run->record[0], &run->span);
    } else if (verdict == DP_COLLIDES) {
        dp_fail_request(f, source, h->correlation, SB_FAULT_COLLISION, source, 0, &run->span);
    } else {
        rb_add(&f->bus->orphans, run->span.ring == SB_REPLIES && h->kind != SB_PART);
    }
    bool nobody = verdict == DP_NOBODY || verdict == DP_RETURNED || verdict == DP_GONE;
    enum sb_outcome otherwise = verdict == DP_FORBIDDEN ? SB_OUTCOME_FORBIDDEN : SB_OUTCOME_DROPPED;
    dp_finish_run(f, NULL, nobody ? SB_OUTCOME_NOBODY : otherwise);
}

/* True: go on with this ring. */
static inline bool dp_forward_run(struct dp_forwarder *f)
{
    struct dp_run *run = &f->run;
    if (run->targets.count == 1)
        return dp_forward_single(f);
    if (run->targets.count > 1)
        return dp_begin_fanout(f);
    bool clears = run->retain && run->header[0].flags & SB_NONE;
    if (!run->kept && !clears) { /* nor is it there for who comes later */
        rb_add(&f->bus->unrouted, run->count);
        rb_add(&run->span.source->down->unrouted, run->count);
    }
    dp_finish_run(f, NULL, SB_OUTCOME_NOBODY);
    return true;
}

/* A mailbox that was made with what was kept had the record with that, see recall.h. */
static inline void dp_spare_filled(struct dp_forwarder *f)
{
    struct dp_run *run = &f->run;
    uint32_t left = 0;
    for (uint32_t i = 0; i < run->targets.count; i++) {
        const struct dp_port *target = &f->ports[run->targets.list[i].slot];
        if (!run->kept || !dp_is_mailbox(target) || run->kept > target->mailbox->memory->filled_to)
            run->targets.list[left++] = run->targets.list[i];
    }
    run->targets.count = left;
}

/* Forward what lies in a ring, a batch at the most. True: there may be more. */
static inline bool dp_forward_ring(struct dp_forwarder *f, struct dp_port *source, enum sb_ring_index ring)
{
    struct dp_run *run = &f->run;
    uint32_t left = f->batch;
    while (left && !source->corrupt && source->out[ring].next < source->last[ring]) {
        enum dp_verdict verdict = DP_DELIVER;
        bool standing = ring == SB_DATA && dp_todo_stands(source);
        if (!standing)
            verdict = dp_collect_run(f, source, ring, left < DP_RUN ? left : DP_RUN);
        else if (!dp_collect_todo(f, source))
            verdict = DP_VIOLATION;
        if (verdict == DP_VIOLATION) {
            dp_quarantine(f, source);
            return false;
        }
        if (verdict == DP_NOT_NOW) /* dp_look_around comes again */
            return false;
        if (verdict != DP_DELIVER) {
            dp_refuse(f, verdict);
            left--;
            continue;
        }
        if (run->count == 0) { /* empty */
            if (run->span.to != run->span.from)
                dp_consume(f, &run->span);
            return false;
        }
        if (!standing && run->retain) {
            dp_keep_run(f);
            dp_spare_filled(f);
        }
        if (!standing)
            left -= run->count;
        if (!(standing ? dp_continue_fanout(f) : dp_forward_run(f)))
            return false;
    }
    return !source->corrupt && source->out[ring].next < source->last[ring];
}
