/* Recalling: the values that an interest with history is to get, of those that were kept.
 *
 * One with a mailbox has them there as its first messages, since it is made with them: before BUS names it, so that a
 * successor finds all of them or makes it again. Which those were it says by the number of the last value that was
 * kept; a record that is kept under that or a lower one, and not yet delivered, is not for it any more.
 *
 * Values that are too large for it are counted once BUS names it. How many they are stands in its DOWN before, and how
 * many of them are counted, so that a successor counts the rest.
 *
 * Offers: dp_recall, dp_share_recalled, dp_set_oversize_aside; dp_count_oversize, dp_tell_oversize; dp_fill_mailbox. */
#pragma once

#include "shmbus/dispatcher/native/keep.h"
#include "shmbus/dispatcher/native/losses.h"

/* The last ones of a type, but for one of a higher rank than SB_RANK_HERE what links brought. False: no memory. */
static inline bool dp_recall_type(struct dp_values *s, const struct dp_kept_type *t, uint32_t history,
                                  enum sb_rank rank)
{
    struct dp_value *v = t ? t->newest : NULL;
    for (; v && history; v = v->older, history--) {
        if (v->relayed && rank != SB_RANK_HERE)
            continue;
        struct dp_value **fresh = sb_grown(s->recalled, s->recalled_count, &s->recalled_capacity, sizeof *fresh);
        if (!fresh)
            return false;
        s->recalled = fresh;
        s->recalled[s->recalled_count++] = v;
    }
    return true;
}

/* Of each type that it matches, in the order in which they were published, for an endpoint of this rank. False: no
 * memory. */
static inline bool dp_recall(struct dp_values *s, const char *pattern, size_t length, uint32_t history,
                             enum sb_rank rank)
{
    bool wild = sb_is_wild(pattern, length), all = true;
    s->recalled_count = 0;
    if (!wild)
        all = dp_recall_type(s, dp_kept_of(s, pattern, length), history, rank);
    for (uint64_t i = 0; wild && all && s->types.slots && i <= s->types.mask; i++) {
        const struct dp_kept_type *t = s->types.slots[i].item;
        if (t && (const void *)t != SB_TOMB && sb_overlap(pattern, length, t->type, t->length))
            all = dp_recall_type(s, t, history, rank);
    }
    if (s->recalled_count > 1)
        qsort(s->recalled, s->recalled_count, sizeof *s->recalled, dp_by_number);
    return all;
}

/* The blocks of what was recalled, and written into this ring from `end` on, not yet published. */
static inline void dp_share_recalled(struct dp_forwarder *f, struct dp_port *port, uint64_t end)
{
    const struct dp_values *s = &f->values;
    for (uint32_t i = 0; i < s->recalled_count; i++) {
        const struct dp_value *v = s->recalled[i];
        end += rb_span(end, v->length, port->in[SB_DATA].capacity);
        if (!v->pool)
            continue;
        const struct sb_block block = {.pool_slot = (uint16_t)v->pool->slot, .pool_generation = v->pool->generation,
                                       .index = v->block};
        dp_add_share(f, port, sb_share_of(end - RB_ALIGN8(v->length), SB_DATA), &block);
    }
}

/* Those that are larger than its endpoint's ring takes go to the end of the list, beyond its count: so many. */
static inline uint32_t dp_set_oversize_aside(struct dp_values *s, const struct dp_port *port)
{
    const uint64_t largest = rb_largest_record(port->in[SB_DATA].capacity);
    uint32_t fit = 0, all = s->recalled_count;
    for (uint32_t i = 0; i < all; i++) {
        struct dp_value *v = s->recalled[i];
        if (v->length > largest)
            continue;
        s->recalled[i] = s->recalled[fit]; /* one that does not fit, or itself */
        s->recalled[fit++] = v;
    }
    s->recalled_count = fit;
    return all - fit;
}

/* What was too large for a mailbox is lost at its endpoint, which is told of it as of other losses. The journal ties
 * that to how many are counted so far. */
static inline void dp_count_oversize(struct dp_forwarder *f, struct dp_port *box)
{
    struct dp_port *owner = &f->ports[box->owner];
    rb_word *counted = &box->down->mailbox_lost;
    uint64_t all = rb_load(&box->down->lost_by[SB_LOSS_TOO_LARGE]);
    struct dp_span none = {box, SB_DATA, true, SB_NOWHERE, SB_NOWHERE};
    if (all <= rb_load(counted))
        return;
    rb_store(&owner->down->lost_untold, rb_load(&owner->down->lost_untold) | 1ull << SB_LOSS_TOO_LARGE);
    dp_count_lost(f, box, SB_LOSS_TOO_LARGE, all - rb_load(counted), &none, all, 0);
    rb_store(counted, all);
}

/* So many stand there, which the endpoint has lost: it is counted. */
static inline void dp_tell_oversize(struct dp_forwarder *f, struct dp_port *port, uint32_t count)
{
    const struct dp_values *s = &f->values;
    for (uint32_t i = s->recalled_count; i < s->recalled_count + count; i++) {
        const struct dp_value *v = s->recalled[i];
        char source[SB_NAME] = "";
        struct sb_record h;
        struct dp_cursor c = {v->cell, sizeof(struct sb_value)};
        dp_read_bytes(s, &c, &h, sizeof h);
        dp_read_bytes(s, &c, f->scratch, h.type_length);
        dp_read_bytes(s, &c, source, h.extension_length < SB_NAME ? h.extension_length : 0);
        uint8_t end[sizeof(struct sb_origin)];
        uint64_t offset = sb_payload_offset(&h), n = h.flags & SB_POOLED ? sizeof(struct sb_block) : sizeof end;
        bool elsewhere = false;
        if (h.flags & SB_RELAYED && v->length - offset >= n) {
            struct sb_record cut = h;
            cut.length = (uint32_t)(offset + n);
            dp_read_end(s, v, end, n);
            elsewhere = dp_source_elsewhere(f, &cut, end, n, f->source);
        }
        uint64_t frame = sb_frame_size(&h);
        dp_emit_lost(f, port, SB_LOSS_TOO_LARGE, &h, (const uint8_t *)v->of->type,
                     h.length > frame ? h.length - frame : 0, elsewhere ? f->source : source);
    }
}

static inline uint64_t dp_longest_recalled(const struct dp_values *s)
{
    uint64_t longest = 0;
    for (uint32_t i = 0; i < s->recalled_count; i++)
        longest = s->recalled[i]->length > longest ? s->recalled[i]->length : longest;
    return longest;
}

/* What was recalled comes into a mailbox that nobody knows of: all of it counts as come, as with a run. False: no
 * memory. */
static inline bool dp_fill_mailbox(struct dp_forwarder *f, struct dp_port *port)
{
    const struct dp_values *s = &f->values;
    const uint32_t count = s->recalled_count;
    uint8_t *record = malloc(dp_longest_recalled(s) + 1);
    if (!record)
        return false;
    for (uint32_t i = count > port->mailbox->depth ? count - port->mailbox->depth : 0; i < count; i++) {
        struct sb_record h;
        dp_read_value(s, s->recalled[i], record);
        memcpy(&h, record, sizeof h);
        uint32_t front = SB_HEADER + h.type_length;
        struct sb_block block = {0};
        uint32_t pooled = h.flags & SB_POOLED ? sizeof block : 0;
        if (pooled)
            block = sb_block_in(&h, record);
        dp_post(f, port, i + 1, &h, record + SB_HEADER, record + front, h.length - front - pooled,
                pooled ? &block : NULL);
    }
    free(record);
    port->mailbox->memory->filled_to = rb_load(&f->bus->retained_last);
    port->in[SB_DATA].next = count;
    dp_publish(f, port, SB_DATA, count);
    RB_FAIL("mailbox.filled");
    return true;
}
