/* Waiting: the first thread of an endpoint that waits for anything leads, the others follow it.
 *
 *   ep_wait               wait for one thing, or until trouble, a deadline or a signal
 *   ep_pass_on_data       after taking a message: another may be there for another thread
 *   ep_finish_request     a request is over: its entry may be waited for
 *   ep_give_up_request    the same of one that another thread may wait for
 *   ep_alert              a future's reply is to be told at once
 *   ep_nudge              the thread that attends to the futures shall look
 *   ep_end_looks, ep_looked    until when may a leader look at memory that was in its view?
 *
 * The leader alone sits at the endpoint's bell. Whenever anything has moved it drains the reply ring, which
 * completes other threads' requests as well as its own, and wakes those followers who are satisfied by then. It
 * hands leadership on whichever way it leaves. Followers wait on a semaphore of their own. Neither holds the
 * lock meanwhile, nor Python's, and neither runs user code: so no cycle of full rings can hold up a reply.
 *
 * The thread that attends to the futures (EP_WANT_FUTURE) is there for those for which nobody waits. Where one is
 * to be told at once, it waits like any other. Otherwise it only sees to it that the reply ring does not fill, and
 * leaves the bell to others: it naps, longer and longer while nothing happens, and sits at the bell only when
 * nothing has happened during a nap, nobody else waits, and replies are to come.
 */
#pragma once

#include "shmbus/endpoint/native/send.h"
#include "shmbus/endpoint/native/want.h"
#include "shmbus/endpoint/native/watcher.h"

#define EP_NAP_NS 1000000u      /* the shortest nap of the thread that attends to the futures */
#define EP_NAP_MOST_NS 50000000u /* and the longest while replies are to come */
#define EP_ATTEND_NS 20000000u  /* so long after a future that was to be told at once, another is expected */
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

/* Whether this is the thread that attends to the futures, with none that is to be told at once. */
static inline bool ep_stands_by(const struct ep_endpoint *e, const struct ep_waiter *w)
{
    return w->want == EP_WANT_FUTURE && !e->alerting && rb_coarse_now() >= e->attend_until;
}

/* Have somebody lead, but for `but`: who is posted comes round, and leads if it must go on waiting. */
static inline void ep_hand_on(struct ep_endpoint *e, const struct ep_waiter *but)
{
    for (struct ep_waiter *w = e->first; w; w = w->next)
        if (w != but && w->posted)
            return;
    for (struct ep_waiter *w = e->first; w; w = w->next)
        if (w != but && !ep_stands_by(e, w)) {
            w->posted = true;
            sem_post(&w->wake);
            return;
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
    ep_hand_on(e, NULL);
}

static inline void ep_pass_on_data(struct ep_endpoint *e)
{
    if (e->first && ep_data_waits(e))
        ep_wake_followers(e, 0, true);
}

/* Where its server could not be told of its end, the watcher tries on. */
static inline void ep_end_or_withdraw(struct ep_endpoint *e, uint32_t index)
{
    bool none = e->untold == EP_NO_REQUEST;
    ep_end_request(e, index);
    if (none && e->untold != EP_NO_REQUEST)
        ep_wake_watcher();
}

static inline void ep_finish_request(struct ep_endpoint *e, uint32_t index)
{
    bool full = !ep_entry_to_be_had(e);
    ep_end_or_withdraw(e, index);
    if (full)
        ep_wake(e, SB_EVENT_STATE);
}

static inline void ep_give_up_request(struct ep_endpoint *e, uint32_t index)
{
    ep_end_or_withdraw(e, index);
    if (e->first)
        ep_wake_followers(e, 0, false);
    ep_wake(e, SB_EVENT_STATE);
}

static inline void ep_nudge(struct ep_endpoint *e)
{
    e->nudge = true;
    if (e->first) {
        ep_wake_followers(e, 0, false);
        ep_wake_leader(e);
    }
}

/* Memory that no view has from now on: what ep_looked says is over once nobody looks there. */
static inline uint64_t ep_end_looks(struct ep_endpoint *e)
{
    if (e->leader)
        ep_wake_leader(e);
    return e->looks + 1;
}

static inline bool ep_looked(const struct ep_endpoint *e, uint64_t looks) { return !e->leader || e->looks >= looks; }

/* False where the reply has come already. */
static inline bool ep_alert(struct ep_endpoint *e, uint32_t index)
{
    struct ep_request *request = &e->requests[index];
    if (!ep_request_waits(e, index))
        return false;
    uint64_t now = rb_coarse_now();
    bool stood_by = !e->alerting && now >= e->attend_until;
    e->alerting += !request->alert;
    request->alert = true;
    e->attend_until = now + EP_ATTEND_NS;
    if (stood_by)
        ep_nudge(e);
    return true;
}

static inline enum rb_wake ep_follow(struct ep_endpoint *e, struct ep_waiter *w, uint64_t until)
{
    if (w->want & ~e->leader_wants || ep_stands_by(e, e->leader))
        ep_wake_leader(e); /* it does not look at what we want, or leaves the bell to us */
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
    e->looks++;
    return wake;
}

/* The thread that attends to the futures has nothing to tell: see above. */
static inline enum rb_wake ep_stand_by(struct ep_endpoint *e, struct ep_waiter *w, struct ep_view *view,
                                       uint64_t until)
{
    uint64_t happened = e->counter + e->in[SB_REPLIES].next, now = rb_now(); /* both only grow */
    bool quiet = happened == e->nap_seen;
    e->nap_seen = happened;
    e->nap_ns = quiet ? 2 * e->nap_ns : EP_NAP_NS;
    if (e->nap_ns > EP_NAP_MOST_NS)
        e->nap_ns = EP_NAP_MOST_NS;
    bool to_come = e->futures || e->streams;
    if (quiet && to_come && e->inside == 1) {
        e->leader = w;
        e->leader_wants = view->wants;
        ep_unlock(e);
        enum rb_wake wake = rb_park(&e->bell, ep_view_changed, view, until); /* no spinning */
        ep_lock(e);
        e->looks++;
        return wake;
    }
    if (e->leader == w) {
        e->leader = NULL;
        ep_hand_on(e, w);
    }
    e->resting = quiet && !to_come;
    uint64_t end = e->resting || now + e->nap_ns > until ? until : now + e->nap_ns;
    ep_unlock(e);
    enum rb_wake wake = rb_sleep(&w->wake, end);
    ep_lock(e);
    e->resting = false;
    while (sem_trywait(&w->wake) == 0) { /* posted as we gave up */
    }
    w->posted = false;
    return wake == RB_ELAPSED && end < until ? RB_READY : wake;
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
        ep_store_need(e, w);
        ep_take_view(&view, e);
        ep_tell_withdrawn(e);
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
        if (ep_stands_by(e, w)) {
            wake = ep_stand_by(e, w, &view, until);
        } else if (!e->leader || e->leader == w) {
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
    ep_store_need(e, w);
    ep_unlock(e);
    sem_destroy(&w->wake);
    return wake;
}
