/* Between the planes: orders go down to the forwarding thread, notices come up from it.
 *
 * Whoever gives an order (control plane, liveness) wakes the forwarding thread, and a notice makes `notice_fd`
 * readable. The lock is held for a few instructions and by nobody who waits.
 *
 * Offers: dp_orders_open, dp_orders_close; dp_give_order, dp_wake, dp_take_list; dp_notify, dp_take_notices;
 *         dp_raise. */
#pragma once

#include "ringbuf/native/bell.h"
#include "shmbus/shared/native/hashtable.h"
#include "shmbus/shared/native/layout.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum dp_order_kind { DP_ADMIT, DP_EVENT, DP_EVICT, DP_DEAD, DP_STOPPED_TASK, DP_CONTINUED_TASK };

struct dp_shape { /* what UP says of itself, copied out once and checked */
    struct sb_ring_descriptor outgoing[SB_RINGS];
    uint64_t incoming[SB_RINGS_IN]; /* capacities wanted */
    uint64_t pending_offset, pending_count;
    uint64_t prefetch;
};

struct dp_order {
    enum dp_order_kind kind;
    uint32_t slot, generation;
    enum sb_reason reason;
    int event;              /* DP_EVENT: whose taker owns it */
    const struct sb_up *up; /* from here on DP_ADMIT alone */
    struct dp_shape shape;
    struct sb_down *down;
    sem_t *bell;
    bool adopted;
    struct dp_order *next;
};

enum dp_notice_kind { DP_RECLAIMED_PORT = 1, DP_QUARANTINED_PORT = 2, DP_UNREAD_INTERESTS = 3, DP_UNUSED_POOL = 4,
                      DP_UNUSED_PAGES = 5 };

struct dp_notice {
    enum dp_notice_kind kind;
    uint32_t slot, generation;
    uint32_t reason;
    uint64_t from, bytes; /* DP_UNUSED_PAGES: of the pool */
};

struct dp_orders {
    pthread_mutex_t lock;
    struct dp_order *first, **end;
    struct dp_notice *notices;
    uint32_t notice_count, notice_capacity;
    int notice_fd;         /* eventfd that the control plane waits on */
    rb_word waiting;       /* whoever gives an order, under the lock: not 0 while there are any */
    struct rb_poster bell; /* under the lock: the forwarding thread's own */
};

static inline bool dp_orders_open(struct dp_orders *o, rb_word *epoch, sem_t *semaphore)
{
    *o = (struct dp_orders){.bell = {.epoch = epoch, .semaphore = semaphore}};
    o->end = &o->first;
    o->notice_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    pthread_mutex_init(&o->lock, NULL);
    return o->notice_fd >= 0;
}

static inline void dp_orders_close(struct dp_orders *o)
{
    while (o->first) {
        struct dp_order *next = o->first->next;
        if (o->first->kind == DP_EVENT)
            close(o->first->event);
        free(o->first);
        o->first = next;
    }
    free(o->notices);
    if (o->notice_fd >= 0)
        close(o->notice_fd);
}

/* Make an eventfd readable. */
static inline void dp_raise(int event)
{
    uint64_t one = 1;
    while (write(event, &one, sizeof one) < 0 && errno == EINTR) {
    }
}

/* Under the lock: the forwarding thread looks at its orders. */
static inline void dp_wake(struct dp_orders *o)
{
    rb_store_seq(&o->waiting, rb_load(&o->waiting) + 1);
    rb_ring_bell(&o->bell);
}

/* False: no memory. */
static inline bool dp_give_order(struct dp_orders *o, const struct dp_order *order)
{
    struct dp_order *copy = malloc(sizeof *copy);
    if (!copy)
        return false;
    *copy = *order;
    copy->next = NULL;
    pthread_mutex_lock(&o->lock);
    *o->end = copy;
    o->end = &copy->next;
    dp_wake(o);
    pthread_mutex_unlock(&o->lock);
    return true;
}

/* What was ordered, as a list that is the caller's to free; with `admissions` no orders of other kinds. */
static inline struct dp_order *dp_take_list(struct dp_orders *o, bool admissions)
{
    struct dp_order *taken = NULL, **end = &taken, **from = &o->first;
    pthread_mutex_lock(&o->lock);
    while (*from)
        if (admissions && (*from)->kind != DP_ADMIT) {
            from = &(*from)->next;
        } else {
            *end = *from;
            *from = (*from)->next;
            end = &(*end)->next;
            *end = NULL;
        }
    o->end = from;
    rb_store(&o->waiting, o->first != NULL);
    pthread_mutex_unlock(&o->lock);
    return taken;
}

static inline void dp_notify(struct dp_orders *o, const struct dp_notice *notice)
{
    pthread_mutex_lock(&o->lock);
    struct dp_notice *fresh = sb_grown(o->notices, o->notice_count, &o->notice_capacity, sizeof *fresh);
    if (fresh) {
        o->notices = fresh;
        o->notices[o->notice_count++] = *notice;
    }
    pthread_mutex_unlock(&o->lock);
    dp_raise(o->notice_fd);
}

/* All notices since the last time, `count` of them, which the caller frees. */
static inline struct dp_notice *dp_take_notices(struct dp_orders *o, uint32_t *count)
{
    uint64_t signals;
    (void)!read(o->notice_fd, &signals, sizeof signals);
    pthread_mutex_lock(&o->lock);
    struct dp_notice *notices = o->notices;
    *count = o->notice_count;
    o->notices = NULL;
    o->notice_count = o->notice_capacity = 0;
    pthread_mutex_unlock(&o->lock);
    return notices;
}
