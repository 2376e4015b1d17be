/* Payloads in pools that wait for who looks: in mailboxes, and kept for who comes late. */
#include "harness.h"
#include "pooled.h"

#include "shmbus/endpoint/native/mailbox.h"

static void keep_block(struct peer *p, const char *type, struct sb_block *block)
{
    struct sb_record h = {.kind = SB_EVENT, .flags = SB_RAW | SB_RETAIN};
    CHECK(put_block(p, SB_DATA, h, type, block));
    flush(p);
    settle(p->world);
}

TEST(a_kept_value_holds_its_block_until_another_replaces_it)
{
    struct world *w = open_world((struct plan){.history = 2});
    struct peer *source = join(w, "source"), *ear = join(w, "ear");
    make_pool(source), make_pool(ear);
    struct sb_block first = block_at(source, 0, 10), second = block_at(source, 1, 20), third = block_at(source, 2, 30);
    keep_block(source, "a", &first);
    keep_block(source, "a", &second);
    CHECK(!is_returned(source, &first) && !is_returned(source, &second));
    hand_over(w);
    CHECK(!is_returned(source, &first) && !is_returned(source, &second));
    keep_block(source, "a", &third); /* of each type two are kept here */
    CHECK(is_returned(source, &first) && !is_returned(source, &second) && !is_returned(source, &third));
    struct late_ear late = subscribe_late(ear, "a", 1);
    retain(source, "a", NULL); /* what clears the type, which the late one still has */
    settle(w);
    CHECK(!is_returned(source, &third));
    struct message m;
    CHECK(hear(&late, &m) && block_of(&m).use == third.use);
    publish(source, "b", "");
    settle(w);
    close_world(w);
}

static void wish(struct peer *p, struct ep_endpoint *reader, uint8_t flag, uint32_t depth)
{
    struct sb_interest e = {.op = SB_INTEREST_ADD, .role = SB_ROLE_SUBSCRIBE, .flags = flag, .depth = depth};
    uint64_t id = log_interest(p, e, "x.*", "");
    *reader = (struct ep_endpoint){.up = p->up, .down = p->down};
    CHECK(ep_begin_mailbox(reader, 0, id, EP_MAIL_TAKEN));
    tell_interests(p);
    settle(p->world);
}

static void wish_no_more(struct peer *p, struct ep_endpoint *reader)
{
    log_interest(p, (struct sb_interest){.op = SB_INTEREST_REMOVE, .id = reader->mailboxes[0]->interest}, "", "");
    tell_interests(p);
    settle(p->world);
    ep_close_mailboxes(reader);
}

/* So many of these blocks are returned. */
static uint32_t returned_of(const struct peer *p, const struct sb_block *blocks, uint32_t count)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < count; i++)
        n += is_returned(p, &blocks[i]);
    return n;
}

TEST(a_mailbox_holds_the_block_of_what_may_be_taken_and_of_nothing_else)
{
    struct world *w = new_world();
    struct peer *source = join(w, "source"), *ear = join(w, "ear");
    struct ep_endpoint reader;
    make_pool(source), make_pool(ear);
    wish(ear, &reader, SB_LATEST, 4);
    struct sb_block blocks[3] = {publish_block(source, "x.a", 0, "old"), publish_block(source, "x.a", 1, "new")};
    settle(w);
    CHECK(is_returned(source, &blocks[0]) && !is_returned(source, &blocks[1]));
    hand_over(w);
    CHECK(!is_returned(source, &blocks[1]));
    uint64_t whom = rb_load(&ear->down->mailbox[0]);
    uint32_t entry = enter(ear, sb_share_of_mail(0, whom, 2), &blocks[1]);
    rb_store(&ear->up->had[0].whom, whom);
    rb_store(&ear->up->had[0].taken, 2);
    blocks[2] = publish_block(source, "x.a", 2, "newer");
    settle(w);
    CHECK(!is_returned(source, &blocks[1])); /* it looks at it */
    look_no_more(ear, entry);
    settle(w);
    CHECK(is_returned(source, &blocks[1]) && !is_returned(source, &blocks[2]));
    rb_store(&ear->up->had[0].taken, 3); /* and looks no more, though it stands there */
    rb_store_release(&ear->up->shares_ended, rb_load(&ear->up->shares_ended) + 1);
    raise_ready(ear);
    settle(w);
    CHECK(is_returned(source, &blocks[2]));
    wish_no_more(ear, &reader);
    close_world(w);
}

TEST(what_a_mailbox_has_that_is_closed_cannot_be_taken_any_more)
{
    struct world *w = new_world();
    struct peer *source = join(w, "source"), *ear = join(w, "ear");
    struct ep_endpoint reader;
    char name[160];
    uint64_t size = 0;
    make_pool(source), make_pool(ear);
    wish(ear, &reader, SB_LATEST, 4);
    struct sb_block block = publish_block(source, "x.a", 0, "seen");
    settle(w);
    uint64_t whom = rb_load(&ear->down->mailbox[0]);
    dp_mailbox_name(w->f, sb_whom_slot(whom), sb_whom_generation(whom), name);
    struct sb_mailbox *mapped = dp_open_segment(name, &size); /* as the endpoint has it, which does not know yet */
    const struct sb_mail *entry = (const void *)((const uint8_t *)mapped + mapped->entries_offset);
    EQUAL(rb_load(&entry->number), 1);
    CHECK(!is_returned(source, &block));
    wish_no_more(ear, &reader);
    CHECK(is_returned(source, &block));
    EQUAL(rb_load(&entry->number), 0);
    dp_close_segment(mapped, size);
    close_world(w);
}

TEST(a_mailbox_that_nobody_reads_has_a_quarter_of_a_pool_at_the_most)
{
    for (uint32_t all = POOL_PAGES; all; all = all > 8 ? 8 : 0) { /* so many pages may be had of it */
        struct world *w = open_world((struct plan){.pool_total_bytes = all * DP_PAGE});
        struct peer *source = join_pooled(w, "source"), *ear = join_pooled(w, "ear");
        struct ep_endpoint reader;
        struct sb_block blocks[POOL_PAGES];
        wish(ear, &reader, SB_DROP_OLDEST, 100);
        for (uint32_t i = 0; i < all; i++) {
            blocks[i] = block_at(source, i, DP_PAGE);
            CHECK(put_block(source, SB_DATA, (struct sb_record){.kind = SB_EVENT, .flags = SB_RAW}, "x.a", &blocks[i]));
            flush(source);
            settle(w);
        }
        EQUAL(returned_of(source, blocks, all), all - all / 4);
        CHECK(!is_returned(source, &blocks[all - 1]));
        wish_no_more(ear, &reader);
        EQUAL(returned_of(source, blocks, all), all);
        close_world(w);
    }
}

TEST(what_is_kept_has_half_of_a_pool_at_the_most)
{
    for (uint32_t all = POOL_PAGES; all; all = all > 8 ? 8 : 0) { /* so many pages may be had of it */
        struct world *w = open_world((struct plan){.history = 100, .retain_bytes = 1 << 20,
                                                   .pool_total_bytes = all * DP_PAGE});
        struct peer *source = join_pooled(w, "source");
        struct sb_block blocks[POOL_PAGES];
        for (uint32_t i = 0; i < all; i++) {
            blocks[i] = block_at(source, i, DP_PAGE);
            keep_block(source, i ? "a" : "b", &blocks[i]);
        }
        EQUAL(returned_of(source, blocks, all), all - all / 2);
        CHECK(!is_returned(source, &blocks[0]) && is_returned(source, &blocks[1])); /* what was replaced goes first */
        EQUAL(rb_load(&w->bus->evicted), all - all / 2);
        close_world(w);
    }
}

TEST(payloads_in_pools_count_among_what_is_kept)
{
    struct world *w = open_world((struct plan){.history = 100, .retain_bytes = 3 * DP_PAGE});
    struct peer *source = join_pooled(w, "source");
    struct sb_block blocks[4];
    for (uint32_t i = 0; i < 4; i++) {
        blocks[i] = block_at(source, i, DP_PAGE);
        keep_block(source, i % 2 ? "a" : "b", &blocks[i]);
        EQUAL(rb_load(&w->bus->retained_bytes), (i ? 2 : 1) * (DP_PAGE + SB_CELL_BYTES));
    }
    EQUAL(returned_of(source, blocks, 4), 2);
    EQUAL(rb_load(&w->bus->evicted), 2);
    hand_over(w);
    EQUAL(rb_load(&w->bus->retained_bytes), 2 * (DP_PAGE + SB_CELL_BYTES));
    struct sb_block large = block_at(source, 4, 3 * DP_PAGE); /* with its cell it is more than there may be */
    keep_block(source, "a", &large);
    CHECK(is_returned(source, &large));
    EQUAL(rb_load(&w->bus->retained), 1);
    EQUAL(rb_load(&w->bus->evicted), 3);
    close_world(w);
}

static void wait_for_pages(struct peer *p, uint64_t pages)
{
    rb_store_seq(&p->up->pool_need, pages);
    advance(p->world, 100 * MILLISECOND);
}

TEST(what_waits_to_be_looked_at_yields_to_who_needs_its_memory)
{
    for (int adopted = 0; adopted < 2; adopted++) {
        struct world *w = open_world((struct plan){.history = 2, .retain_bytes = 1 << 20});
        struct peer *source = join_pooled(w, "source"), *ear = join_pooled(w, "ear");
        struct ep_endpoint reader;
        wish(ear, &reader, SB_LATEST, 4);
        struct sb_block blocks[4] = {publish_block(source, "x.a", 8, "mailed")};
        settle(w);
        for (uint32_t i = 1; i < 4; i++) {
            blocks[i] = block_at(source, 4 * i - 1, DP_PAGE); /* 3, 7, 11 */
            keep_block(source, i < 3 ? "a" : "b", &blocks[i]);
        }
        if (adopted)
            hand_over(w);
        wait_for_pages(source, 4); /* 12 to 15 */
        EQUAL(returned_of(source, blocks, 4), 0);
        wait_for_pages(source, 7); /* 0 to 6, once what was replaced has gone */
        EQUAL(returned_of(source, blocks, 4), 1);
        CHECK(is_returned(source, &blocks[1]));
        EQUAL(rb_load(&w->bus->evicted), 1);
        wait_for_pages(source, 11); /* the oldest first, which is in the mailbox, then "a" */
        EQUAL(returned_of(source, blocks, 4), 3);
        CHECK(!is_returned(source, &blocks[3]));
        wait_for_pages(source, POOL_PAGES + 1); /* what it can never have */
        EQUAL(returned_of(source, blocks, 4), 3);
        wait_for_pages(source, POOL_PAGES);
        EQUAL(returned_of(source, blocks, 4), 4);
        EQUAL(rb_load(&w->bus->evicted), 3);
        EQUAL(rb_load(&w->bus->retained), 0);
        EQUAL(rb_load(&w->bus->retained_bytes), 0);
        wish_no_more(ear, &reader);
        close_world(w);
    }
}

TEST(what_somebody_looks_at_does_not_yield_in_vain)
{
    struct world *w =
        open_world((struct plan){.history = 2, .retain_bytes = 1 << 20, .pool_total_bytes = 20 * DP_PAGE});
    struct peer *source = join_pooled(w, "source"), *ear = join(w, "ear"), *second;
    struct message m;
    subscribe(ear, "b");
    for (uint32_t i = 0; i < 2; i++) {
        struct sb_block block = block_at(source, i, DP_PAGE);
        keep_block(source, i ? "a" : "b", &block); /* "b" it has not taken */
    }
    die(source, SB_REASON_KILLED);
    second = join(w, "second");
    second->up->pool_limit = 20 * DP_PAGE;
    EQUAL(asks(second, 1, 20), 18);
    EQUAL(asks(second, 2, 19), 19);
    EQUAL(rb_load(&w->bus->retained), 1);
    CHECK(take(ear, &m));
    close_world(w);
}

TEST(what_those_who_have_gone_left_to_be_kept_keeps_nobody_from_growing)
{
    struct world *w = open_world((struct plan){.history = 2, .retain_bytes = 1 << 20,
                                               .pool_total_bytes = 20 * DP_PAGE});
    struct peer *source = join_pooled(w, "source");
    for (uint32_t i = 0; i < 3; i++) {
        struct sb_block block = block_at(source, i, DP_PAGE);
        keep_block(source, i ? "a" : "b", &block);
    }
    die(source, SB_REASON_KILLED);
    CHECK(source->pool);
    EQUAL(rb_load(&w->bus->pools_granted), 3 * DP_PAGE);
    struct peer *first = join_pooled(w, "first"); /* 16 pages */
    EQUAL(rb_load(&w->bus->retained), 3);
    struct peer *second = join(w, "second");
    second->up->pool_limit = POOL_PAGES * DP_PAGE;
    EQUAL(asks(second, 1, 4), 1); /* perhaps that is enough */
    EQUAL(rb_load(&w->bus->evicted), 0);
    EQUAL(asks(second, 2, 5), 1); /* as it cannot have so many */
    EQUAL(rb_load(&w->bus->evicted), 0);
    EQUAL(asks(second, 3, 2), 2);
    EQUAL(rb_load(&w->bus->retained), 2);
    EQUAL(rb_load(&w->bus->evicted), 1);
    EQUAL(asks(second, 4, 4), 2);
    hand_over(w);
    EQUAL(asks(second, 5, 4), 4);
    CHECK(!source->pool && first->pool);
    EQUAL(rb_load(&w->bus->retained), 0);
    close_world(w);
}
