/* An endpoint's interests: a log in a segment of its own, appended to, and replaced as a whole when it is full.
 * The forwarding thread reads on from where it was whenever the version in UP has changed.
 *
 * One with history gets what was kept before it gets what comes: in its mailbox, if it has one (recall.h); else until
 * then it stands in DOWN among those that wait, from which history.h takes it, or has a backlog. Their ids go up, and
 * DOWN says up to which they were read; so a successor, which reads all of the log again, knows which of them have
 * begun.
 *
 * Offers: dp_read_interests, dp_interests_unread, dp_interests_close, dp_drop_groups; dp_stop_waiting, dp_backlog_for,
 *         dp_end_histories; dp_show_routes. */
#pragma once

#include "shmbus/dispatcher/native/backlog.h"
#include "shmbus/dispatcher/native/fits.h"
#include "shmbus/dispatcher/native/recall.h"
#include "shmbus/dispatcher/native/rights.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>

#define DP_INTERESTS_MOST (256ull << 20)

static inline void dp_interests_close(struct dp_port *port)
{
    if (port->interests)
        munmap((void *)(uintptr_t)port->interests, port->interests_size);
    port->interests = NULL;
    port->interests_size = port->interests_applied = port->interests_serial = 0;
}

enum dp_reading { DP_READ_ALL, DP_READ_LATER, DP_READ_GARBAGE };

/* Map the segment of this serial, which must be ours alone, of this layout and as long as it says. No descriptor
 * left, or the name removed by others, is nobody's fault. */
static inline enum dp_reading dp_interests_open(struct dp_forwarder *f, struct dp_port *port, uint64_t serial)
{
    char name[224];
    const struct sb_identity *who = &port->row->identity;
    snprintf(name, sizeof name, "%s:int:%u:%llu:%016llx:%llu", f->prefix, who->pid, (unsigned long long)who->start_time,
             (unsigned long long)port->row->nonce, (unsigned long long)serial);
    int fd = shm_open(name, O_RDONLY | O_CLOEXEC | O_NONBLOCK, 0); /* a pipe would keep us waiting */
    if (fd < 0)
        return errno == ELOOP ? DP_READ_GARBAGE : DP_READ_LATER;
    struct stat st;
    bool ours = fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_uid == geteuid() && (st.st_mode & 07777) == 0600 &&
                (uint64_t)st.st_size >= sizeof(struct sb_interests) && (uint64_t)st.st_size <= DP_INTERESTS_MOST;
    void *at = ours ? mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0) : MAP_FAILED;
    close(fd);
    if (at == MAP_FAILED)
        return ours ? DP_READ_LATER : DP_READ_GARBAGE;
    const struct sb_interests *log = at;
    if (log->prefix.magic != RB_MAGIC || log->prefix.layout != SB_LAYOUT ||
        log->prefix.kind != SB_SEGMENT_INTERESTS || log->prefix.size != (uint64_t)st.st_size) {
        munmap(at, (size_t)st.st_size);
        return DP_READ_GARBAGE;
    }
    dp_interests_close(port);
    port->interests = log;
    port->interests_size = (uint64_t)st.st_size;
    port->interests_serial = serial;
    port->interests_applied = 0;
    return DP_READ_ALL;
}

/* The routes have changed: whoever keeps what it has learnt of them sees that. Before it can know of the change in any
 * other way. */
static inline void dp_show_routes(struct dp_forwarder *f)
{
    if (f->routes_shown == f->routes.changes)
        return;
    f->routes_shown = f->routes.changes;
    rb_store_release(&f->bus->routes_version, rb_load(&f->bus->routes_version) + 1);
}

/* The group that messages have come to it for with this bit, from now on. It stays when that is left: such messages may
 * be in hand. */
static inline void dp_set_group(struct dp_forwarder *f, struct dp_port *port, uint32_t bit, struct dp_group *group)
{
    dp_drop_group(&f->routes, port->group_of_bit[bit]);
    port->group_of_bit[bit] = group;
}

static inline void dp_drop_groups(struct dp_forwarder *f, struct dp_port *port)
{
    for (uint32_t bit = 0; bit < SB_GROUPS; bit++)
        dp_set_group(f, port, bit, NULL);
}

/* Does its grant not cover it? Of what is tapped it gets messages of every kind. */
static inline bool dp_forbid_interest(struct dp_forwarder *f, struct dp_port *port, const struct sb_interest *e,
                                      const char *pattern)
{
    static const enum sb_right needs[][2] = {
        [SB_ROLE_SUBSCRIBE] = {SB_RIGHT_SUBSCRIBE, SB_RIGHT_SUBSCRIBE},
        [SB_ROLE_HANDLE] = {SB_RIGHT_HANDLE, SB_RIGHT_HANDLE},
        [SB_ROLE_OBSERVE] = {SB_RIGHT_SUBSCRIBE, SB_RIGHT_HANDLE},
        [SB_ROLE_MATCH] = {SB_RIGHT_PUBLISH, SB_RIGHT_PUBLISH},
    };
    for (int i = 0; port->rights && i < 2; i++)
        if (!dp_may(port, needs[e->role][i], pattern, e->pattern_length)) {
            dp_note_forbidden(f, port, needs[e->role][i], pattern, e->pattern_length);
            return true;
        }
    return false;
}

/* Is it forbidden, or for a group with another key than this? What was refused once stays so, for a successor, too,
 * which may come to read the logs in another order. */
static inline bool dp_refuse_interest(struct dp_forwarder *f, struct dp_port *port, const struct sb_interest *e,
                                      const char *pattern, const char *group)
{
    bool member = e->role == SB_ROLE_SUBSCRIBE && e->bit;
    enum sb_refusal why = member ? dp_key_refused(&f->routes, e, pattern, group) : 0;
    if (e->id && rb_load(&port->down->refused) == e->id)
        return true;
    if (dp_forbid_interest(f, port, e, pattern))
        why = SB_REFUSED_FORBIDDEN;
    if (!why)
        return false;
    rb_store(&port->down->refused_why, why);
    rb_store_release(&port->down->refused, e->id); /* whoever has seen `interests_seen` acquires both */
    return true;
}

/* The place of an interest (0: a free one) among those of the endpoint that wait; SB_WAITING: there is none. */
static inline uint32_t dp_waiting(const struct dp_port *port, uint64_t id)
{
    uint32_t i = 0;
    while (i < SB_WAITING && rb_load(&port->down->waiting[i]) != id)
        i++;
    return i;
}

/* In which this interest of the endpoint catches up (0: any of them); NULL: there is none. */
static inline struct dp_port *dp_backlog_for(struct dp_forwarder *f, const struct dp_port *port, uint64_t id)
{
    uint64_t left = f->catching_up;
    for (struct dp_port *backlog; (backlog = dp_next_backlog(f, &left));)
        if (dp_backlog_of(f, backlog)->whom == dp_whom_of(port) && (!id || backlog->alone == id))
            return backlog;
    return NULL;
}

/* It has begun, or was removed. */
static inline void dp_stop_waiting(struct dp_port *port, uint64_t id)
{
    uint32_t place = dp_waiting(port, id);
    if (place < SB_WAITING)
        rb_store(&port->down->waiting[place], 0);
}

/* Nobody wants what waits in this backlog of one that catches up. */
static inline void dp_unwant(struct dp_forwarder *f, struct dp_port *backlog)
{
    dp_backlog_of(f, backlog)->unwanted = true;
    dp_set_add(&f->active, backlog->slot);
}

/* Its endpoint is dying, or closes. */
static inline void dp_end_histories(struct dp_forwarder *f, struct dp_port *port)
{
    for (uint32_t i = 0; i < SB_WAITING; i++)
        rb_store(&port->down->waiting[i], 0);
    dp_set_drop(&f->late, port->slot);
    uint64_t left = f->catching_up;
    for (struct dp_port *backlog; (backlog = dp_next_backlog(f, &left));)
        if (dp_backlog_of(f, backlog)->whom == dp_whom_of(port))
            dp_set_add(&f->active, backlog->slot);
}

/* An interest with history was read: has it begun already? False: there is no place for another that waits. */
static inline bool dp_note_history(struct dp_forwarder *f, struct dp_port *port, struct dp_interest *w)
{
    struct sb_down *down = port->down;
    struct dp_port *backlog = dp_backlog_for(f, port, w->id);
    uint32_t place = dp_waiting(port, w->id);
    if (backlog) {
        dp_backlog_of(f, backlog)->logged = true;
        w->via = (uint16_t)backlog->slot;
        dp_stop_waiting(port, w->id);
        return true;
    }
    if (place == SB_WAITING && w->id <= rb_load(&down->history_read))
        return true;
    w->via = DP_NO_WAY;
    dp_set_add(&f->late, port->slot);
    if (place == SB_WAITING) {
        if ((place = dp_waiting(port, 0)) == SB_WAITING)
            return false;
        rb_store(&down->waiting[place], w->id);
        RB_FAIL("history.waits");
    }
    if (w->id > rb_load(&down->history_read)) /* a dispatcher may have been killed before it said so */
        rb_store_release(&down->history_read, w->id);
    RB_FAIL("history.read");
    return true;
}

static inline bool dp_wants_mailbox(const struct sb_interest *e) { return e->flags & (SB_DROP_OLDEST | SB_LATEST); }

static inline bool dp_mailbox_wish_sound(const struct sb_interest *e)
{
    bool one = (e->flags & (SB_DROP_OLDEST | SB_LATEST)) != (SB_DROP_OLDEST | SB_LATEST);
    return one && e->role == SB_ROLE_SUBSCRIBE && !e->bit && e->depth >= 1 && e->depth <= SB_MAX_DEPTH &&
           e->mailbox < SB_OWN_MAILBOXES;
}

/* With what was kept of what its interest matches: of each type the last `history`, or where it holds but the newest
 * that one. NULL: as dp_make_mailbox. */
static inline struct dp_port *dp_begin_mailbox(struct dp_forwarder *f, struct dp_port *port,
                                               const struct sb_interest *e, const char *pattern)
{
    struct dp_port *box = dp_make_mailbox(f, port, e, pattern);
    uint32_t history = e->history && e->flags & SB_LATEST ? 1 : e->history, oversize = 0;
    if (!box)
        return NULL;
    if (history) {
        bool known = dp_recall(&f->values, pattern, e->pattern_length, history, port->rank);
        oversize = dp_set_oversize_aside(&f->values, box);
        if (!known || !dp_fill_mailbox(f, box)) {
            dp_close_mailbox(f, box, true);
            return dp_no_mailbox(f, port, e->mailbox, SB_MAILBOX_NO_MEMORY);
        }
    }
    rb_store(&box->down->lost_by[SB_LOSS_TOO_LARGE], oversize);
    dp_list_mailbox(f, box);
    rb_add(&f->bus->routed, box->in[SB_DATA].published);
    dp_count_oversize(f, box);
    dp_tell_oversize(f, port, oversize);
    return box;
}

/* That of this interest, which is in the log; made if there is none. NULL: it cannot be, or its endpoint ends. */
static inline struct dp_port *dp_mailbox_for(struct dp_forwarder *f, struct dp_port *port, const struct sb_interest *e,
                                             const char *pattern)
{
    struct dp_port *box = dp_find_mailbox(f, port, e->id);
    if (!box && port->state == SB_ROW_LIVE)
        box = dp_begin_mailbox(f, port, e, pattern);
    if (box) {
        box->mailbox->interested = true;
        dp_show_mailbox(port, box);
    }
    return box;
}

/* Of an interest that is in the log no more; 0: of all, as the log is read anew. */
static inline void dp_forget_mailbox(struct dp_forwarder *f, struct dp_port *port, uint64_t interest)
{
    uint32_t index = 0;
    for (struct dp_port *box; (box = dp_next_mailbox(f, port, &index));)
        box->mailbox->interested &= interest && box->mailbox->memory->interest != interest;
}

/* The log is read: those of no interest go. */
static inline void dp_sweep_mailboxes(struct dp_forwarder *f, struct dp_port *port)
{
    uint32_t index = 0;
    for (struct dp_port *box; (box = dp_next_mailbox(f, port, &index));)
        if (!box->mailbox->interested)
            dp_close_mailbox(f, box, true);
}

enum dp_applied { DP_APPLIED, DP_LATER, DP_NO_INTEREST };

/* One entry of the log. DP_LATER: it was not applied, since too many wait. */
static inline enum dp_applied dp_apply_interest(struct dp_forwarder *f, struct dp_port *port, const uint8_t *at,
                                                uint64_t left, uint64_t *size)
{
    struct sb_interest e;
    char text[SB_MAX_TYPE + 1 + SB_NAME];
    if (left < sizeof e)
        return DP_NO_INTEREST;
    memcpy(&e, at, sizeof e);
    uint64_t length = sizeof e + (uint64_t)e.pattern_length + e.group_length + e.description_length;
    if (e.length != length || e.pattern_length > SB_MAX_TYPE || e.group_length >= SB_NAME || RB_ALIGN8(length) > left)
        return DP_NO_INTEREST;
    memcpy(text, at + sizeof e, (size_t)e.pattern_length + e.group_length);
    *size = RB_ALIGN8(length);
    if (e.op == SB_INTEREST_REMOVE) {
        struct dp_port *backlog = dp_backlog_for(f, port, e.id ? e.id : ~0ull);
        if (backlog)
            dp_unwant(f, backlog);
        dp_remove_interest(&f->routes, (uint16_t)port->slot, e.id);
        dp_forget_mailbox(f, port, e.id);
        return DP_APPLIED;
    }
    if (e.op == SB_INTEREST_NOTE)
        return DP_APPLIED;
    const char *group = text + e.pattern_length;
    if (e.op != SB_INTEREST_ADD || !dp_interest_sound(&e, text))
        return DP_NO_INTEREST;
    if (dp_refuse_interest(f, port, &e, text, group))
        return DP_APPLIED;
    struct dp_port *box = NULL;
    if (dp_wants_mailbox(&e)) {
        if (!dp_mailbox_wish_sound(&e))
            return DP_NO_INTEREST;
        if (!(box = dp_mailbox_for(f, port, &e, text)))
            return DP_APPLIED; /* its endpoint sees that in DOWN */
    }
    if (!dp_add_interest(&f->routes, (uint16_t)port->slot, &e, text, group))
        return DP_NO_INTEREST;
    if (box)
        dp_interest_of(&f->routes, (uint16_t)port->slot, e.id)->via = (uint16_t)box->slot;
    if (e.role == SB_ROLE_SUBSCRIBE && e.bit) {
        dp_set_group(f, port, e.bit, dp_intern_group(&f->routes, group, e.group_length));
    } else if (e.role == SB_ROLE_SUBSCRIBE && e.history && e.id && !box) {
        if (!dp_note_history(f, port, dp_interest_of(&f->routes, (uint16_t)port->slot, e.id))) {
            dp_remove_interest(&f->routes, (uint16_t)port->slot, e.id);
            return DP_LATER;
        }
    }
    return DP_APPLIED;
}

/* Has the endpoint logged what we have not read? */
static inline bool dp_interests_unread(const struct dp_port *port)
{
    return rb_load_acquire(&port->up->outgoing[SB_DATA].interests_version) != port->interests_seen &&
           dp_waiting(port, 0) < SB_WAITING; /* else it will be read on once one of those has begun */
}

/* A log that replaces another names no interest that was removed meanwhile. */
static inline void dp_drop_unlogged(struct dp_forwarder *f, struct dp_port *port)
{
    uint64_t left = f->catching_up;
    for (struct dp_port *backlog; (backlog = dp_next_backlog(f, &left));)
        if (dp_backlog_of(f, backlog)->whom == dp_whom_of(port) && !dp_backlog_of(f, backlog)->logged)
            dp_unwant(f, backlog);
}

static inline void dp_mark_logged(struct dp_forwarder *f, struct dp_port *port, bool logged)
{
    uint64_t left = f->catching_up;
    for (struct dp_port *backlog; (backlog = dp_next_backlog(f, &left));)
        if (dp_backlog_of(f, backlog)->whom == dp_whom_of(port))
            dp_backlog_of(f, backlog)->logged = logged;
}

/* Bring the routes up to what the endpoint has logged. */
static inline enum dp_reading dp_read_interests(struct dp_forwarder *f, struct dp_port *port)
{
    uint64_t version = rb_load_acquire(&port->up->outgoing[SB_DATA].interests_version);
    if (version == port->interests_seen || f->now < port->interests_again_ns)
        return DP_READ_ALL;
    uint64_t serial = rb_load(&port->up->outgoing[SB_DATA].interests_serial);
    if (serial != port->interests_serial || !port->interests) {
        enum dp_reading opened = dp_interests_open(f, port, serial);
        if (opened == DP_READ_LATER)
            port->interests_again_ns = f->now + DP_LOOK_NS;
        if (opened != DP_READ_ALL)
            return opened;
        dp_remove_interests(&f->routes, (uint16_t)port->slot);
        dp_mark_logged(f, port, false);
        dp_forget_mailbox(f, port, 0);
    }
    uint64_t bytes = rb_load_acquire(&port->interests->bytes);
    if (bytes > port->interests_size - sizeof(struct sb_interests))
        return DP_READ_GARBAGE;
    const uint8_t *log = (const uint8_t *)(port->interests + 1);
    while (port->interests_applied < bytes) {
        uint64_t size;
        enum dp_applied applied =
            dp_apply_interest(f, port, log + port->interests_applied, bytes - port->interests_applied, &size);
        if (applied == DP_LATER)
            return DP_READ_ALL;
        if (applied == DP_NO_INTEREST)
            return DP_READ_GARBAGE;
        port->interests_applied += size;
    }
    dp_drop_unlogged(f, port);
    dp_sweep_mailboxes(f, port);
    port->interests_seen = version;
    rb_store(&f->bus->patterns, f->routes.pattern_count);
    dp_show_routes(f);
    dp_note_fits(f); /* before who has subscribed knows that it has */
    rb_store_release(&port->down->interests_seen, version);
    dp_touch(f, port, SB_EVENT_STATE);
    return DP_READ_ALL;
}
