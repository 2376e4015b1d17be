/* The second bell of an endpoint: an event, an eventfd that it has made and passed through the door, for whoever
 * sleeps in an event loop and not in a call of ours.
 *
 *   sleeper   takes what was written; wants.store; epoch -> odd (seq_cst); looks; nothing? sleeps at the descriptor
 *   ringer    what is new is stored (seq_cst, or before one rb_fence_seq); e = epoch (seq_cst);
 *             if e is odd, e != written, and it is among the wants: write, then written = e
 *
 * As with the doorbell (ringbuf/native/bell.h) both sides store and then look. The epoch is written by the endpoint
 * alone; what was written for last is private to each of the two who ring: the dispatcher and the endpoint itself. The
 * descriptor does not block (the dispatcher refuses one that does), so neither waits here. tests/models/event.py
 * explores all interleavings of these steps.
 *
 *   sb_event_open     who rings has got the descriptor
 *   sb_ring_event     wake who sleeps there, if that is what it sleeps for
 *   sb_write_event    wake it whatever it sleeps for
 */
#pragma once

#include "ringbuf/native/fail.h"
#include "shmbus/shared/native/layout.h"

#include <errno.h>
#include <unistd.h>

struct sb_event {         /* private to who rings; zero: there is none */
    const rb_word *epoch; /* shared, written by the endpoint, as is `wants` */
    const rb_word *wants; /* enum sb_event_want */
    int fd;
    uint64_t written;     /* the last epoch for which it wrote */
};

static inline struct sb_event sb_event_open(const struct sb_up *up, int fd)
{
    return (struct sb_event){.epoch = &up->event, .wants = &up->event_wants, .fd = fd};
}

static inline void sb_write_event(int fd)
{
    uint64_t one = 1;
    while (write(fd, &one, sizeof one) < 0 && errno == EINTR) {
    } /* any other failure: so much stands there that it is readable */
}

/* Call after `what` was stored with seq_cst order or before one rb_fence_seq. */
static inline void sb_ring_event(struct sb_event *v, uint64_t what)
{
    uint64_t epoch = rb_load_seq(v->epoch);
    if ((epoch & 1) && epoch != v->written && (rb_load(v->wants) & what)) {
        RB_FAIL("event.write");
        sb_write_event(v->fd);
        v->written = epoch;
    }
}
