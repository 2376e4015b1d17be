/* Death at the worst moment. A process does one thing and is killed on the way; what it leaves behind must do.
 *
 * Two ways of choosing the moment. `swept`: the process is single-stepped, and after each instruction that has
 * changed a shared byte it counts as killed: since nothing else of it would be left, its shared memory is
 * examined as it is, put back, and the next instruction follows. So every instruction is tried. `struck`: built
 * with fail points, it kills itself at each point that it passes.
 *
 * The dispatcher's death is followed by an adoption, an endpoint's by its departure, each in a process of its
 * own, so that every examination begins alike. Some adoptions are themselves swept. */
#define SHARED_WITH_CHILDREN
#include "harness.h"

#include <sys/ptrace.h>
#include <sys/wait.h>

#include "shmbus/endpoint/native/interest_log.h"
#include "shmbus/endpoint/native/open.h"
#include "shmbus/endpoint/native/wait.h"

#define TINY ((struct size){.data_out = 2048, .data_in = 2048, .replies_out = 2048, .replies_in = 2048, .requests = 4})

struct stage {
    struct world *w;
    struct peer *ear, *a, *b, *c, *d;
    struct ep_endpoint e; /* where the victim is an endpoint: its real self */
    struct message m;
    int number;
};

struct scenario {
    const char *name;
    void (*prepare)(struct stage *);
    void (*act)(struct stage *);   /* what the victim does */
    void (*check)(struct stage *); /* after its death was dealt with */
    bool endpoint;                 /* the victim is b, not the dispatcher */
};

/* The victim's death ------------------------------------------------------------------------------------------- */

static void adopt(struct world *w, bool stop)
{
    reopen(w);
    if (stop)
        raise(SIGSTOP); /* what is swept begins here: nothing shared has been touched */
    dp_take_orders(w->f, true);
    dp_recover(w->f);
}

static void reborn(struct stage *s, const struct scenario *x)
{
    if (x->endpoint) {
        die(s->b, SB_REASON_KILLED);
    } else {
        adopt(s->w, false);
        settle(s->w);
    }
    x->check(s);
}

/* In a process of its own: does what is left do? */
static void examine(struct stage *s, const struct scenario *x, const uint8_t *as_it_is, const char *moment,
                    uint64_t number)
{
    pid_t child = fork();
    CHECK(child >= 0);
    if (!child) {
        alarm(30);
        reborn(s, x);
        _exit(0);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child);
    if (status) {
        fprintf(stderr, "%s: killed at %s %llu\n", x->name, moment, (unsigned long long)number);
        exit(1);
    }
    memcpy(arena, as_it_is, arena_used);
}

#ifndef SB_FAILPOINTS
/* Sweeping ----------------------------------------------------------------------------------------------------- */

/* It stops itself where its sweep shall begin, and at its end. */
static pid_t traced_child(void)
{
    pid_t child = fork();
    CHECK(child >= 0);
    if (!child) {
        CHECK(ptrace(PTRACE_TRACEME, 0, 0, 0) == 0);
    } else {
        int status;
        CHECK(waitpid(child, &status, 0) == child && WIFSTOPPED(status));
        CHECK(ptrace(PTRACE_SETOPTIONS, child, 0, PTRACE_O_EXITKILL) == 0);
    }
    return child;
}

/* One instruction. False: the child has come to its end. */
static bool step(pid_t child)
{
    int status;
    CHECK(ptrace(PTRACE_SINGLESTEP, child, 0, 0) == 0);
    CHECK(waitpid(child, &status, 0) == child);
    CHECK(WIFSTOPPED(status));
    return WSTOPSIG(status) == SIGTRAP;
}

static void end_child(pid_t child)
{
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
}

/* How often adoptions are swept in their turn: one in so many states. */
#define ADOPTIONS 40

static void sweep_adoption(struct stage *s, const struct scenario *x, const uint8_t *start, uint64_t *deepest)
{
    uint8_t *last = malloc(arena_used);
    CHECK(last);
    memcpy(last, start, arena_used);
    pid_t child = traced_child();
    if (!child) {
        adopt(s->w, true);
        settle(s->w);
        raise(SIGSTOP);
        _exit(0);
    }
    uint64_t steps = 0, since = 0;
    bool on = true;
    while (on) {
        on = step(child);
        steps++;
        if (memcmp(last, arena, arena_used) == 0)
            continue;
        memcpy(last, arena, arena_used);
        if (++since % 5 == 0 || !on) /* every fifth change: the first level has tried them all */
            examine(s, x, last, "an instruction of the adoption", steps);
    }
    *deepest += steps;
    end_child(child);
    memcpy(arena, start, arena_used);
    free(last);
}

static void sweep(const struct scenario *x)
{
    cpu_set_t one; /* a step is two switches, which cost a tenth on one CPU */
    CPU_ZERO(&one);
    CPU_SET(sched_getcpu(), &one);
    sched_setaffinity(0, sizeof one, &one);
    struct stage s = {.w = new_world()};
    x->prepare(&s);
    uint8_t *start = malloc(arena_used), *last = malloc(arena_used);
    CHECK(start && last);
    memcpy(start, arena, arena_used);
    memcpy(last, arena, arena_used);
    pid_t child = traced_child();
    if (!child) {
        raise(SIGSTOP);
        x->act(&s);
        raise(SIGSTOP);
        _exit(0);
    }
    uint64_t steps = 0, states = 0, deepest = 0;
    examine(&s, x, last, "instruction", 0);
    while (step(child)) {
        steps++;
        if (memcmp(last, arena, arena_used) == 0)
            continue;
        memcpy(last, arena, arena_used);
        examine(&s, x, last, "instruction", steps);
        if (++states % ADOPTIONS == ADOPTIONS / 2 && !x->endpoint)
            sweep_adoption(&s, x, last, &deepest);
    }
    examine(&s, x, last, "its end, after", steps);
    end_child(child);
    if (getenv("VERBOSE"))
        fprintf(stderr, "%s: %llu instructions, %llu states, %llu instructions of adoption\n", x->name,
                (unsigned long long)steps, (unsigned long long)states, (unsigned long long)deepest);
    CHECK(states > 0);
    memcpy(arena, start, arena_used);
    free(start);
    free(last);
    close_world(s.w);
    unshare_all();
}

#define PROMISE(id) TEST(swept_##id) { sweep(&id); }

#else
/* Striking ----------------------------------------------------------------------------------------------------- */

/* FAIL_POINTS holds the names of all there are; those that killed are printed. */
static const char *fail_point(int i)
{
    static char text[4096], *points[128];
    if (!points[0]) {
        CHECK(getenv("FAIL_POINTS"));
        snprintf(text, sizeof text, "%s", getenv("FAIL_POINTS"));
        int count = 0;
        for (char *point = strtok(text, " "); point; point = strtok(NULL, " "))
            points[count++] = point;
    }
    return points[i];
}

/* Killed at the `nth` pass of `point` while it acts, or adopts? */
static bool killed(struct stage *s, const struct scenario *x, const char *point, uint64_t nth, bool adopting)
{
    pid_t child = fork();
    CHECK(child >= 0);
    if (!child) {
        rb_arm(point, nth);
        if (adopting) {
            adopt(s->w, false);
            settle(s->w);
        } else {
            x->act(s);
        }
        _exit(0);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child);
    bool killed = WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
    CHECK(killed || status == 0);
    if (killed)
        printf("%s\n", point);
    return killed;
}

static void strike(const struct scenario *x)
{
    struct stage s = {.w = new_world()};
    x->prepare(&s);
    uint8_t *start = malloc(arena_used), *left = malloc(arena_used), *twice = malloc(arena_used);
    CHECK(start && left && twice);
    memcpy(start, arena, arena_used);
    const char *point, *second;
    for (int i = 0; (point = fail_point(i)); i++)
        for (uint64_t nth = 1; nth <= 4; nth++) {
            if (!killed(&s, x, point, nth, false)) {
                memcpy(arena, start, arena_used);
                break;
            }
            memcpy(left, arena, arena_used);
            examine(&s, x, left, point, nth);
            for (int k = 0; !x->endpoint && (second = fail_point(k)); k++) { /* and its successor, while it adopts */
                if (strncmp(second, "recover.", 8) == 0 && killed(&s, x, second, 1, true)) {
                    char moment[128];
                    snprintf(moment, sizeof moment, "%s, then at %s", point, second);
                    memcpy(twice, arena, arena_used);
                    examine(&s, x, twice, moment, nth);
                }
                memcpy(arena, left, arena_used);
            }
            memcpy(arena, start, arena_used);
        }
    free(start);
    free(left);
    free(twice);
    close_world(s.w);
    unshare_all();
}
#define PROMISE(id) TEST(struck_##id) { strike(&id); }
#endif

/* The next reply that ends a request: the first does, and what else a kill may have repeated is an orphan. */
static bool take_end(struct peer *p, struct message *m)
{
    struct sb_pending before[16];
    memcpy(before, p->pending, p->up->pending_count * sizeof *before);
    while (take_reply(p, m)) {
        const struct sb_pending *w = &before[sb_index_of(m->header.correlation)];
        if (rb_load(&w->state) == SB_PENDING_WAITING && memcmp(w->id, m->header.correlation, 16) == 0)
            return true;
        CHECK(m->header.kind == SB_ERROR); /* a reply is never repeated */
    }
    return false;
}

static void ends_with_fault(struct peer *p, uint32_t code)
{
    struct message m;
    CHECK(take_end(p, &m));
    EQUAL(fault_of(&m).code, code);
}

static void ends_with_reply(struct peer *p, const char *text)
{
    struct message m;
    CHECK(take_end(p, &m));
    EQUAL(m.header.kind, SB_REPLY);
    CHECK(strcmp(m.text, text) == 0);
}

/* The dispatcher ----------------------------------------------------------------------------------------------- */

/* `p` gets exactly the events "0", "1", ... of `count`. */
static void gets_all(struct peer *p, int count)
{
    struct message m;
    for (int i = 0; i < count; i++) {
        CHECK(take(p, &m));
        EQUAL(atoi(m.text), i);
    }
    CHECK(!take(p, &m));
}

static void put_events(struct peer *p, const char *type, int count)
{
    char text[16];
    for (int i = 0; i < count; i++) {
        snprintf(text, sizeof text, "%d", i);
        CHECK(put(p, SB_DATA, (struct sb_record){.kind = SB_EVENT}, type, text, strlen(text)));
    }
    flush(p);
}

static void forward(struct stage *s) { settle(s->w); }

static void prepare_run(struct stage *s)
{
    s->a = join_sized(s->w, "a", TINY);
    s->b = join_sized(s->w, "b", TINY);
    subscribe(s->a, "x");
    put_events(s->b, "x", 3);
}

static void check_run(struct stage *s)
{
    gets_all(s->a, 3);
    EQUAL(rb_load(&s->w->bus->lost), 0);
    put_events(s->b, "x", 2); /* and it goes on */
    settle(s->w);
    gets_all(s->a, 2);
}
static const struct scenario a_run_is_forwarded = {"a run is forwarded", prepare_run, forward, check_run, false};
PROMISE(a_run_is_forwarded)

static void prepare_fan_out(struct stage *s)
{
    s->a = join_sized(s->w, "a", TINY);
    s->b = join_sized(s->w, "b", TINY);
    s->c = join_sized(s->w, "c", TINY);
    s->d = join_sized(s->w, "d", TINY);
    subscribe(s->a, "x");
    subscribe(s->b, "x");
    subscribe_group(s->c, "x", "g", 1);
    subscribe_group(s->d, "x", "g", 2);
    put_events(s->b, "x", 2);
}

static void check_fan_out(struct stage *s)
{
    gets_all(s->a, 2);
    gets_all(s->b, 2);
    EQUAL(count_messages(s->c) + count_messages(s->d), 2);
    EQUAL(rb_load(&s->w->bus->lost), 0);
    EQUAL(rb_load(&s->b->down->todo.from), SB_NOWHERE);
}
static const struct scenario a_fan_out_is_forwarded = {
    "a fan-out is forwarded", prepare_fan_out, forward, check_fan_out, false};
PROMISE(a_fan_out_is_forwarded)

static void prepare_requests(struct stage *s)
{
    s->a = join_sized(s->w, "a", TINY);
    s->b = join_sized(s->w, "b", TINY);
    handle(s->a, "ask");
    ask(s->b, "ask", "0");
    ask(s->b, "ask", "1");
}

static void check_requests(struct stage *s)
{
    struct message m[2], r;
    CHECK(take(s->a, &m[0]) && take(s->a, &m[1]) && !take(s->a, &r));
    for (int i = 0; i < 2; i++)
        CHECK(answer(s->a, &m[i], m[i].text));
    settle(s->w);
    for (int i = 0; i < 2; i++) {
        CHECK(take_end(s->b, &r));
        EQUAL(r.header.kind, SB_REPLY);
        EQUAL(atoi(r.text), sb_index_of(r.header.correlation));
    }
    CHECK(!take_end(s->b, &r));
}
static const struct scenario requests_are_forwarded = {
    "requests are forwarded", prepare_requests, forward, check_requests, false};
PROMISE(requests_are_forwarded)

static void prepare_replies(struct stage *s)
{
    prepare_requests(s);
    settle(s->w);
    struct message m;
    for (int i = 0; i < 2; i++)
        CHECK(take(s->a, &m) && answer(s->a, &m, m.text));
}

static void check_replies(struct stage *s)
{
    struct message r;
    for (int i = 0; i < 2; i++) {
        CHECK(take_end(s->b, &r));
        EQUAL(r.header.kind, SB_REPLY);
        EQUAL(atoi(r.text), sb_index_of(r.header.correlation));
    }
    CHECK(!take_end(s->b, &r));
    EQUAL(rb_load(&s->w->bus->orphans), 0);
}
static const struct scenario replies_are_forwarded = {
    "replies are forwarded", prepare_replies, forward, check_replies, false};
PROMISE(replies_are_forwarded)

static void prepare_nobody(struct stage *s)
{
    struct size size = {.data_in = 8192, .data_out = 1024, .replies_in = 1024, .replies_out = 1024, .requests = 1};
    s->ear = join_sized(s->w, "ear", size);
    s->b = join_sized(s->w, "b", TINY);
    subscribe(s->ear, "$bus.undeliverable");
    ask(s->b, "nothing", "0");
    send_to_handler(s->b, "nothing", "1");
    ask(s->b, "nothing", "2");
}

static void check_nobody(struct stage *s)
{
    ends_with_fault(s->b, SB_FAULT_NO_ROUTE);
    ends_with_fault(s->b, SB_FAULT_NO_ROUTE);
    CHECK(!take_end(s->b, &s->m));
    uint32_t letters = count_messages(s->ear); /* said again rather than not */
    CHECK(letters >= 1 && letters <= 3);
}
static const struct scenario what_nobody_handles_is_answered = {
    "what nobody handles is answered", prepare_nobody, forward, check_nobody, false};
PROMISE(what_nobody_handles_is_answered)

static void prepare_lost(struct stage *s)
{
    s->a = join_sized(s->w, "a", TINY);
    s->b = join_sized(s->w, "b", TINY);
    struct size size = {.data_in = 1024, .data_out = 1024, .replies_in = 1024, .replies_out = 1024, .requests = 1};
    s->c = join_sized(s->w, "c", size);
    subscribe(s->a, "x");
    subscribe(s->c, "x");
    put_events(s->b, "x", 20); /* more than c takes */
    settle(s->w);
    CHECK(rb_load(&s->b->down->todo.from) != SB_NOWHERE);
}

static void lose(struct stage *s)
{
    s->w->now += 2 * SECOND;
    settle(s->w);
}

static void check_lost(struct stage *s)
{
    advance(s->w, 3 * SECOND);
    gets_all(s->a, 20);
    EQUAL(count_messages(s->c) + rb_load(&s->c->down->lost), 20);
    EQUAL(rb_load(&s->a->down->lost), 0);
}
static const struct scenario what_waited_too_long_is_counted = {
    "what waited too long is counted", prepare_lost, lose, check_lost, false};
PROMISE(what_waited_too_long_is_counted)

static void prepare_death(struct stage *s)
{
    s->ear = join_sized(s->w, "ear", TINY);
    s->a = join_sized(s->w, "a", TINY);
    s->b = join_sized(s->w, "b", TINY);
    subscribe(s->ear, "$bus.endpoint.down");
    subscribe(s->b, "plain");
    subscribe_group(s->b, "job", "g", 1);
    handle(s->b, "ask");
    ask(s->a, "ask", "begun");
    publish(s->a, "job", "begun");
    publish(s->a, "job", "untouched");
    ask(s->a, "ask", "untouched");
    publish(s->a, "plain", "untouched");
    settle(s->w);
    struct message m;
    CHECK(take(s->b, &m) && begin(s->b, &m)); /* the request and the first job */
    s->c = join_sized(s->w, "c", TINY);
    subscribe_group(s->c, "job", "g", 3);
    handle(s->c, "ask");
}

static void b_dies(struct stage *s) { die(s->b, SB_REASON_KILLED); }

static void check_death(struct stage *s)
{
    struct message m;
    die(s->b, SB_REASON_KILLED); /* the successor's liveness thread sees it, too */
    advance(s->w, SECOND);
    uint64_t state = rb_load(&s->w->f->rows[s->b->slot].state);
    CHECK(state == SB_ROW_GONE || state == SB_ROW_FREE);
    EQUAL(rb_load(&s->b->down->state), SB_DOWN_RECLAIMED);
    ends_with_fault(s->a, SB_FAULT_ENDPOINT_DIED);
    uint32_t jobs[2] = {0, 0}, asked = 0;
    while (take(s->c, &m))
        if (m.header.kind == SB_EVENT) {
            bool begun = strcmp(m.text, "begun") == 0;
            jobs[begun]++;
            EQUAL(m.header.attempt, begun ? 2 : 1);
        } else {
            CHECK(strcmp(m.text, "untouched") == 0);
            asked++;
            CHECK(answer(s->c, &m, "by another"));
        }
    EQUAL(jobs[0], 1);
    EQUAL(jobs[1], 1);
    EQUAL(asked, 1);
    settle(s->w);
    ends_with_reply(s->a, "by another");
    CHECK(!take_end(s->a, &m));
    EQUAL(rb_load(&s->b->down->lost), 1); /* the plain one */
    uint32_t said = count_messages(s->ear);
    CHECK(said >= 1 && said <= 3);
    EQUAL(rb_load(&s->w->bus->dead_letters), 0);
}
static const struct scenario a_death_is_dealt_with = {
    "a death is dealt with", prepare_death, b_dies, check_death, false};
PROMISE(a_death_is_dealt_with)

/* What `b` leaves, one message of 100 bytes, lies behind the padding at the end of its ring. */
static void prepare_padded(struct stage *s, bool request)
{
    static char text[101], filler[41];
    memset(text, 'o', 100);
    memset(filler, 'f', 40);
    s->a = join_sized(s->w, "a", TINY);
    s->b = join_sized(s->w, "b", (struct size){.data_in = 1024, .requests = 1});
    subscribe(s->b, "fill");
    subscribe_group(s->b, "job", "g", 1);
    handle(s->b, "ask");
    for (int i = 0; i < 8; i++) {
        struct message m;
        CHECK(publish(s->a, "fill", filler));
        settle(s->w);
        CHECK(take(s->b, &m));
    }
    if (request)
        ask(s->a, "ask", text);
    else
        CHECK(publish(s->a, "job", text));
    settle(s->w);
    CHECK(rb_load(&s->b->up->incoming[SB_DATA].tail) < 1024); /* and what is left begins at 1024 */
    CHECK(rb_load(&s->b->down->incoming[SB_DATA].head) > 1024);
    s->c = join_sized(s->w, "c", TINY);
    subscribe_group(s->c, "job", "g", 3);
    handle(s->c, "ask");
}

static void prepare_padded_event(struct stage *s) { prepare_padded(s, false); }
static void prepare_padded_request(struct stage *s) { prepare_padded(s, true); }

static void check_padded(struct stage *s)
{
    die(s->b, SB_REASON_KILLED);
    advance(s->w, SECOND);
    EQUAL(rb_load(&s->b->down->state), SB_DOWN_RECLAIMED);
    EQUAL(count_messages(s->c), 1);
    EQUAL(rb_load(&s->w->bus->dead_letters), 0);
}
static const struct scenario an_event_behind_padding_is_handed_on = {
    "an event behind padding is handed on", prepare_padded_event, b_dies, check_padded, false};
PROMISE(an_event_behind_padding_is_handed_on)
static const struct scenario a_request_behind_padding_is_handed_on = {
    "a request behind padding is handed on", prepare_padded_request, b_dies, check_padded, false};
PROMISE(a_request_behind_padding_is_handed_on)

static void prepare_close(struct stage *s)
{
    prepare_death(s);
    rb_store_release(&s->b->up->state, SB_UP_CLOSING);
    raise_ready(s->b);
}

static void b_closes(struct stage *s)
{
    settle(s->w);
    if (rb_load(&s->b->down->state) == SB_DOWN_DRAINED) { /* b's own part */
        rb_store_release(&s->b->up->state, SB_UP_CLOSED);
        raise_ready(s->b);
    }
    settle(s->w);
}

static void check_close(struct stage *s)
{
    struct message m;
    b_closes(s);
    advance(s->w, SECOND);
    EQUAL(rb_load(&s->b->down->state), SB_DOWN_RECLAIMED);
    ends_with_fault(s->a, SB_FAULT_ENDPOINT_DIED);
    uint32_t jobs = 0, asked = 0;
    while (take(s->c, &m))
        if (m.header.kind == SB_EVENT) {
            jobs++;
        } else {
            asked++;
            CHECK(answer(s->c, &m, "by another"));
        }
    EQUAL(jobs, 2);
    EQUAL(asked, 1);
    settle(s->w);
    ends_with_reply(s->a, "by another");
    CHECK(!take_end(s->a, &m));
    EQUAL(rb_load(&s->b->down->lost), 1);
    uint32_t said = count_messages(s->ear);
    CHECK(said >= 1 && said <= 3);
}
static const struct scenario a_close_is_dealt_with = {
    "a close is dealt with", prepare_close, b_closes, check_close, false};
PROMISE(a_close_is_dealt_with)

static void prepare_rechoice(struct stage *s)
{
    struct size tiny = {.data_in = 1024, .data_out = 1024, .replies_in = 1024, .replies_out = 1024, .requests = 1};
    s->a = join_sized(s->w, "a", TINY);
    s->b = join_sized(s->w, "b", tiny);
    s->c = join_sized(s->w, "c", TINY);
    struct peer *filler = join_sized(s->w, "filler", TINY);
    subscribe(s->b, "fill");
    subscribe(s->b, "x");
    subscribe_group(s->b, "x", "g", 1);
    subscribe(s->c, "x");
    put_events(filler, "fill", 20);
    settle(s->w);
    put_events(s->a, "x", 1);
    settle(s->w);
    CHECK(rb_load(&s->a->down->todo.from) != SB_NOWHERE);
    s->d = join_sized(s->w, "d", TINY);
    subscribe_group(s->d, "x", "g", 9);
    s->number = (int)rb_load(&s->b->down->incoming[SB_DATA].delivered);
}

static void check_rechoice(struct stage *s)
{
    die(s->b, SB_REASON_KILLED);
    advance(s->w, SECOND);
    gets_all(s->c, 1);
    gets_all(s->d, 1);
    EQUAL(rb_load(&s->b->down->lost), s->number + 1); /* the untouched ones and the fan-out's */
    EQUAL(rb_load(&s->a->down->todo.from), SB_NOWHERE);
}
static const struct scenario a_fan_out_owed_to_the_dead_is_chosen_anew = {
    "a fan-out owed to the dead is chosen anew", prepare_rechoice, b_dies, check_rechoice, false};
PROMISE(a_fan_out_owed_to_the_dead_is_chosen_anew)

/* An endpoint -------------------------------------------------------------------------------------------------- */

static void open_real(struct stage *s)
{
    CHECK(ep_fork_watch());
    CHECK(ep_open(&s->e, s->w->bus, s->w->ready, s->b->up, s->b->down, &s->w->bell, &s->b->bell, 7, 0, 16));
}

static void push_real(struct stage *s, uint16_t kind, const char *type, const char *text, const uint8_t *id,
                      const struct sb_record *to)
{
    bool armed;
    struct ep_message m = {.kind = kind, .flags = SB_RAW, .type = type, .type_length = (uint32_t)strlen(type),
                           .payload = text, .size = strlen(text), .correlation = id};
    if (to) {
        m.peer = to->peer;
        m.peer_generation = to->peer_generation;
    }
    CHECK(ep_push(&s->e, &m, rb_now(), NULL, &armed) == RB_OK);
}

static void prepare_push(struct stage *s)
{
    s->a = join_sized(s->w, "a", TINY);
    s->b = join_sized(s->w, "b", TINY);
    subscribe(s->a, "x");
    for (int i = 0; i < 16; i++) /* so that the record needs padding before it */
        CHECK(publish_bytes(s->b, "x", 55));
    settle(s->w);
    EQUAL(count_messages(s->a), 16);
    open_real(s);
    rb_store(&s->w->bus->bell, 1); /* the dispatcher is parked */
}

#define TEXT                                                            \
    "a payload of some length, which is either whole or not there at " \
    "all: neither half-written nor lost after it was said"

static void push_one(struct stage *s) { push_real(s, SB_EVENT, "x", TEXT, NULL, NULL); }

static void check_push(struct stage *s)
{
    bool published = rb_load(&s->b->up->outgoing[SB_DATA].head) > 16 * 128;
    struct message m;
    bool got = take(s->a, &m);
    EQUAL(got, published);
    CHECK(!got || strcmp(m.text, TEXT) == 0);
    GETS_NOTHING(s->a);
    CHECK(s->b->reclaimed && !s->b->quarantined);
}
static const struct scenario an_endpoint_pushes = {"an endpoint pushes", prepare_push, push_one, check_push, true};
PROMISE(an_endpoint_pushes)

static void prepare_asking(struct stage *s)
{
    s->a = join_sized(s->w, "a", TINY);
    s->b = join_sized(s->w, "b", TINY);
    handle(s->a, "ask");
    open_real(s);
}

static void ask_one(struct stage *s)
{
    uint8_t id[16];
    CHECK(ep_begin_request(&s->e, 0, false, id) != EP_NO_REQUEST);
    push_real(s, SB_REQUEST, "ask", TEXT, id, NULL);
}

static void check_asking(struct stage *s)
{
    bool published = rb_load(&s->b->up->outgoing[SB_DATA].head) > 0;
    EQUAL(count_messages(s->a), published);
    CHECK(s->b->reclaimed && !s->b->quarantined);
}
static const struct scenario an_endpoint_asks = {"an endpoint asks", prepare_asking, ask_one, check_asking, true};
PROMISE(an_endpoint_asks)

static void prepare_taking(struct stage *s)
{
    s->a = join_sized(s->w, "a", TINY);
    s->b = join_sized(s->w, "b", TINY);
    subscribe_group(s->b, "job", "g", 1);
    put_events(s->a, "job", 2);
    settle(s->w);
    open_real(s);
    s->c = join_sized(s->w, "c", TINY);
    subscribe_group(s->c, "job", "g", 1);
}

static void take_two(struct stage *s)
{
    struct sb_record h;
    const uint8_t *record;
    for (int i = 0; i < 2; i++) {
        CHECK(ep_peek(&s->e, &h, &record) == RB_OK);
        uint64_t position = ep_take(&s->e, &h, SB_HELD_OPEN);
        ep_set_in_hand(&s->e, 1, 5);
        if (i == 0)
            ep_done(&s->e, position);
    }
}

static void check_taking(struct stage *s)
{
    /* What b has finished is not done again, all else is done once. */
    uint64_t taken = rb_load(&s->b->up->incoming[SB_DATA].taken), first = rb_load(&s->b->up->incoming[SB_DATA].tail);
    bool open = false;
    for (int i = 0; i < (int)SB_HELD; i++)
        open |= rb_load(&s->b->up->held[i].position) == 0 && rb_load(&s->b->up->held[i].done) == SB_HELD_OPEN;
    bool finished = first > 0 || (taken > 0 && !open);
    struct message m;
    for (int i = finished; i < 2; i++) {
        CHECK(take(s->c, &m));
        EQUAL(atoi(m.text), i);
        CHECK(m.header.attempt <= 2);
    }
    GETS_NOTHING(s->c);
    EQUAL(rb_load(&s->w->bus->lost), 0);
    CHECK(s->b->reclaimed && !s->b->quarantined);
}
static const struct scenario an_endpoint_takes_and_finishes = {
    "an endpoint takes and finishes", prepare_taking, take_two, check_taking, true};
PROMISE(an_endpoint_takes_and_finishes)

static void prepare_letting_go(struct stage *s)
{
    prepare_taking(s);
    s->e.hold_limit = 1;
}

static void take_more_than_it_holds(struct stage *s)
{
    struct sb_record h;
    const uint8_t *record;
    for (int i = 0; i < 2; i++) {
        CHECK(ep_peek(&s->e, &h, &record) == RB_OK);
        ep_take(&s->e, &h, SB_HELD_OPEN);
        ep_set_in_hand(&s->e, (uint64_t)i + 1, 5);
    }
}

static void check_letting_go(struct stage *s)
{
    /* Each is handed on, or a dead letter. */
    EQUAL(count_messages(s->c) + rb_load(&s->w->bus->dead_letters), 2);
    EQUAL(rb_load(&s->w->bus->lost), 0);
    CHECK(s->b->reclaimed && !s->b->quarantined);
}
static const struct scenario an_endpoint_lets_go = {
    "an endpoint lets go", prepare_letting_go, take_more_than_it_holds, check_letting_go, true};
PROMISE(an_endpoint_lets_go)

static void prepare_serving(struct stage *s)
{
    s->a = join_sized(s->w, "a", TINY);
    s->b = join_sized(s->w, "b", TINY);
    handle(s->b, "ask");
    ask(s->a, "ask", "0");
    settle(s->w);
    open_real(s);
    s->c = join_sized(s->w, "c", TINY);
    handle(s->c, "ask");
}

static void serve_one(struct stage *s)
{
    struct sb_record h;
    const uint8_t *record;
    CHECK(ep_peek(&s->e, &h, &record) == RB_OK);
    ep_take(&s->e, &h, SB_HELD_DONE);
    push_real(s, SB_REPLY, "", TEXT, h.correlation, &h);
}

static void check_serving(struct stage *s)
{
    struct message m, r;
    if (take(s->c, &m))
        CHECK(answer(s->c, &m, "by another"));
    settle(s->w);
    CHECK(take_end(s->a, &r));
    CHECK(r.header.kind == SB_ERROR || strcmp(r.text, TEXT) == 0 || strcmp(r.text, "by another") == 0);
    CHECK(!take_end(s->a, &r));
    EQUAL(rb_load(&s->w->bus->orphans), 0);
    CHECK(s->b->reclaimed && !s->b->quarantined);
}
static const struct scenario an_endpoint_serves = {
    "an endpoint serves", prepare_serving, serve_one, check_serving, true};
PROMISE(an_endpoint_serves)

static void prepare_subscribing(struct stage *s)
{
    s->a = join_sized(s->w, "a", TINY);
    s->b = join_sized(s->w, "b", TINY);
    open_real(s);
}

/* Its log is not in the arena: its state is put back here instead. */
static void subscribe_one(struct stage *s)
{
    struct ep_interest_log log = {s->b->log, s->b->log_size};
    rb_store(&s->b->log->bytes, 0);
    struct sb_interest e = {.op = SB_INTEREST_ADD, .role = SB_ROLE_SUBSCRIBE, .id = 9, .pattern_length = 1};
    CHECK(ep_append_interest(&log, &e, "x", ""));
    ep_commit_interests(&s->e, 1);
    ep_set_state(&s->e, SB_UP_CLOSING);
}

static void check_subscribing(struct stage *s)
{
    CHECK(s->b->reclaimed && !s->b->quarantined);
    put_events(s->a, "x", 1);
    settle(s->w);
    EQUAL(rb_load(&s->w->bus->unrouted), 1);
    EQUAL(s->w->f->routes.pattern_count, 0);
}
static const struct scenario an_endpoint_subscribes_and_closes = {
    "an endpoint subscribes and closes", prepare_subscribing, subscribe_one, check_subscribing, true};
PROMISE(an_endpoint_subscribes_and_closes)

static void prepare_attaching(struct stage *s)
{
    s->a = join_sized(s->w, "a", TINY);
    s->b = make_peer(s->w, "b", TINY);
    rb_store(&s->b->up->state, SB_UP_ATTACHING);
    settle(s->w);
    CHECK(ep_fork_watch());
}

static void attach_one(struct stage *s)
{
    open_real(s);
    ep_set_state(&s->e, SB_UP_ATTACHED);
}

static void check_attaching(struct stage *s)
{
    CHECK(s->b->reclaimed && !s->b->quarantined);
    struct peer *again = join_sized(s->w, "b", TINY);
    EQUAL(again->slot, s->b->slot);
    shm_unlink(again->log_name);
}
static const struct scenario an_endpoint_attaches = {
    "an endpoint attaches", prepare_attaching, attach_one, check_attaching, true};
PROMISE(an_endpoint_attaches)
