/* Groups with a key: of all messages whose types have the same key, one member gets each, in order.
 *
 * Who is a member stands in BUS, by *epochs*: each change of members is one more, and one store. Whoever wants a key
 * most (key.h) among the members of an epoch owned it then, so what a successor knows of BUS is enough to come to the
 * same owners. A key goes to its owner of the latest epoch once each other one who has owned it since the epoch that is
 * `settled` has passed its *mark*: the tail of its ring is where the head was when the key left it, and nothing from
 * before it is still in hand. Of one that has gone what is left is handed on first. Until then what comes for the key
 * waits in a backlog: there is one for each owner in the settled epoch, so that one that hangs holds up the keys that
 * leave it, and no others. Keys that stay where they are flow on. Where no backlog can be made, the source waits, as
 * for a full ring, for `block_timeout` since that one last came nearer to its mark; then the group loses the message,
 * which is counted there.
 *
 * Leaving is a new epoch at once. Who joins waits until the latest one is settled, so that a mark stands for one
 * change.
 *
 * A full owner makes senders wait as any subscriber does, since nobody else may have what it cannot take: `prefetch`
 * does not apply, and being stalled takes no key away.
 *
 * How members change, members.h says.
 *
 * Offers: dp_choose_owner, dp_owner_of_waiting, dp_await_former; dp_not_now, dp_wait_for_former; dp_whom_at,
 *         dp_member_in, dp_member_done. */
#pragma once

#include "shmbus/dispatcher/native/backlog.h"
#include "shmbus/dispatcher/native/space.h"

#define DP_NO_MEMBER SB_MEMBERS

static const struct dp_receiver dp_not_now = {.slot = DP_PORTS}; /* nobody yet: it has to wait where it is */

/* Who owns a key --------------------------------------------------------------------------------------------- */

static inline uint64_t dp_whom_at(const struct dp_keyed *k, uint32_t i)
{
    return i == DP_NO_MEMBER ? 0 : rb_load(&k->at->member[i].whom);
}

/* Is the one at `i` a member in this epoch? */
static inline bool dp_member_in(const struct dp_keyed *k, uint32_t i, uint64_t epoch)
{
    const struct sb_member *m = &k->at->member[i];
    uint64_t left = rb_load(&m->left);
    return rb_load(&m->whom) && rb_load(&m->joined) <= epoch && (!left || epoch < left);
}

static inline uint32_t dp_owner_in(const struct dp_keyed *k, uint64_t key, uint64_t epoch)
{
    uint32_t owner = DP_NO_MEMBER;
    uint64_t most = 0;
    for (uint32_t i = 0; i < k->high; i++) {
        uint32_t generation = sb_whom_generation(dp_whom_at(k, i));
        if (!dp_member_in(k, i, epoch))
            continue;
        uint64_t weight = sb_key_weight(key, generation);
        if (owner == DP_NO_MEMBER || weight > most) {
            owner = i;
            most = weight;
        }
    }
    return owner;
}

/* It is done with all that it had before this position. After its end: that has been handed on. */
static inline uint64_t dp_done_to(struct dp_port *port)
{
    uint64_t reclaim = rb_load(&port->down->incoming[SB_DATA].reclaim);
    if (reclaim != SB_NOWHERE)
        return reclaim;
    (void)rb_refresh_tail(&port->in[SB_DATA]);
    uint64_t tail = port->in[SB_DATA].tail_seen;
    uint64_t from = rb_load_acquire(&port->up->let_go_from); /* after the tail, see ep_note_let_go */
    return from && from - 1 < tail ? from - 1 : tail;
}

static inline bool dp_member_done(struct dp_forwarder *f, struct dp_keyed *k, uint32_t i)
{
    struct dp_port *port = dp_port_of(f, dp_whom_at(k, i));
    if (k->done >> i & 1)
        return true;
    if (port && dp_done_to(port) < rb_load(&k->at->member[i].mark))
        return false;
    k->done |= 1ull << i;
    return true;
}

struct dp_ownership { /* of one key */
    uint32_t owner;  /* in the latest epoch */
    uint32_t first;  /* the first who has owned it since the settled one; there is one where it has moved */
    uint32_t former; /* who has owned it since and is not done; DP_NO_MEMBER: nobody */
    bool moved;      /* somebody else has owned it since the settled epoch */
};

/* `from`: who has gone, and what it had is being handed on. That is older than what anybody got who owned the key
 * before it did for the last time, so it waits for later owners alone. NULL: it is a new message. */
static inline struct dp_ownership dp_own(struct dp_forwarder *f, struct dp_keyed *k, uint64_t key,
                                         const struct dp_port *from)
{
    uint64_t settled = rb_load(&k->at->settled), epoch = rb_load(&k->at->epoch);
    struct dp_ownership o = {.owner = dp_owner_in(k, key, epoch), .first = DP_NO_MEMBER, .former = DP_NO_MEMBER};
    for (uint64_t e = settled; e < epoch; e++) {
        uint32_t i = dp_owner_in(k, key, e);
        if (o.first == DP_NO_MEMBER)
            o.first = i;
        if (from && dp_whom_at(k, i) == dp_whom_of(from))
            o.former = DP_NO_MEMBER;
        else if (i != DP_NO_MEMBER && dp_whom_at(k, i) != dp_whom_at(k, o.owner)) {
            o.moved = true;
            if (!dp_member_done(f, k, i))
                o.former = i;
        }
    }
    return o;
}

static inline const struct dp_group_route *dp_route_of_group(const struct dp_route *route, const struct dp_group *group)
{
    for (uint32_t g = 0; route && g < route->group_count; g++)
        if (route->groups[g].group == group)
            return &route->groups[g];
    return NULL;
}

static inline const struct dp_receiver *dp_receiver_at(const struct dp_keyed *k, const struct dp_group_route *group,
                                                       uint32_t i)
{
    for (uint32_t r = 0; i != DP_NO_MEMBER && r < group->members.count; r++)
        if (group->members.list[r].slot == sb_whom_slot(dp_whom_at(k, i)))
            return &group->members.list[r];
    return &dp_not_now; /* who has joined is no member yet */
}

/* Where messages wait of the keys that `former` owned: the youngest such backlog that takes the largest record there
 * may be. `waits`: something waits there, or in an older one; `awaits`: if so, for which member, as in struct
 * dp_backlog. */
static inline struct dp_port *dp_find_former(struct dp_forwarder *f, const struct dp_group *group, uint64_t former,
                                             bool *waits, uint32_t *awaits)
{
    struct dp_port *found = NULL;
    uint64_t left = f->backlogs_open;
    *waits = false;
    *awaits = DP_NO_MEMBER;
    for (struct dp_port *port; (port = dp_next_backlog(f, &left));) {
        const struct dp_backlog *b = dp_backlog_of(f, port);
        if (b->group != group || b->former != former)
            continue;
        if (dp_waits(f, port)) {
            *waits = true;
            *awaits = b->awaits;
        }
        if (port->in[SB_DATA].capacity >= f->largest_ring && (!found || port->generation > found->generation))
            found = port;
    }
    return found;
}

/* Who gets a message of this route for a group with a key: the owner, a backlog, nobody yet (&dp_not_now). NULL: the
 * group has no member. `from` is as in dp_own. */
static inline const struct dp_receiver *dp_choose_owner(struct dp_forwarder *f, const struct dp_route *route,
                                                        const struct dp_group *of, const struct dp_port *from)
{
    const struct dp_group_route *group = dp_route_of_group(route, of);
    if (!group)
        return NULL;
    struct dp_keyed *k = group->group->keyed;
    struct dp_ownership o = dp_own(f, k, group->key, from);
    const struct dp_receiver *owner = dp_receiver_at(k, group, o.owner);
    uint32_t awaits;
    bool waits;
    f->former = NULL;
    if (owner == &dp_not_now || !o.moved)
        return owner;
    if (from)
        return o.former == DP_NO_MEMBER ? owner : &dp_not_now;
    uint64_t first = dp_whom_at(k, o.first);
    struct dp_port *backlog = dp_find_former(f, of, first, &waits, &awaits);
    if (o.former == DP_NO_MEMBER && !waits)
        return owner;
    if (!backlog)
        backlog = dp_make_backlog(f, of, &group->members, route, first);
    f->former = dp_port_of(f, dp_whom_at(k, o.former == DP_NO_MEMBER ? awaits : o.former));
    return backlog ? &dp_backlog_of(f, backlog)->as_target : &dp_not_now;
}

/* The head of the source's line may go to nobody yet, nor into a backlog: it waits for f->former as for space. True: no
 * longer, and neither does what comes after it, until that one is done with more. What else it does is no progress. */
static inline bool dp_wait_for_former(struct dp_forwarder *f, struct dp_port *source)
{
    struct dp_port *former = f->former;
    if (!former)
        return false;
    uint64_t done_to = dp_done_to(former);
    if (done_to != former->done_to) {
        former->done_to = done_to;
        former->done_to_ns = f->now;
        former->given_up = false;
    }
    uint64_t until = dp_waits_until(f, source, DP_LINE_DATA, former->done_to_ns);
    if (until <= f->now)
        former->given_up = true;
    else if (!former->given_up && until < f->next_deadline)
        f->next_deadline = until;
    return former->given_up;
}

/* Who may have the first message of this backlog now. NULL: nobody, and dp_await_former says when. */
static inline const struct dp_receiver *dp_owner_of_waiting(struct dp_forwarder *f, struct dp_backlog *b,
                                                            const struct dp_group_route *group)
{
    struct dp_keyed *k = b->group->keyed;
    if (!k || !group)
        return NULL;
    struct dp_ownership o = dp_own(f, k, group->key, NULL);
    const struct dp_receiver *owner = dp_receiver_at(k, group, o.owner);
    b->awaits = o.former;
    return o.former == DP_NO_MEMBER && owner != &dp_not_now ? owner : NULL;
}

/* What waits here waits for one to be done: have it ring when it is, as for space. True: it is by now. */
static inline bool dp_await_former(struct dp_forwarder *f, const struct dp_port *backlog)
{
    struct dp_backlog *b = dp_backlog_of(f, backlog);
    struct dp_keyed *k = b->group->keyed;
    if (!k || b->awaits == DP_NO_MEMBER)
        return false;
    struct dp_port *port = dp_port_of(f, dp_whom_at(k, b->awaits));
    if (port && rb_load(&port->down->incoming[SB_DATA].reclaim) == SB_NOWHERE) {
        rb_word *need = &port->down->incoming[SB_DATA].need;
        uint64_t mark = rb_load(&k->at->member[b->awaits].mark);
        if (mark < rb_load(need) || rb_load(need) <= port->in[SB_DATA].tail_seen)
            rb_store_seq(need, mark);
        dp_set_add(&port->waiters, backlog->slot);
        rb_fence_seq(); /* as in dp_need_space */
    }
    return dp_member_done(f, k, b->awaits);
}
