/* Who has a role, or the book: the holder of a robust mutex. A holder that dies leaves `hurt`, and its row in `holder`,
 * until somebody has put right what it was in the midst of.
 *
 * Nobody sleeps, and no Python code runs, while it holds one. So the lock is soon free again, unless its holder is
 * stopped: whoever wants it waits for no longer than until a time of its own.
 *
 * Offers: sq_make_lock, sq_lock, sq_unlock. */
#pragma once

#include "ringbuf/native/fail.h"
#include "shmbus/queues/native/core.h"

#include <errno.h>
#include <time.h>

#define SQ_LOCK_TRIES 100 /* before a lock is waited for; each is a pause and a look */

_Static_assert(sizeof(pthread_mutex_t) <= 8 * SQ_LOCK_WORDS, "a lock has room");

static inline int sq_make_lock(uint64_t *lock)
{
    pthread_mutexattr_t a;
    pthread_mutexattr_init(&a);
    pthread_mutexattr_setpshared(&a, PTHREAD_PROCESS_SHARED);
    pthread_mutexattr_setrobust(&a, PTHREAD_MUTEX_ROBUST);
    int error = pthread_mutex_init((pthread_mutex_t *)(void *)lock, &a);
    pthread_mutexattr_destroy(&a);
    return error;
}

static inline int sq_wait_for_lock(pthread_mutex_t *m, uint64_t until)
{
#if defined(RB_HAVE_SEM_CLOCKWAIT) && !defined(RB_TSAN) /* the same C libraries have it, the sanitizer has not */
    struct timespec t = {(time_t)(until / 1000000000u), (long)(until % 1000000000u)};
    return pthread_mutex_clocklock(m, CLOCK_MONOTONIC, &t);
#else
    int error;
    while ((error = pthread_mutex_trylock(m)) == EBUSY && rb_now() < until)
        sched_yield();
    return error;
#endif
}

/* `until` 0: do not wait. SQ_OK: *died says whether the last holder did. */
static inline enum sq_status sq_lock(uint64_t *lock, uint64_t until, bool *died)
{
    pthread_mutex_t *m = (pthread_mutex_t *)(void *)lock;
    int error = pthread_mutex_trylock(m);
    for (int i = 0; error == EBUSY && i < SQ_LOCK_TRIES; i++) {
        rb_pause();
        if (i % 8 == 7)
            error = pthread_mutex_trylock(m);
    }
    if (error == EBUSY && until)
        error = sq_wait_for_lock(m, until);
    *died = error == EOWNERDEAD;
    if (error == EBUSY || error == ETIMEDOUT)
        return SQ_BUSY;
    return error == 0 || error == EOWNERDEAD ? SQ_OK : SQ_CORRUPT;
}

static inline void sq_consistent(uint64_t *lock) { pthread_mutex_consistent((pthread_mutex_t *)(void *)lock); }

static inline void sq_unlock(uint64_t *lock) { pthread_mutex_unlock((pthread_mutex_t *)(void *)lock); }

/* Take the role. While it is `hurt`, the holder is still whoever died first. */
static inline enum sq_status sq_take_role(struct sq_role *r, const struct sq_user *u, uint64_t until)
{
    bool died;
    enum sq_status status = sq_lock(r->lock, until, &died);
    if (status != SQ_OK)
        return status;
    if (died) {
        rb_store(&r->hurt, 1);
        sq_consistent(r->lock);
    }
    RB_FAIL("queue.locked");
    if (!rb_load(&r->hurt))
        rb_store(&r->holder, u->row);
    return SQ_OK;
}

/* What its dead holder was in the midst of has been put right. */
static inline void sq_heal(struct sq_role *r, const struct sq_user *u)
{
    RB_FAIL("queue.healed");
    rb_store(&r->holder, u->row);
    rb_store_release(&r->hurt, 0);
}
