/* Blocks of an endpoint's own pool, over a bus whose dispatcher is driven by hand. */
#include "harness.h"
#include "pooled.h"

#include "shmbus/endpoint/native/open.h"
#include "shmbus/endpoint/native/wait.h"

static void open_pooled(struct ep_endpoint *e, struct peer *p, uint64_t pages)
{
    CHECK(ep_fork_watch());
    p->up->pool_limit = pages * EP_PAGE;
    CHECK(ep_open(e, p->world->bus, p->world->ready, p->up, p->down, &p->world->bell, &p->bell, 7, 0, 16));
    snprintf(e->bus_path, sizeof e->bus_path, "/dev/shm%s:bus", p->world->f->prefix);
    EQUAL(ep_make_pool(e), 0);
    dp_pool_name(p->world->f, p->slot, p->generation, made_names[made_count++ % 64]);
}

/* One of so many pages; the dispatcher is asked where need be. */
static uint32_t take_pages(struct ep_endpoint *e, struct peer *p, uint64_t pages)
{
    uint32_t index = 0;
    for (int i = 0; i < 5; i++)
        switch (ep_take_block(e, pages * EP_PAGE, &index)) {
        case EP_BLOCK_TAKEN: return index;
        case EP_BLOCK_FULL: settle(p->world); break;
        case EP_BLOCK_GROW: EQUAL(ep_reserve_pages(e), 0);
        }
    CHECK(!"a block could be had");
    return index;
}

static bool has_no_block(struct ep_endpoint *e, struct peer *p, uint64_t pages)
{
    uint32_t index;
    settle(p->world);
    return ep_take_block(e, pages * EP_PAGE, &index) == EP_BLOCK_FULL;
}

static uint64_t page_of(const struct ep_endpoint *e, uint32_t index)
{
    return (uint64_t)(ep_block_memory(e, index) - ep_pool_data(e->pool)) / EP_PAGE;
}

/* An event with it, to nobody. */
static void send_block(struct ep_endpoint *e, uint32_t index)
{
    struct sb_block block;
    bool armed;
    struct ep_message m = {.kind = SB_EVENT, .flags = SB_RAW | SB_POOLED, .type = "x", .type_length = 1,
                           .payload = &block, .size = sizeof block};
    ep_describe_block(e, index, 0, 5, &block);
    EQUAL(ep_push(e, &m, ep_stamp(e), NULL, &armed), RB_OK);
    ep_let_block(e, index);
}

TEST(a_block_is_used_again_once_its_record_is_over)
{
    struct world *w = new_world();
    struct peer *p = join(w, "a");
    struct ep_endpoint e;
    open_pooled(&e, p, 4);
    uint32_t block = take_pages(&e, p, 4);
    CHECK(has_no_block(&e, p, 1));
    send_block(&e, block);
    uint32_t other;
    EQUAL(ep_take_block(&e, 1, &other), EP_BLOCK_FULL); /* the dispatcher has not seen it */
    settle(w);
    EQUAL(page_of(&e, take_pages(&e, p, 4)), 0);
    EQUAL(rb_load(&e.up->pool_in_use), 4 * EP_PAGE);
    ep_free(&e);
    close_world(w);
}

TEST(the_first_gap_is_taken_and_gaps_beside_each_other_are_one)
{
    struct world *w = new_world();
    struct peer *p = join(w, "a");
    struct ep_endpoint e;
    open_pooled(&e, p, 16);
    uint32_t a = take_pages(&e, p, 3), b = take_pages(&e, p, 4), c = take_pages(&e, p, 5);
    EQUAL(page_of(&e, c), 7);
    ep_let_block(&e, a);
    EQUAL(page_of(&e, take_pages(&e, p, 4)), 12); /* behind all: the gap has three */
    EQUAL(page_of(&e, take_pages(&e, p, 2)), 0);
    ep_let_block(&e, b);
    EQUAL(page_of(&e, take_pages(&e, p, 5)), 2);
    CHECK(has_no_block(&e, p, 1));
    ep_free(&e);
    close_world(w);
}

TEST(what_is_lent_is_not_used_again_though_its_record_is_over)
{
    struct world *w = new_world();
    struct peer *p = join(w, "a");
    struct ep_endpoint e;
    open_pooled(&e, p, 4);
    uint32_t block = take_pages(&e, p, 3);
    send_block(&e, block);
    rb_store(&e.pool->blocks[block].held, 1); /* a view of it */
    CHECK(has_no_block(&e, p, 2));
    CHECK(!ep_blocks_returned(&e));
    ep_lock(&e); /* the collector drops it meanwhile */
    CHECK(!ep_let_block(&e, block));
    ep_unlock(&e);
    CHECK(ep_blocks_returned(&e));
    ep_tend_pool(&e, rb_now());
    EQUAL(rb_load(&e.pool->let), 0);
    EQUAL(page_of(&e, take_pages(&e, p, 4)), 0);
    ep_free(&e);
    close_world(w);
}

TEST(what_was_granted_and_is_not_used_is_given_back)
{
    struct world *w = open_world((struct plan){.pool_total_bytes = 4 << 20});
    struct peer *p = join(w, "a");
    struct ep_endpoint e;
    uint32_t index;
    open_pooled(&e, p, 3000);
    EQUAL(ep_tend_pool(&e, rb_now()), SB_NOWHERE);
    EQUAL(ep_take_block(&e, 600 * EP_PAGE, &index), EP_BLOCK_FULL); /* who asked gives up */
    CHECK(ep_grant_is_open(&e));
    settle(w);
    CHECK(!ep_grant_is_open(&e));
    EQUAL(sb_pool_pages(rb_load(&p->down->pool_granted)), 768);
    CHECK(ep_tend_pool(&e, rb_now()) > rb_now());
    EQUAL(ep_tend_pool(&e, rb_now() + 2 * EP_IDLE_NS), SB_NOWHERE);
    settle(w);
    EQUAL(sb_pool_pages(rb_load(&p->down->pool_granted)), 0);
    ep_free(&e);
    close_world(w);
}

TEST(of_two_pools_that_wait_for_each_others_parts_one_has_all)
{
    struct world *w = open_world((struct plan){.pool_total_bytes = 4 << 20});
    struct peer *p[] = {join(w, "a"), join(w, "b")};
    struct ep_endpoint e[2];
    uint32_t index;
    for (int k = 0; k < 2; k++) {
        open_pooled(&e[k], p[k], 3000);
        take_pages(&e[k], p[k], 200); /* free again at once */
        ep_let_block(&e[k], 0);
    }
    for (int k = 0; k < 2; k++) {
        EQUAL(ep_take_block(&e[k], 800 * EP_PAGE, &index), EP_BLOCK_FULL);
        settle(w);
        rb_store(&e[k].up->pool_need, k);
    }
    CHECK(has_no_block(&e[1], p[1], 800));
    bool has[2] = {false, false};
    for (int round = 1; round < 4 && !has[0] && !has[1]; round++)
        for (int k = 0; k < 2; k++) {
            while (ep_tend_pool(&e[k], rb_now() + 2 * EP_IDLE_NS) <= rb_now() + 2 * EP_IDLE_NS) {
            }
            settle(w);
            for (int i = 0; i < 2; i++) {
                has[i] |= ep_block_to_be_had(&e[i], 800);
                settle(w);
            }
        }
    CHECK(has[0] || has[1]);
    for (int k = 0; k < 2; k++)
        ep_free(&e[k]);
    close_world(w);
}

TEST(who_was_granted_a_part_asks_for_what_it_needs_and_no_more)
{
    struct world *w = open_world((struct plan){.pool_total_bytes = 300 * EP_PAGE});
    struct peer *p = join(w, "a"), *other = join(w, "b");
    struct ep_endpoint e;
    other->up->pool_limit = 20 * EP_PAGE;
    open_pooled(&e, p, 1000);
    EQUAL(asks(other, 1, 20), 20);
    CHECK(has_no_block(&e, p, 290));
    EQUAL(sb_pool_pages(rb_load(&p->up->pool_asked)), 2 * EP_ASKED_PAGES);
    CHECK(has_no_block(&e, p, 290));
    EQUAL(sb_pool_pages(rb_load(&p->up->pool_asked)), 290);
    uint64_t asked = rb_load(&p->up->pool_asked);
    CHECK(has_no_block(&e, p, 285) && has_no_block(&e, p, 290));
    EQUAL(rb_load(&p->up->pool_asked), asked); /* two that wait do not ask in turn */
    EQUAL(asks(other, 2, 10), 10);
    take_pages(&e, p, 290);
    ep_free(&e);
    close_world(w);
}

TEST(what_is_not_used_for_some_time_is_given_back)
{
    struct world *w = open_world((struct plan){.pool_total_bytes = 16 << 20});
    struct peer *p = join(w, "a");
    struct ep_endpoint e;
    open_pooled(&e, p, 3000);
    uint32_t kept = take_pages(&e, p, 10), large = take_pages(&e, p, 2000);
    EQUAL(rb_load(&e.up->pool_reserved), 2010 * EP_PAGE);
    ep_let_block(&e, large);
    uint64_t now = rb_now(), due = now + EP_IDLE_NS;
    CHECK(ep_tend_pool(&e, now) > now);
    CHECK(ep_tend_pool(&e, now + EP_IDLE_NS / 2) > now + EP_IDLE_NS / 2);
    EQUAL(rb_load(&e.up->pool_reserved), 2010 * EP_PAGE);
    EQUAL(ep_tend_pool(&e, due), due); /* a portion at a time */
    CHECK(ep_tend_pool(&e, due) > due);
    EQUAL(rb_load(&e.up->pool_reserved), 10 * EP_PAGE);
    settle(w);
    EQUAL(sb_pool_pages(rb_load(&p->down->pool_granted)), 10);
    ep_let_block(&e, kept);
    CHECK(ep_tend_pool(&e, rb_now()) < SB_NOWHERE);
    EQUAL(ep_tend_pool(&e, rb_now() + 2 * EP_IDLE_NS), SB_NOWHERE);
    EQUAL(rb_load(&e.up->pool_reserved), 0);
    EQUAL(page_of(&e, take_pages(&e, p, 20)), 0);
    ep_free(&e);
    close_world(w);
}

TEST(what_others_lack_is_given_back_soon)
{
    struct world *w = open_world((struct plan){.pool_total_bytes = 5 << 20});
    struct peer *p[] = {join(w, "a"), join(w, "b")};
    struct ep_endpoint e[2];
    uint32_t index;
    for (int k = 0; k < 2; k++)
        open_pooled(&e[k], p[k], 3000);
    uint32_t kept = take_pages(&e[0], p[0], 10), large = take_pages(&e[0], p[0], 900);
    ep_let_block(&e[0], large);
    /* it looks whether others lack it */
    CHECK(ep_tend_pool(&e[0], rb_now() + EP_SHORT_NS) <= rb_now() + 2 * EP_SHORT_NS);
    EQUAL(rb_load(&e[0].up->pool_reserved), 910 * EP_PAGE);
    EQUAL(ep_take_block(&e[1], 800 * EP_PAGE, &index), EP_BLOCK_FULL);
    settle(w);
    CHECK(ep_tend_pool(&e[0], rb_now()) > rb_now()); /* it has just used it */
    EQUAL(rb_load(&e[0].up->pool_reserved), 910 * EP_PAGE);
    CHECK(ep_tend_pool(&e[0], rb_now() + EP_SHORT_NS) > rb_now());
    EQUAL(rb_load(&e[0].up->pool_reserved), 10 * EP_PAGE);
    settle(w);
    ep_let_block(&e[1], take_pages(&e[1], p[1], 800));
    EQUAL(rb_load(&w->bus->pools_short), 0);
    ep_let_block(&e[0], kept);
    for (int k = 0; k < 2; k++)
        ep_free(&e[k]);
    close_world(w);
}
