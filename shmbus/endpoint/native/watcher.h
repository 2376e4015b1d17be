/* The watcher: one native thread per process that attaches. It sees the dispatcher's process end and a
 * successor take over, and publishes batches whose time has come while their makers compute. All signals are
 * blocked in it, and it never touches Python.
 *
 * The kernel reports the end of a process through its pidfd only after it has freed its memory, which may take
 * a second. The flags of its tasks say it at once, so those of a large dispatcher are looked at every 60 ms, once
 * for all its endpoints; callers who wait for it look themselves as well (sb_vigil).
 */
#ifndef SB_WATCHER_H
#define SB_WATCHER_H

#include "shmbus/endpoint/native/endpoint.h"
#include "shmbus/shared/native/process.h"
#include "shmbus/shared/native/will.h"

#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#define SB_SUCCESSOR_NS 10000000u /* how often to look for a successor */
#define SB_ROUND_NS 60000000u     /* how often to look at the task flags of a large dispatcher */
#define SB_GLANCE_NS 1000000000u  /* how often to look whether it has become large */
#define SB_LARGE_PAGES 32768u     /* what takes some 30 ms to be freed before the pidfd speaks: 128 MiB */
#define SB_WATCHED_MAX 1024

struct sb_watcher {
    pthread_mutex_t lock;
    bool running;
    int event;              /* wakes the thread */
    uint64_t generation;    /* sb_fork_generation of the process that started it */
    rb_word wake_at;        /* when it will look next; ~0: when woken */
    struct sb_endpoint *first;
};

static struct sb_watcher sb_watcher = {.lock = PTHREAD_MUTEX_INITIALIZER, .event = -1};

static inline void sb_poke_watcher(void)
{
    uint64_t one = 1;
    if (sb_watcher.event >= 0 && write(sb_watcher.event, &one, sizeof one) < 0)
        return; /* the counter is full: it will wake */
}

static inline uint64_t sb_read_identity(const struct sb_bus *bus, struct sb_identity *identity)
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
    return SB_NOWHERE; /* it died over it, or is about it: look again later */
}

static inline void sb_unwatch_dispatcher(struct sb_endpoint *e)
{
    if (e->pidfd >= 0)
        close(e->pidfd);
    if (e->stat_fd >= 0)
        close(e->stat_fd);
    e->pidfd = e->stat_fd = -1;
}

/* Open what tells of the present dispatcher's end. False if it is gone already. Under the endpoint's lock. */
static inline bool sb_watch_dispatcher(struct sb_endpoint *e)
{
    struct sb_identity who;
    uint64_t serial = sb_read_identity(e->bus, &who);
    if (serial == SB_NOWHERE)
        return false;
    sb_unwatch_dispatcher(e);
    e->serial = serial;
    e->dispatcher_pid = who.pid;
    if (who.pid == (uint32_t)getpid())
        return true; /* it is embedded here, and cannot die without us */
    e->stat_fd = sb_open_stat(who.pid);
    if (e->stat_fd < 0)
        return errno != ENOENT; /* without descriptors it goes unwatched for now, rather than for dead */
    struct sb_stat stat;
    enum sb_life life = sb_read_stat(e->stat_fd, &stat);
    bool good = life == SB_UNKNOWN || (life != SB_VANISHED && stat.start_time == who.start_time);
    if (good) {
        e->pidfd = sb_pidfd_open(who.pid);
        good = e->pidfd >= 0 || errno != ESRCH;
    }
    if (!good)
        sb_unwatch_dispatcher(e);
    return good;
}

/* A waiting caller looks whether the dispatcher's process still runs: true if it was just found dead. Under the
 * endpoint's lock. */
static inline bool sb_vigil(struct sb_endpoint *e)
{
    if (rb_load(&e->trouble) & SB_BUS_DEAD)
        return false;
    if (rb_load(&e->bus->identity_seq) & 1 || e->bus->serial != e->serial) {
        sb_poke_watcher();
        return false;
    }
    if (e->stat_fd < 0 || !sb_process_finished(e->dispatcher_pid, e->stat_fd))
        return false;
    sb_set_trouble(e, SB_BUS_DEAD, 0);
    sb_poke_watcher();
    return true;
}

/* At the end, and in a forked child, where it would hide that the parent has gone. */
static inline void sb_leave_door(struct sb_endpoint *e)
{
    if (e->door >= 0)
        close(e->door);
    e->door = -1;
}

/* Show a dispatcher that adopted us a connection of ours: by its end it learns that this process has called exec. */
static inline void sb_knock_again(struct sb_endpoint *e)
{
    struct sockaddr_un door = {.sun_family = AF_UNIX};
    uint64_t knock[3] = {sb_layout(), e->up->nonce, e->up->identity.start_time};
    if (!e->door_path[0])
        return;
    memcpy(door.sun_path, e->door_path, sizeof door.sun_path);
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return; /* without descriptors it goes unseen */
    if (connect(fd, (struct sockaddr *)&door, sizeof door) == 0 &&
        send(fd, knock, sizeof knock, MSG_NOSIGNAL) == (ssize_t)sizeof knock) {
        if (e->door >= 0)
            close(e->door);
        e->door = fd;
    } else {
        close(fd);
    }
}

/* Somebody had removed the names of the bus, so whoever serves now found nothing of it and began anew: nobody will
 * ever adopt us. */
static inline bool sb_bus_replaced(const struct sb_endpoint *e)
{
    struct stat found;
    return e->bus_file && stat(e->bus_path, &found) == 0 && found.st_ino != e->bus_file;
}

struct sb_round { /* one look at all endpoints */
    uint64_t now;
    uint32_t pid;   /* the dispatcher looked at last */
    bool finished;
    uint64_t again; /* when to look at it again */
};

static inline bool sb_dispatcher_finished(const struct sb_endpoint *e, struct sb_round *r)
{
    if (r->pid != e->dispatcher_pid) {
        struct sb_stat s = {0};
        enum sb_life life = sb_read_stat(e->stat_fd, &s);
        bool late = e->pidfd < 0 || s.resident >= SB_LARGE_PAGES;
        r->pid = e->dispatcher_pid;
        r->finished = life == SB_VANISHED || (life == SB_FINISHED && sb_process_finished(e->dispatcher_pid, e->stat_fd));
        r->again = r->now + (late || life == SB_FINISHED ? SB_ROUND_NS : SB_GLANCE_NS);
    }
    return r->finished;
}

/* One endpoint's look. Returns when to look again. */
static inline uint64_t sb_watcher_look(struct sb_endpoint *e, struct sb_round *round)
{
    uint64_t now = round->now;
    uint64_t again = SB_NOWHERE;
    sb_lock(e);
    uint64_t due = rb_load_seq(&e->flush_at);
    if (due <= now)
        sb_flush(e);
    else
        again = due;
    uint64_t trouble = sb_trouble(e), soon = SB_NOWHERE;
    if (trouble & SB_FOR_GOOD) {
        sb_set_trouble(e, trouble & SB_FOR_GOOD, 0);
        if (e->pidfd >= 0)
            sb_unwatch_dispatcher(e);
    } else if (trouble & SB_FOR_NOW) {
        uint64_t state = rb_load_acquire(&e->bus->state);
        if (e->bus->serial != e->serial && state == SB_SERVING && sb_watch_dispatcher(e)) {
            sb_set_trouble(e, 0, SB_BUS_DEAD);
            sb_knock_again(e);
        } else if (sb_bus_replaced(e)) {
            sb_set_trouble(e, SB_BUS_OVER, 0);
        } else {
            soon = now + SB_SUCCESSOR_NS;
        }
    } else {
        bool dead = false;
        if (e->bus->serial != e->serial) {
            if (sb_watch_dispatcher(e))
                sb_knock_again(e);
            else /* it is being exchanged, or is gone again */
                soon = now + SB_SUCCESSOR_NS;
        } else if (e->stat_fd < 0 && e->dispatcher_pid != (uint32_t)getpid()) {
            dead = !sb_watch_dispatcher(e); /* for which there was no descriptor */
            soon = now + SB_ROUND_NS;
        } else if (e->stat_fd >= 0) {
            struct pollfd p = {.fd = e->pidfd, .events = POLLIN}; /* -1 is passed over */
            dead = sb_dispatcher_finished(e, round) || poll(&p, 1, 0) == 1;
            soon = round->again;
        }
        if (dead) {
            sb_set_trouble(e, SB_BUS_DEAD, 0);
            soon = now + SB_SUCCESSOR_NS;
        }
    }
    sb_unlock(e);
    return soon < again ? soon : again;
}

static inline void *sb_watcher_run(void *unused)
{
    static struct pollfd polled[SB_WATCHED_MAX];
    (void)unused;
    sb_make_will();
    for (;;) {
        nfds_t count = 1;
        uint64_t next = SB_NOWHERE;
        struct sb_round round = {.now = rb_now()};
        pthread_mutex_lock(&sb_watcher.lock);
        polled[0] = (struct pollfd){.fd = sb_watcher.event, .events = POLLIN};
        for (struct sb_endpoint *e = sb_watcher.first; e; e = e->watch_next) {
            uint64_t again = sb_watcher_look(e, &round);
            next = again < next ? again : next;
            bool live = !(rb_load(&e->trouble) & (SB_FOR_GOOD | SB_FOR_NOW));
            if (live && e->pidfd >= 0 && count < SB_WATCHED_MAX)
                polled[count++] = (struct pollfd){.fd = e->pidfd, .events = POLLIN};
        }
        rb_store_seq(&sb_watcher.wake_at, next); /* then look at what may have been armed before it could be seen */
        for (struct sb_endpoint *e = sb_watcher.first; e; e = e->watch_next) {
            uint64_t due = rb_load_seq(&e->flush_at);
            next = due < next ? due : next;
        }
        pthread_mutex_unlock(&sb_watcher.lock);
        struct timespec t = {0, 0};
        uint64_t now = rb_now();
        if (next > now && next != SB_NOWHERE)
            t = (struct timespec){(time_t)((next - now) / 1000000000u), (long)((next - now) % 1000000000u)};
        ppoll(polled, count, next == SB_NOWHERE ? NULL : &t, NULL);
        if (polled[0].revents & POLLIN) {
            uint64_t many;
            if (read(sb_watcher.event, &many, sizeof many) < 0)
                continue;
        }
    }
    return NULL;
}

/* A batch has been begun whose time ends at e->flush_at. */
static inline void sb_arm_watcher(const struct sb_endpoint *e)
{
    if (rb_load_seq(&sb_watcher.wake_at) > rb_load(&e->flush_at))
        sb_poke_watcher();
}

/* Have the endpoint watched, by a thread that is started if need be: 0 or an errno. */
static inline int sb_watcher_add(struct sb_endpoint *e)
{
    int failed = 0;
    if (sb_watcher.generation != sb_fork_generation) /* the thread and its lock stayed in the parent */
        sb_watcher = (struct sb_watcher){.lock = PTHREAD_MUTEX_INITIALIZER, .event = -1, .generation = sb_fork_generation};
    pthread_mutex_lock(&sb_watcher.lock);
    if (!sb_watcher.running) {
        sb_watcher.event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        failed = sb_watcher.event < 0 ? errno : 0;
        if (!failed) {
            sigset_t all, before;
            pthread_t thread;
            pthread_attr_t attributes;
            sigfillset(&all);
            pthread_attr_init(&attributes);
            pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
            pthread_attr_setstacksize(&attributes, 256 * 1024);
            pthread_sigmask(SIG_SETMASK, &all, &before);
            failed = pthread_create(&thread, &attributes, sb_watcher_run, NULL);
            pthread_sigmask(SIG_SETMASK, &before, NULL);
            pthread_attr_destroy(&attributes);
            sb_watcher.running = !failed;
            if (failed) {
                close(sb_watcher.event);
                sb_watcher.event = -1;
            }
        }
    }
    if (!failed) {
        sb_lock(e);
        if (!sb_watch_dispatcher(e))
            sb_set_trouble(e, SB_BUS_DEAD, 0);
        sb_unlock(e);
        e->watch_next = sb_watcher.first;
        sb_watcher.first = e;
        sb_leave_will(&e->bus->wills);
        e->watched = true;
        sb_poke_watcher();
    }
    pthread_mutex_unlock(&sb_watcher.lock);
    return failed;
}

/* Not in a forked child, where nothing is watched. */
static inline void sb_watcher_remove(struct sb_endpoint *e)
{
    if (!e->watched)
        return;
    pthread_mutex_lock(&sb_watcher.lock);
    for (struct sb_endpoint **at = &sb_watcher.first; *at; at = &(*at)->watch_next)
        if (*at == e) {
            *at = e->watch_next;
            break;
        }
    sb_leave_will(sb_watcher.first ? &sb_watcher.first->bus->wills : NULL);
    sb_lock(e);
    sb_unwatch_dispatcher(e);
    sb_leave_door(e);
    sb_unlock(e);
    e->watched = false;
    pthread_mutex_unlock(&sb_watcher.lock);
}

#endif
