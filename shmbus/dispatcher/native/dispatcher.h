/* The forwarding thread: it takes orders, visits the ports that have something, rings the bells, and waits.
 *
 * It never takes the GIL and never blocks but at its own bell.
 *
 * Offers: dp_forwarder_open, dp_forwarder_close; dp_forward, the thread's body; its parts dp_take_orders, dp_pass,
 *         dp_something_new, dp_any_active. */
#pragma once

#include "shmbus/dispatcher/native/admit.h"
#include "shmbus/dispatcher/native/growth.h"
#include "shmbus/dispatcher/native/history.h"
#include "shmbus/dispatcher/native/limits.h"
#include "shmbus/dispatcher/native/recover.h"
#include "shmbus/dispatcher/native/reclaim.h"
#include "shmbus/dispatcher/native/tell.h"

/* In zeroed memory. What the control plane wrote into BUS says how it forwards; `prefix` is that of the bus's names,
 * with a slash: "/shmbus:UID:BUS". False: no memory or descriptor; it may be closed all the same. */
static inline bool dp_forwarder_open(struct dp_forwarder *f, struct sb_bus *bus, struct sb_ready *ready,
                                     const char *prefix, sem_t *bell, uint32_t spin_ns)
{
    f->bus = bus;
    f->ready = ready;
    f->rows = (struct sb_row *)((uint8_t *)bus + bus->rows_offset);
    f->slots = (uint32_t)bus->slots;
    snprintf(f->prefix, sizeof f->prefix, "%s", prefix);
    f->block_timeout_ns = bus->block_timeout_ns;
    f->stall_after_ns = bus->stall_after_ns;
    f->max_deliveries = (uint32_t)bus->max_deliveries;
    f->batch = (uint32_t)bus->batch_per_pass;
    f->values.chunk_cells = sb_chunk_cells(bus->retain_bytes);
    f->next_deadline = ~0ull;
    f->scratch = malloc(DP_EVENT_BYTES);
    f->ports = calloc(DP_PORTS, sizeof *f->ports);
    f->ready_seen = calloc(f->slots / 2 + 8, sizeof *f->ready_seen);
    rb_bell_open(&f->bell, &bus->bell, bell, spin_ns);
    bool routes = dp_routes_open(&f->routes, f->slots), orders = dp_orders_open(&f->orders, &bus->bell, bell);
    f->routes.keyed_at = bus->keyed;
    return f->scratch && f->ports && f->ready_seen && routes && orders;
}

static inline void dp_forwarder_close(struct dp_forwarder *f)
{
    for (uint32_t slot = 0; f->ports && slot < f->slots; slot++) {
        dp_interests_close(&f->ports[slot]);
        dp_close_rights(&f->ports[slot]);
        dp_close_event(&f->ports[slot]);
    }
    uint64_t left = f->backlogs_open;
    for (struct dp_port *port; (port = dp_next_backlog(f, &left));)
        dp_close_backlog(f, port, false);
    dp_close_values(f);
    for (uint32_t index = 0; f->ports && index < SB_MAILBOXES; index++)
        if (f->ports[SB_FIRST_MAILBOX + index].mailbox)
            dp_close_mailbox(f, &f->ports[SB_FIRST_MAILBOX + index], false);
    if (f->ports)
        dp_close_pools(f);
    dp_routes_close(&f->routes);
    dp_orders_close(&f->orders);
    free(f->scratch);
    free(f->ports);
    free(f->ready_seen);
}

/* Orders ------------------------------------------------------------------------------------------------------ */

static inline void dp_set_stalled(struct dp_forwarder *f, struct dp_port *port, bool stalled, const char *reason)
{
    if (port->stalled == stalled || port->state != SB_ROW_LIVE)
        return;
    port->stalled = stalled;
    dp_set_health(port, SB_STALLED, stalled);
    dp_wake_backlogs(f);
    dp_emit_endpoint(f, stalled ? "$bus.endpoint.stalled" : "$bus.endpoint.resumed", port, reason);
}

static inline void dp_set_stopped(struct dp_forwarder *f, struct dp_port *port, bool stopped)
{
    port->stopped = stopped;
    if (port->state == SB_ROW_LIVE) /* both at once: a successor takes one that is stopped for stalled */
        dp_set_health(port, stopped ? SB_STOPPED | SB_STALLED : SB_STOPPED, stopped);
    dp_set_stalled(f, port, stopped, stopped ? "stopped" : "continued");
}

/* It has passed its event. It is rung at once, because a dispatcher that has died may have owed it, and this one, too,
 * as long as it did not have it. */
static inline void dp_open_event(struct dp_forwarder *f, struct dp_port *port, int fd)
{
    dp_close_event(port);
    port->event = sb_event_open(port->up, fd);
    RB_FAIL("event.opened");
    rb_fence_seq();
    sb_ring_event(&port->event, SB_EVENT_ANY);
    rb_store_seq(&port->down->event_known, f->bus->serial); /* its owner waits for that */
    rb_ring_bell(&port->bell);
}

static inline void dp_obey(struct dp_forwarder *f, const struct dp_order *o)
{
    struct dp_port *port = &f->ports[o->slot];
    if (o->kind == DP_ADMIT) {
        dp_open_port(f, o);
        return;
    }
    if (port->state == SB_ROW_FREE || port->generation != o->generation) {
        if (o->kind == DP_EVENT)
            close(o->event);
        return;
    }
    if ((o->kind == DP_DEAD || o->kind == DP_EVICT) && (port->state == SB_ROW_LIVE || port->state == SB_ROW_LEAVING)) {
        /* One that said CLOSED before it went has gone in good order. */
        if (o->kind == DP_DEAD && rb_load_acquire(&port->up->state) == SB_UP_CLOSED)
            dp_set_add(&f->active, port->slot);
        else
            dp_depart(f, port, o->reason);
    } else if (o->kind == DP_EVENT) {
        dp_open_event(f, port, o->event);
    } else if (o->kind == DP_STOPPED_TASK) {
        dp_set_stopped(f, port, true);
    } else if (o->kind == DP_CONTINUED_TASK) {
        port->taken_since_ns = f->now; /* it could not take anything meanwhile */
        dp_set_stopped(f, port, false);
    }
}

/* At adoption the ports that stood come first, and with `admissions` nothing else. */
static inline void dp_take_orders(struct dp_forwarder *f, bool admissions)
{
    struct dp_order *o = dp_take_list(&f->orders, admissions);
    while (o) {
        struct dp_order *next = o->next;
        dp_obey(f, o);
        free(o);
        o = next;
    }
}

/* A pass ------------------------------------------------------------------------------------------------------ */

static inline const rb_word *dp_ready_pair(const struct dp_forwarder *f, uint32_t slot)
{
    return (const rb_word *)(const void *)((const uint8_t *)f->ready + sizeof(struct sb_ready) + 4 * (slot & ~1u));
}

/* Which endpoints have raised their word since the last look? Whole blocks of one cache line are read, as
 * dp_something_new does, since one that is no endpoint any more may write there, too. */
static inline bool dp_scan_ready(struct dp_forwarder *f)
{
    bool any = false;
    for (uint32_t slot = 0; slot < (f->high_slot + 15) / 16 * 16; slot += 2) {
        uint64_t now = rb_load_acquire(dp_ready_pair(f, slot)), changed = now ^ f->ready_seen[slot / 2];
        if (!changed)
            continue;
        f->ready_seen[slot / 2] = now;
        if ((uint32_t)changed && slot < f->high_slot)
            dp_set_add(&f->active, slot);
        if (changed >> 32 && slot + 1 < f->high_slot)
            dp_set_add(&f->active, slot + 1);
        any = true;
    }
    return any;
}

static inline bool dp_something_new(void *context)
{
    struct dp_forwarder *f = context;
    if (rb_load_seq(&f->orders.waiting) || rb_load_seq(&f->stop))
        return true;
    for (uint32_t slot = 0; slot < f->high_slot; slot += 16) {
        uint64_t differs = 0;
        for (uint32_t k = 0; k < 16; k += 2) /* READY and ready_seen are whole blocks long */
            differs |= rb_load_seq(dp_ready_pair(f, slot + k)) ^ f->ready_seen[(slot + k) / 2];
        if (differs)
            return true;
    }
    return false;
}

/* Of one that has attached: `up` is emitted once, and its interests are read. */
static inline void dp_listen(struct dp_forwarder *f, struct dp_port *port)
{
    if (!port->confirmed) {
        port->confirmed = true;
        dp_emit_endpoint(f, "$bus.endpoint.up", port, NULL);
    }
    enum dp_reading log = dp_read_interests(f, port);
    if (log == DP_READ_LATER)
        dp_notify_of(f, DP_UNREAD_INTERESTS, port);
    if (log == DP_READ_GARBAGE)
        dp_quarantine(f, port);
    dp_tend_keyed(f);
    if (__builtin_expect(dp_set_has(&f->late, port->slot), 0) && f->now >= f->late_again_ns)
        (void)dp_begin_histories(f, port);
}

/* Has it made space that others wait for? */
static inline void dp_look_for_space(struct dp_forwarder *f, struct dp_port *port)
{
    for (int r = 0; r < SB_RINGS_IN; r++) {
        uint64_t need = rb_load(&port->down->incoming[r].need);
        if (need == SB_NO_NEED)
            continue;
        if (rb_refresh_tail(&port->in[r]) != RB_OK)
            dp_quarantine(f, port);
        else if (port->in[r].tail_seen >= need)
            dp_wake_waiters(f, port);
    }
    (void)dp_still_slow(f, port);
}

/* Has it taken something since the last look, or nothing to take? Then it is not stalled. */
static inline bool dp_note_taking(struct dp_forwarder *f, struct dp_port *port)
{
    const struct sb_incoming *in = port->up->incoming;
    uint64_t taken = rb_load(&in[SB_DATA].taken_count) + rb_load(&in[SB_URGENT_EVENTS].taken_count);
    if (taken == port->taken_seen && (dp_untouched(port) || dp_urgent_untouched(port)) && !dp_in_hand(port))
        return false;
    port->taken_seen = taken;
    port->taken_since_ns = f->now;
    if (!port->stopped)
        dp_set_stalled(f, port, false, "progress");
    return true;
}

static inline void dp_visit(struct dp_forwarder *f, struct dp_port *port)
{
    if (port->state == SB_ROW_FREE)
        return;
    if (dp_is_backlog(port)) {
        if (port->alone)
            dp_catch_up(f, port);
        else
            dp_drain_backlog(f, port);
        return;
    }
    uint64_t state = rb_load_acquire(&port->up->state), asked = rb_load_acquire(&port->up->pool_asked);
    if (__builtin_expect(port->shares.count != 0, 0) && port->state != SB_ROW_DYING)
        dp_sweep_shares(f, port);
    if (__builtin_expect(asked != port->pool_asked, 0) && dp_grows(port))
        dp_answer_pool(f, port, asked);
    if (port->state == SB_ROW_LIVE && state != SB_UP_ATTACHING)
        dp_listen(f, port);
    dp_look_for_space(f, port);
    dp_tell_again(f, port);
    if (port->stalled)
        dp_note_taking(f, port);
    dp_look_at_limits(f, port);
    dp_look_for_work(f, port);
    if (port->state == SB_ROW_LIVE) {
        bool more = dp_forward_ring(f, port, SB_REPLIES);
        more |= dp_forward_ring(f, port, SB_DATA);
        if (more)
            dp_set_add(&f->active, port->slot);
    }
    if (port->corrupt && port->state == SB_ROW_LIVE)
        dp_depart(f, port, SB_REASON_QUARANTINED);
    else if (port->state == SB_ROW_LIVE && state >= SB_UP_CLOSING)
        dp_depart(f, port, SB_REASON_DETACHED);
    if (port->state == SB_ROW_LEAVING || port->state == SB_ROW_DYING)
        dp_continue_departure(f, port);
    if (__builtin_expect(port->shares.count != 0, 0) && port->state != SB_ROW_DYING)
        dp_drop_ended(f, port);
}

/* This thread did not run for `late` ns, so others may not have run either: extend every running time limit by that. */
static inline void dp_discount_late(struct dp_forwarder *f, struct dp_port *port, uint64_t late)
{
    uint64_t *since[5 + DP_LINES] = {&port->progress_ns, &port->done_to_ns, &port->taken_since_ns,
                                     &port->shares.taken_ns, &port->pool_waits_since_ns};
    for (int line = 0; line < DP_LINES; line++)
        since[5 + line] = &port->refused_since_ns[line];
    for (size_t i = 0; i < sizeof since / sizeof *since; i++)
        if (*since[i]) /* 0: it does not wait */
            *since[i] = *since[i] + late < f->now ? *since[i] + late : f->now;
}

/* All heads, whatever READY says, and the endpoints that make no progress. */
static inline void dp_look_around(struct dp_forwarder *f)
{
    uint64_t late = f->next_look ? f->now - f->next_look : 0;
    rb_store(&f->bus->heartbeat_ns, f->now);
    for (uint32_t slot = 0; slot < f->high_slot; slot++) {
        struct dp_port *port = &f->ports[slot];
        if (port->state == SB_ROW_FREE)
            continue;
        dp_set_add(&f->active, slot);
        dp_discount_late(f, port, late);
        port->shares.look = true;
        dp_tell_rest(f, port, false);
        dp_tell_forbidden(f, port, false);
        if (rb_load_acquire(&port->up->incoming[SB_DATA].taken) == port->in[SB_DATA].published)
            dp_count_delivered(f, port); /* a kill of either side can have left the counts apart */
        bool stalls = !dp_note_taking(f, port) && port->rank != SB_RANK_KEEPER; /* which takes nothing on purpose */
        if (stalls && f->now - port->taken_since_ns > f->stall_after_ns)
            dp_set_stalled(f, port, true, "messages wait and nothing is in hand");
    }
    while (f->high_slot && f->ports[f->high_slot - 1].state == SB_ROW_FREE)
        f->high_slot--;
    dp_look_at_backlogs(f);
    dp_tell_untold(f);
    f->pools_starve |= rb_load(&f->bus->pools_short) != 0; /* who lacked it may have gone */
    rb_store(&f->bus->types_known, f->routes.types_known);
    f->next_look = f->now + DP_LOOK_NS;
}

/* One fence, then the bells of all who got something and of the senders who waited for the space. */
static inline void dp_ring_all(struct dp_forwarder *f)
{
    rb_fence_seq(); /* with the endpoint's need.store and epoch := odd, then its look: one of the two sees the other */
    for (uint32_t i = 0; i < f->touched_count; i++) {
        struct dp_port *port = &f->ports[f->touched_slots[i]];
        dp_ring(port, port->touched);
        port->touched = 0;
    }
    f->touched_count = 0;
    for (uint32_t i = 0; i < f->moved_count; i++) {
        struct dp_port *port = &f->ports[f->moved_slots[i]];
        for (int r = 0; r < SB_RINGS; r++) {
            uint64_t need = rb_load_seq(&port->up->outgoing[r].need);
            if (port->tail_moved[r] && need != SB_NO_NEED && port->out[r].released >= need)
                dp_ring(port, SB_EVENT_SPACE);
            port->tail_moved[r] = false;
        }
    }
    f->moved_count = 0;
    for (uint32_t i = 0; i < f->pool_count; i++) {
        struct dp_port *port = &f->ports[f->pool_slots[i]];
        if (rb_load_seq(&port->up->pool_need))
            dp_ring(port, SB_EVENT_SPACE);
        port->pool_moved = false;
    }
    f->pool_count = 0;
    for (uint32_t i = 0; i < f->ended_count; i++) {
        struct dp_port *port = &f->ports[f->ended_slots[i]];
        dp_close_event(port);
        dp_row_set(port, &port->row->state, SB_ROW_GONE); /* the control plane frees the row once the names are gone */
        dp_notify_of(f, DP_RECLAIMED_PORT, port);
    }
    f->ended_count = 0;
}

static inline void dp_account_latency(struct dp_forwarder *f)
{
    if (!f->sent_count)
        return;
    uint64_t now = rb_now(), sum = 0, most = rb_load(&f->bus->latency_max_ns);
    for (uint32_t i = 0; i < f->sent_count; i++) {
        uint64_t took = now > f->sent_ns[i] ? now - f->sent_ns[i] : 0;
        sum += took;
        most = took > most ? took : most;
        rb_add(&f->bus->latency[sb_latency_bucket(took)], 1);
    }
    rb_add(&f->bus->latency_count, f->sent_count);
    rb_add(&f->bus->latency_sum_ns, sum);
    rb_store(&f->bus->latency_max_ns, most);
    f->sent_count = 0;
}

static inline bool dp_any_active(const struct dp_forwarder *f)
{
    uint64_t any = f->active.word[DP_BACKLOG_WORD];
    for (uint32_t w = 0; w <= (f->high_slot ? (f->high_slot - 1) / 64 : 0); w++)
        any |= f->active.word[w];
    return any != 0;
}

static inline void dp_visit_word(struct dp_forwarder *f, uint32_t word)
{
    uint64_t bits = f->active.word[word];
    f->active.word[word] = 0;
    for (; bits; bits &= bits - 1)
        dp_visit(f, &f->ports[word * 64 + (uint32_t)__builtin_ctzll(bits)]);
}

static inline void dp_pass(struct dp_forwarder *f)
{
    if (rb_load_acquire(&f->orders.waiting))
        dp_take_orders(f, false);
    dp_scan_ready(f);
    bool looks = f->now >= f->next_look, due = f->now >= f->next_deadline;
    if (looks)
        dp_look_around(f);
    if (due) {
        f->next_deadline = ~0ull;
        for (uint32_t slot = 0; slot < f->high_slot; slot++)
            if (f->ports[slot].refused_since_ns[DP_LINE_DATA] || f->ports[slot].refused_since_ns[DP_LINE_REPLIES] ||
                dp_limit_due(f, &f->ports[slot]) || dp_set_has(&f->departing, slot))
                dp_set_add(&f->active, slot);
    }
    if (looks || due)
        dp_look_at_pools(f);
    uint32_t words = f->high_slot ? (f->high_slot - 1) / 64 + 1 : 0;
    bool late = false;
    for (uint32_t w = 0; w < words; w++)
        late |= f->late.word[w];
    if (__builtin_expect(late, 0))
        dp_begin_late(f);
    for (uint32_t w = 0; w < words; w++)
        dp_visit_word(f, w);
    if (f->backlogs_open) { /* after all that may have made somebody free */
        if (f->backlogs_version != f->routes.version)
            dp_tend_backlogs(f);
        dp_visit_word(f, DP_BACKLOG_WORD);
    } else {
        f->active.word[DP_BACKLOG_WORD] = 0; /* one that has gone was woken */
    }
    dp_tell_matchings(f);
    if (__builtin_expect(f->routes_told != f->routes_shown, 0)) {
        f->routes_told = f->routes_shown;
        dp_emit_routes(f);
    }
    if (__builtin_expect(f->pools_starve, 0))
        dp_feed_pools(f);
    dp_ring_all(f);
    dp_account_latency(f);
    rb_add(&f->bus->passes, 1);
}

/* Nothing on its way: all rings to us are read, nothing is owed, nobody is leaving. */
static inline bool dp_quiet(struct dp_forwarder *f)
{
    for (uint32_t slot = 0; slot < f->high_slot; slot++) {
        struct dp_port *port = &f->ports[slot];
        if (port->state == SB_ROW_FREE)
            continue;
        if (port->state != SB_ROW_LIVE || !dp_all_forwarded(port))
            return false;
    }
    uint64_t left = f->backlogs_open;
    for (struct dp_port *port; (port = dp_next_backlog(f, &left));)
        if (dp_waits(f, port))
            return false;
    return true;
}

/* The thread's body: forwards until it is told to stop, then, if asked to, until all is quiet. */
static inline void *dp_forward(void *forwarder)
{
    struct dp_forwarder *f = forwarder;
    f->now = rb_now();
    f->next_look = 0;
    f->next_deadline = ~0ull;
    if (f->adopting) {
        /* Endpoints that died meanwhile depart after all interests are read, so that `down` reaches its subscribers. */
        dp_take_orders(f, true);
        dp_recover(f);
    }
    for (;;) {
        f->now = rb_now();
        dp_pass(f);
        uint64_t stop = rb_load_acquire(&f->stop);
        if (stop && (stop == 2 || dp_quiet(f) || f->now >= rb_load(&f->stop_by_ns)))
            return NULL;
        if (dp_any_active(f) || (stop && dp_scan_ready(f)))
            continue;
        uint64_t until = f->high_slot ? f->next_look : f->now + 1000000000u;
        if (f->next_deadline < until)
            until = f->next_deadline;
        if (stop) /* while stopping, dp_something_new is true at once: sleep 0.2 ms between passes */
            nanosleep(&(struct timespec){0, 200000}, NULL);
        else
            rb_bell_wait(&f->bell, dp_something_new, f, until);
    }
}
