/* How an endpoint begins and ends.
 *
 *   ep_up_size, ep_up_prepare   its own segment, before anybody may open it
 *   ep_down_sound               does the segment that the dispatcher made for it hold what it says?
 *   ep_open, ep_free            the private half, on segments that are mapped
 *   ep_vacate                   it is closed: its memory is given back, and nothing that it points to is
 *   ep_set_state                tell the dispatcher how far it is: attached, closing, closed
 */
#pragma once

#include "shmbus/endpoint/native/fork.h"
#include "shmbus/endpoint/native/mailbox.h"
#include "shmbus/endpoint/native/request.h"
#include "shmbus/endpoint/native/show.h"

#include <sys/mman.h>

struct ep_span { /* what is mapped of a segment */
    void *at;
    size_t size;
    bool writable;
};

static inline uint64_t ep_page_align(uint64_t n) { return (n + 4095) & ~(uint64_t)4095; }

/* Where the rings begin in UP. */
static inline uint64_t ep_rings_offset(uint64_t requests)
{
    return ep_page_align(sizeof(struct sb_up) + requests * sizeof(struct sb_pending));
}

static inline uint64_t ep_up_size(uint64_t out_bytes, uint64_t reply_bytes, uint64_t requests)
{
    return ep_rings_offset(requests) + out_bytes + reply_bytes;
}

/* All but the prefix. Its memory is zero so far. */
static inline void ep_up_prepare(struct sb_up *up, const struct sb_identity *identity, uint64_t nonce, const char *name,
                                 uint64_t in_bytes, uint64_t out_bytes, uint64_t reply_bytes, uint64_t requests,
                                 uint64_t prefetch)
{
    uint64_t offset = ep_rings_offset(requests);
    uint64_t in[SB_RINGS_IN] = {in_bytes, reply_bytes, SB_URGENT_BYTES}, out[SB_RINGS] = {out_bytes, reply_bytes};
    up->identity = *identity;
    up->nonce = nonce;
    up->prefetch = prefetch;
    strncpy(up->name, name, SB_NAME - 1);
    up->pending_count = requests;
    up->pending_offset = sizeof *up;
    for (uint32_t ring = 0; ring < SB_RINGS; ring++) {
        up->outgoing_ring[ring] =
            (struct sb_ring_descriptor){.offset = offset, .capacity = out[ring], .kind = ring};
        rb_store(&up->outgoing[ring].need, SB_NO_NEED);
        offset += out[ring];
    }
    for (uint32_t ring = 0; ring < SB_RINGS_IN; ring++)
        up->incoming_ring[ring] = (struct sb_ring_descriptor){.capacity = in[ring], .kind = ring};
    rb_store(&up->outgoing[SB_DATA].interests_serial, 1);
    for (uint32_t i = 0; i < SB_HELD; i++)
        rb_store(&up->held[i].position, SB_NOWHERE);
}

/* Rings and tables lie within its `size` bytes, and the rings have the capacities that we asked for. */
static inline bool ep_down_sound(const struct sb_down *down, uint64_t size, const struct sb_up *up)
{
    for (uint32_t ring = 0; ring < SB_RINGS_IN; ring++) {
        const struct sb_ring_descriptor *given = &down->incoming_ring[ring];
        if (given->capacity != up->incoming_ring[ring].capacity || given->offset % 64 || given->offset > size ||
            given->capacity > size - given->offset)
            return false;
    }
    return down->target_count >= up->pending_count && down->target_offset % 8 == 0 && down->target_offset <= size &&
           down->target_count <= (size - down->target_offset) / sizeof(struct sb_target);
}

/* On segments that have been opened and checked: false without memory. */
static inline bool ep_open(struct ep_endpoint *e, const struct sb_bus *bus, struct sb_ready *ready, struct sb_up *up,
                           const struct sb_down *down, sem_t *dispatcher, sem_t *own, uint64_t random, uint32_t spin_ns,
                           uint32_t hold_limit)
{
    *e = (struct ep_endpoint){
        .bus = bus, .up = up, .down = down, .slot = (uint32_t)down->slot, .generation = (uint32_t)down->generation,
        .dispatcher = {.epoch = &bus->bell, .semaphore = dispatcher}, .self = {.epoch = &up->bell, .semaphore = own},
        .hold_limit = hold_limit < SB_HELD ? hold_limit : SB_HELD, .random = random, .completed = EP_NO_REQUEST,
        .untold = EP_NO_REQUEST,
        .rung_for = {SB_NO_NEED, SB_NO_NEED, SB_NO_NEED}, .drains = 1, .pidfd = -1, .stat_fd = -1, .door = -1,
        .event_fd = -1, .event_door = -1, .event_taken = SB_NOWHERE, .event_shown = SB_NOWHERE,
        .event_need = {SB_NO_NEED, SB_NO_NEED},
    };
    pthread_mutex_init(&e->lock, NULL);
    sem_init(&e->no_bell, 0, 0);
    e->fork_mark = ep_fork_mark();
    e->ready = &ready->word[e->slot];
    rb_store(&e->flush_at, SB_NOWHERE);
    for (uint32_t ring = 0; ring < SB_RINGS; ring++)
        rb_producer_open(&e->out[ring], &up->outgoing[ring].head, &down->outgoing[ring].tail, &up->outgoing[ring].high,
                         (uint8_t *)up + up->outgoing_ring[ring].offset, up->outgoing_ring[ring].capacity);
    for (uint32_t ring = 0; ring < SB_RINGS_IN; ring++) {
        rb_consumer_open(&e->in[ring], &down->incoming[ring].head, &up->incoming[ring].tail,
                         (const uint8_t *)down + down->incoming_ring[ring].offset, down->incoming_ring[ring].capacity);
        e->crowded[ring] = e->in[ring].capacity / 2; /* what waits takes a quarter at the most, and as much of
                                                      * padding */
    }
    e->request_count = (uint32_t)up->pending_count;
    e->crowded[SB_REPLIES] -= e->request_count * (uint64_t)SB_REQUEST_RESERVE; /* a reply leaves space for the errors */
    e->requests = calloc(e->request_count, sizeof *e->requests);
    e->free = calloc(e->request_count, sizeof *e->free);
    if (!e->requests || !e->free)
        return false;
    for (uint32_t i = e->request_count; i--;)
        e->free[e->free_count++] = (uint16_t)i;
    RB_FAIL("attach.opened");
    rb_bell_open(&e->bell, &up->bell, own, spin_ns);
    e->lingering = e->bell;
    e->lingering.spin_ns *= EP_LINGER;
    e->lingering.late_ns = e->lingering.spin_ns; /* for whom it waits may well have the CPU for some of that */
    return true;
}

static inline void ep_free(struct ep_endpoint *e)
{
    for (uint32_t i = 0; e->requests && i < e->request_count; i++) {
        free(e->requests[i].payload);
        ep_drop_reply_share(&e->requests[i]);
        if (e->requests[i].stream)
            ep_close_stream(e, e->requests[i].stream);
    }
    ep_drop_event(e);
    ep_close_mailboxes(e);
    ep_free_shares(e);
    ep_free_pool(e);
    free(e->requests);
    free(e->free);
    e->requests = NULL;
    e->free = NULL;
    sem_destroy(&e->no_bell);
    pthread_mutex_destroy(&e->lock);
}

/* It is closed and not watched any more: false while a thread still waits in it. What is called afterwards finds
 * private memory at the same addresses, zero, in which there is no message and nobody sleeps. So neither a late thread
 * nor an object that somebody keeps can meet an address that is not there, or another's memory. Where the system
 * refuses that, the memory stays as it is until ep_free. */
static inline bool ep_vacate(struct ep_endpoint *e, const struct ep_span *spans, uint32_t count)
{
    if (e->inside)
        return false;
    ep_close_mailboxes(e);
    ep_give_back_gaps(e);
    ep_vacate_pool(e);
    for (uint32_t i = 0; i < count; i++)
        mmap(spans[i].at, spans[i].size, PROT_READ | (spans[i].writable ? PROT_WRITE : 0),
             MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0);
    for (uint32_t ring = 0; ring < SB_RINGS; ring++) {
        struct rb_producer *out = &e->out[ring];
        rb_producer_open(out, out->head, out->tail, out->high, out->data, out->capacity);
    }
    for (uint32_t ring = 0; ring < SB_RINGS_IN; ring++) {
        struct rb_consumer *in = &e->in[ring];
        rb_consumer_open(in, in->head, in->tail, in->data, in->capacity);
    }
    e->dispatcher.semaphore = e->self.semaphore = e->bell.semaphore = &e->no_bell;
    return true;
}

/* dp_visit acquires it. */
static inline void ep_set_state(struct ep_endpoint *e, uint64_t state)
{
    RB_FAIL(state == SB_UP_ATTACHED ? "attach.confirm" : "detach.say");
    rb_store_release(&e->up->state, state);
    RB_FAIL(state == SB_UP_ATTACHED ? "attach.confirmed" : "detach.said");
    ep_ring_dispatcher(e);
}
