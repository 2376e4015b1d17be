/* Delivering: a gathered run into a target's ring, and copies of it to those who tap. */
#ifndef DP_DELIVER_H
#define DP_DELIVER_H

#include "shmbus/dispatcher/native/run.h"

/* As many records of the run as fit, from the first on, into `ring` of `t`, not yet published. -1: the target's
 * tail is garbage. `keep_flags` are those that a sender may set. */
static inline int dp_copy_run(struct dp_forwarder *f, const struct dp_port *p, struct dp_port *t,
                              enum sb_ring_index ring, uint32_t bits, uint16_t keep_flags)
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
        w->flags = h->flags & keep_flags;
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

static inline uint64_t dp_end_of(const struct dp_forwarder *f, const struct dp_port *p, enum sb_ring_index ring,
                                 uint32_t count)
{
    const struct rb_consumer *c = &p->out[ring];
    uint64_t offset = (uint64_t)(f->run_record[count - 1] - c->data);
    uint64_t position = (c->next & ~(c->capacity - 1)) + offset;
    if (position < c->next)
        position += c->capacity;
    return position + RB_ALIGN8(f->run_header[count - 1].length);
}

static inline void dp_publish_at(struct dp_forwarder *f, struct dp_port *t, enum sb_ring_index ring, uint32_t count)
{
    if (ring == SB_DATA) {
        t->delivered += count;
        rb_store(&t->down->incoming[SB_DATA].delivered, t->delivered);
    }
    rb_publish(&t->in[ring]);
    dp_touch(f, t);
    rb_add(&f->bus->routed, count);
}

/* Copies for observers, each with what became of the message; what does not fit is lost to them alone. Only
 * called while there is a tap, before the source's tail moves. */
static inline void dp_tap_run(struct dp_forwarder *f, const struct dp_port *p, const struct dp_port *t, uint32_t count,
                              enum sb_outcome outcome)
{
    uint64_t now = rb_now(); /* what it has at hand is from before they came, perhaps */
    for (uint32_t i = 0; i < count; i++) {
        const struct sb_record *h = &f->run_header[i];
        const uint8_t *record = f->run_record[i];
        const uint8_t *type = f->run_type[i] ? f->run_type[i] : sb_type_of(record);
        struct dp_route *route = h->type_length ? dp_lookup(&f->routes, type, h->type_length) : NULL;
        for (uint32_t k = 0; route && k < route->observer_count; k++) {
            struct dp_port *o = &f->ports[route->observers[k].slot];
            struct sb_tap tap = {.forwarded_ns = now, .kind = (uint8_t)h->kind, .outcome = (uint8_t)outcome,
                                 .target = t ? (uint16_t)t->slot : SB_FROM_BUS,
                                 .target_generation = t ? t->generation : 0};
            struct sb_record w = *h;
            w.length += (uint32_t)sizeof tap;
            w.kind = SB_TAP;
            w.extension_length += (uint16_t)sizeof tap;
            w.interests = SB_PLAIN;
            w.peer = (uint16_t)p->slot;
            w.peer_generation = p->generation;
            w.lost = (uint32_t)rb_load(&o->down->lost);
            uint8_t *at;
            if (w.length > rb_largest_record(o->in[SB_DATA].capacity) ||
                rb_claim(&o->in[SB_DATA], w.length, 0, &at) != RB_OK) {
                dp_count_lost(f, o, 1);
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
            dp_touch(f, o);
        }
    }
}

static inline bool dp_tapped(const struct dp_forwarder *f) { return __builtin_expect(f->routes.observers != 0, 0); }

#endif
