/* Death at the worst moment. A process does one thing and is killed on the way; what it leaves behind must do.
 *
 * Two ways of choosing the moment. `swept`: after each instruction that has changed a shared byte (stepped.h) the
 * process counts as killed: since nothing else of it would be left, its shared memory is examined as it is, put back,
 * and the next instruction follows. So every instruction is tried. `struck`: built with fail points, it kills itself
 * at each point that it passes.
 *
 * The dispatcher's death is followed by an adoption, an endpoint's by its departure, each in a process of its
 * own, so that every examination begins alike. Some adoptions are themselves swept. */
#pragma once

#define SHARED_WITH_CHILDREN
#ifdef SB_FAILPOINTS
#include "ringbuf/native/fail.h"
#undef RB_FAIL
static void at_point(const char *point);
#define RB_FAIL(point) at_point(point)
#endif
#include "harness.h"
#include "stepped.h"

#include <sys/wait.h>

#include "shmbus/endpoint/native/event.h"
#include "shmbus/endpoint/native/interest_log.h"
#include "shmbus/endpoint/native/limit.h"
#include "shmbus/endpoint/native/nack.h"
#include "shmbus/endpoint/native/open.h"
#include "shmbus/endpoint/native/wait.h"

#define TINY ((struct size){.data_out = 2048, .data_in = 2048, .replies_out = 2048, .replies_in = 2048, \
                            .urgent_in = 1024, .requests = 4})

struct stage {
    struct world *w;
    struct peer *ear, *a, *b, *c, *d;
    struct ep_endpoint e; /* where the victim is an endpoint: its real self */
    struct message m;
    int number;
    void (*meanwhile)(struct stage *); /* what others do before the death is dealt with; NULL: nothing */
};

struct scenario {
    const char *name;
    void (*prepare)(struct stage *);
    void (*act)(struct stage *);   /* what the victim does */
    void (*check)(struct stage *); /* after its death was dealt with */
    bool endpoint;                 /* the victim is b, not the dispatcher */
};

static inline void open_real(struct stage *s)
{
    CHECK(ep_fork_watch());
    CHECK(ep_open(&s->e, s->w->bus, s->w->ready, s->b->up, s->b->down, &s->w->bell, &s->b->bell, 7, 0, 16));
    snprintf(s->e.bus_path, sizeof s->e.bus_path, "/dev/shm%s:bus", s->w->f->prefix);
}

/* What must agree whenever the kill came: the reasons of losses with their number, the counts of deaths with the list,
 * in which each stands once. */
static inline void check_accounts(struct stage *s)
{
    struct sb_bus *bus = s->w->bus;
    struct peer *peers[] = {s->ear, s->a, s->b, s->c, s->d};
    uint64_t sum = 0, last = 0;
    for (size_t i = 0; i < sizeof peers / sizeof *peers; i++) {
        uint64_t told = 0;
        for (uint32_t why = 0; peers[i] && why < SB_LOSSES; why++)
            told += rb_load(&peers[i]->down->lost_by[why]);
        if (peers[i])
            EQUAL(told, rb_load(&peers[i]->down->lost));
    }
    for (uint32_t i = 0; i < SB_REASONS; i++)
        sum += rb_load(&bus->deaths[i]);
    for (uint32_t i = 0; i < SB_DEATHS; i++) {
        struct sb_death *death = &bus->last_deaths[i];
        uint64_t nth = rb_load(&death->nth);
        last = nth > last ? nth : last;
        if (nth)
            CHECK(rb_load(&death->seq) % 2 == 0);
        for (uint32_t k = 0; nth && k < i; k++)
            CHECK(rb_load(&bus->last_deaths[k].generation) != rb_load(&death->generation));
    }
    EQUAL(sum, last);
}

/* The victim's death ------------------------------------------------------------------------------------------- */

static inline void adopt(struct world *w, bool stepped)
{
    reopen(w);
    if (stepped)
        begin_steps(); /* nothing shared has been touched */
    dp_take_orders(w->f, true);
    dp_recover(w->f);
}

static inline void reborn(struct stage *s, const struct scenario *x)
{
    if (s->meanwhile)
        s->meanwhile(s);
    if (x->endpoint) {
        die(s->b, SB_REASON_KILLED);
    } else {
        adopt(s->w, false);
        settle(s->w);
    }
    x->check(s);
    check_accounts(s);
}

/* In a process of its own: does what is left do? */
static inline void examine(struct stage *s, const struct scenario *x, const uint8_t *as_it_is, const char *moment,
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

/* How often adoptions are swept in their turn: one in so many states; 0: never. */
#define ADOPTIONS 40u

static inline void sweep_adoption(struct stage *s, const struct scenario *x, const uint8_t *start, uint64_t *deepest)
{
    uint8_t *last = malloc(arena_used);
    CHECK(last);
    memcpy(last, start, arena_used);
    pid_t child = stepped_child();
    if (!child) {
        adopt(s->w, true);
        settle(s->w);
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
            examine(s, x, last, "step of the adoption", steps);
    }
    *deepest += steps;
    memcpy(arena, start, arena_used);
    free(last);
}

static inline void sweep(const struct scenario *x, uint64_t adoptions)
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
    pid_t child = stepped_child();
    if (!child) {
        begin_steps();
        x->act(&s);
        _exit(0);
    }
    uint64_t steps = 0, states = 0, deepest = 0;
    examine(&s, x, last, "step", 0);
    while (step(child)) {
        steps++;
        if (memcmp(last, arena, arena_used) == 0)
            continue;
        memcpy(last, arena, arena_used);
        examine(&s, x, last, "step", steps);
        states++;
        if (adoptions && states % adoptions == adoptions / 2 && !x->endpoint)
            sweep_adoption(&s, x, last, &deepest);
    }
    examine(&s, x, last, "its end, after", steps);
    if (getenv("VERBOSE"))
        fprintf(stderr, "%s: %llu steps, %llu states, %llu steps of adoptions\n", x->name,
                (unsigned long long)steps, (unsigned long long)states, (unsigned long long)deepest);
    CHECK(states > 0);
    memcpy(arena, start, arena_used);
    free(start);
    free(last);
    close_world(s.w);
    unshare_all();
}

#define PROMISE(id) TEST(swept_##id) { sweep(&id, ADOPTIONS); }

#else
/* Striking ----------------------------------------------------------------------------------------------------- */

#define POINTS 256
/* Of its successor's deaths one in so many is tried, others in each run. */
#define SUCCESSORS 4

/* FAIL_POINTS holds the names of all there are; those that killed are printed. */
static const char *fail_point(int i)
{
    static char text[4096], *points[POINTS];
    if (!points[0]) {
        CHECK(getenv("FAIL_POINTS"));
        snprintf(text, sizeof text, "%s", getenv("FAIL_POINTS"));
        int count = 0;
        for (char *point = strtok(text, " "); point; point = strtok(NULL, " "))
            points[count++] = point;
    }
    return points[i];
}

/* Which of them were passed since forget_passed(), here or in a child; so no process is made for the others. */
static uint8_t *passed;

static void at_point(const char *point)
{
    const char *one;
    for (int i = 0; passed && (one = fail_point(i)); i++)
        if (strcmp(point, one) == 0)
            passed[i] = true;
    rb_fail(point);
}

static inline void forget_passed(void)
{
    if (!passed)
        passed = mmap(NULL, POINTS, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    memset(passed, 0, POINTS);
}

/* Killed at the `nth` pass of `point` while it acts, or adopts? */
static inline bool killed(struct stage *s, const struct scenario *x, const char *point, uint64_t nth, bool adopting)
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

static inline void strike(const struct scenario *x)
{
    struct stage s = {.w = new_world()};
    x->prepare(&s);
    uint8_t *start = malloc(arena_used), *left = malloc(arena_used), *twice = malloc(arena_used);
    CHECK(start && left && twice);
    memcpy(start, arena, arena_used);
    srand((unsigned)getpid());
    forget_passed();
    killed(&s, x, "", 1, false); /* nowhere: it passes them all */
    memcpy(arena, start, arena_used);
    uint8_t acting[POINTS];
    memcpy(acting, passed, POINTS);
    const char *point, *second;
    for (int i = 0; (point = fail_point(i)); i++)
        for (uint64_t nth = 1; acting[i] && nth <= 4; nth++) {
            if (!killed(&s, x, point, nth, false)) {
                memcpy(arena, start, arena_used);
                break;
            }
            memcpy(left, arena, arena_used);
            forget_passed();
            examine(&s, x, left, point, nth);
            uint8_t adopting[POINTS];
            memcpy(adopting, passed, POINTS);
            for (int k = 0; !x->endpoint && (second = fail_point(k)); k++) /* and its successor, while it adopts */
                if (adopting[k] && strncmp(second, "recover.", 8) == 0 && rand() % SUCCESSORS == 0 &&
                    killed(&s, x, second, 1, true)) {
                    char moment[128];
                    snprintf(moment, sizeof moment, "%s, then at %s", point, second);
                    memcpy(twice, arena, arena_used);
                    examine(&s, x, twice, moment, nth);
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

/* The same where files are written that cannot be put back: each time all begins anew. The victim is b. */
static inline void strike_anew(const struct scenario *x)
{
    const char *point;
    for (int i = 0; (point = fail_point(i)); i++) {
        bool struck = true;
        for (uint64_t nth = 1; struck && nth <= 4; nth++) {
            struct stage s = {.w = new_world()};
            x->prepare(&s);
            struck = killed(&s, x, point, nth, false);
            reborn(&s, x); /* also at its end */
            ep_free(&s.e);
            close_world(s.w);
            unshare_all();
        }
    }
}

#ifdef SEGMENTS_IN_FILES
#define PROMISE(id) TEST(struck_##id) { strike_anew(&id); }
#else
#define PROMISE(id) TEST(struck_##id) { strike(&id); }
#endif
#endif

/* The next reply that ends a request: the first does, and what else a kill may have repeated is an orphan. */
static inline bool take_end(struct peer *p, struct message *m)
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

static inline void ends_with_fault(struct peer *p, uint32_t code)
{
    struct message m;
    CHECK(take_end(p, &m));
    EQUAL(fault_of(&m).code, code);
}

static inline void ends_with_reply(struct peer *p, const char *text)
{
    struct message m;
    CHECK(take_end(p, &m));
    EQUAL(m.header.kind, SB_REPLY);
    CHECK(strcmp(m.text, text) == 0);
}

static inline void put_urgent(struct peer *p, const char *type, const char *text)
{
    struct sb_record h = {.kind = SB_EVENT, .flags = SB_RAW | SB_URGENT};
    CHECK(put(p, SB_DATA, h, type, text, strlen(text)));
    flush(p);
}

/* How many urgent events it gets, which are "0", "1", ... from `first` on. */
static inline int takes_urgent(struct peer *p, int first)
{
    struct message m;
    int count = 0;
    for (; take_urgent(p, &m); count++)
        EQUAL(atoi(m.text), first + count);
    return count;
}

static inline void put_events(struct peer *p, const char *type, int count)
{
    char text[16];
    for (int i = 0; i < count; i++) {
        snprintf(text, sizeof text, "%d", i);
        CHECK(put(p, SB_DATA, (struct sb_record){.kind = SB_EVENT}, type, text, strlen(text)));
    }
    flush(p);
}

/* `p` gets exactly the events "0", "1", ... of `count`. */
static inline void gets_all(struct peer *p, int count)
{
    struct message m;
    for (int i = 0; i < count; i++) {
        CHECK(take(p, &m));
        EQUAL(atoi(m.text), i);
    }
    CHECK(!take(p, &m));
}

/* What victims do -------------------------------------------------------------------------------------------------- */

static inline void forward(struct stage *s) { settle(s->w); }
static inline void b_dies(struct stage *s) { die(s->b, SB_REASON_KILLED); }

static inline void lose(struct stage *s)
{
    advance(s->w, 2 * SECOND); /* a single step would look as if the dispatcher itself had been stopped */
}
