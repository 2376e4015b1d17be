/* The dispatcher is killed in the midst of requests and their replies (killed.h). */
#include "killed.h"

static void prepare_requests(struct stage *s)
{
    s->a = join_sized(s->w, "a", TINY);
    s->b = join_sized(s->w, "b", TINY);
    handle(s->a, "ask");
    ask(s->b, "ask", "0");
    ask(s->b, "ask", "1");
}

static void check_requests(struct stage *s)
{
    struct message m[2], r;
    CHECK(take(s->a, &m[0]) && take(s->a, &m[1]) && !take(s->a, &r));
    for (int i = 0; i < 2; i++)
        CHECK(answer(s->a, &m[i], m[i].text));
    settle(s->w);
    for (int i = 0; i < 2; i++) {
        CHECK(take_end(s->b, &r));
        EQUAL(r.header.kind, SB_REPLY);
        EQUAL(atoi(r.text), sb_index_of(r.header.correlation));
    }
    CHECK(!take_end(s->b, &r));
}
static const struct scenario requests_are_forwarded = {
    "requests are forwarded", prepare_requests, forward, check_requests, false};
PROMISE(requests_are_forwarded)

static void prepare_replies(struct stage *s)
{
    prepare_requests(s);
    settle(s->w);
    struct message m;
    for (int i = 0; i < 2; i++)
        CHECK(take(s->a, &m) && answer(s->a, &m, m.text));
}

static void check_replies(struct stage *s)
{
    struct message r;
    for (int i = 0; i < 2; i++) {
        CHECK(take_end(s->b, &r));
        EQUAL(r.header.kind, SB_REPLY);
        EQUAL(atoi(r.text), sb_index_of(r.header.correlation));
    }
    CHECK(!take_end(s->b, &r));
    EQUAL(rb_load(&s->w->bus->orphans), 0);
}
static const struct scenario replies_are_forwarded = {
    "replies are forwarded", prepare_replies, forward, check_replies, false};
PROMISE(replies_are_forwarded)

static void prepare_parts(struct stage *s)
{
    s->a = join_sized(s->w, "a", TINY);
    s->b = join_sized(s->w, "b", TINY);
    handle(s->a, "ask");
    ask(s->b, "ask", "0");
    s->number = ask(s->b, "ask", "1"); /* which goes on */
    settle(s->w);
    struct message whole;
    CHECK(take(s->a, &whole) && take(s->a, &s->m));
    CHECK(put_reply(s->a, &whole, SB_PART, "0", 1) && put_reply(s->a, &whole, SB_PART, "1", 1));
    CHECK(put_reply(s->a, &whole, SB_END, "2", 1) && give(s->a, &s->m, SB_PART, "3"));
    grant(s->b, (uint16_t)s->number, 500);
}

static void check_parts(struct stage *s)
{
    struct message r;
    for (int i = 0; i < 4; i++) {
        CHECK(take_reply(s->b, &r));
        EQUAL(r.header.kind, i == 2 ? SB_END : SB_PART);
        EQUAL(atoi(r.text), i);
    }
    CHECK(!take_reply(s->b, &r));
    uint32_t told = 0;
    for (; take_reply(s->a, &r); told++) {
        EQUAL(r.header.kind, SB_CREDIT);
        EQUAL(r.header.deadline_ns, 500);
        CHECK(memcmp(r.header.correlation, s->m.header.correlation, 16) == 0);
    }
    CHECK(told >= 1 && told <= 3); /* said again rather than not */
    EQUAL(rb_load(&s->w->bus->orphans), 0);
    withdraw(s->b, (uint16_t)s->number);
    settle(s->w);
    CHECK(take_reply(s->a, &r));
    EQUAL(r.header.kind, SB_CANCEL);
}
static const struct scenario replies_in_parts_are_forwarded = {
    "replies in parts are forwarded", prepare_parts, forward, check_parts, false};
PROMISE(replies_in_parts_are_forwarded)

static void prepare_withdrawing(struct stage *s)
{
    s->a = join_sized(s->w, "a", TINY);
    s->b = join_sized(s->w, "b", TINY);
    handle(s->a, "ask");
    s->number = ask(s->b, "ask", "0");
    settle(s->w);
    CHECK(take(s->a, &s->m));
    withdraw(s->b, (uint16_t)s->number);
    EQUAL(ask(s->b, "ask", "0"), s->number); /* with the same entry */
}

static void check_withdrawing(struct stage *s)
{
    struct message m;
    uint32_t told = 0;
    for (; take_reply(s->a, &m); told++) {
        EQUAL(m.header.kind, SB_CANCEL);
        CHECK(memcmp(m.header.correlation, s->m.header.correlation, 16) == 0);
    }
    CHECK(told >= 1 && told <= 3); /* said again rather than not */
    CHECK(take(s->a, &m) && answer(s->a, &m, "still"));
    GETS_NOTHING(s->a);
    settle(s->w);
    ends_with_reply(s->b, "still");
    EQUAL(rb_load(&s->w->bus->violations), 0);
}
static const struct scenario a_withdrawn_request_is_told_of = {
    "a withdrawn request is told of", prepare_withdrawing, forward, check_withdrawing, false};
PROMISE(a_withdrawn_request_is_told_of)

static void prepare_overdue(struct stage *s)
{
    s->a = join_sized(s->w, "a", TINY);
    s->b = join_sized(s->w, "b", TINY);
    s->ear = join_sized(s->w, "ear", TINY);
    subscribe(s->ear, "$bus.endpoint.overdue");
    handle(s->a, "ask");
    uint16_t index = ask(s->b, "ask", "0");
    settle(s->w);
    CHECK(take(s->a, &s->m));
    struct sb_limited *limited = &s->a->up->limited[0];
    rb_store(&limited->limit_ns, 1);
    rb_store(&limited->whom, sb_whom(s->b->slot, s->b->generation));
    rb_store(&limited->kind, SB_REQUEST);
    rb_store(&limited->type_length, 3);
    memcpy(limited->id, s->b->pending[index].id, 16);
    memcpy(limited->type, "ask", 3);
    rb_store(&s->a->up->limits[0], s->w->now);
    rb_store(&s->a->up->first_limit_ns, s->w->now);
    raise_ready(s->a);
}

static void check_overdue(struct stage *s)
{
    CHECK(answer(s->a, &s->m, "late"));
    settle(s->w);
    ends_with_fault(s->b, SB_FAULT_HANDLER_TIMEOUT);
    CHECK(!take_end(s->b, &s->m));
    uint32_t told = count_messages(s->ear); /* said again rather than not */
    CHECK(told >= 1 && told <= 2);
    EQUAL(rb_load(&s->w->bus->orphans), 1);
}
static const struct scenario an_overdue_handler_is_told_of = {
    "an overdue handler is told of", prepare_overdue, forward, check_overdue, false};
PROMISE(an_overdue_handler_is_told_of)

static void prepare_nobody(struct stage *s)
{
    struct size size = {.data_in = 8192, .data_out = 1024, .replies_in = 1024, .replies_out = 1024, .requests = 1};
    s->ear = join_sized(s->w, "ear", size);
    s->b = join_sized(s->w, "b", TINY);
    subscribe(s->ear, "$bus.undeliverable");
    ask(s->b, "nothing", "0");
    send_to_handler(s->b, "nothing", "1");
    ask(s->b, "nothing", "2");
}

static void check_nobody(struct stage *s)
{
    ends_with_fault(s->b, SB_FAULT_NO_ROUTE);
    ends_with_fault(s->b, SB_FAULT_NO_ROUTE);
    CHECK(!take_end(s->b, &s->m));
    uint32_t letters = count_messages(s->ear); /* said again rather than not */
    CHECK(letters >= 1 && letters <= 3);
}
static const struct scenario what_nobody_handles_is_answered = {
    "what nobody handles is answered", prepare_nobody, forward, check_nobody, false};
PROMISE(what_nobody_handles_is_answered)

static void prepare_alone(struct stage *s)
{
    s->a = join_sized(s->w, "a", TINY);
    s->b = join_sized(s->w, "b", TINY);
    s->c = join_sized(s->w, "c", TINY);
    handle(s->a, "ask");
    handle(s->c, "ask");
    ask_alone(s->b, s->a, "ask", "here");
    settle(s->w);
    s->number = ask_alone(s->b, s->c, "ask", "there");
    struct dp_order order = {.kind = DP_DEAD, .slot = s->a->slot, .generation = s->a->generation,
                             .reason = SB_REASON_KILLED};
    CHECK(dp_give_order(&s->w->f->orders, &order)); /* with what it has not touched */
}

static void check_alone(struct stage *s)
{
    struct message m;
    struct dp_port *a = &s->w->f->ports[s->a->slot];
    if (a->state == SB_ROW_LIVE && a->generation == s->a->generation)
        die(s->a, SB_REASON_KILLED); /* the order went with the dispatcher */
    settle(s->w);
    CHECK(take_end(s->b, &m));
    struct sb_fault fault = fault_of(&m);
    EQUAL(fault.code, SB_FAULT_ENDPOINT_DIED);
    EQUAL(fault.limit & SB_BEGUN, 0);
    CHECK(take(s->c, &m) && strcmp(m.text, "there") == 0 && answer(s->c, &m, "there"));
    GETS_NOTHING(s->c);
    settle(s->w);
    ends_with_reply(s->b, "there");
}
static const struct scenario requests_for_one_endpoint_are_dealt_with = {
    "requests for one endpoint are dealt with, of which one dies", prepare_alone, forward, check_alone, false};
PROMISE(requests_for_one_endpoint_are_dealt_with)
