/* The dispatcher is killed while keys of a group change hands (killed.h). */
#include "killed.h"

/* What is sent to `b`'s keys while it joins, and before. */
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
