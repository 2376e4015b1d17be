/* Revoking: who takes nothing does not keep a sender from its pool.
 *
 * A sender that waits for memory of its pool does so for `block_timeout` since a receiver that has untaken events of that
 * pool last took something. Then the receiver is slow, as where its ring stays full. What it has not taken of that pool is
 * lost there, and the shares are over: the record stands where it did, and is for none of its interests any more, which the
 * receiver looks at after it has entered its share. What comes until it moves is lost at once, see space.h.
 *
 * What waits in a backlog for one that catches up (history.h) likewise, since that endpoint last took something. Nobody reads
 * there but us, so its shares are over at once.
 *
 * Who would rather lose (lossy.h) is not waited for: what that has not taken of the sender's own pool goes first and at
 * once, unless others hold so much that it would not help.
 *
 * Plain events alone, and what observers get: what groups and handlers get is work, which nobody takes away from them, and
 * mailboxes have a rule of their own.
 *
 * What is over is revoked at once, by whomever it was not taken, and is no loss: a request that was withdrawn, or whose
 * deadline has passed, since nobody would begin it; and a reply, or a part of one, to a request that has ended. Who asked
 * and does not look may find a reply later than its deadline, so that goes only where it has taken nothing for
 * `block_timeout` since.
 *
 * Offers: dp_revocable, dp_pool_waits_until, dp_revoke_from, dp_free_pool, dp_free_lossy. Modelled in tests/models/pools.py. */
#pragma once

#include "shmbus/dispatcher/native/backlog.h"
#include "shmbus/dispatcher/native/losses.h"
#include "shmbus/dispatcher/native/space.h"
#include "shmbus/dispatcher/native/yield.h"

/* From there on it has not taken what stands in this ring of its; of a backlog, from there on it is there. */
static inline uint64_t dp_untaken_from(const struct dp_port *port, uint64_t ring)
{
    if (dp_is_backlog(port))
        return rb_load(&port->down->incoming[ring].reclaim);
    uint64_t taken = port->shares.taken_seen[ring], tail = port->in[ring].tail_seen; /* else it is written over by now */
    return taken < tail ? tail : taken;
}

/* The untaken record of a share of this pool's (NULL: of any) in a ring, and a copy of its header. NULL: it is in none,
 * or taken, or revoked. */
static inline uint8_t *dp_untaken_record(const struct dp_port *port, const struct dp_share *s,
                                         const struct dp_pool *pool, struct sb_record *h)
{
    uint64_t ring = (s->share & 7) - 1, position = s->share & ~7ull;
    if ((pool && s->pool != pool) || s->until != SB_NOWHERE || ring >= SB_RINGS_IN ||
        position < dp_untaken_from(port, ring))
        return NULL;
    uint8_t *record = port->in[ring].data + (position & (port->in[ring].capacity - 1));
    memcpy(h, record, sizeof *h);
    return h->interests ? record : NULL;
}

/* The same, if it may be revoked. */
static inline uint8_t *dp_revocable(const struct dp_port *port, const struct dp_share *s, const struct dp_pool *pool,
                                    struct sb_record *h)
{
    uint8_t *record = dp_untaken_record(port, s, pool, h);
    return record && (h->kind == SB_EVENT || h->kind == SB_TAP) && h->interests == SB_PLAIN ? record : NULL;
}

/* Since when is it over, or from when on will it be? 0: for some time; SB_NOWHERE: that is not known, or it is neither
 * request nor reply. */
static inline uint64_t dp_over_from(struct dp_forwarder *f, const struct dp_port *port, const struct sb_record *h)
{
    bool request = h->kind == SB_REQUEST, part = h->kind == SB_PART;
    if (!request && !part && h->kind != SB_REPLY && h->kind != SB_ERROR)
        return SB_NOWHERE;
    const struct dp_port *requester = request ? dp_port_of(f, sb_whom(h->peer, h->peer_generation)) : port;
    uint16_t index = sb_index_of(h->correlation);
    if (!requester || index >= requester->pending_count)
        return 0;
    const struct sb_pending *pending = &requester->pending[index];
    if (rb_load_acquire(&pending->state) != SB_PENDING_WAITING || memcmp(pending->id, h->correlation, 16) != 0)
        return 0;
    uint64_t deadline = request ? h->deadline_ns : part ? 0 : pending->deadline_ns;
    if (!deadline || deadline == SB_NOWHERE)
        return SB_NOWHERE;
    uint64_t taken = request ? 0 : port->shares.taken_ns;
    return request ? deadline : (deadline > taken ? deadline : taken) + f->block_timeout_ns;
}

/* Share `i`, of this record. */
static inline void dp_void(struct dp_forwarder *f, struct dp_port *port, uint32_t i, uint8_t *record)
{
    atomic_store_explicit(sb_interests_in(record), 0, memory_order_release);
    RB_FAIL("revoke.revoked");
    if (dp_is_backlog(port))
        dp_drop_share(f, port, i);
    else
        port->shares.list[i].revoked = true;
}

/* The same, and count it as lost. */
static inline void dp_revoke(struct dp_forwarder *f, struct dp_port *port, uint32_t i, uint8_t *record,
                             const struct sb_record *h)
{
    struct dp_port *to = dp_receiving(f, port);
    const struct dp_span no_records = {.source = to, .from = SB_NOWHERE, .to = SB_NOWHERE}; /* as in dp_end_mailboxes */
    enum sb_loss why = dp_is_lossy(f, port, &port->shares.list[i]) ? SB_LOSS_DROPPED : SB_LOSS_SLOW;
    bool lost = !dp_is_backlog(port) || !dp_had_as_kept(dp_backlog_of(f, port), h), told = lost && why == SB_LOSS_SLOW;
    const char *source = told ? dp_source_of(f, h, record, dp_sender_name(f, h)) : "";
    if (lost)
        dp_count_lost(f, to, why, 1, &no_records, rb_load(&to->down->mailbox_lost), 0);
    RB_FAIL("revoke.counted");
    dp_void(f, port, i, record);
    if (told)
        dp_emit_lost(f, to, why, h, sb_type_of(record), sb_payload_size(h, record), source);
}

/* Those that were revoked and that it has not entered are over. */
static inline void dp_end_revoked(struct dp_forwarder *f, struct dp_port *port)
{
    if (dp_is_backlog(port))
        return;
    port->shares.look = true;
    dp_sweep_shares(f, port);
    dp_drop_ended(f, port);
}

/* Count all that has not been taken of this pool (NULL: of blocks that are to go, see reclaim.h) as lost (`lossy`: that came to
 * one that would rather lose it); what its receiver takes meanwhile it may have all the same, which is counted once too often
 * then. */
static inline void dp_revoke_from(struct dp_forwarder *f, struct dp_port *port, const struct dp_pool *pool, bool lossy)
{
    struct sb_record h;
    bool revoked = false;
    for (uint32_t i = port->shares.count; i--;) {
        struct dp_share *s = &port->shares.list[i];
        uint8_t *record = pool || s->pool->blocks[s->index].going == DP_GOES ? dp_revocable(port, s, pool, &h) : NULL;
        if (!record || (lossy && !dp_is_lossy(f, port, s)))
            continue;
        revoked = true;
        if (!pool)
            dp_set_slow(dp_receiving(f, port), true);
        dp_revoke(f, port, i, record, &h);
    }
    if (revoked)
        dp_end_revoked(f, port);
}

/* Revoke what is over of what keeps the source waiting: of its pool, or where all together have too much, of any. */
static inline void dp_free_over(struct dp_forwarder *f, const struct dp_port *source, struct dp_port *port)
{
    const struct dp_pool *pool = source->pool_turn ? NULL : source->pool;
    struct sb_record h;
    bool any = false;
    for (uint32_t i = port->shares.count; i--;) {
        uint8_t *record = dp_untaken_record(port, &port->shares.list[i], pool, &h);
        uint64_t from = record ? dp_over_from(f, port, &h) : SB_NOWHERE;
        if (from < f->now) {
            dp_void(f, port, i, record);
            any = true;
        } else if (from < f->next_deadline) {
            f->next_deadline = from + 1;
        }
    }
    if (any)
        dp_end_revoked(f, port);
}

/* Until when does the sender wait, at the most, for what stands there of this pool (NULL: of any) for this
 * receiver? SB_NOWHERE: for nothing. */
static inline uint64_t dp_pool_waits_until(const struct dp_forwarder *f, const struct dp_port *source,
                                           const struct dp_port *port, const struct dp_port *to,
                                           const struct dp_pool *pool)
{
    uint64_t since = source->pool_waits_since_ns, least = SB_NOWHERE;
    struct sb_record h;
    since = to->shares.taken_ns > since ? to->shares.taken_ns : since;
    for (uint32_t i = 0; i < port->shares.count; i++) {
        const struct dp_share *s = &port->shares.list[i];
        uint64_t until = (s->given_ns > since ? s->given_ns : since) + f->block_timeout_ns;
        if (until < least && dp_revocable(port, s, pool, &h))
            least = until;
    }
    return least;
}

/* What this one has, in its rings or in a backlog. */
static inline void dp_free_pool_of(struct dp_forwarder *f, struct dp_port *source, struct dp_port *port)
{
    struct dp_port *to = port->shares.count ? dp_receiving(f, port) : NULL;
    if (!to || (to->state != SB_ROW_LIVE && to->state != SB_ROW_LEAVING))
        return;
    dp_sweep_shares(f, to);
    dp_free_over(f, source, port);
    uint64_t until = dp_pool_waits_until(f, source, port, to, source->pool);
    if (until == SB_NOWHERE)
        return;
    if (to->slow || until <= f->now) {
        dp_set_slow(to, true);
        dp_revoke_from(f, port, source->pool, false);
    } else if (until < f->next_deadline) {
        f->next_deadline = until;
    }
}

/* Those for whom there is something untaken, for which it waits. */
static inline void dp_free_pool(struct dp_forwarder *f, struct dp_port *source)
{
    uint64_t left = f->catching_up;
    for (uint32_t slot = 0; slot < f->high_slot; slot++)
        dp_free_pool_of(f, source, &f->ports[slot]);
    for (struct dp_port *port; (port = dp_next_backlog(f, &left));)
        dp_free_pool_of(f, source, port);
    left = dp_work_backlogs(f);
    for (struct dp_port *port; (port = dp_next_backlog(f, &left));)
        dp_free_over(f, source, port);
}

/* How often the blocks of this pool are there, untaken, for receivers that would rather lose them. False: never. */
static inline bool dp_count_lossy(struct dp_forwarder *f, const struct dp_pool *pool, uint32_t lossy[SB_BLOCKS])
{
    struct dp_sharers sharers = {.left = f->catching_up};
    struct sb_record h;
    bool any = false;
    for (struct dp_port *port; (port = dp_next_sharer(f, &sharers));) {
        if (!dp_is_backlog(port))
            dp_sweep_shares(f, port);
        for (uint32_t i = 0; i < port->shares.count; i++) {
            struct dp_share *s = &port->shares.list[i];
            if (!dp_revocable(port, s, pool, &h) || !dp_is_lossy(f, port, s))
                continue;
            lossy[s->index]++;
            any = true;
        }
    }
    return any;
}

/* Is there place for so many pages in one piece beside what others hold? What is kept yields, and what stands in
 * mailboxes. */
static inline bool dp_fits_without(struct dp_forwarder *f, const struct dp_pool *pool, const uint32_t lossy[SB_BLOCKS],
                                   uint64_t pages)
{
    uint8_t rest[SB_BLOCKS], held[SB_BLOCKS];
    uint16_t order[SB_BLOCKS];
    dp_find_rest(f, pool, rest);
    for (uint32_t i = 0; i < SB_BLOCKS; i++)
        held[i] = !rest[i] && (dp_on_its_way(pool, i) || pool->blocks[i].shares > lossy[i]);
    uint32_t count = dp_sort_blocks(pool, held, order);
    return dp_fits_beside(pool, held, order, count, pages, dp_pool_most(f, pool) / DP_PAGE);
}

/* Its endpoint waits for so many pages of it in one piece. */
static inline void dp_free_lossy(struct dp_forwarder *f, const struct dp_pool *pool, uint64_t pages)
{
    uint32_t lossy[SB_BLOCKS] = {0};
    if (!dp_count_lossy(f, pool, lossy) || !dp_fits_without(f, pool, lossy, pages))
        return;
    struct dp_sharers sharers = {.left = f->catching_up};
    for (struct dp_port *port; (port = dp_next_sharer(f, &sharers));)
        dp_revoke_from(f, port, pool, true);
}
