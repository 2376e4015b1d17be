/* Events: who gets them, in what order, and who waits for whom. */
#include "harness.h"

TEST(an_event_reaches_everyone_whose_pattern_matches_and_nobody_else)
{
    struct world *w = new_world();
    struct peer *a = join(w, "a"), *b = join(w, "b"), *c = join(w, "c"), *sender = join(w, "sender");
    subscribe(a, "buffer.*.changed");
    subscribe(b, "buffer.>");
    subscribe(c, "index.>");
    CHECK(publish(sender, "buffer.12.changed", "both"));
    CHECK(publish(sender, "buffer.12.closed.now", "only b"));
    settle(w);
    GETS(a, "both");
    GETS_NOTHING(a);
    GETS(b, "both");
    GETS(b, "only b");
    GETS_NOTHING(b);
    GETS_NOTHING(c);
    close_world(w);
}

TEST(a_receiver_learns_who_sent_it_and_for_which_interests)
{
    struct world *w = new_world();
    struct peer *a = join(w, "a"), *sender = join(w, "sender");
    subscribe(a, "x");
    subscribe_group(a, "x", "g", 3);
    publish(sender, "x", "1");
    settle(w);
    struct message m;
    CHECK(take(a, &m));
    EQUAL(m.header.interests, SB_PLAIN | 1u << 3);
    EQUAL(m.header.peer, sender->slot);
    EQUAL(m.header.peer_generation, sender->generation);
    EQUAL(m.header.attempt, 1);
    EQUAL(m.header.path, 0);
    CHECK(strcmp(m.type, "x") == 0);
    GETS_NOTHING(a);
    close_world(w);
}

TEST(what_a_sender_claims_about_itself_is_not_believed)
{
    struct world *w = new_world();
    struct peer *a = join(w, "a"), *sender = join(w, "sender");
    subscribe(a, "x");
    struct sb_record forged = {.kind = SB_EVENT, .flags = SB_RAW | SB_REDELIVERED | SB_REMOTE, .path = 7, .epoch = 7,
                               .interests = ~0u, .peer = (uint16_t)a->slot, .peer_generation = a->generation,
                               .attempt = 9, .lost = 99};
    CHECK(put(sender, SB_DATA, forged, "x", "y", 1));
    flush(sender);
    settle(w);
    struct message m;
    CHECK(take(a, &m));
    EQUAL(m.header.flags, SB_RAW);
    EQUAL(m.header.interests, SB_PLAIN);
    EQUAL(m.header.peer, sender->slot);
    EQUAL(m.header.attempt, 1);
    EQUAL(m.header.path, 0);
    EQUAL(m.header.epoch, 0);
    EQUAL(m.header.lost, 0);
    close_world(w);
}

TEST(a_publisher_hears_itself)
{
    struct world *w = new_world();
    struct peer *a = join(w, "a");
    subscribe(a, "x");
    publish(a, "x", "own");
    settle(w);
    GETS(a, "own");
    close_world(w);
}

TEST(an_event_that_nobody_matches_is_counted_and_not_lost)
{
    struct world *w = new_world();
    struct peer *sender = join(w, "sender");
    for (int i = 0; i < 3; i++)
        publish(sender, "x", "y");
    settle(w);
    EQUAL(rb_load(&w->bus->unrouted), 3);
    EQUAL(rb_load(&sender->down->unrouted), 3);
    EQUAL(rb_load(&w->bus->lost), 0);
    EQUAL(rb_load(&sender->down->forwarded), 3);
    close_world(w);
}

TEST(order_holds_across_types_targets_and_batches)
{
    struct world *w = new_world();
    struct peer *a = join(w, "a"), *b = join(w, "b"), *sender = join(w, "sender");
    subscribe(a, ">");
    subscribe(b, "even");
    char text[16];
    for (int i = 0; i < 600; i++) {
        snprintf(text, sizeof text, "%d", i);
        CHECK(put(sender, SB_DATA, (struct sb_record){.kind = SB_EVENT}, i % 2 ? "odd" : "even", text, strlen(text)));
    }
    flush(sender);
    settle(w);
    int next = 0;
    struct message m;
    while (take(a, &m))
        if (m.type[0] != '$')
            EQUAL(atoi(m.text), next++);
    EQUAL(next, 600);
    next = 0;
    for (; take(b, &m); next += 2)
        EQUAL(atoi(m.text), next);
    EQUAL(next, 600);
    close_world(w);
}

TEST(a_subscription_that_was_closed_gets_nothing_more)
{
    struct world *w = new_world();
    struct peer *a = join(w, "a"), *sender = join(w, "sender");
    uint64_t one = subscribe(a, "x.*"), two = subscribe(a, "x.y");
    publish(sender, "x.y", "1");
    settle(w);
    EQUAL(count_messages(a), 1);
    remove_interest(a, one);
    publish(sender, "x.y", "2");
    publish(sender, "x.z", "3");
    settle(w);
    GETS(a, "2");
    remove_interest(a, two);
    publish(sender, "x.y", "4");
    settle(w);
    GETS_NOTHING(a);
    EQUAL(w->f->routes.pattern_count, 0);
    close_world(w);
}

TEST(a_note_for_observers_is_no_interest)
{
    struct world *w = new_world();
    struct peer *a = join(w, "a"), *b = join(w, "b");
    subscribe(a, "x");
    uint64_t version = rb_load(&w->bus->routes_version);
    uint64_t note = commit_interest(a, (struct sb_interest){.op = SB_INTEREST_NOTE}, "y", "");
    commit_interest(a, (struct sb_interest){.op = SB_INTEREST_NOTE, .id = note}, "z", "");
    commit_interest(a, (struct sb_interest){.op = SB_INTEREST_REMOVE, .id = note}, "", "");
    CHECK(!a->quarantined);
    EQUAL(rb_load(&w->bus->routes_version), version);
    publish(b, "x", "1");
    publish(b, "y", "2");
    publish(b, "z", "3");
    settle(w);
    GETS(a, "1");
    GETS_NOTHING(a);
    close_world(w);
}

TEST(a_log_of_interests_that_is_replaced_takes_the_place_of_the_old_one)
{
    struct world *w = new_world();
    struct peer *a = join(w, "a"), *sender = join(w, "sender");
    subscribe(a, "old");
    struct sb_interests *old = a->log;
    uint64_t size = a->log_size;
    shm_unlink(a->log_name);
    open_log(a, 2, 4096);
    a->next_interest = 0; /* the same ids again */
    subscribe(a, "new");
    munmap(old, size);
    publish(sender, "old", "1");
    publish(sender, "new", "2");
    settle(w);
    GETS(a, "2");
    GETS_NOTHING(a);
    close_world(w);
}

TEST(a_bus_type_is_not_matched_by_a_leading_wildcard)
{
    struct world *w = new_world();
    struct peer *a = join(w, "a"), *b = join(w, "b"), *c = join(w, "c");
    subscribe(a, ">");
    subscribe(b, "*.endpoint.up");
    subscribe(c, "$bus.endpoint.>");
    join(w, "late");
    struct message m;
    CHECK(take(c, &m));
    CHECK(strcmp(m.type, "$bus.endpoint.up") == 0 && mentions(&m, "late"));
    EQUAL(m.header.peer, SB_FROM_BUS);
    GETS_NOTHING(a);
    GETS_NOTHING(b);
    close_world(w);
}

TEST(an_endpoint_is_announced_once_and_not_before_it_says_that_it_is_attached)
{
    struct world *w = new_world();
    struct peer *ear = join(w, "ear");
    subscribe(ear, "$bus.>");
    struct peer *p = join(w, "p");
    advance(w, SECOND);
    EQUAL(count_messages(ear), 1);
    rb_store(&p->up->state, SB_UP_ATTACHED);
    raise_ready(p);
    settle(w);
    EQUAL(count_messages(ear), 0);
    close_world(w);
}

/* Queue groups ------------------------------------------------------------------------------------------------- */

TEST(a_group_gets_each_event_once)
{
    struct world *w = new_world();
    struct peer *a = join(w, "a"), *b = join(w, "b"), *plain = join(w, "plain"), *sender = join(w, "sender");
    subscribe_group(a, "job.>", "g", 1);
    subscribe_group(b, "job.*", "g", 2);
    subscribe(plain, "job.>");
    for (int i = 0; i < 40; i++)
        publish(sender, "job.x", "j");
    settle(w);
    uint32_t of_a = count_messages(a), of_b = count_messages(b);
    EQUAL(of_a + of_b, 40);
    EQUAL(of_b, 16); /* a was free first for what waited */
    EQUAL(count_messages(plain), 40);
    close_world(w);
}

TEST(one_that_is_in_a_group_by_two_patterns_gets_an_event_once)
{
    struct world *w = new_world();
    struct peer *a = join(w, "a"), *sender = join(w, "sender");
    subscribe_group(a, "job.>", "g", 1);
    subscribe_group(a, "job.x", "g", 1);
    subscribe(a, "job.x");
    subscribe(a, ">");
    publish(sender, "job.x", "1");
    settle(w);
    EQUAL(count_messages(a), 1);
    close_world(w);
}

TEST(a_group_gives_to_the_member_that_has_least_to_do)
{
    struct world *w = new_world();
    struct peer *busy = join(w, "busy"), *idle = join(w, "idle"), *sender = join(w, "sender");
    subscribe_group(busy, "job", "g", 1);
    subscribe_group(idle, "job", "g", 1);
    struct message m;
    for (int i = 0; i < 20; i++) {
        publish(sender, "job", "j");
        settle(w);
        while (take(idle, &m)) {
        }
    }
    CHECK(dp_untouched(&w->f->ports[busy->slot]) <= 2); /* it takes nothing: all the others went elsewhere */
    close_world(w);
}

/* Space --------------------------------------------------------------------------------------------------------- */

#define SMALL ((struct size){.data_in = 4096})

static uint32_t fill(struct world *w, struct peer *sender, struct peer *target, const char *type)
{
    uint64_t before = w->f->ports[target->slot].delivered;
    for (int i = 0; i < 40; i++)
        CHECK(publish_bytes(sender, type, 200));
    settle(w);
    return (uint32_t)(w->f->ports[target->slot].delivered - before);
}

TEST(a_full_lossless_subscriber_delays_its_sources_and_nobody_else)
{
    struct world *w = new_world();
    struct peer *full = join_sized(w, "full", SMALL), *other = join(w, "other");
    struct peer *source = join(w, "source"), *stranger = join(w, "stranger");
    subscribe(full, "x");
    subscribe(other, "y");
    uint32_t fitted = fill(w, source, full, "x");
    CHECK(fitted < 40);
    publish(source, "y", "behind");
    publish(stranger, "y", "free");
    settle(w);
    GETS(other, "free");
    GETS_NOTHING(other); /* what is behind the front waits with it */
    for (uint32_t i = 0; i < 40; i++) {
        struct message m;
        CHECK(take(full, &m));
        settle(w);
    }
    GETS(other, "behind");
    EQUAL(rb_load(&w->bus->lost), 0);
    close_world(w);
}

TEST(a_source_that_waits_goes_on_as_soon_as_there_is_space)
{
    struct world *w = new_world();
    struct peer *full = join_sized(w, "full", SMALL), *source = join(w, "source");
    subscribe(full, "x");
    uint32_t left = 40 - fill(w, source, full, "x");
    uint64_t before = w->now;
    while (left) { /* no clock is needed */
        uint64_t delivered = w->f->ports[full->slot].delivered;
        struct message m;
        CHECK(take(full, &m));
        settle(w);
        left -= (uint32_t)(w->f->ports[full->slot].delivered - delivered);
    }
    EQUAL(w->now, before);
    close_world(w);
}

TEST(who_does_not_read_for_block_timeout_loses_messages_and_is_slow)
{
    struct world *w = open_world((struct plan){.block_timeout_ns = SECOND});
    struct peer *full = join_sized(w, "full", SMALL), *other = join(w, "other"), *source = join(w, "source");
    subscribe(full, "x");
    subscribe(other, "y");
    uint32_t fitted = fill(w, source, full, "x");
    publish(source, "y", "behind");
    advance(w, SECOND - MILLISECOND);
    EQUAL(rb_load(&full->down->lost), 0);
    GETS_NOTHING(other);
    advance(w, 2 * MILLISECOND);
    EQUAL(rb_load(&full->down->lost), 40 - fitted); /* the first waited, the rest did not wait again */
    EQUAL(rb_load(&w->bus->lost), 40 - fitted);
    EQUAL(rb_load(&w->f->rows[full->slot].health) & SB_SLOW, SB_SLOW);
    GETS(other, "behind");
    close_world(w);
}

TEST(a_slow_one_that_reads_again_is_waited_for_again_and_told_what_it_lost)
{
    struct world *w = open_world((struct plan){.block_timeout_ns = SECOND});
    struct peer *full = join_sized(w, "full", SMALL), *source = join(w, "source");
    subscribe(full, "x");
    uint32_t fitted = fill(w, source, full, "x");
    advance(w, 2 * SECOND);
    EQUAL(rb_load(&full->down->lost), 40 - fitted);
    EQUAL(count_messages(full), fitted);
    advance(w, 200 * MILLISECOND);
    EQUAL(rb_load(&w->f->rows[full->slot].health) & SB_SLOW, 0);
    publish(source, "x", "again");
    settle(w);
    struct message m;
    CHECK(take(full, &m));
    EQUAL(m.header.lost, 40 - fitted);
    uint64_t lost = rb_load(&full->down->lost);
    fill(w, source, full, "x");
    advance(w, SECOND / 2);
    EQUAL(rb_load(&full->down->lost), lost);
    close_world(w);
}

TEST(one_that_reads_a_little_now_and_then_is_waited_for_on_and_on)
{
    struct world *w = open_world((struct plan){.block_timeout_ns = SECOND});
    struct peer *full = join_sized(w, "full", SMALL), *source = join(w, "source");
    subscribe(full, "x");
    fill(w, source, full, "x");
    struct message m;
    for (int i = 0; i < 40; i++) {
        CHECK(take(full, &m));
        advance(w, SECOND * 9 / 10);
    }
    EQUAL(rb_load(&full->down->lost), 0);
    close_world(w);
}

TEST(a_head_of_line_that_needs_many_takes_is_waited_for_while_there_is_progress)
{
    struct world *w = open_world((struct plan){.block_timeout_ns = SECOND});
    struct peer *full = join_sized(w, "full", SMALL), *source = join(w, "source");
    subscribe(full, "x");
    uint32_t small = 0;
    while (small < 24 && publish_bytes(source, "x", 100))
        small++;
    publish_bytes(source, "x", 900); /* the space of six */
    settle(w);
    struct message m;
    for (uint32_t i = 0; i < small; i++) {
        CHECK(take(full, &m));
        advance(w, SECOND * 9 / 10);
    }
    EQUAL(rb_load(&full->down->lost), 0);
    CHECK(take(full, &m));
    EQUAL(m.header.length, SB_HEADER + 1 + 900);
    close_world(w);
}

TEST(drop_newest_delays_nobody_and_counts_what_it_lost)
{
    struct world *w = new_world();
    struct peer *lossy = join_sized(w, "lossy", SMALL), *other = join(w, "other"), *source = join(w, "source");
    subscribe_lossy(lossy, "x");
    subscribe(other, "y");
    uint32_t fitted = fill(w, source, lossy, "x");
    CHECK(fitted > 0 && fitted < 40);
    publish(source, "y", "behind");
    settle(w);
    GETS(other, "behind");
    EQUAL(rb_load(&lossy->down->lost), 40 - fitted);
    EQUAL(rb_load(&w->f->rows[lossy->slot].health), SB_FIT);
    EQUAL(count_messages(lossy), fitted);
    close_world(w);
}

TEST(a_lossy_run_that_ends_before_a_large_record_counts_every_record)
{
    struct world *w = new_world();
    struct peer *lossy = join_sized(w, "lossy", SMALL), *source = join(w, "source");
    subscribe_lossy(lossy, "x");
    uint32_t fitted = fill(w, source, lossy, "x");
    uint64_t lost = rb_load(&lossy->down->lost);
    EQUAL(fitted + lost, 40);
    static char zeros[2000];
    for (int i = 0; i < 9; i++) /* one run, in which every third is too large for its ring */
        CHECK(put(source, SB_DATA, (struct sb_record){.kind = SB_EVENT}, "x", zeros,
                  i % 3 == 2 ? 2000 : 1000 / (1 + i % 3)));
    flush(source);
    settle(w);
    EQUAL(rb_load(&lossy->down->lost) + w->f->ports[lossy->slot].delivered, 49);
    EQUAL(rb_load(&source->down->forwarded), 49);
    close_world(w);
}

TEST(a_fan_out_with_one_full_target_reaches_the_others_at_once_and_once)
{
    struct world *w = new_world();
    struct peer *full = join_sized(w, "full", SMALL), *one = join(w, "one"), *two = join(w, "two");
    struct peer *source = join(w, "source");
    subscribe(full, "x");
    subscribe(full, "z");
    subscribe(one, "x");
    subscribe(two, "x");
    while (fill(w, source, full, "z") == 40) {
    }
    struct peer *second = join(w, "second");
    publish(second, "x", "fan");
    settle(w);
    GETS(one, "fan");
    GETS(two, "fan");
    for (int i = 0; i < 5; i++)
        advance(w, 20 * MILLISECOND);
    GETS_NOTHING(one);
    uint32_t got = 0;
    struct message m;
    for (int i = 0; i < 100; i++, settle(w))
        while (take(full, &m))
            got += strcmp(m.text, "fan") == 0;
    EQUAL(got, 1);
    GETS_NOTHING(one);
    GETS_NOTHING(two);
    EQUAL(rb_load(&w->bus->lost), 0);
    EQUAL(rb_load(&second->down->todo.from), SB_NOWHERE);
    close_world(w);
}

TEST(a_fan_out_whose_full_target_never_reads_is_lost_there_alone)
{
    struct world *w = new_world();
    struct peer *full = join_sized(w, "full", SMALL), *one = join(w, "one"), *source = join(w, "source");
    subscribe(full, "x");
    subscribe(one, "x");
    for (int i = 0; i < 60; i++)
        CHECK(publish_bytes(source, "x", 200));
    settle(w);
    advance(w, 3 * SECOND);
    EQUAL(count_messages(one), 60);
    uint32_t got = count_messages(full);
    EQUAL(got + rb_load(&full->down->lost), 60);
    CHECK(got > 0 && got < 60);
    EQUAL(rb_load(&one->down->lost), 0);
    close_world(w);
}

TEST(an_event_too_large_for_one_subscriber_is_lost_there_and_reaches_the_others)
{
    struct world *w = new_world();
    struct peer *small = join_sized(w, "small", (struct size){.data_in = 1024}), *large = join(w, "large");
    struct peer *alone = join_sized(w, "alone", (struct size){.data_in = 1024}), *source = join(w, "source");
    subscribe(small, "x");
    subscribe(large, "x");
    subscribe(alone, "y");
    CHECK(publish_bytes(source, "x", 900));
    CHECK(publish_bytes(source, "x", 10));
    CHECK(publish_bytes(source, "y", 900));
    CHECK(publish_bytes(source, "y", 10));
    settle(w);
    EQUAL(count_messages(large), 2);
    EQUAL(count_messages(small), 1);
    EQUAL(rb_load(&small->down->lost), 1);
    EQUAL(count_messages(alone), 1);
    EQUAL(rb_load(&alone->down->lost), 1);
    EQUAL(rb_load(&w->bus->lost), 2);
    EQUAL(rb_load(&small->down->lost_by[SB_LOSS_TOO_LARGE]), 1);
    EQUAL(rb_load(&alone->down->lost_by[SB_LOSS_TOO_LARGE]), 1);
    EQUAL(rb_load(&w->bus->lost_by[SB_LOSS_TOO_LARGE]), 2);
    close_world(w);
}

TEST(a_ring_of_publishers_that_read_nothing_ends_by_time)
{
    struct world *w = new_world();
    struct size small = {.data_in = 4096, .data_out = 4096};
    struct peer *a = join_sized(w, "a", small), *b = join_sized(w, "b", small);
    subscribe(a, "to.a");
    subscribe(b, "to.b");
    uint32_t of_a = 0, of_b = 0;
    for (int i = 0; i < 200; i++) {
        of_a += publish_bytes(a, "to.b", 200);
        of_b += publish_bytes(b, "to.a", 200);
        settle(w);
    }
    CHECK(of_a < 200 && of_b < 200); /* both wait */
    advance(w, 3 * SECOND);
    CHECK(publish_bytes(a, "to.b", 200) && publish_bytes(b, "to.a", 200));
    settle(w);
    EQUAL(count_messages(b) + rb_load(&b->down->lost), of_a + 1);
    EQUAL(count_messages(a) + rb_load(&a->down->lost), of_b + 1);
    close_world(w);
}

TEST(a_head_of_line_waits_from_its_own_beginning_and_not_from_that_of_one_before)
{
    struct world *w = open_world((struct plan){.block_timeout_ns = SECOND});
    struct size tiny = {.data_in = 1024};
    struct peer *handler = join_sized(w, "handler", tiny), *target = join_sized(w, "target", tiny);
    struct peer *source = join(w, "source"), *fill = join(w, "fill"), *fill_too = join(w, "fill-too");
    struct message m;
    static char text[181];
    memset(text, 'o', 180);
    handle(handler, "ask");
    subscribe(handler, "fill.a");
    subscribe(target, "y");
    for (int i = 0; i < 20; i++)
        publish_bytes(fill, "fill.a", 100);
    settle(w);
    uint16_t index = ask(source, "ask", text); /* waits for the handler's space, */
    settle(w);
    rb_store(&source->pending[index].state, SB_PENDING_FREE); /* until its caller gives up */
    while (take(handler, &m))
        settle(w);
    raise_ready(source);
    settle(w);
    advance(w, 100 * SECOND);
    for (int i = 0; i < 7; i++)
        publish_bytes(fill_too, "y", 63); /* fills the target now */
    settle(w);
    publish_bytes(source, "y", 180);
    settle(w);
    EQUAL(rb_load(&target->down->lost), 0);
    close_world(w);
}

TEST(records_of_every_size_pass_every_place_of_the_wrap)
{
    struct world *w = new_world();
    struct size small = {.data_in = 1024, .data_out = 1024};
    struct peer *a = join_sized(w, "a", small), *b = join_sized(w, "b", (struct size){.data_in = 2048});
    struct peer *source = join_sized(w, "source", small);
    subscribe(a, "x");
    subscribe(b, "x");
    static char text[512];
    memset(text, 'a', sizeof text);
    uint64_t largest = rb_largest_record(1024) - SB_HEADER - 1;
    for (uint64_t gap = 0; gap < 24; gap++)
        for (uint64_t size = 0; size <= largest; size++) {
            text[0] = (char)('a' + size % 26);
            CHECK(put(source, SB_DATA, (struct sb_record){.kind = SB_EVENT}, "x", text, size));
            if (size % (gap + 1) == 0) {
                flush(source);
                settle(w);
            } else {
                rb_publish(&source->out[SB_DATA]);
                raise_ready(source);
                settle(w);
            }
            struct peer *both[2] = {a, b};
            for (int i = 0; i < 2; i++) {
                struct message m;
                CHECK(take(both[i], &m));
                EQUAL(m.header.length, SB_HEADER + 1 + size);
                CHECK(strlen(m.text) == size && (!size || m.text[0] == text[0]));
            }
        }
    EQUAL(rb_load(&w->bus->lost), 0);
    close_world(w);
}

TEST(a_fan_out_wraps_with_rings_of_different_sizes_and_loses_nothing)
{
    struct world *w = new_world();
    struct peer *a = join_sized(w, "a", (struct size){.data_in = 1024});
    struct peer *b = join_sized(w, "b", (struct size){.data_in = 2048});
    struct peer *c = join(w, "c"), *source = join_sized(w, "source", (struct size){.data_out = 2048});
    struct peer *all[3] = {a, b, c};
    for (int i = 0; i < 3; i++)
        subscribe(all[i], "x");
    uint64_t seed = 42;
    uint32_t sent = 0, got[3] = {0};
    while (sent < 3000) {
        char text[200];
        memset(text, 0, sizeof text);
        snprintf(text, sizeof text, "%u", sent);
        while (sent < 3000 && draw(&seed) % 4 &&
               put(source, SB_DATA, (struct sb_record){.kind = SB_EVENT}, "x", text, draw(&seed) % 170 + 8)) {
            sent++;
            memset(text, 0, sizeof text);
            snprintf(text, sizeof text, "%u", sent);
        }
        flush(source);
        settle(w);
        struct message m;
        for (int i = 0; i < 3; i++)
            for (uint64_t n = draw(&seed) % 6; n && take(all[i], &m); n--)
                EQUAL(atoi(m.text), got[i]++);
    }
    struct message m;
    for (int round = 0; round < 200; round++, settle(w))
        for (int i = 0; i < 3; i++)
            while (take(all[i], &m))
                EQUAL(atoi(m.text), got[i]++);
    for (int i = 0; i < 3; i++)
        EQUAL(got[i], 3000);
    close_world(w);
}

TEST(padding_that_stands_alone_does_no_harm)
{
    struct world *w = new_world();
    struct size small = {.data_out = 1024};
    struct peer *a = join(w, "a"), *source = join_sized(w, "source", small);
    subscribe(a, "x");
    uint8_t *at;
    for (int i = 0; i < 4; i++)
        CHECK(publish_bytes(source, "x", 150));
    settle(w); /* 880 of 1024 are used */
    CHECK(rb_claim(&source->out[SB_DATA], 200, 0, &at) == RB_OK); /* pads, and then has nothing to say */
    flush(source);
    settle(w);
    say_closing(source);
    EQUAL(rb_load(&source->down->state), SB_DOWN_DRAINED);
    say_closed(source);
    CHECK(source->reclaimed);
    EQUAL(count_messages(a), 4);
    close_world(w);
}

TEST(what_was_published_and_not_told_is_found_at_the_next_look)
{
    struct world *w = new_world();
    struct peer *a = join(w, "a"), *source = join(w, "source");
    subscribe(a, "x");
    advance(w, 200 * MILLISECOND);
    CHECK(put(source, SB_DATA, (struct sb_record){.kind = SB_EVENT, .flags = SB_RAW}, "x", "1", 1));
    rb_publish(&source->out[SB_DATA]); /* stopped before it could raise its word */
    settle(w);
    GETS_NOTHING(a);
    advance(w, 200 * MILLISECOND);
    GETS(a, "1");
    close_world(w);
}

TEST(a_sender_that_waits_for_space_in_its_own_ring_is_rung)
{
    struct world *w = new_world();
    struct peer *a = join(w, "a"), *source = join(w, "source");
    subscribe(a, "x");
    while (sem_trywait(&source->bell) == 0) {
    }
    rb_store(&source->up->bell, 1); /* it sleeps, */
    rb_store(&source->up->outgoing[SB_DATA].need, 200); /* until so much of its ring was forwarded */
    publish(source, "x", "1");
    settle(w);
    CHECK(sem_trywait(&source->bell) != 0);
    publish_bytes(source, "x", 100);
    settle(w);
    CHECK(sem_trywait(&source->bell) == 0);
    close_world(w);
}

TEST(a_fan_out_of_which_a_part_fits_is_given_whole_and_once)
{
    struct world *w = new_world();
    struct peer *full = join_sized(w, "full", SMALL), *other = join(w, "other"), *source = join(w, "source");
    subscribe(full, "y");
    subscribe(full, "x");
    subscribe(other, "x");
    for (int i = 0; i < 13; i++)
        CHECK(publish_bytes(source, "y", 200));
    settle(w);
    for (int i = 0; i < 2; i++) /* there is space for the first of them */
        CHECK(put(source, SB_DATA, (struct sb_record){.kind = SB_EVENT, .flags = SB_RAW}, "x", (char[400]){0}, 400));
    flush(source);
    settle(w);
    EQUAL(count_messages(other), 2);
    uint32_t got = 0, more;
    while ((more = count_messages(full)))
        got += more, settle(w);
    EQUAL(got, 13 + 2);
    close_world(w);
}
