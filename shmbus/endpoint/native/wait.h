/* Waiting: the first thread of an endpoint that waits for anything leads, the others follow it.
 *
 * The leader alone sits at the endpoint's bell. Whenever anything has moved it drains the reply ring, which
 * completes other threads' requests as well as its own, and wakes those followers whose wish has come true. It
 * hands leadership on whichever way it leaves. Followers wait on a semaphore of their own. Neither holds the
 * lock meanwhile, nor Python's, and neither runs user code: so no cycle of full rings can hold up a reply.
 *
 * A wait ends at a signal (RB_INTERRUPTED), so that Python's handlers can run; the caller comes again.
 */
#ifndef EP_WAIT_H
#define EP_WAIT_H

#include "shmbus/endpoint/native/endpoint.h"
#include "shmbus/endpoint/native/watcher.h"

#define EP_VIGIL_NS 50000000u /* how often a waiting caller looks whether the dispatcher's process still runs */

enum ep_want {             /* bits: what a thread waits for */
    EP_WANT_REPLY = 1,     /* to request `index` */
    EP_WANT_DATA = 2,      /* in the incoming data ring */
    EP_WANT_SPACE = 4,     /* for a record of `value` bytes in outgoing ring `index` */
    EP_WANT_SEEN = 8,      /* interests, up to version `value` */
    EP_WANT_STATE = 16,    /* of DOWN, at least `value` */
    EP_WANT_FUTURE = 32,   /* a completed one */
    EP_WANT_ENTRY = 64,    /* in the pending table */
    EP_WANT_ALONE = 128,   /* no other thread waits any more */
    EP_WANT_BUS = 256,     /* a dispatcher that is alive */
};

struct ep_waiter {
    uint32_t want;
    uint32_t index;
    uint64_t value;
    uint64_t minds;        /* which troubles end the wait */
    bool vigilant;         /* looks after the dispatcher: what it waits for can only come from there */
    uint64_t trouble;      /* out: what ended the wait, 0 if its wish came true */
    bool posted;           /* as a follower: its semaphore has been posted */
    sem_t wake;
    struct ep_waiter *next, *previous;
};

static inline bool ep_data_waits(const struct ep_endpoint *e)
{
    return rb_load_acquire(e->in[SB_DATA].head) != e->in[SB_DATA].next;
}

static inline bool ep_granted(struct ep_endpoint *e, const struct ep_waiter *w)
{
    switch (w->want) {
    case EP_WANT_REPLY: return e->requests[w->index].state == EP_REQUEST_DONE;
    case EP_WANT_DATA: /* and somebody may take it */
        return ep_data_waits(e) && !(ep_trouble(e) & (EP_RING_BAD | EP_TAKEN_OFF));
    case EP_WANT_SPACE: {
        const struct rb_producer *out = &e->out[w->index];
        return rb_end_after(out, w->value) - rb_load_acquire(out->tail) <= out->capacity;
    }
    case EP_WANT_SEEN: /* of one that leaves, the dispatcher reads no more */
        return rb_load_acquire(&e->down->interests_seen) >= w->value || rb_load(&e->up->state) >= SB_UP_CLOSING;
    case EP_WANT_STATE: return rb_load_acquire(&e->down->state) >= w->value;
    case EP_WANT_FUTURE: return e->nudge || e->completed != EP_NO_REQUEST;
    case EP_WANT_ENTRY: return e->free_count > 0;
    case EP_WANT_ALONE: return e->inside == 1;
    case EP_WANT_BUS: return !(ep_trouble(e) & EP_FOR_NOW);
    default: return true;
    }
}

/* Ask the dispatcher to ring when the tail has come far enough for the least of those who wait for space. */
static inline void ep_state_need(struct ep_endpoint *e, uint32_t ring)
{
    uint64_t need = SB_NO_NEED;
    for (struct ep_waiter *w = e->first; w; w = w->next)
        if (w->want == EP_WANT_SPACE && w->index == ring) {
            uint64_t tail = rb_end_after(&e->out[ring], w->value) - e->out[ring].capacity;
            need = tail < need ? tail : need;
        }
    if (rb_load(&e->up->outgoing[ring].need) != need)
        rb_store_seq(&e->up->outgoing[ring].need, need);
}

/* What the leader's bell watches, as it was when all wishes were last looked at. */
struct ep_view {
    const struct ep_endpoint *e;
    uint32_t wants;
    uint64_t kick, replies, data, tail[SB_RINGS], seen, state, bus_state;
};

static inline void ep_take_view(struct ep_view *v, const struct ep_endpoint *e)
{
    v->e = e;
    v->kick = rb_load_seq(&e->kick);
    v->replies = rb_load_seq(e->in[SB_REPLIES].head);
    v->data = rb_load_seq(e->in[SB_DATA].head);
    v->tail[SB_DATA] = rb_load_seq(e->out[SB_DATA].tail);
    v->tail[SB_REPLIES] = rb_load_seq(e->out[SB_REPLIES].tail);
    v->seen = rb_load_seq(&e->down->interests_seen);
    v->state = rb_load_seq(&e->down->state);
    v->bus_state = rb_load_seq(&e->bus->state);
    v->wants = 0;
    for (const struct ep_waiter *w = e->first; w; w = w->next)
        v->wants |= w->want;
}

static inline bool ep_view_changed(void *context)
{
    const struct ep_view *v = context;
    const struct ep_endpoint *e = v->e;
    if (rb_load_seq(e->in[SB_REPLIES].head) != v->replies || rb_load_seq(&e->kick) != v->kick)
        return true;
    if ((v->wants & EP_WANT_DATA) && rb_load_seq(e->in[SB_DATA].head) != v->data)
        return true;
    if ((v->wants & EP_WANT_SPACE) && (rb_load_seq(e->out[SB_DATA].tail) != v->tail[SB_DATA] ||
                                       rb_load_seq(e->out[SB_REPLIES].tail) != v->tail[SB_REPLIES]))
        return true;
    return rb_load_seq(&e->down->state) != v->state || rb_load_seq(&e->bus->state) != v->bus_state ||
           rb_load_seq(&e->down->interests_seen) != v->seen;
}

/* Wake the followers whose wish has come true; for data one at a time, since one record serves one. */
static inline void ep_wake_followers(struct ep_endpoint *e, uint64_t trouble, bool data)
{
    for (struct ep_waiter *w = e->first; w; w = w->next) {
        if (w == e->leader)
            continue;
        if (w->want == EP_WANT_DATA && w->posted)
            data = false;
        if (w->posted)
            continue;
        bool granted = w->want == EP_WANT_DATA ? data && ep_granted(e, w) : ep_granted(e, w);
        if (granted || (trouble & w->minds)) {
            w->posted = true;
            sem_post(&w->wake);
            if (w->want == EP_WANT_DATA)
                data = false;
        }
    }
}

static inline void ep_join(struct ep_endpoint *e, struct ep_waiter *w)
{
    w->next = NULL;
    w->previous = e->last;
    if (e->last)
        e->last->next = w;
    else
        e->first = w;
    e->last = w;
    e->inside++;
}

/* Leave, and see to it that somebody leads those who stay. */
static inline void ep_leave(struct ep_endpoint *e, struct ep_waiter *w, bool took_data)
{
    if (w->previous)
        w->previous->next = w->next;
    else
        e->first = w->next;
    if (w->next)
        w->next->previous = w->previous;
    else
        e->last = w->previous;
    e->inside--;
    if (e->leader == w)
        e->leader = NULL;
    if (!e->first)
        return;
    ep_wake_followers(e, ep_trouble(e), !took_data);
    if (e->leader) {
        if (ep_granted(e, e->leader)) /* it waited for us to leave */
            ep_kick(e);
        return;
    }
    for (struct ep_waiter *f = e->first; f; f = f->next)
        if (f->posted)
            return; /* it comes round, and leads if it must go on waiting */
    e->first->posted = true;
    sem_post(&e->first->wake);
}

/* After taking a record: is there one for another thread that waits for data? */
static inline void ep_pass_on_data(struct ep_endpoint *e)
{
    if (e->first && ep_data_waits(e))
        ep_wake_followers(e, 0, true);
}

/* A request is over: its entry is free for a thread that waits for one. */
static inline void ep_finish_request(struct ep_endpoint *e, uint32_t index)
{
    ep_end_request(e, index);
    if (e->free_count == 1 && e->first)
        ep_kick(e);
}

static inline enum rb_wake ep_follow(struct ep_endpoint *e, struct ep_waiter *w, uint64_t until)
{
    if (w->want & ~e->leader_wants)
        ep_kick(e); /* the leader does not look at what we want */
    ep_unlock(e);
    enum rb_wake wake = rb_sleep(&w->wake, until);
    ep_lock(e);
    while (sem_trywait(&w->wake) == 0) { /* posted as we gave up */
    }
    w->posted = false;
    return wake;
}

static inline enum rb_wake ep_lead(struct ep_endpoint *e, struct ep_waiter *w, struct ep_view *view, uint64_t until)
{
    e->leader = w;
    e->leader_wants = view->wants;
    /* Lockstep: nobody else waits here, and one record came since the last wait. */
    uint64_t records = rb_load(&e->up->incoming[w->want == EP_WANT_DATA ? SB_DATA : SB_REPLIES].taken_count);
    bool lockstep = e->placement.enabled && e->first == e->last && (w->want & (EP_WANT_REPLY | EP_WANT_DATA)) &&
                    records - e->records_at_wait <= 1;
    e->records_at_wait = records;
    uint64_t start = lockstep ? rb_now() : 0;
    ep_unlock(e);
    enum rb_wake wake = rb_bell_wait(&e->bell, ep_view_changed, view, until);
    if (start && wake == RB_READY) {
        uint64_t now = rb_now();
        ep_placement_step(&e->placement, &e->bell, rb_load(&e->bus->cpu), now - start, now);
    }
    ep_lock(e);
    return wake;
}

/* Wait until the wish of `w` has come true or something it minds is in the way (RB_READY, and `w->trouble`), or
 * until `until` (RB_ELAPSED), or a signal came (RB_INTERRUPTED). Called without the lock. */
static inline enum rb_wake ep_wait(struct ep_endpoint *e, struct ep_waiter *w, uint64_t until)
{
    enum rb_wake wake = RB_READY;
    struct ep_view view;
    w->trouble = 0;
    w->posted = false;
    sem_init(&w->wake, 0, 0);
    ep_lock(e);
    ep_flush(e); /* what a batch holds back must not wait with us */
    if (w->want == EP_WANT_DATA)
        ep_release_data(e);
    ep_join(e, w);
    for (;;) {
        if (w->want == EP_WANT_SPACE)
            ep_state_need(e, w->index);
        ep_take_view(&view, e);
        ep_drain_replies(e);
        uint64_t trouble = ep_trouble(e);
        if (ep_granted(e, w))
            break;
        if (trouble & w->minds) {
            w->trouble = trouble & w->minds;
            wake = RB_READY;
            break;
        }
        if (wake == RB_INTERRUPTED)
            break;
        if (wake == RB_ELAPSED) {
            if (w->vigilant && ep_vigil(e))
                continue; /* it has just been seen to be dead */
            if (rb_now() >= until)
                break;
        }
        uint64_t slice = until;
        if (w->vigilant) {
            uint64_t soon = rb_now() + EP_VIGIL_NS;
            slice = soon < until ? soon : until;
        }
        if (!e->leader || e->leader == w) {
            ep_wake_followers(e, trouble, true);
            wake = ep_lead(e, w, &view, slice);
        } else {
            wake = ep_follow(e, w, slice);
        }
    }
    bool granted = ep_granted(e, w);
    if (granted)
        wake = RB_READY;
    ep_leave(e, w, granted && w->want == EP_WANT_DATA);
    if (w->want == EP_WANT_SPACE)
        ep_state_need(e, w->index);
    ep_unlock(e);
    sem_destroy(&w->wake);
    return wake;
}

#endif
