/* Sends and requests: one handler, and one end of every request. */
#include "harness.h"

TEST(a_request_goes_to_its_handler_and_the_reply_comes_back)
{
    struct world *w = new_world();
    struct peer *server = join(w, "server"), *client = join(w, "client");
    handle(server, "echo");
    uint16_t index = ask(client, "echo", "hello");
    settle(w);
    struct message m;
    CHECK(take(server, &m));
    EQUAL(m.header.kind, SB_REQUEST);
    EQUAL(m.header.peer, client->slot);
    EQUAL(m.header.peer_generation, client->generation);
    CHECK(memcmp(m.header.correlation, client->pending[index].id, 16) == 0);
    struct sb_target *target = &w->f->ports[client->slot].given[index];
    EQUAL(rb_load(&target->whom), sb_whom(server->slot, server->generation));
    EQUAL(rb_load(&target->done), 0);
    CHECK(answer(server, &m, "hello yourself"));
    settle(w);
    CHECK(rb_load(&target->done) != 0);
    GETS_REPLY(client, "hello yourself");
    EQUAL(rb_load(&w->bus->orphans), 0);
    close_world(w);
}

TEST(many_requests_in_flight_each_get_their_own_reply_in_any_order)
{
    struct world *w = new_world();
    struct peer *servers[2] = {join(w, "one"), join(w, "two")}, *client = join(w, "client");
    for (int i = 0; i < 2; i++)
        handle(servers[i], "echo");
    uint64_t seed = 7;
    for (int round = 0; round < 200; round++) {
        char text[16];
        struct message m[2][16];
        uint32_t count[2] = {0, 0};
        for (int i = 0; i < 16; i++) {
            snprintf(text, sizeof text, "%d", i);
            uint16_t index = ask(client, "echo", text);
            EQUAL(index, i);
        }
        settle(w);
        for (int s = 0; s < 2; s++)
            while (take(servers[s], &m[s][count[s]]))
                count[s]++;
        EQUAL(count[0] + count[1], 16);
        CHECK(count[0] && count[1]);
        for (int s = 0; s < 2; s++)
            for (; count[s]; count[s]--) {
                uint32_t k = (uint32_t)(draw(&seed) % count[s]);
                CHECK(answer(servers[s], &m[s][k], m[s][k].text));
                m[s][k] = m[s][count[s] - 1];
            }
        settle(w);
        for (int i = 0; i < 16; i++) {
            struct message reply;
            CHECK(take_reply(client, &reply));
            EQUAL(atoi(reply.text), sb_index_of(reply.header.correlation));
        }
    }
    EQUAL(rb_load(&w->bus->orphans), 0);
    close_world(w);
}

TEST(a_handler_is_told_the_attempt_that_its_requester_says)
{
    struct world *w = new_world();
    struct peer *server = join(w, "server"), *client = join(w, "client");
    handle(server, "ask");
    const uint16_t said[] = {1, 2, 0, 0xffff}, told[] = {1, 2, 1, 0xffff};
    for (uint32_t i = 0; i < 4; i++) {
        ask_again(client, "ask", "", said[i]);
        settle(w);
        struct message m;
        CHECK(take(server, &m));
        EQUAL(m.header.attempt, told[i]);
    }
    close_world(w);
}

TEST(the_most_specific_pattern_handles)
{
    struct world *w = new_world();
    struct peer *rest = join(w, "rest"), *star = join(w, "star"), *exact = join(w, "exact");
    struct peer *client = join(w, "client");
    handle(rest, "index.>");
    handle(star, "index.*");
    handle(exact, "index.query");
    struct peer *order[3] = {exact, star, rest};
    const char *types[3] = {"index.query", "index.add", "index.a.b"};
    for (int i = 0; i < 3; i++) {
        CHECK(send_to_handler(client, types[i], "x"));
        settle(w);
        EQUAL(count_messages(order[i]), 1);
        for (int k = 0; k < 3; k++)
            EQUAL(count_messages(order[k]), 0);
    }
    close_world(w);
}

TEST(a_literal_token_further_left_is_more_specific)
{
    struct world *w = new_world();
    struct peer *right = join(w, "right"), *left = join(w, "left"), *client = join(w, "client");
    handle(right, "*.query");
    handle(left, "index.>");
    send_to_handler(client, "index.query", "x");
    settle(w);
    EQUAL(count_messages(left), 1);
    EQUAL(count_messages(right), 0);
    close_world(w);
}

TEST(among_equal_handlers_the_one_with_least_to_do_is_asked_and_equals_in_turn)
{
    struct world *w = new_world();
    struct peer *a = join(w, "a"), *b = join(w, "b"), *client = join(w, "client");
    handle(a, "x");
    handle(b, "x");
    for (int i = 0; i < 6; i++) {
        send_to_handler(client, "x", "1");
        settle(w);
        EQUAL(count_messages(a) + count_messages(b), 1);
    }
    EQUAL(rb_load(&a->up->incoming[SB_DATA].taken_count), 3);
    for (int i = 0; i < 6; i++)
        send_to_handler(client, "x", "1");
    settle(w);
    struct message m;
    CHECK(take(a, &m) && take(a, &m) && take(a, &m));
    GETS_NOTHING(a);
    for (int i = 0; i < 3; i++) /* b has three waiting */
        send_to_handler(client, "x", "2");
    settle(w);
    EQUAL(count_messages(a), 3);
    close_world(w);
}

TEST(events_do_not_reach_handlers_nor_sends_subscribers)
{
    struct world *w = new_world();
    struct peer *handler = join(w, "handler"), *subscriber = join(w, "subscriber"), *client = join(w, "client");
    handle(handler, "x");
    subscribe(subscriber, "x");
    publish(client, "x", "event");
    send_to_handler(client, "x", "send");
    settle(w);
    GETS(handler, "send");
    GETS_NOTHING(handler);
    GETS(subscriber, "event");
    GETS_NOTHING(subscriber);
    close_world(w);
}

TEST(a_request_that_nobody_handles_fails_at_once)
{
    struct world *w = new_world();
    struct peer *client = join(w, "client");
    ask(client, "nothing", "x");
    settle(w);
    GETS_FAULT(client, SB_FAULT_NO_ROUTE, "");
    EQUAL(rb_load(&w->bus->no_route), 1);
    close_world(w);
}

TEST(a_send_that_nobody_handles_is_a_dead_letter_and_counted_at_its_sender)
{
    struct world *w = new_world();
    struct peer *ear = join(w, "ear"), *client = join(w, "client");
    subscribe(ear, "$bus.undeliverable");
    send_to_handler(client, "nothing.here", "the payload");
    settle(w);
    struct message m;
    CHECK(take(ear, &m));
    CHECK(mentions(&m, "nothing.here") && mentions(&m, "the payload") && mentions(&m, "client"));
    CHECK(mentions(&m, "nobody handles it"));
    EQUAL(rb_load(&w->bus->dead_letters), 1);
    EQUAL(rb_load(&client->down->undeliverable), 1);
    close_world(w);
}

TEST(a_dead_letter_keeps_as_much_of_the_payload_as_every_subscriber_takes)
{
    struct world *w = new_world();
    struct peer *small = join_sized(w, "small", (struct size){.data_in = 4096}), *large = join(w, "large");
    struct peer *client = join(w, "client");
    subscribe(small, "$bus.undeliverable");
    subscribe(large, "$bus.undeliverable");
    static char text[5000];
    memset(text, 'z', sizeof text - 1);
    send_to_handler(client, "nothing", text);
    settle(w);
    struct message m;
    CHECK(take(small, &m) && mentions(&m, "zzzz"));
    CHECK(take(large, &m) && mentions(&m, "zzzz"));
    CHECK(m.header.length <= rb_largest_record(4096));
    close_world(w);
}

TEST(a_late_or_second_reply_is_dropped_and_counted)
{
    struct world *w = new_world();
    struct peer *server = join(w, "server"), *client = join(w, "client");
    handle(server, "x");
    ask(client, "x", "1");
    settle(w);
    struct message m;
    CHECK(take(server, &m));
    CHECK(answer(server, &m, "first") && answer(server, &m, "in the same run"));
    settle(w);
    CHECK(answer(server, &m, "later"));
    settle(w);
    GETS_REPLY(client, "first");
    CHECK(!take_reply(client, &m));
    EQUAL(rb_load(&w->bus->orphans), 2);
    close_world(w);
}

TEST(a_reply_from_another_than_the_target_is_dropped_and_counted)
{
    struct world *w = new_world();
    struct peer *server = join(w, "server"), *thief = join(w, "thief"), *client = join(w, "client");
    handle(server, "x");
    ask(client, "x", "1");
    settle(w);
    struct message m, none;
    CHECK(take(server, &m));
    CHECK(answer(thief, &m, "forged"));
    settle(w);
    CHECK(!take_reply(client, &none));
    EQUAL(rb_load(&w->bus->orphans), 1);
    CHECK(answer(server, &m, "true"));
    settle(w);
    GETS_REPLY(client, "true");
    CHECK(!thief->quarantined);
    close_world(w);
}

TEST(a_reply_to_an_earlier_request_of_the_same_entry_is_dropped)
{
    struct world *w = new_world();
    struct peer *server = join(w, "server"), *client = join(w, "client");
    handle(server, "x");
    uint16_t index = ask(client, "x", "1");
    settle(w);
    struct message old, m;
    CHECK(take(server, &old));
    rb_store(&client->pending[index].state, SB_PENDING_FREE); /* gave up */
    EQUAL(ask(client, "x", "2"), index);
    settle(w);
    CHECK(take(server, &m));
    answer(server, &old, "old");
    answer(server, &m, "new");
    settle(w);
    GETS_REPLY(client, "new");
    CHECK(!take_reply(client, &m));
    EQUAL(rb_load(&w->bus->orphans), 1);
    close_world(w);
}

TEST(a_request_whose_caller_has_given_up_is_not_delivered)
{
    struct world *w = new_world();
    struct peer *server = join(w, "server"), *client = join(w, "client");
    handle(server, "x");
    uint16_t index = ask(client, "x", "1");
    rb_store(&client->pending[index].state, SB_PENDING_FREE);
    settle(w);
    GETS_NOTHING(server);
    CHECK(!take_reply(client, &(struct message){0}));
    close_world(w);
}

static void collide(bool same_run)
{
    struct world *w = new_world();
    struct peer *server = join(w, "server"), *client = join(w, "client");
    handle(server, "x");
    uint16_t index = ask(client, "x", "1");
    if (!same_run)
        settle(w);
    struct sb_record h = {.kind = SB_REQUEST, .flags = SB_RAW};
    memcpy(h.correlation, client->pending[index].id, 16);
    CHECK(put(client, SB_DATA, h, "x", "2", 1));
    flush(client);
    settle(w);
    EQUAL(count_messages(server), 1);
    GETS_FAULT(client, SB_FAULT_COLLISION, "client");
    CHECK(!take_reply(client, &(struct message){0}));
    close_world(w);
}

TEST(a_second_request_with_an_id_under_way_is_refused) { collide(false); }
TEST(a_second_request_with_an_id_of_the_same_run_is_refused) { collide(true); }

TEST(a_request_too_large_for_its_only_handler_says_whose_ring_is_too_small)
{
    struct world *w = new_world();
    struct peer *server = join_sized(w, "server", (struct size){.data_in = 1024}), *client = join(w, "client");
    struct peer *ear = join(w, "ear");
    subscribe(ear, "$bus.undeliverable");
    handle(server, "x");
    static char text[600];
    memset(text, 'z', sizeof text - 1);
    ask(client, "x", text);
    settle(w);
    struct message m;
    CHECK(take_reply(client, &m));
    struct sb_fault fault = fault_of(&m);
    EQUAL(fault.code, SB_FAULT_TOO_LARGE);
    EQUAL(fault.limit, 256 - SB_HEADER - 1);
    CHECK(strcmp(fault.name, "server") == 0);
    send_to_handler(client, "x", text);
    settle(w);
    CHECK(take(ear, &m) && mentions(&m, "too large"));
    GETS_NOTHING(server);
    close_world(w);
}

TEST(a_handler_whose_queue_stays_full_refuses_requests_and_makes_dead_letters_of_sends)
{
    struct world *w = new_world();
    struct peer *server = join_sized(w, "server", (struct size){.data_in = 1024}), *client = join(w, "client");
    struct peer *ear = join(w, "ear");
    subscribe(ear, "$bus.undeliverable");
    handle(server, "x");
    static char text[150];
    memset(text, 'z', sizeof text - 1);
    for (int i = 0; i < 8; i++)
        ask(client, "x", text);
    for (int i = 0; i < 3; i++)
        send_to_handler(client, "x", text);
    settle(w);
    CHECK(!take_reply(client, &(struct message){0}));
    advance(w, 5 * SECOND);
    uint32_t served = count_messages(server), failed = 0;
    struct message m;
    while (take_reply(client, &m)) {
        EQUAL(fault_of(&m).code, SB_FAULT_HANDLER_FULL);
        failed++;
    }
    EQUAL(served + failed, 8);
    CHECK(served > 0 && failed > 0);
    EQUAL(count_messages(ear), 3);
    close_world(w);
}

TEST(replies_are_not_stuck_behind_events)
{
    struct world *w = new_world();
    struct peer *full = join_sized(w, "full", (struct size){.data_in = 1024});
    struct peer *server = join(w, "server"), *client = join(w, "client");
    subscribe(full, "x");
    handle(server, "ask");
    ask(client, "ask", "1");
    settle(w);
    struct message m;
    CHECK(take(server, &m));
    for (int i = 0; i < 20; i++)
        publish_bytes(server, "x", 100); /* the server's data ring waits now */
    settle(w);
    CHECK(answer(server, &m, "soon"));
    settle(w);
    GETS_REPLY(client, "soon");
    close_world(w);
}

/* The reply ring of a requester with n entries keeps space for two errors each. */
TEST(errors_fit_where_replies_do_not)
{
    struct world *w = new_world();
    struct size tight = {.replies_in = 4096, .requests = 8};
    struct peer *server = join(w, "server"), *client = join_sized(w, "client", tight);
    handle(server, "x");
    static char text[600];
    memset(text, 'z', sizeof text - 1);
    for (int i = 0; i < 8; i++)
        ask(client, "x", "1");
    settle(w);
    struct message m[8], reply;
    for (int i = 0; i < 8; i++)
        CHECK(take(server, &m[i]));
    for (int i = 0; i < 8; i++)
        CHECK(answer(server, &m[i], text));
    settle(w);
    CHECK(rb_depth(&client->down->incoming[SB_REPLIES].head, &client->up->incoming[SB_REPLIES].tail) <= 4096 - 2048);
    advance(w, 3 * SECOND); /* the client drains nothing */
    uint32_t replies = 0, lost = 0;
    while (take_reply(client, &reply))
        if (reply.header.kind == SB_REPLY)
            replies++;
        else {
            struct sb_fault fault = fault_of(&reply);
            EQUAL(fault.code, SB_FAULT_REPLY_LOST);
            CHECK(strcmp(fault.name, "server") == 0);
            lost++;
        }
    EQUAL(replies + lost, 8);
    CHECK(replies > 0 && lost > 0);
    EQUAL(rb_load(&w->bus->events_lost), 0);
    advance(w, SECOND);
    ask(client, "x", "again");
    settle(w);
    CHECK(take(server, &m[0]) && answer(server, &m[0], "fine"));
    settle(w);
    GETS_REPLY(client, "fine");
    close_world(w);
}

TEST(a_reply_too_large_for_its_requester_is_told_to_it)
{
    struct world *w = new_world();
    struct peer *server = join(w, "server");
    struct peer *client = join_sized(w, "client", (struct size){.replies_in = 1024, .requests = 2});
    handle(server, "x");
    ask(client, "x", "1");
    settle(w);
    struct message m;
    static char text[600];
    memset(text, 'z', sizeof text - 1);
    CHECK(take(server, &m) && answer(server, &m, text));
    settle(w);
    CHECK(take_reply(client, &m));
    EQUAL(fault_of(&m).code, SB_FAULT_REPLY_LOST);
    EQUAL(fault_of(&m).limit, 256 - SB_HEADER);
    close_world(w);
}

TEST(an_endpoint_can_ask_itself)
{
    struct world *w = new_world();
    struct peer *p = join(w, "p");
    handle(p, "x");
    ask(p, "x", "1");
    settle(w);
    struct message m;
    CHECK(take(p, &m) && answer(p, &m, "me"));
    settle(w);
    GETS_REPLY(p, "me");
    close_world(w);
}

TEST(a_handlers_failure_reaches_the_caller_as_it_was_told)
{
    struct world *w = new_world();
    struct peer *server = join(w, "server"), *client = join(w, "client");
    handle(server, "x");
    ask(client, "x", "1");
    settle(w);
    struct message m;
    CHECK(take(server, &m));
    struct sb_record h = {.kind = SB_ERROR, .flags = SB_REMOTE, .peer = m.header.peer,
                          .peer_generation = m.header.peer_generation};
    memcpy(h.correlation, m.header.correlation, 16);
    CHECK(put(server, SB_REPLIES, h, "", "traceback", 9));
    flush(server);
    settle(w);
    CHECK(take_reply(client, &m));
    EQUAL(m.header.kind, SB_ERROR);
    EQUAL(m.header.flags, SB_REMOTE);
    EQUAL(m.header.peer, server->slot);
    CHECK(strcmp(m.text, "traceback") == 0);
    close_world(w);
}
