/* Threads of one process put and get, for the sanitizers to watch: each message is taken once, those of a producer
 * in order by each consumer. Then a process is stopped with both locks: nobody waits longer for them than it wants.
 *
 *   queue_stress MESSAGES MAXSIZE */
#include "shmbus/queues/native/leave.h"

#include "check.h"

#include <sys/wait.h>

#define PRODUCERS 2u
#define CONSUMERS 2u

const char *test_name = "queue";
struct test *all_tests;

static struct sq_core core;
static struct sq_look_for look;
static uint64_t messages;
static rb_word taken;

static uint64_t soon(void) { return rb_now() + SQ_SLICE_NS; }

static void join_in(struct sq_user *u)
{
    static rb_word unparked;
    memset(u, 0, sizeof *u);
    EQUAL(sq_claim_row(&core, SQ_USED, 1, &u->row, soon()), SQ_OK);
    rb_bell_open(&u->spin, &unparked, NULL, RB_SPIN_NS);
}

static void leave(struct sq_user *u)
{
    EQUAL(sq_give_back_row(&core, u->row, soon()), SQ_OK);
    free(u->data);
}

static void *produce(void *context)
{
    struct sq_user u;
    uint64_t first = (uint64_t)(uintptr_t)context << 32, done, sent = 0;
    join_in(&u);
    while (sent < messages) {
        struct sq_item items[3];
        uint64_t number = 1 + sent % 3 < messages - sent ? 1 + sent % 3 : messages - sent;
        for (uint64_t i = 0; i < number; i++)
            items[i] = (struct sq_item){{16, 1, 0}, first + sent + i, NULL};
        enum sq_status status = sq_put(&core, &u, items, number, &done, soon());
        sent += done;
        if (status == SQ_WAIT)
            sq_sleep(&u, &core.shared->consumers.bell, sq_look_room, &look, soon());
        else
            CHECK(status == SQ_OK || status == SQ_BUSY);
    }
    leave(&u);
    return NULL;
}

static void *consume(void *context)
{
    struct sq_user u;
    uint64_t next[PRODUCERS] = {0}, value;
    (void)context;
    join_in(&u);
    while (atomic_load(&taken) < PRODUCERS * messages) {
        uint64_t got;
        u.at = u.end = 0;
        sq_empty_hand(&core, &u);
        enum sq_status status = sq_get(&core, &u, 2, &got, soon());
        if (status == SQ_WAIT)
            sq_sleep(&u, &core.shared->producers.bell, sq_look_message, &look, rb_now() + SQ_SLICE_NS / 10);
        else
            CHECK(status == SQ_OK || status == SQ_BUSY);
        for (; u.at < u.end; u.at += 16) {
            memcpy(&value, u.data + u.at + 8, 8);
            CHECK((uint32_t)value >= next[value >> 32]);
            next[value >> 32] = (uint32_t)value + 1;
            atomic_fetch_add(&taken, 1);
        }
    }
    leave(&u);
    return NULL;
}

static void wait_for_the_stopped(void)
{
    int ready[2];
    char byte;
    CHECK(pipe(ready) == 0);
    pid_t child = fork();
    CHECK(child >= 0);
    if (!child) {
        bool died;
        CHECK(sq_lock(core.shared->producers.lock, soon(), &died) == SQ_OK);
        CHECK(sq_lock(core.shared->consumers.lock, soon(), &died) == SQ_OK);
        CHECK(write(ready[1], "", 1) == 1);
        raise(SIGSTOP);
        _exit(0);
    }
    struct sq_user u;
    struct sq_item item = {{16, 1, 0}, 1, NULL};
    uint64_t done, start = rb_now();
    join_in(&u);
    CHECK(read(ready[0], &byte, 1) == 1);
    EQUAL(sq_put(&core, &u, &item, 1, &done, 0), SQ_BUSY);
    EQUAL(sq_put(&core, &u, &item, 1, &done, rb_now() + 1000000), SQ_BUSY);
    EQUAL(sq_get(&core, &u, 1, &done, rb_now() + 1000000), SQ_BUSY);
    CHECK(rb_now() - start > 2000000);
    kill(child, SIGKILL);
    CHECK(waitpid(child, NULL, 0) == child);
    EQUAL(sq_put(&core, &u, &item, 1, &done, soon()), SQ_OK);
    EQUAL(sq_get(&core, &u, 1, &done, soon()), SQ_OK);
    leave(&u);
}

int main(int count, char **arguments)
{
    pthread_t threads[PRODUCERS + CONSUMERS];
    struct sq_mapped m;
    CHECK(count == 3);
    messages = strtoull(arguments[1], NULL, 10);
    snprintf(core.name, sizeof core.name, "/shmbus:%u:native-%u:queue", geteuid(), getpid());
    CHECK(sq_make_segment(core.name, sizeof(struct sq_queue), 1, &m));
    look.queue = core.shared = m.at;
    core.pid = (uint64_t)getpid();
    EQUAL(sq_create(&core, strtoull(arguments[2], NULL, 10), false, RB_MIN_CAPACITY), SQ_OK);
    for (uintptr_t i = 0; i < PRODUCERS + CONSUMERS; i++)
        CHECK(pthread_create(&threads[i], NULL, i < PRODUCERS ? produce : consume, (void *)i) == 0);
    for (uint32_t i = 0; i < PRODUCERS + CONSUMERS; i++)
        pthread_join(threads[i], NULL);
    EQUAL(taken, PRODUCERS * messages);
    EQUAL(rb_load(&core.shared->producers.count), rb_load(&core.shared->consumers.count));
    wait_for_the_stopped();
    CHECK(sq_take_leave(&core, false, soon()));
    sq_unmap(&core.put_ring);
    sq_unmap(&core.get_ring);
    return 0;
}
