/* The last values of each type are kept, and who comes late gets them before what comes then. */
#include "harness.h"

#define HEARS(late, wanted)                                                                                     \
    do {                                                                                                        \
        struct message m_;                                                                                      \
        CHECK(hear(late, &m_));                                                                                 \
        if (strcmp(m_.text, wanted)) {                                                                          \
            fprintf(stderr, "%s:%d: %s: heard %s\n", __FILE__, __LINE__, test_name, m_.text);                 \
            exit(1);                                                                                            \
        }                                                                                                       \
    } while (0)

#define HEARS_NOTHING(late)                                                                                     \
    do {                                                                                                        \
        struct message m_;                                                                                      \
        CHECK(!hear(late, &m_));                                                                                \
    } while (0)

/* Another dispatcher takes over. */
static void succeed(struct world *w)
{
    close_forwarder(w->f);
    reopen(w);
    dp_take_orders(w->f, true);
    dp_recover(w->f);
    settle(w);
}

TEST(who_comes_late_gets_the_last_values_of_each_type_then_what_comes)
{
    struct world *w = new_world();
    struct peer *source = join(w, "source"), *ear = join(w, "ear");
    retain(source, "a", "a1"), retain(source, "b", "b1"), retain(source, "a", "a2"), retain(source, "a", "a3");
    publish(source, "a", "lost");
    settle(w);
    EQUAL(rb_load(&w->bus->retained), 4);
    struct late_ear all = subscribe_late(ear, ">", 2);
    retain(source, "b", "b2");
    publish(source, "a", "a4");
    settle(w);
    HEARS(&all, "b1");
    HEARS(&all, "a2");
    HEARS(&all, "a3");
    HEARS(&all, "b2");
    HEARS(&all, "a4");
    HEARS_NOTHING(&all);
    close_world(w);
}

TEST(a_value_is_told_as_kept_and_what_comes_later_is_not)
{
    struct world *w = new_world();
    struct peer *source = join(w, "source"), *ear = join(w, "ear");
    struct message m;
    retain(source, "a", "old");
    settle(w);
    struct late_ear all = subscribe_late(ear, "a", 1);
    retain(source, "a", "new");
    settle(w);
    CHECK(hear(&all, &m) && m.header.flags & SB_RETAINED && m.header.peer == source->slot);
    CHECK(hear(&all, &m) && !(m.header.flags & SB_RETAINED));
    close_world(w);
}

TEST(no_more_of_a_type_is_kept_than_the_bus_keeps)
{
    struct world *w = new_world();
    struct peer *source = join(w, "source"), *ear = join(w, "ear");
    for (int i = 0; i < 10; i++)
        retain(source, "a", (char[2]){(char)('0' + i), 0});
    settle(w);
    EQUAL(rb_load(&w->bus->retained), 3);
    struct late_ear all = subscribe_late(ear, "a", 100);
    HEARS(&all, "7");
    HEARS(&all, "8");
    HEARS(&all, "9");
    HEARS_NOTHING(&all);
    EQUAL(rb_load(&w->bus->evicted), 0);
    close_world(w);
}

TEST(without_a_payload_a_type_is_cleared_and_who_is_there_is_told)
{
    struct world *w = new_world();
    struct peer *source = join(w, "source"), *there = join(w, "there"), *ear = join(w, "ear");
    struct message m;
    subscribe(there, "a");
    retain(source, "a", "1"), retain(source, "a", "2"), retain(source, "b", "3"), retain(source, "a", NULL);
    settle(w);
    EQUAL(rb_load(&w->bus->retained), 1);
    EQUAL(rb_load(&w->bus->retained_bytes), 256);
    GETS(there, "1");
    GETS(there, "2");
    CHECK(take(there, &m) && m.header.flags & SB_NONE);
    struct late_ear all = subscribe_late(ear, ">", 5);
    HEARS(&all, "3");
    HEARS_NOTHING(&all);
    close_world(w);
}

TEST(values_survive_who_published_them_and_the_dispatcher)
{
    struct world *w = new_world();
    struct peer *source = join(w, "source"), *other = join(w, "other"), *ear = join(w, "ear");
    char large[1000];
    memset(large, 'x', sizeof large - 1);
    large[sizeof large - 1] = 0;
    retain(source, "a", "1"), retain(source, "b", large);
    settle(w);
    die(source, SB_REASON_KILLED);
    succeed(w);
    retain(other, "a", "2");
    settle(w);
    struct late_ear all = subscribe_late(ear, ">", 5);
    HEARS(&all, "1");
    HEARS(&all, large);
    HEARS(&all, "2");
    HEARS_NOTHING(&all);
    EQUAL(rb_load(&w->bus->retained), 3);
    close_world(w);
}

TEST(for_want_of_space_what_was_replaced_goes_first_then_the_oldest)
{
    struct world *w = open_world((struct plan){.retain_bytes = 4 * 256});
    struct peer *source = join(w, "source"), *ear = join(w, "ear");
    retain(source, "a", "1"), retain(source, "b", "2"), retain(source, "b", "3"), retain(source, "c", "4");
    retain(source, "d", "5"); /* 2 was replaced */
    retain(source, "e", "6"); /* 1 is the oldest */
    settle(w);
    EQUAL(rb_load(&w->bus->evicted), 2);
    struct late_ear all = subscribe_late(ear, ">", 5);
    HEARS(&all, "3");
    HEARS(&all, "4");
    HEARS(&all, "5");
    HEARS(&all, "6");
    HEARS_NOTHING(&all);
    close_world(w);
}

TEST(a_value_larger_than_all_that_is_kept_takes_the_place_of_its_type_and_is_forwarded)
{
    struct world *w = open_world((struct plan){.retain_bytes = 4 * 256});
    struct peer *source = join(w, "source"), *ear = join(w, "ear");
    struct late_ear all = subscribe_late(ear, "a", 5);
    char large[2000];
    memset(large, 'x', sizeof large - 1);
    large[sizeof large - 1] = 0;
    retain(source, "a", "1"), retain(source, "a", large);
    settle(w);
    HEARS(&all, "1");
    HEARS(&all, large);
    EQUAL(rb_load(&w->bus->retained), 0);
    EQUAL(rb_load(&w->bus->evicted), 1);
    close_world(w);
}

TEST(who_catches_up_through_a_full_ring_holds_up_nobody)
{
    struct world *w = open_world((struct plan){.history = 100, .retain_bytes = 1 << 16});
    struct peer *source = join(w, "source"), *ear = join_sized(w, "ear", (struct size){.data_in = 1024}),
                *other = join(w, "other");
    char text[16];
    subscribe(other, "a");
    for (int i = 0; i < 50; i++) {
        snprintf(text, sizeof text, "%d", i);
        retain(source, "a", text);
    }
    settle(w);
    EQUAL(count_messages(other), 50);
    struct late_ear all = subscribe_late(ear, ">", 100);
    for (int i = 50; i < 60; i++) {
        snprintf(text, sizeof text, "%d", i);
        retain(source, "a", text);
    }
    settle(w);
    EQUAL(count_messages(other), 10);
    for (int i = 0; i < 60; i++, settle(w)) {
        snprintf(text, sizeof text, "%d", i);
        HEARS(&all, text);
    }
    HEARS_NOTHING(&all);
    CHECK(all.live);
    EQUAL(w->f->catching_up, 0);
    retain(source, "a", "live");
    settle(w);
    HEARS(&all, "live");
    EQUAL(rb_load(&w->bus->lost), 0);
    close_world(w);
}

/* Kept, and not yet delivered, since the ring of who has it first is full. */
TEST(a_value_that_waits_to_be_delivered_comes_once_to_who_comes_meanwhile)
{
    struct world *w = new_world();
    struct peer *source = join(w, "source"), *full = join_sized(w, "full", (struct size){.data_in = 1024}),
                *ear = join(w, "ear"), *both = join(w, "both");
    subscribe(full, "a");
    struct late_ear before = subscribe_late(both, "a", 5);
    char text[150];
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = 0;
    for (int i = 0; i < 4; i++)
        retain(source, "a", text);
    settle(w);
    struct late_ear all = subscribe_late(ear, "a", 1), again = subscribe_late(both, ">", 1);
    EQUAL(count_messages(full), 4);
    settle(w);
    HEARS(&all, text);
    HEARS_NOTHING(&all);
    struct message m;
    int times[2] = {0, 0};
    while (take(both, &m)) {
        times[0] += is_for(&before, &m);
        times[1] += is_for(&again, &m);
    }
    EQUAL(times[0], 4);
    EQUAL(times[1], 1);
    close_world(w);
}

TEST(a_value_that_waits_for_its_only_receiver_is_kept_once)
{
    struct world *w = new_world();
    struct peer *source = join(w, "source"), *full = join_sized(w, "full", (struct size){.data_in = 1024});
    char text[150];
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = 0;
    subscribe(full, "a");
    for (int i = 0; i < 5; i++)
        retain(source, "a", text);
    settle(w);
    CHECK(!dp_all_forwarded(&w->f->ports[source->slot]));
    advance(w, SECOND / 2); /* it is looked at again and again */
    EQUAL(rb_load(&w->bus->retained_last), 5);
    close_world(w);
}

TEST(what_came_for_one_that_catches_up_is_lost_where_it_dies)
{
    struct world *w = open_world((struct plan){.history = 100, .retain_bytes = 1 << 16, .batch = 4});
    struct peer *source = join(w, "source"), *ear = join_sized(w, "ear", (struct size){.data_in = 1024});
    for (int i = 0; i < 50; i++)
        retain(source, "a", "v");
    settle(w);
    subscribe_late(ear, ">", 100);
    for (int i = 0; i < 7; i++)
        publish(source, "a", "live");
    settle(w);
    EQUAL(__builtin_popcountll(w->f->catching_up), 1);
    die(ear, SB_REASON_KILLED);
    EQUAL(rb_load(&ear->down->lost_by[SB_LOSS_ENDED]), 7);
    EQUAL(w->f->backlogs_open, 0);
    CHECK(ear->reclaimed);
    close_world(w);
}

TEST(who_unsubscribes_while_it_catches_up_gets_no_more)
{
    struct world *w = open_world((struct plan){.history = 100, .retain_bytes = 1 << 16});
    struct peer *source = join(w, "source"), *ear = join_sized(w, "ear", (struct size){.data_in = 1024});
    for (int i = 0; i < 50; i++)
        retain(source, "a", "v");
    settle(w);
    struct late_ear all = subscribe_late(ear, ">", 100);
    remove_interest(ear, all.id);
    publish(source, "a", "live");
    settle(w);
    CHECK(count_messages(ear) < 20);
    EQUAL(w->f->backlogs_open, 0);
    EQUAL(rb_load(&w->bus->lost), 0);
    close_world(w);
}

TEST(forty_that_come_late_at_a_time_catch_up_in_turn_though_backlogs_are_fewer)
{
    struct world *w = open_world((struct plan){.slots = 64, .history = 100, .retain_bytes = 1 << 16});
    struct peer *source = join(w, "source"), *ears[40];
    struct late_ear late[40];
    for (int i = 0; i < 20; i++)
        retain(source, "a", "v");
    settle(w);
    for (int i = 0; i < 40; i++) {
        ears[i] = join_sized(w, "ear", (struct size){.data_in = 1024, .replies_in = 1024, .requests = 1});
        late[i] = subscribe_late(ears[i], ">", 100);
    }
    EQUAL(__builtin_popcountll(w->f->catching_up), DP_CATCHING_UP);
    uint32_t heard[40] = {0};
    struct message m;
    for (int round = 0; round < 20; round++, advance(w, 20 * MILLISECOND))
        for (int i = 0; i < 40; i++)
            while (hear(&late[i], &m))
                heard[i]++;
    for (int i = 0; i < 40; i++) {
        EQUAL(heard[i], 20);
        CHECK(late[i].live);
    }
    close_world(w);
}
