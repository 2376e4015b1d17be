/* Withdrawn requests: who was given a request learns that nobody waits for its reply any more.
 *
 * Its requester says so in a record behind it (endpoint/native/cancel.h), and whom it was given to stands in
 * `given`, so an endpoint can name requests of its own only. The server is told among its replies, never out of the
 * space that is kept for errors; without space it is told later, at a look. From there on the request has ended: it is
 * told of once, and a late reply is an orphan.
 * Nothing of it is in the journal: a successor that finds the record again, and not that mark, tells it again. What
 * waits in a backlog is dropped there, because its entry in UP is free by then.
 *
 * Offers: dp_names_request, dp_cancel; dp_withdraw_all, dp_tell_cancel; dp_tell_untold; dp_tell_server. */
#pragma once

#include "shmbus/dispatcher/native/emit.h"

/* It has nothing but a header, and names one of its source's entries. */
static inline bool dp_names_request(const struct dp_port *source, const struct sb_record *h)
{
    return h->length == SB_HEADER && sb_index_of(h->correlation) < source->pending_count;
}

/* A header alone to `server`, about the request of this id; leaves it so much space, and never waits. False: it has
 * none, or is corrupt. */
static inline bool dp_tell_server(struct dp_forwarder *f, struct dp_port *server, const struct dp_port *requester,
                                  enum sb_kind kind, const uint8_t id[16], uint64_t granted, uint64_t reserve)
{
    struct sb_record h = {.length = SB_HEADER, .kind = (uint16_t)kind, .flags = SB_NONE,
                          .peer = (uint16_t)requester->slot, .attempt = 1, .peer_generation = requester->generation,
                          .sent_ns = f->now, .deadline_ns = granted};
    struct rb_producer *out = &server->in[SB_REPLIES];
    uint8_t *at;
    memcpy(h.correlation, id, 16);
    enum rb_status status = rb_claim(out, SB_HEADER, reserve, &at);
    if (status == RB_CORRUPT)
        dp_quarantine(f, server);
    if (status != RB_OK)
        return false;
    memcpy(at, &h, sizeof h);
    rb_commit(out, SB_HEADER);
    RB_FAIL("cancel.written");
    dp_publish(f, server, SB_REPLIES, 1);
    RB_FAIL("cancel.published");
    return true;
}

static inline bool dp_tell_cancel(struct dp_forwarder *f, struct dp_port *server, const struct dp_port *requester,
                                  const uint8_t id[16])
{
    bool told = dp_tell_server(f, server, requester, SB_CANCEL, id, 0, server->reserve);
    rb_add(told ? &f->bus->cancels : &f->bus->cancels_lost, 1);
    if (!told)
        dp_set_add(&f->untold, requester->slot);
    return told;
}

/* The endpoint that has this request, and can be told of it; NULL: there is none. */
static inline struct dp_port *dp_server_of(struct dp_forwarder *f, const struct sb_target *given)
{
    struct dp_port *server = dp_port_of(f, rb_load(&given->whom));
    return server && !dp_is_backlog(server) && !server->corrupt && server->state != SB_ROW_DYING ? server : NULL;
}

/* The requester does not wait any more for what its entry `index` was given away for, if that was `id` (NULL:
 * whatever it was) and has not ended. */
static inline void dp_withdraw(struct dp_forwarder *f, struct dp_port *requester, uint32_t index, const uint8_t *id)
{
    struct sb_target *given = &requester->given[index];
    struct dp_port *server = dp_server_of(f, given);
    if (!server || rb_load(&given->done) || (id && memcmp(given->id, id, 16) != 0))
        return;
    if (dp_tell_cancel(f, server, requester, given->id))
        rb_store(&given->done, SB_DONE_BY_CANCEL);
}

/* The record says so. */
static inline void dp_cancel(struct dp_forwarder *f, struct dp_port *source, const struct sb_record *h)
{
    dp_withdraw(f, source, sb_index_of(h->correlation), h->correlation);
}

/* It has ended, and waits for nothing. */
static inline void dp_withdraw_all(struct dp_forwarder *f, struct dp_port *requester)
{
    for (uint32_t i = 0; i < requester->pending_count; i++)
        if (rb_load(&requester->given[i].whom) != dp_whom_of(requester))
            dp_withdraw(f, requester, i, NULL);
}

static inline void dp_tell_untold_of(struct dp_forwarder *f, struct dp_port *requester)
{
    for (uint32_t i = 0; requester->state != SB_ROW_FREE && i < requester->pending_count; i++) {
        struct sb_target *given = &requester->given[i];
        const struct sb_pending *pending = &requester->pending[i];
        uint64_t done = rb_load(&given->done);
        if (!rb_load(&given->whom) || (done && done != SB_DONE_BY_ERROR))
            continue;
        if (rb_load_acquire(&pending->state) == SB_PENDING_WAITING && memcmp(pending->id, given->id, 16) == 0) {
            if (done == SB_DONE_BY_ERROR) /* which it has not read yet */
                dp_set_add(&f->untold, requester->slot);
        } else if (dp_server_of(f, given) && dp_tell_cancel(f, dp_server_of(f, given), requester, given->id)) {
            rb_store(&given->done, SB_DONE_BY_CANCEL);
        }
    }
}

/* Some server had no space to be told, or a dispatcher was killed before it was: it is told now. Of a stream nothing
 * else may ever end what it has begun. */
static inline void dp_tell_untold(struct dp_forwarder *f)
{
    struct dp_set untold = f->untold;
    f->untold = (struct dp_set){{0}};
    for (uint32_t slot = 0; slot < f->high_slot; slot++)
        if (dp_set_has(&untold, slot))
            dp_tell_untold_of(f, &f->ports[slot]);
}
