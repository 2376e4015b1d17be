/* The forwarding thread's private picture of the bus: one port per slot, and what a pass works with.
 *
 * Nothing here is shared. What lies behind `up` was written by another process: its positions go through
 * rb_refresh_*, its records through a checked copy, its sizes were copied out and checked at admission.
 *
 * Offers: dp_set_add, dp_set_drop, dp_set_has (sets of slots); dp_port_of, dp_whom_of, dp_open_for_messages;
 *         dp_is_backlog, dp_backlog_of, dp_receiving;
 *         dp_untouched, dp_urgent_untouched, dp_in_hand;
 *         dp_touch, dp_note_moved and dp_note_pool (whose bells are rung after the pass), dp_ring; dp_close_event;
 *         dp_note_sent; dp_wake_backlogs; dp_row_begin, dp_row_end, dp_row_set, dp_set_health; dp_notify_of;
 *         dp_quarantine. */
#pragma once

#include "shmbus/dispatcher/native/orders.h"
#include "shmbus/dispatcher/native/routes.h"
#include "shmbus/shared/native/event.h"

#define DP_PORTS (SB_FIRST_MAILBOX + SB_MAILBOXES) /* those of endpoints, of backlogs, of mailboxes */
#define DP_SET_WORDS (DP_PORTS / 64)
#define DP_BACKLOG_WORD (SB_MAX_SLOTS / 64) /* of a set: the backlogs */
_Static_assert(SB_MAX_SLOTS % 64 == 0 && SB_BACKLOGS == 64, "the backlogs are one word of a set");
_Static_assert(DP_PORTS % 64 == 0, "a set has whole words");
#define DP_RUN 256u /* records of a run at the most */
#define DP_LOOK_NS 100000000u /* all heads are looked at so often, whatever READY says */

struct dp_set { uint64_t word[DP_SET_WORDS]; }; /* of slots, of endpoints and backlogs */
static inline void dp_set_add(struct dp_set *s, uint32_t slot) { s->word[slot / 64] |= 1ull << (slot % 64); }
static inline void dp_set_drop(struct dp_set *s, uint32_t slot) { s->word[slot / 64] &= ~(1ull << (slot % 64)); }
static inline bool dp_set_has(const struct dp_set *s, uint32_t slot) { return s->word[slot / 64] >> (slot % 64) & 1; }

/* What may be at the head of a line and find no space: the first record of either outgoing ring, and the next one to
 * be handed on of a port that ended. */
enum dp_line { DP_LINE_DATA = SB_DATA, DP_LINE_REPLIES = SB_REPLIES, DP_LINE_HANDED_ON, DP_LINES };

struct dp_block { /* of a pool, by the last use that we know of */
    uint64_t use;            /* 0: none, or, while it has shares, not known, likewise */
    uint64_t offset, length; /* as its record says; length 0: not known, since an earlier dispatcher saw it */
    uint32_t shares;
    uint32_t going; /* of these, such as may be taken from who has them; DP_GOES: they are; see reclaim.h */
};
#define DP_GOES UINT32_MAX

struct dp_pool { /* an endpoint's, see pool.h */
    uint32_t slot, generation;
    bool orphan;                /* its endpoint has gone, */
    bool dead;                  /* and its process, too */
    uint64_t bytes, pages;      /* of its segment, 0: not known, of an orphan; pages of an orphan that count */
    const struct sb_pool *head; /* mapped; NULL: not yet */
    uint64_t again_ns;          /* it could not be: not before */
    bool unfinished;            /* since its endpoint was killed as it made it */
    bool wrong;                 /* nor can it ever: something else stands there */
    uint64_t shares;            /* of all its blocks */
    uint64_t gives;             /* pages that others may have if all goes that may, see reclaim.h */
    uint64_t kept;              /* bytes of the payloads in it that are kept, see keep.h */
    uint64_t on_its_way[SB_BLOCKS / 64]; /* a bit each: the record of its use is not consumed */
    struct dp_block blocks[SB_BLOCKS];
    struct dp_pool *next;       /* orphan */
};
_Static_assert(SB_BLOCKS % 64 == 0, "a bit for each block");

struct dp_share { /* of a block, see share.h */
    uint64_t share;     /* sb_share_of(), or sb_share_of_mail() */
    uint64_t until;     /* it is over once the outgoing data ring is forwarded so far; SB_NOWHERE: it lasts */
    struct dp_pool *pool;
    uint16_t index;     /* of the block */
    uint16_t place;     /* of the receiver's entry, plus one; 0: not known */
    bool mailed;        /* it stands in a mailbox */
    bool revoked;       /* its record is for nobody any more, see revoke.h */
    bool lossy, judged; /* its receiver would rather lose it; that was looked up, see lossy.h */
    uint64_t given_ns;  /* when it began */
};

struct dp_shares { /* of one port */
    struct dp_share *list;
    uint32_t count, capacity;
    uint64_t ended_seen, taken_seen[SB_RINGS_IN];
    uint64_t taken_ns; /* when the latter were last seen to have moved */
    bool look; /* whatever its words say */
};

struct dp_port {
    uint32_t slot, generation, pid;
    enum sb_row_state state; /* SB_ROW_FREE: the slot is empty */
    enum sb_reason reason;
    enum sb_rank rank;
    bool confirmed;          /* UP says ATTACHED: `up` was emitted */
    bool corrupt;            /* its outgoing rings are not read any more */
    uint64_t touched;        /* what is new for it in this pass: enum sb_event_want */
    bool tail_moved[SB_RINGS];
    struct dp_pool *pool;    /* its own; NULL: nothing has come from there */
    uint64_t pool_asked;     /* its last question, see growth.h */
    struct dp_shares shares; /* of anybody's blocks */
    char name[SB_NAME];

    const struct sb_up *up;
    struct sb_down *down;
    struct sb_row *row;
    const struct sb_pending *pending;
    struct sb_target *given; /* by pending entry: to whom that request was given */
    struct sb_todo_target *todo;
    uint32_t pending_count;
    uint64_t prefetch;

    struct rb_consumer out[SB_RINGS]; /* head in UP, tail in DOWN */
    struct rb_producer in[SB_RINGS_IN]; /* head in DOWN, tail in UP */
    uint64_t reserve;                 /* of in[SB_REPLIES], for errors alone */
    uint64_t delivered;               /* into in[SB_DATA] */
    struct rb_poster bell;
    struct sb_event event;            /* its second bell, if it has passed one */

    uint64_t interests_seen, interests_serial, interests_applied, interests_size;
    uint64_t interests_again_ns; /* its log could not be opened: not before */
    const struct sb_interests *interests;
    struct dp_group *group_of_bit[SB_GROUPS];

    uint64_t refused_since_ns[DP_LINES]; /* since when its head of line finds no space; 0: it does not wait */
    struct dp_set waiters;               /* ports whose head of line waits for space here */
    uint64_t progress_ns;                /* when its tail was last seen to have moved */
    uint64_t progress_tail[SB_RINGS_IN];
    bool slow;
    uint64_t done_to, done_to_ns;        /* dp_done_to() as last seen by who waits for that, and when it was seen to
                                          * move */
    bool given_up;                       /* since then somebody has waited long enough, see dp_wait_for_former */

    uint64_t taken_seen, taken_since_ns; /* of both data rings together */
    uint64_t done_before, done_then, done_since_ns; /* see dp_finished_lately */
    uint64_t lost_told_ns[SB_LOSSES]; /* when $bus.lost was last emitted about it; 0: never, see losses.h */
    bool stopped, stalled;
    bool untold;             /* it could not be told that somebody is there, or nobody, see tell.h */
    uint32_t overdue;        /* its handlers that have taken longer than they may, at the last look */
    uint64_t overdue_told_since_ns; /* $bus.endpoint.overdue was emitted `overdue_told` times in the second from here */
    uint32_t overdue_told;
    uint64_t limit_ns;       /* when the next one will have; 0: none is known of */

    uint64_t live_at;        /* where the last SB_LIVE in its data ring ends, and what came after it instead of
                              * urgently */
    uint64_t alone;          /* of a mailbox, or a backlog for one that catches up: the interest that its records are
                              * for */
    struct dp_mailbox *mailbox; /* it is one, see mailbox.h */
    uint32_t owner, owner_index; /* of a mailbox: the slot of its endpoint, and which of that one's it is */

    uint64_t *verdicts; /* what it may do with the types that it sent, see rights.h; NULL: it has no grant, or no memory
                         * was left */
    uint64_t forbidden_told_ns;         /* when $bus.endpoint.forbidden was last emitted about it; 0: never */
    struct sb_rights *rights;           /* by its grant; NULL: it has none, and may do everything */

    uint64_t pool_pages;      /* of its pool, that it may have, see growth.h */
    uint64_t pool_turn;       /* it asks for more than it may have: in this order; 0: it does not */
    bool pool_again;          /* it has asked anew since, for no more than it needs; adopted: it may have */
    uint64_t pool_waits_seen, pool_waited_ns, pool_waits_since_ns; /* it waits for its pool: when it last did; since
                                                                    * when, 0: it does not */
    uint64_t pool_reclaimed_ns; /* what others had was taken for it, with the time that takes them; see reclaim.h */
    bool pool_moved;          /* blocks of its pool were returned in this pass, or it may have more */

    bool leaving_drained;    /* DOWN says DRAINED */
    uint64_t last[SB_RINGS]; /* of one that ends: its outgoing rings count up to here */
};

struct dp_span { /* where records stand */
    struct dp_port *source;
    enum sb_ring_index ring;
    bool reclaim; /* not an outgoing ring, but an incoming one of a source that ended */
    uint64_t from, to;
};

struct dp_choice { /* one target of a run */
    uint16_t slot;
    bool lossy;
    bool lost; /* it does not get the run, but the loss is counted there, see dp_lose_at_former */
    uint32_t bits;
};

struct dp_choices {
    uint32_t count;
    bool not_now; /* it has to wait where it is */
    struct dp_choice list[DP_PORTS + SB_KEYED_GROUPS]; /* as many as there may be in `todo`, or more */
};

struct dp_run { /* consecutive records with the same targets */
    struct dp_span span;
    uint32_t count;
    struct sb_record header[DP_RUN]; /* checked copies */
    const uint8_t *record[DP_RUN];
    const uint8_t *type[DP_RUN]; /* the cache's copy; NULL: there is none */
    struct sb_block block[DP_RUN]; /* with SB_POOLED: checked copies, too */
    bool pooled;                   /* there are any */
    bool returned;                 /* its only record is one that its source gives back, see nack.h */
    bool urgent;                   /* its events overtake what is not, where that may be, see dp_ring_at */
    bool retain;                   /* its only record is to be kept, see keep.h; */
    uint64_t kept;                 /* it is, under this number; 0: it is not */
    struct dp_choices targets;
    struct dp_route *route;        /* of the latest record; NULL: none */
    uint64_t bytes, bytes_most;    /* of a fan-out, which every target gets whole */
    uint32_t extra[DP_PORTS];      /* chosen in this run, not yet published, per slot */
    uint32_t mark[1024], number;   /* requests that this run has to do with: the run's number stands there */
};

struct dp_backlog { /* what is known of a backlog beside its port, see backlog.h */
    struct dp_group *group;     /* whose messages wait; NULL: commands and requests */
    uint64_t former;            /* of a group with a key: as in struct sb_backlog */
    uint32_t awaits;            /* then: the member that the first message waits for; SB_MEMBERS: none is known */
    struct dp_set takers;       /* the endpoints that may take them */
    uint32_t takers_count;
    struct dp_receiver as_target;
    uint64_t emptied_ns;        /* since when it has been seen empty */

    uint64_t whom, interest, number; /* of one that catches up, see struct sb_backlog and history.h; whom 0: of work */
    bool logged;                     /* its interest stands in the log as it was read last */
    bool unwanted;                   /* its interest was removed */
};

struct dp_ages { struct dp_value *first, *last; }; /* the oldest first */

struct dp_values { /* what is kept, see keep.h */
    uint8_t *chunk[SB_CHUNKS];
    uint64_t chunks, chunk_cells; /* chunks there are; cells of each */
    uint32_t *free_cells, free_count, free_capacity;
    uint64_t count, cells_used;
    uint64_t pooled;            /* bytes of their payloads in pools */
    uint64_t again_ns;          /* a chunk could not be made: not before */
    struct sb_table types;      /* type -> struct dp_kept_type */
    struct dp_ages last, replaced; /* values that are the newest of their type, and those that are not */
    struct dp_value **recalled; /* those that one interest is to get, see recall.h */
    uint32_t recalled_count, recalled_capacity;
};

struct dp_forwarder {
    struct sb_bus *bus;
    struct sb_ready *ready;
    struct sb_row *rows;
    uint32_t slots, high_slot; /* slots in use lie below high_slot */
    char prefix[96];           /* of the names of this bus's segments: "/shmbus:UID:BUS" */
    uint64_t block_timeout_ns, stall_after_ns;
    uint32_t max_deliveries, batch;

    struct rb_bell bell;
    struct dp_routes routes;
    struct dp_port *ports; /* DP_PORTS, most of them never touched */
    struct dp_backlog backlogs[SB_BACKLOGS];
    uint64_t backlogs_open;     /* a bit each */
    uint64_t catching_up;       /* of these, those of interests that catch up */
    uint64_t backlogs_version;  /* of the routes by which their takers were looked up */
    uint64_t keyed_version;     /* and of those by which the members of groups with a key were */
    uint64_t routes_shown;      /* the changes of the routes of which BUS tells, */
    uint64_t routes_told;       /* and those that $bus.routes has told of */
    uint32_t mailboxes_open;
    uint64_t largest_ring;      /* of all that messages came from */
    uint64_t backlog_again_ns;  /* one could not be made: not before */
    struct sb_row no_row;       /* of backlogs: nobody reads it */
    struct dp_values values;
    struct dp_pool *orphans; /* pools whose endpoint has gone */
    uint64_t pools_pages;    /* that all pools may have reserved */
    bool incomplete;         /* nobody knows what somebody has who may live, see recount.h; control plane, before this
                              * thread begins */
    bool pools_starve;       /* somebody may have more than before, or asks for it */
    uint64_t pools_turn;     /* the last `pool_turn` */
    uint64_t *ready_seen; /* READY as last looked at, two words in one */
    struct dp_set active; /* ports to visit in this pass */
    struct dp_set departing;
    struct dp_set late;   /* endpoints with interests that wait for what was kept, see history.h */
    uint64_t late_again_ns; /* there was no space for one: not before */
    uint32_t late_turn;
    uint64_t now;         /* of this pass */
    uint64_t next_look, next_deadline;
    bool adopting; /* a dispatcher was here before: finish what it had begun */
    struct dp_set untold; /* endpoints: of some request that it withdrew its server is still to be told, see cancel.h */

    struct dp_run run;         /* being forwarded */
    struct dp_port *former;    /* for whom &dp_not_now, the last one, has to wait; NULL: that is not known */
    struct dp_choices choices; /* being made, of one more record or of an event of the bus's own */
    uint32_t touched_slots[SB_MAX_SLOTS], touched_count;
    uint32_t moved_slots[SB_MAX_SLOTS], moved_count;
    uint32_t ended_slots[SB_MAX_SLOTS], ended_count; /* reclaimed in this pass */
    uint32_t pool_slots[SB_MAX_SLOTS], pool_count;   /* whose `pool_moved` is set */

    uint64_t sent_ns[4 * DP_RUN]; /* of what this pass published */
    uint32_t sent_count;

    uint8_t *scratch; /* one record of the bus's own */
    char source[SB_SOURCE]; /* of the last message of another bus that was told of, see dp_source_of */

    struct dp_orders orders;
    rb_word stop;       /* control plane: 1 drain and end, 2 end at once */
    rb_word stop_by_ns; /* control plane */
};

static inline struct dp_port *dp_port_of(struct dp_forwarder *f, uint64_t whom)
{
    uint32_t slot = sb_whom_slot(whom);
    if (!(whom >> 63) || slot >= DP_PORTS)
        return NULL;
    struct dp_port *port = &f->ports[slot];
    return port->state != SB_ROW_FREE && port->generation == sb_whom_generation(whom) ? port : NULL;
}

static inline uint64_t dp_whom_of(const struct dp_port *port) { return sb_whom(port->slot, port->generation); }

static inline bool dp_is_backlog(const struct dp_port *port) { return port->slot - SB_MAX_SLOTS < SB_BACKLOGS; }

static inline struct dp_backlog *dp_backlog_of(struct dp_forwarder *f, const struct dp_port *port)
{
    return &f->backlogs[port->slot - SB_MAX_SLOTS];
}

/* The endpoint that is to have what is sent to this port, also by a mailbox, or the backlog in which it waits
 * for one of several. NULL: it has gone, or does not want it any more. */
static inline struct dp_port *dp_receiving(struct dp_forwarder *f, struct dp_port *port)
{
    if (!port->alone)
        return port;
    if (port->mailbox)
        return &f->ports[port->owner];
    const struct dp_backlog *b = dp_backlog_of(f, port);
    return b->unwanted ? NULL : dp_port_of(f, b->whom);
}

/* May new messages be sent to it? */
static inline bool dp_open_for_messages(const struct dp_port *port) { return port->state == SB_ROW_LIVE; }

static inline uint64_t dp_untouched(const struct dp_port *port)
{
    uint64_t taken = rb_load_acquire(&port->up->incoming[SB_DATA].taken_count); /* before `in_hand`, see ep_take */
    return port->delivered > taken ? port->delivered - taken : 0;
}

/* Urgent events that it has not taken. They are no work, so nobody is chosen by them. */
static inline uint64_t dp_urgent_untouched(const struct dp_port *port)
{
    uint64_t delivered = rb_load(&port->down->incoming[SB_URGENT_EVENTS].delivered);
    uint64_t taken = rb_load_acquire(&port->up->incoming[SB_URGENT_EVENTS].taken_count);
    return delivered > taken ? delivered - taken : 0;
}

static inline uint64_t dp_in_hand(const struct dp_port *port)
{
    uint64_t n = rb_load(&port->up->in_hand);
    return n < 1u << 20 ? n : 1u << 20;
}

/* Something is new for it, enum sb_event_want: its bells are rung after the pass, or a backlog is visited in it. Of a
 * mailbox, for its endpoint. */
static inline void dp_touch(struct dp_forwarder *f, struct dp_port *port, uint64_t what)
{
    if (port->mailbox) {
        what = 1ull << (SB_EVENT_MAIL + port->owner_index);
        port = &f->ports[port->owner];
    }
    if (port->slot >= SB_MAX_SLOTS) {
        dp_set_add(&f->active, port->slot);
        return;
    }
    if (!port->touched)
        f->touched_slots[f->touched_count++] = port->slot;
    port->touched |= what;
}

/* After one rb_fence_seq. */
static inline void dp_ring(struct dp_port *port, uint64_t what)
{
    rb_ring_bell(&port->bell);
    if (__builtin_expect(port->event.epoch != NULL, 0))
        sb_ring_event(&port->event, what);
}

static inline void dp_close_event(struct dp_port *port)
{
    if (port->event.epoch)
        close(port->event.fd);
    port->event = (struct sb_event){0};
}

/* Somebody may be free who was not. */
static inline void dp_wake_backlogs(struct dp_forwarder *f)
{
    f->active.word[DP_BACKLOG_WORD] |= f->backlogs_open & ~f->catching_up;
}

static inline void dp_note_moved(struct dp_forwarder *f, struct dp_port *port, enum sb_ring_index ring)
{
    if (!port->tail_moved[SB_DATA] && !port->tail_moved[SB_REPLIES])
        f->moved_slots[f->moved_count++] = port->slot;
    port->tail_moved[ring] = true;
}

/* A block of its pool was returned, or it may have more: it is rung after the pass, if it waits for that. */
static inline void dp_note_pool(struct dp_forwarder *f, struct dp_port *port)
{
    if (!port->pool_moved)
        f->pool_slots[f->pool_count++] = port->slot;
    port->pool_moved = true;
}

static inline void dp_note_sent(struct dp_forwarder *f, uint64_t sent_ns)
{
    if (f->sent_count < sizeof f->sent_ns / sizeof *f->sent_ns)
        f->sent_ns[f->sent_count++] = sent_ns;
}

/* A row is read under `seq` (steady() in shmbus/views/registry.py). Odd also where a kill had left it odd. */
static inline void dp_row_begin(struct sb_row *row)
{
    rb_store(&row->seq, (rb_load(&row->seq) + 1) | 1);
    rb_fence_release(); /* with the reader's second look at `seq`: who saw a new word sees that it is odd */
}
static inline void dp_row_end(struct sb_row *row) { rb_store_release(&row->seq, rb_load(&row->seq) + 1); }

static inline void dp_row_set(struct dp_port *port, rb_word *word, uint64_t value)
{
    dp_row_begin(port->row);
    rb_store(word, value);
    dp_row_end(port->row);
}

/* Bits of enum sb_fitness. */
static inline void dp_set_health(struct dp_port *port, uint64_t bits, bool on)
{
    uint64_t health = rb_load(&port->row->health) & ~bits;
    dp_row_set(port, &port->row->health, health | (on ? bits : 0));
}

static inline void dp_notify_of(struct dp_forwarder *f, enum dp_notice_kind kind, const struct dp_port *port)
{
    dp_notify(&f->orders, &(struct dp_notice){.kind = kind, .slot = port->slot, .generation = port->generation,
                                              .reason = port->reason});
}

/* It wrote what no endpoint may: from now on nothing is read from its rings, and at its next visit it departs, so
 * that the run being forwarded need not be saved. */
static inline void dp_quarantine(struct dp_forwarder *f, struct dp_port *port)
{
    if (port->corrupt)
        return;
    port->corrupt = true;
    rb_add(&f->bus->violations, 1);
    dp_set_add(&f->active, port->slot);
}
