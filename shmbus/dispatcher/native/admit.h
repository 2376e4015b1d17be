/* Admitting: what UP says of itself is checked and copied out, and a port is made of it.
 *
 * Offers: dp_read_shape, dp_open_port. */
#pragma once

#include "shmbus/dispatcher/native/fits.h"
#include "shmbus/dispatcher/native/rights.h"

static inline bool dp_descriptor_sound(const struct sb_ring_descriptor *ring, uint64_t segment)
{
    return rb_capacity_valid(ring->capacity) && ring->capacity <= segment && ring->offset % 8 == 0 &&
           ring->offset <= segment - ring->capacity;
}

/* Copy out what UP says of itself. False: not all of it lies within the segment. Its owner may change it at any
 * time, so whoever goes by it takes the copy. */
static inline bool dp_read_shape(const struct sb_up *up, uint64_t size, struct dp_shape *shape)
{
    if (size < sizeof *up)
        return false;
    memcpy(shape->outgoing, up->outgoing_ring, sizeof shape->outgoing);
    for (int r = 0; r < SB_RINGS_IN; r++)
        shape->incoming[r] = *(const volatile uint64_t *)&up->incoming_ring[r].capacity;
    shape->pending_offset = *(const volatile uint64_t *)&up->pending_offset;
    shape->pending_count = *(const volatile uint64_t *)&up->pending_count;
    shape->prefetch = *(const volatile uint64_t *)&up->prefetch;
    for (int r = 0; r < SB_RINGS; r++)
        if (!dp_descriptor_sound(&shape->outgoing[r], size))
            return false;
    for (int r = 0; r < SB_RINGS_IN; r++)
        if (!rb_capacity_valid(shape->incoming[r]))
            return false;
    return shape->prefetch >= 1 && shape->pending_count >= 1 && shape->pending_count <= SB_MAX_REQUESTS &&
           shape->pending_offset % 8 == 0 && shape->pending_offset <= size &&
           shape->pending_count <= (size - shape->pending_offset) / sizeof(struct sb_pending) &&
           shape->pending_count * SB_REQUEST_RESERVE <= shape->incoming[SB_REPLIES] / 2;
}

/* Its rings, as whoever served it before left them. False: their words are garbage. */
static inline bool dp_open_rings(struct dp_port *port, const struct dp_order *o)
{
    bool sound = true;
    for (int r = 0; r < SB_RINGS; r++) {
        struct sb_ring_descriptor out = o->shape.outgoing[r];
        const uint8_t *out_data = (const uint8_t *)o->up + out.offset;
        sound &= rb_consumer_open(&port->out[r], &o->up->outgoing[r].head, &o->down->outgoing[r].tail, out_data,
                                  out.capacity) == RB_OK;
        port->last[r] = SB_NOWHERE;
    }
    for (int r = 0; r < SB_RINGS_IN; r++) {
        struct sb_ring_descriptor in = o->down->incoming_ring[r];
        uint8_t *in_data = (uint8_t *)o->down + in.offset;
        sound &= rb_producer_open(&port->in[r], &o->down->incoming[r].head, &o->up->incoming[r].tail,
                                  &o->down->incoming[r].high, in_data, in.capacity) == RB_OK;
        port->progress_tail[r] = port->in[r].tail_seen;
    }
    return sound;
}

static inline void dp_open_port(struct dp_forwarder *f, const struct dp_order *o)
{
    struct dp_port *port = &f->ports[o->slot];
    struct sb_row *row = &f->rows[o->slot];
    *port = (struct dp_port){.slot = o->slot, .generation = o->generation, .up = o->up, .down = o->down, .row = row,
                             .pid = row->identity.pid, .confirmed = o->adopted,
                             .state = (enum sb_row_state)rb_load(&row->state),
                             .reason = (enum sb_reason)rb_load(&row->reason), .prefetch = o->shape.prefetch,
                             .bell = {.epoch = &o->up->bell, .semaphore = o->bell}};
    memcpy(port->name, row->name, sizeof port->name - 1);
    f->routes.ranks[o->slot] = port->rank = sb_rank_of(port->name);
    /* DOWN was made from another reading of UP: both have to have space. */
    uint64_t count = o->down->target_count < o->shape.pending_count ? o->down->target_count : o->shape.pending_count;
    port->pending_count = (uint32_t)count;
    port->pending = (const struct sb_pending *)((const uint8_t *)o->up + o->shape.pending_offset);
    port->given = (struct sb_target *)((uint8_t *)o->down + o->down->target_offset);
    port->todo = (struct sb_todo_target *)((uint8_t *)o->down + o->down->todo_offset);
    port->reserve = (uint64_t)port->pending_count * SB_REQUEST_RESERVE;
    if (o->down->rights_offset)
        dp_open_rights(port, (struct sb_rights *)((uint8_t *)o->down + o->down->rights_offset));
    if (!dp_open_rings(port, o) && port->state != SB_ROW_DYING)
        dp_quarantine(f, port);
    port->pool_asked = rb_load(&o->down->pool_granted); /* of an adopted one: it may ask for more by now */
    port->pool_pages = sb_pool_pages(port->pool_asked);
    f->pools_pages += port->pool_pages;
    if (port->out[SB_DATA].capacity > f->largest_ring)
        f->largest_ring = port->out[SB_DATA].capacity;
    port->delivered = rb_load(&o->down->incoming[SB_DATA].delivered);
    port->leaving_drained = rb_load(&o->down->state) == SB_DOWN_DRAINED;
    port->progress_ns = port->taken_since_ns = f->now;
    port->live_at = o->adopted ? port->in[SB_DATA].published : 0;
    if (o->adopted) { /* it may still need $bus.endpoint.resumed, and its slow flag cleared */
        uint64_t health = rb_load(&row->health);
        port->stalled = health & SB_STALLED;
        port->stopped = health & SB_STOPPED;
        port->slow = health & SB_SLOW;
        /* What it lacks it may have asked for anew, and does not again. */
        port->pool_again = rb_load(&o->up->pool_asked) != port->pool_asked;
    }
    if (f->high_slot <= o->slot)
        f->high_slot = o->slot + 1;
    dp_note_fits(f);
    dp_set_add(&f->active, o->slot);
}
