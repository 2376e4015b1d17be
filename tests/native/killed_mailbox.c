/* The dispatcher is killed while it does something with a mailbox, or who takes from one (killed.h). */
#include "killed.h"

static struct ep_endpoint reader; /* of a, or of b where that is the victim */

static uint64_t wish(struct peer *p, const char *pattern, uint8_t flag, uint32_t depth)
{
    struct sb_interest e = {.op = SB_INTEREST_ADD, .role = SB_ROLE_SUBSCRIBE, .flags = flag, .depth = depth};
    return log_interest(p, e, pattern, "");
}

static void begin_reading(struct peer *p, uint64_t interest)
{
    reader = (struct ep_endpoint){.bus = p->world->bus, .up = p->up, .down = p->down, .slot = p->slot,
                                  .generation = p->generation};
    CHECK(ep_begin_mailbox(&reader, 0, interest, EP_MAIL_TAKEN));
}

static void map_made(struct stage *s)
{
    uint32_t index;
    char name[160];
    while ((index = ep_mail_unmapped(&reader)) != SB_OWN_MAILBOXES) {
        uint64_t whom = rb_load(&reader.down->mailbox[index]), size = 0;
        dp_mailbox_name(s->w->f, sb_whom_slot(whom), sb_whom_generation(whom), name);
        struct sb_mailbox *memory = dp_open_segment(name, &size);
        CHECK(memory);
        CHECK(ep_open_mailbox(&reader, index, whom, memory, size));
    }
}

static uint16_t copied_flags; /* of the last message that was taken */

/* The number that is the text of the next message, or -1: there is none. */
static int take_next(struct stage *s)
{
    struct sb_record h;
    char text[32] = {0};
    map_made(s);
    uint32_t index = ep_peek_mail(&reader, &h);
    if (index == SB_OWN_MAILBOXES)
        return -1;
    ep_take_mail(&reader, index);
    CHECK(h.flags & SB_ALONE && h.deadline_ns == reader.mailboxes[0]->interest);
    EQUAL(h.peer, s->c->slot);
    copied_flags = h.flags;
    memcpy(text, reader.mail + sb_payload_offset(&h), h.length - sb_payload_offset(&h));
    return atoi(text);
}

/* All that is there, in order and none twice, `newest` among it; what was not taken is lost. */
static void takes_newest(struct stage *s, int newest, uint64_t came)
{
    struct ep_mailbox *box = reader.mailboxes[0];
    int last = s->number, next;
    while ((next = take_next(s)) >= 0) {
        CHECK(next > last);
        last = next;
    }
    EQUAL(last, newest);
    EQUAL(rb_load(ep_mail_head(box)), came);
    EQUAL(box->received + box->lost, came);
    EQUAL(rb_load(&s->w->bus->lost), 0);
}

static void publish_numbers(struct stage *s, int from, int to)
{
    for (int i = from; i < to; i++) {
        char text[16], type[16];
        snprintf(text, sizeof text, "%d", i);
        snprintf(type, sizeof type, "x.%d", i % 3);
        CHECK(publish(s->c, type, text));
    }
}

/* a has a mailbox and has taken one message; c has published some more, in a fan-out with d, or for a alone. */
static void prepare_mailbox(struct stage *s, uint8_t flag, bool fan_out)
{
    reserve_segments();
    s->a = join_sized(s->w, "a", TINY);
    s->c = join_sized(s->w, "c", TINY);
    s->d = join_sized(s->w, "d", TINY);
    begin_reading(s->a, wish(s->a, "x.*", flag, 2));
    tell_interests(s->a);
    if (fan_out)
        subscribe(s->d, "x.*");
    settle(s->w);
    publish_numbers(s, 0, 1);
    settle(s->w);
    EQUAL(s->number = take_next(s), 0);
    publish_numbers(s, 1, 4);
    settle(s->w);
    publish_numbers(s, 4, 8);
}

static void prepare_oldest(struct stage *s) { prepare_mailbox(s, SB_DROP_OLDEST, false); }
static void prepare_latest(struct stage *s) { prepare_mailbox(s, SB_LATEST, true); }
static void check_oldest(struct stage *s)
{
    takes_newest(s, 7, 8);
    publish_numbers(s, 8, 9); /* and it goes on */
    settle(s->w);
    s->number = 7;
    takes_newest(s, 8, 9);
}
static const struct scenario a_run_goes_to_a_mailbox = {
    "a run goes to a mailbox", prepare_oldest, forward, check_oldest, false};
PROMISE(a_run_goes_to_a_mailbox)

static void check_latest(struct stage *s)
{
    struct message m;
    for (int i = 0; i < 8; i++) { /* d has all, once */
        CHECK(take(s->d, &m));
        EQUAL(atoi(m.text), i);
    }
    GETS_NOTHING(s->d);
    takes_newest(s, 7, 8);
}
static const struct scenario a_fan_out_goes_to_a_mailbox = {
    "a fan-out goes to a mailbox", prepare_latest, forward, check_latest, false};
PROMISE(a_fan_out_goes_to_a_mailbox)

static uint32_t segments_in_use(void)
{
    uint32_t count = 0;
    for (int i = 0; i < ARENA_SEGMENTS; i++)
        count += arena_segments[i].name[0] != 0;
    return count;
}

/* a subscribes with history to what c has kept, while a value of c's is kept and not delivered yet, since d is full. */
static void prepare_filled(struct stage *s, uint8_t flag, uint32_t depth)
{
    struct sb_interest late = {.op = SB_INTEREST_ADD, .role = SB_ROLE_SUBSCRIBE, .flags = flag, .depth = depth,
                               .history = 2};
    reserve_segments();
    s->a = join_sized(s->w, "a", TINY);
    s->c = join_sized(s->w, "c", TINY);
    s->d = join_sized(s->w, "d", TINY);
    begin_reading(s->a, log_interest(s->a, late, "x.*", ""));
    for (int i = 0; i < 5; i++)
        CHECK(retain(s->c, i % 2 ? "x.b" : "x.a", (char[2]){(char)('0' + i), 0}));
    settle(s->w);
    subscribe(s->d, "x.*");
    s->number = (int)(s->w->f->ports[s->d->slot].in[SB_DATA].capacity / RB_ALIGN8(SB_HEADER + 4)); /* of these are all
                                                                                                    * it takes */
    for (int i = 0; i < s->number; i++) {
        CHECK(publish(s->c, "x.d", "0"));
        settle(s->w);
    }
    CHECK(dp_all_forwarded(&s->w->f->ports[s->c->slot]));
    CHECK(retain(s->c, "x.b", "5"));
    settle(s->w);
    EQUAL(rb_load(&s->w->bus->retained_last), 6);
    CHECK(!dp_all_forwarded(&s->w->f->ports[s->c->slot]));
    CHECK(publish(s->c, "x.a", "6"));
    tell_interests(s->a);
}

static void prepare_filled_oldest(struct stage *s) { prepare_filled(s, SB_DROP_OLDEST, 3); }
static void prepare_filled_latest(struct stage *s) { prepare_filled(s, SB_LATEST, 4); }

/* Each once, as many as were kept and what came: what waited for d is not among the latter. */
static void takes_state(struct stage *s, const char *state, uint64_t kept)
{
    char taken[16] = "";
    for (int next; (next = take_next(s)) >= 0;) {
        CHECK(!(next == 6) == !!(copied_flags & SB_RETAINED));
        strncat(taken, (char[2]){(char)('0' + next), 0}, 1);
    }
    CHECK(!strcmp(taken, state));
    EQUAL(count_messages(s->d), s->number + 2);
    settle(s->w);
    EQUAL(take_next(s), 6);
    EQUAL(take_next(s), -1);
    CHECK(!(copied_flags & SB_RETAINED));
    EQUAL(reader.mailboxes[0]->received + reader.mailboxes[0]->lost, kept + 1);
    EQUAL(rb_load(&s->w->bus->lost), 0);
    EQUAL(segments_in_use(), 2); /* and that in which values are kept */
}

static void check_filled_oldest(struct stage *s) { takes_state(s, "345", 4); }
static const struct scenario a_mailbox_is_made_with_what_was_kept = {
    "a mailbox is made with what was kept", prepare_filled_oldest, forward, check_filled_oldest, false};
PROMISE(a_mailbox_is_made_with_what_was_kept)

static void check_filled_latest(struct stage *s) { takes_state(s, "45", 2); }
static const struct scenario a_mailbox_is_made_with_the_state = {
    "a mailbox is made with the state", prepare_filled_latest, forward, check_filled_latest, false};
PROMISE(a_mailbox_is_made_with_the_state)

/* Of what c has kept two are too large for a's mailbox: they are lost there, once. */
static void prepare_oversize(struct stage *s)
{
    struct sb_interest late = {.op = SB_INTEREST_ADD, .role = SB_ROLE_SUBSCRIBE, .flags = SB_LATEST, .depth = 4,
                               .history = 1};
    char large[1025];
    memset(large, '7', 1024);
    large[1024] = 0;
    reserve_segments();
    s->a = join_sized(s->w, "a", TINY);
    s->c = join_sized(s->w, "c", (struct size){.data_out = 8192});
    begin_reading(s->a, log_interest(s->a, late, "x.*", ""));
    CHECK(retain(s->c, "x.a", large));
    CHECK(retain(s->c, "x.b", "1"));
    CHECK(retain(s->c, "x.c", large));
    settle(s->w);
    tell_interests(s->a);
}

static void check_oversize(struct stage *s)
{
    EQUAL(take_next(s), 1);
    EQUAL(take_next(s), -1);
    EQUAL(rb_load(&s->a->down->lost), 2);
    EQUAL(rb_load(&s->a->down->lost_by[SB_LOSS_TOO_LARGE]), 2);
    EQUAL(rb_load(&s->a->down->mailbox_lost), 0);
    advance(s->w, 2 * SECOND);
    EQUAL(rb_load(&s->a->down->lost_untold), 0);
    EQUAL(segments_in_use(), 2);
}
static const struct scenario a_mailbox_is_too_small_for_what_was_kept = {
    "a mailbox is too small for what was kept", prepare_oversize, forward, check_oversize, false};
PROMISE(a_mailbox_is_too_small_for_what_was_kept)

static void prepare_wish(struct stage *s)
{
    reserve_segments();
    s->a = join_sized(s->w, "a", TINY);
    s->c = join_sized(s->w, "c", TINY);
    begin_reading(s->a, wish(s->a, "x.*", SB_LATEST, 4));
    tell_interests(s->a);
    s->number = -1;
}

static void check_wish(struct stage *s)
{
    publish_numbers(s, 0, 3);
    settle(s->w);
    takes_newest(s, 2, 3);
    EQUAL(segments_in_use(), 1);
}
static const struct scenario a_mailbox_is_made = {"a mailbox is made", prepare_wish, forward, check_wish, false};
PROMISE(a_mailbox_is_made)

/* Its interest goes, and another comes that has the same place. */
static void prepare_change(struct stage *s)
{
    prepare_wish(s);
    settle(s->w);
    publish_numbers(s, 0, 3);
    settle(s->w);
    map_made(s);
    log_interest(s->a, (struct sb_interest){.op = SB_INTEREST_REMOVE, .id = reader.mailboxes[0]->interest}, "", "");
    ep_close_mailbox(&reader, 0);
    begin_reading(s->a, wish(s->a, "x.*", SB_DROP_OLDEST, 4));
    tell_interests(s->a);
}
static const struct scenario a_mailbox_is_changed_for_another = {
    "a mailbox is changed for another", prepare_change, forward, check_wish, false};
PROMISE(a_mailbox_is_changed_for_another)

static void prepare_a_dies(struct stage *s)
{
    prepare_mailbox(s, SB_DROP_OLDEST, false);
    settle(s->w);
    CHECK(take_next(s) >= 0);
}

static void a_dies(struct stage *s) { die(s->a, SB_REASON_KILLED); }

static void check_a_dies(struct stage *s)
{
    a_dies(s); /* the successor's liveness thread sees it, too */
    advance(s->w, SECOND);
    EQUAL(rb_load(&s->a->down->state), SB_DOWN_RECLAIMED);
    EQUAL(rb_load(&s->a->down->lost_by[SB_LOSS_DROPPED]), 6);
    EQUAL(segments_in_use(), 0);
    publish_numbers(s, 8, 9);
    settle(s->w);
    EQUAL(rb_load(&s->w->bus->unrouted), 1);
}
static const struct scenario who_has_a_mailbox_dies = {
    "who has a mailbox dies", prepare_a_dies, a_dies, check_a_dies, false};
PROMISE(who_has_a_mailbox_dies)

/* b takes from its mailbox, and is killed. */
static void prepare_taking_mail(struct stage *s)
{
    reserve_segments();
    s->b = join_sized(s->w, "b", TINY);
    s->c = join_sized(s->w, "c", TINY);
    begin_reading(s->b, wish(s->b, "x.*", SB_LATEST, 4));
    tell_interests(s->b);
    settle(s->w);
    publish_numbers(s, 0, 5);
    settle(s->w);
}

static void take_two_mails(struct stage *s)
{
    CHECK(take_next(s) >= 0 && take_next(s) >= 0);
}

static void check_taking_mail(struct stage *s)
{
    CHECK(s->b->reclaimed && !s->b->quarantined);
    EQUAL(rb_load(&s->b->up->had[0].received) + rb_load(&s->b->down->lost_by[SB_LOSS_DROPPED]), 5);
    EQUAL(segments_in_use(), 0);
}
static const struct scenario an_endpoint_takes_from_a_mailbox = {
    "an endpoint takes from a mailbox", prepare_taking_mail, take_two_mails, check_taking_mail, true};
PROMISE(an_endpoint_takes_from_a_mailbox)

/* It has lost some, unsubscribes, and subscribes again with the same place: what it lost is counted once, whatever the
 * dispatcher has read of that. */
static void prepare_closing(struct stage *s)
{
    reserve_segments();
    s->b = join_sized(s->w, "b", TINY);
    s->c = join_sized(s->w, "c", TINY);
    begin_reading(s->b, wish(s->b, "x.*", SB_DROP_OLDEST, 2));
    tell_interests(s->b);
    settle(s->w);
    publish_numbers(s, 0, 5);
    settle(s->w);
    map_made(s);
    s->number = (int)reader.mailboxes[0]->interest;
}

static void close_and_begin(struct stage *s)
{
    EQUAL(take_next(s), 3);
    ep_close_mailbox(&reader, 0);
    begin_reading(s->b, (uint64_t)s->number + 1);
}

static void check_closing(struct stage *s)
{
    const struct sb_had *had = &s->b->up->had[0];
    uint64_t lost = rb_load(&had->interest) == (uint64_t)s->number ? 5 - rb_load(&had->received) : 3;
    CHECK(s->b->reclaimed && !s->b->quarantined);
    EQUAL(rb_load(&s->b->down->lost_by[SB_LOSS_DROPPED]), lost);
    EQUAL(segments_in_use(), 0);
}
static const struct scenario an_endpoint_changes_a_mailbox_that_lost = {
    "an endpoint changes a mailbox that lost", prepare_closing, close_and_begin, check_closing, true};
PROMISE(an_endpoint_changes_a_mailbox_that_lost)
