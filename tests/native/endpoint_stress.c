/* One endpoint, many threads, and a dispatcher of a few lines that sends everything back to it: requests with
 * long and short patience, servers, publishers, on rings so small that everybody waits for everything. Each reply
 * must reach the thread that asked, no event may be lost or doubled, and no wake-up may be lost.
 *
 *   endpoint_stress ROUNDS SEED
 */
#include "shmbus/endpoint/native/open.h"
#include "shmbus/endpoint/native/wait.h"

#include <stdio.h>

#define CAPACITY 2048u
#define REQUESTS 4u /* fewer than requesters, so that they wait for entries, too */
#define REQUESTERS 6u
#define SERVERS 3u
#define PUBLISHERS 2u
#define PATIENCE 20000000000u /* ns; a wait this long is a lost wake-up */

#define CHECK(what)                                                        \
    do {                                                                   \
        if (!(what)) {                                                     \
            fprintf(stderr, "%s:%d: not %s\n", __FILE__, __LINE__, #what); \
            exit(1);                                                       \
        }                                                                  \
    } while (0)

static struct ep_endpoint endpoint;
static struct sb_bus *bus;
static struct sb_ready *ready;
static struct sb_up *up;
static struct sb_down *down;
static sem_t dispatcher_bell, own_bell;
static rb_word stop, answered, timeouts, served;
static _Atomic uint64_t events, event_sum;
static uint64_t rounds, seed;

static uint64_t draw(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return *state >> 33;
}

/* The dispatcher ---------------------------------------------------------------------------------------------- */

struct forwarder {
    struct rb_consumer from[SB_RINGS];
    struct rb_producer to[SB_RINGS];
    uint64_t heads[SB_RINGS];
    struct rb_bell bell;
    struct rb_poster endpoint;
};

static bool something_new(void *context)
{
    struct forwarder *f = context;
    return rb_load_seq(&up->outgoing[SB_DATA].head) != f->heads[SB_DATA] ||
           rb_load_seq(&up->outgoing[SB_REPLIES].head) != f->heads[SB_REPLIES] ||
           (rb_load(&down->incoming[SB_DATA].need) != SB_NO_NEED &&
            rb_load_seq(&up->incoming[SB_DATA].tail) >= rb_load(&down->incoming[SB_DATA].need)) ||
           rb_load_seq(&stop);
}

/* Forward what lies in a ring and fits. */
static bool forward(struct forwarder *f, uint32_t ring)
{
    struct rb_consumer *from = &f->from[ring];
    struct rb_head8 head;
    const uint8_t *record;
    uint64_t position = from->next;
    bool moved = false;
    while (rb_peek_at(from, &position, SB_HEADER, &head, &record) == RB_OK) {
        uint8_t *at;
        struct rb_producer *to = &f->to[ring];
        if (rb_claim(to, head.length, 0, &at) != RB_OK) {
            rb_publish(to);
            rb_store_seq(&down->incoming[ring].need, rb_end_after(to, head.length) - to->capacity);
            if (rb_claim(to, head.length, 0, &at) != RB_OK)
                break; /* the front waits there */
        }
        rb_store(&down->incoming[ring].need, SB_NO_NEED);
        memcpy(at, record, head.length);
        rb_commit(to, head.length);
        position += RB_ALIGN8(head.length);
        from->next = position;
        moved = true;
    }
    if (moved) {
        rb_publish(&f->to[ring]);
        rb_release_to(from, from->next);
    }
    return moved;
}

static void *dispatch(void *unused)
{
    struct forwarder f = {.endpoint = {.epoch = &up->bell, .semaphore = &own_bell}};
    for (uint32_t r = 0; r < SB_RINGS; r++) {
        rb_consumer_open(&f.from[r], &up->outgoing[r].head, &down->outgoing[r].tail,
                         (uint8_t *)up + up->outgoing_ring[r].offset, CAPACITY);
        rb_producer_open(&f.to[r], &down->incoming[r].head, &up->incoming[r].tail, &down->incoming[r].high,
                         (uint8_t *)down + down->incoming_ring[r].offset, CAPACITY);
    }
    rb_bell_open(&f.bell, &bus->bell, &dispatcher_bell, seed & 1 ? RB_SPIN_NS : 0);
    while (!rb_load_seq(&stop)) {
        for (uint32_t r = 0; r < SB_RINGS; r++)
            f.heads[r] = rb_load_seq(&up->outgoing[r].head);
        bool moved = forward(&f, SB_REPLIES);
        moved |= forward(&f, SB_DATA);
        if (moved) {
            rb_fence_seq();
            rb_ring_bell(&f.endpoint);
        } else {
            rb_bell_wait(&f.bell, something_new, &f, rb_now() + 100000000u);
        }
    }
    return unused;
}

/* The endpoint's threads -------------------------------------------------------------------------------------- */

static bool wait_for(uint32_t want, uint32_t index, uint64_t value, uint64_t until)
{
    struct ep_waiter w = {.want = want, .index = index, .value = value, .minds = EP_STOPPING};
    enum rb_wake wake;
    do
        wake = ep_wait(&endpoint, &w, until);
    while (wake == RB_INTERRUPTED);
    if (wake == RB_ELAPSED)
        CHECK(rb_now() >= until);
    return wake == RB_READY && !w.trouble;
}

static void push(const struct ep_message *m)
{
    uint64_t until = rb_now() + PATIENCE;
    for (;;) {
        bool armed = false;
        ep_lock(&endpoint);
        enum rb_status status = ep_push(&endpoint, m, rb_now(), NULL, &armed);
        ep_unlock(&endpoint);
        CHECK(status != RB_CORRUPT);
        if (status == RB_OK)
            return;
        CHECK(wait_for(EP_WANT_SPACE, ep_ring_of(m->kind), ep_record_length(m), until));
    }
}

static void *request(void *argument)
{
    uint64_t me = (uintptr_t)argument, state = seed * 1000 + me;
    for (uint64_t i = 0; i < rounds; i++) {
        uint8_t id[16];
        uint64_t token[40] = {me << 32 | i};
        uint64_t size = 8 + 8 * (draw(&state) % 40), until = rb_now() + PATIENCE;
        size = size > sizeof token ? sizeof token : size;
        token[size / 8 - 1] = me << 32 | i;
        bool hasty = draw(&state) % 4 == 0;
        uint32_t index;
        for (;;) {
            ep_lock(&endpoint);
            index = ep_begin_request(&endpoint, 0, false, id);
            ep_unlock(&endpoint);
            if (index != EP_NO_REQUEST)
                break;
            CHECK(wait_for(EP_WANT_ENTRY, 0, 0, until));
        }
        push(&(struct ep_message){.kind = SB_REQUEST, .correlation = id, .type = "question", .type_length = 8,
                                  .payload = token, .size = size});
        bool there = wait_for(EP_WANT_REPLY, index, 0, hasty ? rb_now() + draw(&state) % 50000 : until);
        CHECK(there || hasty);
        ep_lock(&endpoint);
        struct ep_request *r = &endpoint.requests[index];
        if (there) {
            uint64_t last;
            CHECK(r->size == size && memcmp(r->payload, token, 8) == 0);
            memcpy(&last, r->payload + size - 8, 8);
            CHECK(last == (me << 32 | i));
        }
        rb_add(there ? &answered : &timeouts, 1);
        ep_finish_request(&endpoint, index);
        ep_unlock(&endpoint);
    }
    return NULL;
}

static void *serve(void *unused)
{
    uint8_t payload[512];
    for (;;) {
        struct sb_record h;
        const uint8_t *record;
        ep_lock(&endpoint);
        enum rb_status status = ep_peek(&endpoint, &h, &record);
        CHECK(status != RB_CORRUPT);
        if (status == RB_OK) {
            uint64_t offset = sb_payload_offset(&h), size = h.length - offset;
            memcpy(payload, record + offset, size);
            ep_take(&endpoint, &h, h.kind == SB_EVENT ? SB_HELD_DONE : SB_HELD_OPEN);
            uint64_t position = endpoint.in[SB_DATA].next - RB_ALIGN8(h.length);
            if (h.kind == SB_REQUEST)
                rb_add(&served, 1);
            ep_pass_on_data(&endpoint);
            ep_unlock(&endpoint);
            if (h.kind == SB_REQUEST) {
                push(&(struct ep_message){.kind = SB_REPLY, .correlation = h.correlation, .type = "",
                                          .payload = payload, .size = size});
                ep_lock(&endpoint);
                ep_done(&endpoint, position);
                ep_unlock(&endpoint);
            } else {
                uint64_t number;
                memcpy(&number, payload, 8);
                events++;
                event_sum += number;
            }
            continue;
        }
        ep_unlock(&endpoint);
        if (!wait_for(EP_WANT_DATA, 0, 0, rb_now() + PATIENCE))
            return unused;
    }
}

static void *publish(void *argument)
{
    uint64_t state = seed * 77 + (uintptr_t)argument;
    for (uint64_t i = 1; i <= rounds; i++) {
        uint64_t payload[16] = {i};
        push(&(struct ep_message){.kind = SB_EVENT, .type = "event", .type_length = 5, .payload = payload,
                                  .size = 8 + 8 * (draw(&state) % 15)});
    }
    return NULL;
}

int main(int count, char **arguments)
{
    CHECK(count == 3);
    rounds = strtoull(arguments[1], NULL, 10);
    seed = strtoull(arguments[2], NULL, 10);
    CHECK(ep_fork_watch());

    uint64_t up_size = ep_up_size(CAPACITY, CAPACITY, REQUESTS);
    uint64_t targets = ep_page_align(sizeof *down);
    uint64_t rings = targets + ep_page_align(REQUESTS * sizeof(struct sb_target));
    bus = aligned_alloc(64, sizeof *bus);
    ready = aligned_alloc(64, sizeof *ready + 64);
    up = aligned_alloc(64, up_size);
    uint64_t down_size = rings + SB_RINGS * CAPACITY + SB_URGENT_BYTES;
    down = aligned_alloc(64, down_size);
    CHECK(bus && ready && up && down);
    memset(bus, 0, sizeof *bus);
    memset(ready, 0, sizeof *ready + 64);
    memset(up, 0, up_size);
    memset(down, 0, down_size);
    rb_store(&bus->state, SB_BUS_SERVING);
    rb_store(&down->state, SB_DOWN_LIVE);
    ep_up_prepare(up, &(struct sb_identity){0}, 1, "stress", CAPACITY, CAPACITY, CAPACITY, REQUESTS, 16);
    for (uint32_t r = 0; r < SB_RINGS_IN; r++) {
        uint64_t offset = rings + r * CAPACITY, capacity = up->incoming_ring[r].capacity;
        down->incoming_ring[r] = (struct sb_ring_descriptor){.offset = offset, .capacity = capacity, .kind = r};
        rb_store(&down->incoming[r].need, SB_NO_NEED);
    }
    down->target_count = REQUESTS;
    down->target_offset = targets;
    CHECK(ep_down_sound(down, down_size, up));
    sem_init(&dispatcher_bell, 0, 0);
    sem_init(&own_bell, 0, 0);
    CHECK(ep_open(&endpoint, bus, ready, up, down, &dispatcher_bell, &own_bell, seed, seed & 1 ? RB_SPIN_NS : 0, 8));

    pthread_t dispatcher, servers[SERVERS], requesters[REQUESTERS], publishers[PUBLISHERS];
    pthread_create(&dispatcher, NULL, dispatch, NULL);
    for (uintptr_t i = 0; i < SERVERS; i++)
        pthread_create(&servers[i], NULL, serve, NULL);
    for (uintptr_t i = 0; i < REQUESTERS; i++)
        pthread_create(&requesters[i], NULL, request, (void *)(i + 1));
    for (uintptr_t i = 0; i < PUBLISHERS; i++)
        pthread_create(&publishers[i], NULL, publish, (void *)(i + 1));
    for (uint32_t i = 0; i < REQUESTERS; i++)
        pthread_join(requesters[i], NULL);
    for (uint32_t i = 0; i < PUBLISHERS; i++)
        pthread_join(publishers[i], NULL);
    while (events < PUBLISHERS * rounds || rb_load(&served) < REQUESTERS * rounds)
        sched_yield(); /* requests that were given up are still on their way */
    ep_lock(&endpoint);
    ep_set_trouble(&endpoint, EP_STOPPING, 0); /* nothing is left: servers end */
    ep_unlock(&endpoint);
    for (uint32_t i = 0; i < SERVERS; i++)
        pthread_join(servers[i], NULL);
    rb_store_seq(&stop, 1);
    sem_post(&dispatcher_bell);
    pthread_join(dispatcher, NULL);

    CHECK(events == PUBLISHERS * rounds);
    CHECK(event_sum == PUBLISHERS * rounds * (rounds + 1) / 2);
    CHECK(rb_load(&answered) + rb_load(&timeouts) == REQUESTERS * rounds);
    CHECK(rb_load(&up->received_replies) >= rb_load(&answered));
    CHECK(endpoint.held_count == 0 && endpoint.free_count == REQUESTS && !endpoint.first && !endpoint.leader);
    CHECK(rb_load(&up->outgoing[SB_DATA].need) == SB_NO_NEED && rb_load(&up->outgoing[SB_REPLIES].need) == SB_NO_NEED);
    printf("%llu answered, %llu given up, %llu parks\n", (unsigned long long)rb_load(&answered),
           (unsigned long long)rb_load(&timeouts), (unsigned long long)endpoint.bell.parks);
    ep_free(&endpoint);
    free(bus);
    free(ready);
    free(up);
    free(down);
    return 0;
}
