/* Work that its receiver gives back: a record of kind SB_NACK in the outgoing ring of who had it
 * (endpoint/native/nack.h).
 *
 * It is a run of its own, and goes to one of its takers as any other work does, if there is another, to that; where
 * nobody is free it waits in their backlog. What it was, who had sent it and how often it was begun stands in the
 * record, since only who gives it back knows: `peer` of a message that was given back may be wrong where that endpoint
 * is.
 *
 * Offers: dp_choose_one; dp_is_nack, dp_restore, dp_choose_again, dp_dead_letter_nacked. */
#pragma once

#include "shmbus/dispatcher/native/emit.h"
#include "shmbus/dispatcher/native/interests.h"

static inline void dp_choose_one(struct dp_choices *chosen, uint32_t slot, uint32_t bits)
{
    chosen->list[0] = (struct dp_choice){.slot = (uint16_t)slot, .bits = bits};
    chosen->count = 1;
    chosen->not_now = false;
}

/* Does it name one interest of work, and a sender? `size`: bytes of the payload proper, of which a dead letter's may
 * not all be there. */
static inline bool dp_is_nack(const struct dp_forwarder *f, const struct sb_record *h, uint64_t size)
{
    uint32_t bit = h->interests;
    if (h->flags & SB_RELAYED && size < sizeof(struct sb_origin) && !(h->flags & SB_FINAL))
        return false;
    return bit && !(bit & (bit - 1)) && h->peer < f->slots && h->extension_length <= SB_MAX_REASON;
}

/* The group that it had this for; NULL: that stands in no interests that we have read. It may have left it before an
 * earlier dispatcher died, or they can never be read. */
static inline struct dp_group *dp_group_of_nack(const struct dp_port *source, const struct sb_record *h)
{
    return source->group_of_bit[__builtin_ctz(h->interests)];
}

/* The header as it goes to the next. */
static inline void dp_restore(struct sb_record *h)
{
    h->kind = h->interests == SB_PLAIN ? SB_SEND : SB_EVENT;
    h->flags = (uint16_t)((h->flags & SB_PAYLOAD_FLAGS) | SB_REDELIVERED);
    h->deadline_ns = 0;
    memset(h->correlation, 0, sizeof h->correlation);
}

/* Who is to have it next, the one who gives it back only where nobody else takes it, or owns its key, or out of the
 * backlog. False: there is nobody. */
static inline bool dp_choose_again(struct dp_forwarder *f, const struct dp_port *source, struct dp_route *route,
                                   const struct sb_record *h, struct dp_choices *chosen)
{
    bool command = h->interests == SB_PLAIN;
    struct dp_group *group = command ? NULL : dp_group_of_nack(source, h);
    const struct dp_receivers *takers = command || group ? dp_takers(route, group) : NULL;
    const uint32_t aside = takers && takers->count > 1 ? 1u << 20 : 0; /* more than anybody may have */
    if (!takers)
        return false;
    f->run.extra[source->slot] += aside;
    const struct dp_receiver *next = command ? dp_choose_handler(f, route, NULL)
                                             : dp_choose_member(f, route, group, NULL);
    f->run.extra[source->slot] -= aside;
    chosen->not_now = next == &dp_not_now;
    if (!next || chosen->not_now)
        return next;
    dp_choose_one(chosen, next->slot, command ? SB_PLAIN : 1u << next->bit);
    return true;
}

/* Whole characters of UTF-8, and none that ends a string. */
static inline bool dp_is_text(const uint8_t *bytes, uint32_t n)
{
    for (uint32_t i = 0; i < n;) {
        uint8_t c = bytes[i];
        uint32_t more = c < 0x80 ? 0 : c < 0xc2 ? 4 : c < 0xe0 ? 1 : c < 0xf0 ? 2 : c < 0xf5 ? 3 : 4;
        if (!c || more == 4 || more >= n - i)
            return false;
        for (uint32_t k = 1; k <= more; k++)
            if ((bytes[i + k] & 0xc0) != 0x80)
                return false;
        if (more >= 2) { /* neither too long, nor a surrogate, nor beyond the last */
            uint8_t second = bytes[i + 1];
            if ((c == 0xe0 && second < 0xa0) || (c == 0xed && second > 0x9f) || (c == 0xf0 && second < 0x90) ||
                (c == 0xf4 && second > 0x8f))
                return false;
        }
        i += more + 1;
    }
    return true;
}

/* The only record of the run, which was given back, goes to nobody: for the reason that it bears if it was to be a dead
 * letter or was begun too often, otherwise for this one. */
static inline void dp_dead_letter_nacked(struct dp_forwarder *f, const char *otherwise)
{
    struct sb_record h = f->run.header[0];
    const uint8_t *record = f->run.record[0], *text = record + SB_HEADER + h.type_length;
    uint64_t offset = sb_payload_offset(&h), there = h.length - offset, size = there;
    char reason[SB_MAX_REASON + 1] = "";
    bool final = h.flags & SB_FINAL;
    if (h.kind == SB_NACK && (final || h.attempt > f->max_deliveries)) {
        otherwise = final ? "its callback raised" : "its receivers gave it back";
        memcpy(reason, text, h.extension_length); /* checked below, on the copy */
        reason[h.extension_length] = 0;
        if (!dp_is_text((const uint8_t *)reason, h.extension_length))
            reason[0] = 0;
        if (final && h.deadline_ns > there) /* only part of it was given back */
            size = h.deadline_ns < UINT32_MAX - offset ? h.deadline_ns : UINT32_MAX - offset;
    }
    dp_restore(&h);
    h.length = (uint32_t)(offset + size);
    const void *payload = h.flags & SB_POOLED ? (const void *)&f->run.block[0] : record + offset;
    dp_dead_letter_of(f, &h, f->run.type[0], payload, there, dp_sender_name(f, &h),
                      dp_port_of(f, sb_whom(h.peer, h.peer_generation)), reason[0] ? reason : otherwise);
}
