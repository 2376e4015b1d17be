/* The dispatcher is killed while it forwards, or tells something: its successor goes on (killed.h). */
#include "killed.h"

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

/* a sleeps at its eventfd. What the dead has written there is read before its successor gets it, which so owes it
 * all. */
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
