/* Payloads in pools: what is sent with a block is shared by its receivers, and comes back when all have looked. */
#include "harness.h"
#include "pooled.h"

TEST(a_block_comes_back_when_all_have_looked)
{
    struct world *w = new_world();
    struct peer *a = join_pooled(w, "a"), *b = join_pooled(w, "b"), *c = join_pooled(w, "c");
    struct message m;
    subscribe(a, "x");
    subscribe(b, "x");
    struct sb_block block = publish_block(c, "x", 0, "picture");
    settle(w);
    CHECK(!is_returned(c, &block));
    CHECK(take_shared(a, &m) && take_shared(b, &m));
    EQUAL(block_of(&m).length, strlen("picture"));
    settle(w);
    CHECK(!is_returned(c, &block));
    look_no_more(a, 0);
    settle(w);
    CHECK(!is_returned(c, &block));
    look_no_more(b, 0);
    settle(w);
    CHECK(is_returned(c, &block));
    close_world(w);
}

TEST(what_nobody_gets_comes_back_at_once)
{
    struct world *w = new_world();
    struct peer *a = join_pooled(w, "a"), *slow = join_pooled(w, "slow");
    struct sb_block block = publish_block(a, "x", 0, "to nobody");
    settle(w);
    CHECK(is_returned(a, &block));
    subscribe_lossy(slow, "y");
    for (int i = 0; i < 3; i++)
        CHECK(publish_bytes(a, "y", 16000));
    settle(w);
    while (rb_load(&slow->down->lost) == 0) {
        CHECK(publish_bytes(a, "y", 8));
        settle(w);
    }
    block = publish_block(a, "y", 1, "lost");
    settle(w);
    CHECK(is_returned(a, &block));
    EQUAL(rb_load(&w->bus->violations), 0);
    close_world(w);
}

TEST(who_waits_for_a_block_is_rung)
{
    struct world *w = new_world();
    struct peer *a = join_pooled(w, "a"), *b = join_pooled(w, "b");
    struct message m;
    subscribe(b, "x");
    publish_block(a, "x", 0, "1");
    settle(w);
    CHECK(take_shared(b, &m));
    rb_store(&a->up->pool_need, 1);
    rb_store(&a->up->bell, rb_load(&a->up->bell) + 1); /* it sleeps */
    while (sem_trywait(&a->bell) == 0) {
    }
    look_no_more(b, 0);
    settle(w);
    EQUAL(in_use(a), 0);
    CHECK(sem_trywait(&a->bell) == 0);
    close_world(w);
}

TEST(requests_replies_and_parts_have_blocks_too)
{
    struct world *w = new_world();
    struct peer *a = join_pooled(w, "a"), *b = join_pooled(w, "b");
    struct message m, r;
    handle(b, "ask");
    struct sb_block question = block_at(a, 0, 100), part = block_at(b, 0, 200), end = block_at(b, 1, 300);
    struct sb_record h = {.kind = SB_REQUEST, .flags = SB_RAW, .attempt = 1};
    sb_make_id(a->pending[0].id, a->generation, ++a->counter, 0);
    rb_store_release(&a->pending[0].state, SB_PENDING_WAITING);
    memcpy(h.correlation, a->pending[0].id, 16);
    CHECK(put_block(a, SB_DATA, h, "ask", &question));
    flush(a);
    settle(w);
    CHECK(take_shared(b, &m));
    EQUAL(block_of(&m).length, 100);
    struct sb_record answer_to = {.kind = SB_PART, .flags = SB_RAW, .peer = m.header.peer,
                                  .peer_generation = m.header.peer_generation};
    memcpy(answer_to.correlation, m.header.correlation, 16);
    CHECK(put_block(b, SB_REPLIES, answer_to, "", &part));
    answer_to.kind = SB_REPLY;
    CHECK(put_block(b, SB_REPLIES, answer_to, "", &end));
    flush(b);
    settle(w);
    EQUAL(in_use(a), 1);
    EQUAL(in_use(b), 2);
    uint64_t position = a->in[SB_REPLIES].next;
    enter(a, sb_share_of(position, SB_REPLIES), &part);
    CHECK(take_reply(a, &r));
    EQUAL(block_of(&r).length, 200);
    CHECK(take_reply(a, &r)); /* that one it has copied */
    EQUAL(block_of(&r).length, 300);
    look_no_more(b, 0);
    look_no_more(a, 0);
    settle(w);
    EQUAL(in_use(a), 0);
    EQUAL(in_use(b), 0);
    close_world(w);
}

TEST(an_observer_has_a_share)
{
    struct world *w = new_world();
    struct peer *a = join_pooled(w, "a"), *b = join_pooled(w, "b"), *tap = join_pooled(w, "tap");
    struct message m;
    subscribe(b, "x");
    commit_interest(tap, (struct sb_interest){.op = SB_INTEREST_ADD, .role = SB_ROLE_OBSERVE}, ">", "");
    publish_block(a, "x", 0, "seen");
    settle(w);
    CHECK(take(b, &m) && take_shared(tap, &m));
    EQUAL(m.header.kind, SB_TAP);
    look_no_more(b, 0);
    settle(w);
    EQUAL(in_use(a), 1);
    look_no_more(tap, 0);
    settle(w);
    EQUAL(in_use(a), 0);
    close_world(w);
}

TEST(what_waits_in_a_backlog_keeps_its_block)
{
    struct world *w = open_world((struct plan){.prefetch = 1});
    struct peer *a = join_pooled(w, "a"), *b = join_pooled(w, "b"), *c = join_pooled(w, "c");
    struct message m;
    handle(b, "do");
    handle(c, "do");
    for (uint32_t i = 0; i < 3; i++) {
        struct sb_block block = block_at(a, i, 10 + i);
        CHECK(put_block(a, SB_DATA, (struct sb_record){.kind = SB_SEND, .flags = SB_RAW}, "do", &block));
    }
    flush(a);
    settle(w);
    CHECK(w->f->backlogs_open);
    EQUAL(in_use(a), 3);
    uint32_t had = 0;
    for (int i = 0; i < 3; i++)
        for (int k = 0; k < 2; k++) {
            struct peer *p = k ? b : c;
            if (take_shared(p, &m)) {
                had += (uint32_t)block_of(&m).length;
                look_no_more(p, 0);
            }
            settle(w);
        }
    EQUAL(had, 10 + 11 + 12);
    EQUAL(in_use(a), 0);
    close_world(w);
}

static const struct sb_record send_header = {.kind = SB_SEND, .flags = SB_RAW};

TEST(what_a_dead_one_leaves_is_handed_on_with_its_block)
{
    struct world *w = new_world();
    struct peer *a = join_pooled(w, "a"), *b = join_pooled(w, "b"), *c = join_pooled(w, "c");
    struct message m;
    handle(b, "do");
    struct sb_block block = block_at(a, 0, 10), begun = block_at(a, 1, 11);
    CHECK(put_block(a, SB_DATA, send_header, "do", &block));
    CHECK(put_block(a, SB_DATA, (struct sb_record){.kind = SB_EVENT, .flags = SB_RAW}, "e", &begun));
    subscribe(b, "e");
    flush(a);
    settle(w);
    handle(c, "do");
    CHECK(take_shared(b, &m)); /* the event, or the command */
    die(b, SB_REASON_KILLED);
    CHECK(b->reclaimed);
    EQUAL(in_use(a), m.header.kind == SB_EVENT);
    while (take_shared(c, &m)) {
    }
    look_no_more(c, 0);
    settle(w);
    EQUAL(in_use(a), 0);
    close_world(w);
}

TEST(what_is_given_back_goes_on_with_its_block)
{
    struct world *w = new_world();
    struct peer *a = join_pooled(w, "a"), *b = join_pooled(w, "b"), *c = join_pooled(w, "c");
    struct message m;
    handle(b, "do");
    struct sb_block block = block_at(a, 0, 10);
    CHECK(put_block(a, SB_DATA, send_header, "do", &block));
    flush(a);
    settle(w);
    CHECK(begin_shared(b, &m));
    handle(c, "do");
    settle(w);
    return_block(b, &m, false);
    settle(w);
    EQUAL(in_use(a), 1);
    CHECK(take_shared(c, &m));
    EQUAL(block_of(&m).length, 10);
    CHECK(m.header.flags & SB_REDELIVERED);
    look_no_more(c, 0);
    settle(w);
    EQUAL(in_use(a), 0);
    EQUAL(rb_load(&w->bus->violations), 0);
    close_world(w);
}

TEST(what_is_given_back_is_what_came)
{
    for (int how = 0; how < 2; how++) {
        struct world *w = new_world();
        struct peer *a = join_pooled(w, "a"), *b = join_pooled(w, "b"), *c = join_pooled(w, "c");
        struct message m;
        handle(b, "do");
        struct sb_block block = block_at(a, 0, 10);
        CHECK(put_block(a, SB_DATA, send_header, "do", &block));
        flush(a);
        settle(w);
        CHECK(begin_shared(b, &m));
        handle(c, "do");
        block.offset += how ? DP_PAGE : 0;
        block.length += how ? 0 : 1;
        memcpy(m.text, &block, sizeof block);
        return_block(b, &m, false);
        settle(w);
        CHECK(b->quarantined);
        close_world(w);
    }
}

TEST(what_one_that_closes_leaves_undone_waits_for_space_with_its_block)
{
    struct world *w = new_world();
    struct peer *a = join_pooled(w, "a"), *b = join_pooled(w, "b");
    struct peer *c = join_sized(w, "c", (struct size){.data_in = 1024});
    struct message m;
    make_pool(c);
    handle(b, "do");
    struct sb_block block = block_at(a, 0, 10);
    CHECK(put_block(a, SB_DATA, send_header, "do", &block));
    flush(a);
    settle(w);
    CHECK(begin_shared(b, &m));
    handle(c, "do");
    subscribe(c, "y");
    for (const struct rb_producer *in = &w->f->ports[c->slot].in[SB_DATA]; in->capacity - in->published >= 104;) {
        publish(a, "y", "filling");
        settle(w);
    }
    say_closing(b);
    look_no_more(b, 0); /* it has a copy of its own */
    say_closed(b);
    advance(w, 500 * MILLISECOND);
    EQUAL(in_use(a), 1);
    while (take(c, &m) && !(m.header.flags & SB_POOLED))
        settle(w);
    EQUAL(block_of(&m).use, block.use);
    EQUAL(block_of(&m).length, 10);
    advance(w, 200 * MILLISECOND);
    EQUAL(in_use(a), 0);
    close_world(w);
}

TEST(what_one_that_closes_leaves_undone_is_handed_on_with_its_block)
{
    struct world *w = new_world();
    struct peer *a = join_pooled(w, "a"), *b = join_pooled(w, "b"), *c = join_pooled(w, "c");
    struct message m;
    handle(b, "do");
    struct sb_block block = block_at(a, 0, 10);
    CHECK(put_block(a, SB_DATA, send_header, "do", &block));
    flush(a);
    settle(w);
    CHECK(begin_shared(b, &m));
    handle(c, "do");
    say_closing(b);
    look_no_more(b, 0); /* it has a copy of its own */
    advance(w, 200 * MILLISECOND);
    say_closed(b);
    EQUAL(in_use(a), 1);
    CHECK(take_shared(c, &m));
    look_no_more(c, 0);
    settle(w);
    EQUAL(in_use(a), 0);
    close_world(w);
}

TEST(a_block_stays_while_one_of_several_has_no_space_for_it)
{
    struct world *w = new_world();
    struct peer *a = join_pooled(w, "a"), *b = join_pooled(w, "b");
    struct peer *c = join_sized(w, "c", (struct size){.data_in = 1024});
    struct message m;
    make_pool(c);
    subscribe(b, "x");
    subscribe(c, "x");
    subscribe(c, "y");
    for (const struct rb_producer *in = &w->f->ports[c->slot].in[SB_DATA]; in->capacity - in->published >= 104;) {
        publish(a, "y", "filling");
        settle(w);
    }
    struct sb_block block = publish_block(a, "x", 0, "1");
    settle(w);
    CHECK(take_shared(b, &m));
    look_no_more(b, 0);
    settle(w);
    CHECK(!is_returned(a, &block));
    while (take(c, &m) && !(m.header.flags & SB_POOLED))
        settle(w);
    EQUAL(block_of(&m).use, block.use);
    settle(w);
    advance(w, 200 * MILLISECOND);
    CHECK(is_returned(a, &block));
    close_world(w);
}

TEST(a_dead_letter_has_the_first_bytes_of_the_payload)
{
    struct world *w = new_world();
    struct peer *a = join_pooled(w, "a"), *b = join_pooled(w, "b"), *ear = join_pooled(w, "ear");
    struct message m;
    subscribe(ear, "$bus.undeliverable");
    struct sb_block block = block_at(a, 0, 2000);
    memset((uint8_t *)a->pool + block.offset, '.', 2000);
    memcpy((uint8_t *)a->pool + block.offset, "BEGIN", 5);
    CHECK(put_block(a, SB_DATA, send_header, "do", &block));
    flush(a);
    settle(w);
    CHECK(take(ear, &m));
    CHECK(mentions(&m, "nobody handles it") && mentions(&m, "BEGIN......."));
    EQUAL(in_use(a), 0);
    handle(b, "do");
    block = block_at(a, 1, 2000);
    memcpy((uint8_t *)a->pool + block.offset, "AGAIN", 5);
    CHECK(put_block(a, SB_DATA, send_header, "do", &block));
    flush(a);
    settle(w);
    CHECK(begin_shared(b, &m));
    return_block(b, &m, true);
    settle(w);
    CHECK(take(ear, &m));
    CHECK(mentions(&m, "its callback raised") && mentions(&m, "AGAIN"));
    EQUAL(in_use(a), 0);
    close_world(w);
}

TEST(a_block_that_was_let_go_is_not_handed_on)
{
    struct world *w = new_world();
    struct peer *a = join_pooled(w, "a"), *b = join_pooled(w, "b"), *c = join_pooled(w, "c");
    struct message m;
    handle(b, "do");
    struct sb_block block = block_at(a, 0, 10);
    CHECK(put_block(a, SB_DATA, send_header, "do", &block));
    flush(a);
    settle(w);
    CHECK(begin(b, &m)); /* it enters nothing */
    rb_store(&b->up->shares_ended, 1);
    raise_ready(b);
    settle(w);
    EQUAL(in_use(a), 0);
    handle(c, "do");
    die(b, SB_REASON_KILLED);
    GETS_NOTHING(c);
    EQUAL(rb_load(&w->bus->dead_letters), 1);
    close_world(w);
}

TEST(a_pool_outlives_its_endpoint_while_somebody_looks)
{
    struct world *w = new_world();
    struct peer *a = join_pooled(w, "a"), *b = join_pooled(w, "b"), *c = join_pooled(w, "c");
    struct message m;
    subscribe(b, "x");
    publish_block(a, "x", 0, "1");
    publish_block(a, "x", 1, "2");
    settle(w);
    CHECK(take_shared(b, &m));
    die(a, SB_REASON_KILLED);
    CHECK(a->reclaimed && a->pool);
    EQUAL(rb_load(&w->bus->pools_left), 1);
    CHECK(take_shared(b, &m));
    look_no_more(b, 0);
    settle(w);
    CHECK(a->pool);
    look_no_more(b, 1);
    settle(w);
    CHECK(!a->pool); /* its name is gone */
    EQUAL(rb_load(&w->bus->pools_left), 0);
    die(c, SB_REASON_KILLED); /* which has sent nothing by its own */
    CHECK(!c->pool);
    close_world(w);
}

static void evict_now(struct peer *p)
{
    struct dp_order order = {.kind = DP_EVICT, .slot = p->slot, .generation = p->generation,
                             .reason = SB_REASON_EVICTED};
    CHECK(dp_give_order(&p->world->f->orders, &order));
    settle(p->world);
}

TEST(who_is_evicted_has_a_second_to_copy_what_it_looks_at)
{
    for (int how = 0; how < 3; how++) {
        struct world *w = new_world();
        struct peer *a = join_pooled(w, "a"), *b = join_pooled(w, "b");
        struct message m;
        subscribe(b, "x");
        publish_block(a, "x", 0, "1");
        publish_block(a, "x", 1, "not taken");
        settle(w);
        CHECK(take_shared(b, &m));
        evict_now(b);
        advance(w, 100 * MILLISECOND);
        EQUAL(in_use(a), 2);
        CHECK(!b->reclaimed);
        if (how == 0)
            look_no_more(b, 0);
        if (how == 1)
            rb_store(&b->up->state, SB_UP_CLOSED);
        advance(w, how == 2 ? SECOND : 100 * MILLISECOND);
        CHECK(b->reclaimed);
        EQUAL(in_use(a), 0);
        close_world(w);
    }
}

TEST(a_block_that_no_endpoint_sends_is_the_senders_end)
{
    for (int how = 0; how < 13; how++) {
        struct world *w = new_world();
        struct peer *a = join_pooled(w, "a"), *b = join_pooled(w, "b");
        struct message m;
        subscribe(b, "x");
        struct sb_block block = publish_block(a, "x", 0, "good"), bad = block_at(a, 1, 10);
        settle(w);
        CHECK(take_shared(b, &m));
        struct sb_record h = {.kind = SB_EVENT, .flags = SB_RAW | SB_POOLED};
        uint64_t length = SB_HEADER + 1 + sizeof bad, at = rb_end_after(&a->out[SB_DATA], length) - RB_ALIGN8(length);
        bad.use = sb_use(at, SB_DATA);
        switch (how) {
        case 0: bad.use = sb_use(at, SB_REPLIES); break;
        case 1: bad.use = block.use; break;
        case 2: bad.index = SB_BLOCKS; break;
        case 3: bad.offset = SB_POOL_DATA - DP_PAGE; break;
        case 4: bad.offset += 8; break;
        case 5: bad.length = 0; break;
        case 6: bad.length = a->pool_size; break;
        case 7: bad.offset = ~0ull - DP_PAGE + 1; break;
        case 8: bad.index = 0; break; /* which is in use */
        case 9: bad.pool_slot = (uint16_t)b->slot; bad.pool_generation = b->generation; break;
        case 10: bad.pool_generation++; break;
        case 11:
            bad.use = block.use;
            h = (struct sb_record){.kind = SB_NACK, .flags = SB_RAW | SB_POOLED, .interests = SB_PLAIN, .attempt = 2,
                                   .peer = (uint16_t)b->slot, .peer_generation = b->generation};
            break;
        case 12: bad.offset += DP_PAGE * asks(a, 2, 4); break; /* beyond what it may have */
        }
        CHECK(put(a, SB_DATA, h, "x", &bad, sizeof bad));
        flush(a);
        settle(w);
        EQUAL(rb_load(&w->bus->violations), 1);
        CHECK(a->quarantined);
        GETS_NOTHING(b);
        close_world(w);
    }
}

TEST(a_pooled_record_without_a_pool_or_whole_block_is_the_senders_end)
{
    for (int how = 0; how < 2; how++) {
        struct world *w = new_world();
        struct peer *a = join(w, "a");
        if (how)
            make_pool(a);
        struct sb_block block = {.offset = SB_POOL_DATA, .length = 1, .use = sb_use(0, SB_DATA),
                                 .pool_slot = (uint16_t)a->slot, .pool_generation = a->generation};
        CHECK(put(a, SB_DATA, (struct sb_record){.kind = SB_EVENT, .flags = SB_POOLED}, "x", &block,
                  sizeof block - (how ? 8 : 0)));
        flush(a);
        settle(w);
        CHECK(a->quarantined);
        close_world(w);
    }
}

/* An endpoint that may have a pool. */
static struct peer *join_large(struct world *w, const char *name)
{
    struct peer *p = join(w, name);
    p->up->pool_limit = POOL_PAGES * DP_PAGE;
    return p;
}

TEST(all_pools_together_have_no_more_than_they_may)
{
    struct world *w = open_world((struct plan){.pool_total_bytes = 10 * DP_PAGE});
    struct peer *a = join_large(w, "a"), *b = join_large(w, "b");
    EQUAL(asks(a, 1, 6), 6);
    EQUAL(asks(b, 1, 6), 4);
    EQUAL(rb_load(&w->bus->pools_granted), 10 * DP_PAGE);
    EQUAL(asks(a, 2, 5), 5);
    EQUAL(rb_load(&b->down->pool_granted), sb_pool_question(1, 5)); /* the same question, more */
    EQUAL(asks(a, 3, 8), 5);
    hand_over(w);
    EQUAL(rb_load(&w->bus->pools_granted), 10 * DP_PAGE);
    die(b, SB_REASON_KILLED);
    EQUAL(rb_load(&a->down->pool_granted), sb_pool_question(3, 8));
    EQUAL(rb_load(&w->bus->pools_granted), 8 * DP_PAGE);
    close_world(w);
}

TEST(of_a_pool_whose_endpoint_has_gone_what_is_held_counts)
{
    for (int closed = 0; closed < 2; closed++) {
        struct world *w = new_world();
        struct peer *a = join_pooled(w, "a"), *b = join_pooled(w, "b");
        struct message m;
        subscribe(b, "x");
        publish_block(a, "x", 3, "1");
        publish_block(a, "x", 5, "2");
        settle(w);
        CHECK(take_shared(b, &m) && take_shared(b, &m));
        EQUAL(rb_load(&w->bus->pools_granted), 2 * POOL_PAGES * DP_PAGE);
        if (closed) {
            rb_store(&a->pool->blocks[5].bytes, 0); /* the other it looks at still */
            say_closing(a);
            say_closed(a);
        } else {
            die(a, SB_REASON_KILLED);
        }
        CHECK(a->reclaimed && a->pool);
        EQUAL(rb_load(&w->bus->pools_granted), (POOL_PAGES + 2) * DP_PAGE);
        EQUAL(a->pool_freed, closed ? 0 : (POOL_PAGES - 2) * DP_PAGE); /* one that closes gives that back itself */
        look_no_more(b, 0);
        settle(w);
        EQUAL(rb_load(&w->bus->pools_granted), (POOL_PAGES + 1) * DP_PAGE);
        EQUAL(a->pool_freed, closed ? 0 : (POOL_PAGES - 1) * DP_PAGE);
        look_no_more(b, 1);
        settle(w);
        CHECK(!a->pool);
        EQUAL(rb_load(&w->bus->pools_granted), POOL_PAGES * DP_PAGE);
        close_world(w);
    }
}

TEST(who_has_waited_longest_for_memory_gets_it)
{
    struct world *w = open_world((struct plan){.pool_total_bytes = 10 * DP_PAGE});
    struct peer *a = join_large(w, "a"), *b = join_large(w, "b"), *c = join_large(w, "c");
    EQUAL(asks(a, 1, 4), 4);
    EQUAL(asks(b, 1, 4), 4);
    EQUAL(asks(c, 1, 6), 2);
    EQUAL(asks(a, 2, 6), 4);
    EQUAL(asks(b, 2, 1), 1);
    EQUAL(rb_load(&c->down->pool_granted), sb_pool_question(1, 5));
    EQUAL(asks(b, 3, 0), 0);
    EQUAL(rb_load(&c->down->pool_granted), sb_pool_question(1, 6));
    EQUAL(rb_load(&a->down->pool_granted), sb_pool_question(2, 4));
    EQUAL(asks(c, 2, 0), 0);
    EQUAL(rb_load(&a->down->pool_granted), sb_pool_question(2, 6));
    close_world(w);
}

TEST(one_that_closes_may_still_need_memory)
{
    struct world *w = new_world();
    struct peer *a = join_large(w, "a");
    say_closing(a);
    EQUAL(asks(a, 1, 6), 6);
    close_world(w);
}

TEST(the_bus_says_how_large_a_record_fits_all_who_may_get_it)
{
    struct world *w = new_world();
    struct peer *a = join(w, "a"), *b = join_sized(w, "b", (struct size){.data_in = 4096});
    EQUAL(rb_load(&w->bus->fits[SB_DATA]), 0); /* they only send */
    subscribe(a, "x");
    EQUAL(rb_load(&w->bus->fits[SB_DATA]), 65536 / 4);
    subscribe(b, "x");
    EQUAL(rb_load(&w->bus->fits[SB_DATA]), 1024);
    say_closing(b);
    EQUAL(rb_load(&w->bus->fits[SB_DATA]), 65536 / 4);
    close_world(w);
}

TEST(a_successor_knows_who_has_what)
{
    struct world *w = open_world((struct plan){.prefetch = 1});
    struct peer *a = join_pooled(w, "a"), *b = join_pooled(w, "b"), *c = join_pooled(w, "c"), *d = join_pooled(w, "d");
    struct message m;
    subscribe(b, "x");
    handle(b, "do");
    handle(c, "do");
    for (uint32_t i = 0; i < 3; i++)
        publish_block(a, "x", i, "1"); /* 0 is entered, 1 and 2 stand in the ring */
    settle(w);
    CHECK(take_shared(b, &m));
    struct sb_block in_backlog[3];
    for (uint32_t i = 0; i < 3; i++) {
        in_backlog[i] = block_at(a, 3 + i, 10);
        CHECK(put_block(a, SB_DATA, send_header, "do", &in_backlog[i]));
    }
    publish_block(a, "nobody", 6, "2");
    publish_block(d, "x", 0, "3");
    settle(w);
    EQUAL(in_use(a), 6);
    die(d, SB_REASON_KILLED);
    CHECK(d->pool);
    rb_store(&a->down->returned[6], 0); /* as if the last one had been killed before it said so */
    hand_over(w);
    EQUAL(in_use(a), 6);
    EQUAL(rb_load(&w->bus->pools_left), 1);
    hand_over(w);
    EQUAL(in_use(a), 6);
    look_no_more(b, 0);
    settle(w);
    EQUAL(in_use(a), 5);
    while (take(b, &m)) /* it keeps none */
        settle(w);
    while (take(c, &m))
        settle(w);
    rb_store(&b->up->shares_ended, 9);
    advance(w, 200 * MILLISECOND);
    EQUAL(in_use(a), 0);
    CHECK(!d->pool);
    EQUAL(rb_load(&w->bus->pools_left), 0);
    EQUAL(rb_load(&w->bus->violations), 0);
    close_world(w);
}

TEST(a_successor_knows_what_is_being_given_back)
{
    struct world *w = new_world();
    struct peer *a = join_pooled(w, "a"), *b = join_pooled(w, "b"), *c = join_pooled(w, "c");
    struct message m;
    handle(b, "do");
    struct sb_block block = block_at(a, 0, 10);
    CHECK(put_block(a, SB_DATA, send_header, "do", &block));
    flush(a);
    settle(w);
    CHECK(begin_shared(b, &m));
    handle(c, "do");
    return_block(b, &m, false);
    hand_over(w);
    EQUAL(in_use(a), 1);
    CHECK(take_shared(c, &m));
    look_no_more(c, 0);
    settle(w);
    EQUAL(in_use(a), 0);
    EQUAL(rb_load(&w->bus->violations), 0);
    close_world(w);
}

TEST(garbage_in_the_table_of_a_receiver_is_its_end)
{
    struct world *w = new_world();
    struct peer *a = join_pooled(w, "a"), *b = join_pooled(w, "b");
    struct sb_block block = block_at(a, 0, 10);
    enter(b, sb_share_of(800, SB_DATA), &block);
    rb_store(&b->pool->shares[0].block, 1ull << 63 | SB_BLOCKS);
    hand_over(w);
    CHECK(b->quarantined && !a->quarantined);
    close_world(w);
}

TEST(while_somebody_is_missing_no_block_comes_back)
{
    struct world *w = new_world();
    struct peer *a = join_pooled(w, "a"), *b = join_pooled(w, "b");
    struct message m;
    subscribe(b, "x");
    struct sb_block block = publish_block(a, "x", 0, "1");
    settle(w);
    CHECK(take(b, &m));
    close_forwarder(w->f);
    reopen(w);
    w->f->incomplete = true;
    dp_take_orders(w->f, true);
    dp_recover(w->f);
    advance(w, SECOND);
    CHECK(!is_returned(a, &block));
    block = publish_block(a, "x", 1, "2");
    settle(w);
    CHECK(take(b, &m));
    advance(w, SECOND);
    CHECK(is_returned(a, &block));
    close_world(w);
}

TEST(a_pool_that_was_never_finished_leaves_no_name)
{
    struct world *w = new_world();
    struct peer *a = join_pooled(w, "a"), *b = join(w, "b");
    char name[160];
    rb_store(&a->up->pool_bytes, 0); /* it is killed before it says so */
    die(a, SB_REASON_KILLED);
    CHECK(!a->pool);
    dp_pool_name(w->f, b->slot, b->generation + 7, name);
    dp_close_segment(dp_make_segment(name, 100), 100);
    hand_over(w);
    EQUAL(rb_load(&w->bus->pools_left), 0);
    dp_remove_segment(name);
    close_world(w);
}

TEST(tables_of_a_pool_that_are_not_reserved_are_not_read)
{
    struct world *w = new_world();
    struct peer *a = join_pooled(w, "a");
    char name[160];
    dp_pool_name(w->f, a->slot, a->generation, name);
    int fd = shm_open(name, O_RDWR, 0);
    CHECK(fd >= 0 && ftruncate(fd, 0) == 0 && ftruncate(fd, (off_t)a->pool_size) == 0);
    close(fd);
    hand_over(w);
    CHECK(w->f->ports[a->slot].pool && !w->f->ports[a->slot].pool->head);
    close_world(w);
}
