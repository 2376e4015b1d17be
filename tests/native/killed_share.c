/* An endpoint is killed while it makes and uses its pool, or looks at blocks of others (killed.h). Its calls write
 * files, so that only the fail points are tried, each from the beginning. */
#define SEGMENTS_IN_FILES
#include "killed.h"
#include "pooled.h"

#include "shmbus/endpoint/native/mailbox.h"

#define PAGES 3u /* of the large payload that b sends */

static const char *const said[] = {"first", "second", "third"};

static bool has_pool(const struct peer *p)
{
    char name[160], path[176];
    dp_pool_name(p->world->f, p->slot, p->generation, name);
    snprintf(path, sizeof path, "/dev/shm%s", name);
    return access(path, F_OK) == 0;
}

/* It has left nothing, and nothing of what it had is counted. */
static void b_is_gone(struct stage *s)
{
    CHECK(s->b->reclaimed && !s->b->quarantined);
    CHECK(!has_pool(s->b));
    EQUAL(rb_load(&s->w->bus->pools_left), 0);
    EQUAL(rb_load(&s->w->bus->pools_granted), (s->c ? 2 : 1) * POOL_PAGES * DP_PAGE); /* of a and c */
    EQUAL(rb_load(&s->w->bus->violations), 0);
}

static void prepare_making(struct stage *s)
{
    s->a = join_sized(s->w, "a", TINY);
    s->b = join_sized(s->w, "b", TINY);
    subscribe(s->a, "x");
    make_pool(s->a);
    s->b->up->pool_limit = POOL_PAGES * EP_PAGE;
    s->b->up->loans = 1;
    open_real(s);
}

static void make_and_ask(struct stage *s)
{
    CHECK(ep_make_pool(&s->e) == 0);
    CHECK(!ep_may_reserve(&s->e, PAGES));
}

static void check_making(struct stage *s)
{
    b_is_gone(s);
    struct peer *again = s->b = join_sized(s->w, "b", TINY); /* in the same place */
    make_pool(again);
    publish_block(again, "x", 0, said[0]);
    settle(s->w);
    struct message m;
    CHECK(take_shared(s->a, &m));
    EQUAL(in_use(again), 1);
    look_at_none(s->a);
    EQUAL(in_use(again), 0);
    shm_unlink(again->log_name);
}
static const struct scenario an_endpoint_makes_a_pool = {
    "an endpoint makes a pool", prepare_making, make_and_ask, check_making, true};
PROMISE(an_endpoint_makes_a_pool)

static void prepare_sending(struct stage *s)
{
    prepare_making(s);
    make_and_ask(s);
    settle(s->w);
    CHECK(ep_may_reserve(&s->e, PAGES));
}

static uint32_t take_pages(struct ep_endpoint *e)
{
    uint32_t index;
    enum ep_block_status status = ep_take_block(e, PAGES * EP_PAGE, &index);
    if (status == EP_BLOCK_GROW) {
        CHECK(ep_reserve_pages(e) == 0);
        status = ep_take_block(e, PAGES * EP_PAGE, &index);
    }
    EQUAL(status, EP_BLOCK_TAKEN);
    return index;
}

static void send_one(struct stage *s)
{
    struct sb_block block;
    bool armed;
    struct ep_message m = {.kind = SB_EVENT, .flags = SB_RAW | SB_POOLED, .type = "x", .type_length = 1,
                           .payload = &block, .size = sizeof block};
    uint32_t index = take_pages(&s->e);
    memset(ep_block_memory(&s->e, index), 'x', PAGES * EP_PAGE);
    ep_describe_block(&s->e, index, 0, PAGES * EP_PAGE, &block);
    CHECK(ep_push(&s->e, &m, rb_now(), NULL, &armed) == RB_OK);
    ep_let_block(&s->e, index);
}

/* a gets the payload whole or not at all, and can look as long as it wants to. */
static void check_sending(struct stage *s)
{
    struct message m;
    bool got = take_shared(s->a, &m);
    EQUAL(got, rb_load(&s->b->up->outgoing[SB_DATA].head) > 0);
    if (got) {
        struct sb_block block = block_of(&m);
        EQUAL(block.length, PAGES * EP_PAGE);
        CHECK(has_pool(s->b));
        EQUAL(rb_load(&s->w->bus->pools_left), 1);
        for (uint64_t i = 0; i < block.length; i++)
            EQUAL(((uint8_t *)s->e.pool->memory)[block.offset + i], 'x');
        look_at_none(s->a);
    }
    b_is_gone(s);
}
static const struct scenario an_endpoint_sends_a_block = {
    "an endpoint sends a block", prepare_sending, send_one, check_sending, true};
PROMISE(an_endpoint_sends_a_block)

static void prepare_shrinking(struct stage *s)
{
    prepare_sending(s);
    ep_let_block(&s->e, take_pages(&s->e));
}

static void give_pages_back(struct stage *s) { CHECK(!ep_give_back_pages(&s->e, 0)); }

static const struct scenario an_endpoint_gives_pages_back = {
    "an endpoint gives pages back", prepare_shrinking, give_pages_back, b_is_gone, true};
PROMISE(an_endpoint_gives_pages_back)

/* Looking at what others send: the victim begins to in its own process, as a fork ends all that it looked at. */
static struct ep_share *take_looking(struct stage *s, struct sb_record *h, bool work, const char *wanted)
{
    const uint8_t *record;
    s->e.fork_mark = ep_fork_mark();
    CHECK(ep_peek(&s->e, h, &record) == RB_OK && h->flags & SB_POOLED);
    struct ep_share *share = ep_enter_peeked(&s->e, h, record, work);
    CHECK(share && ep_share_data(share));
    EQUAL(ep_share_size(share), strlen(wanted));
    CHECK(memcmp(ep_share_data(share), wanted, strlen(wanted)) == 0);
    s->m.position = ep_take(&s->e, h, work ? SB_HELD_OPEN : SB_HELD_DONE);
    return share;
}

/* c finds what a has sent, from the number `first` on, in blocks that are not returned meanwhile. */
static uint32_t c_looks_at_all(struct stage *s, uint32_t first)
{
    struct message m;
    uint32_t count = 0;
    for (; take_shared(s->c, &m); count++) {
        struct sb_block block = block_of(&m);
        CHECK(!is_returned(s->a, &block));
        EQUAL(block.index, first + count);
        EQUAL(block.length, strlen(said[block.index]));
        CHECK(memcmp((uint8_t *)s->a->pool + block.offset, said[block.index], block.length) == 0);
    }
    return count;
}

static void prepare_looking(struct stage *s)
{
    prepare_making(s);
    s->c = join_sized(s->w, "c", TINY);
    make_pool(s->c);
    subscribe(s->b, "y");
    subscribe(s->c, "y");
    for (uint32_t i = 0; i < 3; i++)
        publish_block(s->a, "y", i, said[i]);
    settle(s->w);
}

/* Of three it looks at one only, has one in its place, and one as a copy. */
static void look_at_three(struct stage *s)
{
    struct sb_record h;
    ep_free_share(take_looking(s, &h, false, said[0]));
    CHECK(!ep_copies_share(take_looking(s, &h, false, said[1])));
    struct ep_share *share = take_looking(s, &h, false, said[2]);
    CHECK(ep_copies_share(share));
    ep_copy_share(share);
    CHECK(memcmp(ep_share_data(share), said[2], ep_share_size(share)) == 0);
    ep_free_share(share);
}

static void check_looking(struct stage *s)
{
    b_is_gone(s);
    EQUAL(in_use(s->a), 3);
    EQUAL(c_looks_at_all(s, 0), 3);
    EQUAL(in_use(s->a), 3);
    look_at_none(s->c);
    EQUAL(in_use(s->a), 0);
}
static const struct scenario an_endpoint_looks_at_blocks = {
    "an endpoint looks at blocks", prepare_looking, look_at_three, check_looking, true};
PROMISE(an_endpoint_looks_at_blocks)

/* What nobody else gets comes back, however far it was. */
static void prepare_looking_alone(struct stage *s)
{
    prepare_looking(s);
    EQUAL(c_looks_at_all(s, 0), 3);
    look_at_none(s->c);
    EQUAL(in_use(s->a), 3);
}

static void check_looking_alone(struct stage *s)
{
    b_is_gone(s);
    EQUAL(in_use(s->a), 0);
}
static const struct scenario an_endpoint_alone_looks_at_blocks = {
    "an endpoint alone looks at blocks", prepare_looking_alone, look_at_three, check_looking_alone, true};
PROMISE(an_endpoint_alone_looks_at_blocks)

/* b has a command in hand, with a block; c could have it, too. */
static void prepare_working(struct stage *s)
{
    static const struct sb_record command = {.kind = SB_SEND, .flags = SB_RAW};
    prepare_making(s);
    handle(s->b, "do");
    struct sb_block block = block_at(s->a, 0, strlen(said[0]));
    memcpy((uint8_t *)s->a->pool + block.offset, said[0], block.length);
    CHECK(put_block(s->a, SB_DATA, command, "do", &block));
    flush(s->a);
    settle(s->w);
    s->c = join_sized(s->w, "c", TINY);
    make_pool(s->c);
    handle(s->c, "do");
}

static void work_on_one(struct stage *s)
{
    struct sb_record h;
    struct ep_share *share = take_looking(s, &h, true, said[0]);
    ep_set_in_hand(&s->e, 1, 5);
    ep_done(&s->e, s->m.position);
    ep_unpin_share(share);
    ep_free_share(share);
}

static bool c_has_it(struct stage *s)
{
    bool has = c_looks_at_all(s, 0);
    EQUAL(in_use(s->a), has);
    look_at_none(s->c);
    EQUAL(in_use(s->a), 0);
    EQUAL(rb_load(&s->w->bus->lost) + rb_load(&s->w->bus->dead_letters), 0);
    b_is_gone(s);
    return has;
}

/* Unless b has done it, c has it, with the same payload. */
static void check_working(struct stage *s)
{
    bool open = rb_load(&s->b->up->incoming[SB_DATA].taken) == 0;
    for (uint32_t i = 0; i < SB_HELD; i++)
        open |= rb_load(&s->b->up->held[i].position) == 0 && rb_load(&s->b->up->held[i].done) == SB_HELD_OPEN;
    EQUAL(c_has_it(s), open);
}
static const struct scenario an_endpoint_works_on_a_block = {
    "an endpoint works on a block", prepare_working, work_on_one, check_working, true};
PROMISE(an_endpoint_works_on_a_block)

static void give_it_back(struct stage *s)
{
    struct sb_record h;
    struct ep_share *share = take_looking(s, &h, true, said[0]);
    struct ep_returned r = {.position = s->m.position, .header = &h, .bit = SB_PLAIN, .type = "do", .reason = "why",
                            .reason_length = 3, .payload = &share->block, .size = sizeof share->block};
    ep_mark_returned(&s->e, r.position, SB_NOWHERE);
    CHECK(ep_fit_returned(&s->e, &r));
    CHECK(ep_nack(&s->e, &r, 1, true) == RB_OK);
    ep_unpin_share(share);
    ep_free_share(share);
}

static void check_giving_back(struct stage *s) { CHECK(c_has_it(s)); }
static const struct scenario an_endpoint_gives_a_block_back = {
    "an endpoint gives a block back", prepare_working, give_it_back, check_giving_back, true};
PROMISE(an_endpoint_gives_a_block_back)

/* b has a mailbox, in which two types wait, one of which was replaced. */
static void prepare_mail(struct stage *s)
{
    prepare_making(s);
    struct sb_interest wish = {.op = SB_INTEREST_ADD, .role = SB_ROLE_SUBSCRIBE, .flags = SB_LATEST, .depth = 4};
    CHECK(ep_begin_mailbox(&s->e, 0, log_interest(s->b, wish, "y.*", ""), EP_MAIL_TAKEN));
    tell_interests(s->b);
    settle(s->w);
    publish_block(s->a, "y.a", 0, said[0]);
    publish_block(s->a, "y.a", 1, said[1]);
    publish_block(s->a, "y.b", 2, said[2]);
    settle(s->w);
    EQUAL(in_use(s->a), 2);
}

static void take_mail(struct stage *s)
{
    uint64_t whom = rb_load(&s->b->down->mailbox[0]), size = 0;
    char name[160];
    struct sb_record h;
    s->e.fork_mark = ep_fork_mark();
    dp_mailbox_name(s->w->f, sb_whom_slot(whom), sb_whom_generation(whom), name);
    struct sb_mailbox *memory = dp_open_segment(name, &size);
    CHECK(memory && ep_open_mailbox(&s->e, 0, whom, memory, size));
    for (uint32_t i = 1; i < 3; i++) {
        CHECK(ep_peek_mail(&s->e, &h) == 0 && h.flags & SB_POOLED);
        struct ep_share *share = s->e.mail_share;
        s->e.mail_share = NULL;
        ep_take_mail(&s->e, 0);
        CHECK(share && memcmp(ep_share_data(share), said[i], ep_share_size(share)) == 0);
        if (i == 1)
            ep_free_share(share);
    }
}

static void check_mail(struct stage *s)
{
    b_is_gone(s);
    EQUAL(in_use(s->a), 0);
    publish_block(s->a, "y.a", 3, said[0]);
    settle(s->w);
    EQUAL(in_use(s->a), 0);
}
static const struct scenario an_endpoint_takes_a_block_from_a_mailbox = {
    "an endpoint takes a block from a mailbox", prepare_mail, take_mail, check_mail, true};
PROMISE(an_endpoint_takes_a_block_from_a_mailbox)

/* The dispatcher is killed, too, before it has seen that. */
static void adopted(struct stage *s)
{
    close_forwarder(s->w->f); /* what it has mapped would make each fork slower */
    adopt(s->w, false);
    settle(s->w);
}

static void prepare_mail_adopted(struct stage *s)
{
    prepare_mail(s);
    s->meanwhile = adopted;
}
static const struct scenario an_endpoint_takes_a_block_before_an_adoption = {
    "an endpoint takes a block from a mailbox before an adoption", prepare_mail_adopted, take_mail, check_mail, true};
PROMISE(an_endpoint_takes_a_block_before_an_adoption)
