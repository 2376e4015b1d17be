/* The first 64 bytes of every segment, frozen for ever: whatever else changes, any version can read these and
 * refuse, by name, what it does not understand. Written by the segment's creator before anybody else can open
 * it; `superseded_by` alone may change later, and is written by the owner of the segment's successor. */
#pragma once

#include "ringbuf/native/order.h"

#define RB_MAGIC 0x465542474e495253ull /* "SRINGBUF" in memory order */

struct rb_prefix {
    rb_word magic;         /* RB_MAGIC, stored last (release): a segment without it is not ready */
    uint64_t layout;       /* version << 32 | fingerprint */
    uint64_t size;         /* of the whole segment, in bytes */
    uint64_t generation;   /* of the slot it serves; 0 where there is none */
    rb_word superseded_by; /* layout of the successor, 0 while there is none */
    uint32_t kind;         /* which structure follows: the user's number */
    uint32_t reserved[5];
};

_Static_assert(sizeof(struct rb_prefix) == 64, "the prefix is frozen");
