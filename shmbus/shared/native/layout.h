/* What stands in shared memory, and who writes it. Each segment has one writer, READY one per word:
 *
 *   BUS        dispatcher   identity, bell, slot rows, journal, counters; everybody may read it
 *   READY      each word its endpoint: "look at me", a hint
 *   UP         endpoint     its outgoing rings, its side of the incoming ones, pending requests, held messages
 *   INTERESTS  endpoint     the log of what it subscribes to and handles
 *   DOWN       dispatcher   one per endpoint: its incoming rings, the dispatcher's side of the outgoing ones
 *   BACKLOG    dispatcher   what waits until somebody who may take it is free, or has caught up; made on demand
 *   RETAINED   dispatcher   cells with the last values of each type that were published to be kept; made on demand
 *   MAILBOX    dispatcher   of one subscription, the newest that has come for it; written over, never full
 *   POOL       endpoint     payloads that it sends and that are too large for rings, and of whose it holds some; made
 *                           on demand
 *
 * Head and data of a ring lie in the producer's segment, its tail in the consumer's. The other side maps a
 * segment read-only. Words that change are rb_word; the rest is written once, before anybody looks.
 */
#pragma once

#include "ringbuf/native/prefix.h"
#include "shmbus/shared/native/door.h"
#include "shmbus/shared/native/record.h"

#define SB_LAYOUT_VERSION 1u /* the fingerprint beside it, see generated.h, is derived from these headers */

/* Which structure follows a segment's prefix. */
enum sb_segment_kind {
    SB_SEGMENT_BUS = 0x5301, SB_SEGMENT_READY = 0x5302, SB_SEGMENT_UP = 0x5303,
    SB_SEGMENT_DOWN = 0x5304, SB_SEGMENT_INTERESTS = 0x5305, SB_SEGMENT_BACKLOG = 0x5306,
    SB_SEGMENT_MAILBOX = 0x5307, SB_SEGMENT_RETAINED = 0x5308, SB_SEGMENT_POOL = 0x5309,
};

#define SB_NAME 64u     /* bytes: a name and its end, padded */
#define SB_SOURCE 88u   /* bytes: NAME@SITE and its end, padded */
#define SB_GROUPS 32u   /* bits of `interests`: plain subscriptions and 31 groups */
#define SB_HELD 64u     /* messages that an endpoint may have begun and not done, kept for handing on */
#define SB_KEPT 16u     /* of those, how many that left the ring */
#define SB_LIMITS 48u   /* messages at a time whose handlers may take so long and no longer */
#define SB_RINGS 2      /* from an endpoint */
#define SB_RINGS_IN 3   /* to an endpoint */
#define SB_URGENT_BYTES 8192u /* of the incoming ring for what is urgent */
#define SB_MAX_SLOTS 1024u
#define SB_BACKLOGS 64u /* at a time; backlog i has the slot SB_MAX_SLOTS + i wherever slots are named */
#define SB_WAITING 16u   /* interests with history of one endpoint that wait for their turn */
#define SB_CHUNKS 64u    /* segments with cells */
#define SB_MAILBOXES 192u /* at a time; mailbox i has the slot SB_FIRST_MAILBOX + i wherever slots are named */
#define SB_FIRST_MAILBOX 1088u
_Static_assert(SB_FIRST_MAILBOX == SB_MAX_SLOTS + SB_BACKLOGS, "mailboxes come after the backlogs");
#define SB_OWN_MAILBOXES 32u /* of one endpoint, at a time */
#define SB_OWN_MATCHINGS 64u /* patterns of SB_ROLE_MATCH of one endpoint, at a time */
#define SB_MAX_DEPTH 65536u /* messages, or types, that a mailbox may hold */
#define SB_MAX_REQUESTS 65535u /* a request's index has 16 bits */
#define SB_LATENCY_BUCKETS 256u
#define SB_DEATHS 16u    /* the last ones, which BUS remembers */
#define SB_LAST_LOSSES 16u /* likewise */
#define SB_KEYED_GROUPS 16u     /* groups with a key, at a time */
#define SB_MEMBERS 64u   /* of one of these, with those that have left it and are not done */
#define SB_BLOCKS 512u    /* of a pool, at a time */
#define SB_SHARES 512u   /* blocks that a receiver may hold at a time, whatever its setting `loans` */
#define SB_GRANTED 128u  /* patterns of a grant, which are looked through for a type that is new */

/* Which of an endpoint's rings in one direction. What is urgent overtakes at its receiver: it leaves its sender among
 * the data. */
enum sb_ring_index { SB_DATA = 0, SB_REPLIES = 1, SB_URGENT_EVENTS = 2 };

/* An array of these describes an endpoint's rings, so that a later lane to a peer is one more entry. */
struct sb_ring_descriptor {
    uint64_t offset;   /* of the data, in the producer's segment */
    uint64_t capacity; /* a power of two */
    uint32_t kind;     /* enum sb_ring_index */
    uint16_t peer;     /* reserved for lanes: the other end's slot */
    uint16_t path;
    uint64_t peer_generation;
};

struct sb_identity { /* a process, unmistakably */
    uint32_t pid;
    uint32_t uid;
    uint64_t start_time;     /* field 22 of /proc/PID/stat, clock ticks since boot */
    uint64_t pid_namespace;  /* inode numbers of /proc/self/ns/pid, time */
    uint64_t time_namespace;
};

/* An endpoint, a backlog or a mailbox, unmistakably; 0: nobody. */
static inline uint64_t sb_whom(uint32_t slot, uint32_t generation)
{
    return 1ull << 63 | (uint64_t)generation << 16 | slot;
}
static inline uint32_t sb_whom_slot(uint64_t whom) { return (uint32_t)(whom & 0xffff); }
static inline uint32_t sb_whom_generation(uint64_t whom) { return (uint32_t)(whom >> 16); }

/* Who is to have what one of several gets: those of the lowest rank alone, as long as there are any. By its name, see
 * SB_LINK_MARK. */
enum sb_rank {
    SB_RANK_HERE = 0,   /* it does its work on this bus */
    SB_RANK_LINK = 1,   /* it passes on to other buses what nobody here does */
    SB_RANK_KEEPER = 2, /* it has what waits for a link that is being restarted, and does nothing with it */
};
static inline enum sb_rank sb_rank_of(const char *name)
{
    return name[0] != SB_LINK_MARK ? SB_RANK_HERE : name[1] != SB_LINK_MARK ? SB_RANK_LINK : SB_RANK_KEEPER;
}

/* BUS ------------------------------------------------------------------------------------------------------ */

/* What the dispatcher says of the bus. */
enum sb_bus_state {
    SB_BUS_STARTING = 0,
    SB_BUS_SERVING = 1,
    SB_BUS_CLOSING = 2,
    SB_BUS_ENDED = 3,
    SB_BUS_HANDOVER = 4, /* the dispatcher went, and left the bus to a successor */
};

/* What the journal says is being done. */
enum sb_journal_kind {
    SB_JOURNAL_NONE = 0,
    SB_JOURNAL_RUN = 1,   /* a run goes to a target */
    SB_JOURNAL_LOST = 2,  /* a run is counted lost at a target */
    SB_JOURNAL_ERROR = 3, /* a request ends with an error, or a query with its answer */
    SB_JOURNAL_LIVE = 4,  /* an interest has what was kept, and gets what others get */
};

/* What the dispatcher has begun: one operation with absolute values, so that a successor can tell whether it was
 * done and repeat it without harm. `kind` is stored 0 before any other field changes and its value last
 * (release). */
struct sb_journal {
    rb_word kind;              /* all words of it: dispatcher */
    rb_word source;            /* slot | ring << 16 | reclaim << 24 */
    rb_word source_generation;
    rb_word from, to;          /* positions in the source ring */
    rb_word target;            /* slot | ring << 16 */
    rb_word target_generation;
    rb_word head;              /* RUN, ERROR, LIVE: the target's head before. LOST: the counter after */
    rb_word bits;              /* RUN, LOST: what the entry in todo owes after, or of a reclaimed record what is
                                * dealt with after */
    rb_word detail;            /* RUN: index in todo. LOST: the same | enum sb_loss << 32. ERROR: index of the pending
                                * entry. LIVE: the interest's id */
    rb_word reserved[6];
};
_Static_assert(sizeof(struct sb_journal) == 128, "the journal is two cache lines");

/* Where the endpoint of a slot is in its life. */
enum sb_row_state {
    SB_ROW_FREE = 0,
    SB_ROW_LIVE = 1,    /* admitted */
    SB_ROW_LEAVING = 2, /* closing in good order */
    SB_ROW_DYING = 3,   /* confirmed dead, evicted or quarantined; its messages are handed on */
    SB_ROW_GONE = 4,    /* nothing of it is left but names to unlink */
};

/* Why an endpoint ended, as far as it is known. Users see these words in small letters. */
enum sb_reason {
    SB_REASON_ALIVE = 0,
    SB_REASON_DETACHED = 1,    /* in good order */
    SB_REASON_KILLED = 2,      /* by a signal */
    SB_REASON_EXITED = 3,      /* without detaching */
    SB_REASON_EXEC = 4,        /* its process runs another program now */
    SB_REASON_EVICTED = 5,     /* with Bus.evict() */
    SB_REASON_QUARANTINED = 6, /* it wrote what no endpoint writes */
    SB_REASON_DIED = 7,        /* more is not known */
};

#define SB_REASONS 8u

/* Why a receiver did not get a message that it should have got. Users see these words in small letters. */
enum sb_loss {
    SB_LOSS_DROPPED = 0,   /* there was no space, and it had rather lose than delay: drop_newest, a tap */
    SB_LOSS_SLOW = 1,      /* its ring, or for it a sender's pool, stayed full for block_timeout; or at an event of the
                            * bus's own */
    SB_LOSS_TOO_LARGE = 2, /* larger than its ring takes */
    SB_LOSS_ENDED = 3,     /* it ended before it had taken it */
    SB_LOSS_ABANDONED = 4, /* its sender was quarantined in the midst of it */
};
#define SB_LOSSES 5u

/* What keeps an endpoint from being chosen while others can be. */
enum sb_fitness {
    SB_FIT = 0,
    SB_STALLED = 1 << 0, /* it is stopped, or takes no messages */
    SB_SLOW = 1 << 1,    /* its ring, or for it a sender's pool, stayed full for block_timeout */
    SB_STOPPED = 1 << 2, /* its process is stopped; it is stalled, too */
};

struct sb_row {              /* read under `seq`: odd while it changes */
    rb_word seq;             /* all words of a row: dispatcher */
    rb_word state;           /* enum sb_row_state */
    rb_word generation;
    rb_word reason;          /* why it is DYING or GONE */
    rb_word health;          /* enum sb_fitness */
    rb_word since_ns;        /* CLOCK_MONOTONIC at admission */
    rb_word since_wall_ns;   /* CLOCK_REALTIME at admission */
    rb_word down_ns;         /* CLOCK_MONOTONIC when its end was confirmed */
    struct sb_identity identity;
    uint64_t nonce;          /* with pid and start time it gives the names of its segments */
    char name[SB_NAME];
    rb_word down_emitted;    /* 1: $bus.endpoint.down was emitted */
    rb_word reserved[10];
};
_Static_assert(sizeof(struct sb_row) == 256, "a row is four cache lines");

struct sb_death {        /* an endpoint that did not end in good order; read under `seq`: odd while it changes */
    rb_word seq;         /* all words of it: dispatcher */
    rb_word nth;         /* how many such ends the bus had had with this one; 0: there is none */
    rb_word generation;
    rb_word pid;
    rb_word reason;      /* enum sb_reason */
    rb_word wall_ns;     /* CLOCK_REALTIME when it was confirmed */
    rb_word in_hand;     /* messages that it had begun and not done */
    rb_word untouched;   /* messages that it had not taken */
    rb_word pending;     /* its own requests under way */
    char name[SB_NAME];
};

struct sb_last_loss {    /* what a receiver did not get, and did not choose so; read under `seq`: odd while it
                          * changes */
    rb_word seq;         /* all words of it: dispatcher */
    rb_word whom;        /* the receiver, an endpoint or a backlog: sb_whom(); 0: there is none */
    rb_word why;         /* enum sb_loss */
    rb_word pid;         /* 0: a backlog */
    rb_word count;       /* how many it had lost for this reason by then */
    rb_word at_ns;       /* CLOCK_MONOTONIC of the last */
    rb_word size;        /* bytes of the payload of the last */
    rb_word limit;       /* bytes of the largest payload of that type that the receiver's ring takes */
    char name[SB_NAME];  /* the receiver's */
    char source[SB_SOURCE];     /* who sent the last; empty: it is not known, nor what follows */
    char type[SB_MAX_TYPE + 1]; /* of the last */
};

struct sb_member {       /* of a group with a key */
    rb_word whom;        /* dispatcher: sb_whom(); 0: nobody. Stored last */
    rb_word joined;      /* dispatcher: the epoch from which on it is a member, */
    rb_word left;        /* dispatcher: and from which on it is none; 0: it is */
    rb_word mark;        /* dispatcher: with its tail there it is done with all that it had before keys left it last */
};

struct sb_keyed {        /* a group whose messages of one key go to one member, see dispatcher/native/keyed.h */
    rb_word key;         /* dispatcher: which tokens, as in struct sb_interest; 0: the entry is free. Stored last */
    rb_word epoch;       /* dispatcher: counts the changes of its members; stored after them, which makes it one step */
    rb_word settled;     /* dispatcher: what was sent by earlier epochs than this is done */
    char name[SB_NAME];
    char pattern[SB_MAX_TYPE + 1]; /* that of all its members */
    struct sb_member member[SB_MEMBERS];
};

struct sb_bus { /* the segment BUS, followed by its rows */
    struct rb_prefix prefix;

    /* Identity of the dispatcher, under `identity_seq` (odd while it changes); the rest of this block is written
     * once, when the bus is made. */
    rb_word identity_seq;       /* dispatcher */
    struct sb_identity identity;
    uint64_t serial;            /* counts the dispatchers that this bus has had */
    uint64_t started_ns;        /* of this dispatcher */
    uint64_t slots;
    uint64_t in_bytes, out_bytes, reply_bytes; /* of its endpoints' rings, unless they say otherwise */
    uint64_t max_requests;
    uint64_t block_timeout_ns;
    uint64_t stall_after_ns;
    uint64_t prefetch;          /* of its endpoints, unless they say otherwise */
    uint64_t backlog_bytes;
    uint64_t mailbox_bytes;
    uint64_t max_deliveries;
    uint64_t batch_per_pass;
    uint64_t history;           /* values of a type that are kept */
    uint64_t retain_bytes;      /* of all cells, and payloads in pools, together */
    uint64_t pool_bytes;        /* of each endpoint's pool at the most, unless it says otherwise */
    uint64_t pool_total_bytes;  /* of all pools together at the most */
    uint64_t loans;             /* blocks that an endpoint may hold at a time, unless it says otherwise */
    uint64_t rows_offset;       /* struct sb_row[slots] */
    char name[SB_NAME];
    char package[32];           /* version of the package that serves */

    _Alignas(64) rb_word state; /* dispatcher: enum sb_bus_state */
    rb_word last_generation;    /* dispatcher */
    rb_word backlogs_made;      /* dispatcher: how many backlogs it has made so far, which numbers them */
    rb_word mailboxes_made;     /* dispatcher: likewise */
    rb_word attached;           /* dispatcher: how many rows are not free */
    rb_word wills;              /* dispatcher, which waits for it: 0 while it serves, see will.h */
    rb_word routes_version;     /* dispatcher: raised once the routes reflect a change of anybody's interests */

    _Alignas(64) rb_word bell;  /* dispatcher: the epoch of its doorbell, odd while it is parked */

    _Alignas(64) rb_word heartbeat_ns; /* forwarding plane, at least every 100 ms while anyone is attached */
    rb_word control_ns;                /* control plane, each time it has run */

    _Alignas(64) struct sb_journal journal;
    rb_word backlog[SB_BACKLOGS]; /* dispatcher: the number of the backlog there, its generation; 0: none */
    rb_word mailbox[SB_MAILBOXES]; /* dispatcher: likewise of mailboxes */

    /* Values that are kept, see keep.h. */
    rb_word retained_last;      /* dispatcher: the highest number that a value was given; stored before that value */
    rb_word retained_chunks;    /* dispatcher: segments with cells; raised when the next one is complete */
    rb_word retained;           /* dispatcher: values */
    rb_word retained_bytes;     /* dispatcher: of the cells that they take, and of their payloads in pools */
    rb_word evicted;            /* dispatcher: values that went, or were not kept, for want of space */

    /* Pools, see dispatcher/native/pool.h. */
    rb_word pools_granted;      /* dispatcher: bytes that all pools together may have reserved */
    rb_word pools_short;        /* dispatcher: bytes that endpoints want reserved and may not have, since others have
                                 * them: who has what it does not use gives it back soon */
    rb_word pools_left;         /* dispatcher: pools whose endpoint has gone, and of which somebody holds something */
    rb_word fits[SB_RINGS_IN];  /* dispatcher: bytes of the largest record that fits the incoming rings of all endpoints
                                 * that may get one; 0: none may. What is larger travels by a pool */

    /* Counters of the forwarding plane. */
    _Alignas(64) rb_word routed;       /* records published at a receiver */
    rb_word unrouted;                  /* events that nobody matched, and that are not kept */
    rb_word no_route;                  /* sends and requests that nobody handles */
    rb_word forbidden;                 /* what endpoints tried and may not by their grants */
    rb_word dead_letters;
    rb_word orphans;                   /* late, second or forged replies */
    rb_word lost;                      /* over all receivers */
    rb_word lost_by[SB_LOSSES];        /* of these, by enum sb_loss */
    rb_word redelivered;
    rb_word violations;                /* ports quarantined */
    rb_word types_known;               /* entries in the cache of exact types */
    rb_word patterns;
    rb_word events_lost;               /* the bus's own events that did not fit */
    rb_word backlogs_failed;           /* backlogs that could not be made: no memory, or too many at a time */
    rb_word mailboxes_failed;          /* likewise of mailboxes */
    rb_word cancels;                   /* withdrawn requests of which the server was told, */
    rb_word cancels_lost;              /* how often one had no space to be told */
    rb_word credits_lost;              /* credits of streams that their server had no space for */
    rb_word passes;
    rb_word latency_count, latency_sum_ns, latency_max_ns;
    rb_word latency[SB_LATENCY_BUCKETS]; /* sb_latency_bucket() */

    /* Ends that were not in good order. Written by the forwarding plane, and kept when a successor adopts the bus. */
    _Alignas(64) rb_word deaths[SB_REASONS]; /* by enum sb_reason */
    struct sb_death last_deaths[SB_DEATHS];  /* the one with `nth` stands at (nth - 1) % SB_DEATHS */
    struct sb_last_loss last_losses[SB_LAST_LOSSES]; /* one for each receiver and reason; written and kept likewise */
    struct sb_keyed keyed[SB_KEYED_GROUPS];         /* kept likewise */
};

/* Eight buckets an octave: bucket b begins at sb_latency_floor(b) ns. */
static inline uint32_t sb_latency_bucket(uint64_t ns)
{
    if (ns < 16)
        return (uint32_t)ns / 2;
    uint32_t octave = 63u - (uint32_t)__builtin_clzll(ns); /* >= 4 */
    uint32_t bucket = (octave - 3) * 8 + (uint32_t)((ns >> (octave - 3)) & 7);
    return bucket < SB_LATENCY_BUCKETS ? bucket : SB_LATENCY_BUCKETS - 1;
}

static inline uint64_t sb_latency_floor(uint32_t bucket)
{
    if (bucket < 8)
        return bucket * 2u;
    return (uint64_t)(8 + bucket % 8) << (bucket / 8);
}

/* READY ---------------------------------------------------------------------------------------------------- */

struct sb_ready { /* the segment READY */
    struct rb_prefix prefix;
    _Atomic uint32_t word[]; /* word[slot]: its endpoint raises it after it has stored something new */
};

/* UP ------------------------------------------------------------------------------------------------------- */

/* What an endpoint says of itself. */
enum sb_up_state { SB_UP_ATTACHING = 0, SB_UP_ATTACHED = 1, SB_UP_CLOSING = 2, SB_UP_CLOSED = 3 };

/* What an endpoint's event is written for: bits. */
enum sb_event_want {
    SB_EVENT_DATA = 1,    /* something new in its incoming data ring, or its urgent one */
    SB_EVENT_REPLIES = 2, /* in its incoming reply ring */
    SB_EVENT_SPACE = 4,   /* a tail of its outgoing rings has reached `need` */
    SB_EVENT_STATE = 8,   /* anything else for which its doorbell is rung */
    SB_EVENT_END = 16,    /* of that, what ends calls: of the bus, of its dispatcher, of the endpoint */
    /* and 1 << (SB_EVENT_MAIL + i): in its mailbox i */
};
#define SB_EVENT_ANY (~(uint64_t)0)
#define SB_EVENT_MAIL 32u
_Static_assert(SB_EVENT_MAIL + SB_OWN_MAILBOXES <= 64, "a bit for each mailbox");

struct sb_outgoing {                        /* the producer's side of a ring to the dispatcher */
    _Alignas(64) rb_word head;              /* endpoint */
    rb_word need;                           /* endpoint: ring me when the tail has reached this; ~0: no need */
    rb_word interests_version;              /* endpoint, in [SB_DATA] only: how often its interests changed */
    rb_word interests_serial;               /* endpoint, in [SB_DATA] only: which interests segment holds them */
    rb_word high;                           /* endpoint */
};

struct sb_incoming {                        /* the consumer's side of a ring from the dispatcher */
    _Alignas(64) rb_word tail;              /* endpoint */
    rb_word taken;                          /* endpoint: the first record that nobody has taken */
    rb_word taken_count;                    /* endpoint: records taken */
};

/* What becomes of a held message at its holder's death. */
enum sb_held_state {
    SB_HELD_OPEN = 0,  /* it is handed on */
    SB_HELD_DONE = 1,  /* nothing: it was done */
    SB_HELD_FINAL = 2, /* a send begun: it becomes a dead letter */
};

struct sb_held_entry {    /* a message begun and not done, kept for handing on */
    rb_word position;     /* endpoint: in the ring; SB_NOWHERE: free */
    rb_word done;         /* endpoint: enum sb_held_state */
    rb_word returned;     /* endpoint: where the SB_NACK that gives it back ends in the outgoing data ring; 0: none
                           * does; SB_NOWHERE: it is to be given back later */
    rb_word settled;      /* endpoint: of its interests those for which it is done */
};

struct sb_let_go {        /* a message that was held, left the ring, is not done: the first bytes of its record */
    rb_word at;           /* endpoint: its position plus one; 0: free */
    rb_word returned;     /* endpoint: as in struct sb_held_entry */
    uint8_t record[432];  /* written before `at` */
};

/* A pool: memory of the endpoint's, which everybody else maps read-only. So nobody but the endpoint can use a block
 * again, and whoever has looked says so where it may write:
 *
 *   sender      POOL.blocks[i].use, then the record with that use in its outgoing ring
 *   dispatcher  gives the record on; each copy of it is a *share* of the block
 *   receiver    POOL.shares[], its own, before `taken` passes the record; cleared when nobody looks any more, then
 *               `shares_ended` + 1
 *   dispatcher  the record has been consumed, and no share is left: DOWN.returned[i] := its use
 *   sender      returned[i] == blocks[i].use? The block is free
 *
 * Positions are never the same for two records of a ring, so a use and a share are unmistakable. */
static inline uint64_t sb_use(uint64_t position, uint32_t ring) { return position | (ring + 1); }
/* Of the record that stands there in the receiver's incoming ring, */
static inline uint64_t sb_share_of(uint64_t position, uint32_t ring) { return position | (ring + 1); }
/* or that has this number in its mailbox `index`, of this generation: of those that were its mailbox `index` before,
 * messages may still be looked at. */
static inline uint64_t sb_share_of_mail(uint32_t index, uint64_t whom, uint64_t number)
{
    return (uint64_t)(uint16_t)sb_whom_generation(whom) << 48 | (number & ((1ull << 40) - 1)) << 8 | index << 3 | 4;
}
static inline bool sb_is_of_mail(uint64_t share) { return (share & 7) == 4; }
static inline uint32_t sb_share_mailbox(uint64_t share) { return (uint32_t)(share >> 3) & (SB_OWN_MAILBOXES - 1); }
static inline uint64_t sb_share_number(uint64_t share) { return share >> 8 & ((1ull << 40) - 1); }
_Static_assert(SB_OWN_MAILBOXES == 32, "five bits of a share");

struct sb_share {         /* a block that a receiver holds */
    rb_word share;        /* endpoint: sb_share_of(), or sb_share_of_mail(); stored last; 0: free */
    rb_word pool;         /* endpoint: whose pool, sb_whom() */
    rb_word block;        /* endpoint: index | 1 << 63 */
    rb_word bytes;        /* endpoint: of the payload */
};

struct sb_use {           /* a block of the endpoint's own pool */
    rb_word use;          /* endpoint: sb_use() of its record, stored before that is published; 0: none was sent with
                           * it */
    rb_word bytes;        /* endpoint: of its memory, whole pages; 0: it is free, or its endpoint has closed and does
                           * not look at it */
};

struct sb_pool {          /* the segment POOL, followed by the memory of the blocks, from SB_POOL_DATA on */
    struct rb_prefix prefix;
    uint64_t slot, generation; /* of its endpoint */
    uint64_t bytes;       /* of the segment. Behind this structure it is reserved only where there are blocks */
    rb_word shares_used;  /* endpoint: entries from here on were never used; stored before `share` */
    struct sb_share shares[SB_SHARES]; /* of the pools of others */
    struct sb_use blocks[SB_BLOCKS];
};
#define SB_POOL_DATA 28672u /* whole pages */
_Static_assert(sizeof(struct sb_pool) <= SB_POOL_DATA, "the blocks come behind the tables");

/* How much of its pool an endpoint wants to have reserved, and may: pages, and the number of the question. */
static inline uint64_t sb_pool_question(uint64_t number, uint64_t pages) { return number << 40 | pages; }
static inline uint64_t sb_pool_pages(uint64_t word) { return word & ((1ull << 40) - 1); }

/* Bytes of blocks that a pool has at the most, whose file is so large; `total`: what all pools together may have. */
static inline uint64_t sb_pool_most(uint64_t size, uint64_t total)
{
    return size - SB_POOL_DATA < total ? size - SB_POOL_DATA : total;
}

struct sb_limited {       /* a message whose handler has a limit; written between two stores of its word in `limits` */
    rb_word limit_ns;     /* endpoint: how long it may take */
    rb_word whom;         /* endpoint: who sent it */
    rb_word kind;         /* endpoint: enum sb_kind */
    rb_word type_length;  /* endpoint */
    uint8_t id[16];       /* of a request */
    char source[SB_SOURCE]; /* who sent it on another bus; empty: it is of this one */
    char type[SB_MAX_TYPE + 1];
};

struct sb_had {           /* what an endpoint has had of mailbox i, and of those that were its mailbox i before */
    rb_word interest;     /* endpoint: whose mailbox i is; 0: it has none */
    rb_word whom;         /* endpoint: sb_whom() of the one that the next three are about; 0 while it changes */
    rb_word received;     /* endpoint: messages that it took */
    rb_word taken;        /* endpoint: of those that have this number or a lower one it takes none any more */
    rb_word lost_before;  /* endpoint: `lost` when that one was mapped */
    rb_word lost;         /* endpoint: those of all of them that were written over untaken, as far as it has seen */
};

/* Whether an entry of the table of requests is in use. */
enum sb_pending_state { SB_PENDING_FREE = 0, SB_PENDING_WAITING = 1 };

struct sb_pending {       /* a request under way */
    uint8_t id[16];       /* written before `state` becomes waiting */
    uint64_t deadline_ns;
    rb_word state;        /* endpoint: enum sb_pending_state */
};

struct sb_up { /* the segment UP, followed by the pending requests and the data of the outgoing rings */
    struct rb_prefix prefix;
    struct sb_identity identity;
    uint64_t nonce;
    uint64_t stays;                                /* 1: at an orderly end of the bus it waits for the next
                                                    * dispatcher */
    uint64_t prefetch;                             /* what it may have untouched and in hand: at least 1 */
    uint64_t pool_limit;                           /* bytes that its pool may have */
    uint64_t loans;                                /* blocks that it may hold; of more it makes copies */
    char name[SB_NAME];
    struct sb_ring_descriptor outgoing_ring[SB_RINGS]; /* in UP */
    struct sb_ring_descriptor incoming_ring[SB_RINGS_IN]; /* wanted; in DOWN at the offsets that DOWN says */
    uint64_t pending_count;
    uint64_t pending_offset;                       /* struct sb_pending[pending_count] */

    _Alignas(64) rb_word state;                    /* endpoint: enum sb_up_state */
    rb_word first_limit_ns;                        /* endpoint: the earliest of `limits`; 0: there is none */
    rb_word pool_asked;                            /* endpoint: sb_pool_question(): how much it wants reserved, what it
                                                    * has included. Lowered only after that much was given back */
    rb_word shares_ended;                          /* endpoint: raised after entries of `shares` were cleared, or
                                                    * records with SB_POOLED were taken and not entered there */
    struct sb_outgoing outgoing[SB_RINGS];
    struct sb_incoming incoming[SB_RINGS_IN];
    _Alignas(64) rb_word bell;                     /* endpoint: epoch of its doorbell, odd while it is parked */
    rb_word event;                                 /* endpoint: epoch of its event, odd while that is to be written */
    rb_word event_wants;                           /* endpoint: for what, enum sb_event_want; stored before `event` */

    _Alignas(64) rb_word in_hand;                  /* endpoint: messages begun and not done */
    rb_word in_hand_since_ns;                      /* endpoint: when in_hand last rose from 0 */
    rb_word work_done;                             /* endpoint: group messages, commands and requests that it began
                                                    * and that are done */
    rb_word receivers;                             /* endpoint: threads inside receive, iteration or run */
    rb_word progress_ns;                           /* endpoint: when it last took a message, to some 10 ms */
    rb_word sent_events, sent_sends, sent_requests, sent_replies;          /* endpoint */
    rb_word received_events, received_sends, received_requests, received_replies;
    rb_word sent_parts, received_parts;            /* endpoint: of replies */
    rb_word streaming;                             /* endpoint: replies in parts that it has begun and not ended */
    rb_word orphans;                               /* endpoint: replies that no request waited for */
    rb_word expired;                               /* endpoint: requests not begun because their deadline was over */
    rb_word withdrawn;                             /* endpoint: requests not begun because they had been withdrawn */
    rb_word handler_errors, decode_errors;         /* endpoint */
    rb_word timeouts;                              /* endpoint: requests that ended in RequestTimeout */
    rb_word nacked;                                /* endpoint: messages that it gave back for others to have */
    rb_word let_go;                                /* endpoint: held messages that left the ring undone */
    rb_word let_go_unkept;                         /* endpoint: those not done for which `kept` had no space */
    rb_word let_go_from;                           /* endpoint: of those let go the first that may not be done, its
                                                    * position plus one; 0: all are done */
    rb_word watcher;                               /* endpoint: the thread that exec ends, its tid; 0: not known */

    _Alignas(64) rb_word pool_bytes;               /* endpoint: of its segment POOL, once that is complete, and before
                                                    * it enters anything there; 0: there is none */
    rb_word pool_reserved;                         /* endpoint: bytes that are */
    rb_word pool_in_use;                           /* endpoint: bytes of its blocks that are not free */
    rb_word pool_need;                             /* endpoint: not 0: ring me when one of them is returned, or more is
                                                    * granted: I wait for so many pages in one piece */
    rb_word pool_waits;                            /* endpoint: how often a sender waited for a block */
    rb_word copied;                                /* endpoint: payloads of which it made a copy, beyond `loans` */

    _Alignas(64) struct sb_had had[SB_OWN_MAILBOXES];

    _Alignas(64) struct sb_held_entry held[SB_HELD];
    struct sb_let_go kept[SB_KEPT];
    _Alignas(64) rb_word limits[SB_LIMITS];        /* endpoint: when the handler's time is over; 0: free */
    struct sb_limited limited[SB_LIMITS];
};

/* DOWN ----------------------------------------------------------------------------------------------------- */

/* What the dispatcher says to an endpoint. From RECLAIMED on it needs nothing of it any more. */
enum sb_down_state {
    SB_DOWN_LIVE = 1, SB_DOWN_DRAINED = 2, SB_DOWN_EVICTED = 3, SB_DOWN_RECLAIMED = 4,
    SB_DOWN_ENDED = 5, /* the bus has ended for it, and stays for others, which wait for the next dispatcher */
};

/* Why the dispatcher does not route by an interest. */
enum sb_refusal {
    SB_REFUSED_KEY = 1,   /* its group has another key or pattern */
    SB_REFUSED_GROUP = 2, /* other members have no key, or it has none and they have */
    SB_REFUSED_FULL = 3,  /* there are too many groups with a key */
    SB_REFUSED_FORBIDDEN = 4, /* its grant does not cover it */
};

struct sb_down_incoming {                   /* the producer's side of a ring to the endpoint */
    _Alignas(64) rb_word head;              /* dispatcher */
    rb_word need;                           /* dispatcher: ring me when your tail has reached this; ~0: no need */
    rb_word delivered;                      /* dispatcher: records published here */
    rb_word high;                           /* dispatcher */
    rb_word reclaim;                        /* dispatcher: after the endpoint's end, its tail; SB_NOWHERE before */
    rb_word reclaim_bits;                   /* dispatcher: dp_reclaimed(): what of one record is dealt with */
    rb_word wanted;                         /* dispatcher: ring me when less is untouched than the low half says and
                                             * you may have more; 0: no; the high half counts the questions */
};

struct sb_down_outgoing {                   /* the consumer's side of a ring from the endpoint */
    _Alignas(64) rb_word tail;              /* dispatcher */
    rb_word last;                           /* dispatcher: where the endpoint's head was at its end: what it publishes
                                             * later does not count. Written before `reclaim` of its data ring, as
                                             * is that of its urgent one */
};

struct sb_target {        /* whom the dispatcher chose for the request in pending entry i */
    uint8_t id[16];
    rb_word whom;         /* dispatcher: slot | generation << 16 | 1 << 63; 0: none */
    rb_word done;         /* dispatcher: 0, or 1 + position of the accepted reply in the target's reply ring */
};
#define SB_DONE_BY_ERROR (~(uint64_t)0)
#define SB_DONE_BY_CANCEL (~(uint64_t)1) /* whom it was given to was told that it is withdrawn */

struct sb_todo_target { /* what is still owed of a fan-out */
    rb_word whom;       /* dispatcher: slot | generation << 16 | 1 << 63 */
    rb_word bits;       /* dispatcher: interests bits, 1 << 32 where it is lossy, 1 << 33 where it is lost; low half 0:
                         * done */
};

struct sb_todo {        /* of the data ring alone */
    rb_word from;       /* dispatcher: ~0: none; stored ~0 before anything changes and its value last (release) */
    rb_word to;         /* dispatcher */
    rb_word count;      /* dispatcher: entries in use */
};

struct sb_down { /* the segment DOWN, followed by targets, todo and the data of the incoming rings */
    struct rb_prefix prefix;
    uint64_t slot;
    uint64_t generation;
    struct sb_ring_descriptor incoming_ring[SB_RINGS_IN];
    uint64_t target_count, target_offset;  /* struct sb_target[target_count], one per pending entry */
    uint64_t todo_count, todo_offset;      /* struct sb_todo_target[todo_count], one per slot, backlog,
                                            * mailbox and group with a key */
    uint64_t rights_offset;                /* struct sb_rights; 0: it has no grant, and may do everything */

    _Alignas(64) rb_word state;            /* dispatcher: enum sb_down_state */
    rb_word interests_seen;                /* dispatcher: the version of the interests that routes reflect */
    rb_word refused;                       /* dispatcher: the id of the interest that it refused last, which stays so */
    rb_word refused_why;                   /* dispatcher: enum sb_refusal; both stored before `interests_seen` */
    rb_word event_known;                   /* dispatcher: the serial of the one that rings the endpoint's event; 0:
                                            * none */
    struct sb_down_outgoing outgoing[SB_RINGS];
    struct sb_down_incoming incoming[SB_RINGS_IN];
    _Alignas(64) rb_word lost;             /* dispatcher: messages that this endpoint should have got and did not */
    rb_word lost_by[SB_LOSSES];            /* dispatcher: of these, by enum sb_loss; stored after `lost` */
    rb_word mailbox_lost;                  /* dispatcher: of these, what was written over in its mailboxes; counted at
                                            * its end */
    rb_word lost_untold;                   /* dispatcher: a bit by enum sb_loss: $bus.lost is to tell of more of
                                            * these */
    rb_word undeliverable;                 /* dispatcher: its sends that nobody handled, its dead letters */
    rb_word unrouted;                      /* dispatcher: its events that nobody matched, and that are not kept */
    rb_word redelivered;                   /* dispatcher: messages handed on to it */
    rb_word forwarded;                     /* dispatcher: records taken from its rings */
    rb_word overruns;                      /* dispatcher: messages whose handler took longer than its limit */
    rb_word retained_number;               /* dispatcher: of the last value of its own that was kept; 0: that cleared */
    rb_word retained_to;                   /* dispatcher: where the last record of its own that was kept, or cleared,
                                            * ends in its data ring; stored after `retained_number` */
    rb_word history_read;                  /* dispatcher: the highest id of its interests with history that was read;
                                            * stored after `waiting` */
    rb_word waiting[SB_WAITING];           /* dispatcher: ids of those that have not begun to get what was kept; 0:
                                            * none */
    rb_word limits_told[SB_LIMITS];        /* dispatcher: the word of `limits` whose end it has told of */
    rb_word mailbox[SB_OWN_MAILBOXES];     /* dispatcher: sb_whom() of the endpoint's mailbox i; 0: none; or why there
                                            * is none, enum sb_no_mailbox */
    rb_word pool_granted;                  /* dispatcher: the last UP.pool_asked that it answers: the same question, and
                                            * the pages that it may have, which may rise later */
    rb_word returned[SB_BLOCKS];           /* dispatcher: the last use of block i that is over: the record is consumed,
                                            * and nobody holds a share */
    struct sb_todo todo;
};

/* The ways in which a grant lets an endpoint use the bus. Users see these words in small letters. */
enum sb_right {
    SB_RIGHT_PUBLISH = 0,   /* events */
    SB_RIGHT_SUBSCRIBE = 1,
    SB_RIGHT_HANDLE = 2,
    SB_RIGHT_REQUEST = 3,   /* and send commands */
};
#define SB_RIGHT_COUNT 4u

/* What an endpoint with a grant may do: the last of its DOWN, followed by the patterns, each with a byte for its enum
 * sb_right and one for its length before it. It does not change, so a successor enforces it as it stands. */
struct sb_rights {
    uint64_t bytes;      /* of the patterns */
    rb_word refused;     /* dispatcher: how often the endpoint tried what it may not */
    rb_word told;        /* dispatcher: of these, how many $bus.endpoint.forbidden has told of */
    rb_word seq;         /* dispatcher: odd while the next two change */
    rb_word right;       /* dispatcher: enum sb_right that it lacked last, */
    char type[SB_MAX_TYPE + 1]; /* and the type or pattern for which */
};

/* Why a mailbox could not be made. */
enum sb_no_mailbox { SB_MAILBOX_NO_MEMORY = 1, SB_MAILBOX_TOO_MANY = 2 };

#define SB_NO_NEED (~(uint64_t)0)
#define SB_NOWHERE (~(uint64_t)0)

/* BACKLOG -------------------------------------------------------------------------------------------------- */

/* Its ring is incoming_ring[SB_DATA] of `down`, with `reclaim` as the tail; `forwarded` counts what has left it. */
struct sb_backlog { /* the segment BACKLOG, followed by the data of its ring */
    struct sb_down down;
    uint64_t former;     /* of a group with a key: whom the keys belonged to that wait here, sb_whom(); 0: of any
                          * other */
    uint64_t whom;       /* one that catches up: what was kept waits for it, then what came since; 0: work waits */
    uint64_t interest;   /* of that endpoint: the id of the one for which it waits */
    uint64_t number;     /* values of this number, and lower ones, are in here already, or have been replaced */
    char group[SB_NAME]; /* the queue group whose messages wait; empty: commands and requests */
    char type[SB_MAX_TYPE + 1]; /* of the message for which it was made; of one that catches up, its pattern */
};

/* RETAINED ------------------------------------------------------------------------------------------------- */

#define SB_CELL_BYTES 256u /* bytes */

struct sb_cell { /* the beginning of each: its bytes follow */
    rb_word number; /* dispatcher: of the value that begins here, see struct sb_value; 0: none does */
    rb_word next;   /* dispatcher: the cell in which it goes on, plus one; 0: it ends here */
};

/* A value that is kept, in a chain of cells. Its number, which no other had, is stored last (release), and 0 before any
 * cell of it is used again: who finds the same number after copying has copied it whole. */
struct sb_value { /* the beginning of its first cell; its record follows, as it goes to receivers */
    struct sb_cell cell;
    uint64_t whom; /* who published it, */
    uint64_t end;  /* and where its record ends in that one's data ring */
};
_Static_assert(sizeof(struct sb_value) == 32, "the first cell of a value has no holes");

/* In each segment RETAINED, behind its prefix: so that SB_CHUNKS of them hold all. */
static inline uint64_t sb_chunk_cells(uint64_t retain_bytes)
{
    uint64_t bytes = retain_bytes / SB_CHUNKS > (1u << 20) ? (retain_bytes + SB_CHUNKS - 1) / SB_CHUNKS : 1u << 20;
    return ((bytes < retain_bytes ? bytes : retain_bytes) + SB_CELL_BYTES - 1) / SB_CELL_BYTES;
}

/* MAILBOX -------------------------------------------------------------------------------------------------- */

/* Messages that came are numbered from 1 on. `head` of incoming[SB_DATA] of `down` is the number of the last one that
 * is published; nothing else of the ring is used. */
struct sb_mailbox {       /* the segment MAILBOX, followed by its entries and cells */
    struct sb_down down;  /* `lost_by` says how many of what was kept are too large; `mailbox_lost`: how many of them
                           * are counted */
    uint64_t owner;       /* sb_whom() of the endpoint */
    uint64_t interest;    /* its id */
    uint64_t index;       /* of DOWN.mailbox and UP.had */
    uint64_t latest;      /* 1: of each type the newest; 0: the last ones */
    uint64_t depth;       /* entries: types or messages */
    uint64_t entries_offset; /* struct sb_mail[depth] */
    uint64_t cell_count, cells_offset; /* struct sb_mail_cell[cell_count] */
    uint64_t filled_to;   /* it was made with what was kept, up to the value of this number; 0: with nothing */
    rb_word used;         /* dispatcher: `latest`: no entry from here on was ever used; stored before the entry's
                           * number */
    char pattern[SB_MAX_TYPE + 1];
};

struct sb_mail {          /* one message. Unless `latest`, number n stands at (n - 1) % depth */
    rb_word number;       /* dispatcher: stored 0 before the entry or its cells change, and its value last (release) */
    rb_word at;           /* dispatcher: the first cell, and the record's length << 32 */
};

#define SB_MAIL_WORDS 63u
struct sb_mail_cell {          /* a part of a record; the first has its header and type whole */
    rb_word next;         /* dispatcher: the cell that follows */
    rb_word words[SB_MAIL_WORDS]; /* dispatcher */
};
#define SB_MAIL_BYTES (8u * SB_MAIL_WORDS)
_Static_assert(SB_MAIL_BYTES >= SB_HEADER + SB_MAX_TYPE, "the first cell has the type");

/* INTERESTS ------------------------------------------------------------------------------------------------ */

/* What an entry of the interest log does. */
enum sb_interest_op {
    SB_INTEREST_ADD = 1,
    SB_INTEREST_REMOVE = 2, /* of an interest, or a note */
    SB_INTEREST_NOTE = 3,   /* no interest: the description is for observers, see shared/sites.py. In place of the note
                             * that had its id */
};

/* What an interest asks for. */
enum sb_interest_role {
    SB_ROLE_SUBSCRIBE = 1,
    SB_ROLE_HANDLE = 2,
    SB_ROLE_OBSERVE = 3, /* a tap: a copy of what matches, of every kind, never in the way */
    SB_ROLE_MATCH = 4,   /* to be told whether anybody receives what matches */
};

/* How an interest is served. */
enum sb_interest_flag {
    SB_DROP_NEWEST = 1 << 0, /* overflow: lose rather than wait */
    SB_REDELIVER = 1 << 1,   /* handle: hold a send until done */
    SB_DROP_OLDEST = 1 << 2, /* overflow: lose what has waited longest */
    SB_LATEST = 1 << 3,      /* overflow: of each type the newest alone */
};

struct sb_interest {     /* one entry of the log, 8-byte aligned, followed by pattern, group name and description */
    uint32_t length;     /* of the entry, before alignment */
    uint8_t op, role, bit, flags; /* bit: 0 plain, 1-31 group, ignored for handlers */
    uint64_t id;         /* of the endpoint's choosing; a removal names it alone */
    uint16_t pattern_length, group_length;
    uint32_t description_length; /* of what observers are told; the dispatcher does not read that */
    uint32_t history;    /* how many of each type that were kept it wants at first */
    uint32_t depth;      /* DROP_OLDEST, LATEST: how many messages, or types, may wait */
    uint32_t key;        /* of a group's: a bit for each token of the type by which messages go to the same member; 0:
                          * none */
    uint32_t mailbox;    /* DROP_OLDEST, LATEST: which of DOWN.mailbox and UP.had is its own */
};
_Static_assert(sizeof(struct sb_interest) == 40, "an entry has no holes");

struct sb_interests { /* the segment INTERESTS, followed by the entries of the log */
    struct rb_prefix prefix;
    rb_word bytes;       /* endpoint: how much of the log is complete */
    uint64_t reserved[7];
};

#include "shmbus/shared/native/generated.h"
