/* Outflows: replies in parts, at the endpoint that gives them.
 *
 * A part may be sent while the parts before it are fewer bytes than its requester has granted (stream.h). An outflow
 * without credit is put aside, and no thread waits for it: whoever drains the credit among the replies makes it due,
 * and wakes a thread that receives, which goes on with it. So does a cancel, upon which there is nothing to go on with.
 *
 *   ep_begin_outflow, ep_end_outflow    from the first part on, to the end or an error
 *   ep_push_part          put a part into the ring, if there is credit
 *   ep_await_credit       put it aside: false if it can go on
 *   ep_await_space        it waits for space instead, and its owner says when it is due
 *   ep_make_due           another thread, or this one later, shall go on with it
 *   ep_next_due           one that can go on, for the caller to do so
 *   ep_note_credit        a requester has granted more
 *   ep_note_broken_off    it does not want any more
 *
 * Modelled in tests/models/streaming.py.
 */
#pragma once

#include "shmbus/endpoint/native/send.h"

enum ep_part_status {
    EP_PART_SENT = 0,
    EP_PART_FULL = 1,       /* there is no space in the ring now */
    EP_PART_NO_CREDIT = 2,
    EP_PART_BROKEN_OFF = 3, /* nobody waits for it any more */
    EP_PART_TROUBLE = -1,   /* something else is in the way (ep_trouble) */
};

struct ep_outflow {
    uint8_t id[16];        /* of the request */
    uint64_t sent, granted; /* sb_part_bytes() of records, since its beginning */
    bool broken_off;       /* its requester has withdrawn the request */
    bool aside;            /* nobody goes on with it until it is due */
    bool due;              /* it is among those that are */
    void *owner;           /* whoever began it */
    struct ep_outflow *next; /* in its bucket */
    struct ep_outflow *next_due;
};

static inline struct ep_outflow **ep_outflow_bucket(struct ep_endpoint *e, const uint8_t id[16])
{
    return &e->outflows[(id[13] ^ id[14] ^ id[15]) % EP_OUTFLOWS]; /* counter and entry, see sb_make_id */
}

static inline void ep_begin_outflow(struct ep_endpoint *e, struct ep_outflow *o)
{
    struct ep_outflow **bucket = ep_outflow_bucket(e, o->id);
    o->next = *bucket;
    *bucket = o;
    rb_add(&e->up->streaming, 1);
}

/* It is not among those that are due any more. */
static inline void ep_undue(struct ep_endpoint *e, struct ep_outflow *o)
{
    struct ep_outflow *last = NULL;
    if (!o->due)
        return;
    o->due = false;
    for (struct ep_outflow **at = &e->due; *at; last = *at, at = &(*at)->next_due)
        if (*at == o) {
            *at = o->next_due;
            if (e->due_last == o)
                e->due_last = last;
            return;
        }
}

/* By the thread that has it, or while nobody has. */
static inline void ep_end_outflow(struct ep_endpoint *e, struct ep_outflow *o)
{
    struct ep_outflow **at = ep_outflow_bucket(e, o->id);
    ep_undue(e, o);
    while (*at && *at != o)
        at = &(*at)->next;
    if (!*at)
        return;
    *at = o->next;
    rb_store(&e->up->streaming, rb_load(&e->up->streaming) - 1);
}

static inline struct ep_outflow *ep_find_outflow(struct ep_endpoint *e, const uint8_t id[16])
{
    struct ep_outflow *o = *ep_outflow_bucket(e, id);
    while (o && memcmp(o->id, id, 16) != 0)
        o = o->next;
    return o;
}

static inline bool ep_can_go_on(const struct ep_outflow *o) { return o->broken_off || o->sent < o->granted; }

/* Once, however many say so before somebody has it. */
static inline void ep_make_due(struct ep_endpoint *e, struct ep_outflow *o)
{
    o->aside = false;
    if (o->due)
        return;
    o->due = true;
    o->next_due = NULL;
    if (e->due)
        e->due_last->next_due = o;
    else
        e->due = o;
    e->due_last = o;
}

static inline struct ep_outflow *ep_next_due(struct ep_endpoint *e)
{
    struct ep_outflow *o = e->due;
    if (o) {
        e->due = o->next_due;
        o->due = false;
    }
    return o;
}

static inline void ep_recall(struct ep_endpoint *e, struct ep_outflow *o)
{
    if (!o->aside || !ep_can_go_on(o))
        return;
    ep_make_due(e, o);
    ep_wake(e, SB_EVENT_DATA | SB_EVENT_STATE);
}

/* The record is a header alone: what it grants is absolute, so one that comes twice or late does no harm. */
static inline void ep_note_credit(struct ep_endpoint *e, const struct sb_record *header)
{
    struct ep_outflow *o = ep_find_outflow(e, header->correlation);
    if (!o || header->deadline_ns <= o->granted)
        return;
    o->granted = header->deadline_ns;
    ep_recall(e, o);
}

static inline void ep_note_broken_off(struct ep_endpoint *e, const uint8_t id[16])
{
    struct ep_outflow *o = ep_find_outflow(e, id);
    if (!o)
        return;
    o->broken_off = true;
    ep_recall(e, o);
}

/* By the thread that has it, which then leaves it. */
static inline bool ep_await_credit(struct ep_endpoint *e, struct ep_outflow *o)
{
    ep_flush(e); /* what its requester is to make room for */
    o->aside = !ep_can_go_on(o);
    return o->aside;
}

/* Credit or a cancel is not what it waits for any more. */
static inline void ep_await_space(struct ep_endpoint *e, struct ep_outflow *o)
{
    ep_undue(e, o);
    o->aside = false;
}

static inline enum ep_part_status ep_push_part(struct ep_endpoint *e, struct ep_outflow *o, const struct ep_message *m,
                                               uint64_t now, const struct ep_batch_limits *batch, bool *armed)
{
    if (o->broken_off)
        return EP_PART_BROKEN_OFF;
    if (o->sent >= o->granted)
        return EP_PART_NO_CREDIT;
    enum rb_status status = ep_push(e, m, now, batch, armed);
    if (status != RB_OK)
        return status == RB_FULL ? EP_PART_FULL : EP_PART_TROUBLE;
    o->sent += sb_part_bytes(ep_record_length(m), m->flags);
    return EP_PART_SENT;
}
