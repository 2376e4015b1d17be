/* Spinning in an event loop, which sleeps elsewhere: while replies have lately come soon, a task need not be suspended
 * for one. The bell decides, as for waiters in calls, who are not there meanwhile.
 *
 *   ep_spin_reply         spin for a while: is there a reply?
 *   ep_note_slept         the loop has slept for one instead, and been woken
 *   ep_linger             of who waits at the event for others: spin for longer, for whatever comes
 *   ep_note_lingered      it has slept there instead, and been woken
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

/* By one thread, which need not be the one that takes what comes: `next` may be old, so this may be said in vain. */
static inline bool ep_something_waits(void *context)
{
    const struct ep_endpoint *e = context;
    for (uint32_t ring = 0; ring < SB_RINGS_IN; ring++)
        if (rb_load_acquire(e->in[ring].head) != e->in[ring].next)
            return true;
    return false;
}

/* Called without the lock. `*spun`: whether it was tried. */
static inline bool ep_linger(struct ep_endpoint *e, uint64_t now, bool *spun)
{
    *spun = rb_spins(&e->lingering, now);
    return *spun && rb_spin(&e->lingering, ep_something_waits, e, now);
}

static inline void ep_note_lingered(struct ep_endpoint *e, bool spun, uint64_t since)
{
    rb_note_slept(&e->lingering, spun, since);
}
