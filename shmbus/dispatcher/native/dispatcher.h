/* The forwarding thread: it takes orders, visits the ports that have something, rings the bells, and waits.
 *
 * It never takes the GIL and never blocks but at its own bell. */
#ifndef DP_DISPATCHER_H
#define DP_DISPATCHER_H

#include "shmbus/dispatcher/native/recover.h"

#include <signal.h>

/* Orders from the control plane and the watcher ---------------------------------------------------------------- */

static inline void dp_wake(struct dp_forwarder *f)
{
    rb_store_seq(&f->orders_waiting, rb_load(&f->orders_waiting) + 1);
    rb_ring_bell(&f->own_bell);
}

static inline bool dp_give_order(struct dp_forwarder *f, const struct dp_order *order)
{
    struct dp_order *copy = malloc(sizeof *copy);
    if (!copy)
        return false;
    *copy = *order;
    copy->next = NULL;
    pthread_mutex_lock(&f->lock);
    *f->orders_end = copy;
    f->orders_end = &copy->next;
    dp_wake(f);
    pthread_mutex_unlock(&f->lock);
    return true;
}

static inline bool dp_descriptor_sound(const struct sb_ring_descriptor *place, uint64_t segment)
{
    return rb_capacity_valid(place->capacity) && place->capacity <= segment && place->offset % 8 == 0 &&
           place->offset <= segment - place->capacity;
}

/* Copy out what UP says of itself. False: not all of it lies within the segment. Its owner may change it at any
 * time, so whoever goes by it takes the copy. */
static inline bool dp_read_shape(const struct sb_up *up, uint64_t size, struct dp_shape *shape)
{
    if (size < sizeof *up)
        return false;
    memcpy(shape->outgoing, up->outgoing_ring, sizeof shape->outgoing);
    for (int r = 0; r < SB_RINGS; r++)
        shape->incoming[r] = *(const volatile uint64_t *)&up->incoming_ring[r].capacity;
    shape->pending_offset = *(const volatile uint64_t *)&up->pending_offset;
    shape->pending_count = *(const volatile uint64_t *)&up->pending_count;
    for (int r = 0; r < SB_RINGS; r++)
        if (!dp_descriptor_sound(&shape->outgoing[r], size) || !rb_capacity_valid(shape->incoming[r]))
            return false;
    return shape->pending_count >= 1 && shape->pending_count <= 65535 && shape->pending_offset % 8 == 0 &&
           shape->pending_offset <= size &&
           shape->pending_count <= (size - shape->pending_offset) / sizeof(struct sb_pending) &&
           shape->pending_count * 2 * SB_FAULT_RECORD <= shape->incoming[SB_REPLIES] / 2;
}

static inline void dp_port_open(struct dp_forwarder *f, const struct dp_order *o)
{
    struct dp_port *p = &f->ports[o->slot];
    memset(p, 0, sizeof *p);
    p->slot = o->slot;
    p->generation = o->generation;
    p->up = o->up;
    p->down = o->down;
    p->row = &f->rows[o->slot];
    p->pid = p->row->identity.pid;
    memcpy(p->name, p->row->name, sizeof p->name - 1);
    /* DOWN was made from another reading of UP: both have to have room. */
    uint64_t count = o->down->target_count < o->shape.pending_count ? o->down->target_count : o->shape.pending_count;
    p->pending_count = (uint32_t)count;
    p->pending = (const struct sb_pending *)((const uint8_t *)o->up + o->shape.pending_offset);
    p->target = (struct sb_target *)((uint8_t *)o->down + o->down->target_offset);
    p->todo = (struct sb_todo_target *)((uint8_t *)o->down + o->down->todo_offset);
    p->reserve = (uint64_t)p->pending_count * 2 * SB_FAULT_RECORD;
    for (int r = 0; r < SB_RINGS; r++) {
        struct sb_ring_descriptor out = o->shape.outgoing[r], in = o->down->incoming_ring[r];
        const uint8_t *out_data = (const uint8_t *)o->up + out.offset;
        uint8_t *in_data = (uint8_t *)o->down + in.offset;
        p->corrupt |= rb_consumer_open(&p->out[r], &o->up->outgoing[r].head, &o->down->outgoing[r].tail, out_data,
                                       out.capacity) != RB_OK;
        p->corrupt |= rb_producer_open(&p->in[r], &o->down->incoming[r].head, &o->up->incoming[r].tail,
                                       &o->down->incoming[r].high, in_data, in.capacity) != RB_OK;
        p->progress_tail[r] = p->in[r].tail_seen;
    }
    p->delivered = rb_load(&o->down->incoming[SB_DATA].delivered);
    p->leaving_drained = rb_load(&o->down->state) == SB_DOWN_DRAINED;
    p->bell = (struct rb_poster){.epoch = &o->up->bell, .semaphore = o->bell};
    p->progress_ns = p->taken_since_ns = f->now;
    p->state = (enum sb_row_state)rb_load(&p->row->state);
    p->reason = (enum sb_reason)rb_load(&p->row->reason);
    p->confirmed = o->adopted;
    if (o->adopted) { /* `resumed` is still owed of it, and its slowness to be forgiven */
        uint64_t health = rb_load(&p->row->health);
        p->stalled = p->stopped = health & SB_STALLED;
        p->slow = health & SB_SLOW;
    }
    for (int r = 0; r < SB_RINGS; r++)
        p->last[r] = SB_NOWHERE;
    if (f->high_slot <= o->slot)
        f->high_slot = o->slot + 1;
    dp_set_add(&f->active, o->slot);
}

static inline void dp_set_stalled(struct dp_forwarder *f, struct dp_port *p, bool stalled, const char *reason)
{
    if (p->stalled == stalled || p->state != SB_ROW_LIVE)
        return;
    p->stalled = stalled;
    uint64_t health = rb_load(&p->row->health) & ~(uint64_t)SB_STALLED;
    dp_row_set(p, &p->row->health, health | (stalled ? SB_STALLED : 0));
    dp_emit_endpoint(f, stalled ? "$bus.endpoint.stalled" : "$bus.endpoint.resumed", p, reason);
}

static inline void dp_obey(struct dp_forwarder *f, const struct dp_order *o)
{
    struct dp_port *p = &f->ports[o->slot];
    if (o->kind == DP_ADMIT) {
        dp_port_open(f, o);
        return;
    }
    if (p->state == SB_ROW_FREE || p->generation != o->generation)
        return;
    if ((o->kind == DP_DEAD || o->kind == DP_EVICT) && (p->state == SB_ROW_LIVE || p->state == SB_ROW_LEAVING)) {
        /* One that said CLOSED before it went has gone in good order. */
        if (o->kind == DP_DEAD && rb_load_acquire(&p->up->state) == SB_UP_CLOSED)
            dp_set_add(&f->active, p->slot);
        else
            dp_farewell_begin(f, p, o->reason);
    } else if (o->kind == DP_STOPPED_TASK) {
        p->stopped = true;
        dp_set_stalled(f, p, true, "stopped");
    } else if (o->kind == DP_CONTINUED_TASK) {
        p->stopped = false;
        p->taken_since_ns = f->now; /* it could not take anything meanwhile */
        dp_set_stalled(f, p, false, "continued");
    }
}

/* At adoption the ports that stood come first, and with `admissions` nothing else. */
static inline void dp_take_orders(struct dp_forwarder *f, bool admissions)
{
    pthread_mutex_lock(&f->lock);
    struct dp_order *o = NULL, **end = &o, **from = &f->orders;
    while (*from)
        if (admissions && (*from)->kind != DP_ADMIT) {
            from = &(*from)->next;
        } else {
            *end = *from;
            *from = (*from)->next;
            end = &(*end)->next;
            *end = NULL;
        }
    f->orders_end = from;
    rb_store(&f->orders_waiting, f->orders != NULL);
    pthread_mutex_unlock(&f->lock);
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
    if (rb_load_seq(&f->orders_waiting) || rb_load_seq(&f->stop))
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

static inline void dp_confirm(struct dp_forwarder *f, struct dp_port *p)
{
    p->confirmed = true;
    dp_emit_endpoint(f, "$bus.endpoint.up", p, NULL);
}

static inline void dp_visit(struct dp_forwarder *f, struct dp_port *p)
{
    if (p->state == SB_ROW_FREE)
        return;
    if (p->corrupt && p->state != SB_ROW_DYING) /* as it was found at admission */
        dp_quarantine(f, p);
    uint64_t state = rb_load_acquire(&p->up->state);
    if (p->state == SB_ROW_LIVE && state != SB_UP_ATTACHING) {
        if (!p->confirmed)
            dp_confirm(f, p);
        enum dp_reading log = dp_read_interests(f, p);
        if (log == DP_READ_LATER)
            dp_notify(f, DP_UNREAD_INTERESTS, p);
        if (log == DP_READ_GARBAGE) {
            dp_quarantine(f, p);
            return;
        }
    }
    for (int r = 0; r < SB_RINGS; r++) {
        uint64_t need = rb_load(&p->down->incoming[r].need);
        if (need == SB_NO_NEED)
            continue;
        if (rb_refresh_tail(&p->in[r]) != RB_OK)
            dp_quarantine(f, p); /* which wakes those who wait */
        else if (p->in[r].tail_seen >= need)
            dp_wake_waiters(f, p);
    }
    if (p->slow) {
        (void)rb_refresh_tail(&p->in[SB_DATA]);
        dp_note_progress(f, p);
    }
    if (p->state == SB_ROW_LIVE) {
        bool more = dp_forward_ring(f, p, SB_REPLIES);
        more |= dp_forward_ring(f, p, SB_DATA);
        if (more && p->state == SB_ROW_LIVE)
            dp_set_add(&f->active, p->slot);
        if (p->state == SB_ROW_LIVE && state >= SB_UP_CLOSING)
            dp_farewell_begin(f, p, SB_REASON_DETACHED);
    }
    if (p->state == SB_ROW_LEAVING || p->state == SB_ROW_DYING)
        dp_farewell_continue(f, p);
}

/* For so long we did not run ourselves, because the machine was busy or frozen, and others need not have run either:
 * whatever is waited for may come so much later. */
static inline void dp_forgive(struct dp_forwarder *f, struct dp_port *p, uint64_t late)
{
    uint64_t *since[] = {&p->progress_ns, &p->taken_since_ns, &p->hand_on_since_ns, &p->head_of_line[SB_DATA].since_ns,
                         &p->head_of_line[SB_REPLIES].since_ns};
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
        struct dp_port *p = &f->ports[slot];
        if (p->state == SB_ROW_FREE)
            continue;
        dp_set_add(&f->active, slot);
        dp_forgive(f, p, late);
        uint64_t taken = rb_load(&p->up->incoming[SB_DATA].taken_count);
        if (rb_load_acquire(&p->up->incoming[SB_DATA].taken) == p->in[SB_DATA].published)
            dp_count_delivered(f, p); /* a kill of either side can have left the counts apart */
        if (taken != p->taken_seen || !dp_untouched(p) || dp_in_hand(p)) {
            p->taken_seen = taken;
            p->taken_since_ns = f->now;
            if (!p->stopped)
                dp_set_stalled(f, p, false, "progress");
        } else if (f->now - p->taken_since_ns > f->stall_after_ns) {
            dp_set_stalled(f, p, true, "messages wait and nothing is in hand");
        }
    }
    while (f->high_slot && f->ports[f->high_slot - 1].state == SB_ROW_FREE)
        f->high_slot--;
    rb_store(&f->bus->types_known, f->routes.types_known);
    f->next_look = f->now + DP_LOOK_NS;
}

/* One fence, then the bells of all who got something and of the senders who waited for the room. */
static inline void dp_ring_all(struct dp_forwarder *f)
{
    rb_fence_seq();
    for (uint32_t i = 0; i < f->touched_count; i++) {
        struct dp_port *t = &f->ports[f->touched_slots[i]];
        t->touched = false;
        rb_ring_bell(&t->bell);
    }
    f->touched_count = 0;
    for (uint32_t i = 0; i < f->moved_count; i++) {
        struct dp_port *p = &f->ports[f->moved_slots[i]];
        for (int r = 0; r < SB_RINGS; r++) {
            uint64_t need = rb_load_seq(&p->up->outgoing[r].need);
            if (p->tail_moved[r] && need != SB_NO_NEED && p->out[r].released >= need)
                rb_ring_bell(&p->bell);
            p->tail_moved[r] = false;
        }
    }
    f->moved_count = 0;
    for (uint32_t i = 0; i < f->ended_count; i++) {
        struct dp_port *p = &f->ports[f->ended_slots[i]];
        dp_row_set(p, &p->row->state, SB_ROW_GONE); /* the control plane frees the row once the names are gone */
        dp_notify(f, DP_RECLAIMED_PORT, p);
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
    uint64_t any = 0;
    for (uint32_t w = 0; w <= (f->high_slot ? (f->high_slot - 1) / 64 : 0); w++)
        any |= f->active.word[w];
    return any != 0;
}

static inline void dp_pass(struct dp_forwarder *f)
{
    if (rb_load_acquire(&f->orders_waiting))
        dp_take_orders(f, false);
    dp_scan_ready(f);
    if (f->now >= f->next_look)
        dp_look_around(f);
    if (f->now >= f->next_deadline) {
        f->next_deadline = ~0ull;
        for (uint32_t slot = 0; slot < f->high_slot; slot++)
            if (f->ports[slot].head_of_line[SB_DATA].blocked || f->ports[slot].head_of_line[SB_REPLIES].blocked ||
                dp_set_has(&f->departing, slot))
                dp_set_add(&f->active, slot);
    }
    uint32_t words = f->high_slot ? (f->high_slot - 1) / 64 + 1 : 0;
    for (uint32_t w = 0; w < words; w++) {
        uint64_t bits = f->active.word[w];
        f->active.word[w] = 0;
        for (; bits; bits &= bits - 1)
            dp_visit(f, &f->ports[w * 64 + (uint32_t)__builtin_ctzll(bits)]);
    }
    dp_ring_all(f);
    dp_account_latency(f);
    rb_add(&f->bus->passes, 1);
}

/* Nothing on its way: all rings to us are read, nothing is owed, nobody is leaving. */
static inline bool dp_quiet(struct dp_forwarder *f)
{
    for (uint32_t slot = 0; slot < f->high_slot; slot++) {
        struct dp_port *p = &f->ports[slot];
        if (p->state == SB_ROW_FREE)
            continue;
        if (p->state != SB_ROW_LIVE || !dp_ring_empty(p, SB_DATA) || !dp_ring_empty(p, SB_REPLIES))
            return false;
    }
    return true;
}

/* The thread's body: forwards until it is told to stop, then, if asked to, until all is quiet. */
static inline void dp_forward(struct dp_forwarder *f)
{
    int last_cpu = -1;
    f->now = rb_now();
    f->next_look = 0;
    f->next_deadline = ~0ull;
    if (f->adopting) {
        dp_take_orders(f, true); /* who died meanwhile is seen off once all know who wants to hear of it */
        dp_recover(f);
    }
    for (;;) {
        f->now = rb_now();
        int cpu = sched_getcpu();
        if (cpu != last_cpu)
            rb_store(&f->bus->cpu, (uint64_t)(last_cpu = cpu));
        dp_pass(f);
        uint64_t stop = rb_load_acquire(&f->stop);
        if (stop && (stop == 2 || dp_quiet(f) || f->now >= rb_load(&f->stop_by_ns)))
            return;
        if (dp_any_active(f) || (stop && dp_scan_ready(f)))
            continue;
        uint64_t until = f->high_slot ? f->next_look : f->now + 1000000000u;
        if (f->next_deadline < until)
            until = f->next_deadline;
        if (stop) /* the look says yes at once now: wait a little for those who are slow to take */
            nanosleep(&(struct timespec){0, 200000}, NULL);
        else
            rb_bell_wait(&f->bell, dp_something_new, f, until);
    }
}

#endif
