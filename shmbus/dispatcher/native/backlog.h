/* Backlogs: where group messages, commands and requests wait while nobody who may take them is free.
 *
 * A backlog is a port like others, with a slot beyond those of endpoints. Its memory looks like the DOWN of an
 * endpoint that has gone: a ring that the dispatcher fills and, through `reclaim`, empties itself. So runs go
 * there as to any target, and leave it (drain.h) as what a dead endpoint left does, with the same journal.
 *
 * A backlog of another sort is that of an interest that catches up with what was kept, see history.h: it has the same
 * memory and ways in, and leads to that interest's endpoint alone.
 *
 * All that waits in one backlog of work may be taken by the same endpoints, so its first message never keeps another
 * from one who is free. It is made when it is first needed, in a segment of its own, and removed when it has been
 * empty for a second. A successor finds its number in BUS.
 *
 * Offers: dp_next_backlog, dp_waits, dp_had_as_kept, dp_takers; dp_find_backlog, dp_make_backlog,
 *         dp_close_backlog; dp_tend_backlogs; dp_adopt_backlogs. */
#pragma once

#include "shmbus/dispatcher/native/own.h"
#include "shmbus/dispatcher/native/segment.h"

#include <stdio.h>

#define DP_BACKLOG_IDLE_NS 1000000000u /* an empty backlog is kept for so long */
#define DP_BACKLOG_AGAIN_NS 100000000u /* without memory, another try is made after so long, not for each message */

/* One after the other of the set `left`, which begins as f->backlogs_open; NULL at the end. */
static inline struct dp_port *dp_next_backlog(struct dp_forwarder *f, uint64_t *left)
{
    if (!*left)
        return NULL;
    uint32_t index = (uint32_t)__builtin_ctzll(*left);
    *left &= *left - 1;
    return &f->ports[SB_MAX_SLOTS + index];
}

/* Of one that catches up: is this among what it got as kept before? */
static inline bool dp_had_as_kept(const struct dp_backlog *b, const struct sb_record *h)
{
    uint64_t number;
    memcpy(&number, h->correlation, sizeof number);
    return h->flags & SB_RETAIN && number <= b->number;
}

/* Those in which work waits. */
static inline uint64_t dp_work_backlogs(const struct dp_forwarder *f) { return f->backlogs_open & ~f->catching_up; }

/* Does anything wait there, what the run being collected puts there included? */
static inline bool dp_waits(const struct dp_forwarder *f, const struct dp_port *backlog)
{
    return backlog->in[SB_DATA].published != rb_load(&backlog->down->incoming[SB_DATA].reclaim) ||
           f->run.extra[backlog->slot];
}

/* Of this route, who may take the messages of a group, or (NULL) commands and requests. NULL: nobody. */
static inline const struct dp_receivers *dp_takers(const struct dp_route *route, const struct dp_group *group)
{
    if (!group)
        return route->handlers.count ? &route->handlers : NULL;
    for (uint32_t g = 0; g < route->group_count; g++)
        if (route->groups[g].group == group)
            return &route->groups[g].members;
    return NULL;
}

static inline bool dp_same_takers(const struct dp_backlog *b, const struct dp_group *group,
                                  const struct dp_receivers *takers)
{
    if (b->former || b->group != group || b->takers_count != takers->count)
        return false;
    for (uint32_t i = 0; i < takers->count; i++)
        if (!dp_set_has(&b->takers, takers->list[i].slot))
            return false;
    return true;
}

static inline void dp_note_takers(struct dp_backlog *b, const struct dp_receivers *takers)
{
    b->takers = (struct dp_set){{0}};
    b->takers_count = takers->count;
    b->as_target.lossy = true;
    for (uint32_t i = 0; i < takers->count; i++) {
        dp_set_add(&b->takers, takers->list[i].slot);
        b->as_target.lossy &= takers->list[i].lossy;
    }
}

/* After a change of interests: who may take what waits is looked up again, by its first message. */
static inline void dp_tend_backlogs(struct dp_forwarder *f)
{
    uint64_t left = dp_work_backlogs(f);
    f->backlogs_version = f->routes.version;
    for (struct dp_port *port; (port = dp_next_backlog(f, &left));) {
        uint64_t position = rb_load(&port->down->incoming[SB_DATA].reclaim);
        struct sb_record h;
        const uint8_t *record;
        struct dp_backlog *b = dp_backlog_of(f, port);
        struct dp_route *route = NULL;
        if (dp_own_record(f, port, &position, &h, &record))
            route = dp_lookup(&f->routes, sb_type_of(record), h.type_length, h.flags);
        const struct dp_receivers *takers = route ? dp_takers(route, b->group) : NULL;
        if (takers)
            dp_note_takers(b, takers);
    }
    dp_wake_backlogs(f);
}

/* Where messages for these takers wait: the youngest such backlog that takes the largest record there may be.
 * `waits`: something waits for them, there or in an older one. */
static inline struct dp_port *dp_find_backlog(struct dp_forwarder *f, const struct dp_group *group,
                                              const struct dp_receivers *takers, bool *waits)
{
    struct dp_port *found = NULL;
    *waits = false;
    if (f->backlogs_version != f->routes.version)
        dp_tend_backlogs(f);
    uint64_t left = dp_work_backlogs(f);
    for (struct dp_port *port; (port = dp_next_backlog(f, &left));) {
        if (!dp_same_takers(dp_backlog_of(f, port), group, takers))
            continue;
        *waits |= dp_waits(f, port);
        if (port->in[SB_DATA].capacity >= f->largest_ring && (!found || port->generation > found->generation))
            found = port;
    }
    return found;
}

/* Memory ----------------------------------------------------------------------------------------------------- */

static inline void dp_backlog_name(const struct dp_forwarder *f, uint32_t slot, uint64_t generation, char name[160])
{
    snprintf(name, 160, "%s:backlog:%u:%llu", f->prefix, slot, (unsigned long long)generation);
}

static inline uint64_t dp_backlog_data(void) { return (sizeof(struct sb_backlog) + 63) & ~63ull; }

/* Make a port of a backlog that stands. False: its words are garbage. */
static inline bool dp_open_backlog(struct dp_forwarder *f, uint32_t slot, struct sb_backlog *memory)
{
    struct dp_port *port = &f->ports[slot];
    struct sb_down *down = &memory->down;
    struct sb_down_incoming *in = &down->incoming[SB_DATA];
    uint8_t *data = (uint8_t *)memory + down->incoming_ring[SB_DATA].offset;
    *port = (struct dp_port){.slot = slot, .generation = (uint32_t)down->generation, .state = SB_ROW_LIVE,
                             .confirmed = true, .down = down, .row = &f->no_row, .progress_ns = f->now,
                             .alone = memory->whom ? memory->interest : 0};
    f->backlogs[slot - SB_MAX_SLOTS] =
        (struct dp_backlog){.as_target = {.slot = (uint16_t)slot, .bit = 1}, .awaits = SB_MEMBERS, .emptied_ns = f->now,
                            .whom = memory->whom, .interest = memory->interest, .number = memory->number};
    if (rb_producer_open(&port->in[SB_DATA], &in->head, &in->reclaim, &in->high, data,
                         down->incoming_ring[SB_DATA].capacity) != RB_OK) {
        port->state = SB_ROW_FREE;
        return false;
    }
    snprintf(port->name, sizeof port->name, "backlog of %.32s", memory->group[0] ? memory->group : memory->type);
    if (memory->group[0])
        f->backlogs[slot - SB_MAX_SLOTS].group = dp_intern_group(&f->routes, memory->group, strlen(memory->group));
    f->backlogs[slot - SB_MAX_SLOTS].former = memory->former;
    port->delivered = rb_load(&in->delivered);
    f->backlogs_open |= 1ull << (slot - SB_MAX_SLOTS);
    f->catching_up |= memory->whom ? 1ull << (slot - SB_MAX_SLOTS) : 0;
    return true;
}

/* Memory for another backlog, with an empty ring of so many bytes, which nobody knows of yet. NULL: there is none, or
 * there are too many. */
static inline struct sb_backlog *dp_lay_backlog(struct dp_forwarder *f, uint64_t capacity)
{
    char name[160];
    uint64_t size = dp_backlog_data() + capacity, generation = rb_load(&f->bus->backlogs_made) + 1;
    struct sb_backlog *memory = NULL;
    uint32_t index = ~f->backlogs_open ? (uint32_t)__builtin_ctzll(~f->backlogs_open) : SB_BACKLOGS;
    if (f->now < f->backlog_again_ns)
        return NULL;
    dp_backlog_name(f, SB_MAX_SLOTS + index, generation, name);
    if (index == SB_BACKLOGS || !(memory = dp_make_segment(name, size))) {
        f->backlog_again_ns = f->now + DP_BACKLOG_AGAIN_NS;
        rb_add(&f->bus->backlogs_failed, 1);
        return NULL;
    }
    memory->down.slot = SB_MAX_SLOTS + index;
    memory->down.generation = generation;
    memory->down.incoming_ring[SB_DATA] = (struct sb_ring_descriptor){dp_backlog_data(), capacity, SB_DATA, 0, 0, 0};
    for (int r = 0; r < SB_RINGS_IN; r++)
        rb_store(&memory->down.incoming[r].need, SB_NO_NEED);
    rb_store(&memory->down.todo.from, SB_NOWHERE);
    memory->down.prefix.layout = SB_LAYOUT;
    memory->down.prefix.size = size;
    memory->down.prefix.generation = generation;
    memory->down.prefix.kind = SB_SEGMENT_BACKLOG;
    return memory;
}

/* It is complete: from here on it is a port. */
static inline struct dp_port *dp_enter_backlog(struct dp_forwarder *f, struct sb_backlog *memory)
{
    uint32_t slot = (uint32_t)memory->down.slot;
    rb_store_release(&memory->down.prefix.magic, RB_MAGIC); /* whoever opens it */
    RB_FAIL("backlog.made");
    rb_store_release(&f->bus->backlog[slot - SB_MAX_SLOTS], memory->down.generation); /* dp_adopt_backlogs, observers */
    RB_FAIL("backlog.entered");
    rb_store(&f->bus->backlogs_made, memory->down.generation);
    dp_open_backlog(f, slot, memory);
    return &f->ports[slot];
}

/* A backlog for these takers; `former` is as in struct sb_backlog. NULL: there is no memory, or there are too many. */
static inline struct dp_port *dp_make_backlog(struct dp_forwarder *f, const struct dp_group *group,
                                              const struct dp_receivers *takers, const struct dp_route *route,
                                              uint64_t former)
{
    uint64_t capacity = f->bus->backlog_bytes > f->largest_ring ? f->bus->backlog_bytes : f->largest_ring;
    struct sb_backlog *memory = dp_lay_backlog(f, capacity);
    if (!memory)
        return NULL;
    memory->former = former;
    memcpy(memory->group, group ? group->name : "", group ? group->length : 0);
    memcpy(memory->type, route->type, route->type_length);
    struct dp_port *port = dp_enter_backlog(f, memory);
    dp_note_takers(dp_backlog_of(f, port), takers);
    return port;
}

/* With `remove` for good: then nothing waits there, and no fan-out owes it anything. */
static inline void dp_close_backlog(struct dp_forwarder *f, struct dp_port *port, bool remove)
{
    char name[160];
    struct sb_backlog *memory = (struct sb_backlog *)(void *)port->down;
    uint32_t index = port->slot - SB_MAX_SLOTS;
    if (remove) {
        dp_backlog_name(f, port->slot, port->generation, name);
        dp_remove_segment(name); /* first: a successor goes by what BUS says */
        RB_FAIL("backlog.left");
        rb_store_release(&f->bus->backlog[index], 0);
    }
    dp_drop_group(&f->routes, dp_backlog_of(f, port)->group);
    f->backlogs_open &= ~(1ull << index);
    f->catching_up &= ~(1ull << index);
    port->state = SB_ROW_FREE;
    dp_close_segment(memory, memory->down.prefix.size);
}

/* Those that the last dispatcher left, before anything of theirs is looked at. */
static inline void dp_adopt_backlogs(struct dp_forwarder *f)
{
    for (uint32_t index = 0; index < SB_BACKLOGS; index++) {
        uint64_t generation = rb_load_acquire(&f->bus->backlog[index]); /* with dp_make_backlog */
        char name[160];
        uint64_t size = 0;
        if (!generation)
            continue;
        if (rb_load(&f->bus->backlogs_made) < generation)
            rb_store(&f->bus->backlogs_made, generation);
        dp_backlog_name(f, SB_MAX_SLOTS + index, generation, name);
        struct sb_backlog *memory = dp_open_segment(name, &size);
        if (!memory || size <= sizeof *memory || memory->down.generation != generation ||
            memory->down.prefix.size != size || !dp_open_backlog(f, SB_MAX_SLOTS + index, memory)) {
            rb_store(&f->bus->backlog[index], 0); /* somebody removed its name: what waited is lost */
            rb_add(&f->bus->backlogs_failed, 1);
            if (memory)
                dp_close_segment(memory, size);
            dp_remove_segment(name);
        }
    }
}
