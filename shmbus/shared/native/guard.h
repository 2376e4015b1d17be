/* The end of this process when another one ends, whatever this one does then: it may hold Python's lock for ever, or
 * wait in C. A thread of its own watches that one; all signals are blocked in it, and it never touches Python. Where
 * this process is stopped then, that thread is, too: so the end of whoever started this process lets it go on.
 *
 *   sb_end_with           from now on; what it was given stays open for as long as the process lives
 *   sb_end_group          SIGKILL for this process, and for what is in the process group that it leads
 */
#pragma once

#include "shmbus/shared/native/process.h"

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/prctl.h>

#define SB_GUARD_MS 100 /* between two looks, where there is no pidfd */

struct sb_guard {
    uint32_t pid;
    int stat;  /* of that process, opened while it lived; -1: /proc hides it */
    int pidfd; /* -1: this system has none */
};

static inline void sb_end_group(void)
{
    if (getpgrp() == getpid())
        kill(0, SIGKILL);
    kill(getpid(), SIGKILL);
}

static inline bool sb_guard_over(const struct sb_guard *g)
{
    struct pollfd polled = {.fd = g->pidfd, .events = POLLIN};
    int found = poll(&polled, 1, g->pidfd < 0 ? SB_GUARD_MS : -1); /* a negative one is passed over */
    if (g->pidfd >= 0)
        return found > 0;
    return g->stat < 0 ? !sb_process_there(g->pid) : sb_process_finished(g->pid, g->stat);
}

static inline void *sb_guard_run(void *given)
{
    struct sb_guard guard = *(struct sb_guard *)given;
    free(given);
    while (!sb_guard_over(&guard))
        ;
    sb_end_group();
    return NULL;
}

/* 0 or an errno. */
static inline int sb_end_with(uint32_t pid, int stat, int pidfd)
{
    sigset_t all, before;
    pthread_t thread;
    pthread_attr_t attributes;
    struct sb_guard *guard = malloc(sizeof *guard);
    if (!guard)
        return ENOMEM;
    *guard = (struct sb_guard){pid, stat, pidfd};
    sigfillset(&all);
    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attributes, 256 * 1024);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int failed = pthread_create(&thread, &attributes, sb_guard_run, guard);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    if (failed)
        free(guard);
    else
        (void)prctl(PR_SET_PDEATHSIG, SIGCONT, 0, 0, 0);
    return failed;
}
