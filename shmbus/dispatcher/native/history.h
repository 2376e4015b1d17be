/* History: a subscription that comes late first gets what was kept of the types that it matches, then what comes.
 *
 * Its endpoint gets the values for that subscription alone (SB_ALONE), then an SB_LIVE; from there on the subscription
 * is one like others. Where all of that fits into the ring at once, it is one publication, with its journal. Else the
 * values go into a backlog of the subscription's own, and what comes meanwhile goes behind them; that leads to the ring
 * as there is space, as what waits in any backlog does, and the SB_LIVE ends it. So nobody else waits, and a record of
 * the seam is either among the values or behind them: a value that was kept before, and not yet delivered, is known by
 * its number.
 *
 * What was kept is copied when the subscription begins, so no later value can take it away. One with a mailbox finds it
 * there, see recall.h.
 *
 * Offers: dp_begin_histories, dp_begin_late; dp_catch_up. */
#pragma once

#include "shmbus/dispatcher/native/drain.h"
#include "shmbus/dispatcher/native/recall.h"

#define DP_LATE_AGAIN_NS 10000000u /* where there was no space for one, the next is tried after so long */
#define DP_CATCHING_UP (SB_BACKLOGS / 2) /* at a time: the others are for work */

/* The pattern of an interest, as its node has it; returns its length. */
static inline size_t dp_pattern_of(const struct dp_interest *w, char pattern[SB_MAX_TYPE + 1])
{
    size_t length = sb_trie_pattern(&w->node->at, pattern);
    memmove(pattern, pattern + SB_MAX_TYPE - length, length);
    pattern[length] = 0;
    return length;
}

/* Writing -------------------------------------------------------------------------------------------------------- */

static inline uint64_t dp_recalled_bytes(const struct dp_values *s)
{
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < s->recalled_count; i++)
        bytes += RB_ALIGN8(s->recalled[i]->length);
    return bytes;
}

/* Write all of them, for this interest alone, behind what the ring holds. RB_FULL: they do not fit, as all else a
 * hint. */
static inline enum rb_status dp_write_recalled(struct dp_values *s, struct rb_producer *to, uint64_t id, uint32_t lost)
{
    for (uint32_t i = 0; i < s->recalled_count; i++) {
        uint8_t *at;
        enum rb_status status = rb_claim(to, s->recalled[i]->length, 0, &at);
        if (status != RB_OK)
            return status;
        dp_read_value(s, s->recalled[i], at);
        struct sb_record *h = (struct sb_record *)(void *)at;
        h->flags |= SB_ALONE;
        h->deadline_ns = id;
        h->lost = lost;
        rb_commit(to, h->length);
    }
    return RB_OK;
}

static inline enum rb_status dp_write_live(struct dp_forwarder *f, struct dp_port *port, uint64_t id, uint64_t number)
{
    struct sb_record h = {.length = SB_HEADER, .kind = SB_LIVE, .flags = SB_NONE | SB_ALONE | SB_RETAINED,
                          .interests = SB_PLAIN, .peer = SB_FROM_BUS, .attempt = 1, .sent_ns = f->now,
                          .deadline_ns = id, .lost = (uint32_t)rb_load(&port->down->lost)};
    memcpy(h.correlation, &number, sizeof number);
    return dp_write(port, SB_DATA, &h, NULL, 0);
}

/* The SB_LIVE was written behind `count` values, and is published with them: from here on the interest is like
 * others. */
static inline void dp_publish_live(struct dp_forwarder *f, const struct dp_span *span, struct dp_port *port,
                                   uint64_t id, uint32_t count)
{
    struct dp_interest *w = dp_interest_of(&f->routes, (uint16_t)port->slot, id);
    dp_journal(f, SB_JOURNAL_LIVE, span, port, SB_DATA, port->in[SB_DATA].published, 0, id);
    dp_publish(f, port, SB_DATA, count + 1);
    RB_FAIL("history.live");
    port->live_at = port->in[SB_DATA].published;
    rb_add(&f->bus->routed, count);
    dp_stop_waiting(port, id);
    if (w)
        dp_lead(&f->routes, w, w->slot);
}

/* Beginning ------------------------------------------------------------------------------------------------------- */

/* All at once into its endpoint's ring. False: there is no space. */
static inline bool dp_give_at_once(struct dp_forwarder *f, struct dp_port *port, uint64_t id)
{
    struct dp_values *s = &f->values;
    struct rb_producer *in = &port->in[SB_DATA];
    enum rb_status status = rb_refresh_tail(in);
    if (status == RB_OK && in->published - in->tail_seen + dp_recalled_bytes(s) + SB_HEADER > in->capacity)
        return false;
    if (status == RB_OK)
        status = dp_write_recalled(s, in, id, (uint32_t)rb_load(&port->down->lost));
    if (status == RB_OK)
        status = dp_write_live(f, port, id, rb_load(&f->bus->retained_last));
    if (status != RB_OK) {
        rb_abort(in);
        if (status == RB_CORRUPT)
            dp_quarantine(f, port);
        return false;
    }
    struct dp_span span = {.source = port, .ring = SB_DATA, .from = SB_NOWHERE, .to = SB_NOWHERE};
    dp_share_recalled(f, port, in->published);
    dp_publish_live(f, &span, port, id, s->recalled_count);
    return true;
}

/* A ring that holds them, and as much again, and any record that may come. */
static inline uint64_t dp_room_for(const struct dp_forwarder *f, const struct dp_port *port)
{
    const struct dp_values *s = &f->values;
    const uint64_t least[] = {f->bus->backlog_bytes, f->largest_ring, port->in[SB_DATA].capacity,
                              2 * dp_recalled_bytes(s)};
    uint64_t capacity = RB_MIN_CAPACITY;
    for (size_t i = 0; i < sizeof least / sizeof *least; i++)
        while (capacity < least[i])
            capacity *= 2;
    return capacity;
}

/* Into a backlog of its own, to which its messages go from now on. False: none can be made now. */
static inline bool dp_give_backlog(struct dp_forwarder *f, struct dp_port *port, struct dp_interest *w,
                                   const char *pattern)
{
    struct dp_values *s = &f->values;
    struct sb_backlog *memory = NULL;
    if ((uint32_t)__builtin_popcountll(f->catching_up) < DP_CATCHING_UP)
        memory = dp_lay_backlog(f, dp_room_for(f, port));
    if (!memory)
        return false;
    struct sb_down_incoming *in = &memory->down.incoming[SB_DATA];
    struct rb_producer ring;
    uint8_t *data = (uint8_t *)memory + memory->down.incoming_ring[SB_DATA].offset;
    memory->whom = dp_whom_of(port);
    memory->interest = w->id;
    memory->number = rb_load(&f->bus->retained_last);
    snprintf(memory->type, sizeof memory->type, "%s", pattern);
    rb_producer_open(&ring, &in->head, &in->reclaim, &in->high, data, memory->down.incoming_ring[SB_DATA].capacity);
    dp_write_recalled(s, &ring, w->id, (uint32_t)rb_load(&port->down->lost));
    rb_publish(&ring);
    rb_store(&in->delivered, s->recalled_count);
    struct dp_port *backlog = dp_enter_backlog(f, memory);
    dp_backlog_of(f, backlog)->logged = true;
    dp_share_recalled(f, backlog, 0);
    dp_stop_waiting(port, w->id);
    dp_lead(&f->routes, w, (uint16_t)backlog->slot);
    dp_set_add(&f->active, backlog->slot);
    return true;
}

/* Those of its interests that wait for that begin. False: one has to wait for space, and those behind it. */
static inline bool dp_begin_histories(struct dp_forwarder *f, struct dp_port *port)
{
    dp_set_drop(&f->late, port->slot);
    for (uint32_t i = 0; i < SB_WAITING && port->state == SB_ROW_LIVE && !port->corrupt; i++) {
        char pattern[SB_MAX_TYPE + 1];
        uint64_t id = rb_load(&port->down->waiting[i]);
        struct dp_interest *w = id ? dp_interest_of(&f->routes, (uint16_t)port->slot, id) : NULL;
        if (id && !w) /* it was removed */
            rb_store(&port->down->waiting[i], 0);
        if (!w)
            continue;
        bool known = dp_recall(&f->values, pattern, dp_pattern_of(w, pattern), w->history, port->rank);
        uint32_t oversize = dp_set_oversize_aside(&f->values, port);
        if (!known || !(dp_give_at_once(f, port, id) || dp_give_backlog(f, port, w, pattern))) {
            dp_set_add(&f->late, port->slot);
            return false;
        }
        dp_count_lost(f, port, SB_LOSS_TOO_LARGE, oversize, NULL, 0, 0);
        dp_tell_oversize(f, port, oversize);
        dp_set_add(&f->active, port->slot); /* more may stand in its log than could wait */
    }
    return true;
}

/* Before anything is forwarded: those that had to wait, in turn, until one has to again. */
static inline void dp_begin_late(struct dp_forwarder *f)
{
    for (uint32_t n = 0; n < f->high_slot && f->now >= f->late_again_ns; n++) {
        uint32_t slot = f->late_turn++ % f->high_slot;
        if (dp_set_has(&f->late, slot) && !dp_begin_histories(f, &f->ports[slot]))
            f->late_again_ns = f->now + DP_LATE_AGAIN_NS;
    }
    for (uint32_t w = 0; w < DP_BACKLOG_WORD; w++)
        if (f->late.word[w] && f->late_again_ns < f->next_deadline)
            f->next_deadline = f->late_again_ns;
}

/* Catching up ----------------------------------------------------------------------------------------------------- */

/* Collect from the front what goes on to the endpoint, or a single record that does not. */
static inline enum dp_leaving dp_collect_history(struct dp_forwarder *f, struct dp_port *port, const struct dp_port *to,
                                                 uint32_t limit)
{
    struct dp_run *run = &f->run;
    uint64_t position = rb_load(&port->down->incoming[SB_DATA].reclaim);
    enum dp_leaving first = DP_LEAVES;
    run->span = (struct dp_span){port, SB_DATA, true, position, position};
    dp_empty_run(run);
    dp_choose_one(&run->targets, to->slot, SB_PLAIN);
    while (run->count < limit) {
        struct sb_record *h = &run->header[run->count];
        if (!dp_own_record(f, port, &position, h, &run->record[run->count]))
            break;
        enum dp_leaving now = DP_LEAVES;
        if (!h->interests || dp_had_as_kept(dp_backlog_of(f, port), h)) /* it was revoked, or */
            now = DP_WITHDRAWN;
        else if (h->length > rb_largest_record(to->in[SB_DATA].capacity))
            now = DP_OVERSIZE;
        if (run->count && now != DP_LEAVES)
            break;
        if (!run->count)
            run->span.from = position; /* past padding */
        dp_note_own_block(run);
        run->type[run->count++] = NULL;
        run->span.to = position += RB_ALIGN8(h->length);
        first = now;
        if (now != DP_LEAVES)
            break;
    }
    return first;
}

/* Nobody wants it any more, or its endpoint ends: what came for it is lost there, and what was kept is no loss. A batch
 * at the most. */
static inline void dp_give_up_history(struct dp_forwarder *f, struct dp_port *port, struct dp_port *to)
{
    struct dp_run *run = &f->run;
    uint64_t position = rb_load(&port->down->incoming[SB_DATA].reclaim);
    struct sb_record h;
    const uint8_t *record;
    uint32_t left = f->batch;
    for (; left && dp_own_record(f, port, &position, &h, &record); left--) {
        run->span = (struct dp_span){port, SB_DATA, true, position, position + RB_ALIGN8(h.length)};
        run->count = 1;
        if (to && h.interests && !(h.flags & SB_RETAINED) && !dp_had_as_kept(dp_backlog_of(f, port), &h))
            dp_count_lost(f, port, SB_LOSS_ENDED, 1, &run->span, 0, 0);
        position = run->span.to;
        dp_leave_backlog(f);
    }
    if (!left) {
        dp_set_add(&f->active, port->slot);
        return;
    }
    port->state = SB_ROW_LEAVING; /* what a fan-out still owes it is counted */
    dp_wake_waiters(f, port);
    if (dp_owed(f, port))
        return;
    dp_close_backlog(f, port, true);
    f->late_again_ns = f->now;
    if (to)
        dp_set_add(&f->active, to->slot); /* its end has waited for this, or another interest */
}

/* Nothing waits any more: the interest gets what others get. False: there is no space to say so. */
static inline bool dp_end_history(struct dp_forwarder *f, struct dp_port *port, struct dp_port *to)
{
    const struct dp_backlog *b = dp_backlog_of(f, port);
    struct dp_span span = {.source = port, .ring = SB_DATA, .reclaim = true, .from = SB_NOWHERE, .to = SB_NOWHERE};
    enum rb_status status;
    while ((status = dp_write_live(f, to, b->interest, b->number)) == RB_FULL)
        if (!dp_need_space(port, to, SB_DATA, rb_end_after(&to->in[SB_DATA], SB_HEADER)))
            return false;
    if (status != RB_OK) {
        rb_abort(&to->in[SB_DATA]);
        dp_quarantine(f, to);
        return false;
    }
    dp_publish_live(f, &span, to, b->interest, 0);
    dp_wake_waiters(f, port);
    dp_close_backlog(f, port, true);
    f->late_again_ns = f->now; /* somebody may have waited for a backlog */
    dp_set_add(&f->active, to->slot);
    return true;
}

/* What waits for one that catches up goes on, a batch at the most. */
static inline void dp_catch_up(struct dp_forwarder *f, struct dp_port *port)
{
    struct dp_run *run = &f->run;
    struct dp_port *to = dp_receiving(f, port);
    uint32_t left = f->batch;
    if (!to || to->state != SB_ROW_LIVE) {
        dp_give_up_history(f, port, to);
        return;
    }
    while (left && !to->corrupt && dp_waits(f, port)) {
        enum dp_leaving first = dp_collect_history(f, port, to, left < DP_RUN ? left : DP_RUN);
        if (!run->count)
            return;
        if (first == DP_OVERSIZE) {
            const struct sb_record *h = &run->header[0];
            dp_count_lost(f, to, SB_LOSS_TOO_LARGE, 1, &run->span, 0, 0);
            dp_emit_lost(f, to, SB_LOSS_TOO_LARGE, h, sb_type_of(run->record[0]), dp_size_in_run(run, 0),
                         dp_source_of(f, h, run->record[0], dp_sender_name(f, h)));
        } else if (first == DP_LEAVES && !dp_give_waiting(f)) {
            return;
        }
        left -= run->count;
        dp_leave_backlog(f);
    }
    if (to->corrupt) /* it departs, and what waits is counted then */
        return;
    if (!left)
        dp_set_add(&f->active, port->slot);
    else if (!dp_owed(f, port))
        dp_end_history(f, port, to);
}
