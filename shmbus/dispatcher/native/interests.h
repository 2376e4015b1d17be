/* An endpoint's interests: a log in a segment of its own, appended to, and replaced as a whole when it is full.
 * The forwarding thread reads on from where it was whenever the version in UP has changed.
 *
 * Offers: dp_read_interests, dp_interests_unread, dp_interests_close, dp_drop_groups; dp_show_routes. */
#pragma once

#include "shmbus/dispatcher/native/port.h"

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
    if (f->routes_shown == f->routes.version)
        return;
    f->routes_shown = f->routes.version;
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

/* Is it for a group with another key than this? What was refused once stays so, for a successor, too, which may come to
 * read the logs in another order. */
static inline bool dp_refuse_key(struct dp_forwarder *f, struct dp_port *port, const struct sb_interest *e,
                                 const char *pattern, const char *group)
{
    enum sb_refusal why = dp_key_refused(&f->routes, e, pattern, group);
    if (e->id && rb_load(&port->down->refused) == e->id)
        return true;
    if (!why)
        return false;
    rb_store(&port->down->refused_why, why);
    rb_store_release(&port->down->refused, e->id); /* whoever has seen `interests_seen` acquires both */
    return true;
}

/* One entry at `offset` of the log. False: it is none. */
static inline bool dp_apply_interest(struct dp_forwarder *f, struct dp_port *port, const uint8_t *at, uint64_t left,
                                     uint64_t *size)
{
    struct sb_interest e;
    char text[SB_MAX_TYPE + 1 + SB_NAME];
    if (left < sizeof e)
        return false;
    memcpy(&e, at, sizeof e);
    uint64_t length = sizeof e + (uint64_t)e.pattern_length + e.group_length + e.description_length;
    if (e.length != length || e.pattern_length > SB_MAX_TYPE || e.group_length >= SB_NAME || RB_ALIGN8(length) > left)
        return false;
    memcpy(text, at + sizeof e, (size_t)e.pattern_length + e.group_length);
    *size = RB_ALIGN8(length);
    if (e.op == SB_INTEREST_REMOVE) {
        dp_remove_interest(&f->routes, (uint16_t)port->slot, e.id);
        return true;
    }
    const char *group = text + e.pattern_length;
    if (e.op == SB_INTEREST_ADD && e.role == SB_ROLE_SUBSCRIBE && e.bit && dp_refuse_key(f, port, &e, text, group))
        return true;
    if (e.op != SB_INTEREST_ADD || !dp_add_interest(&f->routes, (uint16_t)port->slot, &e, text, group))
        return false;
    if (e.role == SB_ROLE_SUBSCRIBE && e.bit)
        dp_set_group(f, port, e.bit, dp_intern_group(&f->routes, group, e.group_length));
    return true;
}

/* Has the endpoint logged what we have not read? */
static inline bool dp_interests_unread(const struct dp_port *port)
{
    return rb_load_acquire(&port->up->outgoing[SB_DATA].interests_version) != port->interests_seen;
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
    }
    uint64_t bytes = rb_load_acquire(&port->interests->bytes);
    if (bytes > port->interests_size - sizeof(struct sb_interests))
        return DP_READ_GARBAGE;
    const uint8_t *log = (const uint8_t *)(port->interests + 1);
    while (port->interests_applied < bytes) {
        uint64_t size;
        if (!dp_apply_interest(f, port, log + port->interests_applied, bytes - port->interests_applied, &size))
            return DP_READ_GARBAGE;
        port->interests_applied += size;
    }
    port->interests_seen = version;
    rb_store(&f->bus->patterns, f->routes.pattern_count);
    dp_show_routes(f);
    rb_store_release(&port->down->interests_seen, version);
    dp_touch(f, port, SB_EVENT_STATE);
    return DP_READ_ALL;
}
