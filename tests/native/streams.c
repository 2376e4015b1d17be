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

/* How many cancels it is told of. */
static uint64_t cancels_of(struct peer *p)
{
    struct message m;
    uint64_t count = 0;
    for (; take_reply(p, &m); count++)
        EQUAL(m.header.kind, SB_CANCEL);
    return count;
}

TEST(credits_leave_space_for_what_else_comes_and_a_cancel_that_finds_none_is_told_later)
{
    struct size small = {.replies_in = 1024, .requests = 2};
    struct pair s = pair_of(small, (struct size){0});
    for (int i = 1; i < 5; i++)
        ask(s.client, "ask", "");
    for (uint64_t i = 1; i <= 20; i++)
        grant(s.client, 0, i);
    settle(s.w);
    uint64_t fitted = 20 - rb_load(&s.w->bus->credits_lost), beside = 1024 - 2 * SB_REQUEST_RESERVE;
    CHECK(fitted >= 1 && fitted <= beside / 2 / SB_HEADER);
    for (uint16_t i = 0; i < 5; i++)
        withdraw(s.client, i);
    settle(s.w);
    uint64_t told = rb_load(&s.w->bus->cancels);
    EQUAL(told + rb_load(&s.w->bus->cancels_lost), 5);
    CHECK(told >= 1 && told < 5 && fitted + told <= beside / SB_HEADER);
    for (uint64_t i = 1; i <= fitted; i++)
        IS_TOLD(s.server, SB_CREDIT, s.m.header.correlation, i);
    EQUAL(cancels_of(s.server), told);
    advance(s.w, 2 * DP_LOOK_NS);
    EQUAL(cancels_of(s.server), 5 - told);
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

/* The halves of the endpoints ---------------------------------------------------------------------------------- */

#include "shmbus/endpoint/native/open.h"
#include "shmbus/endpoint/native/wait.h"

static void open_half(struct ep_endpoint *e, struct peer *p)
{
    CHECK(ep_fork_watch());
    CHECK(ep_open(e, p->world->bus, p->world->ready, p->up, p->down, &p->world->bell, &p->bell, 7, 0, 16));
}

/* A request of this endpoint whose reply comes in parts; its entry. */
static uint32_t open_stream(struct ep_endpoint *e, uint8_t id[16])
{
    uint32_t index = ep_begin_request(e, 0, false, id);
    CHECK(index != EP_NO_REQUEST && (e->requests[index].stream = ep_open_stream(e)));
    e->requests[index].sent = true;
    return index;
}

/* As if a part of that length, or the end, had come. */
static void comes(struct ep_endpoint *e, const uint8_t id[16], enum sb_kind kind, uint32_t length)
{
    static uint8_t record[65536];
    struct sb_record h = {.length = length, .kind = (uint16_t)kind};
    memcpy(h.correlation, id, 16);
    memcpy(record, &h, sizeof h);
    ep_take_reply(e, &h, record);
}

static uint64_t granted_by(struct peer *p)
{
    struct rb_head8 head;
    const uint8_t *record;
    uint64_t position = rb_load(&p->down->outgoing[SB_REPLIES].tail), granted = 0;
    struct rb_consumer c;
    CHECK(rb_consumer_open(&c, &p->up->outgoing[SB_REPLIES].head, &(rb_word){position}, p->out[SB_REPLIES].data,
                           p->out[SB_REPLIES].capacity) == RB_OK);
    while (rb_peek_at(&c, &position, SB_HEADER, &head, &record) == RB_OK) {
        struct sb_record h;
        memcpy(&h, record, sizeof h);
        EQUAL(h.kind, SB_CREDIT);
        CHECK(h.deadline_ns > granted);
        granted = h.deadline_ns;
        position += RB_ALIGN8(head.length);
    }
    return granted;
}

TEST(a_reader_grants_more_once_it_has_taken_half_and_never_more_than_half_its_ring)
{
    struct world *w = new_world();
    struct peer *p = join(w, "p");
    struct ep_endpoint e;
    struct sb_record h;
    uint8_t id[16], other[16];
    open_half(&e, p);
    uint64_t most = (e.in[SB_REPLIES].capacity - e.request_count * SB_REQUEST_RESERVE) / 2;
    uint32_t index = open_stream(&e, id);
    struct ep_stream *s = e.requests[index].stream;
    EQUAL(s->granted, most);
    uint32_t second = open_stream(&e, other); /* nothing is left for it: a part at a time */
    EQUAL(e.requests[second].stream->granted, 1);
    uint64_t taken = 0;
    for (; s->received < most; comes(&e, id, SB_PART, 512)) {
    }
    EQUAL(e.granted, most + 1);
    while (!granted_by(p)) {
        CHECK(ep_next_part(s, &h));
        if (ep_took_part(&e, s, &h))
            CHECK(ep_push_credit(&e, s, id));
        taken += 512;
        CHECK(e.granted <= most + 1);
    }
    CHECK(taken >= most / 2 && taken < most);
    CHECK(granted_by(p) > most && granted_by(p) <= taken + most / 2); /* of its share now */
    comes(&e, id, SB_PART, 512);
    comes(&e, id, SB_END, SB_HEADER);
    for (; ep_next_part(s, &h); ep_took_part(&e, s, &h))
        taken += 512;
    EQUAL(taken, s->received);
    ep_end_request(&e, index);
    ep_end_request(&e, second);
    EQUAL(e.granted, 0);
    EQUAL(e.streams, 0);
    ep_free(&e);
    close_world(w);
}

TEST(more_than_was_granted_is_not_kept)
{
    struct world *w = new_world();
    struct peer *p = join(w, "p");
    struct ep_endpoint e;
    struct sb_record h;
    uint8_t id[16];
    open_half(&e, p);
    uint32_t index = open_stream(&e, id);
    struct ep_stream *s = e.requests[index].stream;
    for (int i = 0; i < 1000 && !s->failed; i++)
        comes(&e, id, SB_PART, 4096);
    CHECK(s->failed);
    CHECK(s->end - s->begin < s->granted + 4096);
    uint64_t kept = 0;
    for (; ep_next_part(s, &h); ep_took_part(&e, s, &h))
        kept++;
    EQUAL(kept, (s->received - 4096) / 4096);
    ep_end_request(&e, index);
    ep_free(&e);
    close_world(w);
}

TEST(an_outflow_without_credit_is_due_with_credit_or_a_cancel_and_once)
{
    struct world *w = new_world();
    struct peer *p = join(w, "p");
    struct ep_endpoint e;
    bool armed;
    open_half(&e, p);
    struct ep_outflow one = {.id = "one", .granted = 1}, two = {.id = "two", .granted = 1};
    struct ep_message part = {.kind = SB_PART, .flags = SB_NONE, .correlation = one.id, .type = "x", .type_length = 1};
    ep_begin_outflow(&e, &one);
    ep_begin_outflow(&e, &two);
    EQUAL(rb_load(&p->up->streaming), 2);
    EQUAL(ep_push_part(&e, &one, &part, 1, NULL, &armed), EP_PART_SENT);
    EQUAL(ep_push_part(&e, &one, &part, 1, NULL, &armed), EP_PART_NO_CREDIT);
    struct sb_record h = {.kind = SB_CREDIT, .deadline_ns = one.sent};
    memcpy(h.correlation, one.id, 16);
    ep_note_credit(&e, &h); /* as much as was sent: none */
    CHECK(ep_await_credit(&e, &one) && !ep_next_due(&e));
    h.deadline_ns++;
    ep_note_credit(&e, &h);
    ep_note_credit(&e, &h);
    CHECK(ep_next_due(&e) == &one && !ep_next_due(&e));
    EQUAL(ep_push_part(&e, &one, &part, 1, NULL, &armed), EP_PART_SENT);
    h.deadline_ns = one.sent + 1;
    ep_note_credit(&e, &h);
    CHECK(!ep_await_credit(&e, &one)); /* it came before */
    two.sent = 1;
    CHECK(ep_await_credit(&e, &two));
    memcpy(h.correlation, two.id, 16);
    h.kind = SB_CANCEL;
    ep_note_cancel(&e, &h);
    CHECK(ep_next_due(&e) == &two && two.broken_off);
    part.correlation = two.id;
    EQUAL(ep_push_part(&e, &two, &part, 1, NULL, &armed), EP_PART_BROKEN_OFF);
    ep_make_due(&e, &two);
    ep_make_due(&e, &one);
    ep_end_outflow(&e, &one);
    CHECK(ep_next_due(&e) == &two && !ep_next_due(&e));
    one.aside = true; /* whoever had it has left it, and is to send its end */
    one.granted = UINT64_MAX;
    ep_begin_outflow(&e, &one);
    ep_recall(&e, &one);
    ep_make_due(&e, &two);
    ep_make_due(&e, &one); /* once more, by who has found space */
    CHECK(ep_next_due(&e) == &one && ep_next_due(&e) == &two && !ep_next_due(&e));
    one.aside = true;
    ep_recall(&e, &one);
    ep_await_space(&e, &one);
    CHECK(!ep_next_due(&e));
    ep_recall(&e, &one); /* not credit is what it waits for */
    CHECK(!ep_next_due(&e));
    ep_end_outflow(&e, &one);
    ep_make_due(&e, &two);
    ep_end_outflow(&e, &two);
    CHECK(!ep_next_due(&e));
    EQUAL(rb_load(&p->up->streaming), 0);
    ep_note_credit(&e, &h); /* late */
    CHECK(!ep_next_due(&e));
    EQUAL(rb_load(&p->up->sent_parts), 2);
    ep_free(&e);
    close_world(w);
}
