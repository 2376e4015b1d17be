/* Liveness: a thread of the dispatcher's process that notices when an endpoint's process ends, is stopped, or lets go
 * of its door connection, and orders the forwarding thread accordingly. It needs no GIL.
 *
 * Task flags tell (process.h), and a sign says when to look at them: a last will (will.h), upon which all are swept
 * at once and again at growing intervals. For those who leave none, a pidfd tells of small processes as soon; those
 * with much memory, or that dump core, show it a second and more later, so all are swept every 72 ms anyway,
 * and one that is dying is looked at every 2 ms.
 *
 * The end of the door connection of a process that lives means exec, or a close without a word. A child that its
 * process forked in C may keep that connection, so the watcher (endpoint/native/watcher.h) is asked for as well: exec
 * ends all threads but one, never that one, and leaves nothing of UP in the process's memory. Both must show, since a
 * process that works may lose a thread to nobody knows what, or name one that never was. To look through its memory
 * takes long, and waits where that is being changed: so it is done without the lock, and ever more seldom. Not only
 * once, because while `exec` goes on the thread ends first.
 *
 * Offers: dp_liveness_open, dp_liveness_close; dp_liveness_add, dp_liveness_open_door, dp_liveness_remove; the threads'
 *         bodies dp_liveness_run and dp_attend_wills. */
#pragma once

#include "shmbus/dispatcher/native/orders.h"
#include "shmbus/shared/native/process.h"
#include "shmbus/shared/native/will.h"

#include <sys/epoll.h>
#include <sys/socket.h>

#define DP_SWEEP_NS 72000000u
#define DP_SUSPECT_NS 2000000u
#define DP_DOUBT_NS 4608000000u /* at the most, from one look at its memory to the next */
#define DP_SIGN_NS 1000000u /* from the sweep upon a will to the next, then twice as long each time */

enum dp_sign { DP_SIGN_PIDFD = 0, DP_SIGN_DOOR = 1, DP_SIGN_WAKE = 2 };

struct dp_process {
    bool used, suspect, door_ended, stopped, over; /* over: its death was ordered */
    bool doubted; /* its watcher has ended: to be looked at, whether it has called exec */
    uint64_t doubt_again_ns, doubt_pause_ns; /* not before; and after that for how long not */
    uint32_t generation, pid;
    int pidfd, stat, door; /* -1: not to be had */
    const rb_word *watcher; /* in UP; NULL: none to ask for */
    char *up_file;          /* the name of UP; its own copy */
    enum sb_reason reason; /* best known so far */
};

struct dp_liveness {
    struct dp_orders *orders;
    const rb_word *wills;
    struct dp_process *processes; /* by slot, under `lock` */
    uint32_t slots;
    int epoll, wake;
    pthread_mutex_t lock;
    rb_word signs;              /* how many wills came: the thread that waits for them */
    rb_word stop;               /* control plane */
};

static inline bool dp_liveness_open(struct dp_liveness *w, struct dp_orders *orders, const rb_word *wills,
                                    uint32_t slots)
{
    *w = (struct dp_liveness){.orders = orders, .wills = wills, .slots = slots,
                              .epoll = epoll_create1(EPOLL_CLOEXEC),
                              .wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};
    pthread_mutex_init(&w->lock, NULL);
    w->processes = calloc(slots, sizeof *w->processes);
    struct epoll_event wake = {.events = EPOLLIN, .data.u64 = (uint64_t)DP_SIGN_WAKE << 16};
    return w->processes && w->epoll >= 0 && w->wake >= 0 &&
           epoll_ctl(w->epoll, EPOLL_CTL_ADD, w->wake, &wake) == 0;
}

/* The body of the thread that waits for wills. */
static inline void *dp_attend_wills(void *liveness)
{
    struct dp_liveness *w = liveness;
    while (sb_await_will(w->wills)) {
        rb_store_release(&w->signs, rb_load(&w->signs) + 1); /* dp_liveness_run acquires it, once it is woken */
        dp_raise(w->wake);
    }
    return NULL;
}

/* The generation tells an event that was under way when its slot was given away. */
static inline void dp_liveness_listen(struct dp_liveness *w, int fd, uint32_t slot, enum dp_sign sign)
{
    uint64_t generation = w->processes[slot].generation;
    struct epoll_event e = {.events = EPOLLIN | EPOLLRDHUP, .data.u64 = generation << 32 | (uint64_t)sign << 16 | slot};
    if (fd >= 0)
        epoll_ctl(w->epoll, EPOLL_CTL_ADD, fd, &e);
}

/* From here on the descriptors and `up_file` are ours, and `watcher` is read, until dp_liveness_remove. */
static inline void dp_liveness_add(struct dp_liveness *w, uint32_t slot, struct dp_process process)
{
    pthread_mutex_lock(&w->lock);
    w->processes[slot] = process;
    w->processes[slot].used = true;
    w->processes[slot].reason = SB_REASON_DIED;
    dp_liveness_listen(w, process.pidfd, slot, DP_SIGN_PIDFD);
    dp_liveness_listen(w, process.door, slot, DP_SIGN_DOOR);
    pthread_mutex_unlock(&w->lock);
    dp_raise(w->wake); /* it may sleep for good while there is nobody to sweep */
}

/* An endpoint that was adopted has shown a connection. */
static inline void dp_liveness_open_door(struct dp_liveness *w, uint32_t slot, uint32_t generation, int door)
{
    pthread_mutex_lock(&w->lock);
    struct dp_process *x = &w->processes[slot];
    if (x->used && x->generation == generation && x->door < 0) {
        x->door = door;
        dp_liveness_listen(w, door, slot, DP_SIGN_DOOR);
    } else {
        close(door);
    }
    pthread_mutex_unlock(&w->lock);
}

static inline void dp_liveness_remove(struct dp_liveness *w, uint32_t slot, uint32_t generation)
{
    pthread_mutex_lock(&w->lock);
    struct dp_process *x = &w->processes[slot];
    if (x->used && x->generation == generation) {
        int fds[3] = {x->pidfd, x->stat, x->door};
        for (int i = 0; i < 3; i++)
            if (fds[i] >= 0)
                close(fds[i]);
        free(x->up_file);
        *x = (struct dp_process){.pidfd = -1, .stat = -1, .door = -1};
    }
    pthread_mutex_unlock(&w->lock);
}

static inline void dp_liveness_order(struct dp_liveness *w, uint32_t slot, enum dp_order_kind kind)
{
    struct dp_process *x = &w->processes[slot];
    if (kind == DP_DEAD) {
        x->over = true;
        if (x->pidfd >= 0)
            epoll_ctl(w->epoll, EPOLL_CTL_DEL, x->pidfd, NULL);
        if (x->door >= 0)
            epoll_ctl(w->epoll, EPOLL_CTL_DEL, x->door, NULL);
    }
    dp_give_order(w->orders, &(struct dp_order){.kind = kind, .slot = slot, .generation = x->generation,
                                                .reason = x->reason});
}

/* Of a process that lives: may it have called exec? */
static inline bool dp_doubt(struct dp_process *x, uint64_t now)
{
    uint64_t watcher = x->watcher && x->up_file ? rb_load(x->watcher) : 0;
    if (!watcher || now < x->doubt_again_ns || !sb_task_ended(x->pid, watcher))
        return false;
    uint64_t pause = 2 * x->doubt_pause_ns < DP_DOUBT_NS ? 2 * x->doubt_pause_ns : DP_DOUBT_NS;
    x->doubt_pause_ns = pause ? pause : DP_SIGN_NS;
    x->doubt_again_ns = now + x->doubt_pause_ns;
    return true;
}

static inline void dp_order_exec(struct dp_liveness *w, uint32_t slot)
{
    w->processes[slot].reason = SB_REASON_EXEC;
    dp_liveness_order(w, slot, DP_DEAD);
}

/* Look at one process; `ended`: its pidfd said so. True: look again soon. */
static inline bool dp_liveness_look(struct dp_liveness *w, uint32_t slot, bool ended)
{
    struct dp_process *x = &w->processes[slot];
    struct sb_stat s = {0};
    enum sb_life life = x->stat >= 0 ? sb_read_stat(x->stat, &s) : SB_UNKNOWN;
    if (life == SB_FINISHED) {
        if (s.exit_code & 0x7f || s.flags & SB_DUMPS_CORE)
            x->reason = SB_REASON_KILLED;
        else if (x->reason == SB_REASON_DIED && (s.exit_code || !(s.flags & SB_SIGNALED)))
            x->reason = SB_REASON_EXITED; /* without a code, a signal may be its own exit in another thread */
    }
    if (ended || life == SB_VANISHED || (life == SB_FINISHED && sb_process_finished(x->pid, x->stat))) {
        dp_liveness_order(w, slot, DP_DEAD);
        return false;
    }
    if (life == SB_FINISHED)
        return x->suspect = true;
    if (life != SB_UNKNOWN && x->door_ended) { /* it lives, and has let go of the bus */
        dp_order_exec(w, slot);
        return false;
    }
    x->doubted |= life != SB_UNKNOWN && dp_doubt(x, rb_now());
    if ((life == SB_TASK_STOPPED) != x->stopped && life != SB_UNKNOWN) {
        x->stopped = life == SB_TASK_STOPPED;
        dp_liveness_order(w, slot, x->stopped ? DP_STOPPED_TASK : DP_CONTINUED_TASK);
    }
    return x->suspect = false;
}

/* Those in doubt, without the lock but for a moment each: have they called exec? */
static inline void dp_look_into_doubts(struct dp_liveness *w)
{
    for (uint32_t slot = 0; slot < w->slots; slot++) {
        struct dp_process *x = &w->processes[slot], copy;
        pthread_mutex_lock(&w->lock);
        copy = *x;
        x->doubted = false;
        char *file = copy.used && !copy.over && copy.doubted ? strdup(copy.up_file) : NULL;
        pthread_mutex_unlock(&w->lock);
        if (!file)
            continue;
        bool gone = !sb_may_map(copy.pid, file);
        free(file);
        pthread_mutex_lock(&w->lock);
        if (gone && x->used && !x->over && x->generation == copy.generation)
            dp_order_exec(w, slot);
        pthread_mutex_unlock(&w->lock);
    }
}

/* Deal with one event of epoll. */
static inline void dp_liveness_event(struct dp_liveness *w, uint64_t event)
{
    uint32_t slot = (uint32_t)(event & 0xffff), generation = (uint32_t)(event >> 32);
    enum dp_sign sign = (enum dp_sign)(event >> 16 & 0xffff);
    struct dp_process *x = &w->processes[slot];
    if (sign == DP_SIGN_WAKE) {
        uint64_t count;
        (void)!read(w->wake, &count, sizeof count);
        return;
    }
    if (!x->used || x->over || x->generation != generation)
        return;
    if (sign == DP_SIGN_DOOR) {
        char byte;
        ssize_t got = recv(x->door, &byte, 1, MSG_DONTWAIT);
        if (got > 0 || (got < 0 && (errno == EAGAIN || errno == EINTR)))
            return;
        epoll_ctl(w->epoll, EPOLL_CTL_DEL, x->door, NULL);
        x->door_ended = true;
    }
    (void)dp_liveness_look(w, slot, sign == DP_SIGN_PIDFD);
}

/* The body of the thread that looks. */
static inline void *dp_liveness_run(void *liveness)
{
    struct dp_liveness *w = liveness;
    uint64_t pace = DP_SWEEP_NS, next_sweep = rb_now() + pace, signs_seen = 0;
    bool suspects = false, anyone = false;
    while (!rb_load_acquire(&w->stop)) {
        struct epoll_event events[64];
        int timeout = -1;
        if (suspects || anyone) {
            uint64_t now = rb_now(), until = suspects ? now + DP_SUSPECT_NS : next_sweep;
            timeout = until > now ? (int)((until - now + 999999) / 1000000) : 0;
        }
        int n = epoll_wait(w->epoll, events, 64, timeout);
        pthread_mutex_lock(&w->lock);
        for (int i = 0; i < n; i++)
            dp_liveness_event(w, events[i].data.u64);
        uint64_t signs = rb_load_acquire(&w->signs);
        if (signs != signs_seen) {
            signs_seen = signs;
            pace = DP_SIGN_NS;
            next_sweep = 0;
        }
        uint64_t now = rb_now();
        bool sweep = now >= next_sweep, doubts = false;
        suspects = anyone = false;
        for (uint32_t slot = 0; slot < w->slots; slot++) {
            struct dp_process *x = &w->processes[slot];
            if (!x->used || x->over)
                continue;
            anyone = true;
            if (sweep || x->suspect)
                suspects |= dp_liveness_look(w, slot, false);
            doubts |= x->doubted;
        }
        if (sweep) {
            next_sweep = now + pace;
            pace = 2 * pace < DP_SWEEP_NS ? 2 * pace : DP_SWEEP_NS;
        }
        pthread_mutex_unlock(&w->lock);
        if (doubts)
            dp_look_into_doubts(w);
    }
    return NULL;
}

static inline void dp_liveness_close(struct dp_liveness *w)
{
    for (uint32_t slot = 0; w->processes && slot < w->slots; slot++)
        if (w->processes[slot].used)
            dp_liveness_remove(w, slot, w->processes[slot].generation);
    if (w->epoll >= 0)
        close(w->epoll);
    if (w->wake >= 0)
        close(w->wake);
    free(w->processes);
    w->processes = NULL;
}
