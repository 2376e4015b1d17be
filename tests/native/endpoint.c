/* An endpoint's own half of the kernel, over a bus whose dispatcher is driven by hand. */
#include "harness.h"

#include "shmbus/endpoint/native/event.h"
#include "shmbus/endpoint/native/interest_log.h"
#include "shmbus/endpoint/native/nack.h"
#include "shmbus/endpoint/native/open.h"
#include "shmbus/endpoint/native/wait.h"

#include <pthread.h>

struct waiting { /* one thread */
    struct ep_endpoint *e;
    struct ep_waiter waiter;
    uint64_t until;
    enum rb_wake wake;
    pthread_t thread;
};

static void open_endpoint(struct ep_endpoint *e, struct peer *p)
{
    CHECK(ep_fork_watch());
    CHECK(ep_open(e, p->world->bus, p->world->ready, p->up, p->down, &p->world->bell, &p->bell, 7, 0, 16));
}

static enum rb_status push_event(struct ep_endpoint *e, uint64_t size, const struct ep_batch_limits *batch)
{
    static const char zeros[1024];
    bool armed;
    struct ep_message m = {.kind = SB_EVENT, .flags = SB_RAW, .type = "x", .type_length = 1, .payload = zeros,
                           .size = size};
    return ep_push(e, &m, ep_stamp(e), batch, &armed);
}

static bool take_one(struct ep_endpoint *e)
{
    struct sb_record header;
    const uint8_t *record;
    if (ep_peek(e, &header, &record) != RB_OK)
        return false;
    ep_take(e, &header, SB_HELD_DONE);
    ep_pass_on_data(e);
    return true;
}

static const struct ep_batch_limits NO_LIMITS = {.messages = ~0ull, .bytes = ~0ull};

/* Its eventfd, which the dispatcher has. */
static void open_event(struct ep_endpoint *e, struct peer *p)
{
    CHECK(ep_event_open(e) == 0);
    CHECK(!rb_load(&p->down->event_known));
    pass_event(p, e->event_fd);
    settle(p->world);
    EQUAL(rb_load(&p->down->event_known), p->world->bus->serial);
}

TEST(an_eventfd_is_written_once_for_what_is_wanted_until_it_is_armed_again)
{
    struct world *w = new_world();
    struct peer *p = join(w, "p"), *source = join(w, "source");
    subscribe(p, "x");
    struct ep_endpoint e;
    open_endpoint(&e, p);
    open_event(&e, p);
    publish(source, "x", "nobody sleeps");
    settle(w);
    EQUAL(read_event(e.event_fd), 0);
    CHECK(ep_event_arm(&e, SB_EVENT_DATA)); /* it is there already */
    publish(source, "x", "it is awake");
    settle(w);
    EQUAL(read_event(e.event_fd), 0);
    CHECK(take_one(&e) && take_one(&e) && !ep_event_arm(&e, SB_EVENT_REPLIES));
    publish(source, "x", "not wanted");
    settle(w);
    EQUAL(read_event(e.event_fd), 0);
    CHECK(take_one(&e) && !ep_event_arm(&e, SB_EVENT_DATA));
    for (int i = 0; i < 3; i++) {
        publish(source, "x", "wanted");
        settle(w);
    }
    EQUAL(read_event(e.event_fd), 1);
    while (take_one(&e)) {
    }
    CHECK(!ep_event_arm(&e, SB_EVENT_DATA)); /* the same epoch's odd value would not do */
    publish(source, "x", "again");
    settle(w);
    EQUAL(read_event(e.event_fd), 1);
    ep_free(&e);
    close_world(w);
}

TEST(a_loop_that_goes_to_sleep_finds_an_urgent_event)
{
    struct world *w = new_world();
    struct peer *p = join(w, "p"), *source = join(w, "source");
    struct sb_record urgent = {.kind = SB_EVENT, .flags = SB_RAW | SB_URGENT};
    subscribe(p, "x");
    struct ep_endpoint e;
    open_endpoint(&e, p);
    open_event(&e, p);
    CHECK(!ep_event_arm(&e, SB_EVENT_DATA));
    for (int i = 0; i < 2; i++)
        CHECK(put(source, SB_DATA, urgent, "x", "", 0));
    flush(source);
    settle(w);
    EQUAL(read_event(e.event_fd), 1);
    CHECK(take_one(&e) && ep_event_arm(&e, SB_EVENT_DATA)); /* one is left */
    CHECK(take_one(&e) && !take_one(&e) && !ep_event_arm(&e, SB_EVENT_DATA));
    ep_free(&e);
    close_world(w);
}

TEST(an_eventfd_is_written_when_there_is_space_for_what_was_to_be_sent)
{
    struct world *w = new_world();
    struct peer *p = join_sized(w, "p", (struct size){.data_out = 4096});
    struct ep_endpoint e;
    open_endpoint(&e, p);
    open_event(&e, p);
    while (push_event(&e, 900, NULL) == RB_OK) {
    }
    uint64_t length = ep_record_length(&(struct ep_message){.kind = SB_EVENT, .type_length = 1, .size = 900});
    ep_event_need(&e, SB_DATA, length);
    CHECK(!ep_event_arm(&e, SB_EVENT_SPACE));
    EQUAL(read_event(e.event_fd), 0);
    settle(w);
    EQUAL(read_event(e.event_fd), 1);
    CHECK(ep_event_arm(&e, SB_EVENT_SPACE)); /* until it is asked for no more */
    ep_event_need(&e, SB_DATA, 0);
    EQUAL(rb_load(&p->up->outgoing[SB_DATA].need), SB_NO_NEED);
    CHECK(!ep_event_arm(&e, SB_EVENT_SPACE));
    CHECK(push_event(&e, 900, NULL) == RB_OK);
    ep_free(&e);
    close_world(w);
}

TEST(who_gives_an_eventfd_the_space_that_another_waits_for_forgets_neither)
{
    struct world *w = new_world();
    struct peer *p = join_sized(w, "p", (struct size){.data_out = 4096});
    struct ep_endpoint e;
    open_endpoint(&e, p);
    open_event(&e, p);
    while (push_event(&e, 100, NULL) == RB_OK) {
    }
    struct ep_waiter waiter = {.want = EP_WANT_SPACE, .value = 1000};
    ep_join(&e, &waiter);
    ep_store_ring_need(&e, SB_DATA);
    uint64_t far = rb_load(&p->up->outgoing[SB_DATA].need);
    ep_event_need(&e, SB_DATA, 100);
    CHECK(rb_load(&p->up->outgoing[SB_DATA].need) < far);
    ep_event_need(&e, SB_DATA, 0);
    EQUAL(rb_load(&p->up->outgoing[SB_DATA].need), far);
    ep_leave(&e, &waiter, false);
    ep_free(&e);
    close_world(w);
}

TEST(an_eventfd_tells_of_ends_and_of_other_changes_apart)
{
    struct world *w = new_world();
    struct peer *p = join(w, "p");
    struct ep_endpoint e;
    open_endpoint(&e, p);
    open_event(&e, p);
    ep_event_disarm(&e);
    CHECK(!ep_event_arm(&e, SB_EVENT_END));
    subscribe(p, "x");
    EQUAL(read_event(e.event_fd), 0);
    CHECK(ep_event_arm(&e, SB_EVENT_STATE) && !ep_event_arm(&e, SB_EVENT_STATE));
    subscribe(p, "y");
    EQUAL(read_event(e.event_fd), 1);
    CHECK(ep_event_arm(&e, SB_EVENT_STATE) && !ep_event_arm(&e, SB_EVENT_END));
    die(p, SB_REASON_EVICTED);
    EQUAL(read_event(e.event_fd), 1);
    ep_free(&e);
    close_world(w);
}

TEST(a_watched_eventfd_is_readable_while_something_is_to_be_received)
{
    struct world *w = new_world();
    struct peer *p = join(w, "p"), *source = join(w, "source");
    subscribe(p, "x");
    struct ep_endpoint e;
    open_endpoint(&e, p);
    open_event(&e, p);
    e.event_minds = EP_FOR_GOOD;
    publish(source, "x", "before");
    settle(w);
    ep_event_rest(&e);
    EQUAL(read_event(e.event_fd), 1);
    CHECK(take_one(&e));
    ep_event_rest(&e);
    EQUAL(read_event(e.event_fd), 0);
    publish(source, "x", "after");
    settle(w);
    EQUAL(read_event(e.event_fd), 1);
    CHECK(take_one(&e));
    ep_set_trouble(&e, EP_BUS_DEAD, 0); /* which it does not mind */
    ep_event_rest(&e);
    EQUAL(read_event(e.event_fd), 0);
    ep_set_trouble(&e, EP_BUS_OVER, 0);
    EQUAL(read_event(e.event_fd), 1);
    ep_event_rest(&e);
    EQUAL(read_event(e.event_fd), 1);
    ep_free(&e);
    close_world(w);
}

TEST(a_loop_is_told_by_its_own_process_that_the_bus_was_left_to_a_successor)
{
    struct world *w = new_world();
    struct peer *p = join(w, "p");
    struct ep_endpoint e;
    struct ep_round round = {.now = rb_now()};
    open_endpoint(&e, p);
    open_event(&e, p);
    e.event_minds = EP_FOR_GOOD | EP_FOR_NOW;
    ep_event_rest(&e);
    ep_watcher_look(&e, &round);
    EQUAL(read_event(e.event_fd), 0);
    rb_store(&w->bus->state, SB_BUS_HANDOVER); /* and it was killed before it could ring */
    ep_watcher_look(&e, &round);
    EQUAL(read_event(e.event_fd), 1);
    ep_unwatch_dispatcher(&e);
    ep_free(&e);
    close_world(w);
}

/* Threads that wait ------------------------------------------------------------------------------------------- */

static void *wait_there(void *argument)
{
    struct waiting *x = argument;
    x->wake = ep_wait(x->e, &x->waiter, x->until);
    if (x->wake == RB_READY && x->waiter.want == EP_WANT_DATA) {
        ep_lock(x->e);
        CHECK(take_one(x->e));
        ep_unlock(x->e);
    }
    return NULL;
}

/* Returns when it waits, or has stopped waiting. */
static void begin_to_wait(struct waiting *x, uint32_t want, uint64_t value, uint64_t time, uint32_t inside)
{
    x->waiter = (struct ep_waiter){.want = want, .value = value};
    x->until = rb_now() + time;
    pthread_create(&x->thread, NULL, wait_there, x);
    for (bool there = false; !there && rb_now() < x->until; sched_yield()) {
        ep_lock(x->e);
        there = x->e->inside >= inside;
        ep_unlock(x->e);
    }
}

TEST(when_the_time_of_the_one_that_leads_is_up_another_thread_gets_the_message)
{
    struct world *w = new_world();
    struct peer *p = join(w, "p"), *source = join(w, "source");
    subscribe(p, "x");
    struct ep_endpoint e;
    open_endpoint(&e, p);
    struct waiting leader = {.e = &e}, follower = {.e = &e};
    begin_to_wait(&leader, EP_WANT_DATA, 0, 200 * MILLISECOND, 1);
    begin_to_wait(&follower, EP_WANT_DATA, 0, 10 * SECOND, 2);
    pthread_join(leader.thread, NULL);
    EQUAL(leader.wake, RB_ELAPSED);
    publish(source, "x", "to whoever leads now");
    settle(w);
    pthread_join(follower.thread, NULL);
    EQUAL(follower.wake, RB_READY);
    CHECK(rb_now() < follower.until); /* it was woken, and did not find the message at its own time */
    ep_free(&e);
    close_world(w);
}

TEST(a_second_message_wakes_a_second_thread)
{
    struct world *w = new_world();
    struct peer *p = join(w, "p"), *source = join(w, "source");
    subscribe(p, "x");
    struct ep_endpoint e;
    open_endpoint(&e, p);
    struct waiting leader = {.e = &e}, first = {.e = &e}, second = {.e = &e};
    begin_to_wait(&leader, EP_WANT_STATE, SB_DOWN_DRAINED, 60 * SECOND, 1);
    begin_to_wait(&first, EP_WANT_DATA, 0, 10 * SECOND, 2);
    begin_to_wait(&second, EP_WANT_DATA, 0, 10 * SECOND, 3);
    publish(source, "x", "1");
    publish(source, "x", "2");
    settle(w);
    pthread_join(first.thread, NULL);
    pthread_join(second.thread, NULL);
    EQUAL(second.wake, RB_READY);
    CHECK(rb_now() < second.until); /* it was woken */
    rb_store_release(&p->down->state, SB_DOWN_DRAINED);
    sem_post(&p->bell);
    pthread_join(leader.thread, NULL);
    EQUAL(leader.wake, RB_READY);
    ep_free(&e);
    close_world(w);
}

/* What it tells the dispatcher --------------------------------------------------------------------------------- */

/* Has it raised its word, and woken the dispatcher that sleeps, since the last call? */
static bool has_told(struct peer *p)
{
    struct world *w = p->world;
    static uint32_t before;
    uint32_t word = atomic_load(&w->ready->word[p->slot]);
    bool told = word != before && sem_trywait(&w->bell) == 0;
    before = word;
    while (sem_trywait(&w->bell) == 0) {
    }
    rb_store(&w->bus->bell, (rb_load(&w->bus->bell) + 2) | 1); /* it sleeps again */
    return told;
}

TEST(an_endpoint_tells_the_dispatcher_of_all_that_it_waits_for)
{
    struct world *w = new_world();
    struct peer *p = join_sized(w, "p", (struct size){.data_in = 4096}), *source = join(w, "source");
    subscribe(p, "x");
    for (int i = 0; i < 40; i++)
        CHECK(publish_bytes(source, "x", 200));
    settle(w); /* the rest waits until there is space */
    CHECK(rb_load(&p->down->incoming[SB_DATA].need) != SB_NO_NEED);
    struct ep_endpoint e;
    open_endpoint(&e, p);
    has_told(p);
    while (take_one(&e)) {
    }
    CHECK(has_told(p));
    CHECK(push_event(&e, 1, NULL) == RB_OK);
    CHECK(has_told(p));
    ep_commit_interests(&e, 1);
    CHECK(has_told(p));
    ep_set_state(&e, SB_UP_CLOSING);
    CHECK(has_told(p));
    CHECK(!has_told(p));
    ep_free(&e);
    close_world(w);
}

TEST(a_reply_that_waits_beside_the_space_kept_for_errors_goes_on_as_soon_as_there_is_space)
{
    struct world *w = new_world();
    struct peer *server = join(w, "server");
    struct peer *client = join_sized(w, "client", (struct size){.replies_in = 4096, .requests = 8});
    handle(server, "x");
    static char text[900];
    memset(text, 'z', sizeof text - 1);
    struct message m;
    for (int i = 0; i < 3; i++)
        ask(client, "x", "1");
    settle(w);
    for (int i = 0; i < 3; i++)
        CHECK(take(server, &m) && answer(server, &m, text));
    settle(w); /* two fit */
    CHECK(rb_load(&client->down->incoming[SB_REPLIES].need) != SB_NO_NEED);
    struct ep_endpoint e;
    open_endpoint(&e, client);
    has_told(client);
    ep_drain_replies(&e);
    CHECK(has_told(client));
    settle(w);
    CHECK(rb_load(&client->down->incoming[SB_REPLIES].head) > e.in[SB_REPLIES].next);
    ep_free(&e);
    close_world(w);
}

/* Batches ------------------------------------------------------------------------------------------------------- */

TEST(a_batch_that_fills_the_ring_is_published)
{
    struct world *w = new_world();
    struct peer *p = join_sized(w, "p", (struct size){.data_out = 4096});
    struct ep_endpoint e;
    open_endpoint(&e, p);
    while (push_event(&e, 200, &NO_LIMITS) == RB_OK) {
    }
    EQUAL(rb_load(&p->up->outgoing[SB_DATA].head), e.out[SB_DATA].next);
    ep_free(&e);
    close_world(w);
}

TEST(what_a_batch_holds_back_does_not_wait_with_its_sender)
{
    struct world *w = new_world();
    struct peer *p = join(w, "p");
    struct ep_endpoint e;
    open_endpoint(&e, p);
    CHECK(push_event(&e, 1, &NO_LIMITS) == RB_OK);
    EQUAL(rb_load(&p->up->outgoing[SB_DATA].head), 0);
    struct ep_waiter nothing = {.want = EP_WANT_DATA};
    EQUAL(ep_wait(&e, &nothing, rb_now() + MILLISECOND), RB_ELAPSED);
    EQUAL(rb_load(&p->up->outgoing[SB_DATA].head), e.out[SB_DATA].next);
    ep_free(&e);
    close_world(w);
}

TEST(a_message_of_a_batch_bears_its_own_time)
{
    struct world *w = new_world();
    struct peer *p = join(w, "p");
    struct ep_endpoint e;
    open_endpoint(&e, p);
    CHECK(push_event(&e, 1, &NO_LIMITS) == RB_OK);
    uint64_t first = e.stamp, later;
    while ((later = rb_coarse_now()) <= first) {
    }
    CHECK(push_event(&e, 1, &NO_LIMITS) == RB_OK);
    CHECK(e.stamp >= later);
    ep_free(&e);
    close_world(w);
}

/* Requests ------------------------------------------------------------------------------------------------------ */

static void reply_from_the_dispatcher(struct peer *p, const uint8_t id[16])
{
    struct dp_port *port = &p->world->f->ports[p->slot];
    struct sb_record h = {.length = SB_HEADER, .kind = SB_REPLY, .flags = SB_NONE};
    memcpy(h.correlation, id, 16);
    CHECK(dp_write(port, SB_REPLIES, &h, NULL, 0) == RB_OK);
    rb_publish(&port->in[SB_REPLIES]);
}

TEST(a_reply_completes_only_the_request_whose_id_it_bears)
{
    struct world *w = new_world();
    struct peer *p = join(w, "p");
    struct ep_endpoint e;
    open_endpoint(&e, p);
    uint8_t given_up[16], id[16];
    uint32_t index = ep_begin_request(&e, 0, false, given_up);
    ep_end_request(&e, index);
    EQUAL(ep_begin_request(&e, 0, false, id), index);
    reply_from_the_dispatcher(p, given_up);
    ep_drain_replies(&e);
    CHECK(ep_request_waits(&e, index));
    EQUAL(rb_load(&p->up->orphans), 1);
    reply_from_the_dispatcher(p, id);
    ep_drain_replies(&e);
    CHECK(!ep_request_waits(&e, index));
    ep_free(&e);
    close_world(w);
}

TEST(an_entry_is_used_again_only_after_the_reply_ring_was_drained)
{
    struct world *w = new_world();
    struct peer *p = join(w, "p");
    struct ep_endpoint e;
    open_endpoint(&e, p);
    uint8_t id[16];
    uint32_t index = ep_begin_request(&e, 0, false, id);
    reply_from_the_dispatcher(p, id);
    ep_end_request(&e, index);
    EQUAL(ep_begin_request(&e, 0, false, id), index);
    EQUAL(rb_load(&p->up->incoming[SB_REPLIES].tail), rb_load(&p->down->incoming[SB_REPLIES].head));
    ep_free(&e);
    close_world(w);
}

/* What it counts and sees --------------------------------------------------------------------------------------- */

TEST(a_command_that_was_taken_is_counted)
{
    struct world *w = new_world();
    struct peer *p = join(w, "p"), *source = join(w, "source");
    handle(p, "do");
    send_to_handler(source, "do", "it");
    settle(w);
    struct ep_endpoint e;
    open_endpoint(&e, p);
    CHECK(take_one(&e));
    EQUAL(rb_load(&p->up->received_sends), 1);
    ep_free(&e);
    close_world(w);
}

TEST(a_bus_of_another_layout_that_took_the_place_is_the_end_of_this_one)
{
    struct world *w = new_world();
    struct peer *p = join(w, "p");
    struct ep_endpoint e;
    open_endpoint(&e, p);
    EQUAL(ep_trouble(&e), 0);
    rb_store(&w->bus->prefix.superseded_by, 1);
    EQUAL(ep_trouble(&e), EP_BUS_OVER);
    ep_free(&e);
    close_world(w);
}

/* Its end ------------------------------------------------------------------------------------------------------- */

TEST(memory_in_which_a_thread_waits_is_not_given_back)
{
    struct world *w = new_world();
    struct peer *p = join(w, "p");
    struct ep_endpoint e;
    open_endpoint(&e, p);
    struct waiting late = {.e = &e};
    begin_to_wait(&late, EP_WANT_STATE, SB_DOWN_DRAINED, 60 * SECOND, 1);
    ep_lock(&e);
    CHECK(!ep_vacate(&e, NULL, 0));
    ep_unlock(&e);
    rb_store_release(&p->down->state, SB_DOWN_DRAINED);
    sem_post(&p->bell);
    pthread_join(late.thread, NULL);
    EQUAL(late.wake, RB_READY);
    CHECK(ep_vacate(&e, NULL, 0));
    ep_free(&e);
    close_world(w);
}

TEST(who_is_put_out_while_it_closes_is_told_that_until_it_is_closed)
{
    struct world *w = new_world();
    struct peer *p = join(w, "p");
    struct ep_endpoint e;
    open_endpoint(&e, p);
    rb_store_release(&p->up->state, SB_UP_CLOSING);
    rb_store_release(&p->down->state, SB_DOWN_EVICTED);
    EQUAL(ep_trouble(&e), EP_EVICTED);
    rb_store_release(&p->down->state, SB_DOWN_RECLAIMED);
    EQUAL(ep_trouble(&e), EP_EVICTED); /* what came here has gone to others */
    rb_store_release(&p->up->state, SB_UP_CLOSED);
    EQUAL(ep_trouble(&e), 0);
    ep_free(&e);
    close_world(w);
}

TEST(what_is_called_after_the_end_finds_no_message_and_rings_nobody)
{
    struct world *w = new_world();
    struct peer *p = join(w, "p"), *source = join(w, "source");
    subscribe(p, "y");
    publish(source, "y", "1");
    publish(source, "y", "2");
    settle(w);
    struct ep_endpoint e;
    open_endpoint(&e, p);
    CHECK(take_one(&e));
    for (int times = 0; times < 2; times++, settle(w))
        while (push_event(&e, 200, NULL) == RB_OK) {
        }
    memset(p->up, 0, p->up_size); /* as the memory that takes its place is */
    memset(p->down, 0, p->down_size);
    CHECK(ep_vacate(&e, NULL, 0));
    has_told(p);
    struct sb_record header;
    const uint8_t *record;
    EQUAL(ep_peek(&e, &header, &record), RB_EMPTY);
    enum rb_status status;
    while ((status = push_event(&e, 200, NULL)) == RB_OK) {
    }
    EQUAL(status, RB_FULL);
    CHECK(!has_told(p));
    ep_free(&e);
    close_world(w);
}

/* Giving back ------------------------------------------------------------------------------------------------- */

static uint64_t take_job(struct ep_endpoint *e, struct sb_record *header)
{
    const uint8_t *record;
    CHECK(ep_peek(e, header, &record) == RB_OK);
    return ep_take(e, header, SB_HELD_OPEN);
}

static struct ep_returned returned(uint64_t position, const struct sb_record *header, const void *payload,
                                   uint64_t size)
{
    return (struct ep_returned){.position = position, .header = header, .bit = 2, .type = "job",
                                .reason = "why", .reason_length = 3, .payload = payload, .size = size};
}

TEST(who_has_given_a_message_back_does_not_give_back_the_next_in_its_place)
{
    struct world *w = new_world();
    struct peer *p = join(w, "p"), *source = join(w, "source"), *heir = join(w, "heir");
    subscribe_group(p, "job", "g", 1);
    publish(source, "job", "1");
    publish(source, "job", "2");
    settle(w);
    subscribe_group(heir, "job", "g", 1);
    struct ep_endpoint e;
    struct sb_record h;
    open_endpoint(&e, p);
    uint64_t position = take_job(&e, &h);
    struct ep_returned r = returned(position, &h, "1", 1);
    CHECK(ep_fit_returned(&e, &r) && ep_nack(&e, &r, 1, true) == RB_OK);
    EQUAL(e.held_count, 0);
    take_job(&e, &h);
    settle(w);
    GETS(heir, "1");
    die(p, SB_REASON_KILLED);
    settle(w);
    GETS(heir, "2");
    ep_free(&e);
    close_world(w);
}

TEST(what_is_to_be_given_back_stays_held_when_all_else_is_done)
{
    struct world *w = new_world();
    struct peer *p = join(w, "p"), *source = join(w, "source");
    subscribe_group(p, "job", "g", 1);
    for (int i = 0; i < 4; i++)
        publish(source, "job", "x");
    settle(w);
    struct ep_endpoint e;
    struct sb_record h;
    open_endpoint(&e, p);
    e.hold_limit = 3;
    uint64_t kept = take_job(&e, &h), done = take_job(&e, &h), held = take_job(&e, &h);
    ep_postpone(&e, kept);
    ep_postpone(&e, held);
    take_job(&e, &h); /* and the first is let go */
    ep_unhold_all(&e);
    EQUAL(e.held_count, 1);
    EQUAL(rb_load(&e.held[0]->position), held);
    EQUAL(rb_load(&p->up->kept[0].at), kept + 1);
    CHECK(done < held);
    ep_free(&e);
    close_world(w);
}

TEST(what_is_to_be_given_back_and_was_let_go_unkept_stays_counted)
{
    struct world *w = new_world();
    struct peer *p = join(w, "p"), *source = join(w, "source");
    subscribe_group(p, "job", "g", 1);
    struct ep_endpoint e;
    struct sb_record h;
    open_endpoint(&e, p);
    e.hold_limit = 1;
    for (uint32_t i = 0; i < SB_KEPT + 3; i++) {
        publish(source, "job", "x");
        settle(w);
        uint64_t position = take_job(&e, &h);
        if (i == 0)
            ep_postpone(&e, position);
    }
    EQUAL(rb_load(&p->up->let_go_unkept), 2); /* that one, and the next, which is done by the end */
    ep_unhold_all(&e);
    EQUAL(rb_load(&p->up->let_go_unkept), 1);
    ep_free(&e);
    close_world(w);
}

TEST(a_key_moves_though_some_that_were_let_go_are_never_not_in_hand)
{
    enum { HAND = SB_KEPT + 8 };
    struct world *w = new_world();
    struct peer *p = join(w, "p"), *source = join(w, "source"), *b = join(w, "b");
    subscribe_keyed(p, "o.*.>", "g", 1, ID);
    const char *moves = type_of(b, p), *stays = type_of(p, b);
    struct ep_endpoint e;
    struct sb_record h;
    uint64_t hand[3 * HAND];
    open_endpoint(&e, p);
    e.hold_limit = 1;
    for (int i = 0; i < 3 * HAND; i++) {
        if (i == HAND) {
            subscribe_keyed(b, "o.*.>", "g", 1, ID);
            publish(source, moves, "next");
            settle(w);
        }
        publish(source, i < HAND ? moves : stays, "x");
        settle(w);
        hand[i] = take_job(&e, &h);
        if (i < HAND)
            continue;
        advance(w, SECOND / 4);
        EQUAL(rb_load(&w->bus->backlogs_made), 1);
        GETS_NOTHING(b);
        ep_done(&e, hand[i - HAND]);
        if (i == 2 * HAND - 1)
            break;
    }
    advance(w, SECOND);
    GETS(b, "next");
    CHECK(rb_load(&p->up->let_go_from) > 0 && rb_load(&p->up->let_go_unkept) > 0);
    ep_free(&e);
    close_world(w);
}

TEST(what_was_let_go_is_shown_to_be_done_only_when_it_is_in_whatever_order)
{
    struct world *w = new_world();
    struct ep_endpoint e;
    open_endpoint(&e, join(w, "p"));
    uint64_t open[32], next = 0, mark = 0, shown;
    uint32_t count = 0, seed = 1, passed = 0;
    for (int i = 0; i < 20000; i++) {
        seed = seed * 1664525 + 1013904223;
        if (count < 32 && (count < 8 || seed >> 31)) { /* never none */
            ep_note_let_go(&e, open[count++] = next);
            next += 8;
        } else {
            uint32_t gone = (seed >> 8) % count;
            ep_note_let_go_done(&e, open[gone]);
            open[gone] = open[--count];
        }
        shown = rb_load(&e.up->let_go_from);
        for (uint32_t j = 0; j < count; j++)
            CHECK(shown && shown <= open[j] + 1);
        if (shown > mark) {
            mark = next;
            passed++;
        }
    }
    CHECK(passed > 20);
    while (count)
        ep_note_let_go_done(&e, open[--count]);
    EQUAL(rb_load(&e.up->let_go_from), 0);
    ep_free(&e);
    close_world(w);
}

TEST(a_message_is_given_back_whole_and_a_dead_letter_in_part)
{
    struct world *w = new_world();
    struct peer *p = join_sized(w, "p", (struct size){.data_out = 1024});
    struct ep_endpoint e;
    open_endpoint(&e, p);
    struct sb_record h = {.kind = SB_EVENT, .type_length = 3, .interests = 2, .attempt = 1};
    struct ep_returned r = returned(0, &h, "", 256 - 64 - 3);
    CHECK(ep_fit_returned(&e, &r));
    EQUAL(r.reason_length, 0); /* rather than none of it */
    r = returned(0, &h, "", 256 - 64 - 3 + 1);
    CHECK(!ep_fit_returned(&e, &r));
    r.final = true;
    CHECK(ep_fit_returned(&e, &r));
    EQUAL(r.size, 256 - 64 - 3 - 3);
    EQUAL(ep_returned_length(&r), 256);
    ep_free(&e);
    close_world(w);
}
