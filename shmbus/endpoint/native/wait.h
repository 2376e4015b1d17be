/* Waiting: the first thread of an endpoint that waits for anything leads, the others follow it.
 *
 *   ep_wait               wait for one thing, or until trouble, a deadline or a signal
 *   ep_pass_on_data       after taking a message: another may be there for another thread
 *   ep_finish_request     a request is over: its entry may be waited for
 *
 * The leader alone sits at the endpoint's bell. Whenever anything has moved it drains the reply ring, which
 * completes other threads' requests as well as its own, and wakes those followers who are satisfied by then. It
 * hands leadership on whichever way it leaves. Followers wait on a semaphore of their own. Neither holds the
 * lock meanwhile, nor Python's, and neither runs user code: so no cycle of full rings can hold up a reply.
 */
#pragma once

#include "shmbus/endpoint/native/send.h"
#include "shmbus/endpoint/native/want.h"
#include "shmbus/endpoint/native/watcher.h"

#define EP_CHECK_NS 50000000u /* how often a waiting caller looks whether the dispatcher's process still runs */

/* Wake the followers who are satisfied; for data one at a time, since one record serves one. */
static inline void ep_wake_followers(struct ep_endpoint *e, uint64_t trouble, bool data)
{
    for (struct ep_waiter *w = e->first; w; w = w->next) {
        bool for_data = w->want == EP_WANT_DATA;
        if (w == e->leader)
            continue;
        if (!w->posted && (((data || !for_data) && ep_satisfied(e, w)) || (trouble & w->minds))) {
            w->posted = true;
            sem_post(&w->wake);
        }
        if (w->posted && for_data)
            data = false;
    }
}

static inline void ep_join(struct ep_endpoint *e, struct ep_waiter *w)
{
    struct ep_waiter **at = &e->first;
    while (*at)
        at = &(*at)->next;
    w->next = NULL;
    *at = w;
    e->inside++;
}

/* Leave, and see to it that somebody leads those who stay. */
static inline void ep_leave(struct ep_endpoint *e, struct ep_waiter *w, bool took_data)
{
    struct ep_waiter **at = &e->first;
    while (*at != w)
        at = &(*at)->next;
    *at = w->next;
    e->inside--;
    if (e->leader == w)
        e->leader = NULL;
    if (!e->first)
        return;
    ep_wake_followers(e, ep_trouble(e), !took_data);
    if (e->leader) {
        if (ep_satisfied(e, e->leader)) /* it waited for us to leave */
            ep_wake_leader(e);
        return;
    }
    for (struct ep_waiter *f = e->first; f; f = f->next)
        if (f->posted)
            return; /* it comes round, and leads if it must go on waiting */
    e->first->posted = true;
    sem_post(&e->first->wake);
}

static inline void ep_pass_on_data(struct ep_endpoint *e)
{
    if (e->first && ep_data_waits(e))
        ep_wake_followers(e, 0, true);
}

static inline void ep_finish_request(struct ep_endpoint *e, uint32_t index)
{
    ep_end_request(e, index);
    if (e->free_count == 1 && e->first)
        ep_wake_leader(e);
}

static inline enum rb_wake ep_follow(struct ep_endpoint *e, struct ep_waiter *w, uint64_t until)
{
    if (w->want & ~e->leader_wants)
        ep_wake_leader(e); /* it does not look at what we want */
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
    ep_unlock(e);
    enum rb_wake wake = rb_bell_wait(&e->bell, ep_view_changed, view, until);
    ep_lock(e);
    return wake;
}

/* A waiting caller looks whether the dispatcher's process still runs: true if it was just found dead. */
static inline bool ep_check_dispatcher(struct ep_endpoint *e)
{
    if (rb_load(&e->trouble) & EP_BUS_DEAD)
        return false;
    if (rb_load(&e->bus->identity_seq) & 1 || e->bus->serial != e->serial) {
        ep_wake_watcher();
        return false;
    }
    if (e->stat_fd < 0 || !sb_process_finished(e->dispatcher_pid, e->stat_fd))
        return false;
    ep_set_trouble(e, EP_BUS_DEAD, 0);
    ep_wake_watcher();
    return true;
}

/* Until when to sleep at the most. */
static inline uint64_t ep_slice(const struct ep_waiter *w, uint64_t until)
{
    uint64_t check = w->checks_dispatcher ? rb_now() + EP_CHECK_NS : until;
    return check < until ? check : until;
}

/* Wait until `w` is satisfied or something it minds is in the way (RB_READY, and `w->trouble`), or until `until`
 * (RB_ELAPSED), or a signal came, so that Python's handlers can run (RB_INTERRUPTED: come again). Called without
 * the lock. */
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
            ep_store_need(e, w->index);
        ep_take_view(&view, e);
        ep_drain_replies(e);
        uint64_t trouble = ep_trouble(e);
        if (ep_satisfied(e, w))
            break;
        w->trouble = trouble & w->minds;
        if (w->trouble) {
            wake = RB_READY;
            break;
        }
        if (wake == RB_INTERRUPTED)
            break;
        if (wake == RB_ELAPSED) {
            if (w->checks_dispatcher && ep_check_dispatcher(e))
                continue;
            if (rb_now() >= until)
                break;
        }
        if (!e->leader || e->leader == w) {
            ep_wake_followers(e, trouble, true);
            wake = ep_lead(e, w, &view, ep_slice(w, until));
        } else {
            wake = ep_follow(e, w, ep_slice(w, until));
        }
    }
    bool satisfied = ep_satisfied(e, w);
    if (satisfied)
        wake = RB_READY;
    ep_leave(e, w, satisfied && w->want == EP_WANT_DATA);
    if (w->want == EP_WANT_SPACE)
        ep_store_need(e, w->index);
    ep_unlock(e);
    sem_destroy(&w->wake);
    return wake;
}
