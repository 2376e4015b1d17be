/* The members of groups with a key: who joins, who leaves, and when that is settled. keyed.h says what follows of it.
 *
 * A change is told of by $bus.group.rebalanced before it takes effect, so a member has that event behind the last
 * message of the keys that it loses, and before anybody else has one of theirs.
 *
 * Offers: dp_tend_keyed, dp_settle_groups; dp_adopt_keyed. */
#pragma once

#include "shmbus/dispatcher/native/fanout.h"

/* $bus.group.rebalanced; `members` has a bit for each. */
static inline void dp_emit_rebalanced(struct dp_forwarder *f, const struct dp_keyed *k, uint64_t members,
                                      const char *reason)
{
    struct dp_pack pack = {.bytes = f->scratch, .capacity = DP_EVENT_BYTES};
    dp_pack_map(&pack, 5);
    dp_pack_string(&pack, "group", k->at->name);
    dp_pack_string(&pack, "pattern", k->at->pattern);
    dp_pack_number(&pack, "tokens", rb_load(&k->at->key));
    dp_pack_string(&pack, "reason", reason);
    dp_pack_array(&pack, "members", (uint16_t)__builtin_popcountll(members));
    for (; members; members &= members - 1) {
        uint64_t whom = dp_whom_at(k, (uint32_t)__builtin_ctzll(members));
        dp_pack_map(&pack, 2);
        dp_pack_string(&pack, "name", f->ports[sb_whom_slot(whom)].name);
        dp_pack_number(&pack, "generation", sb_whom_generation(whom));
    }
    dp_emit(f, "$bus.group.rebalanced", &pack);
}

/* What the interests say that are read: who is a member, of those of this rank. */
static inline bool dp_wants_in(const struct dp_forwarder *f, const struct dp_keyed *k, uint32_t slot,
                               enum sb_rank rank)
{
    return k->interests_of[slot] && f->ports[slot].state == SB_ROW_LIVE && f->ports[slot].rank == rank;
}

/* The rank of its members: the lowest of those that want in. */
static inline enum sb_rank dp_rank_in(const struct dp_forwarder *f, const struct dp_keyed *k)
{
    enum sb_rank rank = SB_RANK_HERE;
    for (; rank < SB_RANK_KEEPER; rank++)
        for (uint32_t slot = 0; slot < f->high_slot; slot++)
            if (dp_wants_in(f, k, slot, rank))
                return rank;
    return rank;
}

/* Members of the latest epoch, a bit each. */
static inline uint64_t dp_members_now(const struct dp_keyed *k)
{
    uint64_t members = 0, epoch = rb_load(&k->at->epoch);
    for (uint32_t i = 0; i < k->high; i++)
        members |= (uint64_t)dp_member_in(k, i, epoch) << i;
    return members;
}

static inline void dp_set_mark(struct dp_forwarder *f, struct dp_keyed *k, uint32_t i)
{
    const struct dp_port *port = dp_port_of(f, dp_whom_at(k, i));
    if (port)
        rb_store(&k->at->member[i].mark, port->in[SB_DATA].published);
    k->done &= ~(1ull << i);
}

/* The stores before this one take effect with it. */
static inline void dp_next_epoch(struct dp_keyed *k)
{
    RB_FAIL("keyed.changing");
    rb_store_release(&k->at->epoch, rb_load(&k->at->epoch) + 1);
    RB_FAIL("keyed.changed");
}

/* Members whose interests have gone, all that have for the same reason at once. */
static inline void dp_let_leave(struct dp_forwarder *f, struct dp_keyed *k)
{
    const enum sb_rank rank = dp_rank_in(f, k);
    uint64_t members = dp_members_now(k), left = 0, died = 0;
    for (uint64_t m = members; m; m &= m - 1) {
        uint32_t i = (uint32_t)__builtin_ctzll(m);
        const struct dp_port *port = dp_port_of(f, dp_whom_at(k, i));
        if (port && dp_wants_in(f, k, port->slot, rank))
            continue;
        left |= 1ull << i;
        if (!port || port->state == SB_ROW_DYING)
            died |= 1ull << i;
    }
    if (!left)
        return;
    dp_emit_rebalanced(f, k, members & ~left, died ? "died" : "left");
    for (; left; left &= left - 1) {
        uint32_t i = (uint32_t)__builtin_ctzll(left);
        dp_set_mark(f, k, i); /* behind the event: it has had that before anybody has its keys */
        rb_store(&k->at->member[i].left, rb_load(&k->at->epoch) + 1);
    }
    dp_next_epoch(k);
}

/* All who want in and are no members, as far as there is space. */
static inline void dp_let_join(struct dp_forwarder *f, struct dp_keyed *k)
{
    uint64_t members = dp_members_now(k), fresh = 0, epoch = rb_load(&k->at->epoch);
    if (members && epoch != rb_load(&k->at->settled))
        return;
    const enum sb_rank rank = dp_rank_in(f, k);
    struct dp_set in = {{0}};
    for (uint64_t m = members; m; m &= m - 1)
        dp_set_add(&in, sb_whom_slot(dp_whom_at(k, (uint32_t)__builtin_ctzll(m))));
    for (uint32_t slot = 0, i = 0; slot < f->high_slot; slot++) {
        if (!dp_wants_in(f, k, slot, rank) || dp_set_has(&in, slot))
            continue;
        while (i < SB_MEMBERS && dp_whom_at(k, i))
            i++;
        if (i == SB_MEMBERS)
            break;
        struct sb_member *m = &k->at->member[i];
        rb_store(&m->joined, epoch + 1);
        rb_store(&m->left, 0);
        rb_store(&m->mark, 0);
        rb_store_release(&m->whom, dp_whom_of(&f->ports[slot]));
        if (k->high <= i)
            k->high = i + 1;
        fresh |= 1ull << i;
    }
    if (!fresh)
        return;
    dp_emit_rebalanced(f, k, members | fresh, "joined");
    for (uint64_t m = members; m; m &= m - 1)
        dp_set_mark(f, k, (uint32_t)__builtin_ctzll(m));
    k->done &= ~fresh;
    dp_next_epoch(k);
}

/* Where nothing of earlier epochs is on its way, they are forgotten. */
static inline void dp_settle_group(struct dp_forwarder *f, struct dp_keyed *k)
{
    uint64_t epoch = rb_load(&k->at->epoch), left = f->backlogs_open;
    if (epoch == rb_load(&k->at->settled))
        return;
    for (uint32_t i = 0; i < SB_MEMBERS; i++)
        if (dp_whom_at(k, i) && !dp_member_done(f, k, i))
            return;
    for (struct dp_port *port; (port = dp_next_backlog(f, &left));)
        if (dp_backlog_of(f, port)->group == k->group && (dp_waits(f, port) || dp_owed(f, port)))
            return;
    rb_store_release(&k->at->settled, epoch);
    RB_FAIL("keyed.settled");
    for (uint32_t i = 0; i < SB_MEMBERS; i++)
        if (dp_whom_at(k, i) && rb_load(&k->at->member[i].left))
            rb_store_release(&k->at->member[i].whom, 0);
    while (k->high && !dp_whom_at(k, k->high - 1))
        k->high--;
}

/* As far as the members' interests, and what is on its way, allow. */
static inline void dp_settle_groups(struct dp_forwarder *f)
{
    for (uint32_t index = 0; f->routes.keyed_count && index < SB_KEYED_GROUPS; index++) {
        struct dp_keyed *k = f->routes.keyed[index];
        if (!k)
            continue;
        dp_let_leave(f, k);
        dp_settle_group(f, k);
        dp_let_join(f, k);
        dp_settle_group(f, k); /* nobody else may have had anything */
        if (k->group->interests || dp_members_now(k) || rb_load(&k->at->epoch) != rb_load(&k->at->settled))
            continue;
        rb_store_release(&k->at->key, 0);
        RB_FAIL("keyed.closed");
        dp_close_keyed(&f->routes, index);
    }
}

/* After a change of interests, before anything is chosen by it. Not while a run or an event is being made. */
static inline void dp_tend_keyed(struct dp_forwarder *f)
{
    if (__builtin_expect(!f->routes.keyed_count || f->keyed_version == f->routes.version, 1))
        return;
    f->keyed_version = f->routes.version;
    dp_settle_groups(f);
}

/* As the last dispatcher left them: a change that it had not finished has not happened. Before backlogs and
 * interests. */
static inline void dp_adopt_keyed(struct dp_forwarder *f)
{
    for (uint32_t index = 0; index < SB_KEYED_GROUPS; index++) {
        struct sb_keyed *at = &f->bus->keyed[index];
        struct dp_group *group;
        if (!rb_load_acquire(&at->key) || !(group = dp_intern_group(&f->routes, at->name, strlen(at->name))))
            continue;
        if (dp_open_keyed(&f->routes, group, index))
            group->keyed->high = SB_MEMBERS;
        dp_drop_group(&f->routes, group); /* which the key keeps */
        uint64_t epoch = rb_load(&at->epoch), settled = rb_load(&at->settled);
        for (uint32_t i = 0; i < SB_MEMBERS; i++) {
            struct sb_member *m = &at->member[i];
            if (rb_load(&m->left) > epoch)
                rb_store(&m->left, 0);
            if (rb_load(&m->joined) > epoch || (rb_load(&m->left) && rb_load(&m->left) <= settled))
                rb_store(&m->whom, 0);
        }
    }
}
