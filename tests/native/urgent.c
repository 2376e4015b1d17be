/* Urgent events: they overtake what is not urgent at the receiver, and are events like others in all else. */
#include "harness.h"

static void put_urgent(struct peer *p, const char *type, const char *text)
{
    struct sb_record h = {.kind = SB_EVENT, .flags = SB_RAW | SB_URGENT};
    CHECK(put(p, SB_DATA, h, type, text, strlen(text)));
    flush(p);
}

#define GETS_URGENT(peer, wanted)                                                                               \
    do {                                                                                                        \
        struct message m_;                                                                                      \
        CHECK(take_urgent(peer, &m_));                                                                          \
        CHECK(m_.header.flags & SB_URGENT);                                                                     \
        CHECK(strcmp(m_.text, wanted) == 0);                                                                    \
    } while (0)

#define GETS_NOTHING_URGENT(peer)                                                                               \
    do {                                                                                                        \
        struct message m_;                                                                                      \
        CHECK(!take_urgent(peer, &m_));                                                                         \
    } while (0)

TEST(urgent_events_lie_apart_in_their_order)
{
    struct world *w = new_world();
    struct peer *a = join(w, "a"), *b = join(w, "b"), *sender = join(w, "sender");
    subscribe(a, "x");
    subscribe(b, "x");
    publish(sender, "x", "1");
    put_urgent(sender, "x", "2");
    put_urgent(sender, "x", "3");
    publish(sender, "x", "4");
    settle(w);
    for (int i = 0; i < 2; i++) {
        struct peer *p = i ? b : a;
        GETS_URGENT(p, "2");
        GETS_URGENT(p, "3");
        GETS_NOTHING_URGENT(p);
        GETS(p, "1");
        GETS(p, "4");
        GETS_NOTHING(p);
    }
    close_world(w);
}

TEST(what_comes_for_a_group_keeps_its_place)
{
    struct world *w = new_world();
    struct peer *both = join(w, "both"), *member = join(w, "member"), *sender = join(w, "sender");
    subscribe(both, "x");
    subscribe_group(both, "x", "g", 1);
    subscribe_group(member, "y", "h", 1);
    put_urgent(sender, "x", "x");
    put_urgent(sender, "y", "y");
    settle(w);
    GETS_NOTHING_URGENT(both);
    GETS_NOTHING_URGENT(member);
    GETS(both, "x");
    GETS(member, "y");
    close_world(w);
}

TEST(a_command_or_request_is_never_urgent)
{
    struct world *w = new_world();
    struct peer *a = join(w, "a"), *sender = join(w, "sender");
    struct message m;
    handle(a, "do");
    CHECK(put(sender, SB_DATA, (struct sb_record){.kind = SB_SEND, .flags = SB_RAW | SB_URGENT}, "do", "it", 2));
    flush(sender);
    settle(w);
    GETS_NOTHING_URGENT(a);
    CHECK(take(a, &m));
    EQUAL(m.header.flags, SB_RAW);
    close_world(w);
}

TEST(urgent_events_pass_a_full_ring_and_wait_for_space_in_their_own)
{
    struct world *w = new_world();
    struct size tiny = {.data_in = 1024, .urgent_in = 1024};
    struct peer *a = join_sized(w, "a", tiny), *filler = join(w, "filler"), *sender = join(w, "sender");
    char text[16];
    int got = 0;
    struct message m;
    subscribe(a, "x");
    subscribe(a, "fill");
    for (int i = 0; i < 40; i++)
        publish(filler, "fill", "");
    settle(w);
    for (int i = 0; i < 40; i++) {
        snprintf(text, sizeof text, "%d", i);
        put_urgent(sender, "x", text);
    }
    settle(w);
    for (; take_urgent(a, &m); settle(w))
        EQUAL(atoi(m.text), got++);
    EQUAL(got, 40);
    EQUAL(rb_load(&w->bus->lost), 0);
    close_world(w);
}

TEST(an_urgent_event_too_large_for_its_ring_is_counted)
{
    struct world *w = new_world();
    struct peer *a = join_sized(w, "a", (struct size){.urgent_in = 1024}), *sender = join(w, "sender");
    char text[600];
    memset(text, 'x', sizeof text);
    text[sizeof text - 1] = 0;
    subscribe(a, "x");
    put_urgent(sender, "x", text);
    put_urgent(sender, "x", "small");
    settle(w);
    GETS_URGENT(a, "small");
    EQUAL(rb_load(&a->down->lost_by[SB_LOSS_TOO_LARGE]), 1);
    close_world(w);
}

TEST(who_takes_none_of_its_urgent_events_is_stalled)
{
    struct world *w = new_world();
    struct peer *a = join(w, "a"), *sender = join(w, "sender");
    struct message m;
    subscribe(a, "x");
    put_urgent(sender, "x", "1");
    settle(w);
    advance(w, 60 * SECOND);
    CHECK(rb_load(&w->f->rows[a->slot].health) & SB_STALLED);
    CHECK(take_urgent(a, &m));
    advance(w, SECOND);
    CHECK(!(rb_load(&w->f->rows[a->slot].health) & SB_STALLED));
    close_world(w);
}

TEST(urgent_events_of_one_that_dies_or_closes_are_counted)
{
    struct world *w = new_world();
    struct peer *dies = join(w, "dies"), *closes = join(w, "closes"), *sender = join(w, "sender");
    struct message m;
    subscribe(dies, "x");
    subscribe(closes, "x");
    for (int i = 0; i < 3; i++)
        put_urgent(sender, "x", "");
    settle(w);
    CHECK(take_urgent(dies, &m) && take_urgent(closes, &m) && take_urgent(closes, &m));
    die(dies, SB_REASON_KILLED);
    say_closing(closes);
    say_closed(closes);
    advance(w, SECOND);
    EQUAL(rb_load(&dies->down->lost_by[SB_LOSS_ENDED]), 2);
    EQUAL(rb_load(&closes->down->lost_by[SB_LOSS_ENDED]), 1);
    EQUAL(rb_load(&dies->down->state), SB_DOWN_RECLAIMED);
    EQUAL(rb_load(&closes->down->state), SB_DOWN_RECLAIMED);
    close_world(w);
}

/* Whose ring is full, and which has not taken yet what was kept, when it is to get them. */
TEST(urgent_events_that_waited_behind_what_was_kept_pass_in_runs_that_fit)
{
    struct world *w = new_world();
    struct peer *a = join_sized(w, "a", (struct size){.data_in = 4096, .urgent_in = 1024}),
                *b = join_sized(w, "b", (struct size){.urgent_in = 4096}), *filler = join(w, "filler"),
                *sender = join(w, "sender");
    struct message m;
    int got = 0;
    subscribe(b, "x");
    struct late_ear late = subscribe_late(a, ">", 1);
    for (int i = 0; i < 4096 / (int)SB_HEADER; i++)
        publish(filler, "fill", "");
    settle(w);
    for (int i = 0; i < 13; i++)
        put_urgent(sender, "x", "");
    settle(w);
    while (hear(&late, &m)) {
        CHECK(!(m.header.flags & SB_URGENT));
        settle(w);
        while (take_urgent(a, &m))
            got++;
    }
    EQUAL(got, 13);
    EQUAL(rb_load(&a->down->lost), 0);
    close_world(w);
}

TEST(urgent_events_do_not_pass_what_was_kept)
{
    struct world *w = new_world();
    struct peer *a = join(w, "a"), *sender = join(w, "sender");
    struct message m;
    retain(sender, "x", "kept");
    settle(w);
    struct late_ear late = subscribe_late(a, "x", 1);
    put_urgent(sender, "x", "1");
    settle(w);
    GETS_NOTHING_URGENT(a);
    CHECK(hear(&late, &m) && strcmp(m.text, "kept") == 0 && !late.live);
    put_urgent(sender, "x", "2"); /* nor the SB_LIVE, which it has not taken yet */
    settle(w);
    GETS_NOTHING_URGENT(a);
    CHECK(hear(&late, &m) && strcmp(m.text, "1") == 0 && late.live);
    CHECK(hear(&late, &m) && strcmp(m.text, "2") == 0);
    put_urgent(sender, "x", "3");
    settle(w);
    GETS_URGENT(a, "3");
    GETS_NOTHING(a);
    close_world(w);
}
