/* Replies in parts: they come as they were given, to who asked, until the end; and credit goes to who gives them. */
#include "harness.h"

#define GETS_PART(peer, wanted_kind, wanted)                                                                    \
    do {                                                                                                        \
        struct message m_;                                                                                      \
        CHECK(take_reply(peer, &m_));                                                                           \
        EQUAL(m_.header.kind, wanted_kind);                                                                     \
        CHECK(strcmp(m_.text, wanted) == 0);                                                                    \
    } while (0)

#define IS_TOLD(peer, wanted_kind, id, granted)                                                                 \
    do {                                                                                                        \
        struct message m_;                                                                                      \
        CHECK(take_reply(peer, &m_));                                                                           \
        EQUAL(m_.header.kind, wanted_kind);                                                                     \
        EQUAL(m_.header.length, SB_HEADER);                                                                     \
        EQUAL(m_.header.deadline_ns, granted);                                                                  \
        CHECK(memcmp(m_.header.correlation, id, 16) == 0);                                                      \
    } while (0)

static void gets_no_reply(struct peer *p)
{
    struct message m;
    CHECK(!take_reply(p, &m));
}

/* A server that has taken a request of a client, which uses entry 0 for it. */
struct pair {
    struct world *w;
    struct peer *server, *client;
    struct message m;
};

static struct pair pair_of(struct size server, struct size client)
{
    struct pair pair = {.w = new_world()};
    pair.server = join_sized(pair.w, "server", server);
    pair.client = join_sized(pair.w, "client", client);
    handle(pair.server, "ask");
    EQUAL(ask(pair.client, "ask", ""), 0);
    settle(pair.w);
    CHECK(take(pair.server, &pair.m));
    return pair;
}

TEST(parts_come_in_order_and_the_end_behind_them)
{
    struct pair s = pair_of((struct size){0}, (struct size){0});
    for (int i = 0; i < 3; i++)
        CHECK(put_reply(s.server, &s.m, SB_PART, i ? i == 1 ? "1" : "2" : "0", 1));
    CHECK(give(s.server, &s.m, SB_END, ""));
    settle(s.w);
    GETS_PART(s.client, SB_PART, "0");
    GETS_PART(s.client, SB_PART, "1");
    GETS_PART(s.client, SB_PART, "2");
    GETS_PART(s.client, SB_END, "");
    gets_no_reply(s.client);
    EQUAL(rb_load(&s.server->down->forwarded), 4);
    EQUAL(rb_load(&s.w->bus->violations), 0);
    close_world(s.w);
}

TEST(nothing_comes_behind_the_end)
{
    struct pair s = pair_of((struct size){0}, (struct size){0});
    CHECK(put_reply(s.server, &s.m, SB_PART, "0", 1));
    CHECK(put_reply(s.server, &s.m, SB_END, "", 0));
    CHECK(put_reply(s.server, &s.m, SB_PART, "1", 1));
    CHECK(put_reply(s.server, &s.m, SB_END, "", 0));
    CHECK(give(s.server, &s.m, SB_REPLY, "late"));
    settle(s.w);
    GETS_PART(s.client, SB_PART, "0");
    GETS_PART(s.client, SB_END, "");
    gets_no_reply(s.client);
    EQUAL(rb_load(&s.w->bus->orphans), 2);
    close_world(s.w);
}

TEST(parts_of_who_was_not_asked_are_dropped)
{
    struct pair s = pair_of((struct size){0}, (struct size){0});
    struct peer *guilty = join(s.w, "guilty");
    CHECK(give(guilty, &s.m, SB_PART, "forged") && give(guilty, &s.m, SB_END, ""));
    settle(s.w);
    gets_no_reply(s.client);
    CHECK(give(s.server, &s.m, SB_PART, "0") && give(s.server, &s.m, SB_END, ""));
    settle(s.w);
    GETS_PART(s.client, SB_PART, "0");
    GETS_PART(s.client, SB_END, "");
    close_world(s.w);
}

TEST(parts_for_two_come_to_each_its_own)
{
    struct pair s = pair_of((struct size){0}, (struct size){0});
    struct peer *other = join(s.w, "other");
    struct message m;
    ask(other, "ask", "");
    settle(s.w);
    CHECK(take(s.server, &m));
    for (int i = 0; i < 3; i++)
        CHECK(put_reply(s.server, &s.m, SB_PART, "client", 6) && put_reply(s.server, &m, SB_PART, "other", 5));
    CHECK(put_reply(s.server, &s.m, SB_END, "", 0) && put_reply(s.server, &m, SB_END, "", 0));
    flush(s.server);
    settle(s.w);
    for (int i = 0; i < 3; i++) {
        GETS_PART(s.client, SB_PART, "client");
        GETS_PART(other, SB_PART, "other");
    }
    GETS_PART(s.client, SB_END, "");
    GETS_PART(other, SB_END, "");
    close_world(s.w);
}

TEST(credit_goes_to_whom_the_request_was_given_until_its_end)
{
    struct pair s = pair_of((struct size){0}, (struct size){0});
    struct peer *other = join(s.w, "other");
    handle(other, "else");
    grant(s.client, 0, 500);
    settle(s.w);
    IS_TOLD(s.server, SB_CREDIT, s.m.header.correlation, 500);
    grant(other, 0, 900); /* which has no such request */
    settle(s.w);
    gets_no_reply(s.server);
    gets_no_reply(other);
    CHECK(give(s.server, &s.m, SB_END, ""));
    settle(s.w);
    grant(s.client, 0, 1000);
    settle(s.w);
    gets_no_reply(s.server);
    EQUAL(rb_load(&s.w->bus->violations), 0);
    EQUAL(rb_load(&s.client->down->forwarded), 1); /* the request alone */
    close_world(s.w);
}

TEST(credits_and_cancels_leave_the_space_for_errors_and_a_cancel_is_told_later)
{
    struct size small = {.replies_in = 1024, .requests = 2};
    struct pair s = pair_of(small, (struct size){0});
    ask(s.client, "ask", "");
    for (uint64_t i = 1; i <= 20; i++)
        grant(s.client, 0, i);
    settle(s.w);
    uint64_t fitted = 20 - rb_load(&s.w->bus->credits_lost);
    CHECK(fitted >= 1 && fitted <= 512 / SB_HEADER);
    withdraw(s.client, 0);
    settle(s.w);
    EQUAL(rb_load(&s.w->bus->cancels_lost) > 0, true);
    for (uint64_t i = 1; i <= fitted; i++)
        IS_TOLD(s.server, SB_CREDIT, s.m.header.correlation, i);
    advance(s.w, 2 * DP_LOOK_NS);
    IS_TOLD(s.server, SB_CANCEL, s.m.header.correlation, 0);
    advance(s.w, 2 * DP_LOOK_NS);
    gets_no_reply(s.server); /* once */
    close_world(s.w);
}

TEST(a_death_comes_behind_the_parts_that_had_come)
{
    struct pair s = pair_of((struct size){0}, (struct size){0});
    CHECK(give(s.server, &s.m, SB_PART, "0"));
    die(s.server, SB_REASON_KILLED);
    GETS_PART(s.client, SB_PART, "0");
    GETS_FAULT(s.client, SB_FAULT_ENDPOINT_DIED, "server");
    gets_no_reply(s.client);
    close_world(s.w);
}

TEST(a_part_that_never_fits_ends_the_reply_and_its_server_is_told)
{
    static char large[8192];
    struct size small = {.replies_in = 4096, .requests = 2};
    struct pair s = pair_of((struct size){0}, small);
    CHECK(give(s.server, &s.m, SB_PART, "0"));
    CHECK(put_reply(s.server, &s.m, SB_PART, large, sizeof large));
    CHECK(put_reply(s.server, &s.m, SB_PART, "2", 1));
    CHECK(give(s.server, &s.m, SB_END, ""));
    settle(s.w);
    GETS_PART(s.client, SB_PART, "0");
    GETS_FAULT(s.client, SB_FAULT_REPLY_LOST, "server");
    gets_no_reply(s.client);
    IS_TOLD(s.server, SB_CANCEL, s.m.header.correlation, 0);
    close_world(s.w);
}

TEST(who_grants_more_than_a_header_says_is_quarantined)
{
    struct pair s = pair_of((struct size){0}, (struct size){0});
    struct sb_record h = {.kind = SB_CREDIT, .deadline_ns = 500};
    memcpy(h.correlation, s.m.header.correlation, 16);
    CHECK(put(s.client, SB_REPLIES, h, "", "more", 4));
    flush(s.client);
    settle(s.w);
    EQUAL(rb_load(&s.w->bus->violations), 1);
    close_world(s.w);
}

TEST(a_successor_tells_of_what_nobody_waits_for)
{
    struct pair s = pair_of((struct size){0}, (struct size){0});
    rb_store_release(&s.client->pending[0].state, SB_PENDING_FREE); /* its cancel was dealt with, and not told */
    close_forwarder(s.w->f);
    reopen(s.w);
    dp_take_orders(s.w->f, true);
    dp_recover(s.w->f);
    advance(s.w, 2 * DP_LOOK_NS);
    IS_TOLD(s.server, SB_CANCEL, s.m.header.correlation, 0);
    close_world(s.w);
}
