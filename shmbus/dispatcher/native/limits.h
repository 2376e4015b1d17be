/* Limits: a handler or callback that has taken longer than it may is overdue. Who waits for its reply is told at once,
 * its endpoint is free for no more than its other threads can do, and `$bus.endpoint.overdue` says so. What it replies
 * later is an orphan; it learns that nobody waits (cancel.h).
 *
 * When each limit is over stands in UP (endpoint/native/limit.h). One that comes before the next look at all ports is
 * waited for (`next_deadline`). What was told of stands in DOWN, so that a successor does not tell of it again.
 *
 * Offers: dp_look_at_limits, dp_limit_due. */
#pragma once

#include "shmbus/dispatcher/native/departure.h"

struct dp_limited { /* a copy of an entry, checked */
    struct dp_port *sender; /* NULL: it has gone */
    uint64_t limit_ns, ran_ns;
    enum sb_kind kind;
    uint32_t type_length;
    uint8_t id[16];
    char source[SB_SOURCE], type[SB_MAX_TYPE + 1];
};

/* False: it has just ended, or holds what no endpoint writes. */
static inline bool dp_read_limited(struct dp_forwarder *f, const struct dp_port *port, uint32_t i, uint64_t until,
                                   struct dp_limited *l)
{
    const struct sb_limited *entry = &port->up->limited[i];
    uint64_t whom = rb_load(&entry->whom), kind = rb_load(&entry->kind), length = rb_load(&entry->type_length);
    l->limit_ns = rb_load(&entry->limit_ns);
    memcpy(l->id, entry->id, 16);
    memcpy(l->type, entry->type, sizeof l->type);
    memcpy(l->source, entry->source, sizeof l->source);
    rb_fence_acquire(); /* with ep_end_limit, which stores the word before it writes the next one there */
    bool known = kind == SB_REQUEST || kind == SB_SEND || kind == SB_EVENT;
    if (rb_load(&port->up->limits[i]) != until || !known || l->limit_ns > until ||
        length > SB_MAX_TYPE || !dp_valid_tokens(l->type, (uint32_t)length, false))
        return false;
    l->ran_ns = f->now - (until - l->limit_ns);
    l->kind = (enum sb_kind)kind;
    l->type_length = (uint32_t)length;
    struct sb_record from = {.peer = (uint16_t)sb_whom_slot(whom), .peer_generation = sb_whom_generation(whom)};
    const char *sender = dp_sender_name(f, &from);
    if (sender[0] != SB_LINK_MARK || !dp_is_source(l->source)) /* only links bring what others have sent */
        snprintf(l->source, sizeof l->source, "%s", sender);
    l->sender = dp_port_of(f, whom);
    return true;
}

/* Does its sender wait for this endpoint's reply? */
static inline bool dp_owes_reply(const struct dp_port *port, const struct dp_limited *l)
{
    struct sb_record h = {.kind = SB_REQUEST};
    memcpy(h.correlation, l->id, 16);
    if (!dp_awaited(l->sender, &h) || l->sender->state == SB_ROW_DYING)
        return false;
    uint16_t index = sb_index_of(l->id);
    return rb_load(&l->sender->given[index].whom) == dp_whom_of(port) &&
           rb_load_acquire(&l->sender->pending[index].state) == SB_PENDING_WAITING;
}

/* Unless it has been answered, or given up by its requester. */
static inline void dp_fail_overdue(struct dp_forwarder *f, struct dp_port *port, const struct dp_limited *l)
{
    if (!dp_owes_reply(port, l)) /* garbage has nothing forwarded out of turn */
        return;
    dp_forward_replies(f, port);
    if (dp_owes_reply(port, l)) {
        dp_fail_request(f, l->sender, l->id, SB_FAULT_HANDLER_TIMEOUT, port, l->ran_ns, NULL);
        dp_tell_cancel(f, port, l->sender, l->id);
    }
}

/* At most as often in a second as it can have handlers with a limit: garbage crowds out none of the bus's other
 * events. */
static inline void dp_emit_overdue(struct dp_forwarder *f, struct dp_port *port, const struct dp_limited *l)
{
    if (f->now - port->overdue_told_since_ns >= 1000000000u) {
        port->overdue_told_since_ns = f->now;
        port->overdue_told = 0;
    }
    if (port->overdue_told++ >= SB_LIMITS) {
        rb_add(&f->bus->events_lost, 1);
        return;
    }
    struct dp_pack pack = {.bytes = f->scratch, .capacity = DP_EVENT_BYTES};
    dp_pack_map(&pack, 8);
    dp_pack_string(&pack, "name", port->name);
    dp_pack_number(&pack, "pid", port->pid);
    dp_pack_number(&pack, "generation", port->generation);
    dp_pack_text(&pack, "type", l->type, l->type_length);
    dp_pack_string(&pack, "kind", sb_kind_word(l->kind));
    dp_pack_string(&pack, "source", l->source);
    dp_pack_seconds(&pack, "limit", l->limit_ns);
    dp_pack_seconds(&pack, "seconds", l->ran_ns);
    dp_emit(f, "$bus.endpoint.overdue", &pack);
}

/* The time of what stands there is over, and this has not been told of. */
static inline void dp_tell_overdue(struct dp_forwarder *f, struct dp_port *port, uint32_t i, uint64_t until)
{
    struct dp_limited l;
    if (!dp_read_limited(f, port, i, until, &l))
        return;
    if (l.kind == SB_REQUEST)
        dp_fail_overdue(f, port, &l);
    RB_FAIL("limit.failed");
    dp_emit_overdue(f, port, &l);
    rb_add(&port->down->overruns, 1);
    rb_store(&port->down->limits_told[i], until);
}

/* How many of its handlers are overdue, each told of once, and when the next one will be. */
static inline void dp_look_at_limits(struct dp_forwarder *f, struct dp_port *port)
{
    uint64_t first = rb_load_acquire(&port->up->first_limit_ns);
    uint32_t overdue = 0;
    if ((!first && !port->overdue) || port->state == SB_ROW_DYING)
        return;
    port->limit_ns = 0;
    for (uint32_t i = 0; i < SB_LIMITS && (first <= f->now || port->overdue); i++) {
        uint64_t until = rb_load_acquire(&port->up->limits[i]);
        if (!until)
            continue;
        if (until > f->now) {
            port->limit_ns = !port->limit_ns || until < port->limit_ns ? until : port->limit_ns;
            continue;
        }
        overdue++;
        if (rb_load(&port->down->limits_told[i]) != until)
            dp_tell_overdue(f, port, i, until);
    }
    if (first > f->now)
        port->limit_ns = first;
    if (port->limit_ns && port->limit_ns < f->next_deadline)
        f->next_deadline = port->limit_ns;
    if (overdue < port->overdue)
        dp_wake_backlogs(f);
    port->overdue = overdue;
}

/* Shall it be visited for its limits? */
static inline bool dp_limit_due(struct dp_forwarder *f, const struct dp_port *port)
{
    if (!port->limit_ns)
        return false;
    if (port->limit_ns > f->now && port->limit_ns < f->next_deadline)
        f->next_deadline = port->limit_ns;
    return port->limit_ns <= f->now;
}
