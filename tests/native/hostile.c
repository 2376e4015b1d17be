/* Garbage: whoever writes it is put out, with an event, and nobody else notices. */
#include "harness.h"

struct suspects { /* a bus in use, and one who will misbehave */
    struct world *w;
    struct peer *ear, *a, *b, *guilty;
};

static struct suspects suspects(void)
{
    struct suspects s = {.w = new_world()};
    s.ear = join(s.w, "ear");
    s.a = join(s.w, "a");
    s.b = join(s.w, "b");
    struct size size = {.data_out = 4096, .replies_out = 4096, .data_in = 4096, .replies_in = 4096, .requests = 4};
    s.guilty = join_sized(s.w, "guilty", size);
    subscribe(s.ear, "$bus.endpoint.down");
    subscribe(s.a, "x");
    subscribe(s.guilty, "x");
    handle(s.a, "ask");
    return s;
}

static void others_are_well(struct suspects *s)
{
    uint64_t lost = rb_load(&s->a->down->lost);
    count_messages(s->a);
    publish(s->b, "x", "still");
    settle(s->w);
    GETS(s->a, "still");
    ask(s->b, "ask", "well?");
    settle(s->w);
    struct message m;
    CHECK(take(s->a, &m) && answer(s->a, &m, "well"));
    settle(s->w);
    GETS_REPLY(s->b, "well");
    EQUAL(rb_load(&s->a->down->lost), lost);
    CHECK(!s->a->quarantined && !s->b->quarantined && !s->ear->quarantined);
    struct peer *late = join(s->w, "late");
    publish(late, "x", "late");
    settle(s->w);
    GETS(s->a, "late");
}

static void is_put_out(struct suspects *s)
{
    raise_ready(s->guilty);
    settle(s->w);
    CHECK(s->guilty->quarantined);
    struct message m;
    CHECK(take(s->ear, &m));
    CHECK(mentions(&m, "guilty") && mentions(&m, "quarantined"));
    GETS_NOTHING(s->ear);
    EQUAL(rb_load(&s->w->f->rows[s->guilty->slot].reason), SB_REASON_QUARANTINED);
    EQUAL(rb_load(&s->w->bus->violations), 1);
    others_are_well(s);
    advance(s->w, 3 * SECOND);
    CHECK(s->guilty->reclaimed);
    close_world(s->w);
}

/* Outgoing rings ----------------------------------------------------------------------------------------------- */

static void with_head(enum sb_ring_index ring, uint64_t head)
{
    struct suspects s = suspects();
    rb_store(&s.guilty->up->outgoing[ring].head, head);
    is_put_out(&s);
}

TEST(a_head_that_is_not_aligned) { with_head(SB_DATA, 4); }
TEST(a_head_beyond_the_capacity) { with_head(SB_DATA, 4096 + 8); }
TEST(a_head_far_away) { with_head(SB_REPLIES, 0xfffffffffffffff8ull); }

TEST(a_head_that_goes_backwards)
{
    struct suspects s = suspects();
    publish(s.guilty, "x", "1");
    settle(s.w);
    rb_store(&s.guilty->up->outgoing[SB_DATA].head, 8);
    is_put_out(&s);
}

/* A sound record, a bad one, another sound one. What came before is delivered, what comes after is not. */
static void with_record(enum sb_ring_index ring, struct sb_record bad, const char *type)
{
    struct suspects s = suspects();
    uint32_t length = bad.length;
    uint16_t type_length = bad.type_length;
    struct peer *g = s.guilty;
    if (ring == SB_DATA)
        CHECK(put(g, SB_DATA, (struct sb_record){.kind = SB_EVENT}, "x", "before", 6));
    uint64_t at = g->out[ring].next;
    CHECK(put(g, ring, bad, type, "bad", 3));
    struct sb_record *there = (struct sb_record *)(void *)(g->out[ring].data + at);
    if (length)
        there->length = length;
    if (type_length)
        there->type_length = type_length;
    CHECK(put(g, SB_DATA, (struct sb_record){.kind = SB_EVENT}, "x", "after", 5));
    flush(g);
    settle(s.w);
    struct message m;
    uint32_t before = 0;
    while (take(s.a, &m)) {
        CHECK(strcmp(m.text, "before") == 0 || (ring == SB_REPLIES && strcmp(m.text, "after") == 0));
        before += strcmp(m.text, "before") == 0;
    }
    EQUAL(before, ring == SB_DATA);
    is_put_out(&s);
}

#define EVENT(...) ((struct sb_record){.kind = SB_EVENT, __VA_ARGS__})
TEST(a_record_shorter_than_its_header) { with_record(SB_DATA, EVENT(.length = 63), "x"); }
TEST(a_record_of_no_length_that_means_it) { with_record(SB_DATA, EVENT(.length = 7), "x"); }
TEST(a_record_longer_than_what_was_published) { with_record(SB_DATA, EVENT(.length = 1000), "x"); }
TEST(a_record_longer_than_a_quarter_of_its_ring) { with_record(SB_DATA, EVENT(.length = 0xffffffff), "x"); }
TEST(a_type_longer_than_its_record) { with_record(SB_DATA, EVENT(.type_length = 200), "x"); }
TEST(a_type_longer_than_any) { with_record(SB_DATA, EVENT(.type_length = 256), "x"); }
TEST(an_extension_longer_than_its_record) { with_record(SB_DATA, EVENT(.extension_length = 5000), "x"); }
TEST(a_type_longer_than_any_in_a_record_that_holds_it)
{
    struct suspects s = suspects();
    char text[600];
    memset(text, 'x', sizeof text);
    struct rb_producer *out = &s.guilty->out[SB_DATA];
    struct sb_record *there = (struct sb_record *)(void *)(out->data + out->next);
    CHECK(put(s.guilty, SB_DATA, EVENT(0), "x", text, sizeof text));
    there->type_length = sizeof text;
    flush(s.guilty);
    settle(s.w);
    is_put_out(&s);
}
TEST(a_record_without_a_type) { with_record(SB_DATA, ((struct sb_record){.kind = SB_EVENT}), ""); }
TEST(a_type_with_an_empty_token) { with_record(SB_DATA, ((struct sb_record){.kind = SB_EVENT}), "x..y"); }
TEST(a_type_with_a_wildcard) { with_record(SB_DATA, ((struct sb_record){.kind = SB_EVENT}), "x.*"); }
TEST(a_type_with_a_space) { with_record(SB_DATA, ((struct sb_record){.kind = SB_EVENT}), "x y"); }
TEST(a_type_that_is_the_buss_own) { with_record(SB_DATA, EVENT(0), "$bus.endpoint.down"); }
TEST(a_cancel_with_a_payload) { with_record(SB_DATA, (struct sb_record){.kind = SB_CANCEL}, ""); }
TEST(a_cancel_with_a_type) { with_record(SB_DATA, (struct sb_record){.kind = SB_CANCEL}, "x"); }
TEST(a_cancel_among_the_replies) { with_record(SB_REPLIES, (struct sb_record){.kind = SB_CANCEL}, ""); }
TEST(a_cancel_of_an_entry_that_does_not_exist)
{
    struct suspects s = suspects();
    struct sb_record h = {.kind = SB_CANCEL, .correlation = {[15] = 4}};
    CHECK(put(s.guilty, SB_DATA, h, "", "", 0));
    flush(s.guilty);
    is_put_out(&s);
}

TEST(a_kind_that_does_not_exist) { with_record(SB_DATA, (struct sb_record){.kind = 77}, "x"); }
TEST(a_tap_from_an_endpoint) { with_record(SB_DATA, (struct sb_record){.kind = SB_TAP}, "x"); }
TEST(a_reply_among_the_data) { with_record(SB_DATA, (struct sb_record){.kind = SB_REPLY}, "x"); }
TEST(an_event_among_the_replies) { with_record(SB_REPLIES, (struct sb_record){.kind = SB_EVENT}, "x"); }
TEST(a_reply_to_a_slot_that_does_not_exist)
{
    with_record(SB_REPLIES, (struct sb_record){.kind = SB_REPLY, .peer = 999}, "x");
}

TEST(a_request_with_an_entry_that_does_not_exist)
{
    struct sb_record h = {.kind = SB_REQUEST};
    sb_make_id(h.correlation, 1, 1, 4);
    with_record(SB_DATA, h, "ask");
}

TEST(padding_that_does_not_reach_the_end_of_its_ring)
{
    with_record(SB_DATA, (struct sb_record){.kind = RB_PADDING}, "x");
}

/* Incoming rings ----------------------------------------------------------------------------------------------- */

TEST(a_tail_of_garbage_is_found_when_something_is_sent_there)
{
    const uint64_t tails[] = {4, 1u << 20, ~(uint64_t)7};
    for (int i = 0; i < 3; i++) {
        struct suspects s = suspects();
        rb_store(&s.guilty->up->incoming[SB_DATA].tail, tails[i]);
        for (int k = 0; k < 60; k++) /* until the old tail is no longer enough */
            CHECK(publish_bytes(s.b, "x", 100));
        settle(s.w);
        CHECK(s.guilty->quarantined);
        EQUAL(count_messages(s.a), 60);
        is_put_out(&s);
    }
}

TEST(who_wants_to_be_told_of_more_patterns_than_it_may_is_put_out)
{
    struct suspects s = suspects();
    char pattern[16];
    for (uint32_t i = 0; i < SB_OWN_MATCHINGS; i++) {
        snprintf(pattern, sizeof pattern, "m.%u", i);
        await_receivers(s.guilty, pattern);
    }
    CHECK(!s.guilty->quarantined);
    struct sb_interest one_more = {.op = SB_INTEREST_ADD, .role = SB_ROLE_MATCH};
    log_interest(s.guilty, one_more, "one.more", "");
    tell_interests(s.guilty);
    is_put_out(&s);
}

TEST(a_tail_of_garbage_is_found_by_the_next_dispatcher_at_once)
{
    struct suspects s = suspects();
    rb_store(&s.guilty->up->incoming[SB_DATA].tail, 4);
    close_forwarder(s.w->f);
    reopen(s.w);
    dp_take_orders(s.w->f, true);
    dp_recover(s.w->f);
    settle(s.w);
    CHECK(s.guilty->quarantined);
    is_put_out(&s);
}

TEST(a_tail_of_garbage_does_not_make_a_waiting_source_wait_for_block_timeout)
{
    struct suspects s = suspects();
    for (int k = 0; k < 60; k++)
        CHECK(publish_bytes(s.b, "x", 100));
    settle(s.w);
    uint64_t before = s.w->now;
    rb_store(&s.guilty->up->incoming[SB_DATA].tail, 4);
    raise_ready(s.guilty);
    settle(s.w);
    EQUAL(s.w->now, before);
    EQUAL(count_messages(s.a), 60);
    is_put_out(&s);
}

TEST(a_tail_of_garbage_in_the_reply_ring)
{
    struct suspects s = suspects();
    for (int i = 0; i < 60; i++) {
        rb_store(&s.guilty->up->incoming[SB_REPLIES].tail, 12);
        if (s.guilty->quarantined)
            break;
        rb_store(&s.guilty->pending[0].state, SB_PENDING_FREE);
        ask(s.guilty, "ask", "1");
        settle(s.w);
        struct message m;
        if (take(s.a, &m))
            CHECK(answer(s.a, &m, "a reply that takes some space, so that the ring fills soon"));
        settle(s.w);
    }
    is_put_out(&s);
}

TEST(a_tail_in_the_midst_of_a_record_leads_nowhere_when_its_writer_is_seen_off)
{
    for (uint64_t at = 8; at < 800; at += 8) {
        struct suspects s = suspects();
        subscribe_group(s.guilty, "job", "g", 1);
        char text[400];
        uint64_t dice = at;
        for (int i = 0; i < 3; i++) {
            for (size_t k = 0; k < sizeof text; k++)
                text[k] = (char)(1 + draw(&dice) % 255);
            text[draw(&dice) % sizeof text] = 0;
            text[sizeof text - 1] = 0;
            publish(s.b, "job", text);
        }
        settle(s.w);
        rb_store(&s.guilty->up->incoming[SB_DATA].tail, at);
        die(s.guilty, SB_REASON_KILLED);
        advance(s.w, 3 * SECOND);
        CHECK(s.guilty->reclaimed);
        count_messages(s.ear);
        others_are_well(&s);
        close_world(s.w);
    }
}

TEST(what_looks_like_a_record_in_the_midst_of_one_leads_nowhere_when_its_writer_is_seen_off)
{
    for (uint16_t type_length = 0; type_length <= 8; type_length += 8) { /* none, and beyond its end */
        struct suspects s = suspects();
        subscribe(s.guilty, "job.done");
        struct sb_record within = {.length = SB_HEADER, .kind = SB_SEND, .peer = (uint16_t)s.b->slot,
                                   .type_length = type_length};
        struct sb_record event = {.kind = SB_EVENT, .flags = SB_RAW};
        CHECK(put(s.b, SB_DATA, event, "job.done", &within, sizeof within));
        flush(s.b);
        settle(s.w);
        rb_store(&s.guilty->up->incoming[SB_DATA].tail, SB_HEADER + strlen("job.done"));
        die(s.guilty, SB_REASON_KILLED);
        advance(s.w, 3 * SECOND);
        CHECK(s.guilty->reclaimed);
        EQUAL(rb_load(&s.w->bus->dead_letters), 0);
        count_messages(s.ear);
        others_are_well(&s);
        close_world(s.w);
    }
}

/* Interests ---------------------------------------------------------------------------------------------------- */

static void with_interest(struct sb_interest e, const char *pattern, const char *group)
{
    struct suspects s = suspects();
    log_interest(s.guilty, e, pattern, group);
    tell_interests(s.guilty);
    is_put_out(&s);
}

#define ADD .op = SB_INTEREST_ADD, .role = SB_ROLE_SUBSCRIBE
TEST(an_interest_in_an_empty_token) { with_interest((struct sb_interest){ADD}, "a..b", ""); }
TEST(an_interest_with_a_rest_in_the_middle) { with_interest((struct sb_interest){ADD}, "a.>.b", ""); }
TEST(an_interest_in_nothing) { with_interest((struct sb_interest){ADD}, "", ""); }
TEST(an_interest_in_control_characters) { with_interest((struct sb_interest){ADD}, "a.\n", ""); }
TEST(an_interest_of_an_unknown_role) { with_interest((struct sb_interest){.op = SB_INTEREST_ADD, .role = 9}, "a", ""); }
TEST(an_unknown_operation_on_interests)
{
    with_interest((struct sb_interest){.op = 9, .role = SB_ROLE_SUBSCRIBE}, "a", "");
}
TEST(an_interest_of_a_bit_that_does_not_exist) { with_interest((struct sb_interest){ADD, .bit = 32}, "a", "g"); }
TEST(an_interest_in_a_group_without_a_name) { with_interest((struct sb_interest){ADD, .bit = 3}, "a", ""); }
TEST(the_same_interest_twice) { with_interest((struct sb_interest){ADD, .id = 1}, "a", ""); }

static void with_log(uint64_t offset, uint64_t value, unsigned size)
{
    struct suspects s = suspects();
    uint64_t at = rb_load(&s.guilty->log->bytes);
    log_interest(s.guilty, (struct sb_interest){ADD}, "a", "");
    memcpy((uint8_t *)(s.guilty->log + 1) + at + offset, &value, size);
    tell_interests(s.guilty);
    is_put_out(&s);
}

TEST(an_interest_longer_than_the_log) { with_log(offsetof(struct sb_interest, length), 5000, 4); }
TEST(an_interest_of_no_length) { with_log(offsetof(struct sb_interest, length), 0, 4); }
TEST(a_pattern_longer_than_its_entry) { with_log(offsetof(struct sb_interest, pattern_length), 200, 2); }
TEST(a_description_longer_than_its_entry) { with_log(offsetof(struct sb_interest, description_length), 9000, 4); }
TEST(a_description_longer_than_any_log) { with_log(offsetof(struct sb_interest, description_length), ~0u, 4); }
TEST(a_group_longer_than_its_entry) { with_log(offsetof(struct sb_interest, group_length), 60000, 2); }

TEST(a_log_that_says_it_is_longer_than_its_segment)
{
    struct suspects s = suspects();
    rb_store(&s.guilty->log->bytes, s.guilty->log_size);
    tell_interests(s.guilty);
    is_put_out(&s);
}

TEST(a_log_of_another_layout)
{
    struct suspects s = suspects();
    struct sb_interests *old = s.guilty->log;
    uint64_t size = s.guilty->log_size;
    shm_unlink(s.guilty->log_name);
    open_log(s.guilty, 2, 4096);
    munmap(old, size);
    s.guilty->log->prefix.layout++;
    tell_interests(s.guilty);
    is_put_out(&s);
}

TEST(a_pipe_in_the_place_of_a_log_holds_up_nobody)
{
    struct suspects s = suspects();
    char path[200];
    struct sb_interests *old = s.guilty->log;
    uint64_t size = s.guilty->log_size;
    shm_unlink(s.guilty->log_name);
    open_log(s.guilty, 2, 4096);
    munmap(old, size);
    snprintf(path, sizeof path, "/dev/shm%s", s.guilty->log_name);
    CHECK(unlink(path) == 0 && mkfifo(path, 0600) == 0);
    tell_interests(s.guilty);
    is_put_out(&s);
}

TEST(a_log_that_cannot_be_opened_now_is_read_later_and_puts_nobody_out)
{
    struct suspects s = suspects();
    struct sb_interests *old = s.guilty->log;
    uint64_t size = s.guilty->log_size;
    shm_unlink(s.guilty->log_name);
    uint64_t seen = rb_load(&s.guilty->down->interests_seen);
    rb_store(&s.guilty->up->outgoing[SB_DATA].interests_serial, 2);
    tell_interests(s.guilty);
    settle(s.w);
    advance(s.w, SECOND);
    CHECK(!s.guilty->quarantined);
    EQUAL(rb_load(&s.guilty->down->interests_seen), seen);
    publish(s.b, "x", "by the old interests");
    settle(s.w);
    GETS(s.guilty, "by the old interests");
    open_log(s.guilty, 2, 4096);
    munmap(old, size);
    log_interest(s.guilty, (struct sb_interest){ADD}, "new", "");
    advance(s.w, SECOND);
    EQUAL(rb_load(&s.guilty->down->interests_seen), seen + 1);
    publish(s.b, "new", "by the new");
    settle(s.w);
    GETS(s.guilty, "by the new");
    close_world(s.w);
}

TEST(removing_an_interest_that_is_not_there_does_no_harm)
{
    struct suspects s = suspects();
    remove_interest(s.guilty, 12345);
    CHECK(!s.guilty->quarantined);
    close_world(s.w);
}

/* More ----------------------------------------------------------------------------------------------------------- */

TEST(what_a_quarantined_ones_fan_out_still_owed_is_counted_lost)
{
    struct suspects s = suspects();
    struct peer *full = join_sized(s.w, "full", (struct size){.data_in = 1024});
    subscribe(full, "x");
    subscribe(full, "fill");
    for (int i = 0; i < 20; i++)
        publish_bytes(s.b, "fill", 100);
    settle(s.w);
    publish(s.guilty, "x", "fan");
    settle(s.w);
    GETS(s.a, "fan");
    uint64_t lost = rb_load(&full->down->lost);
    log_interest(s.guilty, (struct sb_interest){ADD}, "a..b", "");
    tell_interests(s.guilty);
    settle(s.w);
    CHECK(s.guilty->reclaimed);
    EQUAL(rb_load(&full->down->lost), lost + 1);
    close_world(s.w);
}

TEST(one_with_garbage_in_its_own_queue_that_listens_to_itself_is_reclaimed)
{
    struct world *w = new_world();
    struct peer *full = join_sized(w, "full", (struct size){.data_in = 1024});
    struct peer *p = join_sized(w, "p", (struct size){.data_in = 1024});
    struct peer *source = join(w, "source");
    subscribe(full, "x");
    subscribe(full, "fill");
    subscribe(p, "x");
    subscribe(p, "fill");
    for (int i = 0; i < 20; i++)
        publish_bytes(source, "fill", 100);
    settle(w);
    publish(p, "x", "fan");
    settle(w);
    CHECK(rb_load(&p->down->todo.from) != SB_NOWHERE);
    rb_store(&p->up->incoming[SB_DATA].tail, 4);
    raise_ready(p);
    settle(w);
    CHECK(p->quarantined);
    settle(w);
    CHECK(p->reclaimed);
    close_world(w);
}

TEST(a_peer_that_changes_what_it_sent_while_a_fan_out_stands_is_put_out)
{
    struct suspects s = suspects();
    struct peer *full = join_sized(s.w, "full", (struct size){.data_in = 1024});
    subscribe(full, "x");
    subscribe(full, "fill");
    for (int i = 0; i < 20; i++)
        publish_bytes(s.b, "fill", 100);
    settle(s.w);
    uint64_t at = s.guilty->out[SB_DATA].next;
    publish(s.guilty, "x", "fan");
    settle(s.w);
    ((struct sb_record *)(void *)(s.guilty->out[SB_DATA].data + at))->length = 4000;
    struct message m;
    while (take(full, &m))
        settle(s.w);
    settle(s.w);
    CHECK(s.guilty->quarantined);
    while (take(full, &m))
        CHECK(m.header.length < 200);
    EQUAL(rb_load(&full->down->lost), 1);
    close_world(s.w);
}

/* Random garbage over everything that an endpoint may write, step by step with sound traffic of others. */
TEST(random_garbage_never_reaches_the_others)
{
    for (uint64_t seed = 1; seed <= 150; seed++) {
        uint64_t dice = seed * 0x9e3779b97f4a7c15ull;
        struct suspects s = suspects();
        struct peer *g = s.guilty;
        handle(g, "of.guilty");
        for (int i = 0; i < 6; i++) {
            publish(g, "x", "fine");
            publish(s.b, "x", "1");
            if (i < 4)
                ask(s.b, "of.guilty", "1");
        }
        settle(s.w);
        struct message m;
        if (take_as(g, &m, draw(&dice) % 2, SB_HELD_OPEN) && draw(&dice) % 2)
            answer(g, &m, "r");
        for (int round = 0; round < 8; round++) {
            for (uint64_t n = 1 + draw(&dice) % 20; n; n--) {
                uint64_t at = sizeof(struct rb_prefix), words = offsetof(struct sb_up, state);
                switch (draw(&dice) % 4) {
                case 0: at = words + draw(&dice) % (sizeof(struct sb_up) - words); break;
                case 1: at = g->up->outgoing_ring[SB_DATA].offset + draw(&dice) % 600; break;
                case 2: at = g->up->outgoing_ring[SB_REPLIES].offset + draw(&dice) % 600; break;
                default: at = g->up->pending_offset + draw(&dice) % (4 * sizeof(struct sb_pending)); break;
                }
                uint8_t *byte = (uint8_t *)g->up + at;
                *byte = draw(&dice) % 3 ? (uint8_t)draw(&dice) : (uint8_t)(*byte + 8);
            }
            if (draw(&dice) % 4 == 0)
                ((uint8_t *)g->log)[sizeof(struct rb_prefix) + draw(&dice) % 300] = (uint8_t)draw(&dice);
            if (draw(&dice) % 2) { /* more of what makes it look */
                rb_word *head = &g->up->outgoing[draw(&dice) % 2].head;
                rb_store(head, (rb_load(head) & ~7ull) + 8 * (draw(&dice) % 32));
            }
            atomic_store(&s.w->ready->word[g->slot], (uint32_t)draw(&dice));
            publish(s.b, "x", "2");
            settle(s.w);
            advance(s.w, 50 * MILLISECOND);
        }
        uint32_t got = 0;
        while (take(s.a, &m)) {
            CHECK(m.header.kind == SB_EVENT || m.header.peer == g->slot);
            got += m.header.peer == s.b->slot;
        }
        EQUAL(got, 14);
        die(g, SB_REASON_KILLED);
        advance(s.w, 5 * SECOND);
        CHECK(g->reclaimed);
        while (take_reply(s.b, &m)) {
        }
        while (take(s.ear, &m)) {
        }
        others_are_well(&s);
        close_world(s.w);
    }
}
