/* Endpoints that die: what goes on to others, what is emitted, what is counted, and that nothing is left. */
#include "harness.h"

#include "shmbus/dispatcher/native/liveness.h"

#include <sys/wait.h>

TEST(a_death_is_said_once_with_its_reason_and_frees_slot_and_name)
{
    struct world *w = new_world();
    struct peer *ear = join(w, "ear"), *p = join(w, "p");
    subscribe(ear, "$bus.endpoint.down");
    die(p, SB_REASON_KILLED);
    die(p, SB_REASON_EXITED);
    struct message m;
    CHECK(take(ear, &m) && mentions(&m, "killed") && mentions(&m, "p"));
    GETS_NOTHING(ear);
    CHECK(p->reclaimed);
    struct peer *again = join(w, "p");
    EQUAL(again->slot, p->slot);
    die(p, SB_REASON_KILLED); /* the old one's generation: nobody */
    settle(w);
    EQUAL(rb_load(&w->f->rows[again->slot].state), SB_ROW_LIVE);
    close_world(w);
}

TEST(what_the_dead_had_sent_is_forwarded)
{
    struct world *w = new_world();
    struct peer *a = join(w, "a"), *p = join(w, "p");
    subscribe(a, "x");
    for (int i = 0; i < 700; i++)
        CHECK(put(p, SB_DATA, (struct sb_record){.kind = SB_EVENT}, "x", "1", 1));
    rb_publish(&p->out[SB_DATA]); /* killed before it could raise its word */
    die(p, SB_REASON_KILLED);
    CHECK(p->reclaimed);
    uint32_t got = 0, more;
    while ((more = count_messages(a)))
        got += more, settle(w);
    EQUAL(got, 700);
    close_world(w);
}

TEST(a_reply_that_the_dead_had_sent_comes_instead_of_an_error)
{
    struct world *w = new_world();
    struct peer *p = join(w, "p"), *client = join(w, "client");
    handle(p, "ask");
    ask(client, "ask", "1");
    ask(client, "ask", "2");
    settle(w);
    struct message m;
    CHECK(take(p, &m) && answer(p, &m, "in time"));
    CHECK(take(p, &m));
    die(p, SB_REASON_KILLED);
    GETS_REPLY(client, "in time");
    GETS_FAULT(client, SB_FAULT_ENDPOINT_DIED, "p");
    CHECK(!take_reply(client, &m));
    EQUAL(rb_load(&w->bus->orphans), 0);
    close_world(w);
}

TEST(requests_begun_by_the_dead_end_at_once_and_untouched_ones_go_to_another_handler)
{
    struct world *w = new_world();
    struct peer *p = join(w, "p"), *client = join(w, "client");
    handle(p, "ask");
    ask(client, "ask", "begun");
    ask(client, "ask", "untouched");
    settle(w);
    struct message m;
    CHECK(take(p, &m));
    struct peer *other = join(w, "other");
    handle(other, "ask");
    die(p, SB_REASON_KILLED);
    CHECK(take_reply(client, &m));
    struct sb_fault fault = fault_of(&m);
    EQUAL(fault.code, SB_FAULT_ENDPOINT_DIED);
    EQUAL(fault.limit, SB_REASON_KILLED | SB_BEGUN);
    CHECK(strcmp(fault.name, "p") == 0);
    CHECK(!take_reply(client, &m));
    CHECK(take(other, &m) && strcmp(m.text, "untouched") == 0);
    EQUAL(m.header.attempt, 1);
    CHECK(answer(other, &m, "done"));
    settle(w);
    GETS_REPLY(client, "done");
    close_world(w);
}

TEST(untouched_requests_of_the_only_handler_end_with_its_death)
{
    struct world *w = new_world();
    struct peer *p = join(w, "p"), *client = join(w, "client"), *ear = join(w, "ear");
    subscribe(ear, "$bus.undeliverable");
    handle(p, "ask");
    ask(client, "ask", "1");
    send_to_handler(client, "ask", "a send");
    settle(w);
    die(p, SB_REASON_KILLED);
    GETS_FAULT(client, SB_FAULT_ENDPOINT_DIED, "p");
    struct message m;
    CHECK(take(ear, &m) && mentions(&m, "a send") && mentions(&m, "its handler died") && mentions(&m, "client"));
    EQUAL(rb_load(&client->down->undeliverable), 1);
    close_world(w);
}

TEST(group_messages_of_the_dead_go_on_untouched_as_new_and_begun_as_another_attempt)
{
    struct world *w = new_world();
    struct peer *p = join(w, "p"), *source = join(w, "source");
    subscribe_group(p, "job", "g", 1);
    for (int i = 0; i < 4; i++)
        publish(source, "job", (const char *[]){"done", "begun", "also done", "untouched"}[i]);
    settle(w);
    struct message m[3];
    for (int i = 0; i < 3; i++)
        CHECK(begin(p, &m[i]));
    finish(p, &m[0]);
    finish(p, &m[2]);
    struct peer *other = join(w, "other");
    subscribe_group(other, "job", "g", 2);
    die(p, SB_REASON_KILLED);
    CHECK(p->reclaimed);
    struct message got;
    CHECK(take(other, &got) && strcmp(got.text, "begun") == 0);
    EQUAL(got.header.attempt, 2);
    EQUAL(got.header.flags & SB_REDELIVERED, SB_REDELIVERED);
    CHECK(take(other, &got) && strcmp(got.text, "untouched") == 0);
    EQUAL(got.header.attempt, 1);
    GETS_NOTHING(other);
    EQUAL(rb_load(&w->bus->lost), 0);
    close_world(w);
}

TEST(a_poisonous_message_kills_max_deliveries_workers_and_is_a_dead_letter)
{
    struct world *w = open_world((struct plan){.max_deliveries = 2});
    struct peer *ear = join(w, "ear"), *source = join(w, "source");
    struct peer *workers[3];
    subscribe(ear, "$bus.undeliverable");
    for (int i = 0; i < 3; i++) {
        workers[i] = join(w, "worker");
        subscribe_group(workers[i], "job", "g", 1);
    }
    publish(source, "job", "poison");
    settle(w);
    uint32_t victims = 0;
    for (int round = 0; round < 3; round++)
        for (int i = 0; i < 3; i++) {
            struct message m;
            if (!workers[i]->reclaimed && begin(workers[i], &m)) {
                die(workers[i], SB_REASON_KILLED);
                victims++;
            }
        }
    EQUAL(victims, 2);
    struct message m;
    CHECK(take(ear, &m) && mentions(&m, "poison") && mentions(&m, "its receivers died of it"));
    GETS_NOTHING(ear);
    EQUAL(rb_load(&w->bus->dead_letters), 1);
    close_world(w);
}

TEST(the_last_member_of_a_group_leaves_dead_letters)
{
    struct world *w = new_world();
    struct peer *ear = join(w, "ear"), *p = join(w, "p"), *source = join(w, "source");
    subscribe(ear, "$bus.undeliverable");
    subscribe_group(p, "job", "g", 1);
    publish(source, "job", "orphan");
    settle(w);
    die(p, SB_REASON_KILLED);
    struct message m;
    CHECK(take(ear, &m) && mentions(&m, "orphan") && mentions(&m, "no member left"));
    close_world(w);
}

TEST(a_begun_send_of_the_dead_is_a_dead_letter)
{
    struct world *w = new_world();
    struct peer *ear = join(w, "ear"), *p = join(w, "p"), *other = join(w, "other"), *source = join(w, "source");
    subscribe(ear, "$bus.undeliverable");
    handle(p, "job");
    send_to_handler(source, "job", "begun");
    send_to_handler(source, "job", "held"); /* handle(redeliver=True) */
    settle(w);
    handle(other, "job");
    struct message m;
    CHECK(take_as(p, &m, true, SB_HELD_FINAL) && take_as(p, &m, true, SB_HELD_OPEN));
    die(p, SB_REASON_KILLED);
    CHECK(take(ear, &m) && mentions(&m, "begun") && mentions(&m, "its handler died"));
    GETS_NOTHING(ear);
    CHECK(take(other, &m) && strcmp(m.text, "held") == 0);
    EQUAL(m.header.attempt, 2);
    close_world(w);
}

TEST(plain_events_of_the_dead_are_counted_and_its_group_copy_of_the_same_event_goes_on)
{
    struct world *w = new_world();
    struct peer *p = join(w, "p"), *source = join(w, "source");
    subscribe(p, "x");
    subscribe_group(p, "x", "g", 1);
    publish(source, "x", "both");
    settle(w);
    struct peer *other = join(w, "other");
    subscribe_group(other, "x", "g", 1);
    die(p, SB_REASON_KILLED);
    struct message m;
    CHECK(take(other, &m));
    EQUAL(m.header.interests, 1u << 1);
    GETS_NOTHING(other);
    EQUAL(rb_load(&w->bus->lost), 1);
    EQUAL(rb_load(&p->down->lost), 1);
    close_world(w);
}

TEST(handing_on_waits_for_space_and_loses_nothing)
{
    struct world *w = open_world((struct plan){.prefetch = 100});
    struct peer *p = join(w, "p"), *source = join(w, "source");
    subscribe_group(p, "job", "g", 1);
    for (int i = 0; i < 60; i++)
        CHECK(publish_bytes(source, "job", 150));
    settle(w);
    struct peer *other = join_sized(w, "other", (struct size){.data_in = 1024});
    subscribe_group(other, "job", "g", 1);
    die(p, SB_REASON_KILLED);
    CHECK(!p->reclaimed);
    uint32_t got = 0;
    uint64_t before = w->now;
    struct message m;
    while (!p->reclaimed || got < 60) { /* without a clock: the space is asked for */
        CHECK(take(other, &m));
        EQUAL(m.header.flags & SB_REDELIVERED, SB_REDELIVERED);
        got++;
        settle(w);
    }
    EQUAL(w->now, before);
    EQUAL(got, 60);
    EQUAL(rb_load(&w->bus->dead_letters), 0);
    close_world(w);
}

TEST(handing_on_to_one_that_reads_nothing_does_not_wait_for_ever)
{
    struct world *w = open_world((struct plan){.prefetch = 100});
    struct peer *p = join(w, "p"), *source = join(w, "source");
    subscribe_group(p, "job", "g", 1);
    for (int i = 0; i < 60; i++)
        CHECK(publish_bytes(source, "job", 150));
    settle(w);
    struct peer *other = join_sized(w, "other", (struct size){.data_in = 1024});
    subscribe_group(other, "job", "g", 1);
    die(p, SB_REASON_KILLED);
    advance(w, 5 * SECOND);
    CHECK(p->reclaimed); /* what it left is a dead letter, or waits until the other is free */
    CHECK(rb_load(&w->bus->dead_letters) > 0);
    EQUAL(count_messages(other) + rb_load(&w->bus->dead_letters), 60);
    close_world(w);
}

TEST(who_waits_for_space_in_a_dead_ones_queue_goes_on_at_once)
{
    struct world *w = new_world();
    struct peer *full = join_sized(w, "full", (struct size){.data_in = 1024}), *other = join(w, "other");
    struct peer *source = join(w, "source");
    subscribe(full, "x");
    subscribe(other, "y");
    for (int i = 0; i < 20; i++)
        CHECK(publish_bytes(source, "x", 100));
    publish(source, "y", "behind");
    settle(w);
    GETS_NOTHING(other);
    uint64_t before = w->now;
    die(full, SB_REASON_KILLED);
    GETS(other, "behind");
    EQUAL(w->now, before);
    CHECK(full->reclaimed);
    close_world(w);
}

static void fan_out_to_the_dead(bool closes)
{
    struct world *w = new_world();
    struct peer *full = join_sized(w, "full", (struct size){.data_in = 1024}), *one = join(w, "one");
    struct peer *source = join(w, "source"), *filler = join(w, "filler");
    subscribe(full, "x");
    subscribe_group(full, "x", "g", 1);
    subscribe(full, "fill");
    subscribe(one, "x");
    for (int i = 0; i < 20; i++)
        CHECK(publish_bytes(filler, "fill", 100));
    settle(w);
    publish(source, "x", "fan");
    settle(w);
    CHECK(rb_load(&source->down->todo.from) != SB_NOWHERE);
    struct peer *other = join(w, "other");
    subscribe_group(other, "x", "g", 7);
    GETS(one, "fan");
    if (closes) {
        say_closing(full);
        say_closed(full);
    } else {
        die(full, SB_REASON_KILLED);
    }
    CHECK(full->reclaimed);
    EQUAL(rb_load(&source->down->todo.from), SB_NOWHERE);
    struct message m;
    CHECK(take(other, &m) && strcmp(m.text, "fan") == 0);
    EQUAL(m.header.interests, 1u << 7);
    GETS_NOTHING(other);
    GETS_NOTHING(one);
    close_world(w);
}

TEST(a_fan_out_owed_to_the_dead_is_counted_and_its_group_copy_goes_to_another) { fan_out_to_the_dead(false); }
TEST(a_fan_out_owed_to_one_who_closes_is_counted_and_its_group_copy_goes_to_another) { fan_out_to_the_dead(true); }

TEST(a_fan_out_of_the_dead_is_finished)
{
    struct world *w = new_world();
    struct peer *full = join_sized(w, "full", (struct size){.data_in = 1024}), *one = join(w, "one");
    struct peer *source = join(w, "source");
    subscribe(full, "x");
    subscribe(one, "x");
    for (int i = 0; i < 20; i++)
        CHECK(publish_bytes(source, "x", 100));
    settle(w);
    die(source, SB_REASON_KILLED);
    CHECK(!source->reclaimed);
    struct message m;
    for (int i = 0; i < 20; i++) {
        CHECK(take(full, &m));
        settle(w);
    }
    CHECK(!take(full, &m));
    EQUAL(count_messages(one), 20);
    CHECK(source->reclaimed);
    EQUAL(rb_load(&w->bus->lost), 0);
    close_world(w);
}

TEST(two_deaths_at_once_hand_on_to_the_third)
{
    struct world *w = new_world();
    struct peer *a = join(w, "a"), *b = join(w, "b"), *source = join(w, "source");
    subscribe_group(a, "job", "g", 1);
    subscribe_group(b, "job", "g", 1);
    for (int i = 0; i < 20; i++)
        publish(source, "job", "j");
    settle(w);
    struct peer *c = join(w, "c");
    subscribe_group(c, "job", "g", 1);
    struct dp_order order = {.kind = DP_DEAD, .slot = a->slot, .generation = a->generation, .reason = SB_REASON_KILLED};
    CHECK(dp_give_order(&w->f->orders, &order));
    die(b, SB_REASON_KILLED);
    CHECK(a->reclaimed && b->reclaimed);
    EQUAL(count_messages(c), 20);
    close_world(w);
}

TEST(many_types_in_use_do_not_keep_group_messages_from_being_handed_on)
{
    struct world *w = new_world();
    struct peer *all = join_sized(w, "all", (struct size){.data_in = 1 << 20}), *p = join(w, "p");
    struct peer *source = join(w, "source");
    subscribe_group(p, "job.>", "g", 1);
    char type[32];
    for (int i = 0; i < 60; i++) {
        snprintf(type, sizeof type, "job.%d", i);
        publish(source, type, "j");
    }
    settle(w);
    struct peer *other = join(w, "other");
    subscribe_group(other, "job.>", "g", 1);
    subscribe(all, "noise.>");
    for (int i = 0; i < 100; i++)
        for (int k = 0; k < 256; k++) { /* every place of the cache is taken by others */
            snprintf(type, sizeof type, "noise.%d.%d", i, k);
            CHECK(put(source, SB_DATA, (struct sb_record){.kind = SB_EVENT}, type, "", 0));
            if (k == 255) {
                flush(source);
                settle(w);
                count_messages(all);
            }
        }
    die(p, SB_REASON_KILLED);
    EQUAL(count_messages(other), 60);
    EQUAL(rb_load(&w->bus->dead_letters), 0);
    close_world(w);
}

TEST(who_lets_go_of_its_door_and_writes_on_is_seen_off_all_the_same)
{
    struct world *w = open_world((struct plan){.batch = 1});
    struct peer *a = join(w, "a"), *p = join(w, "p");
    subscribe(a, "x");
    for (int i = 0; i < 10; i++)
        CHECK(put(p, SB_DATA, (struct sb_record){.kind = SB_EVENT}, "x", "1", 1));
    flush(p);
    struct dp_order order = {.kind = DP_DEAD, .slot = p->slot, .generation = p->generation, .reason = SB_REASON_EXEC};
    CHECK(dp_give_order(&w->f->orders, &order));
    for (int i = 0; i < 50; i++) {
        one_pass(w);
        publish(p, "x", "2"), publish(p, "x", "2"); /* more than the dispatcher takes meanwhile */
    }
    CHECK(p->reclaimed);
    CHECK(count_messages(a) <= 12);
    close_world(w);
}

TEST(who_is_taken_for_dead_and_lives_is_told_before_anything_of_it_is_handed_on)
{
    static const enum sb_reason reasons[] = {SB_REASON_EXITED, SB_REASON_KILLED, SB_REASON_DIED, SB_REASON_EXEC};
    for (size_t i = 0; i < sizeof reasons / sizeof *reasons; i++) {
        struct world *w = new_world();
        struct peer *p = join(w, "p");
        struct dp_order order = {.kind = DP_DEAD, .slot = p->slot, .generation = p->generation, .reason = reasons[i]};
        CHECK(dp_give_order(&w->f->orders, &order));
        dp_take_orders(w->f, false);
        EQUAL(rb_load(&p->down->state), SB_DOWN_EVICTED);
        settle(w);
        EQUAL(rb_load(&p->down->state), SB_DOWN_RECLAIMED);
        close_world(w);
    }
}

TEST(who_is_evicted_as_the_dispatcher_dies_is_told_by_the_successor)
{
    struct world *w = new_world();
    struct peer *p = join(w, "p");
    rb_store(&w->f->rows[p->slot].reason, SB_REASON_EVICTED);
    rb_store(&w->f->rows[p->slot].state, SB_ROW_DYING); /* killed here */
    close_forwarder(w->f);
    reopen(w);
    dp_take_orders(w->f, true);
    dp_recover(w->f);
    EQUAL(rb_load(&p->down->state), SB_DOWN_EVICTED);
    close_world(w);
}

TEST(whoever_is_evicted_is_told_and_what_it_had_sent_is_forwarded)
{
    struct world *w = new_world();
    struct peer *ear = join(w, "ear"), *a = join(w, "a"), *p = join(w, "p");
    subscribe(ear, "$bus.endpoint.down");
    subscribe(a, "x");
    subscribe(p, "x");
    for (int i = 0; i < 300; i++)
        CHECK(put(p, SB_DATA, (struct sb_record){.kind = SB_EVENT}, "x", "1", 1));
    flush(p);
    struct dp_order order = {.kind = DP_EVICT, .slot = p->slot, .generation = p->generation,
                             .reason = SB_REASON_EVICTED};
    CHECK(dp_give_order(&w->f->orders, &order));
    settle(w);
    for (int i = 0; i < 50; i++) { /* it goes on writing */
        publish(p, "x", "2");
        settle(w);
    }
    CHECK(p->reclaimed);
    EQUAL(rb_load(&p->down->state), SB_DOWN_RECLAIMED);
    struct message m;
    CHECK(take(ear, &m) && mentions(&m, "evicted"));
    uint32_t got = 0;
    while (take(a, &m))
        got += m.text[0] == '1';
    EQUAL(got, 300);
    close_world(w);
}

TEST(a_request_that_the_evicted_takes_before_it_is_handed_on_ends_with_an_error)
{
    struct world *w = new_world();
    struct peer *p = join(w, "p"), *client = join(w, "client");
    handle(p, "ask");
    ask(client, "ask", "1");
    settle(w);
    struct peer *other = join(w, "other");
    handle(other, "ask");
    struct dp_order order = {.kind = DP_EVICT, .slot = p->slot, .generation = p->generation,
                             .reason = SB_REASON_EVICTED};
    CHECK(dp_give_order(&w->f->orders, &order));
    dp_take_orders(w->f, false);
    struct message m;
    CHECK(take(p, &m)); /* it lives, and has not looked yet */
    settle(w);
    CHECK(p->reclaimed);
    GETS_NOTHING(other); /* it may have been done in part */
    GETS_FAULT(client, SB_FAULT_ENDPOINT_DIED, "p");
    CHECK(!take_reply(client, &m));
    close_world(w);
}

TEST(what_a_fan_out_owed_to_a_dead_member_waits_for_space_at_another)
{
    struct world *w = new_world();
    char owed[181] = {0};
    memset(owed, 'o', 180); /* as large as a ring so small takes: no space is left over for it */
    struct size tiny = {.data_in = 1024};
    struct peer *source = join(w, "source"), *filler = join(w, "filler"), *c = join(w, "c");
    struct peer *dead = join_sized(w, "dead", tiny), *other = join_sized(w, "other", tiny);
    subscribe(c, "x");
    subscribe(dead, "fill.dead");
    subscribe_group(dead, "x", "g", 1);
    for (int i = 0; i < 20; i++)
        publish_bytes(filler, "fill.dead", 100);
    settle(w);
    publish(source, "x", owed);
    settle(w);
    GETS(c, owed);
    struct peer *second = join(w, "second filler");
    subscribe(other, "fill.other");
    subscribe_group(other, "x", "g", 1);
    for (int i = 0; i < 20; i++)
        publish_bytes(second, "fill.other", 100);
    settle(w);
    die(dead, SB_REASON_KILLED);
    CHECK(w->passes < 20); /* nobody spins over it */
    CHECK(!dead->reclaimed && rb_load(&source->down->todo.from) != SB_NOWHERE);
    struct message m;
    uint32_t got = 0;
    while (take(other, &m)) {
        got += strcmp(m.text, owed) == 0;
        settle(w);
    }
    EQUAL(got, 1);
    CHECK(dead->reclaimed);
    EQUAL(rb_load(&source->down->todo.from), SB_NOWHERE);
    EQUAL(rb_load(&w->bus->dead_letters), 0);
    close_world(w);
}

TEST(one_that_closes_is_drained_once_what_it_was_owed_is_counted)
{
    struct world *w = new_world();
    struct size tiny = {.data_in = 1024};
    struct peer *gone = join_sized(w, "gone", tiny), *full = join_sized(w, "full", tiny), *other = join(w, "other");
    struct peer *fill = join(w, "fill"), *fill_too = join(w, "fill-too"), *source = join(w, "source");
    subscribe(gone, "x");
    subscribe_group(gone, "x", "g", 1);
    subscribe(gone, "fill.a");
    subscribe(other, "x");
    for (int i = 0; i < 20; i++)
        publish_bytes(fill, "fill.a", 100);
    settle(w);
    publish_bytes(source, "x", 180);
    settle(w);
    subscribe(full, "fill.b");
    subscribe_group(full, "x", "g", 1);
    for (int i = 0; i < 20; i++)
        publish_bytes(fill_too, "fill.b", 100);
    settle(w);
    CHECK(rb_load(&source->down->todo.from) != SB_NOWHERE);
    say_closing(gone); /* its copy is counted; the group's waits for the other member's space */
    EQUAL(rb_load(&gone->down->state), SB_DOWN_DRAINED);
    CHECK(rb_load(&source->down->todo.from) != SB_NOWHERE);
    close_world(w);
}

TEST(what_a_fan_out_owes_does_not_wait_for_a_ring_into_which_it_never_fits)
{
    struct world *w = open_world((struct plan){.block_timeout_ns = SECOND, .prefetch = 100});
    struct peer *gone = join_sized(w, "gone", (struct size){.data_in = 8192});
    struct peer *other = join(w, "other"), *fill = join(w, "fill"), *source = join(w, "source");
    struct message m;
    subscribe_group(gone, "x", "g", 1);
    subscribe(gone, "fill.a");
    subscribe(other, "x");
    for (int i = 0; i < 62; i++)
        publish_bytes(fill, "fill.a", 60);
    settle(w);
    for (int i = 0; i < 14; i++)
        publish_bytes(source, "x", 56);
    settle(w);
    CHECK(rb_load(&source->down->todo.from) != SB_NOWHERE);
    struct peer *small = join_sized(w, "small", (struct size){.data_in = 1024});
    subscribe_group(small, "x", "g", 1);
    subscribe(small, "tick");
    die(gone, SB_REASON_KILLED);
    for (int i = 0; i < 8; i++) { /* it takes something more often than the block timeout */
        publish(fill, "tick", "t");
        settle(w);
        while (take(small, &m)) {
        }
        raise_ready(small);
        settle(w);
        advance(w, SECOND / 2);
    }
    EQUAL(rb_load(&source->down->todo.from), SB_NOWHERE);
    EQUAL(rb_load(&gone->down->state), SB_DOWN_RECLAIMED);
    close_world(w);
}

TEST(whoever_sends_garbage_while_it_closes_is_told_that_it_was_put_out)
{
    struct world *w = new_world();
    struct peer *p = join(w, "p"), *source = join(w, "source");
    subscribe_group(p, "job", "g", 1);
    publish(source, "job", "keeps its end waiting");
    settle(w);
    struct peer *other = join_sized(w, "other", (struct size){.data_in = 1024});
    subscribe_group(other, "job", "g", 1);
    subscribe(other, "fill");
    for (int i = 0; i < 20; i++)
        publish_bytes(source, "fill", 100);
    settle(w);
    for (int i = 0; i < 300; i++) /* more than a batch */
        CHECK(put(p, SB_DATA, (struct sb_record){.kind = SB_EVENT}, "x", "1", 1));
    CHECK(put(p, SB_DATA, (struct sb_record){.kind = 77}, "x", "1", 1));
    rb_store_release(&p->up->state, SB_UP_CLOSING);
    flush(p);
    one_pass(w);
    CHECK(p->quarantined && !p->reclaimed);
    EQUAL(rb_load(&p->down->state), SB_DOWN_EVICTED);
    close_world(w);
}

TEST(an_observers_copies_go_to_nobody_when_it_dies)
{
    struct world *w = new_world();
    struct peer *observer = join(w, "observer"), *server = join(w, "server"), *client = join(w, "client");
    struct peer *ear = join(w, "ear");
    commit_interest(observer, (struct sb_interest){.op = SB_INTEREST_ADD, .role = SB_ROLE_OBSERVE}, ">", "");
    subscribe(ear, "$bus.undeliverable");
    handle(server, "job");
    send_to_handler(client, "job", "once");
    publish(client, "news", "of nobody's");
    settle(w);
    die(observer, SB_REASON_KILLED);
    CHECK(observer->reclaimed);
    GETS(server, "once");
    GETS_NOTHING(server);
    GETS_NOTHING(ear);
    EQUAL(rb_load(&w->bus->redelivered), 0);
    EQUAL(rb_load(&observer->down->lost), 2);
    close_world(w);
}

TEST(a_dead_letter_is_not_said_to_be_of_whoever_has_the_slot_of_its_sender_now)
{
    struct world *w = new_world();
    struct peer *p = join(w, "p"), *ear = join(w, "ear"), *client = join(w, "client");
    subscribe(ear, "$bus.undeliverable");
    handle(p, "do");
    send_to_handler(client, "do", "a send");
    settle(w);
    die(client, SB_REASON_KILLED);
    struct peer *newcomer = join(w, "newcomer");
    EQUAL(newcomer->slot, client->slot);
    die(p, SB_REASON_KILLED);
    struct message m;
    CHECK(take(ear, &m) && mentions(&m, "a send") && !mentions(&m, "newcomer"));
    EQUAL(rb_load(&newcomer->down->undeliverable), 0);
    close_world(w);
}

TEST(a_request_whose_target_could_not_be_adopted_ends_with_an_error)
{
    struct world *w = new_world();
    struct peer *p = join(w, "p"), *client = join(w, "client");
    handle(p, "ask");
    ask(client, "ask", "1");
    settle(w);
    struct sb_row *row = &w->f->rows[p->slot];
    close_forwarder(w->f);
    rb_store(&row->state, SB_ROW_FREE); /* the control plane of the next dispatcher found its names removed */
    reopen(w);
    dp_take_orders(w->f, true);
    dp_recover(w->f);
    settle(w);
    GETS_FAULT(client, SB_FAULT_ENDPOINT_DIED, "");
    close_world(w);
}

/* Whether it is taken for one that has called exec: a process that lives, with that watcher and UP. */
static bool exec_is_seen(struct world *w, pid_t pid, pid_t watcher, const char *up_file)
{
    struct dp_liveness liveness;
    CHECK(dp_liveness_open(&liveness, &w->f->orders, &w->bus->wills, w->f->slots));
    rb_word tid = (uint64_t)watcher;
    struct dp_process process = {.generation = 7, .pid = (uint32_t)pid, .pidfd = -1, .door = -1, .watcher = &tid,
                                 .stat = sb_open_stat((uint32_t)pid), .up_file = strdup(up_file)};
    dp_liveness_add(&liveness, 3, process);
    CHECK(!dp_liveness_look(&liveness, 3, false));
    dp_look_into_doubts(&liveness);
    bool seen = liveness.processes[3].over;
    CHECK(!seen || liveness.processes[3].reason == SB_REASON_EXEC);
    dp_liveness_close(&liveness);
    return seen;
}

TEST(the_end_of_its_connection_shows_exec_also_where_nothing_else_does)
{
    struct world *w = new_world();
    struct dp_liveness liveness;
    CHECK(dp_liveness_open(&liveness, &w->f->orders, &w->bus->wills, w->f->slots));
    int door[2];
    CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, door) == 0);
    struct dp_process process = {.generation = 7, .pid = (uint32_t)getpid(), .pidfd = -1, .door = door[0],
                                 .stat = sb_open_stat((uint32_t)getpid())};
    dp_liveness_add(&liveness, 3, process);
    uint64_t event = (uint64_t)7 << 32 | (uint64_t)DP_SIGN_DOOR << 16 | 3;
    dp_liveness_event(&liveness, event); /* it has not ended yet */
    CHECK(!liveness.processes[3].over);
    close(door[1]);
    dp_liveness_event(&liveness, event);
    CHECK(liveness.processes[3].over && liveness.processes[3].reason == SB_REASON_EXEC);
    dp_liveness_close(&liveness);
    close_world(w);
}

TEST(exec_is_seen_by_the_threads_and_the_memory_that_it_ends_and_by_neither_alone)
{
    struct world *w = new_world();
    char here[] = "/proc/self/exe", file[256] = "";
    ssize_t n = readlink(here, file, sizeof file - 1);
    CHECK(n > 0); /* what this process certainly maps */
    pid_t ended = fork();
    if (ended == 0)
        _exit(0);
    EQUAL(waitpid(ended, NULL, 0), ended); /* no task has this number any more */
    CHECK(exec_is_seen(w, getpid(), ended, "/dev/shm/no such file"));
    CHECK(!exec_is_seen(w, getpid(), ended, file));                          /* a thread was ended, no more */
    CHECK(!exec_is_seen(w, getpid(), getpid(), "/dev/shm/no such file"));
    CHECK(!exec_is_seen(w, getpid(), 0, "/dev/shm/no such file"));           /* its watcher is not known yet */
    pid_t hidden = fork();
    if (hidden == 0) {
        for (;;)
            pause();
    }
    if (geteuid() == 0) { /* what it maps cannot be read */
        pid_t looker = fork();
        if (looker == 0) {
            CHECK(setresuid(65534, 65534, 65534) == 0);
            _exit(sb_may_map((uint32_t)hidden, "/dev/shm/no such file") ? 0 : 1);
        }
        int status;
        EQUAL(waitpid(looker, &status, 0), looker);
        EQUAL(status, 0);
    }
    kill(hidden, SIGKILL);
    EQUAL(waitpid(hidden, NULL, 0), hidden);
    close_world(w);
}

TEST(a_death_that_the_next_dispatcher_finishes_is_told_once)
{
    struct world *w = new_world();
    struct peer *ear = join(w, "ear"), *full = join_sized(w, "full", (struct size){.data_in = 4096});
    struct peer *victim = join(w, "victim");
    subscribe(ear, "$bus.endpoint.down");
    subscribe(full, "news");
    for (int i = 0; i < 40; i++)
        CHECK(publish_bytes(victim, "news", 200));
    settle(w);
    die(victim, SB_REASON_KILLED);
    CHECK(!victim->reclaimed); /* what it published waits for space */
    close_forwarder(w->f);
    reopen(w);
    dp_take_orders(w->f, true);
    dp_recover(w->f);
    settle(w);
    EQUAL(count_messages(full), 40);
    CHECK(victim->reclaimed);
    EQUAL(count_messages(ear), 1);
    close_world(w);
}
