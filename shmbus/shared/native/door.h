/* What passes the door: a record from who knocks, an answer. Described in shared/door.py.
 *
 *   sb_knock, sb_answer     the two records
 *   sb_door_code            what the dispatcher answers
 */
#pragma once

#include "ringbuf/native/order.h"

struct sb_knock {
    uint64_t layout;     /* SB_LAYOUT of who knocks */
    uint64_t nonce;      /* with pid and start time it gives the names of its segments */
    uint64_t start_time; /* clock ticks since boot */
};

/* What the dispatcher answers. */
enum sb_door_code {
    SB_DOOR_ADMITTED = 0, SB_DOOR_NAME_TAKEN = 1, SB_DOOR_BUS_FULL = 2, SB_DOOR_OTHER_LAYOUT = 3,
    SB_DOOR_REFUSED = 4, SB_DOOR_NO_SPACE = 5, SB_DOOR_FORBIDDEN = 6,
};

struct sb_answer {
    uint32_t code;       /* enum sb_door_code */
    uint32_t slot;       /* ADMITTED */
    uint64_t generation; /* ADMITTED */
    uint32_t pid;        /* of the dispatcher. NAME_TAKEN: of who has the name */
    uint32_t reserved;
    uint64_t number;     /* BUS_FULL: slots. OTHER_LAYOUT: the bus's. NO_SPACE: bytes that were wanted */
    char text[480];      /* REFUSED: reason and remedy. NAME_TAKEN: the name. NO_SPACE: the segment, bytes free.
                          * FORBIDDEN: the endpoint's name, reason and remedy */
};
