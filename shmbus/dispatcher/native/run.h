/* Collecting a run: which records at the front of a ring belong together, and where they are to go.
 *
 * A *run* is one or more consecutive records with the same chosen targets; one that is to be kept is a run of its own.
 * Every record of it is copied out, checked and looked up here, and nothing of it is read from the sender's header
 * again.
 *
 * Offers: dp_empty_run, dp_begin_run, dp_collect_run, dp_note_own_block, dp_ring_at; dp_copy_header; dp_size_in_run,
 *         dp_dead_letter_of_run. */
#pragma once

#include "shmbus/dispatcher/native/credit.h"
#include "shmbus/dispatcher/native/nack.h"
#include "shmbus/dispatcher/native/query.h"
#include "shmbus/dispatcher/native/rights.h"

enum dp_verdict { /* of one record */
    DP_DELIVER,   /* to the chosen targets, of which there may be none */
    DP_DROP,      /* nothing is owed: a late reply, a request nobody waits for any more */
    DP_NOBODY,    /* a send or request without a handler, an event for a group without a member */
    DP_COLLIDES,  /* a request whose id is under way already */
    DP_RETURNED,  /* given back, and nobody will have it any more */
    DP_GONE,      /* a request for an endpoint that is not there */
    DP_FORBIDDEN, /* its source may not send this type so */
    DP_CANCEL,    /* no message: a request is withdrawn */
    DP_CREDIT,    /* no message: more parts of a reply are granted */
    DP_NOT_NOW,   /* whoever is to have it may not have it yet, and there is no space elsewhere */
    DP_QUERY,     /* no message: somebody asks us */
    DP_VIOLATION, /* nothing a sound endpoint writes */
};

/* Bytes of the payload proper of record `i`, with its origin. */
static inline uint64_t dp_whole_in_run(const struct dp_run *run, uint32_t i)
{
    const struct sb_record *h = &run->header[i];
    return h->flags & SB_POOLED ? run->block[i].length : h->length - sb_payload_offset(h);
}

/* The same without its origin: what users are told. */
static inline uint64_t dp_size_in_run(const struct dp_run *run, uint32_t i)
{
    uint64_t whole = dp_whole_in_run(run, i);
    return whole - sb_origin_size(run->header[i].flags, whole);
}

/* The record in the run's next place has SB_RELAYED: is its source a link, and does it say where it comes from? */
static inline bool dp_relays(const struct dp_run *run)
{
    return run->span.source->rank == SB_RANK_LINK && dp_whole_in_run(run, run->count) >= sizeof(struct sb_origin);
}

/* Of a request for one endpoint and no other, however busy that is. */
static inline enum dp_verdict dp_judge_directed(struct dp_forwarder *f, const struct sb_record *h,
                                                struct dp_choices *chosen)
{
    if (h->peer >= f->slots)
        return DP_VIOLATION;
    const struct dp_port *target = dp_port_of(f, sb_whom(h->peer, h->peer_generation));
    if (!target || !dp_open_for_messages(target))
        return DP_GONE;
    if (h->flags & SB_RELAYED && target->rank != SB_RANK_HERE)
        return DP_VIOLATION;
    dp_choose_one(chosen, target->slot, SB_PLAIN);
    return DP_DELIVER;
}

/* May it publish this type? DP_DELIVER: it may. */
static inline enum dp_verdict dp_judge_publisher(struct dp_port *source, const struct dp_route *route)
{
    if (__builtin_expect(route->reserved, 0))
        return route->of_links && !dp_of_relayed(route) && source->rank == SB_RANK_LINK ? DP_DELIVER : DP_VIOLATION;
    return dp_lacks(source, route, SB_RIGHT_PUBLISH) ? DP_FORBIDDEN : DP_DELIVER;
}

/* Of an event that a link brought: for plain subscriptions, or with the name of a queue group as its extension for a
 * member of that alone. */
static inline enum dp_verdict dp_judge_relayed_event(struct dp_forwarder *f, const struct sb_record *h,
                                                     const uint8_t *record, struct dp_route *route,
                                                     struct dp_choices *chosen)
{
    char name[SB_NAME];
    if (!h->extension_length) {
        dp_choose_plain(route, chosen);
        return DP_DELIVER;
    }
    if (h->extension_length >= SB_NAME)
        return DP_VIOLATION;
    memcpy(name, record + SB_HEADER + h->type_length, h->extension_length);
    struct dp_group_route *group = dp_group_named(route, name, h->extension_length);
    if (!group)
        return DP_NOBODY;
    chosen->count = 0;
    chosen->not_now = false;
    dp_choose_in_group(f, route, group, &f->run, chosen);
    return chosen->not_now ? DP_NOT_NOW : DP_DELIVER;
}

/* Of an event, send or request: `h` is a private copy, and its type stands in `route`. */
static inline enum dp_verdict dp_judge_data(struct dp_forwarder *f, struct dp_port *source, const struct sb_record *h,
                                            const uint8_t *record, struct dp_route *route, struct dp_choices *chosen)
{
    if (h->kind == SB_EVENT) {
        enum dp_verdict may = dp_judge_publisher(source, route);
        if (may != DP_DELIVER)
            return may;
        if (__builtin_expect(dp_of_relayed(route), 0))
            return dp_judge_relayed_event(f, h, record, route, chosen);
        dp_choose_event(f, route, &f->run, chosen);
        return chosen->not_now ? DP_NOT_NOW : DP_DELIVER;
    }
    if (route->reserved)
        return DP_VIOLATION;
    if (h->kind == SB_REQUEST) {
        uint16_t index = sb_index_of(h->correlation);
        if (index >= source->pending_count)
            return DP_VIOLATION;
        const struct sb_target *given = &source->given[index];
        if (rb_load(&given->whom) && !rb_load(&given->done) && memcmp(given->id, h->correlation, 16) == 0)
            return DP_COLLIDES;
        const struct sb_pending *pending = &source->pending[index];
        if (rb_load_acquire(&pending->state) != SB_PENDING_WAITING || memcmp(pending->id, h->correlation, 16) != 0)
            return DP_DROP; /* its caller has given up */
    }
    if (dp_lacks(source, route, SB_RIGHT_REQUEST))
        return DP_FORBIDDEN;
    if (h->kind == SB_REQUEST && h->flags & SB_DIRECTED)
        return dp_judge_directed(f, h, chosen);
    if (!route->handlers.count)
        return DP_NOBODY;
    dp_choose_one(chosen, dp_choose_handler(f, route, &f->run)->slot, SB_PLAIN);
    return DP_DELIVER;
}

/* Of what its source gives back, which is always a run of its own: that record alone is changed to what it was. */
static inline enum dp_verdict dp_judge_nack(struct dp_forwarder *f, struct dp_run *run, struct dp_route *route,
                                            struct dp_choices *chosen)
{
    struct sb_record *h = &run->header[run->count];
    if (run->count)
        return DP_DROP; /* it ends the run, and is looked at again as the first of the next */
    if (route->reserved || !dp_is_nack(f, h, dp_whole_in_run(run, 0)) || /* it had no more than it may have */
        dp_lacks(run->span.source, route, h->interests == SB_PLAIN ? SB_RIGHT_HANDLE : SB_RIGHT_SUBSCRIBE))
        return DP_VIOLATION;
    run->returned = true;
    if (h->flags & SB_FINAL || h->attempt > f->max_deliveries)
        return DP_RETURNED;
    if (!dp_choose_again(f, run->span.source, route, h, chosen))
        return DP_RETURNED;
    if (chosen->not_now && !dp_lose_at_former(f, run->span.source, chosen))
        return DP_NOT_NOW;
    dp_restore(h);
    run->record[0] += h->extension_length; /* without the reason: what follows the type, as the cache has that, goes
                                            * on */
    h->length -= h->extension_length;
    h->extension_length = 0;
    return DP_DELIVER;
}

/* A reply is accepted from the request's target alone, once; the very position that was accepted before is
 * accepted again, so that repeating after a kill does no harm. Parts are accepted up to the end, or the error, that
 * was: a kill may have come between noting that and the publication of the run in which it stands behind them. */
static inline enum dp_verdict dp_judge_reply(struct dp_forwarder *f, struct dp_port *source, const struct sb_record *h,
                                             uint64_t position, struct dp_choices *chosen)
{
    if (h->peer >= f->slots || (__builtin_expect(h->flags & SB_RELAYED, 0) && !dp_relays(&f->run)))
        return DP_VIOLATION;
    struct dp_port *requester = &f->ports[h->peer];
    uint16_t index = sb_index_of(h->correlation);
    if (requester->state == SB_ROW_FREE || requester->state == SB_ROW_DYING || requester->corrupt ||
        requester->generation != h->peer_generation || index >= requester->pending_count)
        return DP_DROP;
    const struct sb_target *given = &requester->given[index];
    uint64_t done = rb_load(&given->done);
    bool before_end = h->kind == SB_PART && done < SB_DONE_BY_CANCEL && position + 1 < done;
    if (memcmp(given->id, h->correlation, 16) != 0 || rb_load(&given->whom) != dp_whom_of(source) ||
        (done && done != position + 1 && !before_end))
        return DP_DROP;
    dp_choose_one(chosen, requester->slot, SB_PLAIN);
    return DP_DELIVER;
}

/* Copy a record's header out and check it against what the ring said of it. */
static inline bool dp_copy_header(const struct rb_head8 *head, const uint8_t *record, struct sb_record *h)
{
    memcpy(h, record, sizeof *h);
    h->length = head->length;
    h->kind = head->kind;
    return sb_record_sound(h);
}

/* Is it an event to be kept, for who comes later? What is for one group alone is not. */
static inline bool dp_is_kept(const struct dp_port *source, const struct sb_record *h, const struct dp_route *route)
{
    bool reserved = route->reserved && !(route->of_links && source->rank == SB_RANK_LINK);
    return h->flags & SB_RETAIN && h->kind == SB_EVENT && !reserved && !h->extension_length;
}

/* What is to become of a sound record, which stands in the run's next place, and its targets. `same`: those of the
 * run, without a look. */
static inline enum dp_verdict dp_judge(struct dp_forwarder *f, struct dp_run *run, uint64_t position,
                                       struct dp_choices *chosen, bool *same)
{
    struct dp_port *source = run->span.source;
    const struct sb_record *h = &run->header[run->count];
    const uint8_t *record = run->record[run->count];
    struct dp_route *route = NULL;
    if (run->span.ring == SB_REPLIES) {
        if (h->kind == SB_CREDIT) /* ends the run, and is looked at again as the first of the next */
            return dp_names_request(source, h) ? DP_CREDIT : DP_VIOLATION;
        bool reply = h->kind == SB_REPLY || h->kind == SB_ERROR || h->kind == SB_PART || h->kind == SB_END;
        return reply ? dp_judge_reply(f, source, h, position, chosen) : DP_VIOLATION;
    }
    if (h->kind == SB_CANCEL) /* ends the run, and is looked at again as the first of the next */
        return dp_names_request(source, h) ? DP_CANCEL : DP_VIOLATION;
    if (h->kind == SB_QUERY) /* likewise */
        return dp_is_query(source, h) ? DP_QUERY : DP_VIOLATION;
    bool nack = h->kind == SB_NACK;
    if ((h->kind != SB_EVENT && h->kind != SB_SEND && h->kind != SB_REQUEST && !nack) || !h->type_length ||
        !(route = dp_lookup(&f->routes, sb_type_of(record), h->type_length, h->flags)))
        return DP_VIOLATION;
    run->type[run->count] = route->type;
    if (nack)
        return dp_judge_nack(f, run, route, chosen);
    if (__builtin_expect(h->flags & (SB_RETAIN | SB_RELAYED), 0)) {
        if (h->flags & SB_RELAYED && !dp_relays(run))
            return DP_VIOLATION;
        if (dp_is_kept(source, h, route)) {
            if (run->count)
                return DP_DROP; /* as one that is given back */
            run->retain = true;
        }
    }
    *same = route == run->route && h->kind == SB_EVENT && run->header[run->count - 1].kind == SB_EVENT &&
            route->uniform;
    run->route = route; /* NULL before the first */
    return *same ? DP_DELIVER : dp_judge_data(f, source, h, record, route, chosen);
}

static inline bool dp_same_choices(const struct dp_choices *a, const struct dp_choices *b)
{
    if (a->count != b->count)
        return false;
    for (uint32_t i = 0; i < a->count; i++)
        if (a->list[i].slot != b->list[i].slot || a->list[i].bits != b->list[i].bits ||
            a->list[i].lossy != b->list[i].lossy || a->list[i].lost != b->list[i].lost)
            return false;
    return true;
}

/* Does the run give this request away, or end it, already? That stands in no target word yet, so a repeated id must
 * begin a run of its own; of parts there may be many, before the end. Two requests may share a mark: the run is a
 * shorter one, no more. */
static inline bool dp_marked(struct dp_run *run, uint32_t requester, const struct sb_record *h)
{
    uint32_t *mark = &run->mark[(requester * 61 + sb_index_of(h->correlation)) % 1024];
    bool was = *mark == run->number;
    if (h->kind != SB_PART)
        *mark = run->number;
    return was;
}

/* Has it not taken the SB_LIVE yet, behind which a subscription gets what is urgent, or what it got so meanwhile? */
static inline bool dp_behind_live(const struct dp_port *target)
{
    return target->live_at && rb_load_acquire(&target->up->incoming[SB_DATA].taken) < target->live_at;
}

/* Into which of its rings the target gets the run. What is urgent passes others only where it is for plain
 * subscriptions of an endpoint alone: what a group gets may be handed on, and is held in the data ring until it is
 * done. Nor does it pass what was kept, see history.h. */
static inline enum sb_ring_index dp_ring_at(const struct dp_run *run, const struct dp_port *target, uint32_t bits)
{
    bool passes = run->urgent && bits == SB_PLAIN && target->slot < SB_MAX_SLOTS && !dp_behind_live(target);
    return passes ? SB_URGENT_EVENTS : run->span.ring;
}

static inline bool dp_is_urgent(const struct sb_record *h) { return h->kind == SB_EVENT && h->flags & SB_URGENT; }

/* Each target of a fan-out gets the run whole: a quarter of the smallest ring at the most. Which ring of a plain
 * subscriber what is urgent goes to is chosen when it is given, so it must fit into either. */
static inline uint64_t dp_smallest_quarter(const struct dp_forwarder *f, const struct dp_run *run)
{
    const struct dp_choices *targets = &run->targets;
    uint64_t smallest = ~0ull;
    for (uint32_t i = 0; i < targets->count; i++) {
        const struct dp_port *target = &f->ports[targets->list[i].slot];
        bool may_pass = run->urgent && targets->list[i].bits & SB_PLAIN && target->slot < SB_MAX_SLOTS;
        uint64_t capacity = target->in[run->span.ring].capacity;
        if (may_pass && target->in[SB_URGENT_EVENTS].capacity < capacity)
            capacity = target->in[SB_URGENT_EVENTS].capacity;
        uint64_t quarter = rb_largest_record(capacity);
        smallest = quarter < smallest ? quarter : smallest;
    }
    return smallest;
}

/* Each record for one that is lossy is judged by what that has by then, see lossy.h. */
static inline bool dp_any_lossy(const struct dp_choices *chosen)
{
    bool any = false;
    for (uint32_t i = 0; i < chosen->count; i++)
        any |= chosen->list[i].lossy;
    return any;
}

/* Does the record in the run's next place, which is to go to `chosen`, belong to the run? */
static inline bool dp_joins(struct dp_forwarder *f, struct dp_run *run, const struct dp_choices *chosen, bool same)
{
    const struct sb_record *h = &run->header[run->count];
    bool reply = run->span.ring == SB_REPLIES;
    if ((reply || h->kind == SB_REQUEST) && dp_marked(run, reply ? h->peer : run->span.source->slot, h))
        return false;
    if (run->count && !same && !dp_same_choices(chosen, &run->targets))
        return false;
    if (run->count && ((h->flags ^ run->header[0].flags) & (SB_POOLED | SB_RELAYED) ||
                       (h->flags & SB_POOLED && dp_any_lossy(&run->targets))))
        return false;
    if (dp_is_urgent(h) != run->urgent) {
        if (run->count)
            return false;
        run->urgent = true;
    }
    if (run->targets.count < 2)
        return true;
    if (!same && run->count && run->route && run->route->keyed && run->type[run->count] != run->type[0])
        return false; /* while a fan-out stands its keys may change hands: one key, then */
    if (run->count == 0)
        run->bytes_most = dp_smallest_quarter(f, run);
    run->bytes += RB_ALIGN8(h->length);
    return run->count == 0 || run->bytes <= run->bytes_most;
}

static inline void dp_empty_run(struct dp_run *run)
{
    run->count = 0;
    run->returned = run->urgent = run->retain = run->pooled = false;
}

static inline void dp_begin_run(struct dp_forwarder *f, struct dp_run *run, struct dp_port *source,
                                enum sb_ring_index ring)
{
    uint64_t position = source->out[ring].next;
    run->span = (struct dp_span){.source = source, .ring = ring, .from = position, .to = position};
    dp_empty_run(run);
    run->kept = 0;
    run->targets.count = 0;
    run->route = NULL;
    run->bytes = 0;
    if (++run->number == 0) {
        memset(run->mark, 0, sizeof run->mark);
        run->number = 1;
    }
    dp_pin_routes(&f->routes);
}

/* The block that a sound record with SB_POOLED names, which stands in the run's next place: copied out and checked. It
 * is its source's own, or it gives back one of which it has a share. False: no endpoint writes that. */
static inline bool dp_copy_block(struct dp_run *run, enum sb_ring_index ring, uint64_t position)
{
    const struct sb_record *h = &run->header[run->count];
    struct sb_block *block = &run->block[run->count];
    if (h->flags & SB_NONE || h->length - sb_payload_offset(h) != sizeof *block)
        return false;
    *block = sb_block_in(h, run->record[run->count]);
    run->pooled = true;
    if (dp_check_block(run->span.source, block, ring, position))
        return true;
    return h->kind == SB_NACK && dp_shares_block(run->span.source, block);
}

/* The longest run at the front of a ring, `limit` records at the most. What ends it before its first record is
 * said by the verdict; otherwise DP_DELIVER and its count, which is 0 where the ring is empty. */
static inline enum dp_verdict dp_collect_run(struct dp_forwarder *f, struct dp_port *source, enum sb_ring_index ring,
                                             uint32_t limit)
{
    struct dp_run *run = &f->run;
    enum dp_verdict first = DP_DELIVER;
    dp_begin_run(f, run, source, ring);
    for (uint64_t position = run->span.from; run->count < limit && !run->returned && !run->retain;
         position = run->span.to) {
        struct rb_head8 head;
        const uint8_t *record = NULL;
        struct dp_choices *chosen = run->count ? &f->choices : &run->targets;
        bool same = false;
        enum rb_status status = rb_peek_at(&source->out[ring], &position, SB_HEADER, &head, &record);
        if (status == RB_EMPTY) {
            if (run->count == 0)
                run->span.to = position; /* past padding that nothing follows */
            break;
        }
        run->record[run->count] = record;
        run->type[run->count] = NULL;
        enum dp_verdict verdict = DP_VIOLATION;
        struct sb_record *h = &run->header[run->count];
        bool sound = status == RB_OK && dp_copy_header(&head, record, h);
        if (sound && __builtin_expect(h->flags & SB_POOLED, 0)) {
            (void)dp_open_pool(source);
            sound = dp_copy_block(run, ring, position);
        }
        if (sound)
            verdict = dp_judge(f, run, position, chosen, &same);
        if (run->count == 0) {
            first = verdict;
            run->span.to = status == RB_OK ? position + RB_ALIGN8(head.length) : position;
        }
        if (verdict != DP_DELIVER || !dp_joins(f, run, chosen, same))
            break;
        for (uint32_t i = 0; i < run->targets.count; i++)
            run->extra[run->targets.list[i].slot]++;
        run->count++;
        run->span.to = position + RB_ALIGN8(head.length);
    }
    for (uint32_t i = 0; run->count && i < run->targets.count; i++)
        run->extra[run->targets.list[i].slot] = 0;
    return first;
}

/* In the run's next place stands a record that we have written ourselves. */
static inline void dp_note_own_block(struct dp_run *run)
{
    if (!(run->header[run->count].flags & SB_POOLED))
        return;
    run->block[run->count] = sb_block_in(&run->header[run->count], run->record[run->count]);
    run->pooled = true;
}

/* Who sent the first record of the run, as its receivers have it. */
static inline const char *dp_source_of_run(struct dp_forwarder *f)
{
    const struct dp_run *run = &f->run;
    const struct sb_record *h = &run->header[0];
    uint64_t offset = sb_payload_offset(h);
    if (!(h->flags & SB_RELAYED))
        return run->span.source->name;
    const uint8_t *payload = h->flags & SB_POOLED ? (const uint8_t *)&run->block[0] : run->record[0] + offset;
    return dp_source_elsewhere(f, h, payload, h->length - offset, f->source) ? f->source : run->span.source->name;
}

/* Record `i` of the run will not be handled. */
static inline void dp_dead_letter_of_run(struct dp_forwarder *f, uint32_t i, const char *reason)
{
    const struct dp_run *run = &f->run;
    struct dp_port *source = run->span.source;
    const struct sb_record *h = &run->header[i];
    uint64_t offset = sb_payload_offset(h);
    const void *payload = h->flags & SB_POOLED ? (const void *)&run->block[i] : run->record[i] + offset;
    dp_dead_letter_of(f, h, run->type[i], payload, h->length - offset, source->name, source, reason);
}
