/* Forwarding: from the rings that lead to the dispatcher into the rings that lead away from it.
 *
 * A *run* is one or more consecutive records of a ring with the same chosen targets. It is gathered (checked,
 * looked up, its targets chosen), copied into each target's ring, written down in the journal, published with
 * one store of the target's head, and then the source's tail moves. More than one target: what is still owed
 * stands in the source's `todo` first. A front that does not fit waits, other rings go on; it waits at most
 * `block_timeout` since the target last made progress, then what it would have got is counted lost there and
 * the target is slow: no further waits until it moves. */
#ifndef SB_FORWARD_H
#define SB_FORWARD_H

#include "shmbus/native/notify.h"

enum sb_verdict { /* of one record */
    SB_DELIVER,   /* to the chosen targets, of which there may be none */
    SB_DROP,      /* nothing is owed: a late reply, a request nobody waits for any more */
    SB_NOBODY,    /* a send or request without a handler */
    SB_COLLIDES,  /* a request whose id is under way already */
    SB_VIOLATION, /* nothing a sound endpoint writes */
};

static inline void sb_farewell_begin(struct sb_forwarder *f, struct sb_port *p, enum sb_reason reason);

static inline void sb_quarantine(struct sb_forwarder *f, struct sb_port *p)
{
    p->corrupt = true;
    rb_add(&f->bus->violations, 1);
    if (p->state == SB_LIVE || p->state == SB_LEAVING)
        sb_farewell_begin(f, p, SB_QUARANTINED);
}

/* Gathering ------------------------------------------------------------------------------------------------ */

/* What is to become of a record, and its targets. `h` is a private copy; its type stands in `route`. */
static inline enum sb_verdict sb_judge(struct sb_forwarder *f, struct sb_port *p, struct sb_record *h,
                                       struct sb_route *route, struct sb_choice *list, uint32_t *count)
{
    *count = 0;
    if (route->reserved)
        return SB_VIOLATION;
    if (h->kind == SB_EVENT) {
        *count = sb_choose_event(f, route, list);
        return SB_DELIVER;
    }
    if (h->kind == SB_REQUEST) {
        uint16_t index = sb_index_of(h->correlation);
        if (index >= p->pending_count)
            return SB_VIOLATION;
        const struct sb_target *t = &p->target[index];
        if (rb_load(&t->whom) && !rb_load(&t->done) && memcmp(t->id, h->correlation, 16) == 0)
            return SB_COLLIDES;
        const struct sb_pending *w = &p->pending[index];
        if (rb_load_acquire(&w->state) != SB_PENDING_WAITING || memcmp(w->id, h->correlation, 16) != 0)
            return SB_DROP; /* its caller has given up */
    }
    if (!route->handler_count)
        return SB_NOBODY;
    const struct sb_receiver *r = sb_least_busy(f, route->handlers, route->handler_count, &route->turn, SB_MAX_SLOTS);
    list[0] = (struct sb_choice){r->slot, false, SB_PLAIN};
    *count = 1;
    return SB_DELIVER;
}

/* A reply is accepted from the request's target alone, once; the very position that was accepted before is
 * accepted again, so that repeating after a kill does no harm. */
static inline enum sb_verdict sb_judge_reply(struct sb_forwarder *f, struct sb_port *p, const struct sb_record *h,
                                             uint64_t position, struct sb_choice *list, uint32_t *count)
{
    *count = 0;
    uint16_t index = sb_index_of(h->correlation);
    if (h->peer >= f->slots)
        return SB_VIOLATION;
    struct sb_port *q = &f->ports[h->peer];
    if (q->state == SB_FREE || q->state == SB_DYING || q->generation != h->peer_generation || index >= q->pending_count)
        return SB_DROP;
    const struct sb_target *t = &q->target[index];
    uint64_t done = rb_load(&t->done);
    if (memcmp(t->id, h->correlation, 16) != 0 || rb_load(&t->whom) != sb_whom_of(p) || (done && done != position + 1))
        return SB_DROP;
    list[0] = (struct sb_choice){q->slot, false, 0};
    *count = 1;
    return SB_DELIVER;
}

static inline bool sb_same_choice(const struct sb_choice *a, const struct sb_choice *b, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        if (a[i].slot != b[i].slot || a[i].bits != b[i].bits || a[i].lossy != b[i].lossy)
            return false;
    return true;
}

/* Copy a record's header out and check it against what the ring said of it. */
static inline bool sb_copy_header(const struct rb_head8 *head, const uint8_t *record, struct sb_record *h)
{
    memcpy(h, record, sizeof *h);
    h->length = head->length;
    h->kind = head->kind;
    return sb_record_sound(h);
}

/* Has the run in hand to do with this request already? What it does stands in no target word yet, so a repeated
 * id must begin a run of its own. Two requests may share a mark: the run is a shorter one, no more. */
static inline bool sb_marked(struct sb_forwarder *f, uint32_t requester, const struct sb_record *h)
{
    uint32_t *mark = &f->run_mark[(requester * 61 + sb_index_of(h->correlation)) % 1024];
    bool was = *mark == f->run_number;
    *mark = f->run_number;
    return was;
}

/* The longest run at the front of a ring, `limit` records at the most. What ends it before its first record is
 * said by the verdict; otherwise SB_DELIVER and f->run_count, which is 0 where the ring is empty. */
static inline enum sb_verdict sb_gather_run(struct sb_forwarder *f, struct sb_source *s, uint32_t limit)
{
    struct sb_port *p = s->port;
    struct rb_consumer *c = &p->out[s->ring];
    uint64_t position = c->next, bytes = 0, most_bytes = ~0ull;
    struct sb_route *previous = NULL;
    enum sb_verdict first = SB_DELIVER;
    f->run_count = 0;
    if (++f->run_number == 0) {
        memset(f->run_mark, 0, sizeof f->run_mark);
        f->run_number = 1;
    }
    s->from = s->to = position;
    sb_pin_routes(&f->routes);
    while (f->run_count < limit) {
        struct rb_head8 head;
        const uint8_t *record = NULL;
        enum rb_status status = rb_peek_at(c, &position, SB_HEADER, &head, &record);
        if (status == RB_EMPTY) {
            if (f->run_count == 0)
                s->to = position; /* past padding that nothing follows */
            break;
        }
        struct sb_record *h = &f->run_header[f->run_count];
        struct sb_choice *list = f->run_count ? f->scratch_target : f->run_target;
        struct sb_route *route = NULL;
        enum sb_verdict verdict = SB_VIOLATION;
        uint32_t count = 0;
        bool same = false;
        if (status == RB_OK && sb_copy_header(&head, record, h)) {
            if (s->ring == SB_REPLIES) {
                if (h->kind == SB_REPLY || h->kind == SB_ERROR)
                    verdict = sb_judge_reply(f, p, h, position, list, &count);
            } else if ((h->kind == SB_EVENT || h->kind == SB_SEND || h->kind == SB_REQUEST) && h->type_length &&
                       (route = sb_lookup(&f->routes, sb_type_of(record), h->type_length))) {
                if (route == previous && h->kind == SB_EVENT && f->run_header[0].kind == SB_EVENT && !route->group_count) {
                    verdict = SB_DELIVER; /* the same type again, and no group to choose in */
                    same = true;
                } else {
                    verdict = sb_judge(f, p, h, route, list, &count);
                }
            }
        }
        if (f->run_count == 0)
            first = verdict;
        if (verdict != SB_DELIVER) {
            if (f->run_count == 0) {
                f->run_record[0] = record;
                f->run_type[0] = route ? route->type : NULL;
                s->to = status == RB_OK ? position + RB_ALIGN8(head.length) : position;
            }
            break;
        }
        if ((s->ring == SB_REPLIES || h->kind == SB_REQUEST) &&
            sb_marked(f, s->ring == SB_REPLIES ? h->peer : p->slot, h))
            break;
        if (f->run_count == 0)
            f->run_targets = count;
        else if (!same && (count != f->run_targets || !sb_same_choice(list, f->run_target, count)))
            break;
        /* Each target of a fan-out gets the run whole: a quarter of the smallest ring at the most. */
        if (f->run_targets > 1) {
            if (f->run_count == 0)
                for (uint32_t i = 0; i < f->run_targets; i++) {
                    uint64_t quarter = rb_largest_record(f->ports[f->run_target[i].slot].in[SB_DATA].capacity);
                    most_bytes = quarter < most_bytes ? quarter : most_bytes;
                }
            bytes += RB_ALIGN8(h->length);
            if (bytes > most_bytes && f->run_count)
                break;
        }
        for (uint32_t i = 0; i < f->run_targets; i++)
            f->run_extra[f->run_target[i].slot]++;
        f->run_record[f->run_count] = record;
        f->run_type[f->run_count++] = route ? route->type : NULL;
        previous = route;
        position += RB_ALIGN8(h->length);
        s->to = position;
    }
    for (uint32_t i = 0; f->run_count && i < f->run_targets; i++)
        f->run_extra[f->run_target[i].slot] = 0;
    return first;
}

/* Copying -------------------------------------------------------------------------------------------------- */

/* As many records of the run as fit, from the first on, into `ring` of `t`, not yet published. -1: the target's
 * tail is garbage. `to` becomes the end of what fitted. */
static inline int sb_copy_run(struct sb_port *p, struct sb_forwarder *f, struct sb_port *t, enum sb_ring_index ring,
                              uint32_t bits, uint16_t add_flags, uint16_t keep_flags)
{
    struct rb_producer *out = &t->in[ring];
    uint64_t reserve = ring == SB_REPLIES ? t->reserve : 0;
    uint32_t lost = (uint32_t)rb_load(&t->down->lost);
    for (uint32_t i = 0; i < f->run_count; i++) {
        const struct sb_record *h = &f->run_header[i];
        uint8_t *at;
        enum rb_status status = rb_claim(out, h->length, reserve, &at);
        if (status != RB_OK)
            return status == RB_FULL ? (int)i : -1;
        struct sb_record *w = (struct sb_record *)(void *)at;
        *w = *h;
        w->path = 0;
        w->epoch = 0;
        w->flags = (uint16_t)((h->flags & keep_flags) | add_flags);
        w->interests = bits;
        w->peer = (uint16_t)p->slot;
        w->peer_generation = p->generation;
        w->lost = lost;
        uint32_t done = SB_HEADER;
        if (f->run_type[i]) { /* the type as it was looked up, whatever the sender's memory says now */
            memcpy(at + done, f->run_type[i], h->type_length);
            done += h->type_length;
        }
        memcpy(at + done, f->run_record[i] + done, h->length - done);
        rb_commit(out, h->length);
    }
    return (int)f->run_count;
}

static inline uint64_t sb_end_of(const struct sb_forwarder *f, const struct sb_port *p, enum sb_ring_index ring,
                                 uint32_t count)
{
    const struct rb_consumer *c = &p->out[ring];
    uint64_t offset = (uint64_t)(f->run_record[count - 1] - c->data);
    uint64_t position = (c->next & ~(c->capacity - 1)) + offset;
    if (position < c->next)
        position += c->capacity;
    return position + RB_ALIGN8(f->run_header[count - 1].length);
}

static inline void sb_publish_at(struct sb_forwarder *f, struct sb_port *t, enum sb_ring_index ring, uint32_t count)
{
    if (ring == SB_DATA) {
        t->delivered += count;
        rb_store(&t->down->incoming[SB_DATA].delivered, t->delivered);
    }
    rb_publish(&t->in[ring]);
    sb_touch(f, t);
    rb_add(&f->bus->routed, count);
}

/* Copies for observers, each with what became of the message; what does not fit is lost to them alone. Only
 * called while there is a tap, before the source's tail moves. */
static inline void sb_tap_run(struct sb_forwarder *f, const struct sb_port *p, const struct sb_port *t, uint32_t count,
                              enum sb_outcome outcome)
{
    for (uint32_t i = 0; i < count; i++) {
        const struct sb_record *h = &f->run_header[i];
        const uint8_t *record = f->run_record[i];
        struct sb_route *route =
            h->type_length ? sb_lookup(&f->routes, f->run_type[i] ? f->run_type[i] : sb_type_of(record), h->type_length) : NULL;
        for (uint32_t k = 0; route && k < route->observer_count; k++) {
            struct sb_port *o = &f->ports[route->observers[k].slot];
            struct sb_tap tap = {.forwarded_ns = f->now, .kind = (uint8_t)h->kind, .outcome = (uint8_t)outcome,
                                 .target = t ? (uint16_t)t->slot : SB_FROM_BUS, .target_generation = t ? t->generation : 0};
            struct sb_record w = *h;
            w.length += (uint32_t)sizeof tap;
            w.kind = SB_TAP;
            w.extension_length += (uint16_t)sizeof tap;
            w.interests = SB_PLAIN;
            w.peer = (uint16_t)p->slot;
            w.peer_generation = p->generation;
            w.lost = (uint32_t)rb_load(&o->down->lost);
            uint8_t *at;
            if (w.length > rb_largest_record(o->in[SB_DATA].capacity) || rb_claim(&o->in[SB_DATA], w.length, 0, &at) != RB_OK) {
                sb_count_lost(f, o, 1);
                continue;
            }
            uint32_t front = SB_HEADER + h->type_length;
            memcpy(at, &w, sizeof w);
            memcpy(at + SB_HEADER, record + SB_HEADER, h->type_length);
            memcpy(at + front, &tap, sizeof tap);
            memcpy(at + front + sizeof tap, record + front, h->length - front);
            rb_commit(&o->in[SB_DATA], w.length);
            o->delivered++;
            rb_store(&o->down->incoming[SB_DATA].delivered, o->delivered);
            rb_publish(&o->in[SB_DATA]);
            sb_touch(f, o);
        }
    }
}

static inline bool sb_tapped(const struct sb_forwarder *f) { return __builtin_expect(f->routes.observers != 0, 0); }

/* A front that does not fit ---------------------------------------------------------------------------------- */

/* `t` has taken something since we last looked. */
static inline void sb_note_progress(struct sb_forwarder *f, struct sb_port *t)
{
    for (int r = 0; r < SB_RINGS; r++)
        if (t->in[r].tail_seen != t->progress_tail[r]) {
            t->progress_tail[r] = t->in[r].tail_seen;
            t->progress_ns = f->now;
            if (t->slow) {
                t->slow = false;
                sb_row_set(t, &t->row->health, rb_load(&t->row->health) & ~(uint64_t)SB_SLOW);
            }
        }
}

/* `p` has something for `t` that would lead to `end`, and is woken when there is room. True: there is by now. */
static inline bool sb_need_room(struct sb_port *p, struct sb_port *t, enum sb_ring_index ring, uint64_t end)
{
    struct rb_producer *out = &t->in[ring];
    uint64_t need = end - out->capacity; /* the tail that makes room */
    struct sb_down_incoming *d = &t->down->incoming[ring];
    if (need < rb_load(&d->need) || rb_load(&d->need) <= out->tail_seen)
        rb_store_seq(&d->need, need);
    else
        rb_fence_seq();
    if (rb_refresh_tail(out) == RB_OK && end - out->tail_seen <= out->capacity)
        return true;
    sb_set_add(&t->waiters, p->slot);
    return false;
}

/* The same for a front of `p`. */
static inline bool sb_ask_for_room(struct sb_forwarder *f, struct sb_port *p, enum sb_ring_index front_ring,
                                   struct sb_port *t, enum sb_ring_index ring, uint64_t end)
{
    if (sb_need_room(p, t, ring, end))
        return true;
    struct sb_front *front = &p->front[front_ring];
    if (!front->blocked || front->on != t->slot) {
        if (!front->since_ns)
            front->since_ns = f->now;
        front->blocked = true;
        front->on = (uint16_t)t->slot;
    }
    return false;
}

/* Until when may a front wait for `t`? In the past: no longer. */
static inline uint64_t sb_patience(struct sb_forwarder *f, const struct sb_front *front, struct sb_port *t)
{
    sb_note_progress(f, t);
    if (t->slow)
        return 0;
    uint64_t since = front->since_ns ? front->since_ns : f->now;
    return (since > t->progress_ns ? since : t->progress_ns) + f->block_timeout_ns;
}

static inline void sb_mark_slow(struct sb_port *t)
{
    if (!t->slow) {
        t->slow = true;
        sb_row_set(t, &t->row->health, rb_load(&t->row->health) | SB_SLOW);
    }
}

static inline void sb_front_clear(struct sb_front *front) { *front = (struct sb_front){0}; }

/* Wait for room in `t`, or give up on it: true when the caller shall lose the front there now. */
static inline bool sb_wait_or_lose(struct sb_forwarder *f, struct sb_port *p, enum sb_ring_index front_ring,
                                   struct sb_port *t, enum sb_ring_index ring, uint64_t end, bool lossy, bool *again)
{
    *again = false;
    if (lossy)
        return true;
    if (sb_ask_for_room(f, p, front_ring, t, ring, end)) {
        *again = true;
        return false;
    }
    uint64_t until = sb_patience(f, &p->front[front_ring], t);
    if (until <= f->now) {
        sb_mark_slow(t);
        return true;
    }
    if (until < f->next_deadline)
        f->next_deadline = until;
    return false;
}

/* Runs with one target --------------------------------------------------------------------------------------- */

static inline void sb_remember_target(struct sb_port *p, const struct sb_record *h, const struct sb_port *t)
{
    struct sb_target *w = &p->target[sb_index_of(h->correlation)];
    rb_store_release(&w->whom, 0); /* while it changes it names nobody */
    rb_fence_release();
    RB_FAIL("target.cleared");
    memcpy(w->id, h->correlation, 16);
    rb_store(&w->done, 0);
    rb_store_release(&w->whom, sb_whom_of(t));
}

/* The first record of the run has no chance at `t`: too large, or its patience is over. */
static inline void sb_lose_front(struct sb_forwarder *f, struct sb_source *s, struct sb_port *t, uint32_t count,
                                 bool too_large)
{
    struct sb_port *p = s->port;
    struct sb_record *h = &f->run_header[0];
    uint64_t largest = rb_largest_record(t->in[s->ring].capacity), frame = sb_payload_offset(h);
    uint64_t limit = largest > frame ? largest - frame : 0;
    if (s->ring == SB_REPLIES) {
        uint16_t index = sb_index_of(h->correlation);
        sb_fail_request(f, t, index, h->correlation, SB_REPLY_LOST, p, limit, s);
    } else if (h->kind == SB_REQUEST) {
        sb_fail_request(f, p, sb_index_of(h->correlation), h->correlation, too_large ? SB_TOO_LARGE : SB_HANDLER_FULL,
                        t, limit, s);
    } else if (h->kind == SB_SEND) {
        sb_dead_letter(f, h, f->run_type[0], f->run_record[0] + sb_payload_offset(h), p->name, p,
                       too_large ? "too large for its handler" : "its handler's queue stayed full");
    } else {
        uint64_t after = rb_load(&t->down->lost) + count;
        sb_hand_lost(f, s, t, after, 0, 0);
        rb_store(&t->down->lost, after);
        rb_add(&f->bus->lost, count);
    }
    if (sb_tapped(f))
        sb_tap_run(f, p, t, count, SB_TAP_LOST);
    sb_consume(f, s);
    rb_add(&p->down->forwarded, count);
}

/* True: go on with this ring. */
static inline bool sb_forward_single(struct sb_forwarder *f, struct sb_source *s)
{
    struct sb_port *p = s->port, *t = &f->ports[f->run_target[0].slot];
    enum sb_ring_index ring = s->ring;
    struct sb_front *front = &p->front[ring];
    uint64_t largest = rb_largest_record(t->in[ring].capacity);
    if (ring == SB_REPLIES && largest > t->in[ring].capacity - t->reserve)
        largest = t->in[ring].capacity - t->reserve;
    bool too_large = f->run_header[0].length > largest;
    if (!too_large) {
        uint32_t count = f->run_count;
        for (uint32_t i = 1; i < count; i++)
            if (f->run_header[i].length > largest)
                f->run_count = count = i;
        uint16_t keep = SB_RAW | SB_NONE | (ring == SB_REPLIES ? SB_REMOTE : 0);
        for (uint32_t i = 0; i < count && ring == SB_DATA; i++)
            f->run_header[i].attempt = 1;
        int fitted = sb_copy_run(p, f, t, ring, f->run_target[0].bits, 0, keep);
        if (fitted < 0) {
            rb_abort(&t->in[ring]);
            sb_quarantine(f, t); /* routes change: choose again */
            return true;
        }
        if (fitted > 0) {
            f->run_count = (uint32_t)fitted;
            s->to = sb_end_of(f, p, ring, f->run_count);
            sb_hand_run(f, s, t, ring, SB_HAND_RUN, 0, 0);
            for (uint32_t i = 0; i < f->run_count; i++) {
                struct sb_record *h = &f->run_header[i];
                if (h->kind == SB_REQUEST)
                    sb_remember_target(p, h, t);
                else if (ring == SB_REPLIES)
                    rb_store(&t->target[sb_index_of(h->correlation)].done,
                             1 + sb_end_of(f, p, ring, i + 1) - RB_ALIGN8(h->length));
                sb_note_sent(f, h->sent_ns);
            }
            RB_FAIL("forward.chosen");
            sb_publish_at(f, t, ring, f->run_count);
            RB_FAIL("forward.published");
            if (sb_tapped(f))
                sb_tap_run(f, p, t, f->run_count, SB_TAP_DELIVERED);
            sb_consume(f, s);
            RB_FAIL("forward.consumed");
            rb_add(&p->down->forwarded, f->run_count);
            sb_front_clear(front);
            return true;
        }
        rb_abort(&t->in[ring]);
        bool again;
        uint64_t reserve = ring == SB_REPLIES ? t->reserve : 0;
        if (!sb_wait_or_lose(f, p, ring, t, ring, rb_end_after(&t->in[ring], f->run_header[0].length) + reserve,
                             f->run_target[0].lossy, &again))
            return again;
        if (!f->run_target[0].lossy || f->run_header[0].kind != SB_EVENT)
            f->run_count = 1;
        s->to = sb_end_of(f, p, ring, f->run_count);
    } else {
        f->run_count = 1;
        s->to = sb_end_of(f, p, ring, 1);
    }
    sb_lose_front(f, s, t, f->run_count, too_large);
    sb_front_clear(front);
    return true;
}

/* Fan-outs --------------------------------------------------------------------------------------------------- */

/* Read the records of a standing fan-out again: the sender may have written over them meanwhile. */
static inline bool sb_gather_todo(struct sb_forwarder *f, struct sb_source *s)
{
    struct rb_consumer *c = &s->port->out[SB_DATA];
    uint64_t position = s->from;
    f->run_count = 0;
    sb_pin_routes(&f->routes); /* they fit: as one run they did before */
    while (position < s->to && f->run_count < SB_RUN) {
        struct rb_head8 head;
        const uint8_t *record;
        struct sb_record *h = &f->run_header[f->run_count];
        if (rb_peek_at(c, &position, SB_HEADER, &head, &record) != RB_OK || !sb_copy_header(&head, record, h) ||
            h->kind != SB_EVENT)
            return false;
        struct sb_route *route = sb_lookup(&f->routes, sb_type_of(record), h->type_length);
        if (!route || route->reserved)
            return false;
        h->attempt = 1;
        f->run_record[f->run_count] = record;
        f->run_type[f->run_count++] = route->type;
        position += RB_ALIGN8(h->length);
    }
    return position == s->to;
}

static inline void sb_strike(struct sb_todo_target *w) { rb_store(&w->bits, 0); }

/* The target of entry `index` of a standing fan-out has gone: what it would have got as a plain subscriber is
 * counted there, and each group's message goes to another member. */
static inline void sb_rechoose(struct sb_forwarder *f, struct sb_source *s, uint64_t index)
{
    struct sb_port *p = s->port;
    struct sb_todo *todo = &p->down->todo;
    struct sb_todo_target *w = &p->todo[index];
    struct sb_port *gone = sb_port_of(f, rb_load(&w->whom));
    uint32_t bits = (uint32_t)rb_load(&w->bits);
    if (gone && bits & SB_PLAIN) {
        uint64_t after = rb_load(&gone->down->lost) + f->run_count;
        sb_hand_lost(f, s, gone, after, index, bits & ~SB_PLAIN);
        rb_store(&gone->down->lost, after);
        rb_add(&f->bus->lost, f->run_count);
    }
    bits &= ~SB_PLAIN;
    rb_store(&w->bits, bits);
    struct sb_route *route = sb_lookup(&f->routes, sb_type_of(f->run_record[0]), f->run_header[0].type_length);
    for (uint32_t bit = 1; bits; bit++) {
        if (!(bits >> bit & 1))
            continue;
        bits &= ~(1u << bit);
        const struct sb_receiver *next = NULL;
        for (uint32_t g = 0; gone && route && g < route->group_count; g++)
            if (route->groups[g].group == gone->group_of_bit[bit])
                next = sb_least_busy(f, &route->members[route->groups[g].first], route->groups[g].count,
                                     &route->groups[g].group->turn, SB_MAX_SLOTS);
        uint64_t count = rb_load(&todo->count);
        if (next && count < p->down->todo_count) {
            uint64_t member = sb_whom_of(&f->ports[next->slot]);
            sb_hand_rechoose(f, s, index, count, bits, 1u << next->bit, member);
            RB_FAIL("rechoose.begin");
            rb_store(&p->todo[count].whom, member);
            rb_store(&p->todo[count].bits, 1u << next->bit);
            rb_store_release(&todo->count, count + 1);
            RB_FAIL("rechoose.added");
        } else {
            for (uint32_t i = 0; i < f->run_count; i++)
                sb_dead_letter(f, &f->run_header[i], sb_type_of(f->run_record[i]),
                               f->run_record[i] + sb_payload_offset(&f->run_header[i]), p->name, p,
                               "its queue group has no member left");
        }
        rb_store(&w->bits, bits);
    }
}

/* Deliver what a fan-out still owes. True: nothing is owed any more, go on. */
static inline bool sb_continue_fanout(struct sb_forwarder *f, struct sb_source *s)
{
    struct sb_port *p = s->port;
    struct sb_todo *todo = &p->down->todo;
    struct sb_front *front = &p->front[SB_DATA];
    bool waiting = false;
    for (uint64_t i = 0; i < rb_load(&todo->count); i++) {
        struct sb_todo_target *w = &p->todo[i];
        uint32_t bits = (uint32_t)rb_load(&w->bits);
        if (!bits)
            continue;
        struct sb_port *t = sb_port_of(f, rb_load(&w->whom));
        if (!t || !sb_open_for_messages(t)) {
            sb_rechoose(f, s, i);
            continue;
        }
        bool lossy = rb_load(&w->bits) >> 32 & 1;
        uint64_t largest = rb_largest_record(t->in[SB_DATA].capacity);
        bool too_large = false;
        for (uint32_t k = 0; k < f->run_count; k++)
            too_large |= f->run_header[k].length > largest;
        if (!too_large) {
            int fitted = sb_copy_run(p, f, t, SB_DATA, bits, 0, SB_RAW | SB_NONE);
            if (fitted < 0) {
                rb_abort(&t->in[SB_DATA]);
                sb_quarantine(f, t);
                sb_rechoose(f, s, i);
                continue;
            }
            if ((uint32_t)fitted == f->run_count) {
                sb_hand_run(f, s, t, SB_DATA, SB_HAND_RUN, 0, i);
                sb_publish_at(f, t, SB_DATA, f->run_count);
                RB_FAIL("todo.published");
                sb_strike(w);
                RB_FAIL("todo.struck");
                if (sb_tapped(f))
                    sb_tap_run(f, p, t, f->run_count, SB_TAP_DELIVERED);
                continue;
            }
            uint64_t end = t->in[SB_DATA].next; /* of what fitted; the rest needs as much again at the most */
            for (uint32_t k = (uint32_t)fitted; k < f->run_count; k++)
                end += rb_span(end, f->run_header[k].length, t->in[SB_DATA].capacity);
            rb_abort(&t->in[SB_DATA]);
            bool again;
            if (!sb_wait_or_lose(f, p, SB_DATA, t, SB_DATA, end, lossy, &again)) {
                waiting = true;
                if (again)
                    sb_set_add(&f->active, p->slot);
                continue;
            }
        }
        uint64_t after = rb_load(&t->down->lost) + f->run_count;
        sb_hand_lost(f, s, t, after, i, 0);
        rb_store(&t->down->lost, after);
        rb_add(&f->bus->lost, f->run_count);
        sb_strike(w);
        if (sb_tapped(f))
            sb_tap_run(f, p, t, f->run_count, SB_TAP_LOST);
    }
    if (waiting)
        return false;
    RB_FAIL("todo.done");
    sb_consume(f, s); /* first: a fan-out that is behind the tail is over */
    RB_FAIL("todo.consumed");
    rb_store_release(&todo->from, SB_NOWHERE);
    rb_add(&p->down->forwarded, f->run_count);
    for (uint32_t i = 0; i < f->run_count; i++)
        sb_note_sent(f, f->run_header[i].sent_ns);
    sb_front_clear(front);
    return true;
}

/* What a fan-out of a quarantined port still owes is lost: its records are not read any more. */
static inline void sb_abandon_fanout(struct sb_forwarder *f, struct sb_port *p)
{
    struct sb_todo *todo = &p->down->todo;
    struct sb_source s = {.port = p, .ring = SB_DATA, .from = rb_load(&todo->from), .to = rb_load(&todo->to)};
    if (s.from == SB_NOWHERE)
        return;
    uint32_t count = sb_gather_todo(f, &s) ? f->run_count : 1;
    for (uint64_t i = 0; i < rb_load(&todo->count); i++) {
        struct sb_port *t = sb_port_of(f, rb_load(&p->todo[i].whom));
        if (t && (uint32_t)rb_load(&p->todo[i].bits))
            sb_count_lost(f, t, count);
    }
    rb_store_release(&todo->from, SB_NOWHERE);
}

static inline bool sb_begin_fanout(struct sb_forwarder *f, struct sb_source *s)
{
    struct sb_port *p = s->port;
    struct sb_todo *todo = &p->down->todo;
    rb_store_release(&todo->from, SB_NOWHERE);
    rb_fence_release();
    for (uint32_t i = 0; i < f->run_targets; i++) {
        rb_store(&p->todo[i].whom, sb_whom_of(&f->ports[f->run_target[i].slot]));
        rb_store(&p->todo[i].bits, f->run_target[i].bits | (uint64_t)f->run_target[i].lossy << 32);
    }
    rb_store(&todo->to, s->to);
    rb_store(&todo->count, f->run_targets);
    RB_FAIL("todo.filled");
    rb_store_release(&todo->from, s->from);
    RB_FAIL("todo.stored");
    for (uint32_t i = 0; i < f->run_count; i++)
        f->run_header[i].attempt = 1;
    return sb_continue_fanout(f, s);
}

/* One ring --------------------------------------------------------------------------------------------------- */

static inline void sb_refuse(struct sb_forwarder *f, struct sb_source *s, enum sb_verdict verdict)
{
    struct sb_port *p = s->port;
    struct sb_record *h = &f->run_header[0];
    if (verdict == SB_NOBODY) {
        rb_add(&f->bus->no_route, 1);
        if (h->kind == SB_REQUEST)
            sb_fail_request(f, p, sb_index_of(h->correlation), h->correlation, SB_NO_ROUTE, NULL, 0, s);
        else
            sb_dead_letter(f, h, f->run_type[0], f->run_record[0] + sb_payload_offset(h), p->name, p, "nobody handles it");
    } else if (verdict == SB_COLLIDES) {
        sb_fail_request(f, p, sb_index_of(h->correlation), h->correlation, SB_COLLISION, p, 0, s);
    } else {
        rb_add(&f->bus->orphans, s->ring == SB_REPLIES);
    }
    if (sb_tapped(f))
        sb_tap_run(f, p, NULL, 1, verdict == SB_NOBODY ? SB_TAP_NOBODY : SB_TAP_DROPPED);
    sb_consume(f, s);
    rb_add(&p->down->forwarded, 1);
}

/* Forward what lies in a ring, a batch at the most. True: there may be more. */
static inline bool sb_forward_ring(struct sb_forwarder *f, struct sb_port *p, enum sb_ring_index ring)
{
    struct sb_source s = {.port = p, .ring = ring};
    uint32_t left = f->batch;
    while (left && !p->corrupt && p->out[ring].next < p->last[ring]) {
        if (ring == SB_DATA && rb_load(&p->down->todo.from) != SB_NOWHERE) {
            s.from = rb_load(&p->down->todo.from);
            s.to = rb_load(&p->down->todo.to);
            if (!sb_gather_todo(f, &s)) {
                sb_quarantine(f, p);
                return false;
            }
            if (!sb_continue_fanout(f, &s))
                return false;
            continue;
        }
        enum sb_verdict verdict = sb_gather_run(f, &s, left < SB_RUN ? left : SB_RUN);
        if (verdict == SB_VIOLATION) {
            sb_quarantine(f, p);
            return false;
        }
        if (verdict != SB_DELIVER) {
            sb_refuse(f, &s, verdict);
            left--;
            continue;
        }
        if (f->run_count == 0) { /* empty */
            if (s.to != s.from)
                sb_consume(f, &s);
            return false;
        }
        left -= f->run_count;
        if (f->run_targets == 0) {
            rb_add(&f->bus->unrouted, f->run_count);
            rb_add(&p->down->unrouted, f->run_count);
            rb_add(&p->down->forwarded, f->run_count);
            if (sb_tapped(f))
                sb_tap_run(f, p, NULL, f->run_count, SB_TAP_NOBODY);
            sb_consume(f, &s);
        } else if (f->run_targets == 1) {
            if (!sb_forward_single(f, &s))
                return false;
        } else if (!sb_begin_fanout(f, &s)) {
            return false;
        }
    }
    return !p->corrupt && p->out[ring].next < p->last[ring];
}

#include "shmbus/native/farewell.h" /* sb_farewell_begin */

#endif
