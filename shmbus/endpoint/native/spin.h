/* Spinning for a reply in an event loop, which sleeps elsewhere: while replies have lately come soon, a task need not
 * be suspended for one. The bell decides, as for waiters in calls, who are not there meanwhile.
 *
 *   ep_spin_reply         spin for a while: is there a reply?
 *   ep_note_slept         the loop has slept for one instead, and been woken
 */
#pragma once

#include "shmbus/endpoint/native/want.h"

static inline bool ep_reply_waits(void *context)
{
    const struct ep_endpoint *e = context;
    return rb_load_acquire(e->in[SB_REPLIES].head) != e->in[SB_REPLIES].next;
}

/* Called without the lock, by the loop's thread. `*spun`: whether it was tried. */
static inline bool ep_spin_reply(struct ep_endpoint *e, uint64_t now, bool *spun)
{
    *spun = !e->inside && rb_spins(&e->bell, now);
    return *spun && rb_spin(&e->bell, ep_reply_waits, e, now);
}

static inline void ep_note_slept(struct ep_endpoint *e, bool spun, uint64_t since)
{
    if (!e->inside)
        rb_note_slept(&e->bell, spun, since);
}
