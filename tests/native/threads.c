/* The forwarding thread and real endpoints, several threads each, on one mapping: what ThreadSanitizer looks at. */
#include "harness.h"

#include "shmbus/endpoint/native/interest_log.h"
#include "shmbus/endpoint/native/open.h"
#include "shmbus/endpoint/native/wait.h"
#include "shmbus/dispatcher/native/liveness.h"

#ifndef ROUNDS
#define ROUNDS 10000u
#endif
#define FOREVER (rb_now() + 60 * SECOND)

struct actor { /* an endpoint, and what a thread of it shall do */
    struct peer *peer;
    struct ep_endpoint e;
    rb_word got;
    uint64_t sent, from[16]; /* from[slot]: the next number of that source */
    uint32_t group; /* bit */
};

static void *forwarding(void *argument)
{
    dp_forward(((struct world *)argument)->f);
    return NULL;
}

static void *watching(void *argument)
{
    dp_liveness_run(argument);
    return NULL;
}

static void attach(struct world *w, struct actor *a, const char *name, struct size size)
{
    CHECK(ep_fork_watch()); /* once a process; again does nothing */
    a->peer = make_peer(w, name, size);
    CHECK(ep_open(&a->e, w->bus, w->ready, a->peer->up, a->peer->down, &w->bell, &a->peer->bell, a->peer->generation,
                  40000, 16));
}

static bool await(struct actor *a, uint32_t want, uint32_t index, uint64_t value)
{
    struct ep_waiter x = {.want = want, .index = index, .value = value, .minds = EP_FOR_GOOD};
    enum rb_wake wake = ep_wait(&a->e, &x, FOREVER);
    CHECK(wake != RB_ELAPSED); /* a lost wake-up would look like this, an hour of traffic would not */
    return !x.trouble;
}

static void want(struct actor *a, struct sb_interest e, const char *pattern, const char *group)
{
    log_interest(a->peer, e, pattern, group);
    ep_lock(&a->e);
    uint64_t version = ep_commit_interests(&a->e, 1);
    ep_unlock(&a->e);
    CHECK(await(a, EP_WANT_SEEN, 0, version));
}

static bool push(struct actor *a, const struct ep_message *m)
{
    bool armed = false;
    for (;;) {
        ep_lock(&a->e);
        enum rb_status status = ep_push(&a->e, m, rb_now(), NULL, &armed);
        ep_unlock(&a->e);
        if (status == RB_OK)
            return true;
        if (status == RB_CORRUPT || !await(a, EP_WANT_SPACE, ep_ring_of(m->kind), ep_record_length(m)))
            return false;
    }
}

static void say_number(struct actor *a, uint16_t kind, const char *type, uint64_t number)
{
    struct ep_message m = {.kind = kind, .flags = SB_RAW, .type = type, .type_length = (uint32_t)strlen(type),
                           .payload = &number, .size = 8 + number % 90};
    uint8_t content[128] = {0};
    memcpy(content, &number, 8);
    m.payload = content;
    CHECK(push(a, &m));
}

/* The next message, held while it is worked on where it is a group's: its number. False: the endpoint ends. */
static bool next(struct actor *a, struct sb_record *h, uint64_t *number)
{
    for (;;) {
        const uint8_t *record;
        ep_lock(&a->e);
        enum rb_status status = ep_peek(&a->e, h, &record);
        CHECK(status != RB_CORRUPT);
        if (status == RB_OK) {
            memcpy(number, record + sb_payload_offset(h), 8);
            bool hold = h->interests & ~SB_PLAIN;
            uint64_t position = ep_take(&a->e, h, hold ? SB_HELD_OPEN : SB_HELD_DONE);
            if (hold)
                ep_done(&a->e, position);
            ep_pass_on_data(&a->e);
            ep_unlock(&a->e);
            return true;
        }
        bool over = rb_load(&a->e.trouble) & EP_STOPPING;
        ep_unlock(&a->e);
        if (over)
            return false;
        struct ep_waiter x = {.want = EP_WANT_DATA, .minds = EP_FOR_GOOD | EP_STOPPING};
        CHECK(ep_wait(&a->e, &x, FOREVER) != RB_ELAPSED);
    }
}

static void *publishing(void *argument)
{
    struct actor *a = argument;
    for (uint64_t i = 0; i < ROUNDS; i++)
        say_number(a, SB_EVENT, i % 3 ? "news" : "work", i);
    return NULL;
}

static void *listening(void *argument)
{
    struct actor *a = argument;
    struct sb_record h;
    uint64_t number;
    while (next(a, &h, &number)) {
        if (!(h.flags & SB_REDELIVERED)) { /* in order, whatever another member of the group got */
            CHECK(number >= a->from[h.peer]);
            a->from[h.peer] = number + 1;
        }
        rb_add(&a->got, 1);
    }
    return NULL;
}

/* What was sent has arrived: a group's may still wait in its backlog. */
static void await_all(struct actor *two, uint64_t expected)
{
    uint64_t end = FOREVER;
    while (rb_load(&two[0].got) + rb_load(&two[1].got) < expected && rb_now() < end)
        nanosleep(&(struct timespec){.tv_nsec = MILLISECOND}, NULL);
}

static void *serving(void *argument)
{
    struct actor *a = argument;
    struct sb_record h;
    uint64_t number;
    while (next(a, &h, &number)) {
        EQUAL(h.kind, SB_REQUEST);
        number = number * 3 + 1;
        struct ep_message m = {.kind = SB_REPLY, .flags = SB_RAW, .peer = h.peer, .peer_generation = h.peer_generation,
                               .correlation = h.correlation, .type = "", .payload = &number, .size = 8};
        CHECK(push(a, &m));
    }
    return NULL;
}

static void *asking(void *argument)
{
    struct actor *a = argument;
    for (uint64_t i = 0; i < ROUNDS / 4; i++) {
        uint8_t id[16];
        ep_lock(&a->e);
        uint32_t index = ep_begin_request(&a->e, 0, false, id);
        ep_unlock(&a->e);
        CHECK(index != EP_NO_REQUEST);
        struct ep_message m = {.kind = SB_REQUEST, .flags = SB_RAW, .type = "ask", .type_length = 3, .correlation = id,
                               .payload = &i, .size = 8};
        CHECK(push(a, &m));
        CHECK(await(a, EP_WANT_REPLY, index, 0));
        ep_lock(&a->e);
        const struct ep_request *r = &a->e.requests[index];
        uint64_t answer;
        EQUAL(r->header.kind, SB_REPLY);
        memcpy(&answer, r->payload, 8);
        EQUAL(answer, i * 3 + 1);
        ep_end_request(&a->e, index);
        rb_add(&a->got, 1);
        ep_unlock(&a->e);
    }
    return NULL;
}

static void set_state(struct actor *a, uint64_t state)
{
    ep_lock(&a->e);
    ep_set_state(&a->e, state);
    ep_unlock(&a->e);
}

static void close_actor(struct actor *a)
{
    set_state(a, SB_UP_CLOSING);
    CHECK(await(a, EP_WANT_STATE, 0, SB_DOWN_DRAINED));
    set_state(a, SB_UP_CLOSED);
    CHECK(await(a, EP_WANT_STATE, 0, SB_DOWN_RECLAIMED));
    ep_free(&a->e);
}

static pthread_t start(void *(*body)(void *), void *argument)
{
    pthread_t t;
    CHECK(pthread_create(&t, NULL, body, argument) == 0);
    return t;
}

static void finish_listener(struct actor *a, pthread_t *threads, int count)
{
    ep_lock(&a->e);
    ep_set_trouble(&a->e, EP_STOPPING, 0);
    ep_unlock(&a->e);
    for (int i = 0; i < count; i++)
        pthread_join(threads[i], NULL);
}

TEST(endpoints_of_many_threads_lose_nothing_and_sleep_through_nothing)
{
    struct world *w = open_world((struct plan){.block_timeout_ns = 60 * SECOND});
    pthread_t forwarder = start(forwarding, w);
    struct size small = {.data_in = 8192, .data_out = 8192};
    static struct actor publishers[2], listeners[2], members[2], server, client;
    attach(w, &publishers[0], "p0", small);
    attach(w, &publishers[1], "p1", small);
    attach(w, &server, "server", (struct size){0});
    attach(w, &client, "client", (struct size){0});
    for (int i = 0; i < 2; i++) {
        attach(w, &listeners[i], i ? "l1" : "l0", small);
        want(&listeners[i], (struct sb_interest){.op = SB_INTEREST_ADD, .role = SB_ROLE_SUBSCRIBE}, ">", "");
        attach(w, &members[i], i ? "m1" : "m0", small);
        struct sb_interest grouped = {.op = SB_INTEREST_ADD, .role = SB_ROLE_SUBSCRIBE, .bit = 1};
        want(&members[i], grouped, "work", "g");
    }
    want(&server, (struct sb_interest){.op = SB_INTEREST_ADD, .role = SB_ROLE_HANDLE}, "ask", "");
    pthread_t l[2], m[2], s[2], c[2], p[2];
    for (int i = 0; i < 2; i++) {
        l[i] = start(listening, &listeners[i]);
        m[i] = start(listening, &members[i]);
        s[i] = start(serving, &server);
    }
    for (int i = 0; i < 2; i++) {
        c[i] = start(asking, &client);
        p[i] = start(publishing, &publishers[i]);
    }
    for (int i = 0; i < 2; i++) {
        pthread_join(c[i], NULL);
        pthread_join(p[i], NULL);
    }
    close_actor(&publishers[0]); /* all that they sent is forwarded once this returns */
    close_actor(&publishers[1]);
    close_actor(&client);
    await_all(listeners, 2 * 2 * ROUNDS);
    await_all(members, 2 * ((ROUNDS + 2) / 3));
    for (int i = 0; i < 2; i++) {
        finish_listener(&listeners[i], &l[i], 1);
        finish_listener(&members[i], &m[i], 1);
    }
    finish_listener(&server, s, 2);
    for (int i = 0; i < 2; i++) {
        EQUAL(rb_load(&listeners[i].got), 2 * ROUNDS);
        CHECK(rb_load(&members[i].got) > 0);
        close_actor(&listeners[i]);
        close_actor(&members[i]);
    }
    EQUAL(rb_load(&members[0].got) + rb_load(&members[1].got), 2 * ((ROUNDS + 2) / 3));
    EQUAL(rb_load(&client.got), 2 * (ROUNDS / 4));
    close_actor(&server);
    EQUAL(rb_load(&w->bus->lost), 0);
    EQUAL(rb_load(&w->bus->orphans), 0);
    EQUAL(rb_load(&w->bus->violations), 0);
    rb_store_release(&w->f->stop, 1);
    pthread_mutex_lock(&w->f->orders.lock);
    dp_wake(&w->f->orders);
    pthread_mutex_unlock(&w->f->orders.lock);
    pthread_join(forwarder, NULL);
    close_world(w);
}

static void *dying(void *argument) /* takes a while, then says no more */
{
    struct actor *a = argument;
    struct sb_record h;
    uint64_t number;
    for (int i = 0; i < 200; i++)
        if (!next(a, &h, &number))
            break;
    return NULL;
}

TEST(workers_that_die_under_traffic_leave_their_work_to_others)
{
    struct world *w = open_world((struct plan){.block_timeout_ns = 60 * SECOND, .slots = 32});
    pthread_t forwarder = start(forwarding, w);
    struct size small = {.data_in = 8192, .data_out = 8192};
    static struct actor publisher, survivor, victims[8];
    memset(&publisher, 0, sizeof publisher);
    attach(w, &survivor, "survivor", small);
    want(&survivor, (struct sb_interest){.op = SB_INTEREST_ADD, .role = SB_ROLE_SUBSCRIBE, .bit = 1}, "*", "g");
    attach(w, &publisher, "publisher", small);
    pthread_t s, p = start(publishing, &publisher);
    for (int i = 0; i < 8; i++) { /* each takes some, and dies with a queue of others */
        attach(w, &victims[i], "victim", small);
        want(&victims[i], (struct sb_interest){.op = SB_INTEREST_ADD, .role = SB_ROLE_SUBSCRIBE, .bit = 1}, "*", "g");
        if (i == 0)
            s = start(dying, &survivor);
        pthread_t v = start(dying, &victims[i]);
        ep_lock(&victims[i].e);
        bool enough = false;
        ep_unlock(&victims[i].e);
        while (!enough) {
            enough = rb_load_acquire(&victims[i].peer->up->incoming[SB_DATA].taken_count) >= 20 ||
                     rb_load_acquire(&publisher.peer->up->sent_events) == ROUNDS;
            sched_yield();
        }
        finish_listener(&victims[i], &v, 1);
        struct dp_order order = {.kind = DP_DEAD, .slot = victims[i].peer->slot,
                                 .generation = victims[i].peer->generation, .reason = SB_REASON_KILLED};
        CHECK(dp_give_order(&w->f->orders, &order));
    }
    pthread_join(s, NULL);
    s = start(listening, &survivor);
    pthread_join(p, NULL);
    close_actor(&publisher);
    for (int i = 0; i < 8; i++) {
        while (rb_load_acquire(&victims[i].peer->down->state) != SB_DOWN_RECLAIMED) /* to itself it looks put out */
            sched_yield();
        ep_free(&victims[i].e);
    }
    uint64_t taken_by_victims = 0, taken;
    for (int i = 0; i < 8; i++)
        taken_by_victims += rb_load(&victims[i].peer->up->incoming[SB_DATA].taken_count);
    do { /* what waits in the backlog comes as the survivor becomes free */
        taken = taken_by_victims + rb_load_acquire(&survivor.peer->up->incoming[SB_DATA].taken_count);
        sched_yield();
    } while (taken < ROUNDS);
    finish_listener(&survivor, &s, 1);
    taken = taken_by_victims + rb_load(&survivor.peer->up->incoming[SB_DATA].taken_count);
    EQUAL(taken, ROUNDS); /* each message was taken once: the dead had finished what they took */
    EQUAL(rb_load(&w->bus->dead_letters), 0);
    close_actor(&survivor);
    rb_store_release(&w->f->stop, 2);
    pthread_mutex_lock(&w->f->orders.lock);
    dp_wake(&w->f->orders);
    pthread_mutex_unlock(&w->f->orders.lock);
    pthread_join(forwarder, NULL);
    close_world(w);
}

TEST(the_end_of_a_process_is_not_reported_of_whoever_has_its_slot_by_then)
{
    struct world *w = new_world();
    struct dp_liveness liveness;
    CHECK(dp_liveness_open(&liveness, &w->f->orders, &w->bus->wills, w->f->slots));
    int ended = eventfd(1, EFD_CLOEXEC); /* readable like the pidfd of one that has ended */
    dp_liveness_add(&liveness, 3, (struct dp_process){.generation = 7, .pidfd = ended, .stat = -1, .door = -1});
    liveness.processes[3].generation = 8; /* as if it were given away while the liveness thread waits for the lock */
    pthread_t thread = start(watching, &liveness);
    struct pollfd wake = {.fd = liveness.wake, .events = POLLIN};
    while (poll(&wake, 1, 0))
        sched_yield();
    pthread_mutex_lock(&liveness.lock); /* it has dealt with both signs */
    pthread_mutex_unlock(&liveness.lock);
    rb_store_release(&liveness.stop, 1);
    dp_raise(liveness.wake);
    pthread_join(thread, NULL);
    EQUAL(rb_load(&w->f->orders.waiting), 0);
    dp_liveness_close(&liveness);
    close_world(w);
}

struct taking { /* an endpoint that takes messages one by one, and works on each for a moment */
    struct peer *p;
    rb_word finished, over;
};

static void *taking(void *argument)
{
    struct taking *t = argument;
    uint64_t until = rb_now() + 400 * MILLISECOND;
    for (uint64_t n = 1; n % 64 || rb_now() < until; n++) { /* as ep_take, ep_set_in_hand */
        rb_store_release(&t->p->up->in_hand, 1);
        rb_store_release(&t->p->up->incoming[SB_DATA].taken_count, n);
        for (int i = 0; i < 5; i++)
            rb_pause();
        rb_store_release(&t->finished, n);
        rb_store_release(&t->p->up->in_hand, 0);
    }
    rb_store_release(&t->over, 1);
    return NULL;
}

TEST(what_is_taken_as_the_dispatcher_looks_counts)
{
    struct world *w = new_world();
    struct taking t = {.p = join(w, "p")};
    struct dp_port *port = &w->f->ports[t.p->slot];
    port->delivered = 1ull << 40;
    pthread_t thread = start(taking, &t);
    while (!rb_load_acquire(&t.over)) {
        struct dp_load load = dp_load_of(w->f, port);
        CHECK(load.untouched + load.in_hand >= port->delivered - rb_load_acquire(&t.finished));
    }
    pthread_join(thread, NULL);
    close_world(w);
}
