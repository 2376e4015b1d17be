/* A message as it stands in a ring: a header of 64 bytes, the type, the extension, the payload.
 *
 * The header comes from another process: it is copied out once, checked, and only the copy is used. */
#pragma once

#include "ringbuf/native/ring.h"

#include <stddef.h>

/* What a record is. */
enum sb_kind {
    SB_EVENT = 1,   /* to all whose interests match */
    SB_SEND = 2,    /* to one handler, no reply */
    SB_REQUEST = 3, /* to one handler, one reply */
    SB_REPLY = 4,
    SB_ERROR = 5,   /* instead of a reply: payload is struct sb_fault, or a handler's failure (SB_REMOTE) */
    SB_PART = 6,    /* one of the parts of a reply */
    SB_END = 7,     /* a reply in parts is complete: a header and its type */
    SB_CANCEL = 8,  /* a request is not waited for any more: a header alone, see endpoint/native/cancel.h */
    SB_CREDIT = 9,  /* its requester takes more parts of a reply: a header alone, see endpoint/native/stream.h */
    SB_TAP = 10,    /* an observer's copy of a message */
    SB_NACK = 11,   /* work that its receiver gives back, see endpoint/native/nack.h */
    SB_QUERY = 12,  /* who would get a message of this type? The dispatcher itself answers */
    SB_LIVE = 13,   /* an interest has got what was kept (its id is in `deadline_ns`): from here on it gets what others
                     * get, but what was kept under the number in `correlation` or a lower one. A header alone */
};

/* What else is to be known of a record. */
enum sb_record_flag {
    SB_RAW = 1 << 0,         /* the payload is bytes as they are */
    SB_NONE = 1 << 1,        /* there is no payload (otherwise MessagePack) */
    SB_REDELIVERED = 1 << 2, /* came to another before, who left, died or gave it back */
    SB_REMOTE = 1 << 3,      /* SB_ERROR: raised by the handler; payload is its MessagePack account */
    SB_NEED_GROUPS = 1 << 4, /* reserved */
    SB_FINAL = 1 << 5,       /* SB_NACK: nobody shall have it any more, it is a dead letter */
    SB_STREAM = 1 << 6,      /* SB_REQUEST: its reply may come in parts; the extension is struct sb_grant */
    SB_DIRECTED = 1 << 7,    /* SB_REQUEST towards the dispatcher: for the endpoint in `peer` and for no other */
    SB_RETAIN = 1 << 8,      /* SB_EVENT: the bus keeps it for who subscribes later */
    SB_RETAINED = 1 << 9,    /* towards a receiver: it was kept, and is older than the subscription; the extension is
                              * the name of its source, which may be gone */
    SB_URGENT = 1 << 10,     /* SB_EVENT: it overtakes what is not urgent at the receiver */
    SB_ALONE = 1 << 11,      /* SB_EVENT towards a receiver: for one of its interests, whose id is in `deadline_ns` */
    SB_POOLED = 1 << 12,     /* the payload here is struct sb_block: the payload proper lies in a pool */
    SB_FRAMED = 1 << 13,     /* the payload proper is MessagePack with arrays behind it, see shared/frames.py */
    SB_RELAYED = 1 << 14,    /* it came from another bus: the payload proper ends with struct sb_origin. Only a link
                              * sends that. An SB_EVENT towards the dispatcher is for plain subscriptions alone, or
                              * for the queue group that the extension names */
};

/* What the payload is: its sender says so. */
#define SB_PAYLOAD_FLAGS (SB_RAW | SB_NONE | SB_POOLED | SB_FRAMED | SB_RELAYED)

#define SB_PLAIN 1u /* `interests` bit 0: the receiver's plain subscriptions; bits 1-31: its groups */
#define SB_MAX_TYPE 255u    /* bytes of a type or a pattern */
#define SB_MAX_NAME 48u     /* characters; the bus's name must fit into a socket's path, of 108 bytes */
#define SB_MAX_SITE 32u     /* characters of the name of a site */
#define SB_LINK_MARK '@'    /* the names of links begin with it, those of keepers with two, no user's: enum sb_rank */
#define SB_LINK_TYPES "$bus.link." /* types that begin so links may publish */
#define SB_FROM_BUS 0xffffu /* `peer` of what the dispatcher itself sends */
#define SB_MAX_REASON 255u  /* bytes of the text that an SB_NACK has as its extension */

struct sb_record { /* the header of a message */
    uint32_t length;          /* header, type, extension and payload */
    uint16_t kind;            /* enum sb_kind */
    uint16_t path;            /* 0: through the dispatcher */
    uint16_t flags;           /* enum sb_record_flag */
    uint16_t epoch;           /* of the path; reserved */
    uint32_t interests;       /* for which of its interests the receiver gets it; see sb_interests_in() */
    uint16_t peer;            /* towards a receiver, and in an SB_NACK: the source; in a reply towards the dispatcher:
                               * the requester; with SB_DIRECTED: for whom it is; SB_QUERY: the first slot to be
                               * named */
    uint16_t attempt;         /* 1, and one more each time it had been begun; a request's requester says which it is */
    uint32_t peer_generation;
    uint64_t sent_ns;         /* CLOCK_MONOTONIC */
    uint64_t deadline_ns;     /* 0: none. SB_NACK with SB_FINAL: bytes of the payload, of which fewer may be there.
                               * SB_ALONE: the id of an interest. SB_CREDIT: what is granted so far, as in struct
                               * sb_grant */
    uint8_t correlation[16];  /* zero where there is none. SB_RETAIN towards a receiver, SB_LIVE: 8 bytes, a number of
                               * struct sb_value */
    uint16_t type_length;
    uint16_t extension_length;
    uint32_t lost;            /* towards a receiver: how many it had lost so far, low 32 bits */
};
_Static_assert(sizeof(struct sb_record) == 64, "the header is 64 bytes");
#define SB_HEADER ((uint32_t)sizeof(struct sb_record))

/* Why the dispatcher answers a request with an SB_ERROR of its own. */
enum sb_fault_code {
    SB_FAULT_NO_ROUTE = 1, SB_FAULT_ENDPOINT_DIED = 2, SB_FAULT_REPLY_LOST = 3,
    SB_FAULT_TOO_LARGE = 4, SB_FAULT_COLLISION = 5, SB_FAULT_HANDLER_FULL = 6,
    SB_FAULT_HANDLER_TIMEOUT = 7, SB_FAULT_FORBIDDEN = 8,
};

#define SB_BEGUN 256u /* the endpoint had begun the request, or nobody knows */

struct sb_fault { /* the payload of the dispatcher's own SB_ERROR */
    uint32_t code;   /* enum sb_fault_code */
    uint32_t pid;    /* of the endpoint at fault, 0 where none is */
    uint64_t limit;  /* TOO_LARGE, REPLY_LOST: the bytes that would have fitted. ENDPOINT_DIED: enum sb_reason, and
                      * SB_BEGUN. HANDLER_TIMEOUT: for how long it has run, in ns */
    char name[SB_MAX_NAME]; /* of the endpoint at fault */
};
#define SB_FAULT_RECORD (SB_HEADER + (uint32_t)sizeof(struct sb_fault))
_Static_assert(SB_FAULT_RECORD == 128, "an error record takes 128 bytes of a reply ring's reserve");
#define SB_REQUEST_RESERVE (2 * SB_FAULT_RECORD) /* bytes of the incoming reply ring, for the errors of one request */

struct sb_found { /* the payload of the dispatcher's SB_REPLY to an SB_QUERY, followed by uint64_t whom[], see below */
    uint64_t version;   /* BUS.routes_version for which it holds */
    uint32_t receivers; /* endpoints that would get an event of this type */
    uint32_t handlers;  /* endpoints that handle it, by the most specific pattern or not; `whom` has those of the first
                         * slots, from the one that was asked for on */
};
_Static_assert(sizeof(struct sb_found) == 16, "an answer has no holes");
/* It has at least so many handlers, if there are: an answer that finds no space takes that of its request's error. */
#define SB_FOUND_LEAST ((SB_FAULT_RECORD - SB_HEADER - (uint32_t)sizeof(struct sb_found)) / 8)
#define SB_MATCHED "$bus.matched" /* the type of the SB_ALONE events that tell of an interest of role SB_ROLE_MATCH */

static inline const uint8_t *sb_type_of(const uint8_t *record) { return record + SB_HEADER; }

/* `interests` of a record in a ring. Of what is pooled, towards a receiver, the dispatcher makes it 0, after its
 * publication, where that is for it no more: see dispatcher/native/revoke.h. */
static inline _Atomic uint32_t *sb_interests_in(const uint8_t *record)
{
    return (_Atomic uint32_t *)(uintptr_t)(record + offsetof(struct sb_record, interests));
}
static inline bool sb_is_revoked(const uint8_t *record)
{
    return atomic_load_explicit(sb_interests_in(record), memory_order_acquire) == 0;
}

static inline uint64_t sb_payload_offset(const struct sb_record *h)
{
    return (uint64_t)SB_HEADER + h->type_length + h->extension_length;
}

/* The parts lie within the record. */
static inline bool sb_record_sound(const struct sb_record *h)
{
    return h->length >= SB_HEADER && sb_payload_offset(h) <= h->length && h->type_length <= SB_MAX_TYPE;
}

/* Where a message comes from that a link brought from another bus: behind its payload, whatever flags that has. The
 * link writes it; all others copy it as part of the payload. */
struct sb_origin {
    char source[SB_MAX_NAME];   /* the endpoint there, */
    char site[SB_MAX_SITE];     /* and the site of its bus; both padded with zeros */
    uint64_t sent_ns;           /* when it was sent, on this machine's CLOCK_MONOTONIC, */
    uint64_t error_ns;          /* which is known so well: it may be so much sooner or later */
    uint64_t sent_there_ns;     /* as its source stamped it: no other message of that source has it */
    uint32_t lost;              /* how many were lost between the sites since the one before of its type */
    uint32_t reserved[5];
};
_Static_assert(sizeof(struct sb_origin) == 128, "an origin takes two lines");

/* A block of a pool, as the payload of a record with SB_POOLED. Its sender writes it; the dispatcher checks it once,
 * and copies it on as it is. */
struct sb_block {
    uint64_t offset;          /* of the payload proper, in the segment POOL */
    uint64_t length;          /* bytes of it, at least 1 */
    uint64_t use;             /* sb_use() of the record with which its owner sent it */
    uint32_t pool_generation; /* whose pool it is */
    uint16_t pool_slot;
    uint16_t index;           /* of the block, below SB_BLOCKS */
};
_Static_assert(sizeof(struct sb_block) == 32, "a block's account has no holes");

/* Of a record with SB_POOLED, which has been checked: what its payload says. */
static inline struct sb_block sb_block_in(const struct sb_record *h, const uint8_t *record)
{
    struct sb_block block;
    memcpy(&block, record + h->length - sizeof block, sizeof block);
    return block;
}

/* How many of the `size` bytes of a payload proper are its origin. */
static inline uint64_t sb_origin_size(uint16_t flags, uint64_t size)
{
    return flags & SB_RELAYED && size >= sizeof(struct sb_origin) ? sizeof(struct sb_origin) : 0;
}

/* Bytes of the payload proper, without an origin. */
static inline uint64_t sb_payload_size(const struct sb_record *h, const uint8_t *record)
{
    uint64_t size = h->flags & SB_POOLED ? sb_block_in(h, record).length : h->length - sb_payload_offset(h);
    return size - sb_origin_size(h->flags, size);
}

/* Bytes that a record has beside that, where the payload is in it. */
static inline uint64_t sb_frame_size(const struct sb_record *h)
{
    return sb_payload_offset(h) + (h->flags & SB_RELAYED ? sizeof(struct sb_origin) : 0);
}

struct sb_grant {          /* the extension of an SB_REQUEST with SB_STREAM */
    uint64_t bytes;        /* sb_part_bytes(): parts may be sent while those before them are fewer */
};
/* What a part takes of its grant. In a pool there shall be few at a time, however little their records take. */
#define SB_POOLED_PART 16384u
static inline uint64_t sb_part_bytes(uint64_t length, uint16_t flags)
{
    return RB_ALIGN8(length) + (flags & SB_POOLED ? SB_POOLED_PART : 0);
}

/* What became of a message that a tap saw. */
enum sb_outcome {
    SB_OUTCOME_DELIVERED = 0,
    SB_OUTCOME_NOBODY = 1,  /* was there for it */
    SB_OUTCOME_LOST = 2,    /* where it was to go */
    SB_OUTCOME_DROPPED = 3, /* late, second or forged */
    SB_OUTCOME_FORBIDDEN = 4, /* to its sender, by its grant */
};

struct sb_tap {                 /* the extension of an SB_TAP */
    uint64_t forwarded_ns;      /* when the dispatcher dealt with it */
    uint32_t target_generation;
    uint16_t target;            /* slot; SB_FROM_BUS: nobody */
    uint8_t kind;               /* of the message */
    uint8_t outcome;            /* enum sb_outcome */
};
_Static_assert(sizeof(struct sb_tap) == 16, "a tap's account has no holes");

/* Correlation ids are UUIDs of version 8: 8 bytes that are random per attach, then a counter that never repeats
 * within it (46 bits) and the index of the requester's pending entry (16 bits). */
static inline uint16_t sb_index_of(const uint8_t id[16]) { return (uint16_t)(id[14] << 8 | id[15]); }

static inline void sb_make_id(uint8_t id[16], uint64_t random, uint64_t counter, uint16_t index)
{
    memcpy(id, &random, 8);
    id[6] = (uint8_t)((id[6] & 0x0f) | 0x80);
    uint64_t low = (counter & ((1ull << 46) - 1)) << 16 | index;
    for (int i = 0; i < 8; i++)
        id[8 + i] = (uint8_t)(low >> (56 - 8 * i));
    id[8] = (uint8_t)((id[8] & 0x3f) | 0x80);
}
