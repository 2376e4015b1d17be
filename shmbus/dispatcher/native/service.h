/* A dispatcher's native half as one thing: the forwarding thread, the watcher and who waits for its signs, made, started,
 * stopped and taken apart by the control plane. None of these threads takes signals or the GIL. */
#ifndef DP_SERVICE_H
#define DP_SERVICE_H

#include "shmbus/dispatcher/native/liveness.h"

struct dp_service {
    struct dp_forwarder forwarder;
    struct dp_liveness liveness;
    sem_t *bell;
    sem_t **port_bells; /* by slot */
    pthread_t forwarding, watching, attending;
    bool running, attended;
};

static void *dp_forward_thread(void *argument)
{
    dp_forward(&((struct dp_service *)argument)->forwarder);
    return NULL;
}

static void *dp_liveness_thread(void *argument)
{
    dp_liveness_run(&((struct dp_service *)argument)->liveness);
    return NULL;
}

static void *dp_attend_thread(void *argument)
{
    dp_attend_wills(&((struct dp_service *)argument)->liveness);
    return NULL;
}

static inline void dp_service_close(struct dp_service *s);

/* `prefix` is that of the bus's names, with a slash: "/shmbus:UID:BUS". NULL and errno: what failed. */
static inline struct dp_service *dp_service_open(struct sb_bus *bus, struct sb_ready *ready, const char *prefix,
                                                 const char *bell, uint32_t spin_ns)
{
    struct dp_service *s = calloc(1, sizeof *s);
    if (!s)
        return NULL;
    struct dp_forwarder *f = &s->forwarder;
    s->bell = SEM_FAILED;
    s->liveness.epoll = s->liveness.wake = s->liveness.will = f->notice_fd = -1;
    f->bus = bus;
    f->ready = ready;
    f->rows = (struct sb_row *)((uint8_t *)bus + bus->rows_offset);
    f->slots = (uint32_t)bus->slots;
    snprintf(f->prefix, sizeof f->prefix, "%s", prefix);
    f->block_timeout_ns = bus->block_timeout_ns;
    f->stall_after_ns = bus->stall_after_ns;
    f->prefetch = (uint32_t)bus->prefetch;
    f->max_deliveries = (uint32_t)bus->max_deliveries;
    f->batch = (uint32_t)bus->batch_per_pass;
    f->scratch = malloc(DP_NOTE_ROOM);
    f->ports = calloc(f->slots, sizeof *f->ports);
    f->ready_seen = calloc(f->slots / 2 + 8, sizeof *f->ready_seen);
    f->orders_end = &f->orders;
    f->notice_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    pthread_mutex_init(&f->lock, NULL);
    s->port_bells = calloc(f->slots, sizeof *s->port_bells);
    s->bell = sem_open(bell, 0);
    if (!f->scratch || !f->ports || !f->ready_seen || !s->port_bells || f->notice_fd < 0 || s->bell == SEM_FAILED ||
        !dp_routes_open(&f->routes, f->slots) || !dp_liveness_open(&s->liveness, f)) {
        int reason = errno;
        dp_service_close(s);
        errno = reason;
        return NULL;
    }
    rb_bell_open(&f->bell, &bus->bell, s->bell, spin_ns);
    f->own_bell = (struct rb_poster){.epoch = &bus->bell, .semaphore = s->bell};
    return s;
}

/* 0, or the error number. */
static inline int dp_service_start(struct dp_service *s)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int failed = pthread_create(&s->forwarding, NULL, dp_forward_thread, s);
    if (!failed && (failed = pthread_create(&s->watching, NULL, dp_liveness_thread, s))) {
        rb_store_release(&s->forwarder.stop, 2);
        dp_wake(&s->forwarder);
        pthread_join(s->forwarding, NULL);
    }
    if (!failed) {
        rb_store(&s->forwarder.bus->wills, 0);
        s->attended = pthread_create(&s->attending, NULL, dp_attend_thread, s) == 0; /* if not, deaths are seen later */
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    s->running = !failed;
    return failed;
}

/* Ends the threads; with `drain_ns`, what is on its way is forwarded first, for so long at the most. */
static inline void dp_service_stop(struct dp_service *s, uint64_t drain_ns)
{
    if (!s->running)
        return;
    struct dp_forwarder *f = &s->forwarder;
    rb_store(&f->stop_by_ns, rb_now() + drain_ns);
    rb_store_release(&f->stop, drain_ns ? 1 : 2);
    pthread_mutex_lock(&f->lock);
    dp_wake(f);
    pthread_mutex_unlock(&f->lock);
    pthread_join(s->forwarding, NULL);
    if (s->attended) {
        sb_close_wills(&f->bus->wills);
        pthread_join(s->attending, NULL);
    }
    rb_store_release(&s->liveness.stop, 1);
    dp_liveness_wake(&s->liveness);
    pthread_join(s->watching, NULL);
    s->running = false;
}

/* Wake everybody, so that they look at the state of the bus. After the threads have ended. */
static inline void dp_service_wake_all(struct dp_service *s)
{
    for (uint32_t slot = 0; slot < s->forwarder.slots; slot++)
        if (s->port_bells[slot])
            sem_post(s->port_bells[slot]);
}

static inline int dp_service_admit(struct dp_service *s, uint32_t slot, uint32_t generation, const struct sb_up *up, uint64_t up_size,
                                   struct sb_down *down, const char *bell, uint32_t pid, int pidfd, int stat, int door,
                                   bool adopted)
{
    struct dp_shape shape;
    if (!dp_read_shape(up, up_size, &shape))
        return EINVAL;
    sem_t *semaphore = sem_open(bell, 0);
    if (semaphore == SEM_FAILED)
        return errno;
    struct dp_order order = {.kind = DP_ADMIT, .slot = slot, .generation = generation, .up = up, .shape = shape, .down = down,
                             .bell = semaphore, .adopted = adopted};
    if (!dp_give_order(&s->forwarder, &order)) {
        sem_close(semaphore);
        return ENOMEM;
    }
    s->port_bells[slot] = semaphore;
    bool stalled = rb_load(&s->forwarder.rows[slot].health) & SB_STALLED;
    dp_liveness_add(&s->liveness, slot, generation, pid, pidfd, stat, door, adopted && stalled);
    return 0;
}

static inline void dp_service_open_door(struct dp_service *s, uint32_t slot, uint32_t generation, int door)
{
    dp_liveness_open_door(&s->liveness, slot, generation, door);
}

/* The port was reclaimed: nothing of it is used any more. */
static inline void dp_service_forget(struct dp_service *s, uint32_t slot, uint32_t generation)
{
    dp_liveness_remove(&s->liveness, slot, generation);
    if (s->port_bells[slot])
        sem_close(s->port_bells[slot]);
    s->port_bells[slot] = NULL;
}

static inline void dp_service_close(struct dp_service *s)
{
    struct dp_forwarder *f = &s->forwarder;
    dp_service_stop(s, 0);
    for (uint32_t slot = 0; s->port_bells && slot < f->slots; slot++)
        if (s->port_bells[slot])
            sem_close(s->port_bells[slot]);
    for (uint32_t slot = 0; f->ports && slot < f->slots; slot++)
        dp_interests_close(&f->ports[slot]);
    dp_liveness_close(&s->liveness);
    if (f->routes.of_slot)
        dp_routes_close(&f->routes);
    while (f->orders) {
        struct dp_order *next = f->orders->next;
        free(f->orders);
        f->orders = next;
    }
    if (f->notice_fd >= 0)
        close(f->notice_fd);
    if (s->bell != SEM_FAILED)
        sem_close(s->bell);
    free(f->notices);
    free(f->scratch);
    free(f->ports);
    free(f->ready_seen);
    free(s->port_bells);
    free(s);
}

#endif
