/* The ring alone: what its two sides believe of each other, and when the one rings for the other. */
#include "harness.h"

#include "ringbuf/native/standalone.h"

struct ring {
    rb_word head, tail, high;
    _Alignas(64) uint8_t data[1024];
    struct rb_producer producer;
    struct rb_consumer consumer;
};

static void open_ring(struct ring *r)
{
    memset(r, 0, sizeof *r);
    CHECK(rb_producer_open(&r->producer, &r->head, &r->tail, &r->high, r->data, sizeof r->data) == RB_OK);
    CHECK(rb_consumer_open(&r->consumer, &r->head, &r->tail, r->data, sizeof r->data) == RB_OK);
}

static enum rb_status put_record(struct ring *r, uint32_t length)
{
    uint8_t *at;
    enum rb_status status = rb_claim(&r->producer, length, 0, &at);
    if (status == RB_OK) {
        memcpy(at, &(struct rb_head8){length, 1, 0}, sizeof(struct rb_head8));
        rb_commit(&r->producer, length);
    }
    return status;
}

TEST(a_tail_that_goes_back_is_found_out)
{
    struct ring r;
    open_ring(&r);
    for (int i = 0; i < 4; i++)
        CHECK(put_record(&r, 256) == RB_OK);
    rb_publish(&r.producer);
    rb_store(&r.tail, 512);
    CHECK(put_record(&r, 256) == RB_OK);
    rb_store(&r.tail, 256);
    CHECK(put_record(&r, 256) == RB_OK);
    EQUAL(put_record(&r, 256), RB_CORRUPT);
}

TEST(a_head_that_goes_back_does_not_lead_to_what_was_never_published)
{
    struct ring r;
    open_ring(&r);
    for (int i = 0; i < 3; i++)
        CHECK(put_record(&r, 64) == RB_OK);
    struct rb_head8 head;
    const uint8_t *record;
    uint64_t position = 0;
    rb_store(&r.head, 128);
    CHECK(rb_peek_at(&r.consumer, &position, 8, &head, &record) == RB_OK);
    position = 128;
    rb_store(&r.head, 64);
    EQUAL(rb_peek_at(&r.consumer, &position, 8, &head, &record), RB_CORRUPT);
}

TEST(a_producer_is_rung_as_soon_as_there_is_the_space_that_it_waits_for)
{
    struct ring r;
    sem_t bell;
    rb_word epoch = 1, need = 64;
    struct rb_poster producer = {.epoch = &epoch, .semaphore = &bell};
    sem_init(&bell, 0, 0);
    open_ring(&r);
    rb_release_to(&r.consumer, 56);
    rb_ring_producer(&producer, &r.consumer, &need);
    CHECK(sem_trywait(&bell) != 0);
    rb_release_to(&r.consumer, 64);
    rb_ring_producer(&producer, &r.consumer, &need);
    CHECK(sem_trywait(&bell) == 0);
    sem_destroy(&bell);
}
