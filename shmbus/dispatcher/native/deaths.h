/* What BUS remembers of ends that were not in good order: how many by reason, and who the last ones were, when, and
 * what they left undone. It outlives the dispatcher as the rest of BUS does.
 *
 * Offers: dp_record_death. */
#pragma once

#include "shmbus/dispatcher/native/port.h"

#include <time.h>

static inline uint64_t dp_count_pending(const struct dp_port *port)
{
    uint64_t count = 0;
    for (uint32_t i = 0; i < port->pending_count; i++)
        count += rb_load(&port->pending[i].state) == SB_PENDING_WAITING;
    return count;
}

static inline void dp_write_death(struct sb_death *death, const struct dp_port *port, uint64_t nth)
{
    struct timespec wall;
    clock_gettime(CLOCK_REALTIME, &wall);
    rb_store(&death->seq, (rb_load(&death->seq) + 1) | 1); /* odd also where a kill had left it odd */
    rb_store(&death->nth, 0);
    rb_fence_release(); /* what follows stays below: dp_record_death() in a successor goes by `nth` */
    rb_store(&death->generation, port->generation);
    rb_store(&death->pid, port->pid);
    rb_store(&death->reason, port->reason);
    rb_store(&death->wall_ns, (uint64_t)wall.tv_sec * 1000000000u + (uint64_t)wall.tv_nsec);
    rb_store(&death->in_hand, dp_in_hand(port));
    rb_store(&death->untouched, dp_untouched(port) + dp_urgent_untouched(port));
    rb_store(&death->pending, dp_count_pending(port));
    memcpy(death->name, port->name, sizeof death->name);
    RB_FAIL("death.filled");
    rb_store_release(&death->nth, nth);
}

/* Once for each endpoint, also where a dispatcher was killed over it and its successor comes here again. */
static inline void dp_record_death(struct dp_forwarder *f, const struct dp_port *port)
{
    struct sb_death *known = NULL;
    uint64_t counted = 0;
    for (uint32_t i = 0; i < SB_REASONS; i++)
        counted += rb_load(&f->bus->deaths[i]);
    for (uint32_t i = 0; i < SB_DEATHS; i++) {
        struct sb_death *death = &f->bus->last_deaths[i];
        if (rb_load_acquire(&death->nth) && rb_load(&death->generation) == port->generation)
            known = death;
    }
    if (!known) {
        known = &f->bus->last_deaths[counted % SB_DEATHS];
        dp_write_death(known, port, counted + 1);
        RB_FAIL("death.written");
    }
    if (rb_load(&known->seq) % 2)
        rb_store_release(&known->seq, rb_load(&known->seq) + 1);
    uint64_t reason = rb_load(&known->reason);
    if (rb_load(&known->nth) > counted && reason < SB_REASONS)
        rb_add(&f->bus->deaths[reason], 1);
}
