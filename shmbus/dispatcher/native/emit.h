/* What the bus itself says: events on $bus..., dead letters, and errors in place of replies. None of it ever
 * waits; what does not fit is counted. */
#ifndef DP_EMIT_H
#define DP_EMIT_H

#include "shmbus/dispatcher/native/journal.h"
#include "shmbus/dispatcher/native/pack.h"

#define DP_NOTE_ROOM 65536u

/* The member of a group, or the handler, that has least to do; fit ones before others; equals in turn. `stay`
 * keeps its choice while it is not `prefetch` ahead of the least other (SB_MAX_SLOTS: none). */
static inline const struct dp_receiver *dp_least_busy(struct dp_forwarder *f, const struct dp_receiver *list,
                                                      uint32_t count, uint64_t *turn, uint32_t stay)
{
    if (count == 1)
        return list;
    const struct dp_receiver *best = NULL, *kept = NULL;
    uint64_t best_score = ~0ull, kept_score = 0, others = ~0ull;
    uint32_t start = (uint32_t)(*turn % count);
    for (uint32_t i = 0; i < count; i++) {
        const struct dp_receiver *r = &list[(start + i) % count];
        const struct dp_port *p = &f->ports[r->slot];
        uint64_t score = dp_untouched(p) + dp_in_hand(p) + f->run_extra[r->slot];
        if (p->stalled || p->slow)
            score += 1ull << 40;
        if (r->slot == stay) {
            kept = r;
            kept_score = score;
        } else if (score < others) {
            others = score;
        }
        if (score < best_score) {
            best_score = score;
            best = r;
        }
    }
    if (kept && kept_score < others + f->prefetch)
        return kept;
    *turn = (uint64_t)(best - list) + 1;
    return best;
}

static inline void dp_merge_choice(struct dp_choice *list, uint32_t *count, const struct dp_receiver *r)
{
    for (uint32_t i = 0; i < *count; i++)
        if (list[i].slot == r->slot) {
            list[i].bits |= 1u << r->bit;
            list[i].lossy &= r->lossy;
            return;
        }
    list[(*count)++] = (struct dp_choice){r->slot, r->lossy, 1u << r->bit};
}

/* Who gets an event of this route: all plain subscribers and one member of each group. */
static inline uint32_t dp_choose_event(struct dp_forwarder *f, struct dp_route *route, struct dp_choice *list)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < route->plain_count; i++)
        list[count++] = (struct dp_choice){route->plain[i].slot, route->plain[i].lossy, SB_PLAIN};
    for (uint32_t g = 0; g < route->group_count; g++) {
        struct dp_group_route *gr = &route->groups[g];
        uint32_t stay = SB_MAX_SLOTS;
        for (uint32_t i = 0; f->run_count && i < f->run_targets; i++) /* the run's choice of this group */
            for (uint32_t m = 0; m < gr->count; m++)
                if (route->members[gr->first + m].slot == f->run_target[i].slot &&
                    f->run_target[i].bits >> route->members[gr->first + m].bit & 1)
                    stay = f->run_target[i].slot;
        dp_merge_choice(list, &count,
                        dp_least_busy(f, &route->members[gr->first], gr->count, &gr->group->turn, stay));
    }
    return count;
}

static inline void dp_count_lost(struct dp_forwarder *f, struct dp_port *t, uint64_t n)
{
    rb_add(&t->down->lost, n);
    rb_add(&f->bus->lost, n);
}

/* Say something of our own to all who subscribed. `type` is a string literal; `record` has room for a header
 * and the type before the payload at `record + SB_HEADER + strlen(type)`. */
static inline void dp_emit(struct dp_forwarder *f, const char *type, const uint8_t *payload, uint32_t length)
{
    uint16_t type_length = (uint16_t)strlen(type);
    struct dp_route *route = dp_lookup(&f->routes, (const uint8_t *)type, type_length);
    if (!route) {
        rb_add(&f->bus->events_lost, 1);
        return;
    }
    uint32_t run_count = f->run_count;
    f->run_count = 0; /* no choice to stay with */
    uint32_t count = dp_choose_event(f, route, f->scratch_target);
    f->run_count = run_count;
    struct sb_record h = {.length = SB_HEADER + type_length + length, .kind = SB_EVENT, .peer = SB_FROM_BUS,
                          .attempt = 1, .sent_ns = f->now, .type_length = type_length};
    for (uint32_t i = 0; i < count; i++) {
        struct dp_port *t = &f->ports[f->scratch_target[i].slot];
        uint8_t *at;
        if (h.length > rb_largest_record(t->in[SB_DATA].capacity) ||
            rb_claim(&t->in[SB_DATA], h.length, 0, &at) != RB_OK) {
            dp_count_lost(f, t, 1);
            rb_add(&f->bus->events_lost, 1);
            continue;
        }
        h.interests = f->scratch_target[i].bits;
        h.lost = (uint32_t)rb_load(&t->down->lost);
        memcpy(at, &h, sizeof h);
        memcpy(at + SB_HEADER, type, type_length);
        memcpy(at + SB_HEADER + type_length, payload, length);
        rb_commit(&t->in[SB_DATA], h.length);
        t->delivered++;
        rb_store(&t->down->incoming[SB_DATA].delivered, t->delivered);
        rb_publish(&t->in[SB_DATA]);
        dp_touch(f, t);
    }
}

/* $bus.endpoint.up, .down, .stalled, .resumed */
static inline void dp_emit_endpoint(struct dp_forwarder *f, const char *type, const struct dp_port *p,
                                   const char *reason)
{
    struct dp_pack pack = {.bytes = f->scratch, .room = DP_NOTE_ROOM};
    dp_pack_map(&pack, reason ? 4 : 3);
    dp_pack_word(&pack, "name");
    dp_pack_word(&pack, p->name);
    dp_pack_word(&pack, "pid");
    dp_pack_number(&pack, p->pid);
    dp_pack_word(&pack, "generation");
    dp_pack_number(&pack, p->generation);
    if (reason) {
        dp_pack_word(&pack, "reason");
        dp_pack_word(&pack, reason);
    }
    dp_emit(f, type, pack.bytes, pack.length);
}

/* A message that nobody will handle, on $bus.undeliverable: type, source, reason and as much of the payload as is
 * `there` and every listener's ring takes. Never about one of the bus's own. */
static inline void dp_dead_letter_of(struct dp_forwarder *f, const struct sb_record *h, const uint8_t *type,
                                     const uint8_t *payload, uint64_t there, const char *source,
                                     struct dp_port *sender, const char *reason)
{
    if (h->type_length && type[0] == '$')
        return;
    rb_add(&f->bus->dead_letters, 1);
    if (sender)
        rb_add(&sender->down->undeliverable, 1);
    struct dp_route *route = dp_lookup(&f->routes, (const uint8_t *)"$bus.undeliverable", 18);
    uint64_t fits = DP_NOTE_ROOM;
    for (uint32_t i = 0; route && i < route->plain_count + route->member_count; i++) {
        uint32_t slot = i < route->plain_count ? route->plain[i].slot : route->members[i - route->plain_count].slot;
        uint64_t limit = rb_largest_record(f->ports[slot].in[SB_DATA].capacity);
        fits = limit < fits ? limit : fits;
    }
    uint64_t size = h->length - sb_payload_offset(h);
    const uint64_t frame = 768; /* the rest of the map, generously */
    uint32_t kept = fits > frame ? (uint32_t)(there < fits - frame ? there : fits - frame) : 0;
    struct dp_pack pack = {.bytes = f->scratch, .room = DP_NOTE_ROOM};
    dp_pack_map(&pack, 8);
    dp_pack_word(&pack, "type");
    dp_pack_text(&pack, (const char *)type, h->type_length);
    dp_pack_word(&pack, "kind");
    dp_pack_word(&pack, sb_kind_word((enum sb_kind)h->kind));
    dp_pack_word(&pack, "source");
    dp_pack_word(&pack, source);
    dp_pack_word(&pack, "reason");
    dp_pack_word(&pack, reason);
    dp_pack_word(&pack, "attempt");
    dp_pack_number(&pack, h->attempt);
    dp_pack_word(&pack, "format");
    dp_pack_word(&pack, h->flags & SB_NONE ? "none" : h->flags & SB_RAW ? "raw" : "msgpack");
    dp_pack_word(&pack, "size");
    dp_pack_number(&pack, size);
    dp_pack_word(&pack, "payload");
    dp_pack_bytes(&pack, payload, kept);
    dp_emit(f, "$bus.undeliverable", pack.bytes, pack.length);
}

static inline void dp_dead_letter(struct dp_forwarder *f, const struct sb_record *h, const uint8_t *type,
                                  const uint8_t *payload, const char *source, struct dp_port *sender,
                                  const char *reason)
{
    dp_dead_letter_of(f, h, type, payload, h->length - sb_payload_offset(h), source, sender, reason);
}

/* An error in place of the reply to pending entry `index` of `q`, from the reserve of its reply ring. With a
 * source, the journal ties it to the records there. */
static inline void dp_fail_request(struct dp_forwarder *f, struct dp_port *q, uint16_t index, const uint8_t id[16],
                                   enum sb_fault_code code, const struct dp_port *guilty, uint64_t limit,
                                   const struct dp_source *s)
{
    struct sb_fault fault = {.code = code, .limit = limit, .pid = guilty ? guilty->pid : 0};
    if (guilty)
        memcpy(fault.name, guilty->name, sizeof fault.name);
    struct sb_record h = {.length = SB_FAULT_RECORD, .kind = SB_ERROR, .flags = SB_RAW, .peer = SB_FROM_BUS,
                          .attempt = 1, .sent_ns = f->now};
    if (guilty) {
        h.peer = (uint16_t)guilty->slot;
        h.peer_generation = guilty->generation;
    }
    memcpy(h.correlation, id, 16);
    uint8_t *at;
    if (rb_claim(&q->in[SB_REPLIES], h.length, 0, &at) != RB_OK) {
        rb_add(&f->bus->events_lost, 1); /* only a requester that re-uses entries without draining gets here */
        return;
    }
    memcpy(at, &h, sizeof h);
    memcpy(at + SB_HEADER, &fault, sizeof fault);
    rb_commit(&q->in[SB_REPLIES], h.length);
    if (s)
        dp_journal_run(f, s, q, SB_REPLIES, SB_JOURNAL_ERROR, 0, index);
    RB_FAIL("error.begin");
    rb_publish(&q->in[SB_REPLIES]);
    RB_FAIL("error.published");
    if (index < q->pending_count)
        rb_store(&q->target[index].done, SB_DONE_BY_ERROR);
    dp_touch(f, q);
}

#endif
