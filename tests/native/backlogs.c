/* Work goes to who is free; what nobody is free for waits in a backlog. */
#include "harness.h"

static uint32_t waiting(struct world *w)
{
    uint32_t n = 0;
    uint64_t left = w->f->backlogs_open;
    for (struct dp_port *b; (b = dp_next_backlog(w->f, &left));)
        n += (uint32_t)(b->delivered - rb_load(&b->down->forwarded));
    return n;
}

TEST(who_is_hung_holds_prefetch_messages_at_the_most_whatever_the_burst)
{
    struct world *w = open_world((struct plan){.prefetch = 3});
    struct peer *hung = join(w, "hung"), *worker = join(w, "worker");
    struct peer *source = join_sized(w, "source", (struct size){.requests = 128});
    subscribe_group(hung, "job", "g", 1);
    subscribe_group(worker, "job", "g", 2);
    handle(hung, "do");
    handle(worker, "do");
    for (int i = 0; i < 100; i++)
        publish(source, "job", "j");
    settle(w);
    EQUAL(dp_untouched(&w->f->ports[hung->slot]), 3);
    EQUAL(waiting(w), 94);
    EQUAL(count_messages(worker), 97);
    for (int i = 0; i < 50; i++)
        ask(source, "do", "r"), send_to_handler(source, "do", "s");
    settle(w);
    EQUAL(dp_untouched(&w->f->ports[hung->slot]), 3); /* for all of these together */
    EQUAL(count_messages(worker), 100);
    EQUAL(waiting(w), 0);
    close_world(w);
}

TEST(with_a_prefetch_of_one_nothing_waits_behind_a_message_in_hand)
{
    struct world *w = open_world((struct plan){.prefetch = 1});
    struct peer *busy = join(w, "busy"), *idle = join(w, "idle"), *source = join(w, "source");
    struct message m, job;
    subscribe_group(busy, "job", "g", 1);
    publish(source, "job", "long");
    settle(w);
    CHECK(begin(busy, &m));
    subscribe_group(idle, "job", "g", 1);
    for (int i = 0; i < 40; i++)
        publish(source, "job", "j");
    settle(w);
    EQUAL(dp_untouched(&w->f->ports[busy->slot]), 0);
    for (int i = 0; i < 40; i++) { /* one at a time, each as soon as the one before is done */
        CHECK(begin(idle, &job));
        settle(w);
        EQUAL(dp_untouched(&w->f->ports[idle->slot]), 0);
        finish(idle, &job);
        settle(w);
    }
    GETS_NOTHING(busy);
    finish(busy, &m);
    publish(source, "job", "next");
    settle(w);
    EQUAL(count_messages(busy) + count_messages(idle), 1);
    close_world(w);
}

/* A worker with one thread. */
static struct peer *join_worker(struct world *w, const char *name)
{
    struct peer *p = join(w, name);
    rb_store(&p->up->receivers, 1);
    subscribe_group(p, "job", "g", 1);
    return p;
}

TEST(of_one_burst_no_more_than_one_message_waits_behind_the_long_one)
{
    struct world *w = new_world();
    struct peer *busy = join_worker(w, "busy"), *idle = join_worker(w, "idle"), *source = join(w, "source");
    struct message m, job;
    for (int i = 0; i < 41; i++)
        publish(source, "job", i ? "short" : "long");
    settle(w);
    CHECK(begin(busy, &m));
    CHECK(strcmp(m.text, "long") == 0);
    settle(w);
    uint32_t done = 0;
    for (; begin(idle, &job); done++) {
        settle(w);
        finish(idle, &job);
        settle(w);
    }
    EQUAL(done, 39);
    EQUAL(dp_untouched(&w->f->ports[busy->slot]), 1);
    EQUAL(waiting(w), 0);
    close_world(w);
}

TEST(who_finishes_many_gets_more_at_once_and_who_has_lately_finished_none_gets_one)
{
    struct world *w = open_world((struct plan){.prefetch = 8});
    struct peer *worker = join_worker(w, "worker"), *source = join(w, "source");
    for (int i = 0; i < 100; i++)
        publish(source, "job", "j");
    settle(w);
    const uint32_t rooms[] = {1, 2, 4, 8, 8};
    for (int i = 0; i < 5; i++) {
        EQUAL(dp_untouched(&w->f->ports[worker->slot]), rooms[i]);
        for (struct message m; take(worker, &m);)
            ;
        if (i == 4)
            w->now += SECOND / 10;
        settle(w);
    }
    EQUAL(dp_untouched(&w->f->ports[worker->slot]), 1);
    close_world(w);
}

TEST(events_for_the_worker_itself_earn_it_no_work)
{
    struct world *w = open_world((struct plan){.prefetch = 8});
    struct peer *worker = join_worker(w, "worker"), *source = join(w, "source");
    struct message m;
    subscribe(worker, "tick");
    publish(source, "job", "looked at"); /* what is done from now on is done lately */
    settle(w);
    CHECK(take(worker, &m));
    for (int i = 0; i < 5; i++)
        publish(source, "tick", "t");
    settle(w);
    for (int i = 0; i < 5; i++)
        CHECK(take(worker, &m));
    for (int i = 0; i < 10; i++)
        publish(source, "job", "j");
    settle(w);
    EQUAL(dp_untouched(&w->f->ports[worker->slot]), 2); /* one, and one for the job that it has done */
    close_world(w);
}

TEST(who_has_more_in_hand_than_it_may_gets_no_more)
{
    struct world *w = open_world((struct plan){.prefetch = 2});
    struct peer *busy = join(w, "busy"), *idle = join(w, "idle"), *source = join(w, "source");
    struct message m;
    subscribe_group(busy, "job", "g", 1);
    subscribe_group(idle, "job", "g", 1);
    handle(busy, "ask");
    for (int i = 0; i < 4; i++)
        ask(source, "ask", "answered later"); /* as it is the only one who handles that, it has all of them */
    settle(w);
    for (int i = 0; i < 4; i++)
        CHECK(begin(busy, &m));
    for (int i = 0; i < 20; i++)
        publish(source, "job", "j");
    settle(w);
    EQUAL(dp_untouched(&w->f->ports[busy->slot]), 0);
    EQUAL(count_messages(idle), 20);
    close_world(w);
}

TEST(who_is_stalled_gets_no_more_until_it_goes_on)
{
    struct world *w = new_world();
    struct peer *hung = join(w, "hung"), *worker = join(w, "worker"), *source = join(w, "source");
    struct message m;
    subscribe_group(hung, "job", "g", 1);
    subscribe_group(worker, "job", "g", 1);
    publish(source, "job", "1"), publish(source, "job", "2");
    settle(w);
    CHECK(take(worker, &m));
    advance(w, 3 * SECOND);
    for (int i = 0; i < 40; i++)
        publish(source, "job", "j");
    settle(w);
    EQUAL(dp_untouched(&w->f->ports[hung->slot]), 1);
    CHECK(take(hung, &m));
    settle(w);
    CHECK(count_messages(hung) > 0);
    close_world(w);
}

TEST(who_rang_and_was_found_behind_a_long_message_gets_what_waits_as_soon_as_that_is_done)
{
    struct world *w = open_world((struct plan){.prefetch = 4});
    struct peer *worker = join(w, "worker"), *source = join(w, "source");
    struct message m;
    rb_store(&worker->up->receivers, 2);
    subscribe_group(worker, "job", "g", 1);
    for (int i = 0; i < 3; i++)
        publish(source, "job", "j");
    settle(w);
    EQUAL(dp_untouched(&w->f->ports[worker->slot]), 2);
    CHECK(begin(worker, &m)); /* it rings; its other thread has nothing in hand, and one message to take */
    settle(w);
    EQUAL(waiting(w), 1);
    CHECK(take(worker, &m));
    settle(w);
    EQUAL(waiting(w), 0);
    close_world(w);
}

TEST(what_waits_keeps_its_order_and_others_pass_it)
{
    struct world *w = open_world((struct plan){.prefetch = 1});
    struct peer *worker = join(w, "worker"), *ear = join(w, "ear"), *source = join(w, "source");
    subscribe_group(worker, "job", "g", 1);
    subscribe(ear, "news");
    char text[16];
    for (int i = 0; i < 20; i++) {
        snprintf(text, sizeof text, "%d", i);
        publish(source, "job", text);
        publish(source, "news", text);
    }
    settle(w);
    EQUAL(count_messages(ear), 20); /* with nothing taken by the worker */
    for (int i = 0; i < 20; i++) {
        snprintf(text, sizeof text, "%d", i);
        GETS(worker, text);
        settle(w);
    }
    GETS_NOTHING(worker);
    close_world(w);
}

TEST(what_comes_as_somebody_becomes_free_does_not_pass_what_waits)
{
    for (int before = 0; before < 2; before++) { /* whichever of them the dispatcher visits first */
        struct world *w = open_world((struct plan){.prefetch = 1});
        struct peer *one = before ? join(w, "source") : NULL;
        struct peer *worker = join(w, "worker"), *source = one ? one : join(w, "source");
        subscribe_group(worker, "job", "g", 1);
        publish(source, "job", "1"), publish(source, "job", "2"), publish(source, "job", "3");
        settle(w);
        GETS(worker, "1");
        publish(source, "job", "4");
        settle(w);
        GETS(worker, "2");
        publish(source, "job", "5");
        settle(w);
        for (int i = 3; i <= 5; i++) {
            GETS(worker, ((char[]){(char)('0' + i), 0}));
            settle(w);
        }
        close_world(w);
    }
}

TEST(a_request_that_waits_is_answered_by_whoever_is_free_first)
{
    struct world *w = open_world((struct plan){.prefetch = 1});
    struct peer *hung = join(w, "hung"), *worker = join(w, "worker"), *client = join(w, "client");
    struct message m;
    handle(hung, "ask");
    handle(worker, "ask");
    for (int i = 0; i < 5; i++)
        ask(client, "ask", "q");
    settle(w);
    EQUAL(waiting(w), 3);
    for (int i = 0; i < 4; i++) {
        CHECK(take(worker, &m));
        EQUAL(m.header.peer, client->slot);
        EQUAL(m.header.peer_generation, client->generation);
        EQUAL(m.header.flags & SB_REDELIVERED, 0);
        CHECK(answer(worker, &m, "answered"));
        settle(w);
        GETS_REPLY(client, "answered");
    }
    GETS_NOTHING(worker);
    EQUAL(waiting(w), 0);
    EQUAL(rb_load(&w->bus->redelivered), 0);
    close_world(w);
}

TEST(a_request_that_nobody_waits_for_any_more_leaves_the_backlog_unasked)
{
    struct world *w = open_world((struct plan){.prefetch = 1});
    struct peer *a = join(w, "a"), *b = join(w, "b"), *client = join(w, "client");
    handle(a, "ask");
    handle(b, "ask");
    ask(client, "ask", "1"), ask(client, "ask", "2");
    uint16_t given_up = ask(client, "ask", "3");
    ask(client, "ask", "4");
    settle(w);
    rb_store(&client->pending[given_up].state, SB_PENDING_FREE);
    GETS(a, "1");
    settle(w);
    GETS(a, "4");
    settle(w);
    EQUAL(waiting(w), 0);
    close_world(w);
}

TEST(what_waits_goes_to_a_worker_that_joins_later)
{
    struct world *w = open_world((struct plan){.prefetch = 2});
    struct peer *hung = join(w, "hung"), *source = join(w, "source");
    subscribe_group(hung, "job", "g", 1);
    for (int i = 0; i < 20; i++)
        publish(source, "job", "j");
    settle(w);
    struct peer *later = join(w, "later");
    subscribe_group(later, "job", "g", 7);
    struct message m;
    CHECK(take(later, &m));
    EQUAL(m.header.interests, 1u << 7);
    EQUAL(1 + count_messages(later), 18);
    close_world(w);
}

TEST(what_waits_when_the_last_has_gone_is_told_of)
{
    struct world *w = open_world((struct plan){.prefetch = 1});
    struct peer *ear = join(w, "ear"), *worker = join(w, "worker"), *other = join(w, "other");
    struct peer *client = join(w, "client");
    subscribe(ear, "$bus.undeliverable");
    subscribe_group(worker, "job", "g", 1);
    handle(worker, "do");
    handle(other, "do");
    publish(client, "job", "1"), publish(client, "job", "2");
    settle(w);
    send_to_handler(client, "do", "1"), ask(client, "do", "1");
    ask(client, "do", "2"), send_to_handler(client, "do", "3");
    settle(w);
    die(worker, SB_REASON_KILLED);
    die(other, SB_REASON_KILLED);
    EQUAL(waiting(w), 0);
    EQUAL(rb_load(&w->bus->dead_letters), 4);
    EQUAL(count_messages(ear), 4);
    struct message m;
    for (int i = 0; i < 2; i++) {
        CHECK(take_reply(client, &m));
        EQUAL(m.header.kind, SB_ERROR);
    }
    close_world(w);
}

TEST(a_full_backlog_keeps_its_sources_waiting_and_then_what_is_lost_is_counted)
{
    struct world *w = open_world((struct plan){.prefetch = 1, .backlog_bytes = 4096});
    struct size small = {.data_out = 4096};
    struct peer *worker = join_sized(w, "worker", small), *source = join_sized(w, "source", small);
    struct peer *other = join_sized(w, "other", small);
    subscribe_group(worker, "job", "g", 1);
    subscribe(worker, "hello");
    uint32_t sent = 0;
    for (int i = 0; i < 60; i++) {
        sent += publish_bytes(source, "job", 200);
        settle(w);
    }
    CHECK(sent < 60 && sent > 15); /* its own ring is full, too: publish() would wait */
    publish(other, "hello", "passes");
    settle(w);
    EQUAL(rb_load(&w->bus->lost), 0);
    EQUAL(count_messages(worker), sent + 1);
    for (int i = 0; i < 60; i++) {
        publish_bytes(source, "job", 200);
        settle(w);
    }
    advance(w, 5 * SECOND); /* nobody takes anything */
    CHECK(rb_load(&w->bus->lost) > 0);
    close_world(w);
}

TEST(an_empty_backlog_is_removed_after_a_second)
{
    struct world *w = open_world((struct plan){.prefetch = 1});
    struct peer *worker = join(w, "worker"), *source = join(w, "source");
    subscribe_group(worker, "job", "g", 1);
    publish(source, "job", "1"), publish(source, "job", "2");
    settle(w);
    CHECK(w->f->backlogs_open == 1 && rb_load(&w->bus->backlog[0]) == 1);
    EQUAL(count_messages(worker), 2);
    advance(w, 2 * SECOND);
    CHECK(w->f->backlogs_open == 0 && rb_load(&w->bus->backlog[0]) == 0);
    publish(source, "job", "3"), publish(source, "job", "4");
    settle(w);
    EQUAL(rb_load(&w->bus->backlog[0]), 2);
    EQUAL(count_messages(worker), 2);
    close_world(w);
}

TEST(without_memory_for_a_backlog_work_goes_to_whoever_has_least_to_do)
{
    struct world *w = open_world((struct plan){.prefetch = 1, .backlog_bytes = 1ull << 62});
    struct peer *a = join(w, "a"), *b = join(w, "b"), *source = join(w, "source");
    subscribe_group(a, "job", "g", 1);
    subscribe_group(b, "job", "g", 1);
    for (int i = 0; i < 20; i++)
        publish(source, "job", "j");
    settle(w);
    EQUAL(dp_untouched(&w->f->ports[a->slot]), 10);
    EQUAL(dp_untouched(&w->f->ports[b->slot]), 10);
    EQUAL(rb_load(&w->bus->backlogs_failed), 1); /* tried once, and not again for each message */
    w->bus->backlog_bytes = 65536;
    advance(w, SECOND);
    publish(source, "job", "now there is memory");
    settle(w);
    EQUAL(waiting(w), 1);
    close_world(w);
}

TEST(what_has_the_same_takers_waits_in_one_line_whatever_its_type)
{
    struct world *w = open_world((struct plan){.prefetch = 1});
    struct peer *a = join(w, "a"), *b = join(w, "b"), *source = join(w, "source");
    handle(a, "open"), handle(a, "insert");
    handle(b, "open"), handle(b, "insert");
    send_to_handler(source, "open", "1"), send_to_handler(source, "open", "2");
    send_to_handler(source, "insert", "3"), send_to_handler(source, "open", "4");
    send_to_handler(source, "insert", "5");
    settle(w);
    GETS(a, "1");
    settle(w);
    GETS(a, "3");
    settle(w);
    GETS(a, "4");
    settle(w);
    GETS(a, "5");
    close_world(w);
}

TEST(a_single_handler_gets_events_and_commands_in_their_order)
{
    struct world *w = open_world((struct plan){.prefetch = 1});
    struct peer *only = join(w, "only"), *source = join(w, "source");
    handle(only, "do");
    subscribe(only, "news");
    char text[16];
    for (int i = 0; i < 30; i++) {
        snprintf(text, sizeof text, "%d", i);
        CHECK(i % 3 ? send_to_handler(source, "do", text) : publish(source, "news", text));
    }
    settle(w);
    for (int i = 0; i < 30; i++) {
        snprintf(text, sizeof text, "%d", i);
        GETS(only, text);
    }
    close_world(w);
}

TEST(what_waits_survives_the_dispatcher)
{
    struct world *w = open_world((struct plan){.prefetch = 1});
    struct peer *worker = join(w, "worker"), *other = join(w, "other"), *client = join(w, "client");
    struct message m;
    subscribe_group(worker, "job", "g", 3);
    handle(worker, "ask");
    handle(other, "ask");
    for (int i = 0; i < 5; i++)
        publish(client, "job", "j");
    for (int i = 0; i < 5; i++)
        ask(client, "ask", "q");
    settle(w);
    EQUAL(waiting(w), 8);
    struct dp_forwarder *dead = w->f;
    reopen(w);
    dp_take_orders(w->f, true);
    dp_recover(w->f);
    settle(w);
    EQUAL(waiting(w), 8);
    publish(client, "job", "last");
    uint32_t jobs = 0, questions = 0;
    for (bool more = true; more; settle(w)) {
        more = false;
        for (int i = 0; i < 2; i++)
            while (take(i ? worker : other, &m)) {
                more = true;
                jobs += m.header.kind == SB_EVENT;
                questions += m.header.kind == SB_REQUEST;
                if (m.header.kind == SB_REQUEST)
                    CHECK(answer(i ? worker : other, &m, "a"));
                if (m.header.kind == SB_EVENT)
                    CHECK((jobs == 6) == (strcmp(m.text, "last") == 0));
            }
    }
    EQUAL(jobs, 6);
    EQUAL(questions, 5);
    for (int i = 0; i < 5; i++)
        GETS_REPLY(client, "a");
    EQUAL(rb_load(&w->bus->lost), 0);
    close_forwarder(dead);
    close_world(w);
}

TEST(what_the_dead_leave_goes_into_the_backlog_while_nobody_is_free)
{
    struct world *w = open_world((struct plan){.prefetch = 2});
    struct peer *dies = join(w, "dies"), *busy = join(w, "busy"), *source = join(w, "source");
    struct message m;
    subscribe_group(dies, "job", "g", 1);
    subscribe_group(busy, "job", "g", 1);
    for (int i = 0; i < 4; i++)
        publish(source, "job", "j");
    settle(w);
    CHECK(begin(dies, &m));
    die(dies, SB_REASON_KILLED);
    CHECK(dies->reclaimed); /* its slot waits for nobody */
    EQUAL(waiting(w), 2);
    uint32_t redelivered = 0, again = 0;
    for (int i = 0; i < 4; i++) {
        CHECK(take(busy, &m));
        redelivered += (m.header.flags & SB_REDELIVERED) != 0;
        again += m.header.attempt == 2;
        settle(w);
    }
    EQUAL(redelivered, 2);
    EQUAL(again, 1);
    EQUAL(rb_load(&w->bus->lost) + rb_load(&w->bus->dead_letters), 0);
    close_world(w);
}
