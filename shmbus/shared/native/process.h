/* Is a process alive? Its task flags say so hundreds of times sooner than a pidfd, a socket or the zombie state, which
 * all wait until the memory of the process has been freed.
 *
 * A task is finished when PF_EXITING, PF_DUMPCORE or PF_SIGNALED is set in the flags of its `stat`, or its state
 * is Z or X; a process is dead when every task of it is finished: none of its instructions can run any more.
 * The leader's `stat` is read through a descriptor opened while the process lived, which answers ESRCH for ever
 * once the process was reaped, so that a re-used pid is not taken for it.
 *
 *   sb_open_stat, sb_read_stat    the leader's task: its flags, its start time, its exit code
 *   sb_process_finished           is every task finished?
 *   sb_pidfd_open                 the late sign, which can be polled
 *   sb_process_there              has any process this pid? For one that /proc hides (hidepid=)
 *   sb_task_ended                 has a process that lives no such thread any more? exec ends all but one
 *   sb_may_map                    may a file be in its memory still? exec has unmapped all
 */
#pragma once

#include "ringbuf/native/order.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define SB_EXITING 0x4u /* PF_EXITING and so on, unchanged since Linux 2.6 */
#define SB_DUMPS_CORE 0x200u
#define SB_SIGNALED 0x400u /* by another thread's exit, too */
#define SB_TASK_FINISHED (SB_EXITING | SB_DUMPS_CORE | SB_SIGNALED) /* no instruction of this task runs any more */

enum sb_life {
    SB_RUNS = 0,
    SB_TASK_STOPPED = 1,  /* state T or t */
    SB_FINISHED = 2, /* this task is */
    SB_VANISHED = 3, /* reaped */
    SB_UNKNOWN = 4,  /* could not be read */
};

struct sb_stat {
    char state;
    uint32_t flags;
    uint64_t start_time; /* clock ticks since boot */
    uint64_t resident;   /* pages in memory; 0 of a finished one */
    uint32_t exit_code;  /* of a finished one, as wait() would say it; 0 where it may not be read */
};

static inline int sb_open_stat(uint32_t pid)
{
    char path[40];
    snprintf(path, sizeof path, "/proc/%u/stat", pid);
    return open(path, O_RDONLY | O_CLOEXEC);
}

/* Move `*field`, which is number `*number`, on to number `wanted`; false where there is no such field. */
static inline bool sb_seek_field(const char **field, int *number, int wanted)
{
    for (; *number < wanted; ++*number) {
        const char *space = strchr(*field, ' ');
        if (!space)
            return false;
        *field = space + 1;
    }
    return true;
}

/* It is done for every endpoint in every sweep, so it goes no further than it needs to. */
static inline enum sb_life sb_parse_stat(const char *text, struct sb_stat *s)
{
    const char *field = strrchr(text, ')'); /* the name before it may hold anything */
    if (!field || !field[1])
        return SB_UNKNOWN;
    field += 2;
    int number = 3;
    *s = (struct sb_stat){.state = *field};
    if (!sb_seek_field(&field, &number, 9))
        return SB_UNKNOWN;
    s->flags = (uint32_t)strtoul(field, NULL, 10);
    if (!sb_seek_field(&field, &number, 22))
        return SB_UNKNOWN;
    s->start_time = strtoull(field, NULL, 10);
    if ((s->flags & SB_TASK_FINISHED) || s->state == 'Z' || s->state == 'X') {
        if (sb_seek_field(&field, &number, 52))
            s->exit_code = (uint32_t)strtoul(field, NULL, 10);
        return SB_FINISHED;
    }
    if (sb_seek_field(&field, &number, 24))
        s->resident = strtoull(field, NULL, 10);
    return s->state == 'T' || s->state == 't' ? SB_TASK_STOPPED : SB_RUNS;
}

static inline enum sb_life sb_read_stat(int fd, struct sb_stat *s)
{
    char text[1024];
    ssize_t n;
    do
        n = pread(fd, text, sizeof text - 1, 0);
    while (n < 0 && errno == EINTR);
    if (n <= 0)
        return n < 0 && errno != ESRCH ? SB_UNKNOWN : SB_VANISHED;
    text[n] = 0;
    return sb_parse_stat(text, s);
}

/* Is every task of `pid` finished? `fd` is its leader's stat, opened while it lived. */
static inline bool sb_process_finished(uint32_t pid, int fd)
{
    struct sb_stat s;
    enum sb_life leader = sb_read_stat(fd, &s);
    if (leader == SB_VANISHED)
        return true;
    if (leader != SB_FINISHED)
        return false;
    char path[64];
    snprintf(path, sizeof path, "/proc/%u/task", pid);
    DIR *tasks = opendir(path);
    bool finished = tasks; /* what cannot be looked at, or is hidden, is not known to be dead */
    for (struct dirent *entry; tasks && finished && (entry = readdir(tasks));) {
        if (entry->d_name[0] == '.')
            continue;
        snprintf(path, sizeof path, "/proc/%u/task/%.20s/stat", pid, entry->d_name);
        int task = open(path, O_RDONLY | O_CLOEXEC);
        if (task < 0) {
            finished = errno == ENOENT || errno == ESRCH; /* gone meanwhile */
            continue;
        }
        enum sb_life life = sb_read_stat(task, &s);
        close(task);
        finished = life == SB_FINISHED || life == SB_VANISHED;
    }
    if (tasks)
        closedir(tasks);
    /* Reaped while we looked: whatever the list showed may have been somebody else's. */
    return finished || sb_read_stat(fd, &s) == SB_VANISHED;
}

static inline int sb_pidfd_open(uint32_t pid)
{
#ifdef SYS_pidfd_open
    return (int)syscall(SYS_pidfd_open, (pid_t)pid, 0);
#else
    (void)pid;
    errno = ENOSYS;
    return -1;
#endif
}

/* A zombie is there, too. */
static inline bool sb_process_there(uint32_t pid) { return kill((pid_t)pid, 0) == 0 || errno != ESRCH; }

static inline bool sb_task_ended(uint32_t pid, uint64_t tid)
{
    return syscall(SYS_tgkill, (pid_t)pid, (pid_t)tid, 0) != 0 && errno == ESRCH;
}

/* True where that cannot be read, as of a program that runs as somebody else, and of a process that is ending. */
static inline bool sb_may_map(uint32_t pid, const char *file)
{
    char path[40], *line = NULL;
    size_t size = 0;
    snprintf(path, sizeof path, "/proc/%u/maps", pid);
    FILE *maps = fopen(path, "re");
    if (!maps)
        return true;
    bool found = false, readable = false;
    while (!found && getline(&line, &size, maps) > 0) {
        readable = true;
        found = strstr(line, file) != NULL;
    }
    readable &= !ferror(maps);
    free(line);
    fclose(maps);
    return found || !readable;
}
