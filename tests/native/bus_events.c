/* The bus's own events: what they say, and that nothing waits for them. */
#include "harness.h"

/* Is its `count` this one? */
static inline bool counts(const struct message *m, uint64_t count)
{
    uint8_t bytes[32];
    struct dp_pack pack = {.bytes = bytes, .capacity = sizeof bytes};
    dp_pack_number(&pack, "count", count);
    return memmem(m->text, sizeof m->text, bytes, pack.length) != NULL;
}

TEST(the_latency_of_each_record_is_counted)
{
    struct world *w = new_world();
    struct peer *a = join(w, "a"), *b = join(w, "b"), *source = join(w, "source");
    subscribe(a, "x");
    subscribe(b, "x");
    for (int i = 0; i < 10; i++)
        publish(source, "x", "y");
    settle(w);
    EQUAL(rb_load(&w->bus->latency_count), 10); /* a fan-out is one message */
    uint64_t in_buckets = 0;
    for (uint32_t i = 0; i < SB_LATENCY_BUCKETS; i++)
        in_buckets += rb_load(&w->bus->latency[i]);
    EQUAL(in_buckets, 10);
    CHECK(rb_load(&w->bus->latency_max_ns) > 0);
    CHECK(rb_load(&w->bus->latency_sum_ns) >= rb_load(&w->bus->latency_max_ns));
    close_world(w);
}

TEST(a_latency_falls_into_the_bucket_whose_floor_is_below_it)
{
    for (uint64_t ns = 0; ns < 1ull << 34; ns += 1 + ns / 37) {
        uint32_t b = sb_latency_bucket(ns);
        CHECK(sb_latency_floor(b) <= ns);
        if (b + 1 < SB_LATENCY_BUCKETS)
            CHECK(ns < sb_latency_floor(b + 1));
    }
    EQUAL(sb_latency_bucket(~0ull), SB_LATENCY_BUCKETS - 1);
}

TEST(who_lets_messages_wait_with_nothing_in_hand_is_stalled_until_it_goes_on)
{
    struct world *w = open_world((struct plan){.stall_after_ns = SECOND});
    struct peer *ear = join(w, "ear"), *p = join(w, "p"), *source = join(w, "source");
    subscribe(ear, "$bus.endpoint.stalled");
    subscribe(ear, "$bus.endpoint.resumed");
    subscribe(p, "x");
    publish(source, "x", "1");
    settle(w);
    advance(w, SECOND / 2);
    GETS_NOTHING(ear);
    advance(w, SECOND);
    struct message m;
    CHECK(take(ear, &m));
    CHECK(strcmp(m.type, "$bus.endpoint.stalled") == 0 && mentions(&m, "p"));
    EQUAL(rb_load(&w->f->rows[p->slot].health), SB_STALLED);
    advance(w, 3 * SECOND);
    GETS_NOTHING(ear);
    CHECK(take(p, &m));
    advance(w, SECOND / 5);
    CHECK(take(ear, &m));
    CHECK(strcmp(m.type, "$bus.endpoint.resumed") == 0);
    EQUAL(rb_load(&w->f->rows[p->slot].health), SB_FIT);
    close_world(w);
}

TEST(what_the_dispatcher_slept_through_is_not_counted_against_anybody)
{
    struct world *w = open_world((struct plan){.stall_after_ns = SECOND});
    struct peer *ear = join(w, "ear"), *p = join(w, "p"), *source = join(w, "source");
    subscribe(ear, "$bus.endpoint.stalled");
    subscribe(p, "x");
    publish(source, "x", "1");
    settle(w);
    w->now += 60 * SECOND; /* the machine was too busy to run any of them */
    settle(w);
    GETS_NOTHING(ear);
    advance(w, 2 * SECOND); /* by now the dispatcher runs, and p does not */
    struct message m;
    CHECK(take(ear, &m) && mentions(&m, "p"));
    close_world(w);
}

TEST(a_long_running_handler_and_an_idle_endpoint_are_not_stalled)
{
    struct world *w = open_world((struct plan){.stall_after_ns = SECOND});
    struct peer *ear = join(w, "ear"), *busy = join(w, "busy"), *source = join(w, "source");
    subscribe(ear, "$bus.endpoint.stalled");
    subscribe_group(busy, "x", "g", 1);
    publish(source, "x", "1");
    publish(source, "x", "2");
    settle(w);
    struct message m;
    CHECK(begin(busy, &m));
    advance(w, 10 * SECOND);
    GETS_NOTHING(ear);
    close_world(w);
}

TEST(a_stopped_process_is_stalled_at_once_and_resumes_when_it_is_continued)
{
    struct world *w = open_world((struct plan){.stall_after_ns = SECOND});
    struct peer *ear = join(w, "ear"), *p = join(w, "p"), *source = join(w, "source");
    subscribe(ear, "$bus.endpoint.>");
    subscribe(p, "x");
    struct dp_order order = {.kind = DP_STOPPED_TASK, .slot = p->slot, .generation = p->generation};
    CHECK(dp_give_order(&w->f->orders, &order));
    settle(w);
    struct message m;
    CHECK(take(ear, &m) && strcmp(m.type, "$bus.endpoint.stalled") == 0 && mentions(&m, "stopped"));
    EQUAL(rb_load(&w->f->rows[p->slot].health), SB_STALLED | SB_STOPPED);
    publish(source, "x", "1");
    advance(w, 5 * SECOND);
    GETS_NOTHING(ear);
    order.kind = DP_CONTINUED_TASK;
    CHECK(dp_give_order(&w->f->orders, &order));
    settle(w);
    CHECK(take(ear, &m) && strcmp(m.type, "$bus.endpoint.resumed") == 0);
    advance(w, SECOND / 2); /* it has not got round to its messages yet */
    GETS_NOTHING(ear);
    close_world(w);
}

TEST(the_bus_never_waits_for_a_listener_of_its_own_events)
{
    struct world *w = new_world();
    struct peer *ear = join_sized(w, "ear", (struct size){.data_in = 1024});
    subscribe(ear, "$bus.>");
    for (int i = 0; i < 12; i++) {
        struct peer *p = join_sized(w, "passing", (struct size){.data_in = 1024, .data_out = 1024});
        die(p, SB_REASON_KILLED);
        CHECK(p->reclaimed);
    }
    EQUAL(rb_load(&ear->down->lost) + w->f->ports[ear->slot].delivered, 24);
    CHECK(rb_load(&w->bus->events_lost) > 0);
    close_world(w);
}

TEST(losses_that_nobody_chose_are_told_once_a_second_for_each_reason)
{
    struct world *w = new_world();
    struct peer *ear = join(w, "ear"), *small = join_sized(w, "small", (struct size){.data_in = 1024});
    struct peer *lossy = join_sized(w, "lossy", (struct size){.data_in = 1024}), *source = join(w, "source");
    struct message m;
    subscribe(ear, "$bus.lost");
    subscribe(small, "x");
    subscribe_lossy(lossy, "y");
    for (int i = 0; i < 5; i++)
        CHECK(publish_bytes(source, "x", 900));
    settle(w);
    CHECK(take(ear, &m) && mentions(&m, "small") && mentions(&m, "too_large") && mentions(&m, "source"));
    GETS_NOTHING(ear);
    advance(w, SECOND + 1);
    CHECK(publish_bytes(source, "x", 900));
    settle(w);
    CHECK(take(ear, &m) && mentions(&m, "too_large"));
    for (int i = 0; i < 40; i++)
        CHECK(publish_bytes(source, "y", 100));
    settle(w);
    CHECK(rb_load(&lossy->down->lost_by[SB_LOSS_DROPPED]) > 0);
    EQUAL(rb_load(&lossy->down->lost), rb_load(&lossy->down->lost_by[SB_LOSS_DROPPED]));
    GETS_NOTHING(ear);
    close_world(w);
}

TEST(after_a_burst_of_losses_their_sum_is_told_within_a_second)
{
    struct world *w = new_world();
    struct peer *ear = join(w, "ear"), *small = join_sized(w, "small", (struct size){.data_in = 1024});
    struct peer *source = join(w, "source");
    struct message m;
    subscribe(ear, "$bus.lost");
    subscribe(small, "x");
    for (int i = 0; i < 50; i++) {
        CHECK(publish_bytes(source, "x", 900));
        settle(w);
    }
    CHECK(take(ear, &m) && counts(&m, 1));
    GETS_NOTHING(ear);
    advance(w, SECOND + SECOND / 5);
    CHECK(take(ear, &m) && counts(&m, 50) && mentions(&m, "small") && mentions(&m, "source"));
    advance(w, 5 * SECOND);
    GETS_NOTHING(ear);
    close_world(w);
}

TEST(the_sum_of_losses_is_told_where_the_receiver_ends_and_by_a_successor)
{
    for (int successor = 0; successor < 2; successor++) {
        struct world *w = new_world();
        struct peer *ear = join(w, "ear"), *small = join_sized(w, "small", (struct size){.data_in = 1024});
        struct peer *source = join(w, "source");
        struct message m;
        subscribe(ear, "$bus.lost");
        subscribe(small, "x");
        for (int i = 0; i < 50; i++) {
            CHECK(publish_bytes(source, "x", 900));
            settle(w);
        }
        CHECK(take(ear, &m) && counts(&m, 1));
        if (successor) {
            close_forwarder(w->f);
            reopen(w);
            dp_take_orders(w->f, true);
            dp_recover(w->f);
            advance(w, SECOND / 5);
        } else {
            die(small, SB_REASON_KILLED);
        }
        CHECK(take(ear, &m) && counts(&m, 50) && mentions(&m, "source"));
        GETS_NOTHING(ear);
        close_world(w);
    }
}

TEST(what_is_lost_at_more_receivers_than_are_remembered_is_told_all_the_same)
{
    struct world *w = open_world((struct plan){.slots = 40});
    struct peer *ear = join(w, "ear"), *source = join(w, "source"), *small[SB_LAST_LOSSES + 4];
    struct message m;
    subscribe(ear, "$bus.lost");
    for (uint32_t i = 0; i < SB_LAST_LOSSES + 4; i++) {
        small[i] = join_sized(w, "small", (struct size){.data_in = 1024});
        subscribe(small[i], "x");
    }
    for (int i = 0; i < 3; i++) {
        CHECK(publish_bytes(source, "x", 900));
        settle(w);
    }
    for (uint32_t i = 0; i < SB_LAST_LOSSES + 4; i++)
        CHECK(take(ear, &m) && counts(&m, 1));
    GETS_NOTHING(ear);
    advance(w, SECOND + SECOND / 5);
    for (uint32_t i = 0; i < SB_LAST_LOSSES + 4; i++)
        CHECK(take(ear, &m) && counts(&m, 3));
    GETS_NOTHING(ear);
    close_world(w);
}

TEST(a_listener_of_losses_that_loses_is_told_of_nothing_more)
{
    struct world *w = new_world();
    struct peer *ear = join_sized(w, "ear", (struct size){.data_in = 1024});
    struct peer *small = join_sized(w, "small", (struct size){.data_in = 1024}), *source = join(w, "source");
    subscribe(ear, "$bus.lost");
    subscribe(small, "x");
    for (int i = 0; i < 20; i++) {
        advance(w, SECOND + 1);
        CHECK(publish_bytes(source, "x", 900));
        settle(w);
    }
    EQUAL(rb_load(&small->down->lost_by[SB_LOSS_TOO_LARGE]), 20);
    CHECK(rb_load(&ear->down->lost_by[SB_LOSS_SLOW]) > 0);
    EQUAL(rb_load(&ear->down->lost_by[SB_LOSS_SLOW]), rb_load(&w->bus->events_lost));
    close_world(w);
}

TEST(an_idle_bus_is_not_visited)
{
    struct world *w = new_world();
    struct peer *a = join(w, "a");
    subscribe(a, "x");
    settle(w);
    CHECK(!restless(w));
    settle(w);
    EQUAL(w->passes, 1);
    close_world(w);
}

TEST(a_ready_word_of_nobody_wakes_the_forwarder_once_at_most)
{
    struct world *w = open_world((struct plan){.slots = 5}); /* an odd number: READY is read in pairs */
    struct peer *a = join(w, "a");
    subscribe(a, "x");
    for (uint32_t slot = 1; slot < 16; slot++)
        atomic_store(&w->ready->word[slot], 77);
    settle(w);
    CHECK(!restless(w));
    publish(a, "x", "1");
    settle(w);
    GETS(a, "1");
    close_world(w);
}
