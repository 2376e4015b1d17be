/* Sending: a message is copied into its ring, and published at once or with others as a batch.
 *
 *   ep_push               put a message into its ring
 *   ep_flush              publish what a batch has put there so far
 *   ep_stamp              the time that a message bears
 *   ep_has_space          would it find some?
 *   ep_write_payload      copy it to where it is to be
 *   ep_ring_of, ep_record_length    where a message goes, and the bytes that it takes there
 */
#pragma once

#include "shmbus/endpoint/native/block.h"

struct ep_message {          /* what a caller wants sent */
    uint16_t kind, flags;
    uint16_t peer;           /* of a reply: the requester */
    uint16_t attempt;        /* of a request: 1, and one more each time that it was asked before */
    uint32_t peer_generation;
    uint64_t deadline_ns;
    uint64_t grant;          /* of a request whose reply may come in parts: the first credit; 0: of all else */
    const uint8_t *correlation;
    const char *type;
    uint32_t type_length;
    const void *payload;     /* SB_POOLED: a struct sb_block, whose `use` is filled in when it is sent */
    uint64_t size;
    const void *head;        /* goes before `payload`, and is counted in `size` */
    uint64_t head_size;      /* 0: there is none */
    void *frame;             /* not NULL: there is no `payload` yet, and the caller writes it into a block */
    const struct sb_origin *origin; /* not NULL: goes behind `payload`, and is counted in `size` */
    const char *group;       /* of a relayed event: the queue group that it is for, */
    uint32_t group_length;   /* 0: of all else */
};

struct ep_batch_limits {     /* when what was put into the ring is published */
    uint64_t messages;       /* at the latest with that many */
    uint64_t bytes;
    uint64_t delay_ns;       /* so long after the first of them; 0: no such limit */
};

/* The kinds of the data ring are a mask, so that an event is not compared with one after the other. */
static inline uint32_t ep_ring_of(uint16_t kind)
{
    const uint32_t replies = 1u << SB_REPLY | 1u << SB_ERROR | 1u << SB_PART | 1u << SB_END | 1u << SB_CREDIT;
    return replies >> kind & 1 ? SB_REPLIES : SB_DATA;
}

static inline uint64_t ep_record_length(const struct ep_message *m)
{
    uint64_t extension = m->grant ? sizeof(struct sb_grant) : m->group_length;
    return (uint64_t)SB_HEADER + m->type_length + extension + m->size;
}

static inline void ep_publish(struct ep_endpoint *e, uint32_t ring)
{
    rb_publish(&e->out[ring]);
    if (e->batched[ring]) {
        e->batched[ring] = 0;
        if (!e->batched[!ring])
            rb_store(&e->flush_at, SB_NOWHERE);
    }
    ep_ring_dispatcher(e);
}

static inline void ep_flush(struct ep_endpoint *e)
{
    for (uint32_t ring = 0; ring < SB_RINGS; ring++)
        if (e->batched[ring])
            ep_publish(e, ring);
}

static inline void ep_count_sent(struct ep_endpoint *e, uint16_t kind)
{
    switch (kind) {
    case SB_EVENT: rb_add(&e->up->sent_events, 1); break;
    case SB_SEND: rb_add(&e->up->sent_sends, 1); break;
    case SB_REQUEST: rb_add(&e->up->sent_requests, 1); break;
    case SB_PART: rb_add(&e->up->sent_parts, 1); break;
    case SB_CANCEL:
    case SB_CREDIT:
    case SB_QUERY: break; /* no messages */
    default: rb_add(&e->up->sent_replies, 1); break;
    }
}

/* No two of its messages have the same. In a batch the time is read for the first message, and again once the coarse
 * clock (some ms a tick) has passed it: reading it for each would be a quarter of what a batched message costs. */
static inline uint64_t ep_stamp(struct ep_endpoint *e)
{
    if ((e->batched[SB_DATA] || e->batched[SB_REPLIES]) && rb_coarse_now() <= e->stamp)
        return ++e->stamp;
    uint64_t now = rb_now();
    return e->stamp = now > e->stamp ? now : e->stamp + 1;
}

static inline void ep_write_payload(uint8_t *at, const struct ep_message *m)
{
    if (__builtin_expect(m->head_size != 0, 0))
        memcpy(at, m->head, m->head_size);
    if (__builtin_expect(m->origin != NULL, 0)) {
        uint64_t before = m->size - sizeof *m->origin;
        memcpy(at + before, m->origin, sizeof *m->origin);
        if (before)
            memcpy(at, m->payload, before);
        return;
    }
    memcpy(at + m->head_size, m->payload, m->size - m->head_size);
}

static inline void ep_write_record(uint8_t *at, const struct ep_message *m, uint64_t length, uint64_t now)
{
    struct sb_record header = {
        .length = (uint32_t)length, .kind = m->kind, .flags = m->flags, .peer = m->peer,
        .attempt = m->attempt, .peer_generation = m->peer_generation, .sent_ns = now, .deadline_ns = m->deadline_ns,
        .type_length = (uint16_t)m->type_length,
        .extension_length = (uint16_t)(m->grant ? sizeof m->grant : m->group_length),
    };
    if (m->correlation)
        memcpy(header.correlation, m->correlation, 16);
    RB_FAIL("push.claimed");
    memcpy(at, &header, sizeof header);
    RB_FAIL("push.header");
    memcpy(at + SB_HEADER, m->type, m->type_length);
    if (__builtin_expect(m->grant != 0, 0))
        memcpy(at + SB_HEADER + m->type_length, &m->grant, sizeof m->grant);
    if (__builtin_expect(m->group_length != 0, 0))
        memcpy(at + SB_HEADER + m->type_length, m->group, m->group_length);
    if (m->size)
        ep_write_payload(at + sb_payload_offset(&header), m);
}

static inline bool ep_has_space(const struct ep_endpoint *e, uint32_t ring, uint64_t length)
{
    const struct rb_producer *out = &e->out[ring];
    return rb_end_after(out, length) - rb_load_acquire(out->tail) <= out->capacity;
}

/* For records of `length` bytes in all, or it is empty. */
static inline bool ep_has_room(const struct ep_endpoint *e, uint32_t ring, uint64_t length)
{
    const struct rb_producer *out = &e->out[ring];
    uint64_t used = out->next - rb_load_acquire(out->tail);
    return !used || used + length <= out->capacity;
}

/* RB_OK, RB_FULL, or RB_CORRUPT where something else is in the way (ep_trouble). Published at once without a
 * `batch`; with one, `*armed` says that the watcher has a new time to keep: ep_arm_watcher, without the lock. */
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
            ep_found_bad(e, SB_RINGS_IN + ring, rb_load(out->tail));
        else
            ep_flush(e); /* only what is published can make space */
        return status;
    }
    if (__builtin_expect(m->flags & SB_POOLED, 0))
        ep_use_block(e, (struct sb_block *)m->payload, out->next, ring);
    ep_write_record(at, m, length, now);
    rb_commit(out, length);
    ep_count_sent(e, m->kind);
    if (batch && e->batched[ring] + 1 < batch->messages && out->next - out->published < batch->bytes) {
        e->batched[ring]++;
        if (batch->delay_ns && rb_load(&e->flush_at) > now + batch->delay_ns) {
            rb_store_seq(&e->flush_at, now + batch->delay_ns); /* ep_arm_watcher */
            *armed = true;
        }
        return RB_OK;
    }
    ep_publish(e, ring);
    return RB_OK;
}
