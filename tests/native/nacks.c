/* Work that its receiver gives back: another has it, or it is a dead letter. */
#include "harness.h"

struct scene { /* a sender, three who share jobs, and who hears of dead letters */
    struct world *w;
    struct peer *ear, *a, *b, *c, *d;
    struct message m; /* which b has in hand */
};

static struct scene scene(void)
{
    struct scene s = {.w = new_world()};
    s.ear = join(s.w, "ear");
    s.a = join(s.w, "a");
    s.b = join(s.w, "b");
    subscribe(s.ear, "$bus.undeliverable");
    subscribe_group(s.b, "job", "g", 2);
    CHECK(publish(s.a, "job", "payload"));
    settle(s.w);
    CHECK(begin(s.b, &s.m));
    s.c = join(s.w, "c");
    s.d = join(s.w, "d");
    return s;
}

static void others_join(struct scene *s)
{
    subscribe_group(s->c, "job", "g", 1);
    subscribe_group(s->d, "job", "g", 1);
}

/* What an endpoint writes: see ep_nack. */
static void give_back_as(struct scene *s, uint16_t flags, uint16_t attempt, const char *reason)
{
    const struct sb_record *h = &s->m.header;
    struct sb_record nack = {.kind = SB_NACK, .flags = (uint16_t)(SB_RAW | flags), .interests = h->interests,
                             .peer = h->peer, .peer_generation = h->peer_generation, .attempt = attempt,
                             .extension_length = (uint16_t)strlen(reason)};
    char rest[512];
    snprintf(rest, sizeof rest, "%s%.210s", reason, s->m.text);
    CHECK(put(s->b, SB_DATA, nack, "job", rest, strlen(rest)));
    flush(s->b);
    finish(s->b, &s->m);
    settle(s->w);
}

static void give_back(struct scene *s) { give_back_as(s, 0, (uint16_t)(s->m.header.attempt + 1), "why"); }

static void is_a_letter(struct scene *s, const char *reason)
{
    struct message m;
    CHECK(take(s->ear, &m));
    if (!mentions(&m, reason)) {
        fprintf(stderr, "%s: %s: %s\n", test_name, reason, m.text);
        exit(1);
    }
    CHECK(mentions(&m, "payload") && mentions(&m, "event"));
    GETS_NOTHING(s->ear);
    GETS_NOTHING(s->b);
    GETS_NOTHING(s->c);
    GETS_NOTHING(s->d);
    EQUAL(rb_load(&s->w->bus->dead_letters), 1);
    EQUAL(rb_load(&s->a->down->undeliverable), 1);
    EQUAL(rb_load(&s->w->bus->lost), 0);
    close_world(s->w);
}

TEST(what_is_given_back_comes_to_another_as_it_was_sent)
{
    struct scene s = scene();
    others_join(&s);
    give_back(&s);
    struct message m;
    CHECK(take(s.c, &m) || take(s.d, &m));
    CHECK(strcmp(m.text, "payload") == 0 && strcmp(m.type, "job") == 0);
    EQUAL(m.header.kind, SB_EVENT);
    EQUAL(m.header.attempt, 2);
    EQUAL(m.header.peer, s.a->slot);
    EQUAL(m.header.peer_generation, s.a->generation);
    EQUAL(m.header.flags, SB_RAW | SB_REDELIVERED);
    EQUAL(m.header.interests, 2);
    GETS_NOTHING(s.b);
    GETS_NOTHING(s.c);
    GETS_NOTHING(s.d);
    EQUAL(rb_load(&s.b->down->forwarded), 0); /* b has sent nothing */
    EQUAL(rb_load(&s.w->bus->redelivered), 1);
    close_world(s.w);
}

TEST(what_is_given_back_comes_to_another_though_it_is_the_turn_of_who_gave_it_back)
{
    struct scene s = scene();
    struct message m;
    others_join(&s);
    CHECK(publish(s.a, "job", "c's turn"));
    CHECK(publish(s.a, "job", "d's turn"));
    settle(s.w);
    CHECK(take(s.c, &m) && take(s.d, &m));
    settle(s.w);
    give_back(&s);
    GETS_NOTHING(s.b);
    CHECK(take(s.c, &m) || take(s.d, &m));
    close_world(s.w);
}

TEST(what_is_given_back_comes_again_where_nobody_else_takes_it)
{
    struct scene s = scene();
    give_back(&s);
    GETS(s.b, "payload");
    EQUAL(rb_load(&s.w->bus->backlog[0]), 0);
    close_world(s.w);
}

TEST(what_is_given_back_waits_until_somebody_is_free)
{
    struct scene s = scene();
    struct peer *workers[] = {s.b, s.c, s.d};
    for (int i = 0; i < 3; i++) {
        rb_store(&workers[i]->up->receivers, 1);
        workers[i]->up->prefetch = s.w->f->ports[workers[i]->slot].prefetch = 1;
    }
    others_join(&s);
    struct message m;
    for (int i = 0; i < 3; i++)
        CHECK(publish(s.a, "job", "other"));
    settle(s.w);
    CHECK(begin(s.c, &m) && begin(s.d, &m)); /* all have one in hand, another waits */
    give_back(&s);
    GETS(s.b, "other"); /* first in, first out */
    settle(s.w);
    EQUAL(rb_load(&s.b->down->redelivered), 1);
    EQUAL(rb_load(&s.w->bus->redelivered), 1);
    EQUAL(rb_load(&s.w->bus->latency_count), 4); /* how long it was in hand is no latency */
    GETS(s.b, "payload");
    close_world(s.w);
}

TEST(what_was_given_back_too_often_is_a_dead_letter_with_the_reason)
{
    struct scene s = scene();
    others_join(&s);
    give_back_as(&s, 0, 3, "no disk");
    is_a_letter(&s, "no disk");
}

TEST(what_was_given_back_too_often_without_a_reason_is_one_too)
{
    struct scene s = scene();
    others_join(&s);
    give_back_as(&s, 0, 3, "");
    is_a_letter(&s, "its receivers gave it back");
}

TEST(what_is_given_up_is_a_dead_letter_at_once)
{
    struct scene s = scene();
    others_join(&s);
    give_back_as(&s, SB_FINAL, 1, "it raised ValueError");
    is_a_letter(&s, "it raised ValueError");
}

TEST(what_is_given_back_when_the_group_has_gone_is_a_dead_letter)
{
    struct scene s = scene();
    remove_interest(s.b, 1);
    give_back(&s);
    is_a_letter(&s, "no member left");
}

TEST(a_dead_letter_has_the_size_of_what_was_given_up_in_part)
{
    struct scene s = scene();
    struct sb_record nack = {.kind = SB_NACK, .flags = SB_RAW | SB_FINAL, .interests = 4, .peer = (uint16_t)s.a->slot,
                             .peer_generation = s.a->generation, .attempt = 1, .deadline_ns = 0x1234567};
    CHECK(put(s.b, SB_DATA, nack, "job", "payload", 7));
    flush(s.b);
    settle(s.w);
    struct message m;
    static const char size[] = {'s', 'i', 'z', 'e', (char)0xcf, 0, 0, 0, 0, 1, 0x23, 0x45, 0x67};
    CHECK(take(s.ear, &m));
    CHECK(memmem(m.text, sizeof m.text, size, sizeof size));
    CHECK(mentions(&m, "its callback raised") && mentions(&m, "payload"));
    close_world(s.w);
}

TEST(a_reason_that_is_no_text_is_left_out)
{
    static const char *const bad[] = {"\x80", "\xc3", "no\xc3(", "\xc0\xaf", "\xe0\x80\xaf", "\xed\xa0\x80",
                                      "\xf0\x80\x80\xaf", "\xf4\x90\x80\x80", "\xf8\x88\x80\x80\x80", "\xe2\x82",
                                      "\xff"};
    static const char *const good[] = {"\xc3\xa4", "\xe2\x82\xac", "\xf0\x9f\x9a\x8c", "\xed\x9f\xbf", "~"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        CHECK(!dp_is_text((const uint8_t *)bad[i], (uint32_t)strlen(bad[i])));
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        CHECK(dp_is_text((const uint8_t *)good[i], (uint32_t)strlen(good[i])));
    struct scene s = scene();
    give_back_as(&s, SB_FINAL, 1, "no\xc3(");
    is_a_letter(&s, "its callback raised");
}

TEST(what_does_not_fit_the_next_receiver_is_a_dead_letter_and_not_lost)
{
    struct scene s = scene();
    struct size size = {.data_in = 1024, .data_out = 1024, .replies_in = 1024, .replies_out = 1024, .requests = 1};
    struct peer *narrow = join_sized(s.w, "narrow", size);
    char reason[201] = "";
    memset(reason, 'r', 200);
    subscribe_group(narrow, "job", "g", 1);
    give_back_as(&s, 0, 2, reason); /* it fits without that */
    GETS(narrow, "payload");
    snprintf(s.m.text, sizeof s.m.text, "payload%0200d", 0);
    give_back(&s);
    is_a_letter(&s, "too large for who was to have it next");
}

static void is_seen_as_it_was(struct peer *observer)
{
    struct message m;
    do
        CHECK(take(observer, &m));
    while (m.type[0] == '$');
    CHECK(strcmp(m.type, "job") == 0 && strncmp(m.text, "payload", 7) == 0);
}

TEST(an_observer_sees_the_type_of_what_is_given_back_whatever_the_reason)
{
    struct scene s = scene();
    struct size size = {.data_in = 1024, .data_out = 1024, .replies_in = 1024, .replies_out = 1024, .requests = 1};
    struct peer *narrow = join_sized(s.w, "narrow", size), *observer = join(s.w, "observer");
    commit_interest(observer, (struct sb_interest){.op = SB_INTEREST_ADD, .role = SB_ROLE_OBSERVE}, ">", "");
    subscribe_group(narrow, "job", "g", 1);
    give_back_as(&s, 0, 2, "\xc3\xa4, because");
    is_seen_as_it_was(observer);
    snprintf(s.m.text, sizeof s.m.text, "payload%0200d", 0); /* too large for the next */
    give_back(&s);
    is_seen_as_it_was(observer);
    close_world(s.w);
}

/* A successor ------------------------------------------------------------------------------------------------- */

/* It has replaced its log of interests, or (`unread`) that has no name any more. */
static void is_adopted(struct scene *s, bool unread)
{
    struct sb_interests *old = s->b->log;
    uint64_t size = s->b->log_size;
    shm_unlink(s->b->log_name);
    if (!unread)
        open_log(s->b, 2, 4096);
    rb_word *version = &s->b->up->outgoing[SB_DATA].interests_version;
    rb_store_release(version, rb_load(version) + 1);
    if (!unread) {
        hand_over(s->w);
    } else {
        close_forwarder(s->w->f);
        reopen(s->w);
        dp_take_orders(s->w->f, true);
        dp_recover_rings(s->w->f);
        CHECK(!dp_recover_interests(s->w->f));
        s->b->log = NULL;
    }
    munmap(old, size);
}

TEST(what_is_given_back_to_a_successor_for_a_group_that_was_left_is_a_dead_letter)
{
    struct scene s = scene();
    handle(s.d, "job"); /* commands, it does not take part in the group */
    is_adopted(&s, false);
    give_back(&s);
    CHECK(!s.b->quarantined);
    is_a_letter(&s, "no member left");
}

TEST(what_is_given_back_before_a_successor_can_read_the_interests_goes_on_once_it_can)
{
    struct scene s = scene();
    others_join(&s);
    is_adopted(&s, true);
    CHECK(publish(s.b, "job", "before"));
    struct sb_record nack = {.kind = SB_NACK, .flags = SB_RAW, .interests = s.m.header.interests, .attempt = 2};
    CHECK(put(s.b, SB_DATA, nack, "job", "payload", 7));
    flush(s.b);
    finish(s.b, &s.m);
    s.w->now = s.w->f->now += DP_LOOK_NS;
    CHECK(!dp_recover_interests(s.w->f));
    open_log(s.b, 1, 8192);
    log_interest(s.b, (struct sb_interest){.op = SB_INTEREST_ADD, .role = SB_ROLE_SUBSCRIBE, .bit = 2}, "job", "g");
    CHECK(!dp_recover_interests(s.w->f)); /* it has looked a moment ago */
    s.w->now = s.w->f->now += DP_LOOK_NS;
    CHECK(dp_recover_interests(s.w->f));
    dp_recover_ports(s.w->f);
    settle(s.w);
    CHECK(!s.b->quarantined);
    EQUAL(count_messages(s.b) + count_messages(s.c) + count_messages(s.d), 2);
    EQUAL(rb_load(&s.w->bus->redelivered), 1);
    EQUAL(rb_load(&s.w->bus->dead_letters), 0);
    close_world(s.w);
}

TEST(what_is_given_back_where_the_interests_can_never_be_read_is_a_dead_letter)
{
    struct scene s = scene();
    others_join(&s);
    is_adopted(&s, true);
    dp_recover_ports(s.w->f);
    give_back(&s);
    CHECK(!s.b->quarantined);
    is_a_letter(&s, "no member left");
}

/* Deaths ------------------------------------------------------------------------------------------------------- */

static void mark(struct scene *s, uint64_t returned)
{
    for (int i = 0; i < (int)SB_HELD; i++)
        if (rb_load(&s->b->up->held[i].position) == s->m.position)
            rb_store(&s->b->up->held[i].returned, returned);
}

static void put_nack(struct scene *s)
{
    struct sb_record nack = {.kind = SB_NACK, .flags = SB_RAW, .interests = 4, .peer = (uint16_t)s->a->slot,
                             .peer_generation = s->a->generation, .attempt = 2};
    CHECK(put(s->b, SB_DATA, nack, "job", "payload", 7));
    mark(s, s->b->out[SB_DATA].next);
}

static void goes_on_once(struct scene *s)
{
    struct message m;
    CHECK(take(s->c, &m) || take(s->d, &m));
    EQUAL(m.header.attempt, 2);
    GETS_NOTHING(s->c);
    GETS_NOTHING(s->d);
    GETS_NOTHING(s->ear);
    EQUAL(rb_load(&s->w->bus->lost), 0);
    CHECK(s->b->reclaimed);
    close_world(s->w);
}

TEST(one_who_dies_before_it_has_given_it_back_has_it_begun)
{
    struct scene s = scene();
    others_join(&s);
    put_nack(&s);
    die(s.b, SB_REASON_KILLED);
    settle(s.w);
    goes_on_once(&s);
}

TEST(one_who_dies_after_it_has_given_it_back_does_not_have_it)
{
    struct scene s = scene();
    others_join(&s);
    put_nack(&s);
    rb_publish(&s.b->out[SB_DATA]);
    die(s.b, SB_REASON_KILLED);
    settle(s.w);
    goes_on_once(&s);
}

TEST(one_who_dies_with_what_it_was_to_give_back_later_has_it_begun)
{
    struct scene s = scene();
    others_join(&s);
    mark(&s, SB_NOWHERE);
    die(s.b, SB_REASON_KILLED);
    settle(s.w);
    goes_on_once(&s);
}

TEST(one_who_closes_with_what_it_was_to_give_back_later_has_it_begun)
{
    struct scene s = scene();
    others_join(&s);
    mark(&s, SB_NOWHERE);
    rb_store_release(&s.b->up->state, SB_UP_CLOSING);
    raise_ready(s.b);
    settle(s.w);
    rb_store_release(&s.b->up->state, SB_UP_CLOSED);
    raise_ready(s.b);
    settle(s.w);
    goes_on_once(&s);
}

TEST(what_one_gives_back_after_its_end_has_begun_goes_on_once_for_a_successor_too)
{
    struct scene s = scene();
    struct message m;
    others_join(&s);
    struct peer *full = join_sized(s.w, "full", (struct size){.data_in = 1024});
    subscribe(full, "fill");
    for (int i = 0; i < 20; i++)
        CHECK(publish_bytes(s.b, "fill", 100));
    settle(s.w);
    die(s.b, SB_REASON_EVICTED);
    CHECK(take(s.c, &m) || take(s.d, &m));
    CHECK(!s.b->reclaimed); /* what it has sent waits for space */
    put_nack(&s);
    flush(s.b);
    hand_over(s.w);
    EQUAL(count_messages(full), 20);
    settle(s.w);
    GETS_NOTHING(s.c);
    GETS_NOTHING(s.d);
    CHECK(s.b->reclaimed);
    close_world(s.w);
}

TEST(of_one_who_wrote_garbage_what_was_not_read_is_not_given_back)
{
    struct scene s = scene();
    others_join(&s);
    CHECK(put(s.b, SB_DATA, (struct sb_record){.kind = 77}, "x", "", 0));
    put_nack(&s);
    flush(s.b);
    settle(s.w);
    CHECK(s.b->quarantined);
    advance(s.w, SECOND);
    goes_on_once(&s);
}

/* Garbage ------------------------------------------------------------------------------------------------------ */

static void is_refused(struct sb_record bad, const char *type, uint64_t size)
{
    struct scene s = scene();
    char text[1024] = "";
    bad.kind = SB_NACK;
    CHECK(put(s.b, SB_DATA, bad, type, text, size));
    flush(s.b);
    settle(s.w);
    CHECK(s.b->quarantined);
    GETS_NOTHING(s.c);
    close_world(s.w);
}

TEST(what_came_for_nothing) { is_refused((struct sb_record){.attempt = 2}, "job", 3); }
TEST(what_came_for_two_interests) { is_refused((struct sb_record){.interests = 5, .attempt = 2}, "job", 3); }
TEST(what_came_from_a_slot_that_does_not_exist)
{
    is_refused((struct sb_record){.interests = 4, .peer = 999, .attempt = 2}, "job", 3);
}
TEST(what_the_bus_itself_has_sent)
{
    is_refused((struct sb_record){.interests = 4, .attempt = 2}, "$bus.endpoint.down", 3);
}
TEST(a_reason_longer_than_any)
{
    is_refused((struct sb_record){.interests = 4, .attempt = 2, .extension_length = 256}, "job", 300);
}
