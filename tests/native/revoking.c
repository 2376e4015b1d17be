/* Who takes nothing does not keep a sender from its pool: what it has not taken of that is lost there, and the blocks
 * come back (revoke.h). */
#include "harness.h"
#include "pooled.h"

static struct sb_block put_event(struct peer *p, const char *type, uint32_t index, uint16_t flags)
{
    struct sb_block block = block_at(p, index, 10);
    CHECK(put_block(p, SB_DATA, (struct sb_record){.kind = SB_EVENT, .flags = SB_RAW | flags}, type, &block));
    flush(p);
    settle(p->world);
    return block;
}

static void put_page(struct peer *p, const char *type, uint32_t index)
{
    struct sb_block block = block_at(p, index, DP_PAGE);
    CHECK(put_block(p, SB_DATA, (struct sb_record){.kind = SB_EVENT, .flags = SB_RAW}, type, &block));
    flush(p);
    settle(p->world);
}

static void wait_for_pool(struct peer *p)
{
    rb_store(&p->up->pool_waits, rb_load(&p->up->pool_waits) + 1);
    rb_store_seq(&p->up->pool_need, 1);
    advance(p->world, 100 * MILLISECOND);
}

TEST(what_one_that_takes_nothing_has_of_a_pool_is_lost_there_while_its_sender_waits)
{
    struct world *w = new_world();
    struct peer *a = join_pooled(w, "a"), *idle = join_pooled(w, "idle"), *ear = join(w, "ear");
    struct message m;
    subscribe(idle, "x");
    subscribe(ear, "$bus.lost");
    put_event(a, "x", 0, 0);
    put_event(a, "x", 1, SB_URGENT);
    advance(w, 10 * SECOND); /* nobody waits */
    EQUAL(in_use(a), 2);
    wait_for_pool(a);
    advance(w, 800 * MILLISECOND);
    EQUAL(in_use(a), 2);
    advance(w, 200 * MILLISECOND);
    EQUAL(in_use(a), 0);
    EQUAL(rb_load(&idle->down->lost_by[SB_LOSS_SLOW]), 2);
    EQUAL(rb_load(&w->bus->lost), 2);
    CHECK(rb_load(&w->f->rows[idle->slot].health) & SB_SLOW);
    CHECK(take(ear, &m) && mentions(&m, "idle") && mentions(&m, "slow"));
    struct sb_block more = put_event(a, "x", 2, 0); /* it is slow: at once */
    CHECK(is_returned(a, &more));
    EQUAL(rb_load(&idle->down->lost), 3);
    publish(a, "x", "small");
    settle(w);
    CHECK(take(idle, &m));
    EQUAL(m.header.interests, 0);
    CHECK(take_urgent(idle, &m));
    EQUAL(m.header.interests, 0);
    CHECK(take(idle, &m));
    EQUAL(m.header.interests, SB_PLAIN);
    EQUAL(m.header.lost, 3);
    more = put_event(a, "x", 3, 0);
    CHECK(!is_returned(a, &more) && take_shared(idle, &m));
    EQUAL(m.header.interests, SB_PLAIN);
    CHECK(!(rb_load(&w->f->rows[idle->slot].health) & SB_SLOW));
    EQUAL(rb_load(&w->bus->violations), 0);
    close_world(w);
}

TEST(what_it_has_entered_by_then_it_may_look_at)
{
    struct world *w = new_world();
    struct peer *a = join_pooled(w, "a"), *b = join_pooled(w, "b");
    struct message m;
    subscribe(b, "x");
    put_event(a, "x", 0, 0);
    put_event(a, "x", 1, 0);
    CHECK(enter_next(b)); /* and it has not yet looked at the record again */
    wait_for_pool(a);
    advance(w, 2 * SECOND);
    EQUAL(in_use(a), 1);
    CHECK(take(b, &m));
    settle(w);
    EQUAL(in_use(a), 1);
    look_no_more(b, 0);
    settle(w);
    EQUAL(in_use(a), 0);
    close_world(w);
}

TEST(who_goes_on_taking_keeps_what_it_has)
{
    struct world *w = new_world();
    struct peer *a = join_pooled(w, "a"), *b = join_pooled(w, "b");
    struct message m;
    subscribe(b, "x");
    for (uint32_t i = 0; i < 8; i++)
        put_event(a, "x", i, 0);
    wait_for_pool(a);
    for (uint32_t i = 0; i < 8; i++) {
        advance(w, 800 * MILLISECOND);
        CHECK(take_shared(b, &m));
        EQUAL(m.header.interests, SB_PLAIN);
    }
    EQUAL(rb_load(&b->down->lost), 0);
    EQUAL(in_use(a), 8);
    close_world(w);
}

TEST(what_groups_and_handlers_have_not_taken_stays)
{
    struct world *w = new_world();
    struct peer *a = join_pooled(w, "a"), *b = join_pooled(w, "b"), *tap = join_pooled(w, "tap");
    struct message m;
    subscribe_group(b, "x", "g", 1);
    handle(b, "do");
    commit_interest(tap, (struct sb_interest){.op = SB_INTEREST_ADD, .role = SB_ROLE_OBSERVE}, ">", "");
    put_event(a, "x", 0, 0);
    struct sb_block block = block_at(a, 1, 10);
    CHECK(put_block(a, SB_DATA, (struct sb_record){.kind = SB_SEND, .flags = SB_RAW}, "do", &block));
    flush(a);
    settle(w);
    put_event(a, "nobody", 2, 0); /* but for who observes */
    EQUAL(in_use(a), 3);
    wait_for_pool(a);
    advance(w, 2 * SECOND);
    EQUAL(in_use(a), 2);
    EQUAL(rb_load(&tap->down->lost_by[SB_LOSS_DROPPED]), 3);
    EQUAL(rb_load(&b->down->lost), 0);
    CHECK(take_shared(b, &m) && m.header.interests);
    CHECK(take_shared(b, &m) && m.header.interests);
    close_world(w);
}

static void answer_with_block(struct peer *p, const struct message *m, enum sb_kind kind, uint32_t index)
{
    struct sb_record h = {.kind = (uint16_t)kind, .flags = SB_RAW, .peer = m->header.peer,
                          .peer_generation = m->header.peer_generation};
    struct sb_block block = block_at(p, index, 10);
    memcpy(h.correlation, m->header.correlation, 16);
    CHECK(put_block(p, SB_REPLIES, h, "", &block));
    flush(p);
    settle(p->world);
}

TEST(requests_that_are_over_and_were_not_taken_free_their_memory_at_once)
{
    for (int how = 0; how < 2; how++) {
        struct world *w = new_world();
        struct peer *a = join_pooled(w, "a"), *b = join_pooled(w, "b");
        struct message m;
        handle(b, "do");
        ask_with_block(a, "do", 0, 0);
        uint16_t second = ask_with_block(a, "do", 1, 0);
        ask_with_block(a, "do", 2, w->f->now + 300 * MILLISECOND);
        settle(w);
        withdraw(a, second);
        settle(w);
        EQUAL(in_use(a), 3); /* nobody waits for it */
        wait_for_pool(a);
        EQUAL(in_use(a), 2);
        advance(w, 400 * MILLISECOND);
        EQUAL(in_use(a), 1);
        if (how == 1)
            hand_over(w);
        EQUAL(in_use(a), 1);
        EQUAL(rb_load(&b->down->lost), 0);
        EQUAL(rb_load(&w->f->rows[b->slot].health) & SB_SLOW, 0);
        CHECK(take_shared(b, &m) && m.header.interests == SB_PLAIN);
        CHECK(take(b, &m) && !m.header.interests);
        CHECK(take(b, &m) && !m.header.interests);
        settle(w);
        EQUAL(in_use(a), 1);
        look_at_none(b);
        EQUAL(in_use(a), 0);
        EQUAL(rb_load(&w->bus->violations), 0);
        close_world(w);
    }
}

TEST(requests_that_are_over_free_their_memory_in_a_backlog_too)
{
    for (int how = 0; how < 2; how++) {
        struct world *w = open_world((struct plan){.prefetch = 1});
        struct peer *a = join_pooled(w, "a"), *b = join_pooled(w, "b"), *c = join(w, "c"), *tap = join_pooled(w, "tap");
        struct message m;
        handle(b, "do");
        handle(c, "do");
        commit_interest(tap, (struct sb_interest){.op = SB_INTEREST_ADD, .role = SB_ROLE_OBSERVE}, "do", "");
        ask(a, "do", "1"), ask(a, "do", "2"), ask(a, "do", "3");
        settle(w);
        ask_with_block(a, "do", 0, w->f->now + 300 * MILLISECOND);
        uint16_t last = ask_with_block(a, "do", 1, 0);
        settle(w);
        EQUAL(in_use(a), 2);
        withdraw(a, last);
        settle(w);
        wait_for_pool(a);
        EQUAL(in_use(a), 1);
        advance(w, 400 * MILLISECOND);
        EQUAL(in_use(a), 0);
        if (how == 1)
            hand_over(w);
        EQUAL(in_use(a), 0);
        for (int i = 0; i < 2; i++) {
            CHECK(take(b, &m) && !(m.header.flags & SB_POOLED));
            CHECK(answer(b, &m, "done"));
            settle(w);
        }
        GETS_NOTHING(b);
        while (take(tap, &m))
            CHECK(!(m.header.flags & SB_POOLED));
        EQUAL(in_use(a), 0);
        EQUAL(rb_load(&w->bus->violations), 0);
        close_world(w);
    }
}

TEST(replies_that_nobody_waits_for_free_their_memory)
{
    for (int how = 0; how < 2; how++) {
        struct world *w = new_world();
        struct peer *a = join_pooled(w, "a"), *b = join_pooled(w, "b");
        struct message m;
        handle(a, "do");
        uint16_t first = ask_with_block(b, "do", 0, 0);
        ask_with_block(b, "do", 1, w->f->now + 300 * MILLISECOND);
        uint16_t third = ask_with_block(b, "do", 2, 0);
        ask_with_block(b, "do", 3, 0);
        settle(w);
        for (uint32_t i = 0; i < 4; i++) {
            CHECK(take(a, &m));
            answer_with_block(a, &m, i == 2 ? SB_PART : SB_REPLY, i);
        }
        wait_for_pool(a);
        EQUAL(in_use(a), 4);
        withdraw(b, first);
        withdraw(b, third);
        advance(w, 100 * MILLISECOND);
        EQUAL(in_use(a), 2);
        advance(w, 800 * MILLISECOND); /* its deadline is over, but it may look at it yet */
        EQUAL(in_use(a), 2);
        advance(w, 1000 * MILLISECOND);
        EQUAL(in_use(a), 1); /* the fourth is waited for */
        if (how == 1)
            hand_over(w);
        EQUAL(in_use(a), 1);
        EQUAL(rb_load(&b->down->lost), 0);
        for (int i = 0; i < 3; i++)
            CHECK(take_reply(b, &m) && !m.header.interests);
        CHECK(take_reply(b, &m) && m.header.interests);
        EQUAL(rb_load(&w->bus->violations), 0);
        close_world(w);
    }
}

TEST(what_is_lost_so_is_counted_once_though_it_dies)
{
    for (int how = 0; how < 2; how++) {
        struct world *w = new_world();
        struct peer *a = join_pooled(w, "a"), *b = join_pooled(w, "b");
        subscribe(b, "x");
        put_event(a, "x", 0, 0);
        put_event(a, "x", 1, SB_URGENT);
        wait_for_pool(a);
        advance(w, 2 * SECOND);
        if (how == 1)
            hand_over(w);
        EQUAL(in_use(a), 0);
        publish(a, "x", "small");
        settle(w);
        die(b, SB_REASON_KILLED);
        EQUAL(rb_load(&w->bus->lost_by[SB_LOSS_SLOW]), 2);
        EQUAL(rb_load(&w->bus->lost_by[SB_LOSS_ENDED]), 1);
        close_world(w);
    }
}

static bool page_is_free(const struct peer *p, uint32_t index)
{
    return rb_load(&p->down->returned[index]) == rb_load(&p->pool->blocks[index].use);
}

TEST(who_would_rather_lose_has_a_quarter_of_a_pool_untaken_and_nobody_waits)
{
    struct world *w = new_world();
    struct peer *a = join_pooled(w, "a"), *idle = join_pooled(w, "idle"), *busy = join_pooled(w, "busy"),
                *tap = join_pooled(w, "tap");
    struct message m;
    subscribe_lossy(idle, "x");
    subscribe(busy, "x");
    commit_interest(tap, (struct sb_interest){.op = SB_INTEREST_ADD, .role = SB_ROLE_OBSERVE}, "x", "");
    for (uint32_t i = 0; i < POOL_PAGES; i++) {
        put_page(a, "x", i);
        CHECK(take_shared(busy, &m));
        look_at_none(busy);
        EQUAL(in_use(a), i < POOL_PAGES / 4 ? i + 1 : POOL_PAGES / 4); /* both have the same */
    }
    EQUAL(rb_load(&idle->down->lost_by[SB_LOSS_DROPPED]), POOL_PAGES * 3 / 4);
    CHECK(rb_load(&tap->down->lost_by[SB_LOSS_DROPPED]) >= POOL_PAGES * 3 / 4);
    EQUAL(rb_load(&busy->down->lost), 0);
    CHECK(!(rb_load(&w->f->rows[idle->slot].health) & SB_SLOW));
    CHECK(take(tap, &m) && take(tap, &m)); /* for each of two it had one */
    CHECK(take_shared(idle, &m));          /* what it looks at is not untaken */
    put_page(a, "x", POOL_PAGES - 1);
    EQUAL(rb_load(&idle->down->lost), POOL_PAGES * 3 / 4);
    for (uint32_t i = 1; i < POOL_PAGES / 4; i++)
        CHECK(take(idle, &m));
    CHECK(take(idle, &m));
    EQUAL(m.header.lost, POOL_PAGES * 3 / 4);
    close_world(w);
}

TEST(those_who_would_rather_lose_share_a_quarter_of_a_pool_and_the_first_leaves_some_to_the_others)
{
    struct world *w = new_world();
    struct peer *a = join_pooled(w, "a"), *idle[3];
    for (uint32_t i = 0, page = 0; i < 3; i++) {
        idle[i] = join_pooled(w, (const char *[]){"first", "second", "third"}[i]);
        subscribe_lossy(idle[i], "x");
        for (uint32_t k = 0; k < POOL_PAGES / 4 + 1; k++, page++) {
            while (!page_is_free(a, page % POOL_PAGES))
                page++;
            put_page(a, "x", page % POOL_PAGES);
        }
        if (i == 1)
            hand_over(w);
    }
    EQUAL(in_use(a), POOL_PAGES / 4 + POOL_PAGES / 8 + 1);
    EQUAL(rb_load(&idle[0]->down->lost_by[SB_LOSS_DROPPED]), 3 * (POOL_PAGES / 4 + 1) - POOL_PAGES / 4);
    EQUAL(rb_load(&w->bus->lost_by[SB_LOSS_SLOW]), 0);
    close_world(w);
}

TEST(what_one_that_would_rather_lose_has_goes_at_once_where_a_sender_waits)
{
    for (int how = 0; how < 4; how++) { /* 0: how it is; 1: after an adoption; 2: beside what yields; 3: in vain */
        struct world *w = open_world((struct plan){.history = 2, .retain_bytes = 1 << 20});
        struct peer *a = join_pooled(w, "a"), *idle = join_pooled(w, "idle"), *patient = join_pooled(w, "patient");
        struct message m;
        subscribe_lossy(idle, "x");
        if (how == 3)
            subscribe(patient, "y");
        struct sb_block large = block_at(a, 0, POOL_PAGES / 2 * DP_PAGE), other = block_at(a, POOL_PAGES - 1, DP_PAGE);
        uint16_t retain = how == 2 ? SB_RETAIN : 0;
        CHECK(put_block(a, SB_DATA, (struct sb_record){.kind = SB_EVENT, .flags = SB_RAW | retain}, "x", &large));
        flush(a);
        settle(w);
        if (how == 3)
            CHECK(put_block(a, SB_DATA, (struct sb_record){.kind = SB_EVENT, .flags = SB_RAW}, "y", &other));
        flush(a);
        settle(w);
        if (how == 1)
            hand_over(w);
        advance(w, 10 * SECOND);
        CHECK(!is_returned(a, &large));
        rb_store_seq(&a->up->pool_need, POOL_PAGES);
        advance(w, 100 * MILLISECOND);
        EQUAL(is_returned(a, &large), how != 3);
        EQUAL(rb_load(&idle->down->lost_by[SB_LOSS_DROPPED]), how != 3);
        EQUAL(rb_load(&w->bus->lost_by[SB_LOSS_SLOW]), 0);
        CHECK(!(rb_load(&w->f->rows[idle->slot].health) & SB_SLOW));
        CHECK(take(idle, &m));
        EQUAL(m.header.interests, how == 3 ? SB_PLAIN : 0);
        close_world(w);
    }
}

TEST(who_would_rather_lose_gets_what_it_has_nothing_beside_however_large)
{
    struct world *w = new_world();
    struct peer *a = join_pooled(w, "a"), *idle = join_pooled(w, "idle");
    struct message m;
    subscribe_lossy(idle, "x");
    for (int round = 0; round < 2; round++) {
        struct sb_block block = block_at(a, 0, POOL_PAGES / 2 * DP_PAGE);
        CHECK(put_block(a, SB_DATA, (struct sb_record){.kind = SB_EVENT, .flags = SB_RAW}, "x", &block));
        block = block_at(a, POOL_PAGES - 1, DP_PAGE); /* of one batch with it */
        CHECK(put_block(a, SB_DATA, (struct sb_record){.kind = SB_EVENT, .flags = SB_RAW}, "x", &block));
        flush(a);
        settle(w);
        EQUAL(rb_load(&idle->down->lost), round + 1);
        CHECK(is_returned(a, &block));
        CHECK(take(idle, &m));
        look_at_none(idle);
        EQUAL(in_use(a), 0);
    }
    close_world(w);
}

TEST(what_waits_for_one_that_catches_up_and_takes_nothing_is_lost_there_too)
{
    for (int how = 0; how < 3; how++) {
        struct world *w = open_world((struct plan){.history = 100, .retain_bytes = 1 << 16});
        struct peer *a = join_pooled(w, "a"), *idle = join_sized(w, "idle", (struct size){.data_in = 1024});
        struct message m;
        uint32_t heard = 0;
        make_pool(idle);
        for (int i = 0; i < 50; i++)
            retain(a, "x", "small");
        settle(w);
        put_event(a, "x", 0, SB_RETAIN);
        struct late_ear late = subscribe_late(idle, "x", 100);
        put_event(a, "x", 1, 0);
        put_event(a, "x", 2, SB_RETAIN);
        EQUAL(w->f->catching_up != 0, true);
        EQUAL(in_use(a), 3);
        if (how == 1)
            hand_over(w);
        wait_for_pool(a);
        advance(w, 800 * MILLISECOND);
        EQUAL(rb_load(&idle->down->lost), 0);
        advance(w, 200 * MILLISECOND);
        EQUAL(in_use(a), 2); /* which are kept */
        EQUAL(rb_load(&idle->down->lost_by[SB_LOSS_SLOW]), 3);
        if (how == 1)
            hand_over(w);
        struct sb_block more = put_event(a, "x", 3, 0); /* it is slow: at once */
        CHECK(is_returned(a, &more));
        if (how == 2) {
            die(idle, SB_REASON_KILLED);
            EQUAL(rb_load(&w->bus->lost), 4);
        }
        for (; how < 2 && hear(&late, &m); settle(w), heard++)
            CHECK(strcmp(m.text, "small") == 0);
        EQUAL(heard, how < 2 ? 50 : 0);
        EQUAL(late.live, how < 2);
        EQUAL(rb_load(&w->bus->violations), 0);
        close_world(w);
    }
}

TEST(where_all_pools_together_have_too_much_nobody_waits_for_who_takes_nothing_of_any)
{
    struct world *w = open_world((struct plan){.pool_total_bytes = (2 * POOL_PAGES + 4) * DP_PAGE});
    struct peer *a = join_pooled(w, "a"), *idle = join_pooled(w, "idle"), *c = join_pooled(w, "c");
    subscribe(idle, "x");
    put_event(a, "x", 0, 0);
    EQUAL(sb_pool_pages(rb_load(&c->down->pool_granted)), 4);
    EQUAL(rb_load(&w->bus->pools_short), (POOL_PAGES - 4) * DP_PAGE);
    EQUAL(asks(c, 2, POOL_PAGES), 4); /* that is what it needs */
    wait_for_pool(c);
    advance(w, 800 * MILLISECOND);
    EQUAL(in_use(a), 1);
    advance(w, 200 * MILLISECOND);
    EQUAL(in_use(a), 0);
    EQUAL(rb_load(&idle->down->lost_by[SB_LOSS_SLOW]), 1);
    rb_store_release(&a->up->pool_asked, sb_pool_question(2, 0)); /* what it has given back */
    raise_ready(a);
    settle(w);
    EQUAL(sb_pool_pages(rb_load(&c->down->pool_granted)), POOL_PAGES);
    EQUAL(rb_load(&w->bus->pools_short), 0);
    close_world(w);
}

TEST(of_what_would_not_be_enough_nothing_is_lost)
{
    for (int how = 0; how < 4; how++) {
        struct world *w = open_world((struct plan){.pool_total_bytes = (2 * POOL_PAGES + 4) * DP_PAGE});
        struct peer *a = join_pooled(w, "a"), *idle = join_pooled(w, "idle"), *c;
        struct message m;
        subscribe(idle, "x");
        put_event(a, "x", 0, 0);
        if (how == 0 || how == 3) { /* somebody looks at what lies behind that, or too far behind */
            CHECK(take_shared(idle, &m));
            put_event(a, "x", how ? 5 : 9, 0);
            CHECK(take_shared(idle, &m));
            look_no_more(idle, 0);
            settle(w);
            put_event(a, "x", how ? 9 : 1, 0);
        }
        if (how == 1) /* or it is lent */
            rb_store(&a->up->pool_in_use, 2 * DP_PAGE);
        c = join(w, "c");
        c->up->pool_limit = POOL_PAGES * DP_PAGE;
        if (how == 2) { /* or it is not its turn */
            join_pooled(w, "first");
            subscribe_group(idle, "y", "work", 1);
            put_event(a, "y", 15, 0);
        }
        make_pool(c);
        CHECK(asks(c, 2, POOL_PAGES) < POOL_PAGES);
        wait_for_pool(c);
        advance(w, 5 * SECOND);
        EQUAL(rb_load(&idle->down->lost), 0);
        EQUAL(in_use(a), how == 1 ? 1 : 2);
        EQUAL(rb_load(&w->bus->violations), 0);
        close_world(w);
    }
}

TEST(what_is_kept_in_pools_of_the_living_yields_to_who_lacks_memory_as_far_as_that_needs_it)
{
    struct world *w = open_world((struct plan){.history = 1, .retain_bytes = 1 << 20,
                                               .pool_total_bytes = (POOL_PAGES + 10) * DP_PAGE});
    struct peer *a = join_pooled(w, "a"), *c;
    for (uint32_t i = 0; i < 8; i++)
        put_event(a, i % 2 ? "odd" : "even", i, SB_RETAIN);
    put_event(a, "last", 10, SB_RETAIN);
    EQUAL(rb_load(&w->bus->retained), 3); /* 6, 7, 10 */
    c = join_pooled(w, "c");
    EQUAL(asks(c, 2, POOL_PAGES), 10);
    wait_for_pool(c);
    advance(w, 500 * MILLISECOND);
    EQUAL(rb_load(&w->bus->retained), 3);
    advance(w, 500 * MILLISECOND);
    EQUAL(rb_load(&w->bus->retained), 2); /* 8 to 15 are enough */
    EQUAL(rb_load(&w->bus->evicted), 1);
    rb_store_release(&a->up->pool_asked, sb_pool_question(2, 8));
    raise_ready(a);
    settle(w);
    EQUAL(sb_pool_pages(rb_load(&c->down->pool_granted)), POOL_PAGES);
    close_world(w);
}

TEST(nothing_is_lacking_any_more_where_who_lacked_it_has_gone)
{
    for (int adopted = 0; adopted < 2; adopted++) {
        struct world *w = open_world((struct plan){.pool_total_bytes = POOL_PAGES * DP_PAGE});
        struct peer *a = join_pooled(w, "a"), *b = join_pooled(w, "b");
        EQUAL(rb_load(&w->bus->pools_short), POOL_PAGES * DP_PAGE);
        if (adopted) {
            rb_store(&w->bus->pools_short, 0); /* the one before was killed when it was about to say so */
            hand_over(w);
            EQUAL(rb_load(&w->bus->pools_short), POOL_PAGES * DP_PAGE);
        }
        die(b, SB_REASON_KILLED);
        advance(w, 200 * MILLISECOND);
        EQUAL(rb_load(&w->bus->pools_short), 0);
        EQUAL(in_use(a), 0);
        close_world(w);
    }
}
