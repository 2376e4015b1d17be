/* The dispatcher is killed while it puts into a backlog, drains or removes one (killed.h). */
#include "killed.h"

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
