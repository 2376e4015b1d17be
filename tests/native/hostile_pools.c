/* Garbage in the tables of pools, and other files in their place: it is its writer's harm alone (hostile.c). */
#include "harness.h"
#include "pooled.h"

/* c gets what a sends with each of its blocks, and all come back. */
static void goes_on(struct peer *a, struct peer *c)
{
    struct message m;
    CHECK(!a->quarantined && !c->quarantined);
    EQUAL(in_use(a), 0);
    for (uint32_t i = 0; i < POOL_PAGES; i++) {
        struct sb_block block = publish_block(a, "x", i, "still");
        settle(a->world);
        CHECK(take_shared(c, &m));
        EQUAL(block_of(&m).use, block.use);
        EQUAL(in_use(a), 1);
        look_no_more(c, 0);
        settle(a->world);
        EQUAL(in_use(a), 0);
    }
    CHECK(!a->quarantined && !c->quarantined);
}

TEST(blocks_that_a_receiver_never_had_are_not_held_against_their_sender)
{
    struct world *w = new_world();
    struct peer *a = join_pooled(w, "a"), *c = join_pooled(w, "c"), *guilty = join_pooled(w, "guilty");
    subscribe(c, "x");
    goes_on(a, c);
    for (uint32_t i = 0; i < 2 * POOL_PAGES; i++) { /* free again, and never used */
        struct sb_block block = block_at(a, i, 10);
        enter(guilty, sb_share_of(8 * i, SB_DATA), &block);
    }
    hand_over(w);
    goes_on(a, c);
    EQUAL(rb_load(&w->bus->violations), 0);
    close_world(w);
}

/* Words that mean something, and others. */
static void fill_tables(struct peer *p, const struct peer *named, uint64_t *seed)
{
    struct sb_pool *pool = p->pool;
    for (uint32_t i = 0; i < SB_BLOCKS; i++)
        if (draw(seed) % 4 == 0) {
            rb_store(&pool->blocks[i].use, draw(seed) % 3 ? draw(seed) % 8192 : draw(seed));
            rb_store(&pool->blocks[i].bytes, draw(seed));
        }
    for (uint32_t i = 0; i < SB_SHARES; i++)
        if (draw(seed) % 8 == 0) {
            uint64_t whom = sb_whom(named->slot, named->generation);
            rb_store(&pool->shares[i].pool, draw(seed) % 4 ? whom : draw(seed));
            rb_store(&pool->shares[i].block, draw(seed) % 4 ? 1ull << 63 | draw(seed) % POOL_PAGES : draw(seed));
            rb_store(&pool->shares[i].bytes, draw(seed));
            rb_store(&pool->shares[i].share, draw(seed) % 4 ? draw(seed) % 8192 : draw(seed));
        }
    rb_store(&pool->shares_used, draw(seed) % 2 ? draw(seed) % (2 * SB_SHARES) : draw(seed));
    rb_store(&p->up->pool_asked, draw(seed));
    rb_store(&p->up->shares_ended, draw(seed));
    raise_ready(p);
}

TEST(garbage_in_the_tables_of_a_pool_harms_nobody_else)
{
    uint64_t seed = 18;
    for (int round = 0; round < 60; round++) {
        struct world *w = new_world();
        struct peer *a = join_pooled(w, "a"), *c = join_pooled(w, "c"), *guilty = join_pooled(w, "guilty");
        struct message m;
        subscribe(c, "x");
        subscribe(guilty, "x");
        for (uint32_t i = 0; i < 4; i++) {
            publish_block(a, "x", i, "before");
            publish_block(guilty, "y", i, "nobody's");
        }
        settle(w);
        for (int i = 0; i < 3; i++)
            CHECK(take_shared(guilty, &m) && take_shared(c, &m));
        fill_tables(guilty, a, &seed);
        settle(w);
        if (round % 2)
            hand_over(w);
        fill_tables(guilty, a, &seed);
        advance(w, SECOND);
        CHECK(take_shared(c, &m));
        look_at_none(c);
        if (!guilty->reclaimed)
            die(guilty, SB_REASON_KILLED);
        advance(w, 3 * SECOND);
        goes_on(a, c);
        EQUAL(rb_load(&w->bus->pools_left), 0);
        EQUAL(rb_load(&w->bus->pools_granted), 2 * POOL_PAGES * DP_PAGE); /* of a and c */
        close_world(w);
    }
}

TEST(something_else_in_the_place_of_a_pool_is_its_endpoints_end)
{
    for (int how = 0; how < 10; how++) {
        struct world *w = new_world();
        struct peer *a = join_pooled(w, "a"), *c = join_pooled(w, "c"), *guilty = join_pooled(w, "guilty");
        struct message m;
        char name[160];
        subscribe(c, "x");
        publish_block(a, "x", 0, "before");
        settle(w);
        subscribe(guilty, "x");
        publish_block(a, "x", 1, "before");
        settle(w);
        switch (how / 2) {
        case 0: guilty->pool->prefix.kind = SB_SEGMENT_UP; break;
        case 1: guilty->pool->slot = a->slot; break;
        case 2: guilty->pool->generation++; break;
        default:
            dp_pool_name(w->f, guilty->slot, guilty->generation, name);
            int fd = shm_open(name, O_RDWR, 0);
            CHECK(fd >= 0 && ftruncate(fd, how / 2 == 3 ? (off_t)guilty->pool_size - 1 : (off_t)SB_POOL_DATA) == 0);
            close(fd);
        }
        CHECK(take(guilty, &m));
        if (how % 2)
            hand_over(w);
        raise_ready(guilty);
        settle(w);
        CHECK(guilty->quarantined);
        CHECK(take_shared(c, &m) && take_shared(c, &m));
        look_at_none(c);
        advance(w, 3 * SECOND);
        CHECK(guilty->reclaimed);
        EQUAL(rb_load(&w->bus->violations), 1);
        goes_on(a, c);
        close_world(w);
    }
}

/* Less of it than the tables, which may be somebody else's doing: what it holds is not known. */
TEST(a_pool_that_is_not_there_keeps_blocks_from_coming_back_and_nobody_from_sending)
{
    for (int how = 0; how < 2; how++) {
        struct world *w = new_world();
        struct peer *a = join_pooled(w, "a"), *c = join_pooled(w, "c"), *guilty = join_pooled(w, "guilty");
        struct message m;
        char name[160];
        subscribe(c, "x");
        subscribe(guilty, "x");
        dp_pool_name(w->f, guilty->slot, guilty->generation, name);
        int fd = shm_open(name, O_RDWR, 0);
        CHECK(fd >= 0);
        if (how)
            CHECK(ftruncate(fd, 100) == 0);
        else
            CHECK(shm_unlink(name) == 0);
        close(fd);
        publish_block(a, "x", 0, "one");
        settle(w);
        CHECK(take(guilty, &m) && take_shared(c, &m));
        look_at_none(c);
        EQUAL(in_use(a), 1);
        die(guilty, SB_REASON_KILLED);
        advance(w, SECOND);
        goes_on(a, c);
        EQUAL(rb_load(&w->bus->violations), 0);
        close_world(w);
    }
}
