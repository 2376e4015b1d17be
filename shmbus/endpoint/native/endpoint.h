/* An endpoint in C: what it maps and all that is private to it, its lock, and the two bells it rings.
 *
 *   ep_lock, ep_unlock    the mutex that guards all of it but what says otherwise. It is held for the length of a
 *                         copy, never across a wait, nor by anybody who waits for Python's lock, so that a thread
 *                         which holds Python's lock may take it. What is named in the headers is called under it
 *   ep_ring_dispatcher    the dispatcher shall look at this endpoint
 *   ep_wake_leader        the thread of this endpoint that sleeps shall look again
 *   ep_wake               so shall whoever sleeps at its event
 *
 * trouble.h says what keeps calls from proceeding; send.h, take.h, hold.h and request.h are what calls do;
 * interest_log.h is what it subscribes to; open.h begins and ends it; threads wait in wait.h; watcher.h is the one
 * helper thread of a process.
 */
#pragma once

#include "ringbuf/native/bell.h"
#include "shmbus/shared/native/event.h"

#include <pthread.h>

struct ep_outflow;
struct ep_pool;
struct ep_request;
struct ep_share;
struct ep_shares;
struct ep_stream;
struct ep_waiter;

#define EP_CANCELS 1024u /* of the requests that were withdrawn after they came here, so many are remembered */
#define EP_LINGER 25u    /* times the longest spin of the bell: who waits at the event for others spins for so long */
#define EP_OUTFLOWS 64u  /* buckets of a table */

struct ep_let_go { /* messages let go and not done: one lies at `from`, or did, the others behind it */
    uint64_t from, count;
};

struct ep_endpoint {
    pthread_mutex_t lock;
    uint64_t fork_mark;

    const struct sb_bus *bus;
    const struct sb_down *down;
    struct sb_up *up;
    _Atomic uint32_t *ready;            /* our word */
    uint32_t slot, generation;

    struct rb_producer out[SB_RINGS];
    struct rb_consumer in[SB_RINGS_IN];
    struct rb_poster dispatcher;
    uint64_t crowded[SB_RINGS_IN];      /* bytes in an incoming ring from which on something may wait for space there */
    uint64_t rung_for[SB_RINGS_IN];     /* the `need` for which the dispatcher has been rung */
    uint64_t batched[SB_RINGS];         /* messages committed and not published */
    uint64_t stamp;                     /* the time that the last message bears */
    rb_word flush_at;                   /* when they must be; ~0: never. Read by the watcher */

    struct sb_held_entry *held[SB_HELD]; /* entries in use, in order of position */
    uint32_t held_count, hold_limit;
    struct ep_let_go let_go[2];         /* those of before and those of since, see ep_note_let_go */
    uint64_t postponed;                 /* messages that are to be given back later */
    uint64_t in_hand;                   /* messages begun and not done */
    uint64_t deferred;                  /* of those, requests that are to be answered later */
    bool recalled;                      /* a thread that waits for messages shall return, and see what else is to do */
    uint64_t offered_for;               /* ep_offer_work: the `wanted` for which it has last rung */
    uint32_t lost_seen;                 /* the most losses as of any message taken */
    enum sb_ring_index peeked;          /* where what ep_peek has shown lies */

    struct ep_mailbox *mailboxes[SB_OWN_MAILBOXES]; /* NULL: it has none there, see mailbox.h */
    uint32_t mailbox_count, mailbox_turn; /* how many it has; which is asked first next time */
    bool mail_first;                    /* they are asked before the ring */
    bool mail_asked;                    /* who asks takes what no callback gets, too */
    uint8_t *mail;                      /* the record that was copied last */
    uint64_t mail_space;
    struct ep_share *mail_share;        /* of that record; NULL: it is not pooled */

    struct ep_pool *pool;               /* NULL: none was needed yet; see pool.h */
    struct ep_shares *shares;           /* likewise; see share.h */
    int unmapped;                       /* why the pool of what is next cannot be mapped: an errno. 0: was not tried */
    uint64_t part_length, part_pages;   /* what parts of replies lack, see ep_want_part_space; 0: nothing */
    uint64_t event_block;               /* pages of the block for which the event is to be rung; 0: none */

    struct ep_request *requests;
    uint16_t *free;                     /* stack of free entries */
    uint32_t free_count, request_count;
    uint32_t completed, completed_last; /* list of futures whose reply is there, and that nobody has collected */
    uint32_t futures, alerting;         /* that wait for their reply; of them, those that are to be told at once */
    bool nudge;                         /* whoever attends to the futures shall come and look */
    bool resting;                       /* that thread waits for a nudge alone */
    uint64_t attend_until;              /* so long it attends as if one were to be told at once */
    uint64_t nap_ns, nap_seen;          /* its last nap, and what had happened by then (ep_nap) */
    uint64_t completions;               /* requests that have got their reply */
    uint64_t random, counter;           /* of correlation ids */
    uint32_t streams;                   /* requests whose replies come in parts, and that nobody has ended */
    uint64_t granted;                   /* bytes that these may be sent beyond what was taken of them */
    struct ep_stream *stirred, *stirred_last; /* list of those for which an event loop waits, and that have a part, or
                                               * ended */
    uint64_t drains;                    /* how often the reply ring has been seen empty */
    uint32_t untold;                    /* list of entries whose request was withdrawn, of which the server is still to
                                         * be told */

    uint8_t cancels[EP_CANCELS][16];    /* ids of requests to this endpoint that were withdrawn, the last ones, */
    uint64_t cancels_seen;              /* and how many there were */
    uint64_t cancels_before;            /* in the incoming data ring they lie before this position */

    struct ep_outflow *outflows[EP_OUTFLOWS]; /* replies in parts that this endpoint gives, by id */
    struct ep_outflow *due, *due_last;  /* list of those that can go on, and that no thread has */

    rb_word trouble;                    /* enum ep_trouble; changed under the lock */
    uint32_t bad_ring;                  /* EP_RING_BAD: which, those to us first, then those from us */
    uint64_t bad_position;
    rb_word wakes;                      /* changes when the leader must look again; changed under the lock */
    struct ep_waiter *leader;
    uint32_t leader_wants;
    uint64_t looks;                     /* of leaders at their views, without the lock, that are over */
    struct ep_waiter *first;            /* all who wait, the leader among them, in the order in which they came */
    uint32_t inside;                    /* how many those are */
    struct rb_bell bell;                /* the leader's */
    struct rb_bell lingering;           /* how spinning does of who waits at the event for others (spin.h) */
    struct rb_poster self;              /* wakes the leader */
    sem_t no_bell;                      /* takes the place of both bells once it is vacated */

    int event_fd;                       /* the second bell (event.h, show.h); -1: none */
    struct sb_event event;              /* by which this process rings it */
    uint64_t event_need[SB_RINGS];      /* the tail for which it is to be rung; SB_NO_NEED: none */
    uint64_t event_seen[4];             /* what ep_event_state said when the loop last looked */
    uint64_t event_minds;               /* it is watched by others (fileno): troubles that make it readable; 0: it is
                                         * not */
    uint64_t event_taken;               /* the serial of the dispatcher that has taken it, or is about to */
    int event_door;                     /* where it was shown, and the answer is to come; -1: none */
    uint64_t event_shown;               /* the serial of the dispatcher to which it was shown last */
    uint64_t event_again;               /* not to be shown to that one before */
    char event_refusal[480];            /* why it was not taken the last time, and the remedy; empty: it was */

    /* The watcher's. */
    struct ep_endpoint *watch_next;     /* under the watcher's lock */
    int pidfd, stat_fd;                 /* of the dispatcher; -1: none */
    uint32_t dispatcher_pid;
    uint64_t serial;                    /* of the dispatcher they are of */
    bool watched;
    bool absent;                        /* there was no dispatcher at the last look */
    int door;                           /* connection to a dispatcher that adopted us; -1: none */
    char door_path[108];                /* empty: not to be knocked at again */
    char bus_path[108];                 /* where the bus's segment stood, */
    uint64_t bus_file;                  /* and its inode; 0: not known */
};

static inline void ep_lock(struct ep_endpoint *e) { pthread_mutex_lock(&e->lock); }
static inline void ep_unlock(struct ep_endpoint *e) { pthread_mutex_unlock(&e->lock); }

/* Raise our word and wake the dispatcher if it sleeps; what it shall find has been stored before. The raise of
 * the word, which is seq, then the look at the dispatcher's epoch, pair with its epoch turned odd (rb_park), then its
 * look at the words (dp_something_new). */
static inline void ep_ring_dispatcher(struct ep_endpoint *e)
{
    RB_FAIL("push.published");
    atomic_fetch_add_explicit(e->ready, 1, memory_order_seq_cst); /* without the lock, too: ep_tell_ended */
    RB_FAIL("push.raised");
    rb_ring_bell(&e->dispatcher);
}

/* Pairs with the leader's look in ep_view_changed, once its epoch is odd. */
static inline void ep_wake_leader(struct ep_endpoint *e)
{
    rb_store_seq(&e->wakes, rb_load(&e->wakes) + 1);
    rb_ring_bell(&e->self);
}

/* `what`: enum sb_event_want. Pairs with ep_event_arm, too. */
static inline void ep_wake(struct ep_endpoint *e, uint64_t what)
{
    ep_wake_leader(e);
    if (e->event.epoch)
        sb_ring_event(&e->event, what);
}
