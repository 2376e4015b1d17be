/* Last wills: a process that is killed wakes who waits for it. */
#include "harness.h"
#include "shmbus/dispatcher/native/liveness.h"

#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>

static void *leave_a_will(void *wills)
{
    sb_make_will();
    sb_leave_will(wills);
    rb_store_seq((rb_word *)wills + 1, 1);
    pause();
    return NULL;
}

static void *close_wills(void *wills)
{
    sb_close_wills(wills);
    return NULL;
}

TEST(a_killed_process_wakes_who_waits_for_its_will)
{
    rb_word *wills = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    pid_t victim = fork();
    if (victim == 0) {
        pthread_t thread;
        pthread_create(&thread, NULL, leave_a_will, wills);
        pause();
    }
    pid_t killer = fork();
    if (killer == 0) {
        char path[32], stat[256] = "";
        snprintf(path, sizeof path, "/proc/%d/stat", getppid());
        while (!rb_load_seq(&wills[1]) || !strstr(stat, ") S ")) { /* until the will is left, and waited for */
            int fd = open(path, O_RDONLY);
            CHECK(fd >= 0 && read(fd, stat, sizeof stat - 1) > 0);
            close(fd);
        }
        kill(victim, SIGKILL);
        _exit(0);
    }
    CHECK(sb_await_will(wills));
    EQUAL(waitpid(victim, NULL, 0), victim);
    EQUAL(waitpid(killer, NULL, 0), killer);
    pthread_t closer;
    pthread_create(&closer, NULL, close_wills, wills);
    CHECK(!sb_await_will(wills));
    pthread_join(closer, NULL);
    munmap(wills, 4096);
}

TEST(whether_one_without_its_watcher_has_called_exec_is_looked_at_ever_more_seldom)
{
    rb_word watcher = 0x7ffffffe; /* no thread */
    struct dp_process x = {.used = true, .pid = (uint32_t)getpid(), .watcher = &watcher, .up_file = (char *)"up"};
    uint32_t looks = 0;
    CHECK(dp_doubt(&x, SECOND));
    CHECK(!dp_doubt(&x, SECOND + 1));
    for (uint64_t sweep = 1; sweep < 1000; sweep++)
        looks += dp_doubt(&x, SECOND + sweep * DP_SWEEP_NS);
    CHECK(looks > 15 && looks < 40);
    watcher = (uint64_t)getpid();
    CHECK(!dp_doubt(&x, 1000 * SECOND));
}
