/* What one process holds of a queue, and each of its threads; nothing here is shared. */
#pragma once

#include "ringbuf/native/bell.h"
#include "ringbuf/native/ring.h"
#include "shmbus/queues/native/layout.h"

#include <pthread.h>

#define SQ_MAX_FILE 200 /* bytes of the queue's name, "/" and the end included */

enum sq_status {
    SQ_OK = 0,
    SQ_WAIT = 1,     /* the queue is empty, or full */
    SQ_BUSY = 2,     /* somebody else has had the lock all the time */
    SQ_NO_SPACE = 3, /* there is no memory for another ring, or for what is in hand */
    SQ_NO_ROW = 4,   /* every row is taken */
    SQ_GONE = 5,     /* the last user has left, or a segment has been removed */
    SQ_CORRUPT = 6,  /* what is in shared memory cannot be */
};

struct sq_mapped { /* a segment in this process's memory */
    void *at; /* NULL: none */
    uint64_t size;
    uint64_t serial; /* of a ring; row + 1 of a hand */
};

struct sq_core {
    struct sq_queue *shared;
    char name[SQ_MAX_FILE];
    uint64_t pid, start_time, namespace; /* this process; the namespace is that of pids */
    struct sq_mapped put_ring, get_ring; /* used by the holder of the role */
    struct rb_producer producer;
    struct rb_consumer consumer;
    rb_word high;          /* the producer's high-water mark, which nobody reads */
    uint64_t taken_seen;   /* the consumers' count, no newer than it is */
    rb_word none_asleep[2]; /* of each role's bell: so many naps are over, for a ringing woke nobody */
};

struct sq_user { /* a thread */
    uint32_t row;          /* plus 1; 0: it has none */
    struct rb_bell spin;   /* how it spins; it parks elsewhere */
    struct sq_mapped hand; /* of its row */
    uint8_t *data;         /* records that it took: */
    uint64_t size;         /* bytes of memory, */
    uint64_t at, end;      /* and of what is not decoded yet */
    bool busy;             /* it waits in a call, without the GIL */
};

static inline struct sq_row *sq_row_of(const struct sq_core *c, const struct sq_user *u)
{
    return &c->shared->rows[u->row - 1];
}
