/* Adoption: a new dispatcher finds a bus as a killed one left it, and goes on as if nothing had happened.
 *
 * In this order: groups with a key, backlogs, mailboxes and what is kept are mapped, what stood in the journal is
 * finished or forgotten, shares of blocks are counted (recount.h), the interests of all who are attached are read
 * (before anything is routed), requests that name nobody any more are answered, ends that had begun go on, and every
 * bell is rung, because the dead may have owed it. A fan-out half done stands in `todo` and goes on by itself. Each
 * step may be repeated, so a kill in here does no harm either.
 *
 * Offers: dp_recover and its parts dp_recover_rings, dp_recover_interests, dp_recover_ports; dp_count_delivered. */
#pragma once

#include "shmbus/dispatcher/native/departure.h"
#include "shmbus/dispatcher/native/recount.h"

#include <time.h>

#define DP_LOOKS 20u /* for interests that cannot be read, DP_LOOK_NS apart */

/* Records that were published in this incoming ring, by what it has not taken; its own two words may be torn by a
 * kill. */
static inline uint64_t dp_delivered_in(const struct dp_forwarder *f, struct dp_port *port, enum sb_ring_index ring)
{
    uint64_t count, position, again, untouched = 0;
    int tries = 16; /* after them a changing count is used as it is */
    do {
        count = rb_load_acquire(&port->up->incoming[ring].taken_count);
        position = dp_taken_in(port, ring);
        again = rb_load_acquire(&port->up->incoming[ring].taken_count);
    } while (count != again && --tries);
    struct sb_record h;
    const uint8_t *record;
    for (; dp_own_record_in(f, port, ring, &position, &h, &record); position += RB_ALIGN8(h.length))
        untouched++;
    return count + untouched;
}

static inline void dp_count_delivered(const struct dp_forwarder *f, struct dp_port *port)
{
    port->delivered = dp_delivered_in(f, port, SB_DATA);
    rb_store(&port->down->incoming[SB_DATA].delivered, port->delivered);
    rb_store(&port->down->incoming[SB_URGENT_EVENTS].delivered, dp_delivered_in(f, port, SB_URGENT_EVENTS));
}

/* The requests of a run that was not published were chosen for in vain: choose again. */
static inline void dp_forget_targets(struct dp_port *source, uint64_t from, uint64_t to)
{
    struct rb_consumer *c = &source->out[SB_DATA];
    uint64_t position = from;
    struct rb_head8 head;
    const uint8_t *record;
    struct sb_record h;
    while (position < to && rb_peek_at(c, &position, SB_HEADER, &head, &record) == RB_OK && position < to &&
           dp_copy_header(&head, record, &h)) {
        uint16_t index = sb_index_of(h.correlation);
        if (h.kind == SB_REQUEST && index < source->pending_count &&
            memcmp(source->given[index].id, h.correlation, 16) == 0)
            rb_store_release(&source->given[index].whom, 0);
        position += RB_ALIGN8(h.length);
    }
}

/* Likewise for requests that were about to be handed on, or to leave a backlog: they are the ended endpoint's
 * still, untouched, or the backlog's, whoever else has died meanwhile. */
static inline void dp_forget_handed_on(struct dp_forwarder *f, struct dp_port *source, uint64_t from, uint64_t to,
                                       uint64_t whom)
{
    struct sb_record h;
    const uint8_t *record;
    uint64_t position = rb_load(&source->down->incoming[SB_DATA].reclaim);
    for (; dp_own_record(f, source, &position, &h, &record) && position < to; position += RB_ALIGN8(h.length)) {
        struct dp_port *requester = dp_port_of(f, sb_whom(h.peer, h.peer_generation));
        if (position < from)
            return; /* the journal is about what has been let go since */
        if (h.kind != SB_REQUEST || !dp_awaited(requester, &h))
            continue;
        rb_word *given = &requester->given[sb_index_of(h.correlation)].whom;
        if (rb_load(given) == whom)
            rb_store_release(given, dp_whom_of(source));
    }
}

struct dp_unfinished { /* what the journal says was begun */
    enum sb_journal_kind kind;
    struct dp_span span;
    uint64_t target; /* whom */
    enum sb_ring_index target_ring;
    uint64_t head, bits, detail; /* LOST: `detail` without the reason */
    enum sb_loss why;
    bool todo; /* an entry of the fan-out that stands there */
};

/* False: nothing, or its source is not there any more. */
static inline bool dp_read_journal(struct dp_forwarder *f, struct dp_unfinished *u)
{
    const struct sb_journal *j = &f->bus->journal;
    uint64_t kind = rb_load_acquire(&j->kind); /* with the release stores of dp_journal() */
    uint64_t source = rb_load(&j->source), target = rb_load(&j->target);
    uint32_t slot = (uint32_t)(source & 0xffff), ring = (uint32_t)(source >> 16 & 0xff);
    uint32_t target_slot = (uint32_t)(target & 0xffff), target_ring = (uint32_t)(target >> 16 & 0xff);
    uint32_t rings = source & DP_FROM_RECLAIM ? SB_RINGS_IN : SB_RINGS;
    if (kind == SB_JOURNAL_NONE || slot >= DP_PORTS || ring >= rings || target_slot >= DP_PORTS ||
        target_ring >= SB_RINGS_IN)
        return false;
    struct dp_port *port = dp_port_of(f, sb_whom(slot, (uint32_t)rb_load(&j->source_generation)));
    if (!port)
        return false;
    *u = (struct dp_unfinished){.kind = (enum sb_journal_kind)kind,
                                .span = {.source = port, .ring = (enum sb_ring_index)ring,
                                         .reclaim = source & DP_FROM_RECLAIM, .from = rb_load(&j->from),
                                         .to = rb_load(&j->to)},
                                .target = sb_whom(target_slot, (uint32_t)rb_load(&j->target_generation)),
                                .target_ring = (enum sb_ring_index)target_ring, .head = rb_load(&j->head),
                                .bits = rb_load(&j->bits), .detail = rb_load(&j->detail)};
    u->why = (enum sb_loss)(u->kind == SB_JOURNAL_LOST ? u->detail >> 32 : 0);
    if (u->kind == SB_JOURNAL_LOST)
        u->detail &= 0xffffffffu;
    u->todo = !u->span.reclaim && ring == SB_DATA && u->span.from != SB_NOWHERE &&
              rb_load(&port->down->todo.from) == u->span.from;
    return true;
}

/* It was not published. */
static inline void dp_forget_unfinished(struct dp_forwarder *f, const struct dp_unfinished *u)
{
    struct dp_port *source = u->span.source;
    if (u->kind != SB_JOURNAL_RUN)
        return;
    if (u->span.reclaim)
        dp_forget_handed_on(f, source, u->span.from, u->span.to, u->target);
    else if (dp_port_of(f, u->target) && u->span.ring == SB_DATA && !u->todo &&
             source->out[SB_DATA].released == u->span.from)
        dp_forget_targets(source, u->span.from, u->span.to);
}

/* It was published or counted: strike it, or let go of the records. */
static inline void dp_finish_unfinished(struct dp_forwarder *f, const struct dp_unfinished *u, struct dp_port *target)
{
    struct dp_port *source = u->span.source;
    if (u->kind == SB_JOURNAL_LIVE) {
        dp_stop_waiting(target, u->detail);
        if (u->span.reclaim)
            dp_close_backlog(f, source, true);
        return;
    }
    if (u->kind == SB_JOURNAL_ERROR && u->detail < target->pending_count)
        rb_store(&target->given[u->detail].done, SB_DONE_BY_ERROR);
    if (u->kind == SB_JOURNAL_LOST && u->span.from == SB_NOWHERE) { /* see dp_end_mailboxes, dp_count_oversize */
        rb_store(&source->down->mailbox_lost, u->bits);
        return;
    }
    if (u->todo && u->kind != SB_JOURNAL_ERROR) {
        if (u->detail < source->down->todo_count)
            rb_store(&source->todo[u->detail].bits, u->bits);
    } else if (u->span.reclaim && u->span.ring == SB_URGENT_EVENTS) { /* all of it was lost at once */
        if (rb_load(&source->down->incoming[SB_URGENT_EVENTS].reclaim) == u->span.from)
            dp_consume(f, &u->span);
    } else if (u->span.reclaim) {
        struct sb_down_incoming *down = &source->down->incoming[SB_DATA];
        struct sb_record h;
        const uint8_t *record;
        uint64_t position = rb_load(&down->reclaim);
        if (!dp_own_record(f, source, &position, &h, &record) || position != u->span.from)
            return;
        if (h.kind == SB_EVENT && !dp_is_backlog(source))
            rb_store(&down->reclaim_bits, u->bits);
        else
            dp_consume(f, &u->span);
    } else {
        struct rb_consumer *out = &source->out[u->span.ring];
        if (out->released == u->span.from && rb_refresh_head(out) == RB_OK && u->span.to <= out->head_seen)
            dp_consume(f, &u->span);
    }
}

/* The loss is counted, once: `lost` was to be raised to what the journal says, and the reason's counter after it. */
static inline void dp_recover_lost(struct dp_port *target, const struct dp_unfinished *u)
{
    struct sb_down *down = target->down;
    if (rb_load(&down->lost) < u->head)
        rb_store_release(&down->lost, u->head);
    uint64_t told = 0, lost = rb_load(&down->lost);
    for (uint32_t i = 0; i < SB_LOSSES; i++)
        told += rb_load(&down->lost_by[i]);
    if (told < lost && u->why < SB_LOSSES)
        rb_store_release(&down->lost_by[u->why], rb_load(&down->lost_by[u->why]) + (lost - told));
}

static inline void dp_recover_journal(struct dp_forwarder *f)
{
    struct dp_unfinished u;
    if (!dp_read_journal(f, &u))
        return;
    struct dp_port *target = dp_port_of(f, u.target);
    if (target && u.kind == SB_JOURNAL_LOST)
        dp_recover_lost(target, &u);
    if (target && (u.kind == SB_JOURNAL_LOST || target->in[u.target_ring].published != u.head))
        dp_finish_unfinished(f, &u, target);
    else /* published at a target that is wholly gone, its end would have dealt with it */
        dp_forget_unfinished(f, &u);
}

/* Those of an endpoint that is ending, too: its groups have to be known to hand its messages on. False: some could not
 * be read, which is nobody's fault. */
static inline bool dp_recover_interests(struct dp_forwarder *f)
{
    bool all = true;
    for (uint32_t slot = 0; slot < f->high_slot; slot++) {
        struct dp_port *port = &f->ports[slot];
        if (port->state == SB_ROW_FREE)
            continue;
        enum dp_reading reading = dp_read_interests(f, port);
        if (reading == DP_READ_LATER)
            dp_notify_of(f, DP_UNREAD_INTERESTS, port);
        all &= reading == DP_READ_GARBAGE || !dp_interests_unread(port);
        if (port->state != SB_ROW_LIVE)
            dp_remove_interests(&f->routes, (uint16_t)port->slot);
        RB_FAIL("recover.read");
    }
    return all;
}

/* With interests that are not known, messages would go to nobody, and those of groups be dead letters: so nothing is
 * forwarded before all are read. But where a name was removed, they never will be. */
static inline void dp_await_interests(struct dp_forwarder *f)
{
    for (uint32_t looks = DP_LOOKS; !dp_recover_interests(f) && looks && rb_load_acquire(&f->stop) != 2; looks--) {
        rb_store(&f->bus->heartbeat_ns, f->now);
        nanosleep(&(struct timespec){0, DP_LOOK_NS}, NULL);
        f->now = rb_now();
    }
}

/* Requests whose target is not there any more at all. */
static inline void dp_fail_orphaned(struct dp_forwarder *f, struct dp_port *requester)
{
    for (uint32_t i = 0; i < requester->pending_count; i++) {
        const struct sb_target *given = &requester->given[i];
        uint64_t whom = rb_load(&given->whom);
        if (whom && !rb_load(&given->done) && !dp_port_of(f, whom))
            dp_fail_request(f, requester, given->id, SB_FAULT_ENDPOINT_DIED, NULL, SB_REASON_DIED | SB_BEGUN, NULL);
    }
}

static inline void dp_recover_port(struct dp_forwarder *f, struct dp_port *port)
{
    dp_fail_orphaned(f, port);
    if (port->state == SB_ROW_DYING)
        dp_settle_dead(f, port);
    if (port->state != SB_ROW_LIVE)
        dp_end_histories(f, port);
    if (port->state != SB_ROW_LIVE)
        dp_set_add(&f->departing, port->slot);
    port->corrupt |= port->state == SB_ROW_DYING && port->reason == SB_REASON_QUARANTINED;
    dp_touch(f, port, SB_EVENT_ANY);
    for (int r = 0; r < SB_RINGS; r++)
        dp_note_moved(f, port, (enum sb_ring_index)r);
    dp_set_add(&f->active, port->slot);
    RB_FAIL("recover.port");
}

/* Records in backlogs, of whose counts a kill may have torn one. */
static inline void dp_count_backlogs(struct dp_forwarder *f)
{
    uint64_t left = f->backlogs_open;
    for (struct dp_port *port; (port = dp_next_backlog(f, &left));) {
        uint64_t position = rb_load(&port->down->incoming[SB_DATA].reclaim), count = 0;
        struct sb_record h;
        const uint8_t *record;
        for (; dp_own_record(f, port, &position, &h, &record); position += RB_ALIGN8(h.length))
            count++;
        rb_store(&port->down->forwarded, port->delivered - count);
    }
}

/* What the journal says was begun, and how far all had come. */
static inline void dp_recover_rings(struct dp_forwarder *f)
{
    RB_FAIL("recover.begin");
    dp_adopt_keyed(f);
    dp_adopt_backlogs(f);
    dp_adopt_mailboxes(f);
    dp_adopt_values(f);
    RB_FAIL("recover.values");
    dp_recover_journal(f);
    RB_FAIL("recover.journal");
    rb_store_release(&f->bus->journal.kind, SB_JOURNAL_NONE);
    RB_FAIL("recover.cleared");
    for (uint32_t slot = 0; slot < f->high_slot; slot++) {
        struct dp_port *port = &f->ports[slot];
        if (port->state == SB_ROW_FREE)
            continue;
        if (dp_todo_stands(port) && rb_load(&port->down->todo.from) != port->out[SB_DATA].released)
            rb_store_release(&port->down->todo.from, SB_NOWHERE);
        dp_count_delivered(f, port);
    }
    for (uint32_t slot = SB_FIRST_MAILBOX; slot < DP_PORTS; slot++)
        if (f->ports[slot].state != SB_ROW_FREE)
            dp_count_oversize(f, &f->ports[slot]);
    dp_recount_pools(f);
}

/* All else, with everybody's interests known. */
static inline void dp_recover_ports(struct dp_forwarder *f)
{
    for (uint32_t slot = 0; slot < f->high_slot; slot++)
        if (f->ports[slot].state != SB_ROW_FREE) {
            dp_recover_port(f, &f->ports[slot]);
            dp_set_add(&f->untold, slot);
        }
    dp_count_backlogs(f);
    dp_tend_backlogs(f);
    f->active.word[DP_BACKLOG_WORD] |= f->catching_up;
}

static inline void dp_recover(struct dp_forwarder *f)
{
    dp_recover_rings(f);
    dp_await_interests(f);
    dp_tend_keyed(f);
    dp_show_routes(f);
    dp_recover_ports(f);
}
