/* A waiter: when it spins and when it parks at once. */
#include "ringbuf/native/bell.h"

#include "check.h"

#define MS 1000000u

static bool comes_when_parked(void *looks) /* at the second look, which is the one before it sleeps */
{
    return ++*(int *)looks == 2;
}

TEST(a_single_late_yield_does_not_stop_spinning)
{
    struct rb_bell b = {0};
    for (uint64_t at = 1000 * MS; at < 2000 * MS; at += 100 * MS) {
        CHECK(!rb_note_late(&b, at, at + RB_HOG_NS));
        CHECK(b.hog_until <= at + RB_HOG_NS);
    }
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

TEST(short_waits_bring_a_parked_waiter_to_spin_again)
{
    rb_word epoch = 0;
    sem_t semaphore;
    sem_init(&semaphore, 0, 0);
    struct rb_bell b;
    rb_bell_open(&b, &epoch, &semaphore, 1000 * MS); /* so that no wait is long here */
    b.credit = 0;
    for (int waits = 0; b.credit < RB_CREDIT_SPIN; waits++) {
        int looks = 0;
        EQUAL(rb_load(&epoch), 2 * waits);
        CHECK(rb_bell_wait(&b, comes_when_parked, &looks, ~0ull) == RB_READY);
        EQUAL(rb_load(&epoch), 2 * waits + 2);
        CHECK(waits < RB_CREDIT_SPIN);
    }
    uint64_t before = rb_load(&epoch);
    int looks = 0;
    CHECK(rb_bell_wait(&b, comes_when_parked, &looks, ~0ull) == RB_READY);
    EQUAL(rb_load(&epoch), before);
    sem_destroy(&semaphore);
}
