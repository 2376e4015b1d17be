/* The dispatcher is killed while a payload in a pool waits for who looks: kept, for who comes late, in a mailbox, or
 * for space in a ring. Its block comes back when it is not there any more and all have looked, and never before
 * (killed.h). */
#include "killed.h"
#include "pooled.h"

#include "shmbus/endpoint/native/mailbox.h"

#undef ADOPTIONS
#define ADOPTIONS 0u /* they are struck: to sweep them, too, takes half a minute */

#define RETAIN_BYTES (111 * SB_CELL_BYTES) /* what a segment here takes */

/* b sends from its pool, and a has one, too, in which it says what it looks at. */
static void prepare_values(struct stage *s, uint64_t history)
{
    reserve_segments();
    s->w->bus->history = history;
    s->w->bus->retain_bytes = RETAIN_BYTES;
    s->w->bus->backlog_bytes = 2048;
    s->w->f->values.chunk_cells = sb_chunk_cells(RETAIN_BYTES);
    s->a = join_sized(s->w, "a", (struct size){.data_in = 1024, .data_out = 1024, .requests = 1});
    s->b = join_sized(s->w, "b", TINY);
    make_pool(s->a), make_pool(s->b);
}

static void keep_bytes(struct stage *s, const char *type, uint32_t index, uint64_t bytes)
{
    struct sb_block block = block_at(s->b, index, bytes);
    CHECK(put_block(s->b, SB_DATA, (struct sb_record){.kind = SB_EVENT, .flags = SB_RAW | SB_RETAIN}, type, &block));
    flush(s->b);
}

/* Which of b's blocks are in use, by their places. */
static void has_in_use(struct stage *s, const char *wanted)
{
    char found[64] = "";
    for (uint32_t i = 0; i < POOL_PAGES; i++) {
        uint64_t use = rb_load(&s->b->pool->blocks[i].use);
        if (use && rb_load(&s->b->down->returned[i]) != use)
            snprintf(found + strlen(found), 8, "%x", i);
    }
    if (strcmp(found, wanted)) {
        fprintf(stderr, "in use: %s, not %s\n", found, wanted);
        exit(1);
    }
}

static void send_block(struct stage *s, const char *type, uint32_t index)
{
    struct sb_block block = block_at(s->b, index, 10);
    CHECK(put_block(s->b, SB_DATA, (struct sb_record){.kind = SB_EVENT, .flags = SB_RAW}, type, &block));
    flush(s->b);
}

static void clear(struct stage *s, const char *type)
{
    CHECK(retain(s->b, type, NULL));
    settle(s->w);
}

/* Nothing is kept, nobody looks, and nobody was taken for a forger. */
static void has_all_back(struct stage *s)
{
    has_in_use(s, "");
    EQUAL(rb_load(&s->w->bus->retained_bytes), 0);
    EQUAL(rb_load(&s->w->bus->violations), 0);
    adopt(s->w, false); /* nor does anybody find more there */
    settle(s->w);
    has_in_use(s, "");
}

/* p looks at all that has come to it, in the blocks of these places, and they stay meanwhile. */
static void looks_at(struct stage *s, struct peer *p, const char *wanted)
{
    struct message m;
    char found[64] = "";
    for (; take_shared(p, &m); settle(s->w))
        if (m.header.flags & SB_POOLED) {
            struct sb_block block = block_of(&m);
            CHECK(!is_returned(s->b, &block));
            snprintf(found + strlen(found), 8, "%x", block.index);
        }
    if (strcmp(found, wanted)) {
        fprintf(stderr, "looked at %s, not %s\n", found, wanted);
        exit(1);
    }
}

static void prepare_keeping_blocks(struct stage *s)
{
    prepare_values(s, 2);
    subscribe(s->a, "x");
    keep_bytes(s, "x", 0, 10);
    settle(s->w);
    keep_bytes(s, "x", 1, 10), keep_bytes(s, "x", 2, 10); /* the second replaces the first */
}

static void check_keeping_blocks(struct stage *s)
{
    looks_at(s, s->a, "012");
    has_in_use(s, "012");
    look_at_none(s->a);
    has_in_use(s, "12");
    EQUAL(rb_load(&s->w->bus->retained_bytes), 2 * (10 + SB_CELL_BYTES));
    clear(s, "x");
    look_at_none(s->a);
    has_all_back(s);
}
static const struct scenario values_in_pools_are_kept = {
    "values in pools are kept", prepare_keeping_blocks, forward, check_keeping_blocks, false};
PROMISE(values_in_pools_are_kept)

/* Of so large ones two may be kept. */
static void prepare_evicting_blocks(struct stage *s)
{
    prepare_values(s, 2);
    keep_bytes(s, "x", 0, 3 * DP_PAGE), keep_bytes(s, "y", 4, 3 * DP_PAGE);
    settle(s->w);
    keep_bytes(s, "z", 8, 3 * DP_PAGE);
}

static void check_evicting_blocks(struct stage *s)
{
    has_in_use(s, "48");
    CHECK(rb_load(&s->w->bus->evicted) >= 1 && rb_load(&s->w->bus->evicted) <= 2); /* counted first */
    clear(s, "y"), clear(s, "z");
    has_all_back(s);
}
static const struct scenario values_in_pools_go_for_want_of_space = {
    "values in pools go for want of space", prepare_evicting_blocks, forward, check_evicting_blocks, false};
PROMISE(values_in_pools_go_for_want_of_space)

/* b waits for a piece of its pool that has place once what was replaced, and then the oldest, have gone. */
static void prepare_yielding(struct stage *s)
{
    prepare_values(s, 2);
    keep_bytes(s, "x", 3, 10), keep_bytes(s, "x", 7, 10), keep_bytes(s, "y", 11, 10);
    settle(s->w);
    rb_store_seq(&s->b->up->pool_need, 11);
}

static void wait_a_while(struct stage *s) { advance(s->w, 100 * MILLISECOND); }

static void check_yielding(struct stage *s)
{
    advance(s->w, SECOND);
    has_in_use(s, "b");
    CHECK(rb_load(&s->w->bus->evicted) >= 2 && rb_load(&s->w->bus->evicted) <= 3);
    rb_store_seq(&s->b->up->pool_need, 0);
    clear(s, "y");
    has_all_back(s);
}
static const struct scenario what_is_kept_yields_to_who_needs_its_memory = {
    "what is kept yields to who needs its memory", prepare_yielding, wait_a_while, check_yielding, false};
PROMISE(what_is_kept_yields_to_who_needs_its_memory)

/* What b kept goes, as far as that must, for c, who asks for pages when b has gone. */
static void prepare_left_behind(struct stage *s)
{
    s->w->bus->pool_total_bytes = (POOL_PAGES + 4) * DP_PAGE;
    prepare_values(s, 2);
    keep_bytes(s, "x", 0, 10), keep_bytes(s, "x", 1, 10), keep_bytes(s, "y", 2, 10);
    s->c = join_sized(s->w, "c", TINY);
    b_dies(s);
    EQUAL(rb_load(&s->w->bus->pools_granted), (POOL_PAGES + 3) * DP_PAGE);
    s->c->up->pool_limit = POOL_PAGES * DP_PAGE;
    EQUAL(asks(s->c, 1, 5), 1);
    EQUAL(rb_load(&s->w->bus->evicted), 0);
    rb_store_release(&s->c->up->pool_asked, sb_pool_question(2, 3)); /* which it needs, and does not ask for again */
    raise_ready(s->c);
}

static void check_left_behind(struct stage *s)
{
    EQUAL(rb_load(&s->c->down->pool_granted), sb_pool_question(2, 3));
    EQUAL(rb_load(&s->w->bus->retained), 1); /* the newest */
    CHECK(rb_load(&s->w->bus->evicted) >= 2 && rb_load(&s->w->bus->evicted) <= 3);
    EQUAL(rb_load(&s->w->bus->pools_left), 1);
    EQUAL(asks(s->c, 3, 5), 3);
    EQUAL(rb_load(&s->w->bus->retained), 1);
    EQUAL(asks(s->c, 4, 4), 4);
    EQUAL(rb_load(&s->w->bus->retained), 0);
    EQUAL(rb_load(&s->w->bus->pools_left), 0);
    EQUAL(rb_load(&s->w->bus->pools_granted), (POOL_PAGES + 4) * DP_PAGE);
}
static const struct scenario what_the_dead_left_goes_for_who_grows = {
    "what the dead left goes for who grows", prepare_left_behind, forward, check_left_behind, false};
PROMISE(what_the_dead_left_goes_for_who_grows)

/* a comes late: to what its ring takes, or to more. */
static void prepare_recalling(struct stage *s, uint32_t count)
{
    struct sb_interest late = {.op = SB_INTEREST_ADD, .role = SB_ROLE_SUBSCRIBE, .history = 100};
    prepare_values(s, 100);
    for (uint32_t i = 0; i < count; i++)
        keep_bytes(s, "x", i, 10);
    settle(s->w);
    log_interest(s->a, late, "x", "");
    tell_interests(s->a);
}

static void prepare_few(struct stage *s) { prepare_recalling(s, 3); }
static void prepare_many(struct stage *s) { prepare_recalling(s, 11); }

static void check_few(struct stage *s)
{
    clear(s, "x"); /* what it is to have, it has */
    has_in_use(s, "012");
    looks_at(s, s->a, "012");
    has_in_use(s, "012");
    look_at_none(s->a);
    has_all_back(s);
}
static const struct scenario who_comes_late_has_blocks_of_what_is_kept = {
    "who comes late has blocks of what is kept", prepare_few, forward, check_few, false};
PROMISE(who_comes_late_has_blocks_of_what_is_kept)

static void check_many(struct stage *s)
{
    clear(s, "x");
    has_in_use(s, "0123456789a");
    looks_at(s, s->a, "0123456789a");
    has_in_use(s, "0123456789a");
    look_at_none(s->a);
    has_all_back(s);
}
static const struct scenario who_catches_up_has_blocks_of_what_is_kept = {
    "who catches up has blocks of what is kept", prepare_many, forward, check_many, false};
PROMISE(who_catches_up_has_blocks_of_what_is_kept)

/* The rest leaves its backlog, while a looks at what came. */
static void prepare_leaving(struct stage *s)
{
    struct message m;
    prepare_many(s);
    settle(s->w);
    clear(s, "x");
    for (int i = 0; i < 6; i++)
        CHECK(take_shared(s->a, &m));
}

static void check_leaving(struct stage *s)
{
    has_in_use(s, "0123456789a");
    looks_at(s, s->a, "6789a");
    look_at_none(s->a);
    has_all_back(s);
}
static const struct scenario who_has_caught_up_has_blocks = {
    "who has caught up has blocks", prepare_leaving, forward, check_leaving, false};
PROMISE(who_has_caught_up_has_blocks)

/* Mailboxes: what a would do is done to its words, of which it enters a share itself. */
static struct ep_endpoint mail_reader;

static void prepare_pooled_mail(struct stage *s, uint32_t history)
{
    struct sb_interest wish = {.op = SB_INTEREST_ADD, .role = SB_ROLE_SUBSCRIBE, .flags = SB_LATEST, .depth = 4,
                               .history = history};
    uint64_t id = log_interest(s->a, wish, "x.*", "");
    mail_reader = (struct ep_endpoint){.up = s->a->up, .down = s->a->down};
    CHECK(ep_begin_mailbox(&mail_reader, 0, id, EP_MAIL_TAKEN));
    tell_interests(s->a);
}

/* a takes all up to this number, of which it goes on looking at that one, in this block. */
static void take_mail_up_to(struct stage *s, uint64_t number, uint32_t index)
{
    uint64_t whom = rb_load(&s->a->down->mailbox[0]);
    struct sb_block block = block_at(s->b, index, 10);
    rb_store(&s->a->up->had[0].whom, whom);
    enter(s->a, sb_share_of_mail(0, whom, number), &block);
    rb_store_release(&s->a->up->had[0].taken, number);
    rb_store_release(&s->a->up->shares_ended, rb_load(&s->a->up->shares_ended) + 1);
    raise_ready(s->a);
}

static void prepare_mailing(struct stage *s)
{
    prepare_values(s, 2);
    prepare_pooled_mail(s, 0);
    send_block(s, "x.a", 0);
    settle(s->w);
    take_mail_up_to(s, 1, 0);
    settle(s->w);
    send_block(s, "x.a", 1), send_block(s, "x.b", 2);
    settle(s->w);
    send_block(s, "x.a", 3);
}

static void check_mailing(struct stage *s)
{
    has_in_use(s, "023"); /* of which a looks at the first */
    look_no_more(s->a, 0);
    settle(s->w);
    has_in_use(s, "23");
    take_mail_up_to(s, 4, 3);
    settle(s->w);
    has_in_use(s, "3");
    look_at_none(s->a);
    has_all_back(s);
}
static const struct scenario a_mailbox_gets_blocks = {
    "a mailbox gets blocks", prepare_mailing, forward, check_mailing, false};
PROMISE(a_mailbox_gets_blocks)

static void prepare_mail_ends(struct stage *s)
{
    prepare_mailing(s);
    settle(s->w);
    uint64_t id = mail_reader.mailboxes[0]->interest;
    log_interest(s->a, (struct sb_interest){.op = SB_INTEREST_REMOVE, .id = id}, "", "");
    tell_interests(s->a);
}

static void check_mail_ends(struct stage *s)
{
    has_in_use(s, "0"); /* at which a looks still */
    look_at_none(s->a);
    has_all_back(s);
}
static const struct scenario a_mailbox_with_blocks_is_closed = {
    "a mailbox with blocks is closed", prepare_mail_ends, forward, check_mail_ends, false};
PROMISE(a_mailbox_with_blocks_is_closed)

static void prepare_mail_yields(struct stage *s)
{
    prepare_mailing(s);
    settle(s->w);
    rb_store_seq(&s->b->up->pool_need, POOL_PAGES); /* it waits for all */
}

static void check_mail_yields(struct stage *s)
{
    advance(s->w, SECOND);
    has_in_use(s, "0");
    rb_store_seq(&s->b->up->pool_need, 0);
    look_at_none(s->a);
    has_all_back(s);
}
static const struct scenario what_a_mailbox_has_yields = {
    "what a mailbox has yields", prepare_mail_yields, wait_a_while, check_mail_yields, false};
PROMISE(what_a_mailbox_has_yields)

static void prepare_filling(struct stage *s)
{
    prepare_values(s, 2);
    keep_bytes(s, "x.a", 0, 10), keep_bytes(s, "x.a", 1, 10), keep_bytes(s, "x.b", 2, 10);
    settle(s->w);
    prepare_pooled_mail(s, 2);
}

static void check_filling(struct stage *s)
{
    has_in_use(s, "012");
    keep_bytes(s, "z", 4, RETAIN_BYTES - 2 * SB_CELL_BYTES); /* and nothing beside it */
    settle(s->w);
    has_in_use(s, "124");
    take_mail_up_to(s, 2, 2);
    settle(s->w);
    has_in_use(s, "24");
    look_at_none(s->a);
    clear(s, "z");
    has_all_back(s);
}
static const struct scenario a_mailbox_is_made_with_blocks_of_what_was_kept = {
    "a mailbox is made with blocks of what was kept", prepare_filling, forward, check_filling, false};
PROMISE(a_mailbox_is_made_with_blocks_of_what_was_kept)

/* A fan-out is under way: c has had it and let go, and a, whose ring was full, is to have it. */
static void prepare_owed(struct stage *s)
{
    struct message m;
    prepare_values(s, 2);
    s->c = join_sized(s->w, "c", TINY);
    s->d = join_sized(s->w, "d", TINY);
    make_pool(s->c);
    subscribe(s->a, "fill");
    subscribe(s->a, "x");
    subscribe(s->c, "x");
    put_events(s->d, "fill", 20);
    settle(s->w);
    send_block(s, "x", 0), send_block(s, "x", 1);
    settle(s->w);
    CHECK(rb_load(&s->b->down->todo.from) != SB_NOWHERE);
    looks_at(s, s->c, "01");
    look_at_none(s->c);
    has_in_use(s, "01");
    while (take(s->a, &m))
        ;
}

static void check_owed(struct stage *s)
{
    looks_at(s, s->a, "01");
    EQUAL(rb_load(&s->b->down->todo.from), SB_NOWHERE);
    EQUAL(rb_load(&s->w->bus->lost), 0);
    has_in_use(s, "01");
    look_at_none(s->a);
    has_all_back(s);
}
static const struct scenario a_fan_out_of_blocks_goes_on = {
    "a fan-out of blocks goes on", prepare_owed, forward, check_owed, false};
PROMISE(a_fan_out_of_blocks_goes_on)
