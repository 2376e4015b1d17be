/* An endpoint is killed while it does one thing: the others go on (killed.h). */
#include "killed.h"

static void push_real(struct stage *s, uint16_t kind, const char *type, const char *text, const uint8_t *id,
                      const struct sb_record *to)
{
    bool armed;
    struct ep_message m = {.kind = kind, .flags = SB_RAW, .type = type, .type_length = (uint32_t)strlen(type),
                           .payload = text, .size = strlen(text), .correlation = id};
    if (to) {
        m.peer = to->peer;
        m.peer_generation = to->peer_generation;
    }
    CHECK(ep_push(&s->e, &m, rb_now(), NULL, &armed) == RB_OK);
}

static void prepare_push(struct stage *s)
{
    s->a = join_sized(s->w, "a", TINY);
    s->b = join_sized(s->w, "b", TINY);
    subscribe(s->a, "x");
    for (int i = 0; i < 16; i++) /* so that the record needs padding before it */
        CHECK(publish_bytes(s->b, "x", 55));
    settle(s->w);
    EQUAL(count_messages(s->a), 16);
    open_real(s);
    rb_store(&s->w->bus->bell, 1); /* the dispatcher is parked */
}

#define TEXT                                                            \
    "a payload of some length, which is either whole or not there at " \
    "all: neither half-written nor lost after it was said"

static void push_one(struct stage *s) { push_real(s, SB_EVENT, "x", TEXT, NULL, NULL); }

static void check_push(struct stage *s)
{
    bool published = rb_load(&s->b->up->outgoing[SB_DATA].head) > 16 * 128;
    struct message m;
    bool got = take(s->a, &m);
    EQUAL(got, published);
    CHECK(!got || strcmp(m.text, TEXT) == 0);
    GETS_NOTHING(s->a);
    CHECK(s->b->reclaimed && !s->b->quarantined);
}
static const struct scenario an_endpoint_pushes = {"an endpoint pushes", prepare_push, push_one, check_push, true};
PROMISE(an_endpoint_pushes)

static void prepare_asking(struct stage *s)
{
    s->a = join_sized(s->w, "a", TINY);
    s->b = join_sized(s->w, "b", TINY);
    handle(s->a, "ask");
    open_real(s);
}

static void ask_one(struct stage *s)
{
    uint8_t id[16];
    CHECK(ep_begin_request(&s->e, 0, false, id) != EP_NO_REQUEST);
    push_real(s, SB_REQUEST, "ask", TEXT, id, NULL);
}

static void check_asking(struct stage *s)
{
    bool published = rb_load(&s->b->up->outgoing[SB_DATA].head) > 0;
    EQUAL(count_messages(s->a), published);
    CHECK(s->b->reclaimed && !s->b->quarantined);
}
static const struct scenario an_endpoint_asks = {"an endpoint asks", prepare_asking, ask_one, check_asking, true};
PROMISE(an_endpoint_asks)

static void prepare_withdrawing_one(struct stage *s)
{
    prepare_asking(s);
    uint8_t id[16];
    uint32_t index = ep_begin_request(&s->e, 0, false, id);
    push_real(s, SB_REQUEST, "ask", TEXT, id, NULL);
    ep_sent_request(&s->e, index, id);
    s->number = (int)index;
    settle(s->w);
    CHECK(take(s->a, &s->m));
}

static void withdraw_one(struct stage *s) { ep_end_request(&s->e, (uint32_t)s->number); }

/* Its end says it if it has not. */
static void check_withdrawing_one(struct stage *s)
{
    struct message m;
    uint32_t told = 0;
    for (; take_reply(s->a, &m); told++) {
        EQUAL(m.header.kind, SB_CANCEL);
        CHECK(memcmp(m.header.correlation, s->m.header.correlation, 16) == 0);
    }
    CHECK(told >= 1 && told <= 2);
    GETS_NOTHING(s->a);
    CHECK(s->b->reclaimed && !s->b->quarantined);
}
static const struct scenario an_endpoint_withdraws_a_request = {
    "an endpoint withdraws a request", prepare_withdrawing_one, withdraw_one, check_withdrawing_one, true};
PROMISE(an_endpoint_withdraws_a_request)

static void prepare_taking(struct stage *s)
{
    s->a = join_sized(s->w, "a", TINY);
    s->b = join_sized(s->w, "b", TINY);
    subscribe_group(s->b, "job", "g", 1);
    put_events(s->a, "job", 2);
    settle(s->w);
    open_real(s);
    s->c = join_sized(s->w, "c", TINY);
    subscribe_group(s->c, "job", "g", 1);
}

static void take_two(struct stage *s)
{
    struct sb_record h;
    const uint8_t *record;
    for (int i = 0; i < 2; i++) {
        CHECK(ep_peek(&s->e, &h, &record) == RB_OK);
        uint64_t position = ep_take(&s->e, &h, SB_HELD_OPEN);
        ep_set_in_hand(&s->e, 1, 5);
        if (i == 0)
            ep_done(&s->e, position);
    }
}

static void check_taking(struct stage *s)
{
    /* What b has finished is not done again, all else is done once. */
    uint64_t taken = rb_load(&s->b->up->incoming[SB_DATA].taken), first = rb_load(&s->b->up->incoming[SB_DATA].tail);
    bool open = false;
    for (int i = 0; i < (int)SB_HELD; i++)
        open |= rb_load(&s->b->up->held[i].position) == 0 && rb_load(&s->b->up->held[i].done) == SB_HELD_OPEN;
    bool finished = first > 0 || (taken > 0 && !open);
    struct message m;
    for (int i = finished; i < 2; i++) {
        CHECK(take(s->c, &m));
        EQUAL(atoi(m.text), i);
        CHECK(m.header.attempt <= 2);
    }
    GETS_NOTHING(s->c);
    EQUAL(rb_load(&s->w->bus->lost), 0);
    CHECK(s->b->reclaimed && !s->b->quarantined);
}
static const struct scenario an_endpoint_takes_and_finishes = {
    "an endpoint takes and finishes", prepare_taking, take_two, check_taking, true};
PROMISE(an_endpoint_takes_and_finishes)

static void prepare_letting_go(struct stage *s)
{
    prepare_taking(s);
    s->e.hold_limit = 1;
}

static void take_more_than_it_holds(struct stage *s)
{
    struct sb_record h;
    const uint8_t *record;
    for (int i = 0; i < 2; i++) {
        CHECK(ep_peek(&s->e, &h, &record) == RB_OK);
        ep_take(&s->e, &h, SB_HELD_OPEN);
        ep_set_in_hand(&s->e, (uint64_t)i + 1, 5);
    }
}

static void check_letting_go(struct stage *s)
{
    /* Each is handed on, or a dead letter. */
    EQUAL(count_messages(s->c) + rb_load(&s->w->bus->dead_letters), 2);
    EQUAL(rb_load(&s->w->bus->lost), 0);
    CHECK(s->b->reclaimed && !s->b->quarantined);
}
static const struct scenario an_endpoint_lets_go = {
    "an endpoint lets go", prepare_letting_go, take_more_than_it_holds, check_letting_go, true};
PROMISE(an_endpoint_lets_go)

/* Two jobs are in hand, of which the first is given back: after its time, then as one that has left the ring. */
static void prepare_giving_back(struct stage *s, uint32_t hold_limit)
{
    struct sb_record h;
    const uint8_t *record;
    s->ear = join_sized(s->w, "ear", (struct size){.data_in = 8192, .requests = 1});
    subscribe(s->ear, "$bus.undeliverable");
    prepare_taking(s);
    s->e.hold_limit = hold_limit;
    for (uint64_t i = 1; i <= 2; i++) {
        CHECK(ep_peek(&s->e, &h, &record) == RB_OK);
        uint64_t position = ep_take(&s->e, &h, SB_HELD_OPEN);
        ep_set_in_hand(&s->e, i, 5);
        if (i == 1) {
            s->m.header = h;
            s->m.position = position;
        }
    }
}

static void prepare_giving_held_back(struct stage *s) { prepare_giving_back(s, 16); }
static void prepare_giving_kept_back(struct stage *s) { prepare_giving_back(s, 1); }

static void give_back_one(struct stage *s)
{
    struct ep_returned r = {.position = s->m.position, .header = &s->m.header, .bit = 2, .type = "job",
                            .reason = "why", .reason_length = 3, .payload = "0", .size = 1};
    ep_mark_returned(&s->e, r.position, SB_NOWHERE);
    CHECK(ep_fit_returned(&s->e, &r));
    CHECK(ep_nack(&s->e, &r, 1, true) == RB_OK);
    ep_set_in_hand(&s->e, 1, 5);
}

/* Each goes on once, the first as a dead letter where it had left the ring and was not given back. */
static void check_giving_back(struct stage *s, bool kept)
{
    bool published = rb_load(&s->b->up->outgoing[SB_DATA].head) > 0;
    uint32_t got[2] = {0, 0}, letters = kept && !published;
    struct message m;
    while (take(s->c, &m)) {
        got[atoi(m.text) & 1]++;
        EQUAL(m.header.attempt, 2);
        EQUAL(m.header.peer, s->a->slot);
    }
    EQUAL(got[0], 1 - letters);
    EQUAL(got[1], 1);
    EQUAL(rb_load(&s->w->bus->dead_letters), letters);
    EQUAL(count_messages(s->ear), letters);
    EQUAL(rb_load(&s->w->bus->lost), 0);
    CHECK(s->b->reclaimed && !s->b->quarantined);
}
static void check_giving_held_back(struct stage *s) { check_giving_back(s, false); }
static void check_giving_kept_back(struct stage *s) { check_giving_back(s, true); }
static const struct scenario an_endpoint_gives_back = {
    "an endpoint gives back", prepare_giving_held_back, give_back_one, check_giving_held_back, true};
PROMISE(an_endpoint_gives_back)
static const struct scenario an_endpoint_gives_back_what_it_let_go = {
    "an endpoint gives back what it let go", prepare_giving_kept_back, give_back_one, check_giving_kept_back, true};
PROMISE(an_endpoint_gives_back_what_it_let_go)

/* A job is in hand that came for two groups of b; c is in both. */
static void prepare_two_groups(struct stage *s)
{
    const uint8_t *record;
    s->a = join_sized(s->w, "a", TINY);
    s->b = join_sized(s->w, "b", TINY);
    subscribe_group(s->b, "job", "g", 1);
    subscribe_group(s->b, "job", "h", 2);
    put_events(s->a, "job", 1);
    settle(s->w);
    open_real(s);
    s->c = join_sized(s->w, "c", TINY);
    subscribe_group(s->c, "job", "g", 1);
    subscribe_group(s->c, "job", "h", 2);
    CHECK(ep_peek(&s->e, &s->m.header, &record) == RB_OK);
    EQUAL(s->m.header.interests, 6);
    s->m.position = ep_take(&s->e, &s->m.header, SB_HELD_OPEN);
    ep_set_in_hand(&s->e, 1, 5);
}

static void give_back_for(struct stage *s, const uint32_t *bits, uint32_t count)
{
    struct ep_returned r[2] = {{0}};
    for (uint32_t i = 0; i < count; i++)
        r[i] = (struct ep_returned){.position = s->m.position, .header = &s->m.header, .bit = bits[i], .type = "job",
                                    .reason = "", .payload = "0", .size = 1};
    CHECK(ep_nack(&s->e, r, count, true) == RB_OK);
}

static void give_both_back(struct stage *s) { give_back_for(s, (const uint32_t[]){2, 4}, 2); }

/* For h it is done, for g it is given back after its time. */
static void give_one_back(struct stage *s)
{
    ep_postpone(&s->e, s->m.position);
    ep_settle(&s->e, s->m.position, 4);
    give_back_for(s, (const uint32_t[]){2}, 1);
}

/* Each group has it once, without the one for which it was done. */
static void check_two_groups(struct stage *s)
{
    uint32_t got[2] = {0, 0}, done = 0;
    struct message m;
    for (uint32_t i = 0; i < SB_HELD; i++)
        done |= (uint32_t)rb_load(&s->b->up->held[i].settled) >> 2 & 1;
    while (take(s->c, &m)) {
        EQUAL(m.header.attempt, 2);
        for (int g = 0; g < 2; g++)
            got[g] += m.header.interests >> (1 + g) & 1;
        settle(s->w);
    }
    EQUAL(got[0], 1);
    EQUAL(got[1], 1 - done);
    EQUAL(rb_load(&s->w->bus->lost) + rb_load(&s->w->bus->dead_letters), 0);
    CHECK(s->b->reclaimed && !s->b->quarantined);
}
static const struct scenario an_endpoint_gives_back_for_two_groups = {
    "an endpoint gives back for two groups", prepare_two_groups, give_both_back, check_two_groups, true};
PROMISE(an_endpoint_gives_back_for_two_groups)
static const struct scenario an_endpoint_gives_back_for_one_of_two_groups = {
    "an endpoint gives back for one of two groups", prepare_two_groups, give_one_back, check_two_groups, true};
PROMISE(an_endpoint_gives_back_for_one_of_two_groups)

static void prepare_serving(struct stage *s)
{
    s->a = join_sized(s->w, "a", TINY);
    s->b = join_sized(s->w, "b", TINY);
    handle(s->b, "ask");
    ask(s->a, "ask", "0");
    settle(s->w);
    open_real(s);
    s->c = join_sized(s->w, "c", TINY);
    handle(s->c, "ask");
}

static void serve_one(struct stage *s)
{
    struct sb_record h;
    const uint8_t *record;
    CHECK(ep_peek(&s->e, &h, &record) == RB_OK);
    ep_take(&s->e, &h, SB_HELD_DONE);
    push_real(s, SB_REPLY, "", TEXT, h.correlation, &h);
}

static void check_serving(struct stage *s)
{
    struct message m, r;
    if (take(s->c, &m))
        CHECK(answer(s->c, &m, "by another"));
    settle(s->w);
    CHECK(take_end(s->a, &r));
    CHECK(r.header.kind == SB_ERROR || strcmp(r.text, TEXT) == 0 || strcmp(r.text, "by another") == 0);
    CHECK(!take_end(s->a, &r));
    EQUAL(rb_load(&s->w->bus->orphans), 0);
    CHECK(s->b->reclaimed && !s->b->quarantined);
}
static const struct scenario an_endpoint_serves = {
    "an endpoint serves", prepare_serving, serve_one, check_serving, true};
PROMISE(an_endpoint_serves)

static void prepare_taking_urgent(struct stage *s)
{
    s->a = join_sized(s->w, "a", TINY);
    s->b = join_sized(s->w, "b", TINY);
    subscribe(s->b, "x");
    put_events(s->a, "x", 1);
    put_urgent(s->a, "x", "0");
    put_urgent(s->a, "x", "1");
    settle(s->w);
    open_real(s);
}

static void take_urgent_ones(struct stage *s)
{
    struct sb_record h;
    const uint8_t *record;
    for (int i = 0; i < 2; i++) {
        CHECK(ep_peek(&s->e, &h, &record) == RB_OK);
        CHECK(h.flags & SB_URGENT);
        ep_take(&s->e, &h, SB_HELD_DONE);
    }
}

static void check_taking_urgent(struct stage *s)
{
    uint64_t each = rb_load(&s->b->down->incoming[SB_URGENT_EVENTS].head) / 2;
    uint64_t taken = rb_load(&s->b->up->incoming[SB_URGENT_EVENTS].taken) / each;
    EQUAL(rb_load(&s->b->down->lost), 3 - taken);
    CHECK(s->b->reclaimed && !s->b->quarantined);
}
static const struct scenario an_endpoint_takes_urgent_events = {
    "an endpoint takes urgent events", prepare_taking_urgent, take_urgent_ones, check_taking_urgent, true};
PROMISE(an_endpoint_takes_urgent_events)

static void take_with_a_limit(struct stage *s)
{
    struct sb_record h;
    const uint8_t *record;
    CHECK(ep_peek(&s->e, &h, &record) == RB_OK);
    ep_take(&s->e, &h, SB_HELD_DONE);
    for (int i = 0; i < 2; i++) {
        uint32_t place = ep_begin_limit(&s->e, &h, "ask", NULL, 1000 * SECOND, s->w->now);
        EQUAL(place, 0);
        if (i == 0)
            ep_end_limit(&s->e, place, s->w->now);
    }
}

static void check_limited(struct stage *s)
{
    struct message m, r;
    if (take(s->c, &m))
        CHECK(answer(s->c, &m, "by another"));
    settle(s->w);
    CHECK(take_end(s->a, &r) && !take_end(s->a, &m));
    CHECK(r.header.kind == SB_REPLY || fault_of(&r).code == SB_FAULT_ENDPOINT_DIED);
    CHECK(s->b->reclaimed && !s->b->quarantined);
}
static const struct scenario a_handler_has_a_limit = {
    "a handler has a limit", prepare_serving, take_with_a_limit, check_limited, true};
PROMISE(a_handler_has_a_limit)

static void prepare_subscribing(struct stage *s)
{
    s->a = join_sized(s->w, "a", TINY);
    s->b = join_sized(s->w, "b", TINY);
    open_real(s);
}

/* Its log is not in the arena: its state is put back here instead. */
static void subscribe_one(struct stage *s)
{
    struct ep_interest_log log = {s->b->log, s->b->log_size};
    rb_store(&s->b->log->bytes, 0);
    struct sb_interest e = {.op = SB_INTEREST_ADD, .role = SB_ROLE_SUBSCRIBE, .id = 9, .pattern_length = 1};
    CHECK(ep_append_interest(&log, &e, "x", "", ""));
    ep_commit_interests(&s->e, 1);
    ep_set_state(&s->e, SB_UP_CLOSING);
}

static void check_subscribing(struct stage *s)
{
    CHECK(s->b->reclaimed && !s->b->quarantined);
    put_events(s->a, "x", 1);
    settle(s->w);
    EQUAL(rb_load(&s->w->bus->unrouted), 1);
    EQUAL(s->w->f->routes.pattern_count, 0);
}
static const struct scenario an_endpoint_subscribes_and_closes = {
    "an endpoint subscribes and closes", prepare_subscribing, subscribe_one, check_subscribing, true};
PROMISE(an_endpoint_subscribes_and_closes)

static void prepare_attaching(struct stage *s)
{
    s->a = join_sized(s->w, "a", TINY);
    s->b = make_peer(s->w, "b", TINY);
    rb_store(&s->b->up->state, SB_UP_ATTACHING);
    settle(s->w);
    CHECK(ep_fork_watch());
}

static void attach_one(struct stage *s)
{
    open_real(s);
    ep_set_state(&s->e, SB_UP_ATTACHED);
}

static void check_attaching(struct stage *s)
{
    CHECK(s->b->reclaimed && !s->b->quarantined);
    struct peer *again = join_sized(s->w, "b", TINY);
    EQUAL(again->slot, s->b->slot);
    shm_unlink(again->log_name);
}
static const struct scenario an_endpoint_attaches = {
    "an endpoint attaches", prepare_attaching, attach_one, check_attaching, true};
PROMISE(an_endpoint_attaches)

static void prepare_arming(struct stage *s)
{
    s->a = join_sized(s->w, "a", TINY);
    s->b = join_sized(s->w, "b", TINY);
    subscribe(s->a, "x");
    subscribe(s->b, "x");
    open_real(s);
    CHECK(ep_event_open(&s->e) == 0);
    pass_event(s->b, s->e.event_fd);
    settle(s->w);
}

static void arm_twice(struct stage *s)
{
    CHECK(!ep_event_arm(&s->e, SB_EVENT_DATA));
    ep_event_rest(&s->e);
}

static void check_arming(struct stage *s)
{
    CHECK(s->b->reclaimed && !s->b->quarantined);
    CHECK(publish(s->a, "x", "goes on"));
    settle(s->w);
    GETS(s->a, "goes on");
}
static const struct scenario an_endpoint_arms_its_eventfd = {
    "an endpoint arms its eventfd", prepare_arming, arm_twice, check_arming, true};
PROMISE(an_endpoint_arms_its_eventfd)
