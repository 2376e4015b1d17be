/* Somebody is killed while payloads in pools are sent, shared or given back: blocks come back when all have looked, and
 * never before (killed.h). */
#define ARENA_SEGMENT_BYTES 28672u /* the tables of a pool */
#define ARENA_SEGMENTS 4
#include "killed.h"
#include "pooled.h"

static const struct sb_record event_header = {.kind = SB_EVENT, .flags = SB_RAW};
static const struct sb_record send_header = {.kind = SB_SEND, .flags = SB_RAW};

static void put_blocks(struct peer *p, struct sb_record h, const char *type, uint32_t first, uint32_t count)
{
    for (uint32_t i = first; i < first + count; i++) {
        struct sb_block block = block_at(p, i, i + 1);
        CHECK(put_block(p, SB_DATA, h, type, &block));
    }
    flush(p);
}

/* Who takes a message with a block looks at it, and finds what was sent: it is not returned. */
static uint32_t looks_at_all(struct peer *p, struct peer *sender)
{
    struct message m;
    uint32_t count = 0;
    for (; take_shared(p, &m); count++) {
        struct sb_block block = block_of(&m);
        EQUAL(block.length, block.index + 1u);
        CHECK(!is_returned(sender, &block));
    }
    return count;
}

/* c sends two events to a and b, of which a looks at an earlier one still, and b has done so; and one to nobody. */
static void prepare_sharing(struct stage *s)
{
    reserve_segments();
    s->a = join_sized(s->w, "a", TINY);
    s->b = join_sized(s->w, "b", TINY);
    s->c = join_sized(s->w, "c", TINY);
    subscribe(s->a, "x");
    subscribe(s->b, "x");
    make_pool(s->a), make_pool(s->b), make_pool(s->c);
    put_blocks(s->c, event_header, "x", 0, 1);
    settle(s->w);
    EQUAL(looks_at_all(s->a, s->c) + looks_at_all(s->b, s->c), 2);
    look_no_more(s->b, 0);
    put_blocks(s->c, event_header, "x", 1, 2);
    put_blocks(s->c, event_header, "nobody", 3, 1);
    rb_store_release(&s->c->up->pool_asked, sb_pool_question(2, 4));
}

static void check_sharing(struct stage *s)
{
    EQUAL(in_use(s->c), 3);
    EQUAL(looks_at_all(s->a, s->c), 2);
    look_at_none(s->a);
    EQUAL(in_use(s->c), 2);
    EQUAL(looks_at_all(s->b, s->c), 2);
    look_at_none(s->b);
    EQUAL(in_use(s->c), 0);
    EQUAL(rb_load(&s->c->down->pool_granted), sb_pool_question(2, 4));
    EQUAL(rb_load(&s->w->bus->pools_granted), (2 * POOL_PAGES + 4) * DP_PAGE);
    EQUAL(rb_load(&s->w->bus->violations), 0);
}
static const struct scenario blocks_are_shared = {"blocks are shared", prepare_sharing, forward, check_sharing, false};
PROMISE(blocks_are_shared)

/* b gives back a command, which c may have; a, who sent it, has looked at nothing. */
static void prepare_returning(struct stage *s)
{
    reserve_segments();
    s->a = join_sized(s->w, "a", TINY);
    s->b = join_sized(s->w, "b", TINY);
    s->c = join_sized(s->w, "c", TINY);
    handle(s->b, "do");
    make_pool(s->a), make_pool(s->b), make_pool(s->c);
    put_blocks(s->a, send_header, "do", 0, 1);
    settle(s->w);
    CHECK(begin_shared(s->b, &s->m));
    handle(s->c, "do");
    return_block(s->b, &s->m, false);
}

static void check_returning(struct stage *s)
{
    EQUAL(in_use(s->a), 1);
    EQUAL(looks_at_all(s->c, s->a), 1);
    look_at_none(s->c);
    EQUAL(in_use(s->a), 0);
    EQUAL(rb_load(&s->w->bus->violations), 0);
}
static const struct scenario a_block_is_given_back = {
    "a block is given back", prepare_returning, forward, check_returning, false};
PROMISE(a_block_is_given_back)

/* a has died: b looks at one of its blocks, another was not taken by c, who has died, too. */
static void prepare_orphans(struct stage *s)
{
    reserve_segments();
    s->a = join_sized(s->w, "a", TINY);
    s->b = join_sized(s->w, "b", TINY);
    s->c = join_sized(s->w, "c", TINY);
    subscribe(s->b, "x");
    make_pool(s->a), make_pool(s->b);
    put_blocks(s->a, event_header, "x", 0, 1);
    settle(s->w);
    EQUAL(looks_at_all(s->b, s->a), 1);
    subscribe(s->c, "y");
    put_blocks(s->a, event_header, "y", 1, 1);
    settle(s->w);
    struct peer *dead[] = {s->a, s->c};
    for (int i = 0; i < 2; i++) {
        struct dp_order order = {.kind = DP_DEAD, .slot = dead[i]->slot, .generation = dead[i]->generation,
                                 .reason = SB_REASON_KILLED};
        CHECK(dp_give_order(&s->w->f->orders, &order));
    }
}

static void check_orphans(struct stage *s)
{
    if (rb_load(&s->w->f->rows[s->a->slot].state) == SB_ROW_LIVE)
        die(s->a, SB_REASON_KILLED); /* the order died, too */
    if (rb_load(&s->w->f->rows[s->c->slot].state) == SB_ROW_LIVE)
        die(s->c, SB_REASON_KILLED);
    EQUAL(rb_load(&s->w->bus->pools_left), 1);
    look_at_none(s->b);
    EQUAL(rb_load(&s->w->bus->pools_left), 0);
}
static const struct scenario a_pool_is_left = {"a pool is left", prepare_orphans, forward, check_orphans, false};
PROMISE(a_pool_is_left)

/* b has taken nothing for long of what a, who waits for its pool, has sent it; it has entered the first, and not taken
 * it. */
static void prepare_revoking(struct stage *s)
{
    reserve_segments();
    s->a = join_sized(s->w, "a", TINY);
    s->b = join_sized(s->w, "b", TINY);
    subscribe(s->b, "x");
    make_pool(s->a), make_pool(s->b);
    put_blocks(s->a, event_header, "x", 0, 3);
    settle(s->w);
    CHECK(enter_next(s->b));
    rb_store_seq(&s->a->up->pool_need, 1);
    advance(s->w, 1000 * MILLISECOND);
}

static void wait_long(struct stage *s) { advance(s->w, SECOND); }

/* What is lost is counted; of what was just being lost, perhaps twice. */
static void check_revoking(struct stage *s)
{
    advance(s->w, 3 * SECOND); /* a successor waits anew */
    EQUAL(in_use(s->a), 1);
    uint64_t lost = rb_load(&s->b->down->lost_by[SB_LOSS_SLOW]);
    CHECK(lost == 3 || lost == 4);
    uint32_t count = 0;
    for (struct message m; take(s->b, &m); count++)
        EQUAL(m.header.interests, 0);
    EQUAL(count, 3);
    look_at_none(s->b);
    EQUAL(in_use(s->a), 0);
    put_blocks(s->a, event_header, "x", 3, 1);
    settle(s->w);
    EQUAL(looks_at_all(s->b, s->a), 1);
    EQUAL(rb_load(&s->w->bus->violations), 0);
}
static const struct scenario events_are_revoked = {
    "events are revoked", prepare_revoking, wait_long, check_revoking, false};
PROMISE(events_are_revoked)

/* Nobody waits any more for the requests that b has not taken, the first of which it has entered. */
static void prepare_over(struct stage *s)
{
    reserve_segments();
    s->a = join_sized(s->w, "a", TINY);
    s->b = join_sized(s->w, "b", TINY);
    handle(s->b, "do");
    make_pool(s->a), make_pool(s->b);
    for (uint32_t i = 0; i < 2; i++)
        ask_with_block(s->a, "do", i, s->w->f->now + 10 * MILLISECOND);
    settle(s->w);
    CHECK(enter_next(s->b));
    rb_store_seq(&s->a->up->pool_need, 1);
}

static void check_over(struct stage *s)
{
    struct message m;
    advance(s->w, SECOND);
    EQUAL(in_use(s->a), 1);
    EQUAL(rb_load(&s->b->down->lost), 0);
    CHECK(take(s->b, &m) && !m.header.interests);
    CHECK(take(s->b, &m) && !m.header.interests);
    look_at_none(s->b);
    EQUAL(in_use(s->a), 0);
    EQUAL(rb_load(&s->w->bus->violations), 0);
}
static const struct scenario requests_that_are_over_are_revoked = {
    "requests that are over are revoked", prepare_over, wait_long, check_over, false};
PROMISE(requests_that_are_over_are_revoked)

/* Likewise what waits in a backlog for b, which came late, and whose ring is full of what was kept. */
static void prepare_revoking_late(struct stage *s)
{
    struct sb_interest late = {.op = SB_INTEREST_ADD, .role = SB_ROLE_SUBSCRIBE, .history = 9};
    char text[120];
    memset(text, 'v', sizeof text - 1);
    text[sizeof text - 1] = 0;
    reserve_segments();
    s->w->bus->backlog_bytes = 2048;
    s->w->bus->history = 9;
    s->a = join_sized(s->w, "a", TINY);
    s->b = join_sized(s->w, "b", (struct size){.data_in = 1024, .data_out = 1024, .requests = 1});
    make_pool(s->a);
    for (int i = 0; i < 6; i++)
        retain(s->a, "x", text);
    settle(s->w);
    commit_interest(s->b, late, "x", "");
    put_blocks(s->a, event_header, "x", 0, 2);
    settle(s->w);
    EQUAL(in_use(s->a), 2);
    rb_store_seq(&s->a->up->pool_need, 1);
    advance(s->w, 1000 * MILLISECOND);
}

static void check_revoking_late(struct stage *s)
{
    struct late_ear late = {.peer = s->b, .id = 1};
    struct message m;
    uint32_t count = 0;
    advance(s->w, 3 * SECOND); /* a successor waits anew */
    EQUAL(in_use(s->a), 0);
    uint64_t lost = rb_load(&s->b->down->lost_by[SB_LOSS_SLOW]);
    CHECK(lost == 2 || lost == 3);
    for (bool more = true; more; settle(s->w))
        for (more = false; hear(&late, &m); more = true, count++)
            EQUAL(m.text[0], 'v');
    EQUAL(count, 6);
    CHECK(late.live);
    EQUAL(rb_load(&s->w->bus->violations), 0);
}
static const struct scenario events_are_revoked_in_a_backlog = {
    "events are revoked in a backlog", prepare_revoking_late, wait_long, check_revoking_late, false};
PROMISE(events_are_revoked_in_a_backlog)

/* Of all that pools may have together a has most; c asks for more than is left. */
static void prepare_shortage(struct stage *s)
{
    reserve_segments();
    s->w->bus->pool_total_bytes = (POOL_PAGES + 4) * DP_PAGE;
    s->a = join_sized(s->w, "a", TINY);
    s->c = join_sized(s->w, "c", TINY);
    make_pool(s->a);
    s->c->up->pool_limit = POOL_PAGES * DP_PAGE;
    settle(s->w);
    rb_store_release(&s->c->up->pool_asked, sb_pool_question(1, 8));
    raise_ready(s->c);
}

static void check_shortage(struct stage *s)
{
    EQUAL(rb_load(&s->w->bus->pools_short), 4 * DP_PAGE);
    rb_store_release(&s->a->up->pool_asked, sb_pool_question(2, 2));
    raise_ready(s->a);
    settle(s->w);
    EQUAL(rb_load(&s->c->down->pool_granted), sb_pool_question(1, 8));
    EQUAL(rb_load(&s->w->bus->pools_granted), 10 * DP_PAGE);
    EQUAL(rb_load(&s->w->bus->pools_short), 0);
}
static const struct scenario pools_fall_short = {"pools fall short", prepare_shortage, forward, check_shortage, false};
PROMISE(pools_fall_short)
