/* The forwarding thread's private picture of the bus: one port per slot, and what a pass works with.
 *
 * Nothing here is shared. What lies behind `up` was written by another process: its positions go through
 * rb_refresh_*, its records through a checked copy, its sizes were copied out and checked at admission. */
#ifndef DP_PORT_H
#define DP_PORT_H

#include "ringbuf/native/bell.h"
#include "shmbus/shared/native/layout.h"
#include "shmbus/dispatcher/native/routes.h"

#include <pthread.h>
#include <unistd.h>

#define DP_SET_WORDS (SB_MAX_SLOTS / 64)
#define DP_RUN 256u /* records of a run at the most */
#define DP_LOOK_NS 100000000u /* all heads are looked at so often, whatever READY says */

struct dp_set { uint64_t word[DP_SET_WORDS]; }; /* of slots */
static inline void dp_set_add(struct dp_set *s, uint32_t slot) { s->word[slot / 64] |= 1ull << (slot % 64); }
static inline void dp_set_drop(struct dp_set *s, uint32_t slot) { s->word[slot / 64] &= ~(1ull << (slot % 64)); }
static inline bool dp_set_has(const struct dp_set *s, uint32_t slot) { return s->word[slot / 64] >> (slot % 64) & 1; }

struct dp_choice { /* one target of a run */
    uint16_t slot;
    bool lossy;
    uint32_t bits;
};

struct dp_head_of_line { /* why the record at the front of an outgoing ring does not move */
    bool blocked;
    uint16_t on;        /* the target without room */
    uint64_t since_ns;  /* when this front was first refused */
};

struct dp_port {
    uint32_t slot, generation, pid;
    enum sb_row_state state; /* SB_ROW_FREE: the slot is empty */
    enum sb_reason reason;
    bool confirmed;          /* UP says ATTACHED: `up` was emitted */
    bool corrupt;            /* its outgoing rings are not read any more */
    bool touched;            /* something new lies in its incoming rings in this pass */
    bool tail_moved[SB_RINGS];
    char name[SB_NAME];

    const struct sb_up *up;
    struct sb_down *down;
    struct sb_row *row;
    const struct sb_pending *pending;
    struct sb_target *target;
    struct sb_todo_target *todo;
    uint32_t pending_count;

    struct rb_consumer out[SB_RINGS]; /* head in UP, tail in DOWN */
    struct rb_producer in[SB_RINGS];  /* head in DOWN, tail in UP */
    uint64_t reserve;                 /* of in[SB_REPLIES], for errors alone */
    uint64_t delivered;               /* into in[SB_DATA] */
    struct rb_poster bell;

    uint64_t interests_seen, interests_serial, interests_applied, interests_size;
    uint64_t interests_again_ns; /* its log could not be opened: not before */
    const struct sb_interests *interests;
    struct dp_group *group_of_bit[SB_GROUPS];

    struct dp_head_of_line head_of_line[SB_RINGS];
    struct dp_set waiters;       /* ports with a front that waits for room here */
    uint64_t progress_ns;        /* when its tail was last seen to have moved */
    uint64_t progress_tail[SB_RINGS];
    bool slow;

    uint64_t taken_seen, taken_since_ns;
    bool stopped, stalled;

    bool leaving_drained;        /* DOWN says DRAINED */
    uint64_t last[SB_RINGS];     /* of one that ends: its outgoing rings count up to here */
    uint64_t hand_on_since_ns;   /* when the record at `reclaim` was first refused */
};

enum dp_order_kind { DP_ADMIT, DP_EVICT, DP_DEAD, DP_STOPPED_TASK, DP_CONTINUED_TASK };

struct dp_shape { /* what UP says of itself, copied out once and checked */
    struct sb_ring_descriptor outgoing[SB_RINGS];
    uint64_t incoming[SB_RINGS]; /* capacities wanted */
    uint64_t pending_offset, pending_count;
};

struct dp_order { /* what the control plane or the watcher tells the forwarding thread */
    enum dp_order_kind kind;
    uint32_t slot, generation;
    enum sb_reason reason;
    const struct sb_up *up;
    struct dp_shape shape;
    struct sb_down *down;
    sem_t *bell;
    bool adopted;
    struct dp_order *next;
};

enum dp_notice_kind { DP_RECLAIMED_PORT = 1, DP_QUARANTINED_PORT = 2, DP_UNREAD_INTERESTS = 3 };

struct dp_notice { /* what the forwarding thread tells the control plane */
    enum dp_notice_kind kind;
    uint32_t slot, generation;
    uint32_t reason;
};

struct dp_forwarder {
    struct sb_bus *bus;
    struct sb_ready *ready;
    struct sb_row *rows;
    uint32_t slots, high_slot; /* slots in use lie below high_slot */
    char prefix[96];           /* of the names of this bus's segments: "/shmbus:UID:BUS" */
    uint64_t block_timeout_ns, stall_after_ns;
    uint32_t prefetch, max_deliveries, batch;

    struct rb_bell bell;
    struct dp_routes routes;
    struct dp_port *ports;
    uint64_t *ready_seen; /* READY as last looked at, two words in one */
    struct dp_set active; /* ports to visit in this pass */
    struct dp_set departing;
    uint64_t now;         /* of this pass */
    uint64_t next_look, next_deadline;
    bool adopting; /* a dispatcher was here before: take over what it had in hand */

    /* The run in hand. */
    uint32_t run_count;
    struct sb_record run_header[DP_RUN];
    const uint8_t *run_record[DP_RUN];
    const uint8_t *run_type[DP_RUN]; /* the cache's copy */
    struct dp_choice run_target[SB_MAX_SLOTS], scratch_target[SB_MAX_SLOTS];
    uint32_t run_targets;
    uint32_t run_extra[SB_MAX_SLOTS]; /* chosen in this run, not yet published, per slot */
    uint32_t run_mark[1024], run_number; /* requests that this run has to do with: the run's number stands there */
    uint32_t touched_slots[SB_MAX_SLOTS], touched_count;
    uint32_t moved_slots[SB_MAX_SLOTS], moved_count;
    uint32_t ended_slots[SB_MAX_SLOTS], ended_count; /* reclaimed in this pass */

    uint64_t sent_ns[4 * DP_RUN]; /* of what this pass published */
    uint32_t sent_count;

    uint8_t *scratch; /* one record of the bus's own */

    /* Shared with the control plane and the watcher, under `lock`, which nobody holds while waiting. */
    pthread_mutex_t lock;
    struct dp_order *orders, **orders_end;
    struct dp_notice *notices;
    uint32_t notice_count, notice_room;
    int notice_fd;          /* eventfd that the control plane waits on */
    rb_word orders_waiting; /* whoever gives an order */
    rb_word stop;           /* control plane: 1 drain and end, 2 end at once */
    rb_word stop_by_ns;     /* control plane */
    struct rb_poster own_bell; /* under `lock`: rings our own bell */
};

static inline struct dp_port *dp_port_of(struct dp_forwarder *f, uint64_t whom)
{
    uint32_t slot = sb_whom_slot(whom);
    if (!(whom >> 63) || slot >= f->slots)
        return NULL;
    struct dp_port *p = &f->ports[slot];
    return p->state != SB_ROW_FREE && p->generation == sb_whom_generation(whom) ? p : NULL;
}

static inline uint64_t dp_whom_of(const struct dp_port *p) { return sb_whom(p->slot, p->generation); }

/* May new messages be sent to it? */
static inline bool dp_open_for_messages(const struct dp_port *p) { return p->state == SB_ROW_LIVE; }

static inline uint64_t dp_untouched(const struct dp_port *p)
{
    uint64_t taken = rb_load(&p->up->incoming[SB_DATA].taken_count);
    return p->delivered > taken ? p->delivered - taken : 0;
}

static inline uint64_t dp_in_hand(const struct dp_port *p)
{
    uint64_t n = rb_load(&p->up->in_hand);
    return n < 1u << 20 ? n : 1u << 20;
}

static inline void dp_touch(struct dp_forwarder *f, struct dp_port *p)
{
    if (!p->touched) {
        p->touched = true;
        f->touched_slots[f->touched_count++] = p->slot;
    }
}

static inline void dp_note_sent(struct dp_forwarder *f, uint64_t sent_ns)
{
    if (f->sent_count < sizeof f->sent_ns / sizeof *f->sent_ns)
        f->sent_ns[f->sent_count++] = sent_ns;
}

/* Odd also where a kill had left it odd. */
static inline void dp_row_begin(struct sb_row *row)
{
    rb_store(&row->seq, (rb_load(&row->seq) + 1) | 1);
    rb_fence_release();
}
static inline void dp_row_end(struct sb_row *row) { rb_store_release(&row->seq, rb_load(&row->seq) + 1); }

static inline void dp_row_set(struct dp_port *p, rb_word *word, uint64_t value)
{
    dp_row_begin(p->row);
    rb_store(word, value);
    dp_row_end(p->row);
}

static inline void dp_notify(struct dp_forwarder *f, enum dp_notice_kind kind, const struct dp_port *p)
{
    pthread_mutex_lock(&f->lock);
    if (f->notice_count == f->notice_room) {
        uint32_t room = f->notice_room ? f->notice_room * 2 : 64;
        struct dp_notice *fresh = realloc(f->notices, room * sizeof *fresh);
        if (fresh) {
            f->notices = fresh;
            f->notice_room = room;
        }
    }
    if (f->notice_count < f->notice_room)
        f->notices[f->notice_count++] = (struct dp_notice){kind, p->slot, p->generation, p->reason};
    pthread_mutex_unlock(&f->lock);
    uint64_t one = 1;
    while (write(f->notice_fd, &one, sizeof one) < 0 && errno == EINTR) {
    }
}

/* The control plane takes what it was told since the last time, `count` notices, and frees them. */
static inline struct dp_notice *dp_take_notices(struct dp_forwarder *f, uint32_t *count)
{
    uint64_t told;
    (void)!read(f->notice_fd, &told, sizeof told);
    pthread_mutex_lock(&f->lock);
    struct dp_notice *notices = f->notices;
    *count = f->notice_count;
    f->notices = NULL;
    f->notice_count = f->notice_room = 0;
    pthread_mutex_unlock(&f->lock);
    return notices;
}

#endif
