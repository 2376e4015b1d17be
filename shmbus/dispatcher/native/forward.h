/* Forwarding: from the rings that lead to the dispatcher into the rings that lead away from it.
 *
 * A run is gathered (run.h), copied into its target's ring (deliver.h), written down in the journal
 * (journal.h), published with one store of the target's head, and then the source's tail moves. For several
 * targets see fanout.h, for a target without room room.h. */
#ifndef DP_FORWARD_H
#define DP_FORWARD_H

#include "shmbus/dispatcher/native/fanout.h"

static inline void dp_remember_target(struct dp_port *p, const struct sb_record *h, const struct dp_port *t)
{
    struct sb_target *w = &p->target[sb_index_of(h->correlation)];
    rb_store_release(&w->whom, 0); /* while it changes it names nobody */
    rb_fence_release();
    RB_FAIL("target.cleared");
    memcpy(w->id, h->correlation, 16);
    rb_store(&w->done, 0);
    rb_store_release(&w->whom, dp_whom_of(t));
}

/* The first record of the run has no chance at `t`: too large, or its patience is over. */
static inline void dp_lose_front(struct dp_forwarder *f, struct dp_source *s, struct dp_port *t, uint32_t count,
                                 bool too_large)
{
    struct dp_port *p = s->port;
    struct sb_record *h = &f->run_header[0];
    uint64_t largest = rb_largest_record(t->in[s->ring].capacity), frame = sb_payload_offset(h);
    uint64_t limit = largest > frame ? largest - frame : 0;
    if (s->ring == SB_REPLIES) {
        uint16_t index = sb_index_of(h->correlation);
        dp_fail_request(f, t, index, h->correlation, SB_FAULT_REPLY_LOST, p, limit, s);
    } else if (h->kind == SB_REQUEST) {
        dp_fail_request(f, p, sb_index_of(h->correlation), h->correlation, too_large ? SB_FAULT_TOO_LARGE : SB_FAULT_HANDLER_FULL,
                        t, limit, s);
    } else if (h->kind == SB_SEND) {
        dp_dead_letter(f, h, f->run_type[0], f->run_record[0] + sb_payload_offset(h), p->name, p,
                       too_large ? "too large for its handler" : "its handler's queue stayed full");
    } else {
        uint64_t after = rb_load(&t->down->lost) + count;
        dp_journal_lost(f, s, t, after, 0, 0);
        rb_store(&t->down->lost, after);
        rb_add(&f->bus->lost, count);
    }
    if (dp_tapped(f))
        dp_tap_run(f, p, t, count, SB_OUTCOME_LOST);
    dp_consume(f, s);
    rb_add(&p->down->forwarded, count);
}

/* Publish what was copied of the run: the journal first, then whom its requests were given to. */
static inline void dp_publish_run(struct dp_forwarder *f, struct dp_source *s, struct dp_port *t)
{
    struct dp_port *p = s->port;
    s->to = dp_end_of(f, p, s->ring, f->run_count);
    dp_journal_run(f, s, t, s->ring, SB_JOURNAL_RUN, 0, 0);
    for (uint32_t i = 0; i < f->run_count; i++) {
        struct sb_record *h = &f->run_header[i];
        if (h->kind == SB_REQUEST)
            dp_remember_target(p, h, t);
        else if (s->ring == SB_REPLIES)
            rb_store(&t->target[sb_index_of(h->correlation)].done,
                     1 + dp_end_of(f, p, s->ring, i + 1) - RB_ALIGN8(h->length));
        dp_note_sent(f, h->sent_ns);
    }
    RB_FAIL("forward.chosen");
    dp_publish_at(f, t, s->ring, f->run_count);
    RB_FAIL("forward.published");
    if (dp_tapped(f))
        dp_tap_run(f, p, t, f->run_count, SB_OUTCOME_DELIVERED);
    dp_consume(f, s);
    RB_FAIL("forward.consumed");
    rb_add(&p->down->forwarded, f->run_count);
}

/* True: go on with this ring. */
static inline bool dp_forward_single(struct dp_forwarder *f, struct dp_source *s)
{
    struct dp_port *p = s->port, *t = &f->ports[f->run_target[0].slot];
    enum sb_ring_index ring = s->ring;
    struct dp_head_of_line *front = &p->head_of_line[ring];
    uint64_t largest = rb_largest_record(t->in[ring].capacity); /* the reserve is half a ring at the most */
    bool too_large = f->run_header[0].length > largest;
    if (!too_large) {
        uint32_t count = f->run_count;
        for (uint32_t i = 1; i < count; i++)
            if (f->run_header[i].length > largest)
                f->run_count = count = i;
        uint16_t keep = SB_RAW | SB_NONE | (ring == SB_REPLIES ? SB_REMOTE : 0);
        for (uint32_t i = 0; i < count && ring == SB_DATA; i++)
            f->run_header[i].attempt = 1;
        int fitted = dp_copy_run(f, p, t, ring, f->run_target[0].bits, keep);
        if (fitted < 0) {
            rb_abort(&t->in[ring]);
            dp_quarantine(f, t); /* routes change: choose again */
            return true;
        }
        if (fitted > 0) {
            f->run_count = (uint32_t)fitted;
            dp_publish_run(f, s, t);
            dp_clear_head_of_line(front);
            return true;
        }
        rb_abort(&t->in[ring]);
        bool again;
        uint64_t reserve = ring == SB_REPLIES ? t->reserve : 0;
        if (!dp_wait_or_lose(f, p, ring, t, ring, rb_end_after(&t->in[ring], f->run_header[0].length) + reserve,
                             f->run_target[0].lossy, &again))
            return again;
        if (!f->run_target[0].lossy || f->run_header[0].kind != SB_EVENT)
            f->run_count = 1;
        s->to = dp_end_of(f, p, ring, f->run_count);
    } else {
        f->run_count = 1;
        s->to = dp_end_of(f, p, ring, 1);
    }
    dp_lose_front(f, s, t, f->run_count, too_large);
    dp_clear_head_of_line(front);
    return true;
}

static inline void dp_refuse(struct dp_forwarder *f, struct dp_source *s, enum dp_verdict verdict)
{
    struct dp_port *p = s->port;
    struct sb_record *h = &f->run_header[0];
    if (verdict == DP_NOBODY) {
        rb_add(&f->bus->no_route, 1);
        if (h->kind == SB_REQUEST)
            dp_fail_request(f, p, sb_index_of(h->correlation), h->correlation, SB_FAULT_NO_ROUTE, NULL, 0, s);
        else
            dp_dead_letter(f, h, f->run_type[0], f->run_record[0] + sb_payload_offset(h), p->name, p,
                           "nobody handles it");
    } else if (verdict == DP_COLLIDES) {
        dp_fail_request(f, p, sb_index_of(h->correlation), h->correlation, SB_FAULT_COLLISION, p, 0, s);
    } else {
        rb_add(&f->bus->orphans, s->ring == SB_REPLIES);
    }
    if (dp_tapped(f))
        dp_tap_run(f, p, NULL, 1, verdict == DP_NOBODY ? SB_OUTCOME_NOBODY : SB_OUTCOME_DROPPED);
    dp_consume(f, s);
    rb_add(&p->down->forwarded, 1);
}

/* Forward what lies in a ring, a batch at the most. True: there may be more. */
static inline bool dp_forward_ring(struct dp_forwarder *f, struct dp_port *p, enum sb_ring_index ring)
{
    struct dp_source s = {.port = p, .ring = ring};
    uint32_t left = f->batch;
    while (left && !p->corrupt && p->out[ring].next < p->last[ring]) {
        if (ring == SB_DATA && rb_load(&p->down->todo.from) != SB_NOWHERE) {
            s.from = rb_load(&p->down->todo.from);
            s.to = rb_load(&p->down->todo.to);
            if (!dp_collect_todo(f, &s)) {
                dp_quarantine(f, p);
                return false;
            }
            if (!dp_continue_fanout(f, &s))
                return false;
            continue;
        }
        enum dp_verdict verdict = dp_collect_run(f, &s, left < DP_RUN ? left : DP_RUN);
        if (verdict == DP_VIOLATION) {
            dp_quarantine(f, p);
            return false;
        }
        if (verdict != DP_DELIVER) {
            dp_refuse(f, &s, verdict);
            left--;
            continue;
        }
        if (f->run_count == 0) { /* empty */
            if (s.to != s.from)
                dp_consume(f, &s);
            return false;
        }
        left -= f->run_count;
        if (f->run_targets == 0) {
            rb_add(&f->bus->unrouted, f->run_count);
            rb_add(&p->down->unrouted, f->run_count);
            rb_add(&p->down->forwarded, f->run_count);
            if (dp_tapped(f))
                dp_tap_run(f, p, NULL, f->run_count, SB_OUTCOME_NOBODY);
            dp_consume(f, &s);
        } else if (f->run_targets == 1) {
            if (!dp_forward_single(f, &s))
                return false;
        } else if (!dp_begin_fanout(f, &s)) {
            return false;
        }
    }
    return !p->corrupt && p->out[ring].next < p->last[ring];
}

#endif
