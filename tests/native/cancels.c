/* Withdrawn requests: who has one is told, and nothing else happens. */
#include "harness.h"

#define GETS_CANCEL(peer, id)                                                                                   \
    do {                                                                                                        \
        struct message m_;                                                                                      \
        CHECK(take_reply(peer, &m_));                                                                           \
        EQUAL(m_.header.kind, SB_CANCEL);                                                                       \
        EQUAL(m_.header.length, SB_HEADER);                                                                     \
        CHECK(memcmp(m_.header.correlation, id, 16) == 0);                                                      \
    } while (0)

static void is_told_nothing(struct peer *p)
{
    struct message m;
    CHECK(!take_reply(p, &m));
}

TEST(who_has_a_withdrawn_request_is_told_and_its_reply_is_an_orphan)
{
    struct world *w = new_world();
    struct peer *server = join(w, "server"), *other = join(w, "other"), *client = join(w, "client");
    struct message m;
    handle(server, "ask");
    handle(other, "else");
    uint16_t index = ask(client, "ask", "1");
    ask(client, "ask", "2");
    settle(w);
    CHECK(take(server, &m));
    withdraw(client, index);
    settle(w);
    GETS_CANCEL(server, m.header.correlation);
    is_told_nothing(server);
    is_told_nothing(other);
    is_told_nothing(client);
    EQUAL(rb_load(&w->bus->cancels), 1);
    CHECK(answer(server, &m, "late"));
    settle(w);
    is_told_nothing(client);
    EQUAL(rb_load(&w->bus->orphans), 1);
    CHECK(take(server, &m) && answer(server, &m, "2"));
    settle(w);
    GETS_REPLY(client, "2");
    close_world(w);
}

TEST(a_cancel_comes_after_its_request_whatever_came_with_it)
{
    struct world *w = new_world();
    struct peer *server = join(w, "server"), *ear = join(w, "ear"), *client = join(w, "client");
    struct message m[3];
    handle(server, "ask");
    subscribe(server, "x");
    subscribe(ear, "x");
    ask(client, "ask", "0");
    uint16_t index = ask(client, "ask", "1");
    publish(client, "x", "between");
    withdraw(client, index);
    ask(client, "ask", "2"); /* with the entry of the one that was withdrawn, which nobody may have then */
    settle(w);
    CHECK(take(server, &m[0]) && strcmp(m[0].text, "0") == 0);
    GETS(server, "between");
    CHECK(take(server, &m[2]) && strcmp(m[2].text, "2") == 0);
    GETS_NOTHING(server);
    GETS(ear, "between");
    is_told_nothing(server); /* it never had it */
    CHECK(answer(server, &m[0], "0") && answer(server, &m[2], "2"));
    settle(w);
    GETS_REPLY(client, "0");
    GETS_REPLY(client, "2");
    close_world(w);
}

TEST(who_says_it_again_and_again_is_not_heard)
{
    struct world *w = new_world();
    struct peer *server = join(w, "server"), *client = join(w, "client");
    handle(server, "ask");
    uint16_t index = ask(client, "ask", "1");
    settle(w);
    for (int i = 0; i < 100; i++)
        withdraw(client, index);
    settle(w);
    GETS_CANCEL(server, client->pending[index].id);
    is_told_nothing(server);
    die(server, SB_REASON_KILLED);
    settle(w);
    is_told_nothing(client);
    close_world(w);
}

TEST(an_entry_that_is_used_anew_is_not_withdrawn_by_an_old_cancel)
{
    struct world *w = new_world();
    struct peer *server = join(w, "server"), *client = join(w, "client");
    struct message m;
    handle(server, "ask");
    struct sb_record h = {.kind = SB_CANCEL};
    memcpy(h.correlation, client->pending[ask(client, "ask", "1")].id, 16);
    settle(w);
    CHECK(take(server, &m) && answer(server, &m, "1"));
    settle(w);
    GETS_REPLY(client, "1");
    ask(client, "ask", "2");
    settle(w);
    CHECK(put(client, SB_DATA, h, "", "", 0)); /* of the first */
    flush(client);
    settle(w);
    is_told_nothing(server);
    CHECK(take(server, &m) && answer(server, &m, "2"));
    settle(w);
    GETS_REPLY(client, "2");
    EQUAL(rb_load(&w->bus->violations), 0);
    close_world(w);
}

TEST(nobody_withdraws_the_requests_of_others)
{
    struct world *w = new_world();
    struct peer *server = join(w, "server"), *client = join(w, "client"), *guilty = join(w, "guilty");
    struct message m;
    handle(server, "ask");
    struct sb_record h = {.kind = SB_CANCEL};
    memcpy(h.correlation, client->pending[ask(client, "ask", "1")].id, 16);
    settle(w);
    for (int i = 0; i < 100; i++)
        CHECK(put(guilty, SB_DATA, h, "", "", 0));
    flush(guilty);
    settle(w);
    is_told_nothing(server);
    CHECK(take(server, &m) && answer(server, &m, "1"));
    settle(w);
    GETS_REPLY(client, "1");
    close_world(w);
}

TEST(cancels_never_take_the_space_that_is_kept_for_errors)
{
    struct world *w = new_world();
    struct size size = {.replies_in = 2048, .requests = 4};
    struct peer *server = join_sized(w, "server", size), *other = join(w, "other"), *client = join(w, "client");
    handle(server, "ask");
    handle(other, "else");
    for (int i = 0; i < 4; i++)
        ask(server, "else", "mine");
    settle(w);
    EQUAL(count_messages(other), 4);
    for (int i = 0; i < 40; i++) { /* more than there is space for */
        uint16_t index = ask(client, "ask", "1");
        settle(w);
        withdraw(client, index);
        settle(w);
    }
    EQUAL(rb_load(&w->bus->cancels) + rb_load(&w->bus->cancels_lost), 40);
    EQUAL(rb_load(&w->bus->cancels), (2048 - 4 * SB_REQUEST_RESERVE) / SB_HEADER);
    die(other, SB_REASON_KILLED);
    settle(w);
    struct message m;
    uint32_t failed = 0;
    while (take_reply(server, &m))
        failed += m.header.kind == SB_ERROR;
    EQUAL(failed, 4);
    close_world(w);
}

TEST(the_requests_of_one_that_ends_are_withdrawn)
{
    for (int how = 0; how < 2; how++) {
        struct world *w = new_world();
        struct peer *server = join(w, "server"), *client = join(w, "client");
        struct message m;
        handle(server, "ask");
        ask(client, "ask", "1");
        settle(w);
        CHECK(take(server, &m));
        if (how) {
            die(client, SB_REASON_KILLED);
        } else {
            rb_store_release(&client->up->state, SB_UP_CLOSED);
            raise_ready(client);
        }
        settle(w);
        GETS_CANCEL(server, m.header.correlation);
        is_told_nothing(server);
        close_world(w);
    }
}

TEST(a_withdrawn_request_is_not_handed_on)
{
    struct world *w = new_world();
    struct peer *server = join(w, "server"), *client = join(w, "client");
    handle(server, "ask");
    uint16_t index = ask(client, "ask", "1");
    settle(w);
    struct peer *next = join(w, "next");
    handle(next, "ask");
    withdraw(client, index);
    settle(w);
    die(server, SB_REASON_KILLED);
    settle(w);
    EQUAL(count_messages(next), 0);
    close_world(w);
}

TEST(what_waits_in_a_backlog_is_dropped_there)
{
    struct world *w = open_world((struct plan){.prefetch = 1});
    struct peer *a = join(w, "a"), *b = join(w, "b"), *client = join(w, "client");
    struct message m;
    uint16_t index = 0;
    handle(a, "ask");
    handle(b, "ask");
    for (int i = 0; i < 3; i++, settle(w))
        index = ask(client, "ask", "1");
    withdraw(client, index);
    settle(w);
    is_told_nothing(a);
    is_told_nothing(b);
    CHECK(take(a, &m) && take(b, &m));
    settle(w);
    EQUAL(count_messages(a) + count_messages(b), 0);
    close_world(w);
}
