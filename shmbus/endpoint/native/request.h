/* Requests: the pending table, of which half lies in UP for the dispatcher and half here, and the reply ring.
 *
 *   ep_begin_request      an entry for a request about to be sent; its index is in the correlation id
 *   ep_sent_request       it is in the outgoing ring now
 *   ep_drain_replies      empty the reply ring: each reply completes the request that waits for it, each part is kept
 *   ep_request_waits      has it not completed yet?
 *   ep_next_completed     the next future whose reply is there
 *   ep_end_request        the caller has what it wants, or withdraws it (wait.h: ep_finish_request, which also wakes)
 *   ep_tell_withdrawn     tell servers of withdrawn requests for which there was no space
 *   ep_chosen             whom the dispatcher chose for it
 *   ep_await_part         of a stream: is there nothing to take? Then ep_next_stirred will have it
 *   ep_repeat_credit      say again what a stream was granted, which may have been lost
 */
#pragma once

#include "shmbus/endpoint/native/cancel.h"
#include "shmbus/endpoint/native/stream.h"
#include "shmbus/endpoint/native/take.h"

#include <stdlib.h>

enum ep_request_state { EP_REQUEST_FREE = 0, EP_REQUEST_WAITING = 1, EP_REQUEST_DONE = 2 };

struct ep_request {          /* the private half of an entry */
    enum ep_request_state state;
    bool sent;               /* it is in the outgoing ring, or was */
    bool future;             /* its reply may be collected later, by whichever thread */
    bool alert;              /* of a future: somebody is to be told of its reply at once */
    uint32_t next;           /* in the list of completed futures, or of those of whose end the server is to be told */
    uint64_t serial;         /* of this use of the entry, never 0 */
    uint64_t ended_at;       /* `drains` when it ended */
    struct sb_record header; /* of the reply */
    uint8_t *payload;        /* of the reply */
    uint64_t size, capacity;
    struct ep_share *share;  /* of its payload, if that lies in a pool; whoever takes the reply takes it */
    uint64_t asked;          /* bytes of the request's payload */
    struct ep_stream *stream; /* its reply may come in parts; NULL: it may not */
};
#define EP_REPLY_BYTES 1024u  /* a buffer that grew beyond is not kept */
#define EP_NO_REQUEST UINT32_MAX

static inline struct sb_pending *ep_pending_entry(struct ep_endpoint *e, uint32_t index)
{
    return (struct sb_pending *)((uint8_t *)e->up + e->up->pending_offset) + index;
}

static inline bool ep_request_waits(const struct ep_endpoint *e, uint32_t index)
{
    return e->requests[index].state == EP_REQUEST_WAITING;
}

/* A future waits no longer. */
static inline void ep_leave_futures(struct ep_endpoint *e, uint32_t index)
{
    if (!e->requests[index].future || !ep_request_waits(e, index))
        return;
    e->futures--;
    e->alerting -= e->requests[index].alert;
}

static inline void ep_lose_reply(struct ep_request *request)
{
    request->size = 0;
    request->header.kind = SB_ERROR;
    request->header.flags = 0;
}

/* The share of what stands next in the reply ring, before it is passed. NULL: no memory. `lies`: nobody is about to
 * take it, and who will may wait for a block of its own meanwhile: so what is too much is copied now, or two that ask
 * each other would wait for each other's pools. */
static inline struct ep_share *ep_enter_reply(struct ep_endpoint *e, const struct sb_record *header,
                                              const uint8_t *record, bool lies)
{
    uint64_t id = sb_share_of(e->in[SB_REPLIES].next, SB_REPLIES);
    struct ep_share *share = ep_enter_share(e, id, header, record, false);
    if (share && ep_drop_revoked(share, record))
        return NULL;
    if (lies && share && ep_copies_share(share))
        ep_copy_share(share);
    return share;
}

/* False: it was revoked meanwhile, since its time is over. */
static inline bool ep_keep_pooled(struct ep_endpoint *e, struct ep_request *request, const struct sb_record *header,
                                  const uint8_t *record)
{
    request->header = *header;
    request->size = 0;
    request->share = ep_enter_reply(e, header, record, request->future);
    if (!request->share && sb_is_revoked(record))
        return false;
    if (!request->share)
        ep_lose_reply(request);
    return true;
}

static inline void ep_drop_reply_share(struct ep_request *request)
{
    if (request->share)
        ep_free_share(request->share);
    request->share = NULL;
}

/* Keep the reply: without memory the request ends all the same, as one whose reply was lost here. */
static inline void ep_keep_reply(struct ep_request *request, const struct sb_record *header, const uint8_t *record)
{
    uint64_t offset = sb_payload_offset(header), size = header->length - offset;
    request->header = *header;
    request->size = size;
    if (size > request->capacity) {
        free(request->payload);
        request->capacity = size > EP_REPLY_BYTES ? size : EP_REPLY_BYTES;
        request->payload = malloc(request->capacity);
        if (!request->payload) {
            request->capacity = 0;
            ep_lose_reply(request);
        }
    }
    if (request->size)
        memcpy(request->payload, record + offset, size);
}

/* False: it was revoked, and the request waits on, for no more than its timeout. */
static inline bool ep_complete(struct ep_endpoint *e, uint32_t index, const struct sb_record *header,
                               const uint8_t *record)
{
    struct ep_request *request = &e->requests[index];
    if (header->flags & SB_POOLED && !ep_keep_pooled(e, request, header, record))
        return false;
    if (!(header->flags & SB_POOLED))
        ep_keep_reply(request, header, record);
    ep_leave_futures(e, index);
    request->state = EP_REQUEST_DONE;
    if (request->stream)
        ep_stir(e, request->stream);
    rb_store_release(&ep_pending_entry(e, index)->state, SB_PENDING_FREE);
    e->completions++;
    rb_add(&e->up->received_replies, header->kind != SB_REPLY || header->peer != SB_FROM_BUS); /* but answers */
    if (!request->future)
        return true;
    e->nudge |= request->alert;
    request->next = EP_NO_REQUEST;
    if (e->completed == EP_NO_REQUEST)
        e->completed = index;
    else
        e->requests[e->completed_last].next = index;
    e->completed_last = index;
    return true;
}

/* False: it is not kept. */
static inline bool ep_take_part(struct ep_endpoint *e, uint32_t index, const struct sb_record *header,
                                const uint8_t *record)
{
    struct ep_request *request = &e->requests[index];
    if (!request->stream) /* the server was not told that it may */
        return false;
    rb_add(&e->up->received_parts, 1);
    ep_keep_part(request->stream, header, record);
    if (header->flags & SB_POOLED && !request->stream->failed)
        ep_set_part_share(request->stream, header, ep_enter_reply(e, header, record, true));
    ep_stir(e, request->stream);
    return !request->stream->failed;
}

/* A reply goes to the request whose id it bears, if that still waits; a cancel, or a credit, is of one that came
 * here. False: nobody waits for it, or it could not be kept. */
static inline bool ep_take_reply(struct ep_endpoint *e, const struct sb_record *header, const uint8_t *record)
{
    uint32_t index = sb_index_of(header->correlation);
    if (header->kind == SB_CANCEL)
        ep_note_cancel(e, header);
    if (header->kind == SB_CREDIT)
        ep_note_credit(e, header);
    bool part = header->kind == SB_PART;
    if (!part && header->kind != SB_REPLY && header->kind != SB_ERROR && header->kind != SB_END)
        return false;
    bool waits = index < e->request_count && e->requests[index].state == EP_REQUEST_WAITING &&
                 memcmp(ep_pending_entry(e, index)->id, header->correlation, 16) == 0;
    if (waits && part)
        return ep_take_part(e, index, header, record);
    if (waits)
        return ep_complete(e, index, header, record);
    if (!part) /* of a stream that was broken off they may be many, and nobody missed them */
        rb_add(&e->up->orphans, 1);
    return false;
}

static inline void ep_drain_replies(struct ep_endpoint *e)
{
    struct rb_consumer *in = &e->in[SB_REPLIES];
    struct sb_record header;
    const uint8_t *record;
    uint64_t count = 0;
    bool passed = false; /* shares of blocks that nobody gets */
    enum rb_status status;
    while ((status = ep_peek_ring(e, SB_REPLIES, &header, &record)) == RB_OK) {
        passed |= !ep_take_reply(e, &header, record) && header.flags & SB_POOLED;
        in->next += RB_ALIGN8(header.length);
        count++;
    }
    if (count) {
        struct sb_incoming *mine = &e->up->incoming[SB_REPLIES];
        rb_store_release(&mine->taken, in->next);
        rb_add(&mine->taken_count, count);
        ep_release(e, SB_REPLIES, in->next);
    }
    if (__builtin_expect(passed, 0))
        ep_pass_share(e);
    if (status == RB_EMPTY)
        e->drains++;
}

/* Only if something has come. */
static inline void ep_drain_new_replies(struct ep_endpoint *e)
{
    if (rb_load_acquire(e->in[SB_REPLIES].head) != e->in[SB_REPLIES].next)
        ep_drain_replies(e);
}

static inline void ep_free_untold(struct ep_endpoint *e)
{
    uint32_t index = e->untold;
    e->untold = e->requests[index].next;
    e->free[e->free_count++] = (uint16_t)index;
}

/* Until then their entries are in use, so there are no more of them than entries. */
static inline void ep_tell_withdrawn(struct ep_endpoint *e)
{
    while (e->untold != EP_NO_REQUEST && ep_push_cancel(e, ep_pending_entry(e, e->untold)->id) != RB_FULL)
        ep_free_untold(e);
}

static inline bool ep_entry_to_be_had(const struct ep_endpoint *e)
{
    return e->free_count || e->untold != EP_NO_REQUEST;
}

/* A free entry of the table, filled in: its index, or EP_NO_REQUEST. An entry is used again only after the reply
 * ring was drained since its end, since space there is kept for the errors of each. */
static inline uint32_t ep_begin_request(struct ep_endpoint *e, uint64_t deadline_ns, bool future, uint8_t id[16])
{
    if (!ep_entry_to_be_had(e))
        return EP_NO_REQUEST;
    if (!e->free_count)
        ep_tell_withdrawn(e);
    if (!e->free_count) /* rather than do without a request, one server is not told */
        ep_free_untold(e);
    uint32_t index = e->free[e->free_count - 1];
    struct ep_request *request = &e->requests[index];
    if (request->ended_at == e->drains)
        ep_drain_replies(e);
    e->free_count--;
    request->state = EP_REQUEST_WAITING;
    request->sent = false;
    request->future = future;
    request->alert = false;
    request->stream = NULL;
    e->futures += future;
    struct sb_pending *pending = ep_pending_entry(e, index);
    sb_make_id(id, e->random, e->counter++, (uint16_t)index);
    request->serial = e->counter;
    memcpy(pending->id, id, 16);
    pending->deadline_ns = deadline_ns;
    RB_FAIL("request.begin");
    rb_store_release(&pending->state, SB_PENDING_WAITING); /* dp_judge_data acquires it, then compares the id */
    return index;
}

/* Unless it has ended meanwhile, and its entry is another's. */
static inline void ep_sent_request(struct ep_endpoint *e, uint32_t index, const uint8_t id[16])
{
    if (ep_request_waits(e, index) && memcmp(ep_pending_entry(e, index)->id, id, 16) == 0)
        e->requests[index].sent = true;
}

/* One that has been sent and has no reply is withdrawn: its server is told at once, or when there is space. */
static inline void ep_end_request(struct ep_endpoint *e, uint32_t index)
{
    struct ep_request *request = &e->requests[index];
    bool withdrawn = ep_request_waits(e, index) && request->sent;
    rb_store_release(&ep_pending_entry(e, index)->state, SB_PENDING_FREE); /* before the cancel, see dp_cancel */
    ep_leave_futures(e, index);
    request->state = EP_REQUEST_FREE;
    if (request->stream)
        ep_close_stream(e, request->stream);
    request->stream = NULL;
    ep_drop_reply_share(request);
    request->ended_at = e->drains;
    if (request->capacity > EP_REPLY_BYTES) {
        free(request->payload);
        request->payload = NULL;
        request->capacity = 0;
    }
    if (withdrawn && ep_push_cancel(e, ep_pending_entry(e, index)->id) == RB_FULL) {
        request->next = e->untold;
        e->untold = index;
    } else {
        e->free[e->free_count++] = (uint16_t)index;
    }
}

static inline bool ep_has_part(const struct ep_request *request)
{
    return request->stream && request->stream->begin != request->stream->end;
}

static inline bool ep_await_part(struct ep_endpoint *e, uint32_t index)
{
    if (!ep_request_waits(e, index) || ep_has_part(&e->requests[index]))
        return false;
    e->requests[index].stream->awaited = true;
    return true;
}

/* Harmless: a grant is absolute. */
static inline void ep_repeat_credit(struct ep_endpoint *e, uint32_t index)
{
    if (ep_request_waits(e, index))
        ep_push_credit(e, e->requests[index].stream, ep_pending_entry(e, index)->id);
}

/* EP_NO_REQUEST where there is none. */
static inline uint32_t ep_next_completed(struct ep_endpoint *e)
{
    uint32_t index = e->completed;
    if (index != EP_NO_REQUEST)
        e->completed = e->requests[index].next;
    return index;
}

/* The target's `whom`, 0 if nobody yet. The dispatcher clears it while it changes the id (dp_remember_target). */
static inline uint64_t ep_chosen(struct ep_endpoint *e, uint32_t index)
{
    if (index >= e->down->target_count)
        return 0;
    const uint8_t *targets = (const uint8_t *)e->down + e->down->target_offset;
    const struct sb_target *target = (const struct sb_target *)targets + index;
    return memcmp(target->id, ep_pending_entry(e, index)->id, 16) == 0 ? rb_load_acquire(&target->whom) : 0;
}
