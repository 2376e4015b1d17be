/* What a queue has in shared memory: its own segment, and one for each ring of the chain.
 *
 * Positions are those of the rings (ring.h); each ring goes on where the one before it ended, so that no position
 * comes twice in a queue. `count` of the producers' role less that of the consumers' is what is in the queue. */
#pragma once

#include "ringbuf/native/prefix.h"
#include "ringbuf/native/ring.h"

#define SQ_LAYOUT_VERSION 1u
#define SQ_KIND 0x75657571u      /* "queu" in memory order */
#define SQ_RING_KIND 0x676e7271u /* "qrng" */
#define SQ_HAND_KIND 0x646e6871u /* "qhnd" */
#define SQ_ROWS 512u             /* users at most: threads that put or get, and processes that are about to */
#define SQ_LOCK_WORDS 6u         /* a pthread_mutex_t takes no more */

enum sq_row_state { /* what a row stands for */
    SQ_FREE = 0,
    SQ_PLEDGED = 1, /* kept by its process for another that will open the queue */
    SQ_USED = 2,
    SQ_ORPHANED = 3, /* its user is dead; what it had in hand is to be delivered again */
};

enum sq_step { /* what the holder of the book is in the midst of */
    SQ_NOTHING = 0,
    SQ_BURIES = 1,     /* a dead user's row is accounted for */
    SQ_TAKES_OVER = 2, /* a message in a dead user's hand goes into another's */
};

struct sq_bell { /* wakes those who wait for what a role's holder does */
    _Alignas(RB_LINE) rb_word naps; /* by everybody who is about to sleep here: one more */
    rb_word rung;                   /* by the role's holder: so many naps need no wake-up any more */
    rb_word number;                 /* by the role's holder: what sleepers wait at; one more at each ringing */
};

struct sq_role { /* of the producers, or of the consumers */
    _Alignas(RB_LINE) uint64_t lock[SQ_LOCK_WORDS]; /* by the C library: a robust mutex */
    rb_word holder;                       /* by the role's holder: its row; kept when it dies */
    rb_word hurt;                         /* by the role's holder: 1 while a death with the lock is not dealt with */
    _Alignas(RB_LINE) rb_word ring;       /* by the role's holder: the serial of the ring that it is at */
    rb_word count;                        /* by the role's holder: messages put, or taken, so far */
    rb_word next_position;                /* by the role's holder: where head or tail goes next, */
    rb_word next_count;                   /* and what `count` is then */
    struct sq_bell bell;
};

struct sq_book { /* what rarely changes: its holder alone writes rows' states */
    _Alignas(RB_LINE) uint64_t lock[SQ_LOCK_WORDS]; /* by the C library: a robust mutex */
    _Alignas(RB_LINE) rb_word lost; /* by the book's holder: messages that died in a hand */
    rb_word done;                   /* by the book's holder: what counts as done, but for rows in use */
    rb_word step;                   /* by the book's holder: an sq_step, and what it needs to be done again: */
    rb_word row;                    /* by the book's holder: whose row it is about */
    rb_word taker;                  /* by the book's holder: the row that takes over */
    rb_word position;               /* by the book's holder: the message's */
    rb_word next[2];                /* by the book's holder: lost and done, or the row's hand_at and hand_count */
    struct sq_bell bell;            /* of those who wait until all is done */
};

struct sq_row { /* of one thread of one process */
    _Alignas(RB_LINE) rb_word state;  /* by the book's holder: an sq_row_state */
    rb_word pid;                      /* by the book's holder */
    rb_word start_time;               /* by the book's holder: of the process, in clock ticks since boot */
    rb_word tid;                      /* by the book's holder; of a pledge its number in its process */
    rb_word namespace;                /* by the book's holder: in which the pid has its meaning */
    _Alignas(RB_LINE) rb_word hand_from; /* by the row's user: position of the first message in hand */
    rb_word hand_to;                  /* by the row's user: where the tail is once they are taken */
    rb_word hand_count;               /* by the row's user; after its death by who heals its role, or has the book */
    rb_word hand_at;                  /* by the same: offset in its memory of the first one in hand */
    rb_word taken;                    /* by the row's user: messages so far, */
    rb_word taken_before;             /* and before those in hand */
    rb_word done;                     /* by the row's user: for which it has said so */
};

struct sq_queue { /* the queue's own segment */
    struct rb_prefix prefix;
    uint64_t maxsize;    /* by the creator: messages at most; 0: no limit */
    uint64_t redeliver;  /* by the creator: 1 if what dies in a hand is delivered again */
    rb_word orphans;     /* by the book's holder: 1 while there may be an orphaned row */
    rb_word rows_used;   /* by the book's holder: rows before this one may be in use */
    rb_word gone;        /* by the book's holder: 1 once the last user has left */
    struct sq_role producers;
    struct sq_role consumers;
    struct sq_book book;
    struct sq_row rows[SQ_ROWS];
};

struct sq_ring_segment {
    struct rb_prefix prefix;
    uint64_t capacity;               /* by the ring's maker, before anybody can open it, as all in this line */
    uint64_t base;                   /* where its first position is */
    uint64_t usable;                 /* bytes of data; fewer than the capacity where it is for one record */
    uint64_t usual;                  /* capacity of the last ring that was for any record */
    _Alignas(RB_LINE) rb_word head;  /* by the producers' holder */
    _Alignas(RB_LINE) rb_word tail;  /* by the consumers' holder */
    _Alignas(RB_LINE) uint8_t data[]; /* by the producers' holder */
};

struct sq_hand_segment { /* copies of what its row's user has in hand, each behind its position */
    struct rb_prefix prefix;
    uint8_t data[]; /* by the row's user */
};

#include "shmbus/queues/native/generated.h"
