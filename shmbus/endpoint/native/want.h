/* What a thread waits for, and the words of shared memory by which it shows.
 *
 *   struct ep_waiter      one waiting thread
 *   ep_data_waits         is there a message that nobody has taken?
 *   ep_satisfied          is there what it waits for?
 *   ep_store_need         ask the dispatcher to ring once there is space, or a block
 *   ep_want_part_space    who waits for data is to wake for space for a part, too
 *   ep_take_view, ep_view_changed    the words that can satisfy anybody who waits here; has one of them changed?
 */
#pragma once

#include "shmbus/endpoint/native/block.h"
#include "shmbus/endpoint/native/mailbox.h"
#include "shmbus/endpoint/native/request.h"

enum ep_want {             /* bits, of which each waiter has one */
    EP_WANT_REPLY = 1,     /* to request `index`, or a part of that, of serial `value` where others may end it, too */
    EP_WANT_DATA = 2,      /* in the incoming data ring, or the urgent one, or a mailbox */
    EP_WANT_SPACE = 4,     /* for a record of `value` bytes in outgoing ring `index` */
    EP_WANT_SEEN = 8,      /* interests, up to version `value` */
    EP_WANT_STATE = 16,    /* of DOWN, at least `value` */
    EP_WANT_FUTURE = 32,   /* one that is to be told at once; see ep_attend */
    EP_WANT_ENTRY = 64,    /* in the pending table, or a completed future, whose entry can be had */
    EP_WANT_ALONE = 128,   /* no other thread waits any more */
    EP_WANT_ANSWERED = 256, /* no request is deferred */
    EP_WANT_EVENT = 512,   /* the dispatcher has our event */
    EP_WANT_COMPLETION = 1024, /* of any request, after `value` of them */
    EP_WANT_BLOCK = 2048,  /* of `value` pages of the pool */
    EP_WANT_GRANT = 4096,  /* an answer to how large the pool may be */
};

struct ep_waiter {
    uint32_t want;          /* one of enum ep_want */
    uint32_t index;
    uint64_t value;
    uint64_t minds;         /* which troubles end the wait */
    bool checks_dispatcher; /* for its death, since what it waits for can only come from there */
    uint64_t trouble;       /* out: what ended the wait, 0 if there is what it waits for */
    bool posted;            /* as a follower: its semaphore has been posted */
    sem_t wake;
    struct ep_waiter *next;
};

static inline bool ep_data_waits(const struct ep_endpoint *e)
{
    return rb_load_acquire(e->in[SB_DATA].head) != e->in[SB_DATA].next ||
           rb_load_acquire(e->in[SB_URGENT_EVENTS].head) != e->in[SB_URGENT_EVENTS].next ||
           (e->mailbox_count && ep_mail_waits(e));
}

/* Of the parts that found none, the smallest; see ep_want_part_space. */
static inline bool ep_part_has_space(struct ep_endpoint *e)
{
    return (e->part_length && ep_has_space(e, SB_REPLIES, e->part_length)) ||
           (e->part_pages && ep_block_to_be_had(e, e->part_pages));
}

static inline bool ep_satisfied(struct ep_endpoint *e, const struct ep_waiter *w)
{
    switch (w->want) {
    case EP_WANT_REPLY: {
        const struct ep_request *request = &e->requests[w->index];
        return request->state != EP_REQUEST_WAITING || ep_has_part(request) ||
               (w->value && request->serial != w->value);
    }
    case EP_WANT_DATA: /* and somebody may take it */
        return (ep_data_waits(e) || e->recalled || e->due || ep_part_has_space(e)) &&
               !(ep_trouble(e) & (EP_RING_BAD | EP_EVICTED));
    case EP_WANT_SPACE: return ep_has_space(e, w->index, w->value);
    case EP_WANT_SEEN: /* of one that leaves, the dispatcher reads no more */
        return rb_load_acquire(&e->down->interests_seen) >= w->value || rb_load(&e->up->state) >= SB_UP_CLOSING;
    case EP_WANT_STATE: return rb_load_acquire(&e->down->state) >= w->value;
    case EP_WANT_FUTURE: return e->nudge;
    case EP_WANT_ENTRY: return ep_entry_to_be_had(e) || e->completed != EP_NO_REQUEST;
    case EP_WANT_ALONE: return e->inside == 1;
    case EP_WANT_ANSWERED: return e->deferred == 0;
    case EP_WANT_EVENT: return rb_load_acquire(&e->down->event_known) == e->serial;
    case EP_WANT_COMPLETION: return e->completions != w->value;
    case EP_WANT_BLOCK: return ep_block_to_be_had(e, w->value);
    case EP_WANT_GRANT: return !ep_grant_is_open(e);
    default: return true;
    }
}

/* Ask for the least tail that serves one of those who wait for space, the event among them. Stored before the view is
 * taken, whose seq loads of the tails come after it; dp_ring_all stores the tails, then looks at the need. */
static inline void ep_store_ring_need(struct ep_endpoint *e, uint32_t ring)
{
    uint64_t need = e->event_need[ring];
    if (ring == SB_REPLIES && e->part_length) {
        uint64_t tail = rb_end_after(&e->out[ring], e->part_length) - e->out[ring].capacity;
        need = tail < need ? tail : need;
    }
    for (struct ep_waiter *w = e->first; w; w = w->next)
        if (w->want == EP_WANT_SPACE && w->index == ring) {
            uint64_t tail = rb_end_after(&e->out[ring], w->value) - e->out[ring].capacity;
            need = tail < need ? tail : need;
        }
    if (rb_load(&e->up->outgoing[ring].need) != need)
        rb_store_seq(&e->up->outgoing[ring].need, need);
}

/* Likewise: the dispatcher stores what it returns or grants, then looks at the need. */
static inline void ep_store_block_need(struct ep_endpoint *e)
{
    uint64_t need = e->event_block > e->part_pages ? e->event_block : e->part_pages;
    for (struct ep_waiter *w = e->first; w; w = w->next) {
        uint64_t pages = w->want == EP_WANT_BLOCK && w->value ? w->value
                                                              : (w->want & (EP_WANT_BLOCK | EP_WANT_GRANT)) != 0;
        need = pages > need ? pages : need;
    }
    if (e->pool && rb_load(&e->up->pool_need) != need)
        rb_store_seq(&e->up->pool_need, need);
}

static inline void ep_store_need(struct ep_endpoint *e, const struct ep_waiter *w)
{
    if (w->want == EP_WANT_SPACE)
        ep_store_ring_need(e, w->index);
    else if (w->want & (EP_WANT_BLOCK | EP_WANT_GRANT))
        ep_store_block_need(e);
}

/* Of the parts of replies that found no space in their ring for so long a record, or no block of so many pages, the
 * least; 0: none lacks that. Whoever receives goes on with them when there is some. */
static inline void ep_want_part_space(struct ep_endpoint *e, uint64_t length, uint64_t pages)
{
    if (length == e->part_length && pages == e->part_pages)
        return;
    e->part_length = length;
    e->part_pages = pages;
    ep_store_ring_need(e, SB_REPLIES);
    ep_store_block_need(e);
    if (e->leader && (length || pages))
        ep_wake_leader(e); /* it does not look at that yet */
}

struct ep_view {
    const struct ep_endpoint *blocks; /* whose blocks are looked at, too; NULL: nobody waits for one */
    uint32_t wants; /* of all who wait */
    uint32_t count;
    struct {
        const rb_word *word;
        uint64_t value; /* when all who wait were last looked at */
    } seen[11 + SB_OWN_MAILBOXES];
};

static inline void ep_view_add(struct ep_view *v, const rb_word *word)
{
    v->seen[v->count].word = word;
    v->seen[v->count++].value = rb_load_seq(word);
}

static inline void ep_take_view(struct ep_view *v, const struct ep_endpoint *e)
{
    v->wants = v->count = 0;
    v->blocks = NULL;
    for (const struct ep_waiter *w = e->first; w; w = w->next)
        v->wants |= w->want;
    ep_view_add(v, e->in[SB_REPLIES].head);
    ep_view_add(v, &e->wakes);
    if (v->wants & EP_WANT_DATA) {
        ep_view_add(v, e->in[SB_DATA].head);
        ep_view_add(v, e->in[SB_URGENT_EVENTS].head);
        for (uint32_t i = 0; e->mailbox_count && i < SB_OWN_MAILBOXES; i++)
            if (e->mailboxes[i] && e->mailboxes[i]->memory)
                ep_view_add(v, ep_mail_head(e->mailboxes[i]));
    }
    if (v->wants & EP_WANT_SPACE || e->part_length) {
        ep_view_add(v, e->out[SB_DATA].tail);
        ep_view_add(v, e->out[SB_REPLIES].tail);
    }
    if (v->wants & EP_WANT_BLOCK || e->part_pages)
        v->blocks = e;
    if (v->wants & (EP_WANT_BLOCK | EP_WANT_GRANT) || e->part_pages)
        ep_view_add(v, &e->down->pool_granted);
    ep_view_add(v, &e->down->state);
    ep_view_add(v, &e->bus->state);
    ep_view_add(v, &e->down->interests_seen);
    if (v->wants & EP_WANT_EVENT)
        ep_view_add(v, &e->down->event_known);
}

/* The leader's look, while it spins and once its epoch is odd. Who stores one of these words rings after it:
 * dp_ring_all behind its fence, ep_wake_leader. */
static inline bool ep_view_changed(void *context)
{
    const struct ep_view *v = context;
    for (uint32_t i = 0; i < v->count; i++)
        if (rb_load_seq(v->seen[i].word) != v->seen[i].value)
            return true;
    return v->blocks && ep_blocks_returned(v->blocks);
}
