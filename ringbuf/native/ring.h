/* A ring of records between one producer and one consumer, which may live in different processes.
 *
 * Positions are 64-bit byte counts that never wrap; `position & (capacity - 1)` is where a byte lies. The
 * producer alone writes `head` and the data, the consumer alone writes `tail`, and the two words lie wherever
 * their writers can write and nobody else needs to. Each side keeps a private copy of the other's word and
 * reads the shared one only when the copy no longer suffices, so that in steady flow the two cache lines
 * travel once per lap instead of once per record (the idea is explained in rigtorp's SPSCQueue).
 *
 * A record begins with 8 bytes, {u32 length, u16 kind, u16 user}; `length` counts them. Records start at
 * multiples of 8 and never wrap: where one does not fit before the end, a record of kind RB_PADDING fills up.
 * So that a record always fits beside its padding, it is at most a quarter of the capacity.
 *
 * The head moves after the payload is written (rb_publish's release store, rb_refresh_head's acquire load) and
 * the tail after it was used (rb_release_to's release store, rb_refresh_tail's acquire load). A producer that dies
 * half-way leaves nothing visible; a consumer that dies half-way loses nothing.
 *
 * What the other side wrote is not trusted: a position must be aligned, must not go backwards and must lie
 * within one capacity; a header is read once, into a copy that is checked and used from then on.
 *
 *   producer   rb_producer_open, then rb_claim, rb_commit or rb_abort, rb_publish
 *   consumer   rb_consumer_open, then rb_peek_at, rb_release_to
 *   sizes      rb_capacity_valid, rb_largest_record, rb_span, rb_end_after, rb_depth
 */
#pragma once

#include "ringbuf/native/fail.h"
#include "ringbuf/native/order.h"

#include <string.h>

#define RB_PADDING 0u
#define RB_MIN_CAPACITY 1024u
#define RB_AHEAD 1024u /* how far before the producer the lines that it will write are fetched, in bytes */

struct rb_head8 { /* the first 8 bytes of every record */
    uint32_t length;
    uint16_t kind;
    uint16_t user;
};

enum rb_status {
    RB_OK = 0,
    RB_EMPTY = 1,    /* consumer: nothing there */
    RB_FULL = 1,     /* producer: no space */
    RB_CORRUPT = -1, /* the other side wrote what it never may */
};

struct rb_producer {      /* private to the producer */
    rb_word *head;        /* shared, written by the producer */
    const rb_word *tail;  /* shared, written by the consumer */
    rb_word *high;        /* shared, written by the producer: high-water mark in bytes */
    uint8_t *data;
    uint64_t capacity;
    uint64_t next;        /* end of what was written; beyond `published` it is still invisible */
    uint64_t published;   /* what `head` holds */
    uint64_t tail_seen;
    uint64_t high_seen;
};

struct rb_consumer {      /* private to the consumer */
    const rb_word *head;  /* shared, written by the producer */
    rb_word *tail;        /* shared, written by the consumer */
    const uint8_t *data;
    uint64_t capacity;
    uint64_t next;        /* the first record not taken */
    uint64_t released;    /* what `tail` holds */
    uint64_t head_seen;
};

static inline uint64_t rb_largest_record(uint64_t capacity) { return capacity / 4; }

static inline bool rb_capacity_valid(uint64_t capacity)
{
    return capacity >= RB_MIN_CAPACITY && (capacity & (capacity - 1)) == 0;
}

/* Both sides start from what the shared words say, so that either can be replaced while the ring stands. Their
 * own word is checked as well, since an earlier owner wrote it: RB_OK or RB_CORRUPT, and even then nothing
 * outside the ring would be touched. */
static inline enum rb_status rb_producer_open(struct rb_producer *p, rb_word *head, const rb_word *tail,
                                              rb_word *high, uint8_t *data, uint64_t capacity)
{
    uint64_t start = rb_load(head), seen = rb_load_acquire(tail);
    bool good = !(start & 7) && !(seen & 7) && seen <= start && start - seen <= capacity;
    p->head = head;
    p->tail = tail;
    p->high = high;
    p->data = data;
    p->capacity = capacity;
    p->next = p->published = start & ~(uint64_t)7;
    p->tail_seen = good ? seen : p->next; /* who goes on all the same meets RB_CORRUPT at the next look */
    p->high_seen = rb_load(high);
    return good ? RB_OK : RB_CORRUPT;
}

static inline enum rb_status rb_consumer_open(struct rb_consumer *c, const rb_word *head, rb_word *tail,
                                              const uint8_t *data, uint64_t capacity)
{
    uint64_t start = rb_load(tail), seen = rb_load_acquire(head);
    bool good = !(start & 7) && !(seen & 7) && start <= seen && seen - start <= capacity;
    c->head = head;
    c->tail = tail;
    c->data = data;
    c->capacity = capacity;
    c->next = c->released = c->head_seen = start & ~(uint64_t)7;
    return good ? RB_OK : RB_CORRUPT;
}

/* Producer ------------------------------------------------------------------------------------------------- */

static inline enum rb_status rb_refresh_tail(struct rb_producer *p)
{
    uint64_t tail = rb_load_acquire(p->tail); /* rb_release_to */
    if ((tail & 7) || tail < p->tail_seen || tail > p->published)
        return RB_CORRUPT;
    p->tail_seen = tail;
    return RB_OK;
}

/* Bytes that a record of `length` takes from position `at` on, its padding included. */
static inline uint64_t rb_span(uint64_t at, uint64_t length, uint64_t capacity)
{
    uint64_t bytes_to_end = capacity - (at & (capacity - 1));
    uint64_t size = RB_ALIGN8(length);
    return size <= bytes_to_end ? size : bytes_to_end + size;
}

/* The head that a record of `length` would lead to. */
static inline uint64_t rb_end_after(const struct rb_producer *p, uint64_t length)
{
    return p->next + rb_span(p->next, length, p->capacity);
}

/* Room for a record of `length` bytes, header included, while `reserve` bytes stay free: RB_OK and where to
 * write it, RB_FULL or RB_CORRUPT. Nothing is visible before rb_publish. */
static inline enum rb_status rb_claim(struct rb_producer *p, uint64_t length, uint64_t reserve, uint8_t **at)
{
    uint64_t end = rb_end_after(p, length);
    if (end - p->tail_seen + reserve > p->capacity) {
        if (rb_refresh_tail(p) != RB_OK)
            return RB_CORRUPT;
        if (end - p->tail_seen + reserve > p->capacity)
            return RB_FULL;
    }
    uint64_t offset = p->next & (p->capacity - 1);
    uint64_t bytes_to_end = p->capacity - offset;
    if (RB_ALIGN8(length) > bytes_to_end) {
        struct rb_head8 padding = {(uint32_t)bytes_to_end, RB_PADDING, 0};
        memcpy(p->data + offset, &padding, sizeof padding);
        RB_FAIL("ring.padded");
        p->next += bytes_to_end;
        offset = 0;
    }
    *at = p->data + offset;
    /* What lies ahead was last read by the consumer, perhaps on another core: have its lines fetched meanwhile. */
    uint64_t ahead = p->next + RB_AHEAD;
    if (length <= RB_AHEAD / 2 && ahead + length - p->tail_seen <= p->capacity)
        for (uint64_t i = 0; i < length; i += RB_LINE)
            rb_will_write(p->data + ((ahead + i) & (p->capacity - 1)));
    return RB_OK;
}

/* The claimed record is complete; it becomes visible with the next rb_publish. */
static inline void rb_commit(struct rb_producer *p, uint64_t length)
{
    RB_FAIL("ring.written");
    p->next += RB_ALIGN8(length);
}

/* Forget what was claimed or committed since the last publication. */
static inline void rb_abort(struct rb_producer *p) { p->next = p->published; }

/* The high-water mark is exact above a 64th of the capacity and an upper bound below, which spares most
 * pushes a look at the consumer's cache line. */
static inline void rb_note_depth(struct rb_producer *p)
{
    uint64_t depth = p->next - p->tail_seen;
    if (depth <= p->high_seen)
        return;
    if (depth > p->capacity / 64) {
        if (rb_refresh_tail(p) != RB_OK)
            return;
        depth = p->next - p->tail_seen;
        if (depth <= p->high_seen)
            return;
    }
    p->high_seen = depth;
    rb_store(p->high, depth);
}

/* Make all that was committed visible. */
static inline void rb_publish(struct rb_producer *p)
{
    rb_note_depth(p);
    RB_FAIL("ring.publish");
    p->published = p->next;
    rb_store_release(p->head, p->next); /* rb_refresh_head */
    RB_FAIL("ring.published");
}

/* Consumer ------------------------------------------------------------------------------------------------- */

static inline enum rb_status rb_refresh_head(struct rb_consumer *c)
{
    uint64_t head = rb_load_acquire(c->head); /* rb_publish */
    if ((head & 7) || head < c->head_seen || head - c->released > c->capacity)
        return RB_CORRUPT;
    c->head_seen = head;
    return RB_OK;
}

/* The record at `*position`, which moves past padding: RB_OK with a checked private copy of its first 8 bytes,
 * RB_EMPTY, or RB_CORRUPT. `least` is the smallest length that a record may have. */
static inline enum rb_status rb_peek_at(struct rb_consumer *c, uint64_t *position, uint32_t least,
                                        struct rb_head8 *head, const uint8_t **record)
{
    for (;;) {
        if (*position == c->head_seen) {
            if (rb_refresh_head(c) != RB_OK)
                return RB_CORRUPT;
            if (*position == c->head_seen)
                return RB_EMPTY;
        }
        uint64_t offset = *position & (c->capacity - 1);
        uint64_t bytes_to_end = c->capacity - offset;
        /* One load that no compiler may repeat: what is checked is what is used. */
        uint64_t first = rb_load((const rb_word *)(const void *)(c->data + offset));
        memcpy(head, &first, sizeof *head);
        uint64_t size = RB_ALIGN8(head->length);
        if (head->length < sizeof *head || size > bytes_to_end || size > c->head_seen - *position)
            return RB_CORRUPT;
        if (head->kind != RB_PADDING) {
            if (head->length < least || head->length > rb_largest_record(c->capacity))
                return RB_CORRUPT;
            *record = c->data + offset;
            return RB_OK;
        }
        if (size != bytes_to_end)
            return RB_CORRUPT;
        *position += size;
    }
}

/* Everything before `position` has been used: the producer may overwrite it. */
static inline void rb_release_to(struct rb_consumer *c, uint64_t position)
{
    RB_FAIL("ring.release");
    c->released = position;
    rb_store_release(c->tail, position); /* rb_refresh_tail */
    RB_FAIL("ring.released");
}

/* Bytes in the ring as anybody sees them; the two words are read until they stand still. */
static inline uint64_t rb_depth(const rb_word *head, const rb_word *tail)
{
    uint64_t before, h;
    do {
        before = rb_load_acquire(tail);
        h = rb_load_acquire(head);
    } while (rb_load_acquire(tail) != before);
    return h >= before ? h - before : 0;
}
