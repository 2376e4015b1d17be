/* Handlers that may take so long and no longer. */
#include "ringbuf/native/fail.h"
#undef RB_FAIL
static void at_point(const char *point);
#define RB_FAIL(point) at_point(point) /* others go on while the dispatcher does */

#include "harness.h"

static struct peer *forger; /* writes another reply whenever one was dropped */
static struct message forged;
static uint32_t forgeries;

static void at_point(const char *point)
{
    if (forger && strcmp(point, "forward.consumed") == 0 && forgeries < 100000)
        forgeries += answer(forger, &forged, "x");
}

/* A handler with a limit begins with a message: ep_begin_limit. */
static uint32_t begin_limit(struct peer *p, const struct message *m, uint64_t limit_ns)
{
    uint32_t i = 0;
    while (rb_load(&p->up->limits[i]))
        CHECK(++i < SB_LIMITS);
    struct sb_limited *limited = &p->up->limited[i];
    uint64_t until = p->world->now + limit_ns, first = rb_load(&p->up->first_limit_ns);
    rb_store(&limited->limit_ns, limit_ns);
    rb_store(&limited->whom, sb_whom(m->header.peer, m->header.peer_generation));
    rb_store(&limited->kind, m->header.kind);
    rb_store(&limited->type_length, m->header.type_length);
    memcpy(limited->id, m->header.correlation, 16);
    memcpy(limited->type, m->type, m->header.type_length);
    rb_store_release(&p->up->limits[i], until);
    if (!first || until < first)
        rb_store_release(&p->up->first_limit_ns, until);
    return i;
}

static void end_limit(struct peer *p, uint32_t i)
{
    rb_store(&p->up->limits[i], 0);
    rb_store(&p->up->first_limit_ns, 0);
    raise_ready(p);
    settle(p->world);
}

struct late {
    struct world *w;
    struct peer *ear, *server, *client;
    struct message m;
};

/* A server that has begun a request of the client, if that is a request. */
static struct late begun(uint16_t kind)
{
    struct late s = {.w = new_world()};
    s.ear = join(s.w, "ear");
    s.server = join(s.w, "server");
    s.client = join(s.w, "client");
    subscribe(s.ear, "$bus.endpoint.overdue");
    handle(s.server, "job.todo");
    if (kind == SB_REQUEST)
        ask(s.client, "job.todo", "x");
    else
        send_to_handler(s.client, "job.todo", "x");
    settle(s.w);
    CHECK(take(s.server, &s.m));
    return s;
}

TEST(whose_handler_takes_longer_than_it_may_is_told_at_that_moment_and_once)
{
    struct late s = begun(SB_REQUEST);
    begin_limit(s.server, &s.m, SECOND);
    advance(s.w, SECOND - MILLISECOND);
    GETS_NOTHING(s.ear);
    struct message m;
    CHECK(!take_reply(s.client, &m));
    EQUAL(s.w->f->next_deadline, s.w->now + MILLISECOND); /* it does not wait for the next look */
    advance(s.w, MILLISECOND);
    CHECK(take_reply(s.client, &m));
    struct sb_fault fault = fault_of(&m);
    EQUAL(fault.code, SB_FAULT_HANDLER_TIMEOUT);
    CHECK(strcmp(fault.name, "server") == 0);
    EQUAL(fault.pid, getpid());
    EQUAL(fault.limit, SECOND);
    CHECK(take(s.ear, &m));
    CHECK(mentions(&m, "server") && mentions(&m, "job.todo") && mentions(&m, "client") && mentions(&m, "request"));
    advance(s.w, 10 * SECOND);
    CHECK(!take_reply(s.client, &m));
    GETS_NOTHING(s.ear);
    EQUAL(rb_load(&s.server->down->overruns), 1);
    CHECK(answer(s.server, &s.m, "late"));
    settle(s.w);
    CHECK(!take_reply(s.client, &m));
    EQUAL(rb_load(&s.w->bus->orphans), 1);
    close_world(s.w);
}

TEST(a_command_whose_handler_is_overdue_is_told_of)
{
    struct late s = begun(SB_SEND);
    uint32_t i = begin_limit(s.server, &s.m, SECOND);
    advance(s.w, SECOND);
    struct message m;
    CHECK(take(s.ear, &m));
    CHECK(mentions(&m, "send") && mentions(&m, "job.todo"));
    EQUAL(s.w->f->ports[s.server->slot].overdue, 1);
    end_limit(s.server, i);
    EQUAL(s.w->f->ports[s.server->slot].overdue, 0);
    send_to_handler(s.client, "job.todo", "y");
    settle(s.w);
    CHECK(take(s.server, &m));
    begin_limit(s.server, &m, SECOND); /* in the same place */
    advance(s.w, SECOND);
    CHECK(take(s.ear, &m));
    EQUAL(rb_load(&s.server->down->overruns), 2);
    close_world(s.w);
}

TEST(a_reply_in_time_is_the_end_of_its_request_even_where_it_is_read_late)
{
    struct late s = begun(SB_REQUEST);
    begin_limit(s.server, &s.m, SECOND);
    CHECK(answer(s.server, &s.m, "in time"));
    s.w->now += 2 * SECOND;
    settle(s.w);
    GETS_REPLY(s.client, "in time");
    struct message m;
    CHECK(!take_reply(s.client, &m));
    EQUAL(rb_load(&s.w->bus->orphans), 0);
    CHECK(take(s.ear, &m)); /* though the handler goes on for too long */
    close_world(s.w);
}

TEST(a_request_that_was_given_up_is_not_failed_as_well)
{
    struct late s = begun(SB_REQUEST);
    begin_limit(s.server, &s.m, SECOND);
    rb_store(&s.client->pending[sb_index_of(s.m.header.correlation)].state, SB_PENDING_FREE);
    advance(s.w, SECOND);
    struct message m;
    CHECK(!take_reply(s.client, &m));
    CHECK(take(s.ear, &m));
    close_world(s.w);
}

TEST(nobody_can_end_a_request_that_was_given_to_another)
{
    struct late s = begun(SB_REQUEST);
    struct peer *forger = join(s.w, "forger");
    begin_limit(forger, &s.m, SECOND);
    advance(s.w, SECOND);
    struct message m;
    CHECK(!take_reply(s.client, &m));
    CHECK(answer(s.server, &s.m, "mine"));
    settle(s.w);
    GETS_REPLY(s.client, "mine");
    close_world(s.w);
}

TEST(limits_that_hold_garbage_harm_nobody)
{
    struct late s = begun(SB_REQUEST);
    uint64_t seed = 3;
    for (int round = 0; round < 200; round++) {
        for (uint32_t i = 0; i < SB_LIMITS; i++) {
            struct sb_limited *limited = &s.server->up->limited[i];
            for (uint64_t *word = (uint64_t *)limited; word < (uint64_t *)(limited + 1); word++)
                *word = draw(&seed) >> draw(&seed) % 64;
            rb_store(&s.server->up->limits[i], draw(&seed) >> draw(&seed) % 64);
        }
        rb_store(&s.server->up->first_limit_ns, draw(&seed) >> draw(&seed) % 64);
        advance(s.w, SECOND / 10);
    }
    struct message m;
    CHECK(!take_reply(s.client, &m));
    CHECK(answer(s.server, &s.m, "all the same"));
    settle(s.w);
    GETS_REPLY(s.client, "all the same");
    CHECK(!s.server->quarantined);
    close_world(s.w);
}

TEST(a_limit_longer_than_the_clock_has_run_is_told_of_to_nobody)
{
    struct late s = begun(SB_REQUEST);
    uint32_t i = begin_limit(s.server, &s.m, SECOND);
    rb_store(&s.server->up->limited[i].limit_ns, s.w->now + 2 * SECOND); /* and it is over in a second */
    advance(s.w, 2 * SECOND);
    GETS_NOTHING(s.ear); /* it would say that the handler has run for longer than this machine */
    struct message m;
    CHECK(!take_reply(s.client, &m));
    CHECK(answer(s.server, &s.m, "all the same"));
    settle(s.w);
    GETS_REPLY(s.client, "all the same");
    close_world(s.w);
}

TEST(who_writes_replies_as_fast_as_they_are_dropped_keeps_nobody_waiting)
{
    struct late s = begun(SB_REQUEST);
    begin_limit(s.server, &s.m, SECOND);
    forged = s.m;
    forged.header.correlation[0] ^= 1; /* of no request */
    CHECK(answer(s.server, &forged, "x"));
    forger = s.server;
    s.w->now += 2 * SECOND;
    one_pass(s.w);
    forger = NULL;
    CHECK(forgeries < 4 * s.w->bus->batch_per_pass);
    GETS_FAULT(s.client, SB_FAULT_HANDLER_TIMEOUT, "server");
    close_world(s.w);
}

/* In all places, something new that was over long ago. */
static void many_are_over(struct late *s, uint64_t round)
{
    for (uint32_t i = 0; i < SB_LIMITS; i++) {
        rb_store(&s->server->up->limits[i], 0);
        begin_limit(s->server, &s->m, 1);
        rb_store(&s->server->up->limits[i], s->w->now - SECOND - round);
    }
    rb_store(&s->server->up->first_limit_ns, 1);
    raise_ready(s->server);
    settle(s->w);
}

TEST(of_one_endpoint_no_more_is_told_in_a_second_than_it_can_have_in_hand)
{
    struct late s = begun(SB_SEND);
    uint32_t told = 0;
    for (uint64_t round = 0; round < 10; round++) {
        many_are_over(&s, round);
        told += count_messages(s.ear);
    }
    EQUAL(told, SB_LIMITS);
    EQUAL(rb_load(&s.server->down->overruns), 10 * SB_LIMITS);
    EQUAL(rb_load(&s.w->bus->events_lost), 9 * SB_LIMITS);
    advance(s.w, SECOND);
    many_are_over(&s, 10);
    EQUAL(count_messages(s.ear), SB_LIMITS);
    close_world(s.w);
}

TEST(a_successor_tells_of_what_became_overdue_meanwhile_and_of_nothing_twice)
{
    struct late s = begun(SB_REQUEST);
    struct message other, m;
    ask(s.client, "job.todo", "y");
    settle(s.w);
    CHECK(take(s.server, &other));
    begin_limit(s.server, &s.m, SECOND);
    begin_limit(s.server, &other, 2 * SECOND);
    advance(s.w, SECOND);
    CHECK(take(s.ear, &m) && take_reply(s.client, &m));
    close_forwarder(s.w->f);
    s.w->now += SECOND;
    reopen(s.w);
    dp_take_orders(s.w->f, true);
    dp_recover(s.w->f);
    settle(s.w);
    CHECK(take_reply(s.client, &m));
    EQUAL(sb_index_of(m.header.correlation), sb_index_of(other.header.correlation));
    CHECK(!take_reply(s.client, &m));
    CHECK(take(s.ear, &m));
    GETS_NOTHING(s.ear);
    EQUAL(rb_load(&s.server->down->overruns), 2);
    close_world(s.w);
}

TEST(who_is_overdue_in_all_its_threads_is_not_free_until_one_returns)
{
    struct late s = begun(SB_SEND);
    struct peer *other = join(s.w, "other");
    handle(other, "job.todo");
    rb_store(&s.server->up->receivers, 1);
    rb_store(&s.server->up->in_hand, 1);
    uint32_t i = begin_limit(s.server, &s.m, SECOND);
    advance(s.w, SECOND);
    for (int n = 0; n < 40; n++) /* more than the other may have */
        send_to_handler(s.client, "job.todo", "y");
    settle(s.w);
    GETS_NOTHING(s.server);
    rb_store(&s.server->up->in_hand, 0);
    end_limit(s.server, i);
    CHECK(count_messages(s.server) > 0);
    close_world(s.w);
}

TEST(the_other_threads_of_who_is_overdue_get_work)
{
    struct late s = begun(SB_SEND);
    struct peer *other = join(s.w, "other");
    handle(other, "job.todo");
    rb_store(&s.server->up->receivers, 2);
    rb_store(&s.server->up->in_hand, 1);
    begin_limit(s.server, &s.m, SECOND);
    advance(s.w, SECOND);
    for (int n = 0; n < 8; n++)
        send_to_handler(s.client, "job.todo", "y");
    settle(s.w);
    CHECK(count_messages(s.server) > 0);
    CHECK(count_messages(other) > 0);
    close_world(s.w);
}
