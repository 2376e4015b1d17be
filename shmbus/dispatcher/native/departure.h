/* How an endpoint leaves the bus, by closing, dying, eviction or quarantine, and what becomes of what it leaves.
 *
 * Its routes go at once, its pending callers are told at once, `down` is emitted at once. Then, as far as there is
 * space, what it had sent is forwarded, what it had not finished is handed on, the rest is counted, and its slot is
 * free.
 *
 * Its incoming ring lies in DOWN, which the dispatcher itself wrote; its tail, `taken` and `held` lie in UP and
 * are believed only where they make sense.
 *
 * Offers: dp_depart, dp_continue_departure, dp_all_forwarded; for adoption dp_settle_dead, dp_taken, dp_awaited. */
#pragma once

#include "shmbus/dispatcher/native/deaths.h"
#include "shmbus/dispatcher/native/fits.h"
#include "shmbus/dispatcher/native/forward.h"
#include "shmbus/dispatcher/native/interests.h"
#include "shmbus/dispatcher/native/members.h"

#define DP_GRACE_NS 1000000000u

/* What it leaves --------------------------------------------------------------------------------------------- */

/* What the endpoint says it has taken: between its tail and our head, or the tail where it says nonsense. */
static inline uint64_t dp_taken_in(struct dp_port *port, enum sb_ring_index ring)
{
    struct rb_producer *in = &port->in[ring];
    (void)rb_refresh_tail(in);
    uint64_t taken = rb_load_acquire(&port->up->incoming[ring].taken);
    return (taken & 7) || taken < in->tail_seen || taken > in->published ? in->tail_seen : taken;
}

static inline uint64_t dp_taken(struct dp_port *port) { return dp_taken_in(port, SB_DATA); }

/* One that was evicted or quarantined, or let go of its door, may go on writing: what it had sent and released by
 * now is all that counts, for whoever adopts this end, too. */
static inline void dp_freeze(struct dp_port *port)
{
    struct sb_down *down = port->down;
    bool frozen = rb_load(&down->incoming[SB_DATA].reclaim) != SB_NOWHERE;
    rb_fence_seq(); /* with ep_nack and ep_enter_share: we see what it has published and entered, or it sees that it was
                     * evicted */
    for (int ring = 0; ring < SB_RINGS; ring++) {
        if (!frozen)
            rb_store(&down->outgoing[ring].last, rb_load_acquire(&port->up->outgoing[ring].head));
        port->last[ring] = rb_load(&down->outgoing[ring].last);
    }
    if (frozen)
        return;
    RB_FAIL("departure.freezing");
    (void)rb_refresh_tail(&port->in[SB_DATA]);
    rb_store(&down->incoming[SB_URGENT_EVENTS].reclaim, dp_taken_in(port, SB_URGENT_EVENTS));
    rb_store(&down->incoming[SB_DATA].reclaim_bits, 0);
    rb_store_release(&down->incoming[SB_DATA].reclaim, port->in[SB_DATA].tail_seen); /* last: see sb_down_outgoing */
    RB_FAIL("departure.frozen");
}

/* Has it given a message back, of which it says `returned`? Then that is in its outgoing ring, or was. Of one that was
 * quarantined nothing more is read there. */
static inline bool dp_gave_back(const struct dp_port *port, uint64_t returned)
{
    uint64_t end = port->corrupt ? port->out[SB_DATA].released : port->last[SB_DATA];
    return returned && returned <= end;
}

struct dp_held { /* of a message that is begun and not done */
    uint64_t how; /* enum sb_held_state */
    uint32_t settled;
};

/* Is the message at `position` among the held? */
static inline bool dp_holds(const struct dp_port *port, uint64_t position, struct dp_held *held)
{
    for (uint32_t i = 0; i < SB_HELD; i++) {
        const struct sb_held_entry *entry = &port->up->held[i];
        if (rb_load_acquire(&entry->position) != position || (held->how = rb_load(&entry->done)) == SB_HELD_DONE)
            continue;
        held->settled = (uint32_t)rb_load(&entry->settled);
        return !dp_gave_back(port, rb_load(&entry->returned));
    }
    return false;
}

/* Who waits for it, or wants to know ------------------------------------------------------------------------- */

/* What it had answered by now is no loss of those who asked. One that lives may answer on: that is for later. */
static inline void dp_forward_replies(struct dp_forwarder *f, struct dp_port *port)
{
    uint64_t last = port->last[SB_REPLIES], head = rb_load_acquire(&port->up->outgoing[SB_REPLIES].head);
    port->last[SB_REPLIES] = head < last ? head : last;
    while (port->reason != SB_REASON_QUARANTINED && dp_forward_ring(f, port, SB_REPLIES)) {
    }
    port->last[SB_REPLIES] = last;
}

static inline uint64_t dp_request_key(uint32_t slot, uint32_t index)
{
    return ((uint64_t)slot << 16 | index) * 0x9fb21c651e98df25ull;
}
static inline bool dp_any(const void *item, const void *key) { (void)item; (void)key; return true; }

/* Every request that it had begun and not answered ends with an error now; those it had not touched are handed
 * on later. */
static inline void dp_fail_begun(struct dp_forwarder *f, struct dp_port *port)
{
    struct sb_table untouched = {0};
    uint64_t position = dp_taken(port);
    struct sb_record h;
    const uint8_t *record;
    if (port->reason != SB_REASON_QUARANTINED)
        for (; dp_own_record(f, port, &position, &h, &record); position += RB_ALIGN8(h.length))
            if (h.kind == SB_REQUEST)
                sb_table_put(&untouched, dp_request_key(h.peer, sb_index_of(h.correlation)), (void *)(uintptr_t)2);
    for (uint32_t slot = 0; slot < f->high_slot; slot++) {
        struct dp_port *requester = &f->ports[slot];
        if (requester->state == SB_ROW_FREE || requester->state == SB_ROW_DYING)
            continue;
        for (uint32_t i = 0; i < requester->pending_count; i++) {
            struct sb_target *given = &requester->given[i];
            if (rb_load(&given->whom) == dp_whom_of(port) && !rb_load(&given->done) &&
                !sb_table_find(&untouched, dp_request_key(slot, i), dp_any, NULL))
                dp_fail_request(f, requester, given->id, SB_FAULT_ENDPOINT_DIED, port, port->reason | SB_BEGUN, NULL);
        }
    }
    free(untouched.slots);
}

/* The reason of a dead letter. */
static inline const char *dp_why_ended(const struct dp_port *port, const char *died, const char *closed)
{
    return port->state == SB_ROW_LEAVING ? closed : died;
}

/* A message of its incoming ring will not be handled. */
static inline void dp_dead_letter_reclaimed(struct dp_forwarder *f, const struct sb_record *h, const uint8_t *record,
                                            const char *reason)
{
    struct dp_port *sender = dp_port_of(f, sb_whom(h->peer, h->peer_generation));
    dp_dead_letter(f, h, sb_type_of(record), record, dp_sender_name(f, h), sender, reason);
}

/* What it had let go and not done is not in its ring any more, so nobody else can have it. The content was
 * written by the dead endpoint and is checked first: also that it may have had that. */
static inline void dp_dead_letter_kept(struct dp_forwarder *f, struct dp_port *port)
{
    for (uint32_t i = 0; i < SB_KEPT; i++) {
        uint8_t record[sizeof port->up->kept[i].record];
        struct sb_record h;
        struct dp_held held;
        uint64_t at = rb_load_acquire(&port->up->kept[i].at);
        if (!at || dp_gave_back(port, rb_load(&port->up->kept[i].returned)) ||
            dp_holds(port, at - 1, &held)) /* it was killed as it let it go */
            continue;
        memcpy(record, port->up->kept[i].record, sizeof record);
        memcpy(&h, record, sizeof h);
        uint64_t front = sb_payload_offset(&h), there = h.length < sizeof record ? h.length : sizeof record;
        if ((h.kind == SB_EVENT || h.kind == SB_SEND) && sb_record_sound(&h) && front <= there &&
            (!(h.flags & SB_POOLED) || h.length - front == sizeof(struct sb_block)) &&
            dp_valid_tokens((const char *)sb_type_of(record), h.type_length, false) &&
            dp_may(port, h.kind == SB_SEND ? SB_RIGHT_HANDLE : SB_RIGHT_SUBSCRIBE, (const char *)sb_type_of(record),
                   h.type_length))
            dp_dead_letter_of(f, &h, sb_type_of(record), record + front, there - front, dp_sender_name(f, &h), NULL,
                              dp_why_ended(port, "its holder died, which had let it go",
                                           "its holder closed, which had let it go"));
    }
    uint64_t unkept = rb_load(&port->up->let_go_unkept), most = rb_load(&port->down->incoming[SB_DATA].delivered);
    dp_count_lost(f, port, SB_LOSS_ENDED, unkept < most ? unkept : 0, NULL, 0, 0);
}

static inline void dp_emit_down(struct dp_forwarder *f, struct dp_port *port)
{
    dp_emit_endpoint(f, "$bus.endpoint.down", port, sb_reason_word(port->reason));
    dp_row_set(port, &port->row->down_emitted, 1);
}

/* It is told that it takes part no more, for whatever the reason: only an exec was seen, or what looked like one, its
 * process may live. Its last replies go out, and all who wait for it, or want to know, hear of its end; twice does no
 * harm. */
static inline void dp_settle_dead(struct dp_forwarder *f, struct dp_port *port)
{
    rb_store_release(&port->down->state, SB_DOWN_EVICTED);
    dp_touch(f, port, SB_EVENT_STATE | SB_EVENT_END);
    dp_freeze(port);
    dp_forward_replies(f, port);
    dp_fail_begun(f, port);
    dp_withdraw_all(f, port);
    RB_FAIL("departure.answered");
    if (rb_load(&port->row->down_emitted))
        return;
    dp_dead_letter_kept(f, port);
    dp_emit_down(f, port);
    RB_FAIL("departure.emitted");
}

/* It takes no part any more: its state says so, nothing is routed to it, nobody waits for it. */
static inline void dp_depart(struct dp_forwarder *f, struct dp_port *port, enum sb_reason reason)
{
    port->reason = reason;
    port->state = reason == SB_REASON_DETACHED ? SB_ROW_LEAVING : SB_ROW_DYING;
    if (reason != SB_REASON_DETACHED)
        dp_record_death(f, port); /* before the row says so: whoever adopts a row that is DYING does not come here */
    dp_row_begin(port->row);
    rb_store(&port->row->reason, reason);
    rb_store(&port->row->down_ns, f->now);
    rb_store_release(&port->row->state, port->state); /* last: whoever adopts it knows why */
    dp_row_end(port->row);
    RB_FAIL("departure.begun");
    dp_remove_interests(&f->routes, (uint16_t)port->slot);
    dp_note_fits(f);
    dp_tend_keyed(f);
    dp_end_histories(f, port);
    dp_show_routes(f);
    dp_set_add(&f->departing, port->slot);
    dp_set_add(&f->active, port->slot);
    dp_wake_waiters(f, port);
    if (reason == SB_REASON_DETACHED)
        return;
    dp_settle_dead(f, port);
    if (reason == SB_REASON_QUARANTINED)
        dp_notify_of(f, DP_QUARANTINED_PORT, port);
}

/* Handing on ------------------------------------------------------------------------------------------------- */

/* Is the payload of this record of its ring there still? It may have let go of the block. */
static inline bool dp_has_payload(const struct dp_port *port, const struct sb_record *h, const uint8_t *record)
{
    if (!(h->flags & SB_POOLED))
        return true;
    const struct sb_block block = sb_block_in(h, record);
    return dp_shares_block(port, &block);
}

/* Give one record to `target`. DP_SPACE: it is given. DP_LOSE: no more waiting for it. */
static inline enum dp_space dp_give(struct dp_forwarder *f, const struct dp_span *span, struct dp_port *target,
                                   const struct sb_record *h, const uint8_t *record, uint32_t bits,
                                   uint64_t bits_after)
{
    struct dp_port *source = span->source;
    struct rb_producer *out = &target->in[SB_DATA];
    struct sb_record given = *h;
    const struct dp_part rest = {record + SB_HEADER, h->length - SB_HEADER};
    enum rb_status status;
    if (h->length > rb_largest_record(out->capacity) || !dp_has_payload(source, h, record))
        return DP_LOSE;
    given.flags |= SB_REDELIVERED;
    given.interests = bits;
    given.lost = (uint32_t)rb_load(&target->down->lost);
    while ((status = dp_write(target, SB_DATA, &given, &rest, 1)) == RB_FULL) {
        enum dp_space space =
            dp_ask_for_space(f, source, DP_LINE_HANDED_ON, target, SB_DATA, rb_end_after(out, h->length));
        if (space != DP_SPACE)
            return space;
    }
    if (status == RB_CORRUPT) {
        dp_quarantine(f, target);
        dp_set_add(&f->active, source->slot); /* to somebody else, then */
        return DP_WAIT;
    }
    dp_journal_run(f, span, target, SB_DATA, bits_after, 0);
    if (h->kind == SB_REQUEST)
        rb_store(&f->ports[h->peer].given[sb_index_of(h->correlation)].whom, dp_whom_of(target));
    RB_FAIL("reclaim.chosen");
    if (h->flags & SB_POOLED) {
        struct sb_block block = sb_block_in(h, record);
        dp_share_record(f, target, SB_DATA, out->next, h, &block);
    }
    dp_publish(f, target, SB_DATA, 1);
    RB_FAIL("reclaim.published");
    rb_add(&f->bus->routed, !dp_is_backlog(target));
    rb_add(&target->down->redelivered, !dp_is_backlog(target)); /* of who gets it out of there, see drain.h */
    rb_add(&f->bus->redelivered, 1);
    source->refused_since_ns[DP_LINE_HANDED_ON] = 0;
    return DP_SPACE;
}

/* Does the requester (NULL: it has gone) still wait for the reply to this request? */
static inline bool dp_awaited(const struct dp_port *requester, const struct sb_record *h)
{
    uint16_t index = sb_index_of(h->correlation);
    return requester && index < requester->pending_count &&
           memcmp(requester->given[index].id, h->correlation, 16) == 0 && !rb_load(&requester->given[index].done);
}

/* And has not withdrawn it? */
static inline bool dp_still_wanted(const struct dp_port *requester, const struct sb_record *h)
{
    if (!dp_awaited(requester, h))
        return false;
    const struct sb_pending *pending = &requester->pending[sb_index_of(h->correlation)];
    return rb_load_acquire(&pending->state) == SB_PENDING_WAITING && memcmp(pending->id, h->correlation, 16) == 0;
}

/* A request or send goes to another handler; without one, a request ends with an error, and so does one that was
 * begun, or is for that endpoint and no other. False: it must wait. */
static inline bool dp_hand_on_work(struct dp_forwarder *f, const struct dp_span *span, bool begun,
                                   struct dp_route *route, const struct sb_record *h, const uint8_t *record)
{
    struct dp_port *requester = h->kind == SB_REQUEST ? dp_port_of(f, sb_whom(h->peer, h->peer_generation)) : NULL;
    if (h->kind == SB_REQUEST && !dp_still_wanted(requester, h))
        return true; /* nobody waits for it */
    bool movable = !(requester && begun) && !(h->flags & SB_DIRECTED);
    if (route && route->handlers.count && movable) {
        struct dp_port *target = &f->ports[dp_choose_handler(f, route, NULL)->slot];
        enum dp_space space = dp_give(f, span, target, h, record, SB_PLAIN, 0);
        if (space != DP_LOSE)
            return space == DP_SPACE;
    }
    struct dp_port *source = span->source;
    if (requester)
        dp_fail_request(f, requester, h->correlation, SB_FAULT_ENDPOINT_DIED, source,
                        source->reason | (begun ? SB_BEGUN : 0), span);
    else
        dp_dead_letter_reclaimed(f, h, record, dp_why_ended(source, "its handler died", "its handler closed"));
    return true;
}

/* Of an event, what it would have got as a plain subscriber is counted, and each group's goes to another member.
 * False: one must wait. */
static inline bool dp_hand_on_event(struct dp_forwarder *f, const struct dp_span *span, bool begun,
                                    struct dp_route *route, const struct sb_record *h, const uint8_t *record)
{
    struct dp_port *source = span->source;
    rb_word *dealt = &source->down->incoming[SB_DATA].reclaim_bits;
    uint32_t bits = dp_reclaimed_of(span->from, rb_load(dealt)), left = h->interests & ~bits;
    if (left & SB_PLAIN) {
        bits |= SB_PLAIN;
        if (!begun) {
            dp_count_lost(f, source, SB_LOSS_ENDED, 1, span, dp_reclaimed(span->from, bits), 0);
            if (source->state == SB_ROW_DYING)
                dp_remember_loss(f, source, SB_LOSS_ENDED, h, sb_type_of(record), sb_payload_size(h, record),
                                 dp_source_of(f, h, record, dp_sender_name(f, h)));
        }
        rb_store(dealt, dp_reclaimed(span->from, bits));
        left &= ~SB_PLAIN;
    }
    for (; left; left &= left - 1) {
        uint32_t bit = (uint32_t)__builtin_ctz(left);
        const struct dp_receiver *next = dp_choose_member(f, route, source->group_of_bit[bit], source);
        if (next == &dp_not_now)
            return false;
        bits |= 1u << bit;
        uint64_t bits_after = dp_reclaimed(span->from, bits);
        enum dp_space space = DP_LOSE;
        if (next)
            space = dp_give(f, span, &f->ports[next->slot], h, record, 1u << next->bit, bits_after);
        if (space == DP_WAIT)
            return false;
        if (space == DP_LOSE)
            dp_dead_letter_reclaimed(f, h, record, next ? "no other member of its queue group had space"
                                                        : "its queue group has no member left");
        rb_store(dealt, bits_after);
    }
    return true;
}

/* One record of what lay in its incoming ring. False: it must wait. */
static inline bool dp_hand_on(struct dp_forwarder *f, const struct dp_span *span, uint64_t taken, struct sb_record *h,
                              const uint8_t *record)
{
    bool begun = span->from < taken;
    if (h->flags & SB_RETAINED) /* it is kept, so it is no loss */
        return true;
    if (begun && h->kind != SB_REQUEST) {
        struct dp_held held;
        if (!dp_holds(span->source, span->from, &held))
            return true; /* finished */
        if (h->kind == SB_EVENT && !((h->interests &= ~held.settled) & ~SB_PLAIN))
            return true; /* for all its groups */
        bool final = held.how == SB_HELD_FINAL;
        h->attempt += span->source->rank == SB_RANK_HERE; /* a link passes on what it begins, and dies of none */
        if (final || h->attempt > f->max_deliveries) {
            const char *often = dp_why_ended(span->source, "its receivers died of it", "its receivers gave it back");
            dp_dead_letter_reclaimed(f, h, record, final ? "its handler died" : often);
            return true;
        }
    }
    dp_pin_routes(&f->routes);
    struct dp_route *route = dp_lookup(&f->routes, sb_type_of(record), h->type_length, h->flags);
    return h->kind == SB_REQUEST || h->kind == SB_SEND ? dp_hand_on_work(f, span, begun, route, h, record)
                                                       : dp_hand_on_event(f, span, begun, route, h, record);
}

/* Urgent events that it had not taken are lost with it, all at once: nobody else gets them, and nothing of them
 * waits. */
static inline void dp_lose_urgent(struct dp_forwarder *f, struct dp_port *port)
{
    const struct sb_down_incoming *down = &port->down->incoming[SB_URGENT_EVENTS];
    struct dp_span span = {port, SB_URGENT_EVENTS, true, rb_load(&down->reclaim), port->in[SB_URGENT_EVENTS].published};
    struct sb_record h, last;
    const uint8_t *record, *last_record = NULL;
    uint64_t position = span.from, count = 0;
    for (; dp_own_record_in(f, port, SB_URGENT_EVENTS, &position, &h, &record); position += RB_ALIGN8(h.length)) {
        if (!h.interests) /* it is counted already, see revoke.h */
            continue;
        last = h;
        last_record = record;
        count++;
    }
    if (count) {
        dp_count_lost(f, port, SB_LOSS_ENDED, count, &span, 0, 0);
        if (port->state == SB_ROW_DYING)
            dp_remember_loss(f, port, SB_LOSS_ENDED, &last, sb_type_of(last_record),
                             sb_payload_size(&last, last_record),
                             dp_source_of(f, &last, last_record, dp_sender_name(f, &last)));
    }
    if (span.from != span.to)
        dp_consume(f, &span);
}

/* A batch of what lies in its incoming rings. True: nothing is left there. */
static inline bool dp_hand_on_ring(struct dp_forwarder *f, struct dp_port *port)
{
    struct dp_span span = {.source = port, .ring = SB_DATA, .reclaim = true};
    uint64_t taken = dp_taken(port), position = rb_load(&port->down->incoming[SB_DATA].reclaim);
    struct sb_record h;
    const uint8_t *record;
    dp_lose_urgent(f, port);
    for (uint32_t n = 0; dp_own_record(f, port, &position, &h, &record); n++) {
        if (n >= f->batch) {
            dp_set_add(&f->active, port->slot);
            return false;
        }
        span.from = position;
        span.to = position + RB_ALIGN8(h.length);
        if (!dp_hand_on(f, &span, taken, &h, record))
            return false;
        dp_consume(f, &span);
        port->refused_since_ns[DP_LINE_HANDED_ON] = 0;
        position = span.to;
    }
    return true;
}

/* The end ---------------------------------------------------------------------------------------------------- */

static inline bool dp_ring_empty(const struct dp_port *port, enum sb_ring_index ring)
{
    uint64_t released = port->out[ring].released;
    return port->corrupt || released >= port->last[ring] || rb_load_acquire(&port->up->outgoing[ring].head) == released;
}

static inline bool dp_all_forwarded(const struct dp_port *port)
{
    return dp_ring_empty(port, SB_DATA) && dp_ring_empty(port, SB_REPLIES);
}

/* What came for a mailbox that its endpoint wants, and was not taken, nor counted by it as lost. */
static inline uint64_t dp_untaken(const struct dp_port *port, const struct dp_port *box)
{
    const struct sb_had *had = &port->up->had[box->owner_index];
    uint64_t came = box->in[SB_DATA].published, known = 0;
    if (rb_load(&had->interest) != box->alone)
        return 0;
    if (rb_load(&had->whom) == dp_whom_of(box))
        known = rb_load(&had->received) + rb_load(&had->lost) - rb_load(&had->lost_before);
    return came > known ? came - known : 0;
}

/* What came for its mailboxes and it has not taken is lost, as it chose; and so is what it said of those it had closed.
 * The journal ties that to no record, but to how many are counted so far. */
static inline void dp_end_mailboxes(struct dp_forwarder *f, struct dp_port *port)
{
    rb_word *counted = &port->down->mailbox_lost;
    uint64_t lost = 0, most = rb_load(&f->bus->routed);
    uint32_t index = 0;
    for (uint32_t i = 0; i < SB_OWN_MAILBOXES; i++)
        lost += rb_load(&port->up->had[i].lost);
    for (struct dp_port *box; (box = dp_next_mailbox(f, port, &index));)
        lost += dp_untaken(port, box);
    if (lost > most)
        lost = most; /* it writes nonsense */
    if (lost > rb_load(counted)) {
        struct dp_span none = {port, SB_DATA, true, SB_NOWHERE, SB_NOWHERE};
        dp_count_lost(f, port, SB_LOSS_DROPPED, lost - rb_load(counted), &none, lost, 0);
        rb_store(counted, lost);
        RB_FAIL("mailbox.counted");
    }
    for (struct dp_port *box; index = 0, (box = dp_next_mailbox(f, port, &index));)
        dp_close_mailbox(f, box, true);
}

static inline void dp_end(struct dp_forwarder *f, struct dp_port *port)
{
    dp_end_mailboxes(f, port);
    dp_tell_rest(f, port, true);
    dp_tell_forbidden(f, port, true);
    if (port->state == SB_ROW_LEAVING) {
        dp_forward_replies(f, port);
        dp_fail_begun(f, port);
        dp_withdraw_all(f, port);
        dp_dead_letter_kept(f, port);
        dp_emit_down(f, port);
    }
    RB_FAIL("departure.end");
    rb_store_release(&port->down->state, SB_DOWN_RECLAIMED);
    RB_FAIL("departure.reclaimed");
    dp_set_drop(&f->departing, port->slot);
    dp_interests_close(port);
    dp_close_rights(port);
    dp_drop_groups(f, port);
    dp_drop_shares(f, port);
    dp_leave_pool(f, port);
    dp_touch(f, port, SB_EVENT_STATE | SB_EVENT_END);
    port->state = SB_ROW_FREE;
    f->ended_slots[f->ended_count++] = port->slot; /* the notice goes once its bell has been rung for the last time */
}

/* One that closes is told when what it will get is final, and says when it has dealt with that. True: it has. */
static inline bool dp_drained(struct dp_forwarder *f, struct dp_port *port)
{
    if (!port->leaving_drained) {
        port->leaving_drained = true;
        rb_store_release(&port->down->state, SB_DOWN_DRAINED);
        RB_FAIL("departure.drained");
        dp_touch(f, port, SB_EVENT_STATE);
    }
    if (rb_load_acquire(&port->up->state) != SB_UP_CLOSED || !dp_all_forwarded(port)) /* it sent while it drained */
        return false;
    dp_freeze(port);
    return true;
}

/* May it still look at what it has of others' pools? One that takes part no more and lives makes copies of that, for
 * which it has a second. */
static inline bool dp_may_look(struct dp_forwarder *f, struct dp_port *port)
{
    enum sb_reason why = port->reason;
    uint64_t until = rb_load(&port->row->down_ns) + DP_GRACE_NS;
    bool may_live = why == SB_REASON_EVICTED || why == SB_REASON_QUARANTINED || why == SB_REASON_EXEC;
    if (!port->shares.count || !may_live || f->now >= until || rb_load_acquire(&port->up->state) == SB_UP_CLOSED ||
        !dp_has_entries(f, port))
        return false;
    if (until < f->next_deadline)
        f->next_deadline = until;
    return true;
}

/* Go on with its end as far as it goes now. */
static inline void dp_continue_departure(struct dp_forwarder *f, struct dp_port *port)
{
    for (int ring = SB_RINGS - 1; ring >= 0; ring--)
        if (!dp_ring_empty(port, (enum sb_ring_index)ring) && dp_forward_ring(f, port, (enum sb_ring_index)ring))
            dp_set_add(&f->active, port->slot);
    if (port->corrupt && port->state == SB_ROW_LEAVING)
        dp_depart(f, port, SB_REASON_QUARANTINED);
    if (port->corrupt)
        dp_abandon_fanout(f, port);
    bool forwarded = dp_all_forwarded(port);
    uint32_t owed = dp_owed(f, port);
    if (owed & SB_PLAIN || dp_backlog_for(f, port, 0)) /* is about to be counted */
        return;
    if (port->state == SB_ROW_LEAVING && !(forwarded && dp_drained(f, port)))
        return;
    bool handed_on = dp_hand_on_ring(f, port);
    dp_wake_backlogs(f); /* of keys that were its own */
    if (handed_on && forwarded && !owed && !dp_may_look(f, port))
        dp_end(f, port);
}
