/* Streams: requests whose replies come in parts, at the endpoint that asked.
 *
 * A part is copied out of the reply ring as it comes, by whoever drains that, and lies here until it is taken: so a
 * slow reader is in nobody's way. How much may come is granted: in bytes of records, since the stream's beginning,
 * first in the request itself. A part is sent while those before it are fewer (outflow.h). More is granted as parts are
 * taken, half of what a stream has at a time. All streams of an endpoint together have half of what its reply ring
 * holds beside the errors, so that other replies find space there even while nobody drains it; a stream that finds
 * nothing left gets one part after the other.
 *
 * A grant is absolute, so one that is lost on its way is made good by saying it again; ep_repeat_credit does, after a
 * while without a part.
 *
 *   ep_open_stream, ep_close_stream     the queue of a request's parts, and its first grant
 *   ep_keep_part          one has come
 *   ep_set_part_share, ep_part_share    of the last that has come, or one that is here: its share, if it is pooled
 *   ep_next_part          the first that nobody has taken
 *   ep_took_part          that one was: true if more is to be granted
 *   ep_push_credit        say so to the server
 *   ep_await_part         in an event loop: put it among the `stirred` when a part has come, or its end. False: there
 *                         is one
 *   ep_stir, ep_next_stirred    do so; the next of them
 *
 * Modelled in tests/models/streaming.py.
 */
#pragma once

#include "shmbus/endpoint/native/send.h"
#include "shmbus/endpoint/native/share.h"

#include <stdlib.h>

#define EP_PARTS_BYTES 4096u /* of the first buffer */

struct ep_stream {
    uint8_t *parts;          /* records that have come and were not taken */
    uint64_t begin, end, capacity; /* there */
    uint64_t received;       /* sb_part_bytes() of records, since its beginning */
    uint64_t consumed;       /* likewise: taken */
    uint64_t granted;
    bool owes;               /* what is granted could not be said yet */
    bool failed;             /* a part was lost here: no memory, or more came than was granted */
    bool awaited;            /* in an event loop: it is to be among the stirred */
    bool stirred;            /* it is */
    struct ep_stream *next;  /* there */
    void *owner;             /* whoever waits for it there */
};

static inline uint64_t ep_unconsumed(const struct ep_stream *s)
{
    return s->granted > s->consumed ? s->granted - s->consumed : 0;
}

/* What its streams may be sent together beyond what was taken of them. */
static inline uint64_t ep_grants_most(const struct ep_endpoint *e)
{
    return (e->in[SB_REPLIES].capacity - e->request_count * (uint64_t)SB_REQUEST_RESERVE) / 2;
}

/* Up to where this one may be sent now, beyond what was taken of it. */
static inline uint64_t ep_window(const struct ep_endpoint *e, const struct ep_stream *s)
{
    uint64_t most = ep_grants_most(e), others = e->granted - ep_unconsumed(s);
    uint64_t share = most / e->streams, left = most > others ? most - others : 0;
    uint64_t window = share < left ? share : left;
    return window ? window : 1;
}

static inline void ep_grant(struct ep_endpoint *e, struct ep_stream *s, uint64_t granted)
{
    e->granted -= ep_unconsumed(s);
    s->granted = granted;
    e->granted += ep_unconsumed(s);
}

/* NULL: no memory. */
static inline struct ep_stream *ep_open_stream(struct ep_endpoint *e)
{
    struct ep_stream *s = calloc(1, sizeof *s);
    if (!s)
        return NULL;
    e->streams++;
    ep_grant(e, s, ep_window(e, s));
    return s;
}

/* Space for so many bytes more behind `end`. False: no memory. */
static inline bool ep_make_room(struct ep_stream *s, uint64_t bytes)
{
    uint64_t there = s->end - s->begin;
    if (bytes <= s->capacity - s->end)
        return true;
    if (there + bytes > s->capacity || s->begin < there) {
        uint64_t capacity = s->capacity ? 2 * s->capacity : EP_PARTS_BYTES;
        while (capacity < there + bytes)
            capacity *= 2;
        uint8_t *parts = malloc(capacity);
        if (!parts)
            return false;
        if (there)
            memcpy(parts, s->parts + s->begin, there);
        free(s->parts);
        s->parts = parts;
        s->capacity = capacity;
    } else {
        memmove(s->parts, s->parts + s->begin, there);
    }
    s->begin = 0;
    s->end = there;
    return true;
}

static inline void ep_stir(struct ep_endpoint *e, struct ep_stream *s)
{
    if (!s->awaited)
        return;
    s->awaited = false;
    s->stirred = true;
    s->next = NULL;
    if (e->stirred)
        e->stirred_last->next = s;
    else
        e->stirred = s;
    e->stirred_last = s;
}

static inline struct ep_stream *ep_next_stirred(struct ep_endpoint *e)
{
    struct ep_stream *s = e->stirred;
    if (s) {
        e->stirred = s->next;
        s->stirred = false;
    }
    return s;
}

/* Before it is closed. */
static inline void ep_unstir(struct ep_endpoint *e, struct ep_stream *s)
{
    struct ep_stream *last = NULL;
    if (!s->stirred)
        return;
    for (struct ep_stream **at = &e->stirred; *at; last = *at, at = &(*at)->next)
        if (*at == s) {
            *at = s->next;
            if (!s->next)
                e->stirred_last = last;
            return;
        }
}

/* In place of its struct sb_block. */
static inline void ep_set_part_share(struct ep_stream *s, const struct sb_record *header, struct ep_share *share)
{
    memcpy(s->parts + s->end - RB_ALIGN8(header->length) + sb_payload_offset(header), &share, sizeof share);
}

static inline struct ep_share *ep_part_share(const struct sb_record *header, const uint8_t *part)
{
    struct ep_share *share = NULL;
    if (header->flags & SB_POOLED)
        memcpy(&share, part + sb_payload_offset(header), sizeof share);
    return share;
}

static inline void ep_free_part_shares(const struct ep_stream *s)
{
    struct sb_record header;
    for (uint64_t at = s->begin; at < s->end; at += RB_ALIGN8(header.length)) {
        memcpy(&header, s->parts + at, SB_HEADER);
        struct ep_share *share = ep_part_share(&header, s->parts + at);
        if (share)
            ep_free_share(share);
    }
}

static inline void ep_close_stream(struct ep_endpoint *e, struct ep_stream *s)
{
    ep_free_part_shares(s);
    ep_unstir(e, s);
    e->granted -= ep_unconsumed(s);
    e->streams--;
    free(s->parts);
    free(s);
}

/* Without memory the stream ends there, as if that part had been lost. */
static inline void ep_keep_part(struct ep_stream *s, const struct sb_record *header, const uint8_t *record)
{
    uint64_t size = RB_ALIGN8(header->length), counted = sb_part_bytes(header->length, header->flags);
    s->received += counted;
    if (s->failed || s->received - counted >= s->granted || !ep_make_room(s, size)) {
        s->failed = true;
        return;
    }
    memcpy(s->parts + s->end, header, SB_HEADER);
    memcpy(s->parts + s->end + SB_HEADER, record + SB_HEADER, header->length - SB_HEADER);
    s->end += size;
}

/* NULL: there is none. */
static inline const uint8_t *ep_next_part(const struct ep_stream *s, struct sb_record *header)
{
    if (s->begin == s->end)
        return NULL;
    memcpy(header, s->parts + s->begin, SB_HEADER);
    return s->parts + s->begin;
}

/* With what is granted at once to a stream that had it all, the next one comes before the last was taken. */
static inline bool ep_took_part(struct ep_endpoint *e, struct ep_stream *s, const struct sb_record *header)
{
    uint64_t size = RB_ALIGN8(header->length);
    e->granted -= ep_unconsumed(s);
    s->begin += size;
    s->consumed += sb_part_bytes(header->length, header->flags);
    e->granted += ep_unconsumed(s);
    if (s->begin == s->end)
        s->begin = s->end = 0;
    uint64_t window = ep_window(e, s), unconsumed = ep_unconsumed(s);
    if (2 * unconsumed > window)
        return false;
    ep_grant(e, s, s->consumed + window);
    return true;
}

/* False: there is no space for it now; `owes` says so. */
static inline bool ep_push_credit(struct ep_endpoint *e, struct ep_stream *s, const uint8_t id[16])
{
    const struct ep_message credit = {.kind = SB_CREDIT, .flags = SB_NONE, .deadline_ns = s->granted,
                                      .correlation = id, .type = ""};
    s->owes = ep_push(e, &credit, ep_stamp(e), NULL, NULL) != RB_OK;
    return !s->owes;
}
