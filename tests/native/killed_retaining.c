/* The dispatcher is killed while it keeps values, or gives them to who comes late (killed.h). */
#include "killed.h"

/* What is kept: of each type `history`, of all as many as fit into so many cells. d will come late, and its ring is
 * small. It has logged its interest already, because logs are not put back: telling of it is what it does then. */
static void prepare_kept(struct stage *s, uint64_t history, uint64_t cells)
{
    struct sb_interest late = {.op = SB_INTEREST_ADD, .role = SB_ROLE_SUBSCRIBE, .history = 9};
    reserve_segments();
    s->w->bus->backlog_bytes = 2048;
    s->w->bus->history = history;
    s->w->bus->retain_bytes = cells * SB_CELL_BYTES;
    s->w->f->values.chunk_cells = cells;
    s->d = join_sized(s->w, "d", (struct size){.data_in = 1024, .data_out = 1024, .requests = 1});
    s->a = join_sized(s->w, "a", TINY);
    s->b = join_sized(s->w, "b", TINY);
    log_interest(s->d, late, ">", "");
}

/* 119 characters of which the first is `digit`, kept. */
static void retain_digit(struct stage *s, const char *type, int digit)
{
    char text[120];
    memset(text, '0' + digit, sizeof text - 1);
    text[sizeof text - 1] = 0;
    retain(s->b, type, text);
}

/* d hears `wanted` from now on, a digit each. */
static void hears(struct stage *s, const char *wanted)
{
    struct message m;
    char heard[64] = "";
    struct late_ear late = {.peer = s->d, .id = 1};
    for (bool more = true; more; settle(s->w))
        for (more = false; hear(&late, &m); more = true)
            strncat(heard, m.text, 1);
    if (strcmp(heard, wanted)) {
        fprintf(stderr, "heard %s, not %s\n", heard, wanted);
        exit(1);
    }
    CHECK(late.live);
    EQUAL(rb_load(&s->w->bus->lost), 0);
    EQUAL(s->w->f->backlogs_open, 0);
    close_forwarder(s->w->f); /* and never again, whoever reads of it */
    adopt(s->w, false);
    settle(s->w);
    GETS_NOTHING(s->d);
    for (int i = 0; i < ARENA_SEGMENTS; i++) /* removed names begin with 0 */
        CHECK(!strstr(arena_segments[i].name, ":backlog:"));
}

static void hears_late(struct stage *s, const char *wanted)
{
    EQUAL(rb_load(&s->w->bus->retained), strlen(wanted));
    EQUAL(rb_load(&s->w->bus->retained_bytes), strlen(wanted) * SB_CELL_BYTES);
    tell_interests(s->d);
    settle(s->w);
    hears(s, wanted);
}

static void prepare_keeping(struct stage *s)
{
    prepare_kept(s, 2, 4);
    s->c = join_sized(s->w, "c", TINY);
    subscribe(s->a, ">");
    subscribe(s->c, "x");
    for (int i = 0; i < 3; i++)
        retain(s->b, "x", (char[2]){(char)('0' + i), 0});
}

static void check_keeping(struct stage *s)
{
    gets_all(s->a, 3);
    gets_all(s->c, 3);
    hears_late(s, "12");
    EQUAL(rb_load(&s->w->bus->evicted), 0);
}
static const struct scenario what_is_to_be_kept_is_forwarded = {
    "what is to be kept is forwarded", prepare_keeping, forward, check_keeping, false};
PROMISE(what_is_to_be_kept_is_forwarded)

static void prepare_evicting(struct stage *s)
{
    prepare_kept(s, 2, 4);
    retain(s->b, "x", "0"), retain(s->b, "x", "1"), retain(s->b, "y", "2"), retain(s->b, "z", "3");
    settle(s->w);
    retain(s->b, "u", "4"), retain(s->b, "y", NULL), retain(s->b, "v", "5"), retain(s->b, "w", "6");
}

static void check_evicting(struct stage *s)
{
    hears_late(s, "3456");
    CHECK(rb_load(&s->w->bus->evicted) >= 2 && rb_load(&s->w->bus->evicted) <= 3); /* counted first */
}
static const struct scenario for_want_of_space_others_go = {
    "for want of space others go", prepare_evicting, forward, check_evicting, false};
PROMISE(for_want_of_space_others_go)

/* d comes late while a value waits to be delivered to a, whose ring is full. */
static void prepare_seam(struct stage *s)
{
    char text[420];
    memset(text, '0', sizeof text - 1);
    text[sizeof text - 1] = 0;
    prepare_kept(s, 2, 8);
    subscribe(s->a, "x");
    for (int i = 0; i < 4; i++)
        publish(s->b, "x", text);
    settle(s->w);
    retain_digit(s, "x", 1);
    settle(s->w);
    EQUAL(rb_load(&s->w->bus->retained), 1);
    CHECK(!dp_all_forwarded(&s->w->f->ports[s->b->slot]));
    retain_digit(s, "x", 2);
    tell_interests(s->d);
}

static void check_seam(struct stage *s)
{
    EQUAL(count_messages(s->a), 6);
    hears(s, "12");
}
static const struct scenario who_comes_late_at_the_seam_begins = {
    "who comes late at the seam begins", prepare_seam, forward, check_seam, false};
PROMISE(who_comes_late_at_the_seam_begins)

static void prepare_passed_seam(struct stage *s)
{
    prepare_seam(s);
    settle(s->w);
    struct message m;
    for (int i = 0; i < 4; i++)
        CHECK(take(s->a, &m));
}

static void check_passed_seam(struct stage *s)
{
    EQUAL(count_messages(s->a), 2);
    hears(s, "12");
}
static const struct scenario what_waited_at_the_seam_is_forwarded = {
    "what waited at the seam is forwarded", prepare_passed_seam, forward, check_passed_seam, false};
PROMISE(what_waited_at_the_seam_is_forwarded)

/* d comes late, and its ring does not hold what is kept: it catches up while others publish. */
static void prepare_catching_up(struct stage *s)
{
    prepare_kept(s, 9, 16);
    for (int i = 0; i < 6; i++)
        retain_digit(s, "x", i);
    settle(s->w);
    tell_interests(s->d);
    retain_digit(s, "x", 6);
    publish(s->b, "y", "7");
}

static void check_catching_up(struct stage *s) { hears(s, "01234567"); }
static const struct scenario who_comes_late_gets_a_backlog = {
    "who comes late gets a backlog", prepare_catching_up, forward, check_catching_up, false};
PROMISE(who_comes_late_gets_a_backlog)

/* The rest leaves the backlog. */
static void prepare_caught_up(struct stage *s)
{
    struct message m;
    prepare_catching_up(s);
    settle(s->w);
    for (int i = 0; i < 5; i++)
        CHECK(take(s->d, &m));
}

static void check_caught_up(struct stage *s) { hears(s, "567"); }
static const struct scenario who_has_caught_up_is_like_others = {
    "who has caught up is like others", prepare_caught_up, forward, check_caught_up, false};
PROMISE(who_has_caught_up_is_like_others)
