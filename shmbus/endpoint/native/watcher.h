/* The watcher: one native helper thread per process that attaches. All signals are blocked in it, and it never
 * touches Python. For every endpoint of the process, under that endpoint's lock, this thread
 *
 *   - publishes a batch whose time has come while its maker computes,
 *   - tells servers of withdrawn requests once there is space for that,
 *   - gives back the memory of pools that are not used (block.h),
 *   - looks whether the dispatcher still runs (liveness.h), as callers who wait also do (wait.h),
 *   - unmaps pools of those that have gone, and makes private what is looked at there when this one has (share.h),
 *   - finds the successor of one that has ended, and knocks at its door (door.h),
 *   - shows its event, if it has one, to the dispatcher that serves (show.h).
 *
 * Its own end is the sign of this process's death (will.h), and that it is not there any more the sign of an exec;
 * so its tid stands in UP. Other threads call
 *
 *   ep_watcher_add, ep_watcher_remove    have an endpoint watched, from its attach to its end
 *   ep_arm_watcher                       a batch has been begun
 *   ep_tend_in_time                      a pool was asked for more than it gives
 *   ep_wake_watcher                      look at all now
 */
#pragma once

#include "shmbus/endpoint/native/fork.h"
#include "shmbus/endpoint/native/liveness.h"
#include "shmbus/endpoint/native/request.h"
#include "shmbus/endpoint/native/show.h"
#include "shmbus/shared/native/will.h"

#include <signal.h>

#define EP_SUCCESSOR_NS 10000000u /* how often to look for a successor */
#define EP_UNTOLD_NS 10000000u    /* how often to look for space to tell a server of a withdrawn request */
#define EP_WATCHED_MAX 1024

struct ep_watcher {
    pthread_mutex_t lock;   /* taken before an endpoint's */
    bool running;
    int event;              /* wakes the thread */
    uint64_t generation;    /* ep_fork_generation of the process that started it */
    rb_word wake_at;        /* when it will look next; ~0: when woken. The watcher's */
    rb_word tid;            /* of the thread, once it runs. The watcher's */
    struct ep_endpoint *first;
};

static struct ep_watcher ep_watcher = {.lock = PTHREAD_MUTEX_INITIALIZER, .event = -1};

static inline void ep_wake_watcher(void)
{
    uint64_t one = 1;
    if (ep_watcher.event >= 0 && write(ep_watcher.event, &one, sizeof one) < 0)
        return; /* the counter is full: it will wake */
}

/* Called without the lock. ep_push stores flush_at, then wake_at is looked at here; ep_watcher_round stores wake_at,
 * then looks at flush_at: one of them sees the other. */
static inline void ep_arm_watcher(const struct ep_endpoint *e)
{
    if (rb_load_seq(&ep_watcher.wake_at) > rb_load(&e->flush_at))
        ep_wake_watcher();
}

/* Called without the lock. Once it looks it knows when to look again. */
static inline void ep_tend_in_time(void)
{
    if (rb_load_seq(&ep_watcher.wake_at) > rb_now() + EP_IDLE_NS)
        ep_wake_watcher();
}

/* What the thread does; the looks return when to look again ------------------------------------------------- */

static inline uint64_t ep_flush_due(struct ep_endpoint *e, uint64_t now)
{
    uint64_t due = rb_load_seq(&e->flush_at);
    if (due > now)
        return due;
    ep_flush(e);
    return SB_NOWHERE;
}

static inline uint64_t ep_tell_due(struct ep_endpoint *e, uint64_t now)
{
    ep_tell_withdrawn(e);
    return e->untold == EP_NO_REQUEST ? SB_NOWHERE : now + EP_UNTOLD_NS;
}

/* The dispatcher is gone. */
static inline uint64_t ep_look_for_successor(struct ep_endpoint *e, uint64_t now)
{
    uint64_t state = rb_load_acquire(&e->bus->state);
    if (e->bus->serial != e->serial && state == SB_BUS_SERVING && ep_watch_dispatcher(e)) {
        ep_set_trouble(e, 0, EP_BUS_DEAD);
        ep_knock_again(e);
        return SB_NOWHERE;
    }
    if (ep_bus_replaced(e)) {
        ep_set_trouble(e, EP_BUS_OVER, 0);
        return SB_NOWHERE;
    }
    return now + EP_SUCCESSOR_NS;
}

/* The dispatcher served when it was last looked at. */
static inline uint64_t ep_look_at_dispatcher(struct ep_endpoint *e, struct ep_round *round)
{
    uint64_t again = SB_NOWHERE;
    bool dead = false;
    if (e->bus->serial != e->serial) {
        if (!ep_watch_dispatcher(e)) /* it is being exchanged, or is gone again */
            return round->now + EP_SUCCESSOR_NS;
        ep_knock_again(e);
    } else if (e->stat_fd >= 0 || e->pidfd >= 0) {
        dead = ep_dispatcher_finished(e, round);
        again = round->again;
    } else if (e->dispatcher_pid != (uint32_t)getpid()) {
        dead = !ep_watch_dispatcher(e); /* for which there was no descriptor */
        again = round->now + EP_ROUND_NS;
    }
    if (!dead)
        return again;
    ep_set_trouble(e, EP_BUS_DEAD, 0);
    return round->now + EP_SUCCESSOR_NS;
}

static inline uint64_t ep_watcher_look(struct ep_endpoint *e, struct ep_round *round)
{
    if (__builtin_expect(ep_trouble(e) & EP_FOR_GOOD, 0))
        ep_part_shares(e);
    ep_lock(e);
    uint64_t due = ep_flush_due(e, round->now), tell = ep_tell_due(e, round->now), again = SB_NOWHERE;
    uint64_t tend = ep_tend_pool(e, round->now);
    uint64_t trouble = ep_trouble(e);
    uint64_t maps = ep_drop_maps(e, round->now);
    if (trouble & EP_FOR_GOOD) {
        ep_set_trouble(e, trouble & EP_FOR_GOOD, 0);
        ep_end_shares(e);
        if (e->pidfd >= 0)
            ep_unwatch_dispatcher(e);
    } else {
        bool absent = trouble & EP_FOR_NOW;
        if (absent && !e->absent) /* it left the bus to a successor, and may not have rung */
            ep_wake(e, SB_EVENT_STATE | SB_EVENT_END);
        e->absent = absent;
        again = absent ? ep_look_for_successor(e, round->now) : ep_look_at_dispatcher(e, round);
        uint64_t shown = ep_trouble(e) & EP_FOR_NOW ? SB_NOWHERE : ep_show_event(e, round->now);
        again = shown < again ? shown : again;
    }
    ep_unlock(e);
    due = tell < due ? tell : due;
    due = maps < due ? maps : due;
    due = tend < due ? tend : due;
    return again < due ? again : due;
}

/* Look at all endpoints. Returns when to look again; `polled` gets their pidfds from `*count` on. */
static inline uint64_t ep_watcher_round(struct pollfd *polled, nfds_t *count)
{
    struct ep_round round = {.now = rb_now()};
    uint64_t next = SB_NOWHERE;
    pthread_mutex_lock(&ep_watcher.lock);
    for (struct ep_endpoint *e = ep_watcher.first; e; e = e->watch_next) {
        uint64_t again = ep_watcher_look(e, &round);
        next = again < next ? again : next;
        bool live = !(rb_load(&e->trouble) & (EP_FOR_GOOD | EP_FOR_NOW));
        if (live && e->pidfd >= 0 && *count < EP_WATCHED_MAX)
            polled[(*count)++] = (struct pollfd){.fd = e->pidfd, .events = POLLIN};
        if (live && e->event_door >= 0 && *count < EP_WATCHED_MAX)
            polled[(*count)++] = (struct pollfd){.fd = e->event_door, .events = POLLIN};
    }
    rb_store_seq(&ep_watcher.wake_at, next); /* then look at what may have been armed before it could be seen */
    for (struct ep_endpoint *e = ep_watcher.first; e; e = e->watch_next) {
        uint64_t due = rb_load_seq(&e->flush_at); /* pairs with ep_push, then ep_arm_watcher */
        next = due < next ? due : next;
    }
    pthread_mutex_unlock(&ep_watcher.lock);
    return next;
}

static inline void *ep_watcher_run(void *unused)
{
    static struct pollfd polled[EP_WATCHED_MAX];
    (void)unused;
    rb_store_release(&ep_watcher.tid, (uint64_t)syscall(SYS_gettid));
    (void)syscall(SYS_futex, &ep_watcher.tid, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
    sb_make_will();
    for (;;) {
        nfds_t count = 1;
        polled[0] = (struct pollfd){.fd = ep_watcher.event, .events = POLLIN};
        uint64_t next = ep_watcher_round(polled, &count), now = rb_now(), wait = next > now ? next - now : 0;
        struct timespec t = {(time_t)(wait / 1000000000u), (long)(wait % 1000000000u)};
        ppoll(polled, count, next == SB_NOWHERE ? NULL : &t, NULL);
        uint64_t many;
        if ((polled[0].revents & POLLIN) && read(ep_watcher.event, &many, sizeof many) < 0)
            continue; /* cannot be: this thread alone reads it */
    }
    return NULL;
}

/* The tid of the thread that was just started; 0 where the system lets it wait for longer than a second. */
static inline uint64_t ep_watcher_tid(void)
{
    struct timespec most = {1, 0};
    while (!rb_load_acquire(&ep_watcher.tid)) /* its low half is the futex */
        if (syscall(SYS_futex, &ep_watcher.tid, FUTEX_WAIT_PRIVATE, 0, &most, NULL, 0) != 0 && errno == ETIMEDOUT)
            break;
    return rb_load_acquire(&ep_watcher.tid);
}

/* 0 or an errno. Under the watcher's lock. */
static inline int ep_start_watcher(void)
{
    sigset_t all, before;
    pthread_t thread;
    pthread_attr_t attributes;
    ep_watcher.event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (ep_watcher.event < 0)
        return errno;
    sigfillset(&all);
    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attributes, 256 * 1024);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int failed = pthread_create(&thread, &attributes, ep_watcher_run, NULL);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    ep_watcher.running = !failed;
    if (failed) {
        close(ep_watcher.event);
        ep_watcher.event = -1;
    }
    return failed;
}

/* By the thread that attaches, which starts the watcher if need be: 0 or an errno. */
static inline int ep_watcher_add(struct ep_endpoint *e)
{
    if (ep_watcher.generation != ep_fork_generation) /* the thread and its lock stayed in the parent */
        ep_watcher = (struct ep_watcher){
            .lock = PTHREAD_MUTEX_INITIALIZER, .event = -1, .generation = ep_fork_generation};
    pthread_mutex_lock(&ep_watcher.lock);
    int failed = ep_watcher.running ? 0 : ep_start_watcher();
    if (!failed) {
        ep_lock(e);
        if (!ep_watch_dispatcher(e))
            ep_set_trouble(e, EP_BUS_DEAD, 0);
        ep_unlock(e);
        rb_store_release(&e->up->watcher, ep_watcher_tid());
        e->watch_next = ep_watcher.first;
        ep_watcher.first = e;
        sb_leave_will(&e->bus->wills);
        e->watched = true;
        ep_wake_watcher();
    }
    pthread_mutex_unlock(&ep_watcher.lock);
    return failed;
}

/* By the thread that closes; not in a forked child, where nothing is watched. */
static inline void ep_watcher_remove(struct ep_endpoint *e)
{
    if (!e->watched)
        return;
    pthread_mutex_lock(&ep_watcher.lock);
    struct ep_endpoint **at = &ep_watcher.first;
    while (*at && *at != e)
        at = &(*at)->watch_next;
    if (*at)
        *at = e->watch_next;
    sb_leave_will(ep_watcher.first ? &ep_watcher.first->bus->wills : NULL);
    ep_lock(e);
    ep_unwatch_dispatcher(e);
    ep_leave_door(e);
    ep_drop_event(e);
    ep_unlock(e);
    e->watched = false;
    pthread_mutex_unlock(&ep_watcher.lock);
}
