/* How long a waiter spins, and when it parks at once: by a clock that only these tests move. */
#include "ringbuf/native/order.h"

#include <sched.h>
#include <semaphore.h>
#include <time.h>

#include "check.h"

static uint64_t time_ns, yield_ns, sleep_ns, slept_at;
static uint32_t yields, sleeps;

static int read_clock(struct timespec *t)
{
    time_ns += 20;
    *t = (struct timespec){(time_t)(time_ns / 1000000000u), (long)(time_ns % 1000000000u)};
    return 0;
}

static int let_others_run(void)
{
    yields++;
    time_ns += yield_ns;
    return 0;
}

static int sleep_until_rung(void)
{
    sleeps++;
    slept_at = time_ns;
    time_ns += sleep_ns;
    return 0;
}

#define clock_gettime(clock, t) read_clock(t)
#define sched_yield() let_others_run()
#define sem_clockwait(semaphore, clock, until) ((void)(semaphore), (void)(until), sleep_until_rung())
#define sem_timedwait(semaphore, until) ((void)(semaphore), (void)(until), sleep_until_rung())
#include "ringbuf/native/bell.h"

#define SPIN 40000u
#define MS 1000000u

static rb_word epoch;
static sem_t semaphore;

static struct rb_bell open_bell(void)
{
    struct rb_bell b;
    time_ns = 1000ull * 1000 * MS;
    yield_ns = 300;
    sleep_ns = 50 * MS;
    sleeps = 0;
    sem_init(&semaphore, 0, 0);
    rb_bell_open(&b, &epoch, &semaphore, SPIN);
    return b;
}

static bool never(void *context)
{
    (void)context;
    return false;
}

/* Waits in vain; returns for how long it spun before it parked, and 0 if it parked at once. */
static uint64_t wait_in_vain(struct rb_bell *b)
{
    uint64_t start = time_ns;
    uint32_t before = yields;
    CHECK(rb_bell_wait(b, never, NULL, ~0ull) == RB_READY);
    return yields == before ? 0 : slept_at - start;
}

#define ABOUT(is, wanted)                                                                                        \
    do {                                                                                                        \
        uint64_t took_ = is;                                                                                    \
        CHECK(took_ >= (wanted) && took_ < (wanted) + 2000u);                                                   \
    } while (0)

TEST(who_waits_for_what_does_not_come_spins_so_long_and_then_parks)
{
    struct rb_bell b = open_bell();
    ABOUT(wait_in_vain(&b), 2 * SPIN); /* it was never in vain so far */
    ABOUT(wait_in_vain(&b), SPIN);
}

TEST(where_waits_are_long_it_parks_at_once)
{
    struct rb_bell b = open_bell();
    wait_in_vain(&b);
    wait_in_vain(&b);
    for (int i = 0; i < 100; i++)
        EQUAL(wait_in_vain(&b), 0);
}

TEST(where_waits_are_short_again_it_spins_again)
{
    struct rb_bell b = open_bell();
    wait_in_vain(&b);
    wait_in_vain(&b);
    sleep_ns = 20000; /* parked, and woken after that */
    uint32_t waits = 0;
    while (!wait_in_vain(&b))
        CHECK(++waits <= RB_CREDIT_SPIN);
}

static bool comes_when_parked(void *looks) /* at the second look, which is the one before it sleeps */
{
    return ++*(int *)looks == 2;
}

TEST(short_waits_bring_a_parked_waiter_to_spin_again)
{
    struct rb_bell b = open_bell();
    uint64_t opened = rb_load(&epoch);
    b.credit = 0;
    for (uint64_t waits = 0; b.credit < RB_CREDIT_SPIN; waits++) {
        int looks = 0;
        EQUAL(rb_load(&epoch), opened + 2 * waits);
        CHECK(rb_bell_wait(&b, comes_when_parked, &looks, ~0ull) == RB_READY);
        EQUAL(rb_load(&epoch), opened + 2 * waits + 2);
        CHECK(waits < RB_CREDIT_SPIN);
    }
    uint64_t before = rb_load(&epoch);
    int looks = 0;
    CHECK(rb_bell_wait(&b, comes_when_parked, &looks, ~0ull) == RB_READY);
    EQUAL(rb_load(&epoch), before);
}

TEST(a_single_late_yield_does_not_stop_spinning)
{
    struct rb_bell b = {0};
    for (uint64_t at = 1000 * MS; at < 2000 * MS; at += 100 * MS) {
        CHECK(!rb_note_late(&b, at, at + RB_HOG_NS));
        CHECK(b.hog_until <= at + RB_HOG_NS);
    }
}

TEST(how_late_a_yield_was_says_for_how_long_another_one_makes_a_hog)
{
    uint64_t now = 1000 * MS, slice = 3 * MS, blip = 2 * RB_HOG_NS, apart = 60 * MS;
    struct rb_bell beside_long = {0}, beside_short = {0};
    CHECK(!rb_note_late(&beside_long, now, now + slice));
    CHECK(!rb_note_late(&beside_short, now, now + blip));
    now += slice + apart;
    CHECK(rb_note_late(&beside_long, now, now + slice));
    CHECK(!rb_note_late(&beside_short, now, now + blip));
}

TEST(a_hog_that_stays_stops_spinning_longer_and_longer)
{
    struct rb_bell b = {0};
    uint64_t now = 1000 * MS, slice = 3 * MS;
    CHECK(!rb_note_late(&b, now, now + slice));
    for (uint64_t rest = RB_HOG_REST_NS; rest <= RB_HOG_MOST_NS; rest *= 2) {
        now = b.hog_until + MS;
        CHECK(rb_note_late(&b, now, now + slice));
        EQUAL(b.hog_until, now + slice + rest);
    }
    now = b.hog_until + MS;
    CHECK(rb_note_late(&b, now, now + slice));
    EQUAL(b.hog_until, now + slice + RB_HOG_MOST_NS);
}

TEST(a_hog_that_went_is_forgotten)
{
    struct rb_bell b = {0};
    uint64_t now = 1000 * MS, slice = 3 * MS;
    for (int i = 0; i < 5; i++) {
        (void)rb_note_late(&b, now, now + slice);
        now = b.hog_until + MS;
    }
    now += 1000 * MS;
    CHECK(!rb_note_late(&b, now, now + slice));
    now += slice;
    CHECK(rb_note_late(&b, now, now + slice));
    EQUAL(b.hog_until, now + slice + RB_HOG_REST_NS);
}

TEST(beside_a_cpu_hog_it_parks_at_once_until_the_rest_is_over)
{
    struct rb_bell b = open_bell();
    yield_ns = 3 * MS; /* its slice */
    sleep_ns = 1000;
    wait_in_vain(&b);
    CHECK(b.hog_until <= time_ns);
    wait_in_vain(&b);
    CHECK(b.hog_until > time_ns);
    b.credit = RB_CREDIT_MOST; /* it is not that its waits are long */
    EQUAL(wait_in_vain(&b), 0);
    time_ns = b.hog_until;
    CHECK(wait_in_vain(&b) > 0);
}

static bool comes_as_it_parks(void *context)
{
    (void)context;
    return rb_load(&epoch) & 1;
}

TEST(what_comes_as_a_thread_goes_to_sleep_does_not_let_it_sleep)
{
    struct rb_bell b = open_bell();
    CHECK(rb_bell_wait(&b, comes_as_it_parks, NULL, ~0ull) == RB_READY);
    EQUAL(sleeps, 0);
    CHECK(!(rb_load(&epoch) & 1));
}
