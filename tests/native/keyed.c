/* Of a group with a key, one member gets all messages of one key, in their order. */
#include "harness.h"

static struct peer *join_member(struct world *w, const char *name)
{
    struct peer *p = join(w, name);
    subscribe_keyed(p, "o.*.>", "g", 1, ID);
    return p;
}

static void say_in_order(struct peer *source, const char *type, int from, int to)
{
    char text[16];
    for (int i = from; i < to; i++) {
        snprintf(text, sizeof text, "%d", i);
        CHECK(publish(source, type, text));
    }
    settle(source->world);
}

static void gets_in_order(struct peer *p, int from, int to)
{
    char text[16];
    for (int i = from; i < to; i++) {
        snprintf(text, sizeof text, "%d", i);
        GETS(p, text);
        settle(p->world);
    }
}

TEST(messages_of_one_key_go_to_one_member_however_busy_it_is)
{
    struct world *w = open_world((struct plan){.prefetch = 1});
    struct peer *a = join_member(w, "a"), *b = join_member(w, "b"), *source = join(w, "source");
    for (int i = 0; i < 40; i++) {
        char type[32];
        snprintf(type, sizeof type, "o.%d.%s", i % 10, i % 3 ? "new" : "old.er");
        publish(source, type, "m");
    }
    settle(w);
    struct message m;
    uint32_t count = 0;
    for (; take(a, &m); count++)
        CHECK(prefers(a, b, m.type));
    for (; take(b, &m); count++)
        CHECK(prefers(b, a, m.type));
    EQUAL(count, 40);
    EQUAL(rb_load(&w->bus->backlogs_made), 0);
    close_world(w);
}

TEST(a_key_that_moves_waits_until_its_former_owner_is_done_and_others_flow_on)
{
    struct world *w = new_world();
    struct peer *a = join_member(w, "a"), *source = join(w, "source"), *b = join(w, "b");
    const char *stays = type_of(a, b), *moves = type_of(b, a);
    struct message m;
    say_in_order(source, moves, 0, 3);
    CHECK(begin(a, &m));
    subscribe_keyed(b, "o.*.>", "g", 1, ID);
    say_in_order(source, moves, 3, 6);
    say_in_order(source, stays, 0, 2);
    GETS_NOTHING(b);
    gets_in_order(a, 1, 3);
    gets_in_order(a, 0, 2); /* of the other key */
    advance(w, SECOND);
    GETS_NOTHING(b); /* the first is still in hand */
    finish(a, &m);
    settle(w); /* it rings by itself */
    gets_in_order(b, 3, 6);
    advance(w, SECOND);
    say_in_order(source, moves, 6, 8);
    gets_in_order(b, 6, 8);
    GETS_NOTHING(a);
    close_world(w);
}

TEST(what_a_dead_member_left_goes_first_to_the_new_owner)
{
    struct world *w = new_world();
    struct peer *source = join(w, "source"), *a = join_member(w, "a"), *b = join_member(w, "b");
    const char *type = type_of(a, b);
    struct message m;
    say_in_order(source, type, 0, 4);
    CHECK(take(a, &m) && begin(a, &m));
    CHECK(publish(source, type, "4") && publish(source, type, "5")); /* looked at before what it left */
    die(a, SB_REASON_KILLED);
    CHECK(take(b, &m));
    EQUAL(m.header.attempt, 2);
    CHECK(strcmp(m.text, "1") == 0);
    gets_in_order(b, 2, 6);
    EQUAL(rb_load(&w->bus->lost) + rb_load(&w->bus->dead_letters), 0);
    close_world(w);
}

TEST(who_closes_hands_over_once_it_has_drained)
{
    struct world *w = new_world();
    struct peer *a = join_member(w, "a"), *b = join_member(w, "b"), *source = join(w, "source");
    const char *type = type_of(a, b);
    say_in_order(source, type, 0, 3);
    say_closing(a);
    say_in_order(source, type, 3, 5);
    GETS_NOTHING(b);
    gets_in_order(a, 0, 2);
    GETS_NOTHING(b);
    say_closed(a); /* the last goes on, and first */
    gets_in_order(b, 2, 5);
    close_world(w);
}

TEST(who_leaves_the_group_hands_over_and_keeps_the_rest)
{
    struct world *w = new_world();
    struct peer *a = join(w, "a"), *b = join_member(w, "b"), *source = join(w, "source");
    uint64_t id = subscribe_keyed(a, "o.*.>", "g", 1, ID);
    const char *type = type_of(a, b);
    subscribe(a, "news");
    say_in_order(source, type, 0, 2);
    remove_interest(a, id);
    say_in_order(source, type, 2, 4);
    say_in_order(source, "news", 7, 8);
    GETS_NOTHING(b);
    gets_in_order(a, 0, 2);
    gets_in_order(b, 2, 4);
    gets_in_order(a, 7, 8);
    close_world(w);
}

TEST(who_hangs_holds_up_the_keys_that_leave_it_and_no_others)
{
    struct world *w = new_world();
    struct peer *hung = join_member(w, "hung"), *a = join_member(w, "a");
    struct peer *source = join(w, "source"), *b = join(w, "b");
    const char *from_hung = NULL, *from_a = NULL;
    for (int i = 0; i < 200 && !(from_hung && from_a); i++) { /* both would go to b */
        static char types[200][32];
        snprintf(types[i], sizeof types[i], "o.%d.x", i);
        if (!prefers(b, a, types[i]) || !prefers(b, hung, types[i]))
            continue;
        *(prefers(hung, a, types[i]) ? &from_hung : &from_a) = types[i];
    }
    CHECK(from_hung && from_a);
    say_in_order(source, from_hung, 0, 1);
    say_in_order(source, from_a, 0, 1);
    subscribe_keyed(b, "o.*.>", "g", 1, ID);
    say_in_order(source, from_hung, 1, 3);
    say_in_order(source, from_a, 1, 3);
    GETS_NOTHING(b);
    gets_in_order(a, 0, 1);
    gets_in_order(b, 1, 3);
    GETS_NOTHING(b);
    struct peer *later = join_member(w, "later"); /* waits, as long as that is not settled */
    advance(w, SECOND);
    say_in_order(source, type_of(later, a), 0, 0);
    die(hung, SB_REASON_KILLED);
    gets_in_order(b, 0, 3);
    advance(w, SECOND);
    const char *its = NULL;
    for (int i = 0; i < 1000 && !its; i++) {
        static char type[32];
        snprintf(type, sizeof type, "o.%d.y", i);
        its = prefers(later, a, type) && prefers(later, b, type) ? type : NULL;
    }
    say_in_order(source, its, 0, 2);
    gets_in_order(later, 0, 2);
    close_world(w);
}

TEST(a_fan_out_that_waits_for_a_full_owner_goes_to_the_next_when_the_key_moves)
{
    struct world *w = open_world((struct plan){.block_timeout_ns = 100 * SECOND});
    struct size small = {.data_in = 1024};
    struct peer *a = join_sized(w, "a", small), *ear = join(w, "ear"), *source = join(w, "source"), *b = join(w, "b");
    subscribe_keyed(a, "o.*.>", "g", 1, ID);
    subscribe(ear, "o.>");
    const char *type = type_of(b, a);
    say_in_order(source, type, 0, 20);
    CHECK(dp_todo_stands(&w->f->ports[source->slot]));
    subscribe_keyed(b, "o.*.>", "g", 3, ID);
    GETS_NOTHING(b);
    uint32_t n = 0;
    for (struct message m; take(a, &m); n++)
        EQUAL(atoi(m.text), n);
    CHECK(n > 0 && n < 20);
    settle(w);
    gets_in_order(b, (int)n, 20);
    gets_in_order(ear, 0, 20);
    EQUAL(rb_load(&w->bus->lost), 0);
    close_world(w);
}

TEST(a_fan_out_that_waits_is_of_one_key)
{
    struct world *w = open_world((struct plan){.block_timeout_ns = 100 * SECOND});
    struct size small = {.data_in = 2048};
    struct peer *a = join_sized(w, "a", small), *ear = join(w, "ear"), *source = join(w, "source"), *b = join(w, "b");
    subscribe_keyed(a, "o.*.>", "g", 1, ID);
    subscribe(ear, "o.>");
    const char *moves = type_of(b, a), *stays = type_of(a, b);
    for (int i = 0; i < 60; i++)
        CHECK(publish(source, i % 2 ? moves : stays, "m"));
    settle(w);
    CHECK(dp_todo_stands(&w->f->ports[source->slot]));
    subscribe_keyed(b, "o.*.>", "g", 3, ID);
    uint32_t count = 0;
    for (struct message m; take(a, &m);)
        count++;
    settle(w);
    CHECK(count < 60);
    for (struct message m; take(b, &m); count++, settle(w))
        CHECK(strcmp(m.type, moves) == 0);
    for (struct message m; take(a, &m); count++, settle(w))
        CHECK(strcmp(m.type, stays) == 0);
    EQUAL(count, 60);
    EQUAL(count_messages(ear), 60);
    close_world(w);
}

TEST(who_was_refused_stays_so_for_a_successor_that_reads_its_log_first)
{
    struct world *w = new_world();
    struct peer *b = join(w, "b"), *a = join(w, "a"), *source = join(w, "source");
    subscribe_group(a, "o.*.>", "g", 1);
    uint64_t id = subscribe_keyed(b, "o.*.>", "g", 1, ID);
    EQUAL(rb_load(&b->down->refused), id);
    close_forwarder(w->f);
    reopen(w);
    dp_take_orders(w->f, true);
    dp_recover(w->f);
    settle(w);
    EQUAL(rb_load(&a->down->refused), 0);
    say_in_order(source, "o.1.x", 0, 3);
    gets_in_order(a, 0, 3);
    GETS_NOTHING(b);
    close_world(w);
}

TEST(what_comes_while_others_wait_goes_behind_them)
{
    struct world *w = new_world();
    struct peer *a = join_member(w, "a"), *source = join(w, "source"), *b = join(w, "b");
    const char *moves = type_of(b, a);
    struct message m;
    say_in_order(source, moves, 0, 1);
    CHECK(begin(a, &m));
    subscribe_keyed(b, "o.*.>", "g", 1, ID);
    say_in_order(source, moves, 1, 3);
    finish(a, &m);
    say_in_order(source, moves, 3, 5);
    gets_in_order(b, 1, 5);
    close_world(w);
}

TEST(a_full_owner_makes_its_sources_wait_and_then_what_is_lost_is_counted)
{
    struct world *w = new_world();
    struct peer *a = join_sized(w, "a", (struct size){.data_in = 1024}), *source = join(w, "source");
    subscribe_keyed(a, "o.*.>", "g", 1, ID);
    say_in_order(source, "o.1.x", 0, 20);
    EQUAL(rb_load(&w->bus->lost), 0);
    advance(w, 3 * SECOND);
    CHECK(rb_load(&a->down->lost_by[SB_LOSS_SLOW]) > 0);
    EQUAL(count_messages(a) + rb_load(&a->down->lost), 20);
    close_world(w);
}

TEST(what_has_waited_for_a_key_is_lost_where_its_owner_stays_full)
{
    struct world *w = new_world();
    struct peer *a = join_member(w, "a"), *b = join_sized(w, "b", (struct size){.data_in = 1024});
    struct peer *source = join(w, "source");
    struct message m;
    say_in_order(source, type_of(b, a), 0, 1);
    CHECK(begin(a, &m));
    subscribe_keyed(b, "o.*.>", "g", 1, ID);
    say_in_order(source, type_of(b, a), 1, 31);
    finish(a, &m);
    settle(w);
    EQUAL(rb_load(&b->down->lost), 0);
    advance(w, 3 * SECOND);
    CHECK(rb_load(&b->down->lost_by[SB_LOSS_SLOW]) > 0);
    EQUAL(count_messages(b) + rb_load(&b->down->lost), 30);
    close_world(w);
}

/* A world in which no backlog can be made. */
static struct world *cramped_world(void) { return open_world((struct plan){.backlog_bytes = 1ull << 62}); }

TEST(where_no_backlog_can_be_made_a_former_owner_that_hangs_holds_up_nobody_for_long)
{
    struct world *w = cramped_world();
    struct peer *a = join_member(w, "a"), *ear = join(w, "ear"), *source = join(w, "source"), *b = join(w, "b");
    const char *moves = type_of(b, a), *stays = type_of(a, b);
    struct message m;
    subscribe(ear, "o.>");
    say_in_order(source, moves, 0, 1);
    CHECK(begin(a, &m));
    subscribe_keyed(b, "o.*.>", "g", 1, ID);
    say_in_order(source, moves, 1, 4);
    say_in_order(source, stays, 4, 5);
    gets_in_order(ear, 0, 1);
    GETS_NOTHING(ear);
    EQUAL(rb_load(&w->bus->lost), 0);
    advance(w, 2 * SECOND); /* once, and not for each message */
    gets_in_order(ear, 1, 5);
    gets_in_order(a, 4, 5);
    GETS_NOTHING(b);
    EQUAL(rb_load(&a->down->lost_by[SB_LOSS_SLOW]), 3);
    finish(a, &m);
    say_in_order(source, moves, 5, 7);
    gets_in_order(b, 5, 7);
    gets_in_order(ear, 5, 7);
    EQUAL(rb_load(&w->bus->lost), 3);
    close_world(w);
}

TEST(what_nobody_else_gets_is_lost_at_a_former_owner_that_hangs_where_no_backlog_can_be_made)
{
    struct world *w = cramped_world();
    struct peer *a = join_member(w, "a"), *source = join(w, "source"), *b = join(w, "b");
    struct message m, back;
    say_in_order(source, type_of(b, a), 0, 2);
    CHECK(begin(a, &m) && begin(a, &back));
    subscribe_keyed(b, "o.*.>", "g", 1, ID);
    struct sb_record h = back.header;
    h.kind = SB_NACK;
    h.attempt = 2;
    CHECK(put(a, SB_DATA, h, type_of(b, a), "1", 1)); /* what it gives back itself is a dead letter then */
    flush(a);
    finish(a, &back);
    say_in_order(source, type_of(b, a), 2, 4);
    EQUAL(rb_load(&w->bus->lost) + rb_load(&w->bus->dead_letters), 0);
    advance(w, 2 * SECOND);
    EQUAL(rb_load(&a->down->lost), 2);
    EQUAL(rb_load(&w->bus->dead_letters), 1);
    finish(a, &m);
    say_in_order(source, type_of(b, a), 4, 5);
    gets_in_order(b, 4, 5);
    close_world(w);
}

TEST(a_fan_out_waits_for_a_former_owner_that_hangs_as_for_space_where_no_backlog_can_be_made)
{
    struct world *w = cramped_world();
    struct peer *a = join_sized(w, "a", (struct size){.data_in = 1024}), *ear = join(w, "ear");
    struct peer *source = join(w, "source"), *b = join(w, "b");
    subscribe_keyed(a, "o.*.>", "g", 1, ID);
    subscribe(ear, "o.>");
    say_in_order(source, type_of(b, a), 0, 20);
    CHECK(dp_todo_stands(&w->f->ports[source->slot]));
    subscribe_keyed(b, "o.*.>", "g", 3, ID);
    advance(w, 3 * SECOND);
    gets_in_order(ear, 0, 20);
    GETS_NOTHING(b);
    EQUAL(count_messages(a) + rb_load(&a->down->lost_by[SB_LOSS_SLOW]), 20);
    say_in_order(source, type_of(b, a), 20, 22);
    gets_in_order(b, 20, 22);
    close_world(w);
}

TEST(where_no_backlog_can_be_made_a_former_owner_that_hangs_is_not_waited_for_because_it_takes_other_messages)
{
    struct world *w = cramped_world();
    struct peer *a = join_member(w, "a"), *source = join(w, "source"), *other = join(w, "other"), *b = join(w, "b");
    const char *moves = type_of(b, a);
    struct message m, news;
    subscribe(a, "news");
    say_in_order(source, moves, 0, 1);
    CHECK(begin(a, &m));
    uint64_t id = subscribe_keyed(b, "o.*.>", "g", 1, ID);
    say_in_order(source, moves, 1, 3);
    rb_store(&a->up->let_go_from, m.position + 1); /* it holds more than it may, so that leaves its ring */
    finish(a, &m);
    for (int i = 0; i < 8; i++) {
        say_in_order(other, "news", i, i + 1);
        CHECK(take(a, &news));
        advance(w, SECOND / 4);
    }
    EQUAL(rb_load(&a->down->lost_by[SB_LOSS_SLOW]), 2);
    GETS_NOTHING(b);
    rb_store(&a->up->let_go_from, 0); /* it does not hang for good */
    say_in_order(source, moves, 3, 4);
    gets_in_order(b, 3, 4);
    remove_interest(b, id);
    advance(w, SECOND);
    say_in_order(source, moves, 4, 5);
    CHECK(begin(a, &m));
    subscribe_keyed(b, "o.*.>", "g", 1, ID);
    say_in_order(source, moves, 5, 6); /* waits again */
    advance(w, SECOND / 2);
    EQUAL(rb_load(&w->bus->lost), 2);
    finish(a, &m);
    advance(w, SECOND / 4);
    gets_in_order(b, 5, 6);
    close_world(w);
}

/* One message each half second, as long as some come. */
static void gets_slowly(struct peer *p, int from, int to)
{
    for (int i = from; i < to; i++) {
        gets_in_order(p, i, i + 1);
        advance(p->world, SECOND / 2);
    }
}

TEST(where_no_backlog_can_be_made_all_that_a_dead_member_left_is_waited_for_while_it_is_handed_on)
{
    struct world *w = cramped_world();
    struct peer *a = join_member(w, "a"), *source = join(w, "source");
    struct peer *b = join_sized(w, "b", (struct size){.data_in = 1024});
    const char *type = type_of(b, a);
    say_in_order(source, type, 0, 30);
    subscribe_keyed(b, "o.*.>", "g", 1, ID);
    die(a, SB_REASON_KILLED);
    say_in_order(source, type, 30, 32);
    gets_slowly(b, 0, 32);
    EQUAL(rb_load(&w->bus->lost) + rb_load(&w->bus->dead_letters), 0);
    close_world(w);
}

TEST(who_is_done_with_a_key_is_not_blamed_while_an_older_backlog_gets_empty)
{
    struct world *w = new_world();
    struct peer *a = join_member(w, "a"), *source = join(w, "source");
    struct peer *b = join_sized(w, "b", (struct size){.data_in = 1024});
    const char *type = type_of(b, a);
    struct message m;
    say_in_order(source, type, 0, 1);
    CHECK(begin(a, &m));
    subscribe_keyed(b, "o.*.>", "g", 1, ID);
    say_in_order(source, type, 1, 30);
    w->bus->backlog_bytes = 1ull << 62;
    say_in_order(join_sized(w, "large", (struct size){.data_out = 1 << 18}), type, 30, 32);
    finish(a, &m);
    settle(w);
    gets_slowly(b, 1, 32);
    EQUAL(rb_load(&w->bus->lost), 0);
    close_world(w);
}

TEST(who_hangs_is_not_waited_for_where_only_the_head_of_an_older_backlog_waits_for_it)
{
    struct world *w = new_world();
    struct peer *a = join(w, "a"), *c = join_member(w, "c"), *source = join(w, "source");
    struct peer *b = join(w, "b");
    uint64_t of_a = subscribe_keyed(a, "o.*.>", "g", 1, ID);
    const char *through_b = NULL, *to_c = NULL; /* a's; b takes one from it, and both are c's in the end */
    for (int i = 0; i < 200 && !(through_b && to_c); i++) {
        static char types[200][32];
        snprintf(types[i], sizeof types[i], "o.%d.x", i);
        if (prefers(a, c, types[i]))
            *(prefers(b, a, types[i]) ? &through_b : &to_c) = types[i];
    }
    CHECK(through_b && to_c);
    struct message m, news;
    say_in_order(source, through_b, 0, 1);
    CHECK(begin(a, &m));
    subscribe(b, "news");
    say_in_order(source, "news", 0, 1);
    CHECK(begin(b, &news));
    uint64_t of_b = subscribe_keyed(b, "o.*.>", "g", 1, ID);
    say_in_order(source, through_b, 1, 2);
    remove_interest(b, of_b);
    remove_interest(a, of_a);
    finish(a, &m);
    w->bus->backlog_bytes = 1ull << 62;
    struct peer *large = join_sized(w, "large", (struct size){.data_out = 1 << 18});
    say_in_order(large, to_c, 5, 6);
    say_in_order(large, "news", 6, 7);
    EQUAL(rb_load(&w->bus->lost), 0);
    advance(w, 2 * SECOND);
    EQUAL(rb_load(&b->down->lost_by[SB_LOSS_SLOW]), 1);
    GETS_NOTHING(c);
    finish(b, &news);
    advance(w, SECOND);
    gets_in_order(c, 1, 2);
    GETS(b, "6");
    close_world(w);
}

TEST(members_that_disagree_about_the_key_are_refused)
{
    struct world *w = new_world();
    struct peer *a = join_member(w, "a"), *b = join(w, "b"), *source = join(w, "source");
    uint64_t id = subscribe_keyed(b, "o.*.>", "g", 1, 4);
    EQUAL(rb_load(&b->down->refused), id);
    EQUAL(rb_load(&b->down->refused_why), SB_REFUSED_KEY);
    id = subscribe_keyed(b, "o.*.*", "g", 1, ID);
    EQUAL(rb_load(&b->down->refused), id);
    id = subscribe_group(b, "o.*.>", "g", 1);
    EQUAL(rb_load(&b->down->refused_why), SB_REFUSED_GROUP);
    remove_interest(b, id);
    subscribe_group(b, "o.*.>", "h", 2);
    id = subscribe_keyed(a, "o.*.>", "h", 2, ID);
    EQUAL(rb_load(&a->down->refused), id);
    EQUAL(rb_load(&a->down->refused_why), SB_REFUSED_GROUP);
    say_in_order(source, "o.1.x", 0, 10);
    gets_in_order(a, 0, 10);
    EQUAL(count_messages(b), 10); /* of the other group */
    close_world(w);
}

TEST(a_group_that_nobody_is_in_any_more_may_have_another_key)
{
    struct world *w = new_world();
    struct peer *a = join(w, "a"), *source = join(w, "source");
    uint64_t id = subscribe_keyed(a, "o.*.>", "g", 1, ID);
    say_in_order(source, "o.1.x", 0, 2);
    gets_in_order(a, 0, 2);
    remove_interest(a, id);
    advance(w, SECOND);
    EQUAL(rb_load(&w->bus->keyed[0].key), 0);
    subscribe_keyed(a, "o.*.>", "g", 1, 4);
    EQUAL(rb_load(&a->down->refused), 0);
    say_in_order(source, "o.1.x", 2, 3);
    gets_in_order(a, 2, 3);
    close_world(w);
}

TEST(a_change_of_members_is_told_of_behind_the_messages_of_before)
{
    struct world *w = new_world();
    struct peer *a = join(w, "a"), *source = join(w, "source"), *b = join(w, "b");
    struct message m;
    subscribe(a, "$bus.group.rebalanced");
    subscribe_keyed(a, "o.*.>", "g", 1, ID);
    CHECK(take(a, &m) && mentions(&m, "joined"));
    const char *moves = type_of(b, a);
    say_in_order(source, moves, 0, 2);
    subscribe_keyed(b, "o.*.>", "g", 1, ID);
    say_in_order(source, moves, 2, 3);
    gets_in_order(a, 0, 2);
    GETS_NOTHING(b);
    CHECK(take(a, &m));
    CHECK(mentions(&m, "joined") && mentions(&m, "o.*.>") && mentions(&m, "members"));
    settle(w);
    gets_in_order(b, 2, 3);
    die(b, SB_REASON_KILLED);
    CHECK(take(a, &m));
    CHECK(mentions(&m, "died"));
    close_world(w);
}

TEST(what_was_given_back_comes_to_the_owner_again)
{
    struct world *w = new_world();
    struct peer *a = join_member(w, "a"), *b = join_member(w, "b"), *source = join(w, "source");
    const char *type = type_of(a, b);
    struct message m;
    say_in_order(source, type, 0, 1);
    CHECK(begin(a, &m));
    struct sb_record h = m.header;
    h.kind = SB_NACK;
    h.attempt = 2;
    CHECK(put(a, SB_DATA, h, type, "0", 1));
    flush(a);
    finish(a, &m);
    settle(w);
    GETS_NOTHING(b);
    CHECK(take(a, &m));
    EQUAL(m.header.attempt, 2);
    close_world(w);
}

TEST(a_successor_comes_to_the_same_owners_and_keeps_what_waits_in_order)
{
    struct world *w = new_world();
    struct peer *a = join_member(w, "a"), *source = join(w, "source"), *b = join(w, "b");
    const char *moves = type_of(b, a);
    say_in_order(source, moves, 0, 2);
    subscribe_keyed(b, "o.*.>", "g", 1, ID);
    say_in_order(source, moves, 2, 4);
    close_forwarder(w->f);
    reopen(w);
    dp_take_orders(w->f, true);
    dp_recover(w->f);
    settle(w);
    say_in_order(source, moves, 4, 5);
    GETS_NOTHING(b);
    gets_in_order(a, 0, 2);
    gets_in_order(b, 2, 5);
    EQUAL(rb_load(&w->bus->keyed[0].epoch), 3);
    close_world(w);
}
