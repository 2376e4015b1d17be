/* A queue's user is killed at each fail point, at each pass: what was put is there in order and once, what was taken is
 * with somebody or counted as lost, the counts are right, the others go on, and nothing is left in /dev/shm. */
#define SQ_MOST_RING 4096u /* so that larger records have a ring to themselves */
#include "shmbus/queues/native/leave.h"

#include "check.h"

#include <dirent.h>
#include <sys/wait.h>

#define MESSAGES 12u
#define LENGTH 200u   /* bytes of a record: five fill the first ring */
#define LARGE 3000u
#define BATCH 4u

const char *test_name = "";
struct test *all_tests;

struct told { /* by the victim */
    rb_word done;     /* calls that have returned */
    rb_word returned; /* the last message that one of them gave */
} *told;

static struct sq_core queue;
static struct sq_user user;
static char name[SQ_MAX_FILE];
static bool redeliver;

static uint64_t soon(void) { return rb_now() + 5000000000u; }

static void open_core(struct sq_core *c, struct sq_user *u, struct sq_queue *shared)
{
    struct sb_stat stat;
    memset(c, 0, sizeof *c);
    memset(u, 0, sizeof *u);
    strcpy(c->name, name);
    c->shared = shared;
    c->pid = (uint64_t)getpid();
    int fd = sb_open_stat((uint32_t)c->pid);
    CHECK(fd >= 0 && sb_read_stat(fd, &stat) == SB_RUNS);
    close(fd);
    c->start_time = stat.start_time;
}

static void claim(struct sq_core *c, struct sq_user *u)
{
    EQUAL(sq_claim_row(c, SQ_USED, 1, &u->row, soon()), SQ_OK);
}

static void begin(bool again)
{
    struct sq_mapped m;
    redeliver = again;
    snprintf(name, sizeof name, "/shmbus:%u:native-%u:queue", geteuid(), getpid());
    CHECK(sq_make_segment(name, sizeof(struct sq_queue), 1, &m));
    open_core(&queue, &user, m.at);
    EQUAL(sq_create(&queue, 0, again, RB_MIN_CAPACITY), SQ_OK);
    claim(&queue, &user);
    rb_store(&told->done, 0);
    rb_store(&told->returned, 0);
}

static void end(void)
{
    EQUAL(sq_give_back_row(&queue, user.row, soon()), SQ_OK);
    for (uint32_t i = 0; i < SQ_ROWS; i++)
        EQUAL(rb_load(&queue.shared->rows[i].state), SQ_FREE);
    CHECK(sq_take_leave(&queue, false, soon()));
    sq_unmap(&queue.put_ring);
    sq_unmap(&queue.get_ring);
    sq_unmap(&user.hand);
    free(user.data);
    munmap(queue.shared, sizeof(struct sq_queue));
    DIR *all = opendir("/dev/shm");
    for (struct dirent *entry; (entry = readdir(all));)
        CHECK(strncmp(entry->d_name, name + 1, strlen(name) - 1) != 0);
    closedir(all);
}

static void put(struct sq_core *c, struct sq_user *u, uint64_t first, uint64_t number, uint32_t length)
{
    static uint8_t payloads[BATCH][LARGE];
    struct sq_item items[BATCH];
    uint64_t done;
    for (uint64_t i = 0; i < number; i++) {
        memset(payloads[i], (int)(first + i), length);
        memcpy(payloads[i], &(uint64_t){first + i}, 8);
        items[i] = (struct sq_item){{length, 1, 0}, 0, payloads[i]};
    }
    EQUAL(sq_put(c, u, items, number, &done, soon()), SQ_OK);
    EQUAL(done, number);
}

/* The next message; 0: there is none. */
static uint64_t get(struct sq_core *c, struct sq_user *u)
{
    uint64_t got = 0, value;
    sq_empty_hand(c, u);
    u->at = u->end = 0;
    enum sq_status status = SQ_WAIT;
    if (rb_load(&c->shared->orphans))
        status = sq_take_over(c, u, soon());
    if (status == SQ_WAIT)
        status = sq_get(c, u, 1, &got, soon());
    if (status == SQ_WAIT)
        return 0;
    EQUAL(status, SQ_OK);
    memcpy(&value, u->data + 8, 8);
    struct rb_head8 head;
    memcpy(&head, u->data, sizeof head);
    for (uint64_t i = 16; i < head.length; i++)
        EQUAL(u->data[i], value);
    return value;
}

static void bury_all(struct sq_core *c, struct sq_user *u)
{
    uint64_t in_hand;
    for (uint32_t i = 0; i < SQ_ROWS; i++)
        EQUAL(sq_bury(c, u, i, soon(), &in_hand), SQ_OK);
}

struct scenario {
    const char *name;
    bool redeliver;
    void (*prepare)(void);
    void (*act)(struct sq_core *, struct sq_user *);
    void (*check)(void);
};

/* In a child, which dies without leaving. */
static int run_child(void (*act)(struct sq_core *, struct sq_user *), const char *point, uint64_t nth)
{
    static struct sq_core core;
    static struct sq_user self;
    pid_t child = fork();
    CHECK(child >= 0);
    if (!child) {
        alarm(20);
        open_core(&core, &self, queue.shared);
        rb_arm(point, nth);
        claim(&core, &self);
        act(&core, &self);
        _exit(0);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child);
    return status;
}

static void nothing(void) {}

/* Putting */

static void put_one_by_one(struct sq_core *c, struct sq_user *u)
{
    for (uint64_t i = 1; i <= MESSAGES; i++) {
        put(c, u, i, 1, i == 9 ? LARGE : LENGTH);
        rb_store(&told->done, i);
    }
}

static void put_batches(struct sq_core *c, struct sq_user *u)
{
    for (uint64_t i = 1; i <= MESSAGES; i += BATCH) {
        put(c, u, i, BATCH, LENGTH);
        rb_store(&told->done, i + BATCH - 1);
    }
}

static void check_put(uint64_t most)
{
    uint64_t done = rb_load(&told->done), there = 0, value;
    bury_all(&queue, &user);
    uint64_t counted = rb_load(&queue.shared->producers.count);
    while ((value = get(&queue, &user)))
        EQUAL(value, ++there);
    CHECK(there >= done && there <= done + most);
    EQUAL(counted, there);
    EQUAL(rb_load(&queue.shared->consumers.count), there);
    put(&queue, &user, there + 1, 1, LENGTH);
    EQUAL(get(&queue, &user), there + 1);
    EQUAL(get(&queue, &user), 0);
    EQUAL(rb_load(&queue.shared->book.lost), 0);
}

static void check_put_one_by_one(void) { check_put(1); }
static void check_put_batches(void) { check_put(BATCH); }

/* Getting */

static void fill(void)
{
    for (uint64_t i = 1; i <= MESSAGES; i++)
        put(&queue, &user, i, 1, i == 9 ? LARGE : LENGTH);
}

static void get_all(struct sq_core *c, struct sq_user *u)
{
    uint64_t value;
    while ((value = get(c, u))) {
        rb_store(&told->returned, value);
        rb_add(&told->done, 1);
    }
}

static void check_lost(void)
{
    uint64_t returned = rb_load(&told->done), rest = 0, value, first = 0;
    bury_all(&queue, &user);
    uint64_t lost = rb_load(&queue.shared->book.lost);
    while ((value = get(&queue, &user))) {
        if (!first)
            first = value;
        EQUAL(value, first + rest);
        rest++;
    }
    uint64_t taken = MESSAGES - rest;
    CHECK(taken == returned || taken == returned + 1);
    CHECK(lost <= 1 && (lost == 1 || taken == returned));
    EQUAL(rb_load(&queue.shared->consumers.count), MESSAGES);
    /* Who is dead says no more that it is done; the checker has yet to. */
    EQUAL(sq_unfinished(queue.shared), rest);
    for (uint64_t i = 0; i < rest; i++)
        EQUAL(sq_task_done(&queue, &user, soon()), SQ_OK);
    EQUAL(sq_task_done(&queue, &user, soon()), SQ_WAIT);
}

static void check_redelivered(void)
{
    uint64_t returned = rb_load(&told->returned), value, seen[MESSAGES + 1] = {0};
    bury_all(&queue, &user);
    while ((value = get(&queue, &user))) {
        CHECK(value <= MESSAGES);
        EQUAL(seen[value]++, 0);
    }
    for (uint64_t i = 1; i <= MESSAGES; i++) {
        if (i < returned)
            EQUAL(seen[i], 0);
        if (i > returned)
            EQUAL(seen[i], 1);
    }
    EQUAL(rb_load(&queue.shared->book.lost), 0);
}

/* Taking over */

static void get_three_at_once(struct sq_core *c, struct sq_user *u)
{
    uint64_t got;
    if (redeliver) /* so that its hand has room for three */
        EQUAL(sq_open_hand(c, u->row, 3 * LENGTH + 64, &u->hand), SQ_OK);
    EQUAL(sq_get(c, u, 3, &got, soon()), SQ_OK);
    EQUAL(got, 3);
}

static void leave_three(void)
{
    fill();
    EQUAL(run_child(get_three_at_once, "", 0), 0);
    bury_all(&queue, &user);
    CHECK(rb_load(&queue.shared->orphans));
}

/* Burying */

static void leave_three_unburied(void)
{
    fill();
    EQUAL(run_child(get_three_at_once, "", 0), 0);
}

static void check_buried(void)
{
    bury_all(&queue, &user);
    EQUAL(rb_load(&queue.shared->book.lost), 3);
    for (uint64_t i = 4; i <= MESSAGES; i++)
        EQUAL(get(&queue, &user), i);
}

static void check_buried_to_redeliver(void)
{
    bury_all(&queue, &user);
    EQUAL(rb_load(&queue.shared->book.lost), 0);
    for (uint64_t i = 1; i <= MESSAGES; i++)
        EQUAL(get(&queue, &user), i);
    EQUAL(get(&queue, &user), 0);
}

/* Saying that it is done */

static void get_and_do(struct sq_core *c, struct sq_user *u)
{
    for (uint64_t i = 1; i <= 3; i++) {
        EQUAL(get(c, u), i);
        EQUAL(sq_task_done(c, u, soon()), SQ_OK);
    }
    EQUAL(sq_give_back_row(c, u->row, soon()), SQ_OK);
}

static void check_done(void)
{
    uint64_t rest = 0;
    bury_all(&queue, &user);
    while (get(&queue, &user)) {
        EQUAL(sq_task_done(&queue, &user, soon()), SQ_OK);
        rest++;
    }
    CHECK(rest >= MESSAGES - 3);
    EQUAL(sq_unfinished(queue.shared), 0);
}

/* Waking somebody */

static void nobody_sleeps_on(void)
{
    rb_count_seq(&queue.shared->producers.bell.naps);
    rb_count_seq(&queue.shared->consumers.bell.naps);
}

static void put_and_get(struct sq_core *c, struct sq_user *u)
{
    put(c, u, 1, 1, LENGTH);
    rb_store(&told->done, 1);
    EQUAL(get(c, u), 1);
    rb_store(&told->returned, 1);
}

static void check_put_and_got(void)
{
    bury_all(&queue, &user);
    uint64_t rest = 0, lost = rb_load(&queue.shared->book.lost), put_there = rb_load(&queue.shared->producers.count);
    while (get(&queue, &user))
        rest++;
    CHECK(put_there >= rb_load(&told->done));
    CHECK(rest + lost <= put_there && rest + rb_load(&told->returned) <= put_there);
    EQUAL(sq_unfinished(queue.shared), rest);
}

/* Putting right what a dead holder left */

static void die_with_the_role(void)
{
    fill();
    CHECK(WIFSIGNALED(run_child(get_all, "ring.release", 2)));
}

static void die_with_the_head_moved(void)
{
    CHECK(WIFSIGNALED(run_child(put_one_by_one, "ring.published", 2)));
}

static void put_two(struct sq_core *c, struct sq_user *u)
{
    put(c, u, 3, 1, LENGTH);
    rb_store(&told->done, 3);
    put(c, u, 4, 1, LENGTH);
    rb_store(&told->done, 4);
}

static void check_put_two(void)
{
    if (rb_load(&told->done) < 2)
        rb_store(&told->done, 2);
    check_put(1);
}

static const struct scenario scenarios[] = {
    {"messages are put", false, nothing, put_one_by_one, check_put_one_by_one},
    {"batches are put", false, nothing, put_batches, check_put_batches},
    {"messages are taken", false, fill, get_all, check_lost},
    {"messages are taken that would be delivered again", true, fill, get_all, check_redelivered},
    {"messages of the dead are taken over", true, leave_three, get_all, check_redelivered},
    {"the dead are buried", false, leave_three_unburied, bury_all, check_buried},
    {"what the dead had is kept", true, leave_three_unburied, bury_all, check_buried_to_redeliver},
    {"messages are done", false, fill, get_and_do, check_done},
    {"a dead consumer's role is put right", false, die_with_the_role, get_all, check_lost},
    {"a dead producer's role is put right", false, die_with_the_head_moved, put_two, check_put_two},
    {"sleepers are woken", false, nobody_sleeps_on, put_and_get, check_put_and_got},
};

int main(int argc, char **argv)
{
    told = mmap(NULL, sizeof *told, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(told != MAP_FAILED);
    for (int i = 1; i < argc; i++) {
        bool anybody = false;
        for (size_t k = 0; k < sizeof scenarios / sizeof *scenarios; k++) {
            const struct scenario *x = &scenarios[k];
            static char what[160];
            int status = 1;
            for (uint64_t nth = 1; status; nth++) {
                snprintf(what, sizeof what, "%s, killed at %s, pass %llu", x->name, argv[i], (unsigned long long)nth);
                test_name = what;
                begin(x->redeliver);
                x->prepare();
                status = run_child(x->act, argv[i], nth);
                CHECK(!status || (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL));
                anybody |= status != 0;
                x->check();
                end();
            }
        }
        if (anybody)
            printf("%s\n", argv[i]);
    }
    return 0;
}
