/* Does the process that serves the bus still run, and has a successor taken its place? No thread of its own: the
 * watcher (watcher.h) asks, and so do callers who wait (ep_check_dispatcher in wait.h).
 *
 * The kernel reports the end of a process through its pidfd only after it has freed its memory, which may take
 * a second. The flags of its tasks (process.h) say it at once, so those of a large dispatcher are looked at every
 * 60 ms, once for all endpoints of this process.
 *
 *   ep_watch_dispatcher, ep_unwatch_dispatcher    open and close what tells of its end
 *   ep_dispatcher_finished                        has it ended?
 *   ep_bus_replaced                               is there another bus of the same name, which will never adopt us?
 */
#pragma once

#include "shmbus/endpoint/native/trouble.h"
#include "shmbus/shared/native/process.h"

#include <poll.h>
#include <sys/stat.h>

#define EP_ROUND_NS 60000000u     /* how often to look at the task flags of a large dispatcher */
#define EP_GLANCE_NS 1000000000u  /* how often to look whether it has become large */
#define EP_LARGE_PAGES 32768u     /* what takes some 30 ms to be freed before the pidfd becomes readable: 128 MiB */

/* Returns the dispatcher's serial. Pairs with the seqlock of dispatcher/table.py. */
static inline uint64_t ep_read_identity(const struct sb_bus *bus, struct sb_identity *identity)
{
    for (int tries = 0; tries < 1000; tries++) {
        uint64_t seq = rb_load_acquire(&bus->identity_seq);
        if (seq & 1)
            continue;
        *identity = bus->identity;
        uint64_t serial = bus->serial;
        rb_fence_acquire();
        if (rb_load(&bus->identity_seq) == seq)
            return serial;
    }
    return SB_NOWHERE; /* the dispatcher died while writing it, or is writing it now: look again later */
}

static inline void ep_unwatch_dispatcher(struct ep_endpoint *e)
{
    if (e->pidfd >= 0)
        close(e->pidfd);
    if (e->stat_fd >= 0)
        close(e->stat_fd);
    e->pidfd = e->stat_fd = -1;
}

/* False if the present dispatcher is gone already, or just being exchanged. */
static inline bool ep_watch_dispatcher(struct ep_endpoint *e)
{
    struct sb_identity who;
    uint64_t serial = ep_read_identity(e->bus, &who);
    if (serial == SB_NOWHERE)
        return false;
    ep_unwatch_dispatcher(e);
    e->serial = serial;
    e->dispatcher_pid = who.pid;
    if (who.pid == (uint32_t)getpid())
        return true; /* it is embedded here, and cannot die without us */
    e->stat_fd = sb_open_stat(who.pid); /* -1: /proc hides it, or no descriptor is left, or it has ended */
    struct sb_stat stat;
    enum sb_life life = sb_read_stat(e->stat_fd, &stat);
    bool good = life == SB_UNKNOWN || (life != SB_VANISHED && stat.start_time == who.start_time);
    if (good) {
        e->pidfd = sb_pidfd_open(who.pid);
        good = e->pidfd >= 0 || sb_process_there(who.pid);
    }
    if (!good)
        ep_unwatch_dispatcher(e);
    return good;
}

struct ep_round { /* one look at all endpoints of this process */
    uint64_t now;
    uint32_t pid;   /* the dispatcher looked at last */
    bool finished;
    uint64_t again; /* when to look at it again */
};

/* For an endpoint that has its `stat` open, or its pidfd. Task flags are read once a round and dispatcher. */
static inline bool ep_dispatcher_finished(const struct ep_endpoint *e, struct ep_round *round)
{
    struct pollfd ended = {.fd = e->pidfd, .events = POLLIN}; /* -1 is passed over */
    if (round->pid != e->dispatcher_pid) {
        struct sb_stat stat = {0};
        enum sb_life life = sb_read_stat(e->stat_fd, &stat);
        bool pidfd_is_late = e->pidfd < 0 || stat.resident >= EP_LARGE_PAGES;
        round->pid = e->dispatcher_pid;
        round->finished = life == SB_VANISHED ||
                          (life == SB_FINISHED && sb_process_finished(e->dispatcher_pid, e->stat_fd));
        round->again = round->now + (pidfd_is_late || life == SB_FINISHED ? EP_ROUND_NS : EP_GLANCE_NS);
    }
    return round->finished || poll(&ended, 1, 0) == 1;
}

/* Somebody had removed the names of the bus, so whoever serves now found nothing of it and began anew. */
static inline bool ep_bus_replaced(const struct ep_endpoint *e)
{
    struct stat found;
    return e->bus_file && stat(e->bus_path, &found) == 0 && found.st_ino != e->bus_file;
}
