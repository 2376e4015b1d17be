/* The dispatcher is killed while it does one thing: its successor goes on (killed.h). */
#include "killed.h"

/* `p` gets exactly the events "0", "1", ... of `count`. */
static void gets_all(struct peer *p, int count)
{
    struct message m;
    for (int i = 0; i < count; i++) {
        CHECK(take(p, &m));
        EQUAL(atoi(m.text), i);
    }
    CHECK(!take(p, &m));
}

static void forward(struct stage *s) { settle(s->w); }

static void prepare_run(struct stage *s)
{
    s->a = join_sized(s->w, "a", TINY);
    s->b = join_sized(s->w, "b", TINY);
    subscribe(s->a, "x");
    put_events(s->b, "x", 3);
}

static void check_run(struct stage *s)
{
    gets_all(s->a, 3);
    EQUAL(rb_load(&s->w->bus->lost), 0);
    put_events(s->b, "x", 2); /* and it goes on */
    settle(s->w);
    gets_all(s->a, 2);
}
static const struct scenario a_run_is_forwarded = {"a run is forwarded", prepare_run, forward, check_run, false};
PROMISE(a_run_is_forwarded)

static void prepare_fan_out(struct stage *s)
{
    s->a = join_sized(s->w, "a", TINY);
    s->b = join_sized(s->w, "b", TINY);
    s->c = join_sized(s->w, "c", TINY);
    s->d = join_sized(s->w, "d", TINY);
    subscribe(s->a, "x");
    subscribe(s->b, "x");
    subscribe_group(s->c, "x", "g", 1);
    subscribe_group(s->d, "x", "g", 2);
    put_events(s->b, "x", 2);
}

static void check_fan_out(struct stage *s)
{
    gets_all(s->a, 2);
    gets_all(s->b, 2);
    EQUAL(count_messages(s->c) + count_messages(s->d), 2);
    EQUAL(rb_load(&s->w->bus->lost), 0);
    EQUAL(rb_load(&s->b->down->todo.from), SB_NOWHERE);
}
static const struct scenario a_fan_out_is_forwarded = {
    "a fan-out is forwarded", prepare_fan_out, forward, check_fan_out, false};
PROMISE(a_fan_out_is_forwarded)

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

static void prepare_lost(struct stage *s)
{
    s->a = join_sized(s->w, "a", TINY);
    s->b = join_sized(s->w, "b", TINY);
    struct size size = {.data_in = 1024, .data_out = 1024, .replies_in = 1024, .replies_out = 1024, .requests = 1};
    s->c = join_sized(s->w, "c", size);
    subscribe(s->a, "x");
    subscribe(s->c, "x");
    put_events(s->b, "x", 20); /* more than c takes */
    settle(s->w);
    CHECK(rb_load(&s->b->down->todo.from) != SB_NOWHERE);
}

static void lose(struct stage *s)
{
    advance(s->w, 2 * SECOND); /* a single step would look as if the dispatcher itself had been stopped */
}

static void check_lost(struct stage *s)
{
    advance(s->w, 3 * SECOND);
    gets_all(s->a, 20);
    EQUAL(count_messages(s->c) + rb_load(&s->c->down->lost), 20);
    EQUAL(rb_load(&s->a->down->lost), 0);
}
static const struct scenario what_waited_too_long_is_counted = {
    "what waited too long is counted", prepare_lost, lose, check_lost, false};
PROMISE(what_waited_too_long_is_counted)

static void prepare_death(struct stage *s)
{
    s->ear = join_sized(s->w, "ear", TINY);
    s->a = join_sized(s->w, "a", TINY);
    s->b = join_sized(s->w, "b", TINY);
    subscribe(s->ear, "$bus.endpoint.down");
    subscribe(s->b, "plain");
    subscribe_group(s->b, "job", "g", 1);
    handle(s->b, "ask");
    ask(s->a, "ask", "begun");
    publish(s->a, "job", "begun");
    publish(s->a, "job", "untouched");
    ask(s->a, "ask", "untouched");
    publish(s->a, "plain", "untouched");
    settle(s->w);
    struct message m;
    CHECK(take(s->b, &m) && begin(s->b, &m)); /* the request and the first job */
    s->c = join_sized(s->w, "c", TINY);
    subscribe_group(s->c, "job", "g", 3);
    handle(s->c, "ask");
}

static void b_dies(struct stage *s) { die(s->b, SB_REASON_KILLED); }

static void check_death(struct stage *s)
{
    struct message m;
    die(s->b, SB_REASON_KILLED); /* the successor's liveness thread sees it, too */
    advance(s->w, SECOND);
    uint64_t state = rb_load(&s->w->f->rows[s->b->slot].state);
    CHECK(state == SB_ROW_GONE || state == SB_ROW_FREE);
    EQUAL(rb_load(&s->b->down->state), SB_DOWN_RECLAIMED);
    ends_with_fault(s->a, SB_FAULT_ENDPOINT_DIED);
    uint32_t jobs[2] = {0, 0}, asked = 0;
    while (take(s->c, &m))
        if (m.header.kind == SB_EVENT) {
            bool begun = strcmp(m.text, "begun") == 0;
            jobs[begun]++;
            EQUAL(m.header.attempt, begun ? 2 : 1);
        } else {
            CHECK(strcmp(m.text, "untouched") == 0);
            asked++;
            CHECK(answer(s->c, &m, "by another"));
        }
    EQUAL(jobs[0], 1);
    EQUAL(jobs[1], 1);
    EQUAL(asked, 1);
    settle(s->w);
    ends_with_reply(s->a, "by another");
    CHECK(!take_end(s->a, &m));
    EQUAL(rb_load(&s->b->down->lost), 1); /* the plain one */
    uint32_t said = count_messages(s->ear);
    CHECK(said >= 1 && said <= 3);
    EQUAL(rb_load(&s->w->bus->dead_letters), 0);
}
static const struct scenario a_death_is_dealt_with = {
    "a death is dealt with", prepare_death, b_dies, check_death, false};
PROMISE(a_death_is_dealt_with)

static void prepare_urgent(struct stage *s)
{
    s->a = join_sized(s->w, "a", TINY);
    s->b = join_sized(s->w, "b", TINY);
    s->c = join_sized(s->w, "c", TINY);
    subscribe(s->a, "x");
    subscribe(s->a, "y");
    subscribe(s->c, "x");
    put_events(s->b, "x", 1);
    put_urgent(s->b, "x", "0"); /* a fan-out, and a run for one */
    put_urgent(s->b, "y", "1");
}

/* One plain event, and so many urgent ones: those that a successor forwards may come behind it, since it does not know
 * whether what was kept is still before them. */
static void gets_plain_and_urgent(struct peer *p, int urgent)
{
    struct message m;
    int before = takes_urgent(p, 0);
    CHECK(take(p, &m));
    EQUAL(atoi(m.text), 0);
    for (int i = before; i < urgent; i++) {
        CHECK(take(p, &m));
        EQUAL(atoi(m.text), i);
    }
    GETS_NOTHING(p);
}

static void check_urgent(struct stage *s)
{
    gets_plain_and_urgent(s->a, 2);
    gets_plain_and_urgent(s->c, 1);
    EQUAL(rb_load(&s->w->bus->lost), 0);
}
static const struct scenario urgent_events_are_forwarded = {
    "urgent events are forwarded", prepare_urgent, forward, check_urgent, false};
PROMISE(urgent_events_are_forwarded)

static void prepare_urgent_death(struct stage *s)
{
    struct message m;
    s->a = join_sized(s->w, "a", TINY);
    s->b = join_sized(s->w, "b", TINY);
    subscribe(s->b, "x");
    put_events(s->a, "x", 1);
    for (int i = 0; i < 3; i++)
        put_urgent(s->a, "x", "");
    settle(s->w);
    CHECK(take_urgent(s->b, &m));
}

static void check_urgent_death(struct stage *s)
{
    die(s->b, SB_REASON_KILLED);
    advance(s->w, SECOND);
    EQUAL(rb_load(&s->b->down->state), SB_DOWN_RECLAIMED);
    EQUAL(rb_load(&s->b->down->lost), 3);
    EQUAL(rb_load(&s->b->down->lost_by[SB_LOSS_ENDED]), 3);
}
static const struct scenario urgent_events_are_lost_with_who_dies = {
    "urgent events are lost with who dies", prepare_urgent_death, b_dies, check_urgent_death, false};
PROMISE(urgent_events_are_lost_with_who_dies)

/* Groups with a key: what is sent to `b`'s keys while it joins, and before. */
static void prepare_key(struct stage *s)
{
    reserve_segments();
    s->w->bus->backlog_bytes = 2048;
    s->a = join_sized(s->w, "a", TINY);
    s->b = join_sized(s->w, "b", TINY);
    s->c = join_sized(s->w, "c", TINY);
    subscribe_keyed(s->a, "o.*.>", "g", 1, ID);
    put_events(s->c, type_of(s->b, s->a), 3);
    settle(s->w);
    CHECK(begin(s->a, &s->m));
    struct sb_interest e = {.op = SB_INTEREST_ADD, .role = SB_ROLE_SUBSCRIBE, .bit = 2, .key = ID};
    log_interest(s->b, e, "o.*.>", "g");
    tell_interests(s->b);
    put_events(s->c, type_of(s->b, s->a), 2);
}

static void check_key(struct stage *s)
{
    struct message m;
    GETS(s->a, "1");
    GETS(s->a, "2");
    settle(s->w);
    GETS_NOTHING(s->b);
    finish(s->a, &s->m);
    settle(s->w);
    for (int i = 0; i < 2; i++) { /* or whatever of it came before `b` was known */
        bool early = take(s->a, &m);
        CHECK(early || take(s->b, &m));
        EQUAL(atoi(m.text), i);
        settle(s->w);
    }
    advance(s->w, SECOND);
    put_events(s->c, type_of(s->b, s->a), 2);
    settle(s->w);
    gets_all(s->b, 2);
    GETS_NOTHING(s->a);
    EQUAL(rb_load(&s->w->bus->keyed[0].settled), 3);
    EQUAL(rb_load(&s->w->bus->lost) + rb_load(&s->w->bus->dead_letters), 0);
}
static const struct scenario a_key_moves_to_who_joins = {
    "a key moves to who joins", prepare_key, forward, check_key, false};
PROMISE(a_key_moves_to_who_joins)

/* A former owner that hangs, and no backlog can be made: `d` gets all the same what the group loses. */
static void prepare_key_lost(struct stage *s)
{
    reserve_segments();
    s->a = join_sized(s->w, "a", TINY);
    s->b = join_sized(s->w, "b", TINY);
    s->c = join_sized(s->w, "c", TINY);
    s->d = join_sized(s->w, "d", TINY);
    s->w->bus->backlog_bytes = 1ull << 62;
    subscribe_keyed(s->a, "o.*.>", "g", 1, ID);
    subscribe(s->d, "o.>");
    put_events(s->c, type_of(s->b, s->a), 1);
    settle(s->w);
    CHECK(begin(s->a, &s->m));
    subscribe_keyed(s->b, "o.*.>", "g", 2, ID);
    GETS(s->d, "0");
    put_events(s->c, type_of(s->b, s->a), 2);
    settle(s->w);
}

static void check_key_lost(struct stage *s)
{
    advance(s->w, 3 * SECOND);
    gets_all(s->d, 2);
    GETS_NOTHING(s->d);
    GETS_NOTHING(s->b);
    EQUAL(rb_load(&s->a->down->lost), 2);
    EQUAL(rb_load(&s->a->down->lost_by[SB_LOSS_SLOW]), 2);
}
static const struct scenario what_a_group_loses_at_a_former_owner_is_counted_once = {
    "what a group loses at a former owner is counted once", prepare_key_lost, lose, check_key_lost, false};
PROMISE(what_a_group_loses_at_a_former_owner_is_counted_once)

static void prepare_waiting_key(struct stage *s)
{
    prepare_key(s);
    settle(s->w);
    GETS(s->a, "1");
    GETS(s->a, "2");
    finish(s->a, &s->m);
    struct sb_record h = {.kind = SB_EVENT};
    CHECK(put(s->c, SB_DATA, h, type_of(s->b, s->a), "2", 1));
    flush(s->c);
}

static void check_waiting_key(struct stage *s)
{
    advance(s->w, SECOND);
    gets_all(s->b, 3);
    GETS_NOTHING(s->a);
    EQUAL(rb_load(&s->w->bus->keyed[0].settled), 3);
}
static const struct scenario a_key_that_waits_goes_to_its_new_owner = {
    "a key that waits goes to its new owner", prepare_waiting_key, forward, check_waiting_key, false};
PROMISE(a_key_that_waits_goes_to_its_new_owner)

static void prepare_owner(struct stage *s)
{
    reserve_segments();
    s->w->bus->backlog_bytes = 2048;
    s->a = join_sized(s->w, "a", TINY);
    s->b = join_sized(s->w, "b", TINY);
    s->c = join_sized(s->w, "c", TINY);
    subscribe_keyed(s->a, "o.*.>", "g", 1, ID);
    subscribe_keyed(s->b, "o.*.>", "g", 2, ID);
    put_events(s->c, type_of(s->b, s->a), 2);
    settle(s->w);
    CHECK(begin(s->b, &s->m));
    struct sb_record h = {.kind = SB_EVENT};
    const char *type = type_of(s->b, s->a);
    CHECK(put(s->c, SB_DATA, h, type, "2", 1) && put(s->c, SB_DATA, h, type, "3", 1));
    rb_publish(&s->c->out[SB_DATA]); /* seen when the death is */
    raise_ready(s->c);
}

static void check_owner(struct stage *s)
{
    die(s->b, SB_REASON_KILLED); /* the successor's liveness thread sees it, too */
    advance(s->w, SECOND);
    gets_all(s->a, 4);
    EQUAL(rb_load(&s->b->down->state), SB_DOWN_RECLAIMED);
    EQUAL(rb_load(&s->w->bus->lost) + rb_load(&s->w->bus->dead_letters), 0);
}
static const struct scenario an_owner_of_keys_dies = {
    "an owner of keys dies", prepare_owner, b_dies, check_owner, false};
PROMISE(an_owner_of_keys_dies)

static void prepare_keyed(struct stage *s)
{
    s->a = join_sized(s->w, "a", TINY);
    s->b = join_sized(s->w, "b", TINY);
    struct sb_interest e = {.op = SB_INTEREST_ADD, .role = SB_ROLE_SUBSCRIBE, .bit = 1, .key = ID};
    log_interest(s->a, e, "o.*.>", "g");
    tell_interests(s->a);
}

static void come_and_go(struct stage *s)
{
    settle(s->w);
    die(s->a, SB_REASON_KILLED);
}

static void check_keyed(struct stage *s)
{
    die(s->a, SB_REASON_KILLED);
    advance(s->w, SECOND);
    EQUAL(rb_load(&s->w->bus->keyed[0].key), 0);
    EQUAL(s->w->f->routes.keyed_count, 0);
}
static const struct scenario a_group_with_a_key_comes_and_goes = {
    "a group with a key comes and goes", prepare_keyed, come_and_go, check_keyed, false};
PROMISE(a_group_with_a_key_comes_and_goes)

/* What `b` leaves, one message of 100 bytes, lies behind the padding at the end of its ring. */
static void prepare_padded(struct stage *s, bool request)
{
    static char text[101], filler[41];
    memset(text, 'o', 100);
    memset(filler, 'f', 40);
    s->a = join_sized(s->w, "a", TINY);
    s->b = join_sized(s->w, "b", (struct size){.data_in = 1024, .requests = 1});
    subscribe(s->b, "fill");
    subscribe_group(s->b, "job", "g", 1);
    handle(s->b, "ask");
    for (int i = 0; i < 8; i++) {
        struct message m;
        CHECK(publish(s->a, "fill", filler));
        settle(s->w);
        CHECK(take(s->b, &m));
    }
    if (request)
        ask(s->a, "ask", text);
    else
        CHECK(publish(s->a, "job", text));
    settle(s->w);
    CHECK(rb_load(&s->b->up->incoming[SB_DATA].tail) < 1024); /* and what is left begins at 1024 */
    CHECK(rb_load(&s->b->down->incoming[SB_DATA].head) > 1024);
    s->c = join_sized(s->w, "c", TINY);
    subscribe_group(s->c, "job", "g", 3);
    handle(s->c, "ask");
}

static void prepare_padded_event(struct stage *s) { prepare_padded(s, false); }
static void prepare_padded_request(struct stage *s) { prepare_padded(s, true); }

static void check_padded(struct stage *s)
{
    die(s->b, SB_REASON_KILLED);
    advance(s->w, SECOND);
    EQUAL(rb_load(&s->b->down->state), SB_DOWN_RECLAIMED);
    EQUAL(count_messages(s->c), 1);
    EQUAL(rb_load(&s->w->bus->dead_letters), 0);
}
static const struct scenario an_event_behind_padding_is_handed_on = {
    "an event behind padding is handed on", prepare_padded_event, b_dies, check_padded, false};
PROMISE(an_event_behind_padding_is_handed_on)
static const struct scenario a_request_behind_padding_is_handed_on = {
    "a request behind padding is handed on", prepare_padded_request, b_dies, check_padded, false};
PROMISE(a_request_behind_padding_is_handed_on)

static void b_gives_back(struct stage *s) /* as ep_nack does */
{
    struct sb_record nack = {.kind = SB_NACK, .flags = SB_RAW, .interests = s->m.header.interests,
                             .peer = s->m.header.peer, .peer_generation = s->m.header.peer_generation, .attempt = 2};
    CHECK(put(s->b, SB_DATA, nack, "job", s->m.text, 1));
    for (uint32_t i = 0; i < SB_HELD; i++)
        if (rb_load(&s->b->up->held[i].position) == s->m.position)
            rb_store(&s->b->up->held[i].returned, s->b->out[SB_DATA].next);
    flush(s->b);
    if (rb_load(&s->b->down->state) == SB_DOWN_LIVE)
        finish(s->b, &s->m);
}

/* b is evicted in the midst of that. */
static void prepare_eviction(struct stage *s)
{
    s->a = join_sized(s->w, "a", TINY);
    s->b = join_sized(s->w, "b", TINY);
    subscribe_group(s->b, "job", "g", 2);
    put_events(s->a, "job", 1);
    settle(s->w);
    CHECK(begin(s->b, &s->m));
    s->c = join_sized(s->w, "c", TINY);
    subscribe_group(s->c, "job", "g", 1);
    s->meanwhile = b_gives_back;
}

static void b_is_evicted(struct stage *s) { die(s->b, SB_REASON_EVICTED); }

static void check_eviction(struct stage *s)
{
    struct message m;
    b_is_evicted(s); /* again, where that was not heard */
    advance(s->w, SECOND);
    CHECK(take(s->c, &m));
    EQUAL(m.header.attempt, 2);
    EQUAL(m.header.peer, s->a->slot);
    GETS_NOTHING(s->c);
    EQUAL(rb_load(&s->w->bus->lost), 0);
    EQUAL(rb_load(&s->w->bus->dead_letters), 0);
}
static const struct scenario an_eviction_is_dealt_with_while_one_gives_back = {
    "an eviction is dealt with while one gives back", prepare_eviction, b_is_evicted, check_eviction, false};
PROMISE(an_eviction_is_dealt_with_while_one_gives_back)

static void prepare_close(struct stage *s)
{
    prepare_death(s);
    rb_store_release(&s->b->up->state, SB_UP_CLOSING);
    raise_ready(s->b);
}

static void b_closes(struct stage *s)
{
    settle(s->w);
    if (rb_load(&s->b->down->state) == SB_DOWN_DRAINED) { /* b's own part */
        rb_store_release(&s->b->up->state, SB_UP_CLOSED);
        raise_ready(s->b);
    }
    settle(s->w);
}

static void check_close(struct stage *s)
{
    struct message m;
    b_closes(s);
    advance(s->w, SECOND);
    EQUAL(rb_load(&s->b->down->state), SB_DOWN_RECLAIMED);
    ends_with_fault(s->a, SB_FAULT_ENDPOINT_DIED);
    uint32_t jobs = 0, asked = 0;
    while (take(s->c, &m))
        if (m.header.kind == SB_EVENT) {
            jobs++;
        } else {
            asked++;
            CHECK(answer(s->c, &m, "by another"));
        }
    EQUAL(jobs, 2);
    EQUAL(asked, 1);
    settle(s->w);
    ends_with_reply(s->a, "by another");
    CHECK(!take_end(s->a, &m));
    EQUAL(rb_load(&s->b->down->lost), 1);
    uint32_t said = count_messages(s->ear);
    CHECK(said >= 1 && said <= 3);
}
static const struct scenario a_close_is_dealt_with = {
    "a close is dealt with", prepare_close, b_closes, check_close, false};
PROMISE(a_close_is_dealt_with)

static void prepare_rechoice(struct stage *s)
{
    struct size tiny = {.data_in = 1024, .data_out = 1024, .replies_in = 1024, .replies_out = 1024, .requests = 1};
    s->a = join_sized(s->w, "a", TINY);
    s->b = join_sized(s->w, "b", tiny);
    s->c = join_sized(s->w, "c", TINY);
    struct peer *filler = join_sized(s->w, "filler", TINY);
    subscribe(s->b, "fill");
    subscribe(s->b, "x");
    subscribe_group(s->b, "x", "g", 1);
    subscribe(s->c, "x");
    put_events(filler, "fill", 20);
    settle(s->w);
    put_events(s->a, "x", 1);
    settle(s->w);
    CHECK(rb_load(&s->a->down->todo.from) != SB_NOWHERE);
    s->d = join_sized(s->w, "d", TINY);
    subscribe_group(s->d, "x", "g", 9);
    s->number = (int)rb_load(&s->b->down->incoming[SB_DATA].delivered);
}

static void check_rechoice(struct stage *s)
{
    die(s->b, SB_REASON_KILLED);
    advance(s->w, SECOND);
    gets_all(s->c, 1);
    gets_all(s->d, 1);
    EQUAL(rb_load(&s->b->down->lost), s->number + 1); /* the untouched ones and the fan-out's */
    EQUAL(rb_load(&s->a->down->todo.from), SB_NOWHERE);
}
static const struct scenario a_fan_out_owed_to_the_dead_is_chosen_anew = {
    "a fan-out owed to the dead is chosen anew", prepare_rechoice, b_dies, check_rechoice, false};
PROMISE(a_fan_out_owed_to_the_dead_is_chosen_anew)

/* Backlogs: one message at a time for everybody. */
static void prepare_busy(struct stage *s)
{
    reserve_segments();
    s->w->bus->prefetch = 1;
    s->w->bus->backlog_bytes = 2048;
    s->a = join_sized(s->w, "a", TINY);
    s->b = join_sized(s->w, "b", TINY);
    s->c = join_sized(s->w, "c", TINY);
    subscribe_group(s->a, "x", "g", 3);
    handle(s->a, "ask");
    handle(s->c, "ask");
    put_events(s->b, "x", 1);
    ask(s->b, "ask", "0"); /* c's */
    settle(s->w);
}

static void prepare_backlog(struct stage *s)
{
    prepare_busy(s);
    put_events(s->b, "x", 2);
    ask(s->b, "ask", "1");
    ask(s->b, "ask", "2");
}

/* Everything once, answered by whoever gets it; `number` of each have been taken before. */
static void check_backlog(struct stage *s)
{
    struct message m, r;
    uint32_t events = (uint32_t)s->number, asked = (uint32_t)s->number, answered = 0;
    for (bool more = true; more; settle(s->w)) {
        more = false;
        for (int i = 0; i < 2; i++) {
            struct peer *p = i ? s->a : s->c;
            if (!take(p, &m))
                continue;
            more = true;
            events += m.header.kind == SB_EVENT;
            asked += m.header.kind == SB_REQUEST;
            if (m.header.kind == SB_REQUEST)
                CHECK(answer(p, &m, m.text));
        }
    }
    EQUAL(events, 3);
    EQUAL(asked, 3);
    while (take_end(s->b, &r)) {
        EQUAL(r.header.kind, SB_REPLY);
        EQUAL(atoi(r.text), sb_index_of(r.header.correlation));
        answered++;
    }
    EQUAL(answered, 3);
    EQUAL(rb_load(&s->w->bus->lost) + rb_load(&s->w->bus->dead_letters), 0);
}
static const struct scenario what_nobody_is_free_for_is_put_into_a_backlog = {
    "what nobody is free for is put into a backlog", prepare_backlog, forward, check_backlog, false};
PROMISE(what_nobody_is_free_for_is_put_into_a_backlog)

static void prepare_drain(struct stage *s)
{
    struct message m;
    prepare_backlog(s);
    settle(s->w);
    CHECK(take(s->a, &m) && take(s->c, &m) && answer(s->c, &m, m.text));
    s->number = 1;
}

static const struct scenario what_waits_leaves_a_backlog = {
    "what waits leaves a backlog", prepare_drain, forward, check_backlog, false};
PROMISE(what_waits_leaves_a_backlog)

static void prepare_empty(struct stage *s)
{
    struct message m;
    prepare_busy(s);
    put_events(s->b, "x", 1);
    settle(s->w);
    for (int i = 0; i < 2; i++, settle(s->w))
        CHECK(take(s->a, &m));
    CHECK(take(s->c, &m) && answer(s->c, &m, m.text));
    settle(s->w);
    CHECK(rb_load(&s->w->bus->backlog[0]));
}

static void wait_two_seconds(struct stage *s) { advance(s->w, 2 * SECOND); }

static void check_empty(struct stage *s)
{
    put_events(s->b, "x", 3);
    settle(s->w);
    EQUAL(count_messages(s->a), 3);
    EQUAL(rb_load(&s->w->bus->lost) + rb_load(&s->w->bus->dead_letters), 0);
}
static const struct scenario an_empty_backlog_is_removed = {
    "an empty backlog is removed", prepare_empty, wait_two_seconds, check_empty, false};
PROMISE(an_empty_backlog_is_removed)

/* b has given two jobs back, the second as a dead letter; who is free has one, and there are no more. */
static void put_nacks(struct stage *s)
{
    for (int i = 0; i < 2; i++) {
        struct sb_record h = {.kind = SB_NACK, .flags = (uint16_t)(SB_RAW | (i ? SB_FINAL : 0)), .interests = 2,
                              .peer = (uint16_t)s->a->slot, .peer_generation = s->a->generation, .attempt = 2,
                              .extension_length = 3};
        CHECK(put(s->b, SB_DATA, h, "job", "whyx", 4));
    }
    flush(s->b);
}

static void prepare_returning(struct stage *s)
{
    s->ear = join_sized(s->w, "ear", (struct size){.data_in = 8192, .requests = 1});
    subscribe(s->ear, "$bus.undeliverable");
    s->a = join_sized(s->w, "a", TINY);
    s->b = join_sized(s->w, "b", TINY);
    s->c = join_sized(s->w, "c", TINY);
    subscribe_group(s->b, "job", "g", 1);
    subscribe_group(s->c, "job", "g", 3);
    put_nacks(s);
}

static void check_returning(struct stage *s)
{
    struct message m;
    CHECK(take(s->c, &m));
    EQUAL(m.header.attempt, 2);
    EQUAL(m.header.peer, s->a->slot);
    EQUAL(m.header.interests, 8);
    CHECK(strcmp(m.text, "x") == 0);
    EQUAL(count_messages(s->b) + count_messages(s->c), 0);
    EQUAL(rb_load(&s->w->bus->lost), 0);
    uint32_t letters = count_messages(s->ear); /* said again rather than not */
    CHECK(letters >= 1 && letters <= 3);
}
static const struct scenario what_is_given_back_is_forwarded = {
    "what is given back is forwarded", prepare_returning, forward, check_returning, false};
PROMISE(what_is_given_back_is_forwarded)

/* a sleeps at its eventfd. What the dead has written there is read before its successor gets it, which so owes it all. */
static int sleeper = -1;

static void read_all(struct stage *s)
{
    (void)s;
    read_event(sleeper);
}

static void prepare_sleeper(struct stage *s)
{
    prepare_run(s);
    if (sleeper < 0)
        sleeper = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    rb_store(&s->a->up->event_wants, SB_EVENT_DATA);
    rb_store(&s->a->up->event, 1);
    pass_event(s->a, sleeper);
    s->meanwhile = read_all;
}

static void check_sleeper(struct stage *s)
{
    pass_event(s->a, sleeper);
    settle(s->w);
    EQUAL(rb_load(&s->a->down->event_known), s->w->bus->serial);
    EQUAL(read_event(sleeper), 1);
    gets_all(s->a, 3);
}
static const struct scenario who_sleeps_at_its_eventfd_is_woken = {
    "who sleeps at its eventfd is woken", prepare_sleeper, forward, check_sleeper, false};
PROMISE(who_sleeps_at_its_eventfd_is_woken)

/* What is kept: of each type `history`, of all as many as fit into so many cells. d will come late, and its ring is
 * small. It has logged its interest already, because logs are not put back: telling of it is what it does then. */
static void prepare_kept(struct stage *s, uint64_t history, uint64_t cells)
{
    struct sb_interest late = {.op = SB_INTEREST_ADD, .role = SB_ROLE_SUBSCRIBE, .history = 9};
    reserve_segments();
    s->w->bus->backlog_bytes = 2048;
    s->w->bus->history = history;
    s->w->bus->retain_bytes = cells * SB_CELL_BYTES;
    s->w->f->values.chunk_cells = cells;
    s->d = join_sized(s->w, "d", (struct size){.data_in = 1024, .data_out = 1024, .requests = 1});
    s->a = join_sized(s->w, "a", TINY);
    s->b = join_sized(s->w, "b", TINY);
    log_interest(s->d, late, ">", "");
}

/* 119 characters of which the first is `digit`, kept. */
static void retain_digit(struct stage *s, const char *type, int digit)
{
    char text[120];
    memset(text, '0' + digit, sizeof text - 1);
    text[sizeof text - 1] = 0;
    retain(s->b, type, text);
}

/* d hears `wanted` from now on, a digit each. */
static void hears(struct stage *s, const char *wanted)
{
    struct message m;
    char heard[64] = "";
    struct late_ear late = {.peer = s->d, .id = 1};
    for (bool more = true; more; settle(s->w))
        for (more = false; hear(&late, &m); more = true)
            strncat(heard, m.text, 1);
    if (strcmp(heard, wanted)) {
        fprintf(stderr, "heard %s, not %s\n", heard, wanted);
        exit(1);
    }
    CHECK(late.live);
    EQUAL(rb_load(&s->w->bus->lost), 0);
    EQUAL(s->w->f->backlogs_open, 0);
    close_forwarder(s->w->f); /* and never again, whoever reads of it */
    adopt(s->w, false);
    settle(s->w);
    GETS_NOTHING(s->d);
    for (int i = 0; i < ARENA_SEGMENTS; i++) /* removed names begin with 0 */
        CHECK(!strstr(arena_segments[i].name, ":backlog:"));
}

static void hears_late(struct stage *s, const char *wanted)
{
    EQUAL(rb_load(&s->w->bus->retained), strlen(wanted));
    EQUAL(rb_load(&s->w->bus->retained_bytes), strlen(wanted) * SB_CELL_BYTES);
    tell_interests(s->d);
    settle(s->w);
    hears(s, wanted);
}

static void prepare_keeping(struct stage *s)
{
    prepare_kept(s, 2, 4);
    s->c = join_sized(s->w, "c", TINY);
    subscribe(s->a, ">");
    subscribe(s->c, "x");
    for (int i = 0; i < 3; i++)
        retain(s->b, "x", (char[2]){(char)('0' + i), 0});
}

static void check_keeping(struct stage *s)
{
    gets_all(s->a, 3);
    gets_all(s->c, 3);
    hears_late(s, "12");
    EQUAL(rb_load(&s->w->bus->evicted), 0);
}
static const struct scenario what_is_to_be_kept_is_forwarded = {
    "what is to be kept is forwarded", prepare_keeping, forward, check_keeping, false};
PROMISE(what_is_to_be_kept_is_forwarded)

static void prepare_evicting(struct stage *s)
{
    prepare_kept(s, 2, 4);
    retain(s->b, "x", "0"), retain(s->b, "x", "1"), retain(s->b, "y", "2"), retain(s->b, "z", "3");
    settle(s->w);
    retain(s->b, "u", "4"), retain(s->b, "y", NULL), retain(s->b, "v", "5"), retain(s->b, "w", "6");
}

static void check_evicting(struct stage *s)
{
    hears_late(s, "3456");
    CHECK(rb_load(&s->w->bus->evicted) >= 2 && rb_load(&s->w->bus->evicted) <= 3); /* counted first */
}
static const struct scenario for_want_of_space_others_go = {
    "for want of space others go", prepare_evicting, forward, check_evicting, false};
PROMISE(for_want_of_space_others_go)

/* d comes late while a value waits to be delivered to a, whose ring is full. */
static void prepare_seam(struct stage *s)
{
    char text[420];
    memset(text, '0', sizeof text - 1);
    text[sizeof text - 1] = 0;
    prepare_kept(s, 2, 8);
    subscribe(s->a, "x");
    for (int i = 0; i < 4; i++)
        publish(s->b, "x", text);
    settle(s->w);
    retain_digit(s, "x", 1);
    settle(s->w);
    EQUAL(rb_load(&s->w->bus->retained), 1);
    CHECK(!dp_all_forwarded(&s->w->f->ports[s->b->slot]));
    retain_digit(s, "x", 2);
    tell_interests(s->d);
}

static void check_seam(struct stage *s)
{
    EQUAL(count_messages(s->a), 6);
    hears(s, "12");
}
static const struct scenario who_comes_late_at_the_seam_begins = {
    "who comes late at the seam begins", prepare_seam, forward, check_seam, false};
PROMISE(who_comes_late_at_the_seam_begins)

static void prepare_passed_seam(struct stage *s)
{
    prepare_seam(s);
    settle(s->w);
    struct message m;
    for (int i = 0; i < 4; i++)
        CHECK(take(s->a, &m));
}

static void check_passed_seam(struct stage *s)
{
    EQUAL(count_messages(s->a), 2);
    hears(s, "12");
}
static const struct scenario what_waited_at_the_seam_is_forwarded = {
    "what waited at the seam is forwarded", prepare_passed_seam, forward, check_passed_seam, false};
PROMISE(what_waited_at_the_seam_is_forwarded)

/* d comes late, and its ring does not hold what is kept: it catches up while others publish. */
static void prepare_catching_up(struct stage *s)
{
    prepare_kept(s, 9, 16);
    for (int i = 0; i < 6; i++)
        retain_digit(s, "x", i);
    settle(s->w);
    tell_interests(s->d);
    retain_digit(s, "x", 6);
    publish(s->b, "y", "7");
}

static void check_catching_up(struct stage *s) { hears(s, "01234567"); }
static const struct scenario who_comes_late_gets_a_backlog = {
    "who comes late gets a backlog", prepare_catching_up, forward, check_catching_up, false};
PROMISE(who_comes_late_gets_a_backlog)

/* The rest leaves the backlog. */
static void prepare_caught_up(struct stage *s)
{
    struct message m;
    prepare_catching_up(s);
    settle(s->w);
    for (int i = 0; i < 5; i++)
        CHECK(take(s->d, &m));
}

static void check_caught_up(struct stage *s) { hears(s, "567"); }
static const struct scenario who_has_caught_up_is_like_others = {
    "who has caught up is like others", prepare_caught_up, forward, check_caught_up, false};
PROMISE(who_has_caught_up_is_like_others)
static void prepare_query(struct stage *s)
{
    s->a = join_sized(s->w, "a", TINY);
    s->b = join_sized(s->w, "b", TINY);
    handle(s->a, "ask");
    subscribe(s->a, "ask");
    query(s->b, "ask", 0);
}

static void check_query(struct stage *s)
{
    struct message r;
    struct sb_found found;
    CHECK(take_end(s->b, &r));
    EQUAL(r.header.kind, SB_REPLY);
    memcpy(&found, r.text, sizeof found);
    EQUAL(found.handlers, 1);
    EQUAL(found.receivers, 1);
    CHECK(found.version <= rb_load(&s->w->bus->routes_version));
    CHECK(!take_end(s->b, &r)); /* once */
}
static const struct scenario a_query_is_answered = {
    "a query is answered", prepare_query, forward, check_query, false};
PROMISE(a_query_is_answered)

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

static void prepare_telling(struct stage *s)
{
    s->a = join_sized(s->w, "a", TINY);
    s->b = join_sized(s->w, "b", TINY);
    await_receivers(s->a, "x.>");
    CHECK(take(s->a, &s->m));
    log_interest(s->b, (struct sb_interest){.op = SB_INTEREST_ADD, .role = SB_ROLE_SUBSCRIBE}, "x.y", "");
    tell_interests(s->b);
}

static uint8_t number_after(const struct message *m, const char *key)
{
    const char *at = memmem(m->text, sizeof m->text, key, strlen(key));
    CHECK(at);
    return (uint8_t)at[strlen(key) + 8];
}

static void check_telling(struct stage *s)
{
    struct message m;
    uint32_t told = 0, version = number_after(&s->m, "version");
    for (; take(s->a, &m); told++) {
        CHECK(number_after(&m, "version") > version);
        version = number_after(&m, "version");
        EQUAL(number_after(&m, "receivers"), 1);
    }
    CHECK(told >= 1 && told <= 2); /* said again rather than not */
}
static const struct scenario who_waits_for_receivers_is_told = {
    "who waits for receivers is told", prepare_telling, forward, check_telling, false};
PROMISE(who_waits_for_receivers_is_told)

/* b may publish "x" and nothing else. */
static void prepare_forbidden(struct stage *s)
{
    s->ear = join_sized(s->w, "ear", TINY);
    s->a = join_sized(s->w, "a", TINY);
    s->b = join_granted(s->w, "b", TINY, SB_RIGHT_PUBLISH, "x");
    subscribe(s->ear, "$bus.endpoint.forbidden");
    subscribe(s->a, "x");
    publish(s->b, "y", "2");
    ask(s->b, "x", "1");
    publish(s->b, "x", "0");
}

static void check_forbidden(struct stage *s)
{
    ends_with_fault(s->b, SB_FAULT_FORBIDDEN);
    CHECK(!take_end(s->b, &s->m));
    gets_all(s->a, 1);
    CHECK(rb_load(&s->w->bus->forbidden) >= 2); /* counted again rather than not */
    advance(s->w, 2 * SECOND);
    CHECK(count_messages(s->ear) >= 1);
    EQUAL(rb_load(&s->b->down->lost) + rb_load(&s->w->bus->dead_letters), 0);
}
static const struct scenario what_is_forbidden_is_refused = {
    "what is forbidden is refused", prepare_forbidden, forward, check_forbidden, false};
PROMISE(what_is_forbidden_is_refused)
