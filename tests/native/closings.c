/* Endpoints that close in good order: what goes on to others, what is counted, and that nothing is left. */
#include "harness.h"

TEST(who_closes_is_forwarded_drained_and_gone_and_its_slot_is_free_again)
{
    struct world *w = new_world();
    struct peer *ear = join(w, "ear"), *a = join(w, "a"), *p = join(w, "p");
    subscribe(ear, "$bus.endpoint.down");
    subscribe(a, "x");
    for (int i = 0; i < 700; i++) /* more than a batch */
        CHECK(publish(p, "x", "1"));
    say_closing(p);
    EQUAL(rb_load(&p->down->state), SB_DOWN_DRAINED);
    EQUAL(count_messages(a), 700);
    EQUAL(rb_load(&p->up->outgoing[SB_DATA].head), rb_load(&p->down->outgoing[SB_DATA].tail));
    EQUAL(rb_load(&w->f->rows[p->slot].state), SB_ROW_LEAVING);
    GETS_NOTHING(ear);
    say_closed(p);
    CHECK(p->reclaimed && !p->quarantined);
    EQUAL(rb_load(&p->down->state), SB_DOWN_RECLAIMED);
    struct message m;
    CHECK(take(ear, &m) && mentions(&m, "detached"));
    struct peer *again = join(w, "p");
    EQUAL(again->slot, p->slot);
    CHECK(again->generation != p->generation);
    close_world(w);
}

TEST(who_is_closing_gets_nothing_new)
{
    struct world *w = new_world();
    struct peer *p = join(w, "p"), *source = join(w, "source");
    subscribe(p, "x");
    handle(p, "h");
    say_closing(p);
    publish(source, "x", "1");
    ask(source, "h", "1");
    settle(w);
    GETS_NOTHING(p);
    GETS_FAULT(source, SB_FAULT_NO_ROUTE, "");
    EQUAL(rb_load(&w->bus->unrouted), 1);
    close_world(w);
}

TEST(a_command_that_nobody_handles_any_more_names_who_closed_and_did_not_die)
{
    struct world *w = new_world();
    struct peer *ear = join(w, "ear"), *p = join(w, "p"), *client = join(w, "client");
    struct message m;
    subscribe(ear, "$bus.undeliverable");
    handle(p, "do");
    send_to_handler(client, "do", "command");
    settle(w);
    say_closing(p);
    say_closed(p);
    CHECK(take(ear, &m) && mentions(&m, "command") && mentions(&m, "its handler closed"));
    close_world(w);
}

TEST(what_who_closes_had_not_touched_is_handed_on_and_the_rest_is_counted)
{
    struct world *w = new_world();
    struct peer *p = join(w, "p"), *client = join(w, "client");
    subscribe(p, "plain");
    subscribe_group(p, "job", "g", 1);
    handle(p, "ask");
    publish(client, "plain", "event");
    publish(client, "job", "job");
    ask(client, "ask", "request");
    send_to_handler(client, "ask", "send");
    settle(w);
    struct peer *other = join(w, "other");
    subscribe_group(other, "job", "g", 5);
    handle(other, "ask");
    say_closing(p);
    say_closed(p);
    CHECK(p->reclaimed);
    struct message m;
    CHECK(take(other, &m) && strcmp(m.text, "job") == 0);
    EQUAL(m.header.flags & SB_REDELIVERED, SB_REDELIVERED);
    EQUAL(m.header.attempt, 1);
    EQUAL(m.header.interests, 1u << 5);
    EQUAL(m.header.peer, client->slot);
    CHECK(take(other, &m) && strcmp(m.text, "request") == 0);
    CHECK(answer(other, &m, "answered by the other"));
    CHECK(take(other, &m) && strcmp(m.text, "send") == 0);
    GETS_NOTHING(other);
    settle(w);
    GETS_REPLY(client, "answered by the other");
    EQUAL(rb_load(&w->bus->lost), 1);
    EQUAL(rb_load(&w->bus->redelivered), 3);
    EQUAL(rb_load(&other->down->redelivered), 3);
    close_world(w);
}

TEST(who_drains_answers_what_it_had_before_it_goes)
{
    struct world *w = new_world();
    struct peer *p = join(w, "p"), *client = join(w, "client");
    handle(p, "ask");
    ask(client, "ask", "1");
    settle(w);
    say_closing(p);
    struct message m;
    CHECK(take(p, &m) && answer(p, &m, "last words"));
    settle(w);
    GETS_REPLY(client, "last words");
    say_closed(p);
    CHECK(p->reclaimed);
    close_world(w);
}

TEST(a_request_begun_and_not_answered_by_one_who_closes_ends_with_an_error)
{
    struct world *w = new_world();
    struct peer *p = join(w, "p"), *client = join(w, "client");
    handle(p, "ask");
    ask(client, "ask", "1");
    settle(w);
    struct message m;
    CHECK(take(p, &m));
    say_closing(p);
    CHECK(!take_reply(client, &m));
    say_closed(p);
    CHECK(take_reply(client, &m));
    EQUAL(fault_of(&m).code, SB_FAULT_ENDPOINT_DIED);
    EQUAL(fault_of(&m).limit, SB_REASON_DETACHED | SB_BEGUN);
    close_world(w);
}

TEST(who_dies_while_closing_has_died)
{
    struct world *w = new_world();
    struct peer *ear = join(w, "ear"), *p = join(w, "p");
    subscribe(ear, "$bus.endpoint.down");
    say_closing(p);
    die(p, SB_REASON_KILLED);
    struct message m;
    CHECK(take(ear, &m) && mentions(&m, "killed"));
    GETS_NOTHING(ear);
    CHECK(p->reclaimed);
    close_world(w);
}

TEST(who_said_closed_and_then_ends_has_gone_in_good_order)
{
    struct world *w = new_world();
    struct peer *ear = join(w, "ear"), *p = join(w, "p");
    subscribe(ear, "$bus.endpoint.down");
    say_closing(p);
    rb_store_release(&p->up->state, SB_UP_CLOSED);
    die(p, SB_REASON_EXITED);
    struct message m;
    CHECK(take(ear, &m) && mentions(&m, "detached"));
    GETS_NOTHING(ear);
    CHECK(p->reclaimed);
    close_world(w);
}

TEST(who_said_closed_before_anybody_looked_has_gone_in_good_order)
{
    struct world *w = new_world();
    struct peer *ear = join(w, "ear"), *p = join(w, "p");
    subscribe(ear, "$bus.endpoint.down");
    rb_store_release(&p->up->state, SB_UP_CLOSED);
    die(p, SB_REASON_EXEC); /* its door's end was seen first */
    struct message m;
    CHECK(take(ear, &m) && mentions(&m, "detached"));
    GETS_NOTHING(ear);
    CHECK(p->reclaimed);
    close_world(w);
}
