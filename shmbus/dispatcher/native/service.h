/* A dispatcher's native half as one thing, made, started, stopped and taken apart by the control plane: the forwarding
 * thread, the one of liveness and the one that waits for its signs. None of them takes signals or the GIL.
 *
 * Offers: dp_service_open, dp_service_close; dp_service_start, dp_service_stop, dp_service_wake_all;
 *         dp_service_admit, dp_service_open_door, dp_service_open_event, dp_service_forget; dp_service_free_pages. */
#pragma once

#include "shmbus/dispatcher/native/dispatcher.h"
#include "shmbus/dispatcher/native/liveness.h"

#include <signal.h>

struct dp_service {
    struct dp_forwarder forwarder;
    struct dp_liveness liveness;
    sem_t *bell;
    sem_t **port_bells; /* by slot */
    pthread_t forwarding, watching, attending;
    bool running, attended;
};

/* 0, or the error number. */
static inline int dp_service_start(struct dp_service *s)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int failed = pthread_create(&s->forwarding, NULL, dp_forward, &s->forwarder);
    if (!failed && (failed = pthread_create(&s->watching, NULL, dp_liveness_run, &s->liveness))) {
        rb_store_release(&s->forwarder.stop, 2);
        dp_wake(&s->forwarder.orders);
        pthread_join(s->forwarding, NULL);
    }
    if (!failed) {
        rb_store(&s->forwarder.bus->wills, 0);
        /* Without this thread deaths are seen later, no more. */
        s->attended = pthread_create(&s->attending, NULL, dp_attend_wills, &s->liveness) == 0;
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
    pthread_mutex_lock(&f->orders.lock);
    dp_wake(&f->orders);
    pthread_mutex_unlock(&f->orders.lock);
    pthread_join(s->forwarding, NULL);
    if (s->attended) {
        sb_close_wills(&f->bus->wills);
        pthread_join(s->attending, NULL);
    }
    rb_store_release(&s->liveness.stop, 1);
    dp_raise(s->liveness.wake);
    pthread_join(s->watching, NULL);
    s->running = false;
}

static inline void dp_service_close(struct dp_service *s)
{
    struct dp_forwarder *f = &s->forwarder;
    dp_service_stop(s, 0);
    for (uint32_t slot = 0; s->port_bells && slot < f->slots; slot++)
        if (s->port_bells[slot])
            sem_close(s->port_bells[slot]);
    dp_liveness_close(&s->liveness);
    dp_forwarder_close(f);
    if (s->bell != SEM_FAILED)
        sem_close(s->bell);
    free(s->port_bells);
    free(s);
}

/* `prefix` as for dp_forwarder_open. NULL and errno: what failed. */
static inline struct dp_service *dp_service_open(struct sb_bus *bus, struct sb_ready *ready, const char *prefix,
                                                 const char *bell, uint32_t spin_ns)
{
    struct dp_service *s = calloc(1, sizeof *s);
    if (!s)
        return NULL;
    struct dp_forwarder *f = &s->forwarder;
    s->bell = sem_open(bell, 0);
    bool forwarder = dp_forwarder_open(f, bus, ready, prefix, s->bell, spin_ns);
    bool liveness = dp_liveness_open(&s->liveness, &f->orders, &bus->wills, f->slots);
    s->port_bells = calloc(f->slots, sizeof *s->port_bells);
    if (s->bell == SEM_FAILED || !forwarder || !liveness || !s->port_bells) {
        int reason = errno;
        dp_service_close(s);
        errno = reason;
        return NULL;
    }
    return s;
}

/* Wake everybody, so that they look at the state of the bus. After the threads have ended. */
static inline void dp_service_wake_all(struct dp_service *s)
{
    struct dp_forwarder *f = &s->forwarder;
    for (uint32_t slot = 0; slot < f->slots; slot++) {
        if (s->port_bells[slot])
            sem_post(s->port_bells[slot]);
        if (f->ports[slot].event.epoch)
            sb_write_event(f->ports[slot].event.fd);
    }
    for (const struct dp_order *o = f->orders.first; o; o = o->next) /* no thread takes it any more */
        if (o->kind == DP_EVENT)
            sb_write_event(o->event);
}

/* From here on the descriptors are ours. 0, or the error number. */
static inline int dp_service_admit(struct dp_service *s, uint32_t slot, uint32_t generation, const struct sb_up *up,
                                   uint64_t up_size, const char *up_file, struct sb_down *down, const char *bell,
                                   uint32_t pid, int pidfd, int stat, int door, bool adopted)
{
    struct dp_shape shape;
    if (!dp_read_shape(up, up_size, &shape))
        return EINVAL;
    sem_t *semaphore = sem_open(bell, 0);
    if (semaphore == SEM_FAILED)
        return errno;
    struct dp_order order = {.kind = DP_ADMIT, .slot = slot, .generation = generation, .up = up, .shape = shape,
                             .down = down, .bell = semaphore, .adopted = adopted};
    if (!dp_give_order(&s->forwarder.orders, &order)) {
        sem_close(semaphore);
        return ENOMEM;
    }
    s->port_bells[slot] = semaphore;
    bool stopped = rb_load(&s->forwarder.rows[slot].health) & SB_STOPPED;
    struct dp_process process = {.generation = generation, .pid = pid, .pidfd = pidfd, .stat = stat, .door = door,
                                 .watcher = &up->watcher, .up_file = strdup(up_file), .stopped = adopted && stopped};
    dp_liveness_add(&s->liveness, slot, process);
    return 0;
}

static inline void dp_service_open_door(struct dp_service *s, uint32_t slot, uint32_t generation, int door)
{
    dp_liveness_open_door(&s->liveness, slot, generation, door);
}

/* An endpoint has passed its event; from here on the descriptor is ours. False: no memory. */
static inline bool dp_service_open_event(struct dp_service *s, uint32_t slot, uint32_t generation, int event)
{
    struct dp_order order = {.kind = DP_EVENT, .slot = slot, .generation = generation, .event = event};
    bool given = dp_give_order(&s->forwarder.orders, &order);
    if (!given)
        close(event);
    return given;
}

/* The port was reclaimed: nothing of it is used any more. */
static inline void dp_service_forget(struct dp_service *s, uint32_t slot, uint32_t generation)
{
    dp_liveness_remove(&s->liveness, slot, generation);
    if (s->port_bells[slot])
        sem_close(s->port_bells[slot]);
    s->port_bells[slot] = NULL;
}

/* By the control plane, since it takes long: of an endpoint's pool, if that is there still. */
static inline void dp_service_free_pages(struct dp_service *s, uint32_t slot, uint32_t generation, uint64_t from,
                                         uint64_t bytes)
{
    char name[160];
    dp_pool_name(&s->forwarder, slot, generation, name);
    dp_punch_segment(name, from, bytes);
}
