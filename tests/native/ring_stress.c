/* A producer and a consumer thread on one ring, each waiting at its bell, for the sanitizers to watch. Nothing may
 * be lost, doubled, torn or out of order, no wake-up may be lost, and both must really have slept.
 *
 *   ring_stress MESSAGES SEED      (an odd seed spins before it sleeps, an even one does not)
 */
#include "ringbuf/native/standalone.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#define CAPACITY 1024u
#define PATIENCE 20000000000u /* ns; a wait this long is a lost wake-up */

static _Alignas(RB_LINE) unsigned char memory[sizeof(struct rb_standalone) + CAPACITY];
static struct rb_standalone *const ring = (struct rb_standalone *)memory;
static sem_t records, space;
static uint64_t messages, seed;
static uint64_t producer_parks, consumer_parks;

#define CHECK(what)                                                        \
    do {                                                                   \
        if (!(what)) {                                                     \
            fprintf(stderr, "%s:%d: not %s\n", __FILE__, __LINE__, #what); \
            exit(1);                                                       \
        }                                                                  \
    } while (0)

/* Both threads draw the same numbers. */
static uint64_t next_number(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return *state >> 33;
}

static void wait_until_reached(struct rb_bell *bell, struct rb_reached reached)
{
    uint64_t until = rb_now() + PATIENCE;
    while (!rb_look_reached(&reached))
        CHECK(rb_bell_wait(bell, rb_look_reached, &reached, until) != RB_ELAPSED);
}

/* So that it sleeps, and not by luck alone. Not for long: it may be here as well, and a yield beside CPU hogs takes
 * milliseconds. */
static void let_it_park(const rb_word *epoch)
{
    uint64_t until = rb_now() + 2000000u;
    while (!(rb_load_seq(epoch) & 1) && rb_now() < until)
        sched_yield();
}

static void *produce(void *unused)
{
    struct rb_producer p;
    struct rb_bell bell;
    struct rb_poster consumer = {&ring->consumer_epoch, &records, 0};
    uint64_t state = seed;
    CHECK(rb_producer_open(&p, &ring->head, &ring->tail, &ring->high, ring->data, CAPACITY) == RB_OK);
    rb_bell_open(&bell, &ring->producer_epoch, &space, seed & 1 ? RB_SPIN_NS : 0);
    for (uint64_t i = 0; i < messages; i++) {
        uint64_t drawn = next_number(&state);
        struct rb_head8 head = {(uint32_t)(sizeof head + drawn % 249), 1, (uint16_t)i};
        uint8_t *at = NULL;
        enum rb_status status;
        while ((status = rb_claim(&p, head.length, 0, &at)) == RB_FULL) {
            rb_publish(&p);
            rb_ring_consumer(&consumer);
            wait_until_reached(&bell, rb_wait_for_space(&p, &ring->need, head.length));
        }
        CHECK(status == RB_OK);
        memcpy(at, &head, sizeof head);
        memset(at + sizeof head, (int)(i & 255), head.length - sizeof head);
        rb_commit(&p, head.length);
        if (drawn >> 8 & 3) { /* runs of a few */
            rb_publish(&p);
            rb_ring_consumer(&consumer);
        }
        if ((drawn >> 10 & 511) == 0)
            let_it_park(&ring->consumer_epoch);
    }
    rb_publish(&p);
    rb_ring_consumer(&consumer);
    producer_parks = bell.parks;
    return unused;
}

static void *consume(void *unused)
{
    struct rb_consumer c;
    struct rb_bell bell;
    struct rb_poster producer = {&ring->producer_epoch, &space, 0};
    uint64_t state = seed, position;
    CHECK(rb_consumer_open(&c, &ring->head, &ring->tail, ring->data, CAPACITY) == RB_OK);
    rb_bell_open(&bell, &ring->consumer_epoch, &records, seed & 1 ? RB_SPIN_NS : 0);
    position = c.next;
    for (uint64_t i = 0; i < messages; i++) {
        uint64_t drawn = next_number(&state);
        struct rb_head8 head;
        const uint8_t *record;
        enum rb_status status;
        while ((status = rb_peek_at(&c, &position, sizeof head, &head, &record)) == RB_EMPTY) {
            rb_release_to(&c, position);
            rb_ring_producer(&producer, &c, &ring->need);
            wait_until_reached(&bell, (struct rb_reached){&ring->head, c.head_seen + 1});
        }
        CHECK(status == RB_OK);
        CHECK(head.length == sizeof head + drawn % 249 && head.kind == 1 && head.user == (uint16_t)i);
        for (uint32_t b = sizeof head; b < head.length; b++)
            CHECK(record[b] == (i & 255));
        position += RB_ALIGN8(head.length);
        if (drawn >> 20 & 3) {
            rb_release_to(&c, position);
            rb_ring_producer(&producer, &c, &ring->need);
        }
        if ((drawn >> 22 & 511) == 0)
            let_it_park(&ring->producer_epoch);
    }
    rb_release_to(&c, position);
    consumer_parks = bell.parks;
    return unused;
}

int main(int count, char **arguments)
{
    CHECK(count == 3);
    messages = strtoull(arguments[1], NULL, 10);
    seed = strtoull(arguments[2], NULL, 10);
    CHECK(sem_init(&records, 1, 0) == 0 && sem_init(&space, 1, 0) == 0);
    pthread_t producer, consumer;
    CHECK(pthread_create(&producer, NULL, produce, NULL) == 0);
    CHECK(pthread_create(&consumer, NULL, consume, NULL) == 0);
    pthread_join(producer, NULL);
    pthread_join(consumer, NULL);
    CHECK(rb_load(&ring->head) == rb_load(&ring->tail));
    CHECK(rb_load(&ring->high) <= CAPACITY);
    CHECK(producer_parks > 0 && consumer_parks > 0);
    printf("%llu %llu\n", (unsigned long long)producer_parks, (unsigned long long)consumer_parks);
    return 0;
}
