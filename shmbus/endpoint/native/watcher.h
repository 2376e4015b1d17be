/* The watcher: one native thread per process that attaches. It sees the dispatcher's process end and a
 * successor take over, and publishes batches whose time has come while their makers compute. All signals are
 * blocked in it, and it never touches Python.
 *
 * The kernel reports the end of a process through its pidfd only after it has freed its memory, which may take
 * a second. The flags of its tasks say it at once, so those of a large dispatcher are looked at every 60 ms, once
 * for all its endpoints; callers who wait for it look themselves as well (ep_vigil).
 */
#ifndef EP_WATCHER_H
#define EP_WATCHER_H

#include "shmbus/endpoint/native/endpoint.h"
#include "shmbus/shared/native/process.h"
#include "shmbus/shared/native/will.h"

#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#define EP_SUCCESSOR_NS 10000000u /* how often to look for a successor */
#define EP_ROUND_NS 60000000u     /* how often to look at the task flags of a large dispatcher */
#define EP_GLANCE_NS 1000000000u  /* how often to look whether it has become large */
#define EP_LARGE_PAGES 32768u     /* what takes some 30 ms to be freed before the pidfd speaks: 128 MiB */
#define EP_WATCHED_MAX 1024

struct ep_watcher {
    pthread_mutex_t lock;
    bool running;
    int event;              /* wakes the thread */
    uint64_t generation;    /* ep_fork_generation of the process that started it */
    rb_word wake_at;        /* when it will look next; ~0: when woken */
    struct ep_endpoint *first;
};

static struct ep_watcher ep_watcher = {.lock = PTHREAD_MUTEX_INITIALIZER, .event = -1};

static inline void ep_poke_watcher(void)
{
    uint64_t one = 1;
    if (ep_watcher.event >= 0 && write(ep_watcher.event, &one, sizeof one) < 0)
        return; /* the counter is full: it will wake */
}

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
    return SB_NOWHERE; /* it died over it, or is about it: look again later */
}

static inline void ep_unwatch_dispatcher(struct ep_endpoint *e)
{
    if (e->pidfd >= 0)
        close(e->pidfd);
    if (e->stat_fd >= 0)
        close(e->stat_fd);
    e->pidfd = e->stat_fd = -1;
}

/* Open what tells of the present dispatcher's end. False if it is gone already. Under the endpoint's lock. */
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
        ep_unwatch_dispatcher(e);
    return good;
}

/* A waiting caller looks whether the dispatcher's process still runs: true if it was just found dead. Under the
 * endpoint's lock. */
static inline bool ep_vigil(struct ep_endpoint *e)
{
    if (rb_load(&e->trouble) & EP_BUS_DEAD)
        return false;
    if (rb_load(&e->bus->identity_seq) & 1 || e->bus->serial != e->serial) {
        ep_poke_watcher();
        return false;
    }
    if (e->stat_fd < 0 || !sb_process_finished(e->dispatcher_pid, e->stat_fd))
        return false;
    ep_set_trouble(e, EP_BUS_DEAD, 0);
    ep_poke_watcher();
    return true;
}

/* At the end, and in a forked child, where it would hide that the parent has gone. */
static inline void ep_leave_door(struct ep_endpoint *e)
{
    if (e->door >= 0)
        close(e->door);
    e->door = -1;
}

/* Show a dispatcher that adopted us a connection of ours: by its end it learns that this process has called exec. */
static inline void ep_knock_again(struct ep_endpoint *e)
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
static inline bool ep_bus_replaced(const struct ep_endpoint *e)
{
    struct stat found;
    return e->bus_file && stat(e->bus_path, &found) == 0 && found.st_ino != e->bus_file;
}

struct ep_round { /* one look at all endpoints */
    uint64_t now;
    uint32_t pid;   /* the dispatcher looked at last */
    bool finished;
    uint64_t again; /* when to look at it again */
};

static inline bool ep_dispatcher_finished(const struct ep_endpoint *e, struct ep_round *r)
{
    if (r->pid != e->dispatcher_pid) {
        struct sb_stat s = {0};
        enum sb_life life = sb_read_stat(e->stat_fd, &s);
        bool late = e->pidfd < 0 || s.resident >= EP_LARGE_PAGES;
        r->pid = e->dispatcher_pid;
        r->finished = life == SB_VANISHED || (life == SB_FINISHED && sb_process_finished(e->dispatcher_pid, e->stat_fd));
        r->again = r->now + (late || life == SB_FINISHED ? EP_ROUND_NS : EP_GLANCE_NS);
    }
    return r->finished;
}

/* One endpoint's look. Returns when to look again. */
static inline uint64_t ep_watcher_look(struct ep_endpoint *e, struct ep_round *round)
{
    uint64_t now = round->now;
    uint64_t again = SB_NOWHERE;
    ep_lock(e);
    uint64_t due = rb_load_seq(&e->flush_at);
    if (due <= now)
        ep_flush(e);
    else
        again = due;
    uint64_t trouble = ep_trouble(e), soon = SB_NOWHERE;
    if (trouble & EP_FOR_GOOD) {
        ep_set_trouble(e, trouble & EP_FOR_GOOD, 0);
        if (e->pidfd >= 0)
            ep_unwatch_dispatcher(e);
    } else if (trouble & EP_FOR_NOW) {
        uint64_t state = rb_load_acquire(&e->bus->state);
        if (e->bus->serial != e->serial && state == SB_BUS_SERVING && ep_watch_dispatcher(e)) {
            ep_set_trouble(e, 0, EP_BUS_DEAD);
            ep_knock_again(e);
        } else if (ep_bus_replaced(e)) {
            ep_set_trouble(e, EP_BUS_OVER, 0);
        } else {
            soon = now + EP_SUCCESSOR_NS;
        }
    } else {
        bool dead = false;
        if (e->bus->serial != e->serial) {
            if (ep_watch_dispatcher(e))
                ep_knock_again(e);
            else /* it is being exchanged, or is gone again */
                soon = now + EP_SUCCESSOR_NS;
        } else if (e->stat_fd < 0 && e->dispatcher_pid != (uint32_t)getpid()) {
            dead = !ep_watch_dispatcher(e); /* for which there was no descriptor */
            soon = now + EP_ROUND_NS;
        } else if (e->stat_fd >= 0) {
            struct pollfd p = {.fd = e->pidfd, .events = POLLIN}; /* -1 is passed over */
            dead = ep_dispatcher_finished(e, round) || poll(&p, 1, 0) == 1;
            soon = round->again;
        }
        if (dead) {
            ep_set_trouble(e, EP_BUS_DEAD, 0);
            soon = now + EP_SUCCESSOR_NS;
        }
    }
    ep_unlock(e);
    return soon < again ? soon : again;
}

static inline void *ep_watcher_run(void *unused)
{
    static struct pollfd polled[EP_WATCHED_MAX];
    (void)unused;
    sb_make_will();
    for (;;) {
        nfds_t count = 1;
        uint64_t next = SB_NOWHERE;
        struct ep_round round = {.now = rb_now()};
        pthread_mutex_lock(&ep_watcher.lock);
        polled[0] = (struct pollfd){.fd = ep_watcher.event, .events = POLLIN};
        for (struct ep_endpoint *e = ep_watcher.first; e; e = e->watch_next) {
            uint64_t again = ep_watcher_look(e, &round);
            next = again < next ? again : next;
            bool live = !(rb_load(&e->trouble) & (EP_FOR_GOOD | EP_FOR_NOW));
            if (live && e->pidfd >= 0 && count < EP_WATCHED_MAX)
                polled[count++] = (struct pollfd){.fd = e->pidfd, .events = POLLIN};
        }
        rb_store_seq(&ep_watcher.wake_at, next); /* then look at what may have been armed before it could be seen */
        for (struct ep_endpoint *e = ep_watcher.first; e; e = e->watch_next) {
            uint64_t due = rb_load_seq(&e->flush_at);
            next = due < next ? due : next;
        }
        pthread_mutex_unlock(&ep_watcher.lock);
        struct timespec t = {0, 0};
        uint64_t now = rb_now();
        if (next > now && next != SB_NOWHERE)
            t = (struct timespec){(time_t)((next - now) / 1000000000u), (long)((next - now) % 1000000000u)};
        ppoll(polled, count, next == SB_NOWHERE ? NULL : &t, NULL);
        if (polled[0].revents & POLLIN) {
            uint64_t many;
            if (read(ep_watcher.event, &many, sizeof many) < 0)
                continue;
        }
    }
    return NULL;
}

/* A batch has been begun whose time ends at e->flush_at. */
static inline void ep_arm_watcher(const struct ep_endpoint *e)
{
    if (rb_load_seq(&ep_watcher.wake_at) > rb_load(&e->flush_at))
        ep_poke_watcher();
}

/* Have the endpoint watched, by a thread that is started if need be: 0 or an errno. */
static inline int ep_watcher_add(struct ep_endpoint *e)
{
    int failed = 0;
    if (ep_watcher.generation != ep_fork_generation) /* the thread and its lock stayed in the parent */
        ep_watcher = (struct ep_watcher){.lock = PTHREAD_MUTEX_INITIALIZER, .event = -1, .generation = ep_fork_generation};
    pthread_mutex_lock(&ep_watcher.lock);
    if (!ep_watcher.running) {
        ep_watcher.event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        failed = ep_watcher.event < 0 ? errno : 0;
        if (!failed) {
            sigset_t all, before;
            pthread_t thread;
            pthread_attr_t attributes;
            sigfillset(&all);
            pthread_attr_init(&attributes);
            pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
            pthread_attr_setstacksize(&attributes, 256 * 1024);
            pthread_sigmask(SIG_SETMASK, &all, &before);
            failed = pthread_create(&thread, &attributes, ep_watcher_run, NULL);
            pthread_sigmask(SIG_SETMASK, &before, NULL);
            pthread_attr_destroy(&attributes);
            ep_watcher.running = !failed;
            if (failed) {
                close(ep_watcher.event);
                ep_watcher.event = -1;
            }
        }
    }
    if (!failed) {
        ep_lock(e);
        if (!ep_watch_dispatcher(e))
            ep_set_trouble(e, EP_BUS_DEAD, 0);
        ep_unlock(e);
        e->watch_next = ep_watcher.first;
        ep_watcher.first = e;
        sb_leave_will(&e->bus->wills);
        e->watched = true;
        ep_poke_watcher();
    }
    pthread_mutex_unlock(&ep_watcher.lock);
    return failed;
}

/* Not in a forked child, where nothing is watched. */
static inline void ep_watcher_remove(struct ep_endpoint *e)
{
    if (!e->watched)
        return;
    pthread_mutex_lock(&ep_watcher.lock);
    for (struct ep_endpoint **at = &ep_watcher.first; *at; at = &(*at)->watch_next)
        if (*at == e) {
            *at = e->watch_next;
            break;
        }
    sb_leave_will(ep_watcher.first ? &ep_watcher.first->bus->wills : NULL);
    ep_lock(e);
    ep_unwatch_dispatcher(e);
    ep_leave_door(e);
    ep_unlock(e);
    e->watched = false;
    pthread_mutex_unlock(&ep_watcher.lock);
}

#endif
