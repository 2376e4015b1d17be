/* The log of an endpoint's interests: what it subscribes to and handles, appended in a segment of its own, from which
 * the dispatcher reads it (dp_read_interests).
 *
 *   ep_append_interest    one entry more
 *   ep_commit_interests   the dispatcher shall read all that was appended
 *   ep_refused            it does not route by this one, and why
 *   ep_watch_tail         before an interest with a key: messages that have left the ring are news from now on
 */
#pragma once

#include "shmbus/endpoint/native/endpoint.h"

struct ep_interest_log {
    struct sb_interests *segment;
    uint64_t size; /* of the segment, in bytes */
};

/* False where the segment is full. Not under the endpoint's lock: an endpoint's calls append one at a time. */
static inline bool ep_append_interest(struct ep_interest_log *log, const struct sb_interest *entry,
                                      const char *pattern, const char *group, const char *description)
{
    uint64_t length =
        sizeof *entry + (uint64_t)entry->pattern_length + entry->group_length + entry->description_length;
    uint64_t bytes = rb_load(&log->segment->bytes);
    if (sizeof *log->segment + bytes + RB_ALIGN8(length) > log->size)
        return false;
    struct sb_interest copy = *entry;
    copy.length = (uint32_t)length;
    uint8_t *to = (uint8_t *)(log->segment + 1) + bytes;
    memcpy(to, &copy, sizeof copy);
    to += sizeof copy;
    memcpy(to, pattern, entry->pattern_length);
    to += entry->pattern_length;
    memcpy(to, group, entry->group_length);
    to += entry->group_length;
    memcpy(to, description, entry->description_length);
    RB_FAIL("interests.written");
    rb_store_release(&log->segment->bytes, bytes + RB_ALIGN8(length)); /* dp_read_interests acquires it */
    RB_FAIL("interests.logged");
    return true;
}

/* Returns the version that the dispatcher will have seen once it has all. `serial` names the segment. */
static inline uint64_t ep_commit_interests(struct ep_endpoint *e, uint64_t serial)
{
    struct sb_outgoing *mine = &e->up->outgoing[SB_DATA];
    uint64_t version = rb_load(&mine->interests_version) + 1;
    rb_store(&mine->interests_serial, serial);
    RB_FAIL("interests.serial");
    rb_store_release(&mine->interests_version, version); /* dp_read_interests acquires it, then reads the serial */
    ep_ring_dispatcher(e);
    return version;
}

/* After what ep_commit_interests returned was seen; 0: it does route by it. */
static inline uint64_t ep_refused(const struct ep_endpoint *e, uint64_t interest)
{
    return rb_load(&e->down->refused) == interest ? rb_load(&e->down->refused_why) : 0;
}

/* The dispatcher may ask to be rung for any position of the tail, not only for one that makes space (keyed.h). */
static inline void ep_watch_tail(struct ep_endpoint *e) { e->crowded[SB_DATA] = 0; }
