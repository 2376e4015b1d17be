/* Fail points: the places where a process may die at the worst moment. In an ordinary build they are nothing.
 *
 * Built with SB_FAILPOINTS, a process whose environment says SHMBUS_FAIL=POINT or POINT:N kills itself with
 * SIGKILL when it passes that point for the N-th time. Only one point is armed at a time. */
#pragma once

#include "ringbuf/native/order.h"

#ifdef SB_FAILPOINTS

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct rb_failure {
    char point[48];  /* empty: none is armed */
    rb_word left;    /* passes until it kills */
    rb_word passed;  /* how often it was passed */
    _Atomic int read; /* the environment has been looked at */
};

static inline struct rb_failure *rb_failure(void)
{
    static struct rb_failure failure;
    return &failure;
}

/* At the `nth` pass of `point`; the empty point disarms. Before other threads run. */
static inline void rb_arm(const char *point, uint64_t nth)
{
    struct rb_failure *f = rb_failure();
    size_t length = strcspn(point, ":");
    if (length >= sizeof f->point)
        length = sizeof f->point - 1;
    memset(f->point, 0, sizeof f->point);
    memcpy(f->point, point, length);
    atomic_store(&f->left, nth);
    atomic_store(&f->passed, 0);
    atomic_store(&f->read, 1);
}

static inline void rb_fail(const char *point)
{
    struct rb_failure *f = rb_failure();
    if (!atomic_load(&f->read)) {
        const char *wanted = getenv("SHMBUS_FAIL"), *nth = wanted ? strchr(wanted, ':') : NULL;
        rb_arm(wanted ? wanted : "", nth ? strtoull(nth + 1, NULL, 10) : 1);
    }
    if (strcmp(point, f->point) != 0)
        return;
    atomic_fetch_add(&f->passed, 1);
    if (atomic_fetch_sub(&f->left, 1) == 1)
        kill(getpid(), SIGKILL);
}

#define RB_FAIL(point) rb_fail(point)
#else
#define RB_FAIL(point) ((void)0)
#endif
