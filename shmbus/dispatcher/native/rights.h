/* What an endpoint may do by its grant, which stands in its DOWN (struct sb_rights): looked up once for a type that is
 * new to its port, and kept there for as long as its route is, by the route's number, which no other had or will have.
 * What it tried and may not is counted, and told of as losses are: `$bus.endpoint.forbidden` says so with the first,
 * then once a second at most, and once more after the last.
 *
 * Offers: dp_open_rights, dp_close_rights; dp_lacks, dp_may; dp_note_forbidden, dp_tell_forbidden. */
#pragma once

#include "shmbus/dispatcher/native/emit.h"

#define DP_TELL_FORBIDDEN_NS 1000000000u

/* Its port has places for as many verdicts as there may be routes, so that none is decided twice however many types it
 * sends. Without memory each is, every time. */
static inline void dp_open_rights(struct dp_port *port, struct sb_rights *rights)
{
    port->rights = rights;
    port->verdicts = calloc(DP_CACHE_PLACES, sizeof *port->verdicts);
}

static inline void dp_close_rights(struct dp_port *port)
{
    free(port->verdicts);
    port->verdicts = NULL;
}

/* Which rights cover this type or pattern: a bit each. */
static inline uint32_t dp_rights_for(const struct sb_rights *rights, const char *text, size_t length)
{
    const uint8_t *at = (const uint8_t *)(rights + 1), *end = at + rights->bytes;
    uint32_t found = 0;
    for (; at < end; at += 2u + at[1])
        if (!(found >> at[0] & 1) && sb_covers((const char *)at + 2, at[1], text, length))
            found |= 1u << at[0];
    return found;
}

/* May it do so with every type that this pattern matches? */
static inline bool dp_may(const struct dp_port *port, enum sb_right right, const char *pattern, size_t length)
{
    return !port->rights || dp_rights_for(port->rights, pattern, length) >> right & 1;
}

/* The same of a type that it sends, for each message. */
static inline bool dp_lacks(struct dp_port *port, const struct dp_route *route, enum sb_right right)
{
    if (__builtin_expect(!port->rights, 1))
        return false;
    uint64_t none = 0, *verdict = port->verdicts ? &port->verdicts[route->place] : &none;
    if (*verdict >> SB_RIGHT_COUNT != route->number)
        *verdict = route->number << SB_RIGHT_COUNT |
                   dp_rights_for(port->rights, (const char *)route->type, route->type_length);
    return !(*verdict >> right & 1);
}

/* $bus.endpoint.forbidden: how often it has tried by now, and what last. */
static inline void dp_emit_forbidden(struct dp_forwarder *f, struct dp_port *port)
{
    struct sb_rights *rights = port->rights;
    uint64_t count = rb_load(&rights->refused);
    struct dp_pack pack = {.bytes = f->scratch, .capacity = DP_EVENT_BYTES};
    port->forbidden_told_ns = f->now;
    dp_pack_map(&pack, 6);
    dp_pack_string(&pack, "name", port->name);
    dp_pack_number(&pack, "pid", port->pid);
    dp_pack_number(&pack, "generation", port->generation);
    dp_pack_string(&pack, "right", sb_right_word((enum sb_right)rb_load(&rights->right)));
    dp_pack_string(&pack, "type", rights->type);
    dp_pack_number(&pack, "count", count);
    dp_emit(f, "$bus.endpoint.forbidden", &pack);
    RB_FAIL("forbidden.told");
    rb_store(&rights->told, count);
}

/* What it has tried since that was told of last; `ends`: now or never. */
static inline void dp_tell_forbidden(struct dp_forwarder *f, struct dp_port *port, bool ends)
{
    if (!port->rights || rb_load(&port->rights->refused) == rb_load(&port->rights->told))
        return;
    if (ends || !port->forbidden_told_ns || f->now - port->forbidden_told_ns >= DP_TELL_FORBIDDEN_NS)
        dp_emit_forbidden(f, port);
}

/* It tried this with a type, or a pattern, and may not. */
static inline void dp_note_forbidden(struct dp_forwarder *f, struct dp_port *port, enum sb_right right,
                                     const void *type, size_t length)
{
    struct sb_rights *rights = port->rights;
    rb_add(&f->bus->forbidden, 1);
    rb_store(&rights->seq, (rb_load(&rights->seq) + 1) | 1); /* odd also where a kill had left it odd */
    rb_fence_release(); /* with steady() in shmbus/views/memory.py: who saw a new word sees that it is odd */
    rb_add(&rights->refused, 1);
    rb_store(&rights->right, right);
    memcpy(rights->type, type, length);
    rights->type[length] = 0;
    rb_store_release(&rights->seq, rb_load(&rights->seq) + 1);
    dp_tell_forbidden(f, port, false);
}
