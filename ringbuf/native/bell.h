/* The doorbell: one thread waits until something that others store becomes visible, several may ring.
 *
 *   wait:  look; spin; loop: sem_trywait until empty; epoch -> odd (seq_cst); look again;
 *          nothing? sem_clockwait; epoch -> even
 *   ring:  what is new is stored (seq_cst, or before one rb_fence_seq); e = epoch (seq_cst);
 *          if e is odd and e != posted: sem_post, then posted = e
 *
 * `epoch` is written by the waiter alone and is odd while it is parked; `posted` is private to each poster.
 * The semaphore is a hint and the words that `look` reads are the truth: a token too many costs one look. Both
 * sides store and then look, in one total order, so a wake-up cannot be lost; no poster ever clears a word
 * that others rely on, so one that is frozen or killed half-way cannot silence the others. A killed poster may
 * owe one post: whoever confirms its death first sets a flag that `look` reads, then rings. The time limit of
 * a park is a backstop only. tests/models/bell.py explores all interleavings of these steps.
 *
 * Spinning: while what is waited for has lately come soon, bursts of `pause` with a look at each and a
 * sched_yield between bursts, for some tens of microseconds. Where the yields let somebody else run, it may be whom
 * we wait for, and a single look replaces the burst. There is no spinning for a while when yields return late again
 * and again (a CPU hog is beside us), nor when waits have lately been long (it would only use up a container's CPU
 * quota): what comes every 100 us, say, is waited for parked. A thread that is pinned to one CPU spins like any
 * other: the yield lets whoever it waits for run there, and parking would cost several times as much.
 *
 * Of those who wait for each other in turn, each that parks makes the others' waits longer. So that they do not all
 * go on parking for that reason alone: one late yield is a blip, a wait that was parked counts as short up to what a
 * round takes while all of them park, and who has lately spun with success every time spins twice as long, so that
 * another's timer interrupt does not make it park.
 *
 *   rb_bell_open, rb_bell_wait   the waiter: wait until `look` says yes, until rung, or until a time
 *   rb_spins, rb_spin, rb_note_slept    the same in parts, for who sleeps elsewhere
 *   rb_ring_bell                 a poster: wake the waiter if it is parked
 *   rb_sleep                     on a semaphore until a time, and no more
 *   rb_now, rb_coarse_now        the monotonic clock
 */
#pragma once

#include "ringbuf/native/fail.h"
#include "ringbuf/native/order.h"

#include <errno.h>
#include <sched.h>
#include <semaphore.h>
#include <time.h>

#if defined(__GLIBC__) && defined(__GLIBC_PREREQ)
#if __GLIBC_PREREQ(2, 30)
#define RB_HAVE_SEM_CLOCKWAIT 1
#endif
#endif

#define RB_SPIN_NS 40000u         /* longest spin, unless told otherwise; twice as long with the most credit */
#define RB_ROUND 8u               /* times that: the longest round of waiters who are all parked, and woken in turn */
#define RB_BURST_NS 150u          /* of pauses between two yields */
#define RB_CREDIT_MOST 24         /* credit is at most this; +1 for a wait that spinning shortened, or would have */
#define RB_CREDIT_SPIN 12         /* spin while credit is at least this */
#define RB_CREDIT_FAR 10          /* taken off for a wait that spinning did not shorten, or would not have */
#define RB_ALONE_NS 500u          /* a yield that took less found nobody else to run */
#define RB_HOG_NS 100000u         /* a yield that took longer was late, unless told otherwise: a hog may be there, */
#define RB_HOG_AGAIN 32u          /* and is, where the last was, or its rest ended, less than times as long ago */
#define RB_HOG_REST_NS 1000000u   /* then park at once for so long at first, twice as long while it stays there, */
#define RB_HOG_MOST_NS 100000000u /* and so long at the most */

static inline uint64_t rb_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* Some 5 ns, and exact to some ms. */
static inline uint64_t rb_coarse_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

struct rb_bell {        /* private to the waiter */
    rb_word *epoch;     /* shared, written by the waiter */
    sem_t *semaphore;
    uint32_t spin_ns;   /* longest spin; 0: none */
    uint32_t late_ns;   /* a yield that took longer was late */
    int credit;         /* of spinning: how well it has lately done */
    uint32_t pauses;    /* a burst's worth, measured at start */
    bool shared;        /* the last yield let somebody else run here: perhaps whom we wait for */
    uint64_t hog_until; /* no spinning before: when the last late yield returned, or the rest after it ends */
    uint64_t hog_rest;  /* how long that rest is; 0: it was a blip */
    uint64_t parks;     /* statistics */
};

struct rb_poster {           /* private to one poster */
    const rb_word *epoch;    /* shared, written by the waiter */
    sem_t *semaphore;
    uint64_t posted;         /* the last epoch for which it posted */
};

typedef bool (*rb_look)(void *context);

enum rb_wake { RB_READY = 0, RB_ELAPSED = 1, RB_INTERRUPTED = 2 };

static inline uint32_t rb_measure_pauses(void)
{
    uint64_t best = ~0ull;
    for (int round = 0; round < 3; round++) {
        uint64_t start = rb_now();
        for (int i = 0; i < 64; i++)
            rb_pause();
        uint64_t took = rb_now() - start;
        if (took < best)
            best = took;
    }
    uint64_t pauses = RB_BURST_NS * 64 / (best ? best : 1);
    return pauses < 1 ? 1 : pauses > 64 ? 64 : (uint32_t)pauses;
}

static inline void rb_bell_open(struct rb_bell *b, rb_word *epoch, sem_t *semaphore, uint32_t spin_ns)
{
    *b = (struct rb_bell){.epoch = epoch, .semaphore = semaphore, .spin_ns = spin_ns, .late_ns = RB_HOG_NS,
                          .credit = RB_CREDIT_MOST, .pauses = spin_ns ? rb_measure_pauses() : 1};
    if (rb_load(epoch) & 1) /* a predecessor died parked: its odd epoch is over */
        rb_store_seq(epoch, rb_load(epoch) + 1);
}

/* A yield from `before` to `now` returned late: is a hog beside us? Then there is no spinning for a while. */
static inline bool rb_note_late(struct rb_bell *b, uint64_t before, uint64_t now)
{
    bool hog = before < b->hog_until + RB_HOG_AGAIN * (now - before);
    b->hog_rest = !hog ? 0 : b->hog_rest ? 2 * b->hog_rest : RB_HOG_REST_NS;
    if (b->hog_rest > RB_HOG_MOST_NS)
        b->hog_rest = RB_HOG_MOST_NS;
    b->hog_until = now + b->hog_rest;
    return hog;
}

static inline bool rb_note_spun(struct rb_bell *b)
{
    b->credit += b->credit < RB_CREDIT_MOST;
    return true;
}

/* True: it says yes. */
static inline bool rb_spin(struct rb_bell *b, rb_look look, void *context, uint64_t start)
{
    uint64_t now = start, longest = b->credit == RB_CREDIT_MOST ? 2 * (uint64_t)b->spin_ns : b->spin_ns;
    do {
        uint32_t looks = b->shared ? 1 : b->pauses;
        do {
            rb_pause();
            if (look(context))
                return rb_note_spun(b);
        } while (--looks);
        uint64_t before = rb_now();
        sched_yield();
        now = rb_now();
        b->shared = now - before > RB_ALONE_NS;
        if (look(context))
            return rb_note_spun(b);
        if (now - before > b->late_ns && rb_note_late(b, before, now))
            return false;
    } while (now - start < longest);
    return false;
}

/* Sleep until there is a token, `until` (CLOCK_MONOTONIC) at the latest. RB_READY may be said in vain. */
static inline enum rb_wake rb_sleep(sem_t *semaphore, uint64_t until)
{
#ifdef RB_HAVE_SEM_CLOCKWAIT
    struct timespec t = {(time_t)(until / 1000000000u), (long)(until % 1000000000u)};
    int failed = sem_clockwait(semaphore, CLOCK_MONOTONIC, &t);
#else /* the wall clock may jump: wait in short pieces */
    struct timespec t;
    uint64_t now = rb_now(), piece = until > now ? until - now : 0;
    if (piece > 50000000u)
        piece = 50000000u;
    clock_gettime(CLOCK_REALTIME, &t);
    t.tv_nsec += (long)piece;
    if (t.tv_nsec >= 1000000000) {
        t.tv_nsec -= 1000000000;
        t.tv_sec++;
    }
    int failed = sem_timedwait(semaphore, &t);
#endif
    if (failed && errno == EINTR)
        return RB_INTERRUPTED;
    return failed && rb_now() >= until ? RB_ELAPSED : RB_READY;
}

/* Park until rung, `until` at the latest. */
static inline enum rb_wake rb_park(struct rb_bell *b, rb_look look, void *context, uint64_t until)
{
    enum rb_wake wake = RB_READY;
    while (sem_trywait(b->semaphore) == 0) {
    }
    uint64_t epoch = rb_load(b->epoch);
    rb_store_seq(b->epoch, epoch + 1); /* then look; a poster stores what is new, then looks here (rb_ring_bell) */
    if (!look(context)) {
        b->parks++;
        wake = rb_sleep(b->semaphore, until);
    }
    rb_store_seq(b->epoch, epoch + 2);
    return wake;
}

/* Shall a wait that begins now spin first? */
static inline bool rb_spins(const struct rb_bell *b, uint64_t now)
{
    return b->spin_ns && b->credit >= RB_CREDIT_SPIN && now >= b->hog_until;
}

/* A wait since `start` has ended asleep; it had spun first, or not. */
static inline void rb_note_slept(struct rb_bell *b, bool spun, uint64_t start)
{
    if (!spun && rb_now() - start <= RB_ROUND * (uint64_t)b->spin_ns)
        b->credit += b->credit < RB_CREDIT_MOST;
    else
        b->credit = b->credit > RB_CREDIT_FAR ? b->credit - RB_CREDIT_FAR : 0;
}

/* Wait until `look` says yes, for at most one park until `until`. RB_READY may be said in vain; the caller
 * looks, and comes again. RB_INTERRUPTED: a signal handler wants to run. */
static inline enum rb_wake rb_bell_wait(struct rb_bell *b, rb_look look, void *context, uint64_t until)
{
    if (look(context))
        return RB_READY;
    uint64_t start = rb_now();
    if (start >= until)
        return RB_ELAPSED;
    bool spins = rb_spins(b, start);
    if (spins && rb_spin(b, look, context, start))
        return RB_READY;
    enum rb_wake wake = rb_park(b, look, context, until);
    rb_note_slept(b, spins, start);
    return wake;
}

/* Call after what is new was stored with seq_cst order or before one rb_fence_seq: rb_park stores the epoch, then
 * looks for what is new. */
static inline void rb_ring_bell(struct rb_poster *p)
{
    uint64_t epoch = rb_load_seq(p->epoch);
    if ((epoch & 1) && epoch != p->posted) {
        RB_FAIL("bell.post");
        sem_post(p->semaphore);
        p->posted = epoch;
    }
}
