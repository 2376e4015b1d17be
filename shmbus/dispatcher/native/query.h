/* Queries: an endpoint asks who would get a message of a type, or of some type that a pattern matches, and the
 * dispatcher itself answers, from its routes.
 *
 * The answer is a reply like others, and ends the query's entry in the requester's table. It never waits: where the
 * reply ring has no space but what is kept for errors, it takes that of its own request, and names fewer endpoints. The
 * journal ties it to the query as it does an error, so it is given once. No tap sees either. It names no keeper, and
 * to a link no links: what that sends on goes to none.
 *
 * Offers: dp_is_query, dp_answer. */
#pragma once

#include "shmbus/dispatcher/native/emit.h"
#include "shmbus/dispatcher/native/interests.h"

/* It names one of its source's entries, and has nothing but a type or a pattern. */
static inline bool dp_is_query(const struct dp_port *source, const struct sb_record *h)
{
    return h->type_length && h->length == SB_HEADER + h->type_length &&
           sb_index_of(h->correlation) < source->pending_count;
}

static inline uint32_t dp_count_slots(const uint64_t *words)
{
    uint32_t count = 0;
    for (uint32_t w = 0; w < SB_MAX_SLOTS / 64; w++)
        count += (uint32_t)__builtin_popcountll(words[w]);
    return count;
}

/* The handlers from this slot on, `most` of them at the most. */
static inline uint32_t dp_name_handlers(const struct dp_forwarder *f, const struct dp_matches *found, uint32_t slot,
                                        uint64_t *whom, uint32_t most)
{
    uint32_t count = 0;
    for (; slot < f->slots && count < most; slot++)
        if (found->handlers[slot / 64] >> (slot % 64) & 1)
            whom[count++] = dp_whom_of(&f->ports[slot]);
    return count;
}

/* Write as much of it as there is space for. */
static inline bool dp_write_answer(struct dp_port *requester, struct sb_record *h, const struct sb_found *answer,
                                   const uint64_t *whom, uint32_t count)
{
    struct rb_producer *out = &requester->in[SB_REPLIES];
    uint64_t largest = rb_largest_record(out->capacity), fixed = SB_HEADER + sizeof *answer;
    uint64_t most = largest > fixed ? (largest - fixed) / sizeof *whom : 0;
    uint64_t reserve = requester->reserve;
    uint8_t *at;
    count = count < most ? count : (uint32_t)most;
    h->length = (uint32_t)(fixed + count * sizeof *whom);
    enum rb_status status = rb_claim(out, h->length, reserve, &at);
    if (status == RB_FULL) {
        count = count < SB_FOUND_LEAST ? count : SB_FOUND_LEAST;
        h->length = (uint32_t)(fixed + count * sizeof *whom);
        status = rb_claim(out, h->length, 0, &at);
    }
    if (status != RB_OK)
        return false;
    memcpy(at, h, sizeof *h);
    memcpy(at + SB_HEADER, answer, sizeof *answer);
    memcpy(at + fixed, whom, count * sizeof *whom);
    rb_commit(out, h->length);
    return true;
}

/* The record, which stands in the span, asks so. Whoever does not wait for it any more gets nothing. */
static inline void dp_answer(struct dp_forwarder *f, struct dp_port *source, const struct sb_record *query,
                             const uint8_t *record, const struct dp_span *span)
{
    char pattern[SB_MAX_TYPE + 1];
    uint64_t whom[SB_MAX_SLOTS];
    struct dp_matches found;
    uint16_t index = sb_index_of(query->correlation);
    const struct sb_pending *pending = &source->pending[index];
    memcpy(pattern, sb_type_of(record), query->type_length);
    if (!dp_valid_tokens(pattern, query->type_length, true)) {
        dp_quarantine(f, source);
        return;
    }
    if (rb_load_acquire(&pending->state) != SB_PENDING_WAITING || memcmp(pending->id, query->correlation, 16) != 0)
        return;
    rb_store_release(&source->given[index].whom, 0); /* of the request that had this entry before */
    dp_show_routes(f);
    dp_who_matches(&f->routes, pattern, query->type_length,
                   source->rank == SB_RANK_LINK ? SB_RANK_HERE : SB_RANK_LINK, &found);
    struct sb_found answer = {.version = rb_load(&f->bus->routes_version),
                               .receivers = dp_count_slots(found.receivers),
                               .handlers = dp_count_slots(found.handlers)};
    struct sb_record h = {.kind = SB_REPLY, .flags = SB_RAW, .peer = SB_FROM_BUS, .attempt = 1, .sent_ns = f->now};
    memcpy(h.correlation, query->correlation, 16);
    uint32_t count = dp_name_handlers(f, &found, query->peer, whom, SB_MAX_SLOTS);
    if (dp_write_answer(source, &h, &answer, whom, count))
        dp_end_request(f, source, index, span);
    else
        rb_add(&f->bus->events_lost, 1); /* only a requester that re-uses entries without draining gets here */
}
