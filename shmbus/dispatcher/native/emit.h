/* What the bus itself emits: events on $bus..., dead letters, and errors in place of replies. None of it ever
 * waits; what does not fit is counted.
 *
 * Offers: dp_emit, dp_emit_endpoint, dp_emit_routes; dp_dead_letter, dp_dead_letter_of, dp_sender_name, dp_source_of;
 *         dp_fail_request, dp_end_request. */
#pragma once

#include "shmbus/dispatcher/native/choose.h"
#include "shmbus/dispatcher/native/pack.h"
#include "shmbus/dispatcher/native/publish.h"

#define DP_EVENT_BYTES 65536u

/* To all who subscribed to `type`, a string literal. */
static inline void dp_emit(struct dp_forwarder *f, const char *type, const struct dp_pack *payload)
{
    uint16_t type_length = (uint16_t)strlen(type);
    struct dp_route *route = dp_lookup(&f->routes, (const uint8_t *)type, type_length, 0);
    if (!route) {
        rb_add(&f->bus->events_lost, 1);
        return;
    }
    dp_choose_event(f, route, NULL, &f->choices);
    struct sb_record h = {.length = SB_HEADER + type_length + payload->length, .kind = SB_EVENT, .peer = SB_FROM_BUS,
                          .attempt = 1, .sent_ns = f->now, .type_length = type_length};
    const struct dp_part parts[2] = {{type, type_length}, {payload->bytes, payload->length}};
    for (uint32_t i = 0; i < f->choices.count; i++) {
        struct dp_port *target = &f->ports[f->choices.list[i].slot];
        h.interests = f->choices.list[i].bits;
        h.lost = (uint32_t)rb_load(&target->down->lost);
        if (!dp_offer(f, target, f->choices.list[i].lossy, &h, parts, 2))
            rb_add(&f->bus->events_lost, 1);
    }
}

/* $bus.endpoint.up, .down, .stalled, .resumed */
static inline void dp_emit_endpoint(struct dp_forwarder *f, const char *type, const struct dp_port *port,
                                    const char *reason)
{
    struct dp_pack pack = {.bytes = f->scratch, .capacity = DP_EVENT_BYTES};
    dp_pack_map(&pack, reason ? 4 : 3);
    dp_pack_string(&pack, "name", port->name);
    dp_pack_number(&pack, "pid", port->pid);
    dp_pack_number(&pack, "generation", port->generation);
    if (reason)
        dp_pack_string(&pack, "reason", reason);
    dp_emit(f, type, &pack);
}

/* $bus.routes: they have changed, and are of this version. To who has subscribed to it by this name alone, since all
 * others would hear of every subscription that anybody makes. */
static inline void dp_emit_routes(struct dp_forwarder *f)
{
    static const char type[] = "$bus.routes";
    const uint16_t type_length = sizeof type - 1;
    const struct dp_node *node = (const struct dp_node *)sb_trie_find(&f->routes.trie, type, type_length, false);
    uint8_t bytes[32];
    struct dp_pack pack = {.bytes = bytes, .capacity = sizeof bytes};
    dp_pack_map(&pack, 1);
    dp_pack_number(&pack, "version", rb_load(&f->bus->routes_version));
    struct sb_record h = {.length = SB_HEADER + type_length + pack.length, .kind = SB_EVENT, .interests = SB_PLAIN,
                          .peer = SB_FROM_BUS, .attempt = 1, .sent_ns = f->now, .type_length = type_length};
    const struct dp_part parts[2] = {{type, type_length}, {pack.bytes, pack.length}};
    struct dp_set told = {{0}};
    for (const struct dp_interest *w = node ? node->interests : NULL; w; w = w->next) {
        if (w->role != SB_ROLE_SUBSCRIBE || w->bit || w->via == DP_NO_WAY || dp_set_has(&told, w->via))
            continue;
        dp_set_add(&told, w->via);
        struct dp_port *target = &f->ports[w->via];
        h.lost = (uint32_t)rb_load(&target->down->lost);
        if (!dp_offer(f, target, w->flags & SB_DROP_NEWEST, &h, parts, 2))
            rb_add(&f->bus->events_lost, 1);
    }
}

/* How large a payload every subscriber's ring takes beside the rest of a dead letter. */
static inline uint64_t dp_letter_space(struct dp_forwarder *f)
{
    const uint64_t frame = 768; /* the rest of the map, generously */
    uint64_t fits = DP_EVENT_BYTES;
    struct dp_route *route = dp_lookup(&f->routes, (const uint8_t *)"$bus.undeliverable", 18, 0);
    for (uint32_t g = 0; route && g <= route->group_count; g++) {
        const struct dp_receivers *subscribers = g < route->group_count ? &route->groups[g].members : &route->plain;
        for (uint32_t i = 0; i < subscribers->count; i++) {
            uint64_t limit = rb_largest_record(f->ports[subscribers->list[i].slot].in[SB_DATA].capacity);
            fits = limit < fits ? limit : fits;
        }
    }
    return fits > frame ? fits - frame : 0;
}

static inline const char *dp_sender_name(struct dp_forwarder *f, const struct sb_record *h)
{
    if (h->peer >= f->slots || rb_load(&f->rows[h->peer].generation) != h->peer_generation)
        return "";
    return f->rows[h->peer].name; /* which stands there until the slot is given away again */
}

/* The first bytes of a payload, out of its pool. */
static inline void dp_pack_block(struct dp_forwarder *f, struct dp_pack *pack, const struct sb_block *block,
                                 uint64_t most)
{
    uint8_t *bytes = malloc(most + 1);
    dp_pack_bytes(pack, "payload", bytes, bytes ? dp_read_block(f, block, 0, bytes, most) : 0);
    free(bytes);
}

static inline const char *dp_format_word(uint16_t flags)
{
    return flags & SB_NONE ? "none" : flags & SB_RAW ? "raw" : flags & SB_FRAMED ? "framed" : "msgpack";
}

/* Can that be the name of who sent a message? */
static inline bool dp_is_source(const char name[SB_SOURCE])
{
    if (!memchr(name, 0, SB_SOURCE))
        return false;
    for (const char *c = name; *c; c++)
        if (*c <= ' ' || *c > '~')
            return false;
    return *name;
}

/* The source of a message of another bus, as its receivers have it: NAME@SITE. False: its origin is not there. */
static inline bool dp_source_elsewhere(struct dp_forwarder *f, const struct sb_record *h, const uint8_t *payload,
                                       uint64_t there, char name[SB_SOURCE])
{
    struct sb_origin origin;
    if (h->flags & SB_POOLED) {
        struct sb_block block;
        memcpy(&block, payload, sizeof block);
        if (block.length < sizeof origin || dp_read_block(f, &block, block.length - sizeof origin, (uint8_t *)&origin,
                                                          sizeof origin) != sizeof origin)
            return false;
    } else if (there == h->length - sb_payload_offset(h) && there >= sizeof origin) {
        memcpy(&origin, payload + there - sizeof origin, sizeof origin);
    } else {
        return false;
    }
    snprintf(name, SB_SOURCE, "%.*s@%.*s", (int)sizeof origin.source, origin.source, (int)sizeof origin.site,
             origin.site);
    return dp_is_source(name);
}

/* Who sent this record, as its receivers have it, until the next one is asked for. `sender`: who did on this bus. */
static inline const char *dp_source_of(struct dp_forwarder *f, const struct sb_record *h, const uint8_t *record,
                                       const char *sender)
{
    if (!(h->flags & SB_RELAYED))
        return sender;
    uint64_t offset = sb_payload_offset(h), there = h->length - offset;
    return dp_source_elsewhere(f, h, record + offset, there, f->source) ? f->source : sender;
}

/* A message that nobody will handle, on $bus.undeliverable: type, source, reason and as much of the payload as is
 * `there` and every subscriber's ring takes; with SB_POOLED it is a struct sb_block. Never about one of
 * the bus's own. */
static inline void dp_dead_letter_of(struct dp_forwarder *f, const struct sb_record *h, const uint8_t *type,
                                     const uint8_t *payload, uint64_t there, const char *source,
                                     struct dp_port *sender, const char *reason)
{
    if (h->type_length && type[0] == '$')
        return;
    rb_add(&f->bus->dead_letters, 1);
    if (sender)
        rb_add(&sender->down->undeliverable, 1);
    uint64_t space = dp_letter_space(f);
    uint64_t whole = h->length - sb_payload_offset(h);
    if (h->flags & SB_POOLED) {
        struct sb_block block;
        memcpy(&block, payload, sizeof block);
        whole = block.length;
    }
    uint64_t size = whole - sb_origin_size(h->flags, whole);
    char elsewhere[SB_SOURCE];
    if (size != whole && dp_source_elsewhere(f, h, payload, there, elsewhere))
        source = elsewhere;
    if (space > size)
        space = size;
    struct dp_pack pack = {.bytes = f->scratch, .capacity = DP_EVENT_BYTES};
    dp_pack_map(&pack, 8);
    dp_pack_text(&pack, "type", (const char *)type, h->type_length);
    dp_pack_string(&pack, "kind", sb_kind_word((enum sb_kind)h->kind));
    dp_pack_string(&pack, "source", source);
    dp_pack_string(&pack, "reason", reason);
    dp_pack_number(&pack, "attempt", h->attempt);
    dp_pack_string(&pack, "format", dp_format_word(h->flags));
    if (h->flags & SB_POOLED) {
        struct sb_block block;
        memcpy(&block, payload, sizeof block);
        dp_pack_number(&pack, "size", size);
        dp_pack_block(f, &pack, &block, space);
    } else {
        dp_pack_number(&pack, "size", size);
        dp_pack_bytes(&pack, "payload", payload, (uint32_t)(there < space ? there : space));
    }
    dp_emit(f, "$bus.undeliverable", &pack);
}

/* The same of a record that is whole, in memory of ours. */
static inline void dp_dead_letter(struct dp_forwarder *f, const struct sb_record *h, const uint8_t *type,
                                  const uint8_t *record, const char *source, struct dp_port *sender,
                                  const char *reason)
{
    uint64_t offset = sb_payload_offset(h);
    dp_dead_letter_of(f, h, type, record + offset, h->length - offset, source, sender, reason);
}

/* What was written into the requester's reply ring ends the request in its pending entry `index`. With a span, the
 * journal ties it to the records there. */
static inline void dp_end_request(struct dp_forwarder *f, struct dp_port *requester, uint16_t index,
                                  const struct dp_span *span)
{
    if (span)
        dp_journal(f, SB_JOURNAL_ERROR, span, requester, SB_REPLIES, requester->in[SB_REPLIES].published, 0, index);
    RB_FAIL("error.begin");
    dp_publish(f, requester, SB_REPLIES, 1);
    RB_FAIL("error.published");
    if (index < requester->pending_count)
        rb_store(&requester->given[index].done, SB_DONE_BY_ERROR);
}

/* An error in place of the reply to the requester's pending entry `index`, from the reserve of its reply ring. With
 * a span, the journal ties it to the records there. */
static inline void dp_fail_request(struct dp_forwarder *f, struct dp_port *requester, const uint8_t id[16],
                                   enum sb_fault_code code, const struct dp_port *at_fault, uint64_t limit,
                                   const struct dp_span *span)
{
    uint16_t index = sb_index_of(id);
    struct sb_fault fault = {.code = code, .limit = limit, .pid = at_fault ? at_fault->pid : 0};
    struct sb_record h = {.length = SB_FAULT_RECORD, .kind = SB_ERROR, .flags = SB_RAW, .peer = SB_FROM_BUS,
                          .attempt = 1, .sent_ns = f->now};
    if (at_fault) {
        memcpy(fault.name, at_fault->name, sizeof fault.name);
        h.peer = (uint16_t)at_fault->slot;
        h.peer_generation = at_fault->generation;
    }
    memcpy(h.correlation, id, 16);
    if (dp_write(requester, SB_REPLIES, &h, &(struct dp_part){&fault, sizeof fault}, 1) != RB_OK) {
        rb_add(&f->bus->events_lost, 1); /* only a requester that re-uses entries without draining gets here */
        return;
    }
    dp_end_request(f, requester, index, span);
}
