/* The dispatcher is killed while it deals with one that dies, closes or is evicted, or with what was given back
 * (killed.h). */
#include "killed.h"

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
