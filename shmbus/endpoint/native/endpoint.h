/* A worker's end of the bus: sending, taking and holding, and what is private to it.
 *
 * One mutex guards all of it. It is held for the length of a copy, never across a wait and never by anybody who
 * waits for Python's lock, so that a thread which holds Python's lock may take it. Who waits does so in wait.h;
 * the process's watcher thread (watcher.h) flushes batches and tells of the dispatcher's death.
 */
#ifndef EP_ENDPOINT_H
#define EP_ENDPOINT_H

#include "ringbuf/native/bell.h"
#include "shmbus/endpoint/native/fork.h"
#include "shmbus/shared/native/layout.h"
#include "shmbus/endpoint/native/placement.h"

#include <pthread.h>
#include <stdlib.h>

/* What keeps calls from proceeding. */
enum ep_trouble {
    EP_CLOSED_HERE = 1,  /* this process closed the endpoint */
    EP_BUS_DEAD = 2,     /* the dispatcher's process is finished; a successor may adopt us */
    EP_BUS_HANDED = 4,   /* the dispatcher went and left the bus to a successor */
    EP_BUS_OVER = 8,     /* the bus has ended, or another took its place */
    EP_TAKEN_OFF = 16,   /* the dispatcher evicted us */
    EP_RING_BAD = 32,    /* an incoming ring, or a tail of an outgoing one, is not what the dispatcher writes */
    EP_STOPPING = 64,    /* whoever receives shall come to an end */
};
#define EP_FOR_GOOD ((uint64_t)(EP_CLOSED_HERE | EP_BUS_OVER | EP_TAKEN_OFF | EP_RING_BAD))
#define EP_FOR_NOW ((uint64_t)(EP_BUS_DEAD | EP_BUS_HANDED))

struct ep_message {          /* what a caller wants sent */
    uint16_t kind, flags;
    uint16_t peer;           /* of a reply: the requester */
    uint32_t peer_generation;
    uint64_t deadline_ns;
    const uint8_t *correlation;
    const char *type;
    uint32_t type_length;
    const void *payload;
    uint64_t size;
};

struct ep_batch_limits {            /* when what was put into the ring is published */
    uint64_t messages;       /* at the latest with that many */
    uint64_t bytes;
    uint64_t delay_ns;       /* so long after the first of them; 0: no such limit */
};

enum ep_request_state { EP_REQUEST_FREE = 0, EP_REQUEST_WAITING = 1, EP_REQUEST_DONE = 2 };

struct ep_request {          /* the private half of a pending entry */
    enum ep_request_state state;
    bool future;             /* nobody waits for this one alone */
    uint32_t next;           /* in the list of completed futures */
    uint64_t ended_at;       /* `drains` when it ended */
    struct sb_record header; /* of the reply */
    uint8_t *payload;        /* of the reply */
    uint64_t size, room;
    uint64_t asked;          /* bytes of the request's payload */
};
#define EP_REPLY_ROOM 1024u  /* a buffer that grew beyond is not kept */
#define EP_NO_REQUEST UINT32_MAX

struct ep_waiter;

struct ep_endpoint {
    pthread_mutex_t lock;
    uint64_t fork_mark;

    const struct sb_bus *bus;
    const struct sb_down *down;
    struct sb_up *up;
    _Atomic uint32_t *ready;            /* our word */
    uint32_t slot, generation;

    struct rb_producer out[SB_RINGS];
    struct rb_consumer in[SB_RINGS];
    struct rb_poster dispatcher;
    uint64_t rung_for[SB_RINGS];        /* the `need` for which the dispatcher has been rung */
    uint64_t batched;                   /* messages committed and not published */
    uint64_t stamp;                     /* the time that the last message bears */
    rb_word flush_at;                   /* when they must be; ~0: never. Read by the watcher */

    struct sb_held *held[SB_HELD];      /* entries in use, in order of position */
    uint32_t held_count, hold_limit;
    uint64_t in_hand;
    uint32_t lost_seen;                 /* losses as of the last message taken */

    struct ep_request *requests;
    uint16_t *free;                     /* stack of free entries */
    uint32_t free_count, request_count;
    uint32_t completed, completed_last; /* list of futures whose reply is there */
    bool nudge;                         /* whoever waits for futures shall come and look */
    uint64_t random, counter;           /* of correlation ids */
    uint64_t drains;                    /* how often the reply ring has been seen empty */

    rb_word trouble;                    /* enum ep_trouble; changed under the lock */
    uint32_t bad_ring;                  /* EP_RING_BAD: which, 0-1 incoming, 2-3 outgoing */
    uint64_t bad_position;
    rb_word kick;                       /* changes when the leader must look again; changed under the lock */
    struct ep_waiter *leader;
    uint32_t leader_wants;
    struct ep_waiter *first, *last;     /* all who wait, the leader among them */
    uint32_t inside;                    /* threads within ep_wait */
    struct rb_bell bell;                /* the leader's */
    struct rb_poster self;              /* wakes the leader */
    struct ep_placement placement;
    uint64_t records_at_wait;           /* taken from the ring that the last wait was for */

    /* The watcher's. */
    struct ep_endpoint *watch_next;
    int pidfd, stat_fd;                 /* of the dispatcher; -1: none */
    uint32_t dispatcher_pid;
    uint64_t serial;                    /* of the dispatcher they are of */
    bool watched;
    int door;                           /* connection to a dispatcher that adopted us; -1: none */
    char door_path[108];                /* empty: not to be knocked at again */
    char bus_path[108];                 /* where the bus's segment stood, */
    uint64_t bus_file;                  /* and its inode; 0: not known */
};

static inline void ep_lock(struct ep_endpoint *e) { pthread_mutex_lock(&e->lock); }
static inline void ep_unlock(struct ep_endpoint *e) { pthread_mutex_unlock(&e->lock); }

/* Everything from here on is called under the lock ---------------------------------------------------------- */

/* Raise our word and wake the dispatcher if it sleeps; what it shall find has been stored before. */
static inline void ep_call_dispatcher(struct ep_endpoint *e)
{
    uint32_t word = atomic_load_explicit(e->ready, memory_order_relaxed);
    RB_FAIL("push.published");
    atomic_store_explicit(e->ready, word + 1, memory_order_seq_cst);
    RB_FAIL("push.raised");
    rb_ring_bell(&e->dispatcher);
}

/* Make the leader look again. */
static inline void ep_kick(struct ep_endpoint *e)
{
    rb_store_seq(&e->kick, rb_load(&e->kick) + 1);
    rb_ring_bell(&e->self);
}

static inline void ep_set_trouble(struct ep_endpoint *e, uint64_t set, uint64_t clear)
{
    uint64_t before = rb_load(&e->trouble), after = (before | set) & ~clear;
    if (after != before) {
        rb_store(&e->trouble, after);
        ep_kick(e);
    }
}

/* A ring holds what the other side never may write: 0-1 incoming, 2-3 outgoing. */
static inline void ep_found_bad(struct ep_endpoint *e, uint32_t ring, uint64_t position)
{
    if (!(rb_load(&e->trouble) & EP_RING_BAD)) {
        e->bad_ring = ring;
        e->bad_position = position;
    }
    ep_set_trouble(e, EP_RING_BAD, 0);
}

/* All that stands in the way now, with what the dispatcher says of itself and of us. */
static inline uint64_t ep_trouble(struct ep_endpoint *e)
{
    uint64_t trouble = rb_load(&e->trouble);
    uint64_t bus = rb_load_acquire(&e->bus->state), down = rb_load_acquire(&e->down->state);
    if (__builtin_expect(bus >= SB_BUS_ENDED, 0))
        trouble |= bus == SB_BUS_ENDED ? EP_BUS_OVER : EP_BUS_HANDED;
    if (__builtin_expect(down == SB_DOWN_EVICTED || (down == SB_DOWN_RECLAIMED && rb_load(&e->up->state) < SB_UP_CLOSING), 0))
        trouble |= EP_TAKEN_OFF;
    if (__builtin_expect(rb_load(&e->bus->prefix.superseded_by) != 0, 0))
        trouble |= EP_BUS_OVER;
    return trouble;
}

/* Sending --------------------------------------------------------------------------------------------------- */

static inline uint32_t ep_ring_of(uint16_t kind) { return kind == SB_REPLY || kind == SB_ERROR ? SB_REPLIES : SB_DATA; }

static inline uint64_t ep_record_length(const struct ep_message *m)
{
    return (uint64_t)SB_HEADER + m->type_length + m->size;
}

static inline void ep_publish(struct ep_endpoint *e, uint32_t ring)
{
    rb_publish(&e->out[ring]);
    if (ring == SB_DATA && e->batched) {
        e->batched = 0;
        rb_store(&e->flush_at, SB_NOWHERE);
    }
    ep_call_dispatcher(e);
}

/* Publish what a batch has put into the ring. */
static inline void ep_flush(struct ep_endpoint *e)
{
    if (e->batched)
        ep_publish(e, SB_DATA);
}

static inline void ep_count_sent(struct ep_endpoint *e, uint16_t kind)
{
    switch (kind) {
    case SB_EVENT: rb_add(&e->up->sent_events, 1); break;
    case SB_SEND: rb_add(&e->up->sent_sends, 1); break;
    case SB_REQUEST: rb_add(&e->up->sent_requests, 1); break;
    default: rb_add(&e->up->sent_replies, 1); break;
    }
}

static inline uint64_t ep_coarse_now(void) /* some 5 ns, and exact to some ms */
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* The time that a message bears. In a batch it is read for the first, and again once the coarse clock (some ms a
 * tick) has passed it: reading it for each would be a quarter of what a batched message costs. */
static inline uint64_t ep_stamp(struct ep_endpoint *e)
{
    if (e->batched && ep_coarse_now() <= e->stamp)
        return e->stamp;
    return e->stamp = rb_now();
}

/* Put a message into its ring: RB_OK, RB_FULL, or RB_CORRUPT where something else is in the way (ep_trouble).
 * Published at once without a `batch`; with one, `*armed` says that the watcher has a new time to keep. */
static inline enum rb_status ep_push(struct ep_endpoint *e, const struct ep_message *m, uint64_t now,
                                     const struct ep_batch_limits *batch, bool *armed)
{
    uint32_t ring = ep_ring_of(m->kind);
    struct rb_producer *out = &e->out[ring];
    if (__builtin_expect(ep_trouble(e) & EP_FOR_GOOD, 0))
        return RB_CORRUPT;
    uint64_t length = ep_record_length(m);
    uint8_t *at;
    enum rb_status status = rb_claim(out, length, 0, &at);
    if (__builtin_expect(status != RB_OK, 0)) {
        if (status == RB_CORRUPT)
            ep_found_bad(e, SB_RINGS + ring, rb_load(out->tail));
        else if (ring == SB_DATA)
            ep_flush(e); /* only what is published can make room */
        return status;
    }
    struct sb_record header = {
        .length = (uint32_t)length, .kind = m->kind, .flags = m->flags, .peer = m->peer,
        .attempt = 1, .peer_generation = m->peer_generation, .sent_ns = now, .deadline_ns = m->deadline_ns,
        .type_length = (uint16_t)m->type_length,
    };
    if (m->correlation)
        memcpy(header.correlation, m->correlation, 16);
    RB_FAIL("push.claimed");
    memcpy(at, &header, sizeof header);
    RB_FAIL("push.header");
    memcpy(at + SB_HEADER, m->type, m->type_length);
    if (m->size)
        memcpy(at + SB_HEADER + m->type_length, m->payload, m->size);
    rb_commit(out, length);
    ep_count_sent(e, m->kind);
    if (batch && ring == SB_DATA && e->batched + 1 < batch->messages && out->next - out->published < batch->bytes) {
        e->batched++;
        if (batch->delay_ns && rb_load(&e->flush_at) > now + batch->delay_ns) {
            rb_store_seq(&e->flush_at, now + batch->delay_ns);
            *armed = true;
        }
        return RB_OK;
    }
    ep_publish(e, ring);
    return RB_OK;
}

/* Holding --------------------------------------------------------------------------------------------------- */

static inline void ep_set_in_hand(struct ep_endpoint *e, uint64_t count, uint64_t now)
{
    if (e->in_hand == 0 && count)
        rb_store(&e->up->in_hand_since_ns, now);
    e->in_hand = count;
    rb_store_release(&e->up->in_hand, count);
}

/* Move the tail of an incoming ring, and tell the dispatcher if it waits for that room. A ring that was less
 * than half full when we last looked keeps nobody waiting; the dispatcher's own look is the backstop. */
static inline void ep_release(struct ep_endpoint *e, uint32_t ring, uint64_t position)
{
    struct rb_consumer *in = &e->in[ring];
    if (position == in->released)
        return;
    bool full = in->head_seen - in->released >= in->capacity / 2;
    if (!full) {
        rb_release_to(in, position);
        return;
    }
    in->released = position;
    rb_store_seq(in->tail, position);
    uint64_t need = rb_load_seq(&e->down->incoming[ring].need);
    if (position >= need && need != e->rung_for[ring]) {
        e->rung_for[ring] = need;
        ep_call_dispatcher(e);
    }
}

static inline void ep_release_data(struct ep_endpoint *e)
{
    ep_release(e, SB_DATA, e->held_count ? rb_load(&e->held[0]->position) : e->in[SB_DATA].next);
}

static inline void ep_unhold(struct ep_endpoint *e, uint32_t i)
{
    rb_store_release(&e->held[i]->done, SB_HELD_DONE);
    RB_FAIL("take.done");
    rb_store_release(&e->held[i]->position, SB_NOWHERE);
    e->held_count--;
    for (; i < e->held_count; i++)
        e->held[i] = e->held[i + 1];
}

/* The oldest message held leaves the ring, undone. The front of it is kept, so that it is a dead letter if we die;
 * where there is no room for that, it would be counted. */
static inline void ep_let_go(struct ep_endpoint *e)
{
    struct rb_consumer *in = &e->in[SB_DATA];
    struct sb_let_go *kept = e->up->kept;
    uint64_t position = rb_load(&e->held[0]->position);
    for (uint32_t i = 1; i < SB_KEPT && rb_load(&kept->at); i++)
        if (rb_load(&e->up->kept[i].at) < rb_load(&kept->at)) /* a free one, or the oldest */
            kept = &e->up->kept[i];
    if (rb_load(&kept->at))
        rb_add(&e->up->let_go_unkept, 1);
    rb_store(&kept->at, 0);
    rb_fence_release();
    const uint8_t *record = in->data + (position & (in->capacity - 1));
    struct rb_head8 head;
    memcpy(&head, record, sizeof head);
    memcpy(kept->record, record, head.length < sizeof kept->record ? head.length : sizeof kept->record);
    RB_FAIL("take.kept");
    rb_store_release(&kept->at, position + 1);
    rb_add(&e->up->let_go, 1);
    ep_unhold(e, 0);
}

static inline void ep_hold(struct ep_endpoint *e, uint64_t position, uint64_t how)
{
    if (e->held_count >= e->hold_limit)
        ep_let_go(e);
    for (uint32_t i = 0; i < SB_HELD; i++) {
        struct sb_held *entry = &e->up->held[i];
        if (rb_load(&entry->position) != SB_NOWHERE)
            continue;
        rb_store(&entry->done, how);
        RB_FAIL("take.hold");
        rb_store_release(&entry->position, position); /* before `taken` passes it: tests/models/holding.py */
        e->held[e->held_count++] = entry;
        return;
    }
}

static inline void ep_unhold_all(struct ep_endpoint *e)
{
    while (e->held_count)
        ep_unhold(e, 0);
    for (uint32_t i = 0; i < SB_KEPT; i++)
        rb_store_release(&e->up->kept[i].at, 0);
    rb_store(&e->up->let_go_unkept, 0);
}

/* The message that was taken at `position` is done. */
static inline void ep_done(struct ep_endpoint *e, uint64_t position)
{
    for (uint32_t i = 0; i < e->held_count; i++)
        if (rb_load(&e->held[i]->position) == position) {
            ep_unhold(e, i);
            ep_release_data(e);
            return;
        }
    for (uint32_t i = 0; i < SB_KEPT; i++)
        if (rb_load(&e->up->kept[i].at) == position + 1) {
            rb_store_release(&e->up->kept[i].at, 0);
            return;
        }
    if (rb_load(&e->up->let_go_unkept))
        rb_store(&e->up->let_go_unkept, rb_load(&e->up->let_go_unkept) - 1);
}

/* Taking ---------------------------------------------------------------------------------------------------- */

/* The next message: RB_OK with a checked private copy of its header, and the record itself, which stays in the
 * ring until ep_take. One that was put out has none: they go to somebody else. */
static inline enum rb_status ep_front(struct ep_endpoint *e, struct sb_record *header, const uint8_t **record)
{
    struct rb_consumer *in = &e->in[SB_DATA];
    struct rb_head8 head;
    if (__builtin_expect(ep_trouble(e) & EP_TAKEN_OFF, 0))
        return RB_EMPTY;
    uint64_t position = in->next;
    enum rb_status status = rb_peek_at(in, &position, SB_HEADER, &head, record);
    if (status == RB_OK) {
        in->next = position;
        memcpy(header, *record, sizeof *header);
        memcpy(header, &head, sizeof head);
        if (!sb_record_sound(header))
            status = RB_CORRUPT;
    }
    if (__builtin_expect(status == RB_CORRUPT, 0))
        ep_found_bad(e, SB_DATA, position);
    return status;
}

/* Take what ep_front showed and hold it, unless `how` is SB_HELD_DONE, until ep_done. Returns its position. */
static inline uint64_t ep_take(struct ep_endpoint *e, const struct sb_record *header, uint64_t how)
{
    struct rb_consumer *in = &e->in[SB_DATA];
    struct sb_incoming *mine = &e->up->incoming[SB_DATA];
    uint64_t position = in->next;
    if (how != SB_HELD_DONE)
        ep_hold(e, position, how);
    in->next = position + RB_ALIGN8(header->length);
    RB_FAIL("take.held");
    rb_store_release(&mine->taken, in->next);
    RB_FAIL("take.taken");
    rb_add(&mine->taken_count, 1);
    RB_FAIL("take.counted");
    while (e->held_count && in->next - rb_load(&e->held[0]->position) > in->capacity / 4)
        ep_let_go(e);
    ep_release_data(e);
    switch (header->kind) {
    case SB_EVENT: rb_add(&e->up->received_events, 1); break;
    case SB_SEND: rb_add(&e->up->received_sends, 1); break;
    case SB_REQUEST: rb_add(&e->up->received_requests, 1); break;
    default: break;
    }
    return position;
}

static inline void ep_mark_progress(struct ep_endpoint *e)
{
    uint64_t now = ep_coarse_now();
    if (now != rb_load(&e->up->progress_ns))
        rb_store(&e->up->progress_ns, now);
}

/* Requests -------------------------------------------------------------------------------------------------- */

static inline struct sb_pending *ep_pending_entry(struct ep_endpoint *e, uint32_t index)
{
    return (struct sb_pending *)((uint8_t *)e->up + e->up->pending_offset) + index;
}

static inline void ep_complete(struct ep_endpoint *e, uint32_t index, const struct sb_record *header,
                               const uint8_t *record)
{
    struct ep_request *r = &e->requests[index];
    uint64_t offset = sb_payload_offset(header), size = header->length - offset;
    r->header = *header;
    r->size = size;
    if (size > r->room) {
        free(r->payload);
        r->room = size > EP_REPLY_ROOM ? size : EP_REPLY_ROOM;
        r->payload = malloc(r->room);
        if (!r->payload) { /* it ends all the same: as a reply lost here */
            r->room = r->size = 0;
            r->header.kind = SB_ERROR;
            r->header.flags = 0;
        }
    }
    if (r->size)
        memcpy(r->payload, record + offset, size);
    r->state = EP_REQUEST_DONE;
    rb_store_release(&ep_pending_entry(e, index)->state, SB_PENDING_FREE);
    rb_add(&e->up->received_replies, 1);
    if (r->future) {
        r->next = EP_NO_REQUEST;
        if (e->completed == EP_NO_REQUEST)
            e->completed = index;
        else
            e->requests[e->completed_last].next = index;
        e->completed_last = index;
    }
}

/* Empty the reply ring, whoever the replies are for. */
static inline void ep_drain_replies(struct ep_endpoint *e)
{
    struct rb_consumer *in = &e->in[SB_REPLIES];
    struct rb_head8 head;
    struct sb_record header;
    const uint8_t *record;
    uint64_t position = in->next, count = 0;
    enum rb_status status;
    while ((status = rb_peek_at(in, &position, SB_HEADER, &head, &record)) == RB_OK) {
        memcpy(&header, record, sizeof header);
        memcpy(&header, &head, sizeof head);
        if (!sb_record_sound(&header)) {
            status = RB_CORRUPT;
            break;
        }
        if (header.kind == SB_REPLY || header.kind == SB_ERROR) {
            uint32_t index = sb_index_of(header.correlation);
            if (index < e->request_count && e->requests[index].state == EP_REQUEST_WAITING &&
                memcmp(ep_pending_entry(e, index)->id, header.correlation, 16) == 0)
                ep_complete(e, index, &header, record);
            else
                rb_add(&e->up->orphans, 1);
        }
        position += RB_ALIGN8(header.length);
        in->next = position;
        count++;
    }
    if (count) {
        struct sb_incoming *mine = &e->up->incoming[SB_REPLIES];
        rb_store_release(&mine->taken, in->next);
        rb_add(&mine->taken_count, count);
        ep_release(e, SB_REPLIES, in->next);
    }
    if (status == RB_CORRUPT)
        ep_found_bad(e, SB_REPLIES, position);
    else
        e->drains++;
}

/* A free entry of the pending table, filled in: its index, or EP_NO_REQUEST. An entry is used again only after
 * the reply ring was drained since its end, since room there is kept for the errors of each. */
static inline uint32_t ep_begin_request(struct ep_endpoint *e, uint64_t deadline_ns, bool future, uint8_t id[16])
{
    if (!e->free_count)
        return EP_NO_REQUEST;
    uint32_t index = e->free[e->free_count - 1];
    struct ep_request *r = &e->requests[index];
    if (r->ended_at == e->drains)
        ep_drain_replies(e);
    e->free_count--;
    r->state = EP_REQUEST_WAITING;
    r->future = future;
    struct sb_pending *p = ep_pending_entry(e, index);
    sb_make_id(id, e->random, e->counter++, (uint16_t)index);
    memcpy(p->id, id, 16);
    p->deadline_ns = deadline_ns;
    RB_FAIL("request.begin");
    rb_store_release(&p->state, SB_PENDING_WAITING);
    return index;
}

/* The request is over, with or without its reply. */
static inline void ep_end_request(struct ep_endpoint *e, uint32_t index)
{
    struct ep_request *r = &e->requests[index];
    rb_store_release(&ep_pending_entry(e, index)->state, SB_PENDING_FREE);
    r->state = EP_REQUEST_FREE;
    r->ended_at = e->drains;
    if (r->room > EP_REPLY_ROOM) {
        free(r->payload);
        r->payload = NULL;
        r->room = 0;
    }
    e->free[e->free_count++] = (uint16_t)index;
}

static inline bool ep_request_waits(const struct ep_endpoint *e, uint32_t index)
{
    return e->requests[index].state == EP_REQUEST_WAITING;
}

/* The next future whose reply is there, or EP_NO_REQUEST. */
static inline uint32_t ep_next_completed(struct ep_endpoint *e)
{
    uint32_t index = e->completed;
    if (index != EP_NO_REQUEST)
        e->completed = e->requests[index].next;
    return index;
}

/* Whom the dispatcher chose for a request, 0 if nobody yet. */
static inline uint64_t ep_chosen(struct ep_endpoint *e, uint32_t index)
{
    if (index >= e->down->target_count)
        return 0;
    const struct sb_target *t = (const struct sb_target *)((const uint8_t *)e->down + e->down->target_offset) + index;
    return memcmp(t->id, ep_pending_entry(e, index)->id, 16) == 0 ? rb_load_acquire(&t->whom) : 0;
}

/* Interests ------------------------------------------------------------------------------------------------- */

struct ep_log {                  /* the interests segment as its writer sees it */
    struct sb_interests *at;
    uint64_t size;               /* of the segment */
};

/* Append one entry: false where the segment is full. ep_commit_interests makes it known. */
static inline bool ep_append_interest(struct ep_log *log, const struct sb_interest *entry, const char *pattern,
                                      const char *group)
{
    uint64_t bytes = rb_load(&log->at->bytes), length = sizeof *entry + entry->pattern_length + entry->group_length;
    if (sizeof *log->at + bytes + RB_ALIGN8(length) > log->size)
        return false;
    struct sb_interest copy = *entry;
    copy.length = (uint32_t)length;
    uint8_t *to = (uint8_t *)(log->at + 1) + bytes;
    memcpy(to, &copy, sizeof copy);
    memcpy(to + sizeof copy, pattern, entry->pattern_length);
    memcpy(to + sizeof copy + entry->pattern_length, group, entry->group_length);
    RB_FAIL("interests.written");
    rb_store_release(&log->at->bytes, bytes + RB_ALIGN8(length));
    RB_FAIL("interests.logged");
    return true;
}

/* Returns the version that the dispatcher will have seen once it has all. */
static inline uint64_t ep_commit_interests(struct ep_endpoint *e, uint64_t serial)
{
    struct sb_outgoing *mine = &e->up->outgoing[SB_DATA];
    uint64_t version = rb_load(&mine->interests_version) + 1;
    rb_store(&mine->interests_serial, serial);
    RB_FAIL("interests.serial");
    rb_store_release(&mine->interests_version, version);
    ep_call_dispatcher(e);
    return version;
}

/* Making and ending ----------------------------------------------------------------------------------------- */

static inline uint64_t ep_page_align(uint64_t n) { return (n + 4095) & ~(uint64_t)4095; }

static inline uint64_t ep_up_size(uint64_t data_bytes, uint64_t reply_bytes, uint64_t requests)
{
    return ep_page_align(sizeof(struct sb_up) + requests * sizeof(struct sb_pending)) + data_bytes + reply_bytes;
}

/* Everything that UP says before anybody may open it, but for the prefix. Its memory is zero so far. */
static inline void ep_up_prepare(struct sb_up *up, const struct sb_identity *identity, uint64_t nonce, const char *name,
                                 uint64_t data_bytes, uint64_t reply_bytes, uint64_t requests)
{
    uint64_t offset = ep_page_align(sizeof *up + requests * sizeof(struct sb_pending));
    uint64_t capacity[SB_RINGS] = {data_bytes, reply_bytes};
    up->identity = *identity;
    up->nonce = nonce;
    strncpy(up->name, name, SB_NAME - 1);
    up->pending_count = requests;
    up->pending_offset = sizeof *up;
    for (uint32_t r = 0; r < SB_RINGS; r++) {
        up->outgoing_ring[r] = (struct sb_ring_descriptor){.offset = offset, .capacity = capacity[r], .kind = r};
        up->incoming_ring[r] = (struct sb_ring_descriptor){.capacity = capacity[r], .kind = r};
        rb_store(&up->outgoing[r].need, SB_NO_NEED);
        offset += capacity[r];
    }
    rb_store(&up->outgoing[SB_DATA].interests_serial, 1);
    for (uint32_t i = 0; i < SB_HELD; i++)
        rb_store(&up->held[i].position, SB_NOWHERE);
}

/* Does DOWN, of `size` bytes, have its rings and tables within it, with the capacities that we asked for? */
static inline bool ep_down_sound(const struct sb_down *down, uint64_t size, const struct sb_up *up)
{
    for (uint32_t r = 0; r < SB_RINGS; r++) {
        const struct sb_ring_descriptor *p = &down->incoming_ring[r];
        if (p->capacity != up->incoming_ring[r].capacity || p->offset % 64 || p->offset > size ||
            p->capacity > size - p->offset)
            return false;
    }
    return down->target_count >= up->pending_count && down->target_offset % 8 == 0 && down->target_offset <= size &&
           down->target_count <= (size - down->target_offset) / sizeof(struct sb_target);
}

/* Attach natively to segments that have been opened and checked: false without memory. */
static inline bool ep_open(struct ep_endpoint *e, const struct sb_bus *bus, struct sb_ready *ready, struct sb_up *up,
                           const struct sb_down *down, sem_t *dispatcher, sem_t *own, uint64_t random, uint32_t spin_ns,
                           bool step_aside, uint32_t hold_limit)
{
    *e = (struct ep_endpoint){
        .bus = bus, .up = up, .down = down, .slot = (uint32_t)down->slot, .generation = (uint32_t)down->generation,
        .dispatcher = {.epoch = &bus->bell, .semaphore = dispatcher}, .self = {.epoch = &up->bell, .semaphore = own},
        .hold_limit = hold_limit < SB_HELD ? hold_limit : SB_HELD, .random = random, .completed = EP_NO_REQUEST,
        .rung_for = {SB_NO_NEED, SB_NO_NEED}, .drains = 1, .pidfd = -1, .stat_fd = -1, .door = -1,
    };
    pthread_mutex_init(&e->lock, NULL);
    e->fork_mark = ep_fork_mark();
    e->ready = &ready->word[e->slot];
    rb_store(&e->flush_at, SB_NOWHERE);
    for (uint32_t r = 0; r < SB_RINGS; r++) {
        rb_producer_open(&e->out[r], &up->outgoing[r].head, &down->outgoing[r].tail, &up->outgoing[r].high,
                         (uint8_t *)up + up->outgoing_ring[r].offset, up->outgoing_ring[r].capacity);
        rb_consumer_open(&e->in[r], &down->incoming[r].head, &up->incoming[r].tail,
                         (const uint8_t *)down + down->incoming_ring[r].offset, down->incoming_ring[r].capacity);
    }
    e->request_count = (uint32_t)up->pending_count;
    e->requests = calloc(e->request_count, sizeof *e->requests);
    e->free = calloc(e->request_count, sizeof *e->free);
    if (!e->requests || !e->free)
        return false;
    for (uint32_t i = e->request_count; i--;)
        e->free[e->free_count++] = (uint16_t)i;
    RB_FAIL("attach.opened");
    rb_bell_open(&e->bell, &up->bell, own, spin_ns);
    ep_placement_init(&e->placement, step_aside);
    return true;
}

static inline void ep_free(struct ep_endpoint *e)
{
    for (uint32_t i = 0; e->requests && i < e->request_count; i++)
        free(e->requests[i].payload);
    free(e->requests);
    free(e->free);
    e->requests = NULL;
    e->free = NULL;
    pthread_mutex_destroy(&e->lock);
}

static inline void ep_set_state(struct ep_endpoint *e, uint64_t state)
{
    RB_FAIL(state == SB_UP_ATTACHED ? "attach.confirm" : "detach.say");
    rb_store_release(&e->up->state, state);
    RB_FAIL(state == SB_UP_ATTACHED ? "attach.confirmed" : "detach.said");
    ep_call_dispatcher(e);
}

#endif
