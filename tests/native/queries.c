/* Queries, requests for one endpoint, and being told who is there. */
#include "harness.h"

static struct sb_found found_in(const struct message *m)
{
    struct sb_found found;
    EQUAL(m->header.kind, SB_REPLY);
    EQUAL(m->header.peer, SB_FROM_BUS);
    memcpy(&found, m->text, sizeof found);
    return found;
}

static uint64_t named(const struct message *m, uint32_t i)
{
    uint64_t whom;
    memcpy(&whom, m->text + sizeof(struct sb_found) + 8 * i, 8);
    return whom;
}

static uint32_t names(const struct message *m)
{
    return (uint32_t)((m->header.length - SB_HEADER - sizeof(struct sb_found)) / 8);
}

TEST(a_query_is_answered_with_who_receives_and_who_handles_each_once)
{
    struct world *w = new_world();
    struct peer *a = join(w, "a"), *b = join(w, "b"), *client = join(w, "client");
    struct message m;
    subscribe(a, "x.y");
    subscribe(a, "x.*");
    subscribe_group(b, "x.>", "g", 1);
    handle(a, "x.y");
    handle(b, ">");
    query(client, "x.y", 0);
    settle(w);
    CHECK(take_reply(client, &m));
    struct sb_found found = found_in(&m);
    EQUAL(found.receivers, 2);
    EQUAL(found.handlers, 2);
    EQUAL(found.version, rb_load(&w->bus->routes_version));
    EQUAL(names(&m), 2);
    EQUAL(named(&m, 0), sb_whom(a->slot, a->generation));
    EQUAL(named(&m, 1), sb_whom(b->slot, b->generation));
    query(client, "x.y", a->slot + 1);
    settle(w);
    CHECK(take_reply(client, &m));
    EQUAL(found_in(&m).handlers, 2);
    EQUAL(names(&m), 1);
    EQUAL(named(&m, 0), sb_whom(b->slot, b->generation));
    EQUAL(rb_load(&client->down->forwarded), 0); /* it is no message */
    EQUAL(rb_load(&w->bus->routed), 0);
    close_world(w);
}

TEST(an_answer_without_space_takes_that_of_its_own_error_and_names_fewer)
{
    struct world *w = new_world();
    struct size small = {.replies_in = 2048, .requests = 4};
    struct peer *client = join_sized(w, "client", small), *server = join(w, "server");
    struct message m;
    handle(server, "ask");
    for (int i = 0; i < 10; i++) {
        char name[16];
        snprintf(name, sizeof name, "p%d", i);
        handle(join_sized(w, name, small), "many");
    }
    char large[420] = {0};
    memset(large, 'x', sizeof large - 1);
    for (int i = 0; i < 2; i++) { /* they fill what is not kept for errors */
        ask(client, "ask", "");
        settle(w);
        CHECK(take(server, &m) && answer(server, &m, large));
        settle(w);
    }
    query(client, "many", 0);
    settle(w);
    for (int i = 0; i < 3; i++)
        CHECK(take_reply(client, &m));
    EQUAL(found_in(&m).handlers, 10);
    EQUAL(names(&m), SB_FOUND_LEAST);
    EQUAL(rb_load(&w->bus->events_lost), 0);
    close_world(w);
}

TEST(a_query_in_the_entry_of_a_request_before_withdraws_nothing_of_that)
{
    struct world *w = new_world();
    struct peer *server = join(w, "server"), *client = join(w, "client");
    struct message m;
    handle(server, "ask");
    uint16_t index = ask(client, "ask", "");
    settle(w);
    CHECK(take(server, &m) && answer(server, &m, "yes"));
    settle(w);
    CHECK(take_reply(client, &m));
    EQUAL(query(client, "x", 0), index);
    settle(w);
    CHECK(take_reply(client, &m));
    dp_set_add(&w->f->untold, client->slot); /* as if it had withdrawn another one, and its server had no space */
    advance(w, 2 * DP_LOOK_NS);
    CHECK(!take_reply(server, &m));
    EQUAL(rb_load(&w->bus->cancels), 0);
    close_world(w);
}

TEST(whoever_does_not_wait_for_an_answer_any_more_gets_none)
{
    struct world *w = new_world();
    struct peer *client = join(w, "client");
    struct message m;
    withdraw(client, query(client, "x", 0));
    settle(w);
    CHECK(!take_reply(client, &m));
    EQUAL(rb_load(&w->bus->orphans), 0);
    EQUAL(rb_load(&w->bus->violations), 0);
    close_world(w);
}

static void is_garbage(struct sb_record h, const char *type, const char *text)
{
    struct world *w = new_world();
    struct peer *client = join(w, "client");
    ask_of(client, h, type, text);
    settle(w);
    EQUAL(rb_load(&w->bus->violations), 1);
    close_world(w);
}

TEST(a_query_that_no_endpoint_writes_is_a_violation)
{
    is_garbage((struct sb_record){.kind = SB_QUERY}, "a..b", "");
    is_garbage((struct sb_record){.kind = SB_QUERY}, "a", "payload");
    is_garbage((struct sb_record){.kind = SB_QUERY}, "", "");
    is_garbage((struct sb_record){.kind = SB_REQUEST, .flags = SB_DIRECTED, .peer = SB_MAX_SLOTS}, "a", "");
}

TEST(a_request_for_one_endpoint_goes_to_that_one_whoever_else_handles_it)
{
    struct world *w = new_world();
    struct peer *a = join(w, "a"), *b = join(w, "b"), *client = join(w, "client");
    struct message m;
    handle(a, "ask");
    handle(b, "*");
    for (int i = 0; i < 3; i++)
        ask_alone(client, b, "ask", "b");
    settle(w);
    GETS_NOTHING(a);
    for (int i = 0; i < 3; i++) {
        CHECK(take(b, &m) && answer(b, &m, "here"));
        EQUAL(m.header.flags & SB_DIRECTED, SB_DIRECTED);
    }
    settle(w);
    for (int i = 0; i < 3; i++)
        GETS_REPLY(client, "here");
    close_world(w);
}

TEST(a_request_for_one_that_has_gone_or_goes_untouched_ends_with_an_error_that_says_not_begun)
{
    struct world *w = new_world();
    struct peer *a = join(w, "a"), *b = join(w, "b"), *client = join(w, "client");
    struct message m;
    handle(a, "ask");
    handle(b, "ask");
    ask_alone(client, b, "ask", "1");
    settle(w);
    die(b, SB_REASON_KILLED);
    ask_alone(client, b, "ask", "2");
    settle(w);
    GETS_NOTHING(a);
    for (int i = 0; i < 2; i++) {
        CHECK(take_reply(client, &m));
        struct sb_fault fault = fault_of(&m);
        EQUAL(fault.code, SB_FAULT_ENDPOINT_DIED);
        EQUAL(fault.limit & SB_BEGUN, 0);
        CHECK(strcmp(fault.name, "b") == 0);
    }
    close_world(w);
}

TEST(a_request_for_one_whose_ring_is_full_is_refused_at_once_and_what_stands_behind_it_goes_on)
{
    struct world *w = new_world();
    struct peer *full = join_sized(w, "full", (struct size){.data_in = 2048});
    struct peer *b = join(w, "b"), *client = join(w, "client");
    struct message m;
    char large[400] = {0};
    memset(large, 'x', sizeof large - 1);
    handle(full, "ask");
    handle(b, "ask");
    for (int i = 0; i < 6; i++)
        ask_alone(client, full, "ask", large);
    ask_alone(client, b, "ask", "behind");
    settle(w);
    GETS(b, "behind");
    uint32_t refused = 0, got = 0;
    for (; take_reply(client, &m); refused++)
        EQUAL(fault_of(&m).code, SB_FAULT_HANDLER_FULL);
    for (; take(full, &m); got++)
        ;
    EQUAL(refused + got, 6);
    CHECK(refused > 0 && got > 0);
    close_world(w);
}

static void is_told(struct peer *p, uint64_t id, uint8_t receivers)
{
    struct message m;
    CHECK(take(p, &m));
    EQUAL(m.header.flags & SB_ALONE, SB_ALONE);
    EQUAL(m.header.deadline_ns, id);
    const char *at = memmem(m.text, sizeof m.text, "receivers", 9);
    CHECK(at && (uint8_t)at[9 + 8] == receivers);
}

TEST(who_asked_is_told_of_the_first_and_the_last_and_nobody_else_is)
{
    struct world *w = new_world();
    struct peer *producer = join(w, "producer"), *a = join(w, "a"), *b = join(w, "b");
    uint64_t id = await_receivers(producer, "x.>");
    is_told(producer, id, 0);
    uint64_t first = subscribe(a, "*.y"), second = subscribe(a, "x.*");
    is_told(producer, id, 1);
    subscribe(b, "$bus.>");
    subscribe_group(b, "x.y", "g", 1);
    remove_interest(a, first);
    remove_interest(a, second);
    GETS_NOTHING(producer);
    GETS_NOTHING(b);
    die(b, SB_REASON_KILLED);
    is_told(producer, id, 0);
    GETS_NOTHING(producer);
    remove_interest(producer, id);
    subscribe(a, "x");
    GETS_NOTHING(producer);
    close_world(w);
}

TEST(what_finds_no_space_is_told_when_there_is_some_as_it_is_by_then)
{
    struct world *w = new_world();
    struct peer *producer = join_sized(w, "producer", (struct size){.data_in = 2048}), *a = join(w, "a");
    struct message m;
    uint64_t id = await_receivers(producer, "x");
    is_told(producer, id, 0);
    subscribe_lossy(producer, "noise");
    for (int i = 0; i < 200; i++)
        publish(a, "noise", "");
    settle(w);
    uint64_t first = subscribe(a, "x");
    remove_interest(a, first);
    subscribe(a, "x");
    while (take(producer, &m) && !(m.header.flags & SB_ALONE))
        ;
    CHECK(!(m.header.flags & SB_ALONE));
    settle(w);
    is_told(producer, id, 1);
    GETS_NOTHING(producer);
    EQUAL(rb_load(&w->bus->events_lost), 0);
    close_world(w);
}
