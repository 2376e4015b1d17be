/* A bus without processes: the segments are laid out as the control plane lays them out, the forwarder is driven
 * pass by pass with a clock of its own. Everything shared lies in its own allocation, so that a sanitizer sees a
 * step outside. */
#pragma once

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>

#include "check.h"
#ifdef SHARED_WITH_CHILDREN
#include "arena.h"
#endif
#include "shmbus/dispatcher/native/dispatcher.h"

#define MAX_PEERS 64u
#define SECOND 1000000000ull
#define MILLISECOND 1000000ull

struct message { /* taken, and the taker's own */
    struct sb_record header;
    uint64_t position;
    char type[SB_MAX_TYPE + 1];
    char text[4096]; /* the payload's beginning, and a zero */
};

struct peer { /* an endpoint */
    struct world *world;
    uint32_t slot, generation;
    char name[SB_NAME];
    struct sb_up *up;
    struct sb_down *down;
    struct sb_pending *pending;
    uint64_t up_size, down_size;
    sem_t bell;
    struct rb_producer out[SB_RINGS];
    struct rb_consumer in[SB_RINGS_IN];
    struct sb_pool *pool; /* pooled.h; NULL: it has none */
    uint64_t pool_size, pool_freed; /* bytes: of these, that nobody has any more */
    struct sb_interests *log;
    uint64_t log_size, next_interest, counter;
    uint64_t offered_for; /* the `wanted` for which it has last rung */
    char log_name[160];
    bool reclaimed, quarantined;
};

struct plan { /* what a world is made of; zero: the default */
    uint32_t slots, prefetch, max_deliveries, batch;
    uint64_t block_timeout_ns, stall_after_ns, backlog_bytes, history, retain_bytes, pool_total_bytes;
};

struct size { /* of an endpoint */
    uint64_t data_out, replies_out, data_in, replies_in, urgent_in;
    uint32_t requests;
};

struct world {
    struct sb_bus *bus;
    struct sb_ready *ready;
    struct dp_forwarder *f;
    sem_t bell;
    struct plan plan;
    uint64_t now, generation;
    uint32_t passes; /* of the last settle */
    int pid;         /* in the names of its segments */
    struct peer *peers[MAX_PEERS];
    uint32_t peers_count;
};

#ifndef SHARED_WITH_CHILDREN
static inline void *shared(uint64_t size)
{
    void *at = aligned_alloc(64, (size + 63) & ~(uint64_t)63);
    CHECK(at);
    memset(at, 0, (size + 63) & ~(uint64_t)63);
    return at;
}
static inline void unshare_memory(void *at) { free(at); }
#endif

static inline uint64_t or_default(uint64_t value, uint64_t otherwise) { return value ? value : otherwise; }

static inline void stamp(struct rb_prefix *p, uint64_t size, uint64_t generation, uint32_t kind)
{
    p->layout = SB_LAYOUT;
    p->size = size;
    p->generation = generation;
    p->kind = kind;
    rb_store_release(&p->magic, RB_MAGIC);
}

/* A forwarder over segments that stand, as the control plane opens it. */
static inline struct dp_forwarder *open_forwarder(struct world *w)
{
    struct dp_forwarder *f = calloc(1, sizeof *f);
    char prefix[96];
    snprintf(prefix, sizeof prefix, "/shmbus:%u:native-%d", (unsigned)geteuid(), w->pid);
    CHECK(f && dp_forwarder_open(f, w->bus, w->ready, prefix, &w->bell, RB_SPIN_NS));
    f->now = w->now;
    f->next_look = w->now + DP_LOOK_NS;
    return f;
}

static inline void close_forwarder(struct dp_forwarder *f)
{
    dp_forwarder_close(f);
    pthread_mutex_destroy(&f->orders.lock);
    free(f);
}

static inline struct world *open_world(struct plan plan)
{
    struct world *w = calloc(1, sizeof *w);
    CHECK(w);
    w->plan = plan;
    w->pid = (int)getpid();
    w->now = 1000 * SECOND;
    w->generation = 1;
    sem_init(&w->bell, 0, 0);
    uint64_t slots = or_default(plan.slots, 16), rows = (sizeof(struct sb_bus) + 63) & ~63ull;
    uint64_t size = rows + slots * sizeof(struct sb_row), ready = sizeof(struct sb_ready) + (slots + 15) / 16 * 64;
    w->bus = shared(size);
    w->ready = shared(ready);
    w->bus->slots = slots;
    w->bus->in_bytes = w->bus->out_bytes = w->bus->reply_bytes = 65536;
    w->bus->block_timeout_ns = or_default(plan.block_timeout_ns, SECOND);
    w->bus->stall_after_ns = or_default(plan.stall_after_ns, 2 * SECOND);
    w->bus->prefetch = or_default(plan.prefetch, 16);
    w->bus->backlog_bytes = or_default(plan.backlog_bytes, 65536);
    w->bus->history = or_default(plan.history, 3);
    w->bus->retain_bytes = or_default(plan.retain_bytes, 4096);
    w->bus->max_deliveries = or_default(plan.max_deliveries, 2);
    w->bus->batch_per_pass = or_default(plan.batch, 256);
    w->bus->pool_total_bytes = or_default(plan.pool_total_bytes, 1 << 20);
    w->bus->rows_offset = rows;
    w->bus->last_generation = w->generation;
    stamp(&w->bus->prefix, size, 0, SB_SEGMENT_BUS);
    stamp(&w->ready->prefix, ready, 0, SB_SEGMENT_READY);
    w->bus->serial = 1;
    rb_store(&w->bus->state, SB_BUS_SERVING);
    w->f = open_forwarder(w);
    return w;
}

static inline struct world *new_world(void) { return open_world((struct plan){0}); }

/* Names in /dev/shm, for whoever ends a failed test. */
extern char made_names[64][160];
extern unsigned made_count;

static inline void drop_log(struct peer *p)
{
    if (p->log) {
        munmap(p->log, p->log_size);
        shm_unlink(p->log_name);
    }
    p->log = NULL;
}

static inline void drop_pool(struct peer *p)
{
    char name[160];
    dp_pool_name(p->world->f, p->slot, p->generation, name);
    if (p->pool)
        dp_close_segment(p->pool, p->pool_size);
    dp_remove_segment(name);
    p->pool = NULL;
}

static inline void drop_backlogs(struct world *w)
{
    for (uint32_t i = 0; i < SB_BACKLOGS; i++) {
        char name[160];
        uint64_t generation = rb_load(&w->bus->backlog[i]);
        dp_backlog_name(w->f, SB_MAX_SLOTS + i, generation, name);
        if (generation)
            dp_remove_segment(name);
    }
}

static inline void drop_values(struct world *w)
{
    for (uint32_t i = 0; i < rb_load(&w->bus->retained_chunks); i++) {
        char name[160];
        dp_chunk_name(w->f, i, name);
        dp_remove_segment(name);
    }
}

static inline void close_world(struct world *w)
{
    drop_backlogs(w);
    drop_values(w);
    for (uint32_t i = 0; i < w->peers_count; i++)
        drop_pool(w->peers[i]);
    close_forwarder(w->f);
    for (uint32_t i = 0; i < w->peers_count; i++) {
        struct peer *p = w->peers[i];
        drop_log(p);
        sem_destroy(&p->bell);
        unshare_memory(p->up);
        unshare_memory(p->down);
        free(p);
    }
    sem_destroy(&w->bell);
    unshare_memory(w->bus);
    unshare_memory(w->ready);
    free(w);
}

/* The control plane's part. */
static inline void hear_notices(struct world *w)
{
    struct sb_row *rows = w->f->rows;
    uint32_t count;
    struct dp_notice *notices = dp_take_notices(&w->f->orders, &count);
    for (uint32_t i = 0; i < count; i++)
        for (uint32_t k = 0; k < w->peers_count; k++) {
            struct peer *p = w->peers[k];
            if (p->slot != notices[i].slot || p->generation != notices[i].generation)
                continue;
            if (notices[i].kind == DP_UNUSED_POOL)
                drop_pool(p);
            if (notices[i].kind == DP_UNUSED_PAGES)
                p->pool_freed += notices[i].bytes;
            if (notices[i].kind == DP_QUARANTINED_PORT)
                p->quarantined = true;
            if (notices[i].kind == DP_RECLAIMED_PORT) {
                p->reclaimed = true;
                dp_row_begin(&rows[p->slot]);
                rb_store(&rows[p->slot].state, SB_ROW_FREE);
                dp_row_end(&rows[p->slot]);
            }
        }
    free(notices);
}

static inline void one_pass(struct world *w)
{
    w->f->now = w->now;
    dp_pass(w->f);
    hear_notices(w);
}

static inline bool restless(struct world *w) { return dp_any_active(w->f) || dp_something_new(w->f); }

/* Passes until the forwarder would sleep. That it ends at all is a promise of its own: nobody spins. */
static inline void settle(struct world *w)
{
    w->passes = 0;
    do {
        one_pass(w);
        CHECK(++w->passes < 10000);
    } while (restless(w));
}

static inline void advance(struct world *w, uint64_t ns)
{
    uint64_t until = w->now + ns;
    while (w->now < until) { /* no further than the forwarder would sleep */
        uint64_t next = w->f->next_look < w->f->next_deadline ? w->f->next_look : w->f->next_deadline;
        w->now = next > w->now && next < until ? next : until;
        settle(w);
    }
}
