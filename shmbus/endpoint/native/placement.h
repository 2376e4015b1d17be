/* Placement: a thread that waits in lockstep steps aside from the dispatcher's CPU.
 *
 * In lockstep (request and reply, one record at a time) on two cores, an end that shares the dispatcher's core costs
 * every round trip a change of context, and the system's scheduler may leave it so for long. The dispatcher publishes
 * its CPU; an end that finds itself there at many waits in a row asks to run anywhere else, then takes its own mask
 * back: a hint that binds nobody afterwards. Done blindly this costs more than it gives. So only in lockstep, at most
 * every 2 ms, not for a while after a sign of a CPU hog, and not for a while when the waits grew afterwards.
 *
 *   ep_placement_init     when an endpoint opens
 *   ep_placement_step     after each wait in lockstep
 */
#ifndef EP_PLACEMENT_H
#define EP_PLACEMENT_H

#include "ringbuf/native/bell.h"

#include <unistd.h>

#define EP_PLACEMENT_STREAK 32u        /* waits in a row on the dispatcher's CPU, then a step */
#define EP_PLACEMENT_PAUSE_NS 2000000u /* between two steps */
#define EP_PLACEMENT_CALM 10u          /* rests without a sign of a hog: 10 ms after a blip, a second if it stayed */
#define EP_PLACEMENT_REST_NS 1000000000u
#define EP_PLACEMENT_TRIAL 64u         /* waits after which a step is judged */

struct ep_placement {     /* private to the endpoint, used by its leader alone */
    bool enabled;
    uint32_t streak;      /* lockstep waits in a row on the dispatcher's CPU */
    uint32_t trial;       /* waits left until the last step is judged */
    uint64_t not_before;  /* no step */
    uint64_t rest_ns;     /* how long to rest after a step that did harm */
    uint64_t mean_ns;     /* of the lockstep waits, over about 16 */
    uint64_t mean_before; /* when it stepped last */
    uint64_t moves;       /* statistics */
};

static inline void ep_placement_init(struct ep_placement *p, bool enabled)
{
    enabled = enabled && sysconf(_SC_NPROCESSORS_ONLN) > 1;
    *p = (struct ep_placement){.enabled = enabled, .rest_ns = EP_PLACEMENT_REST_NS};
}

/* One step, to anywhere but `cpu`. */
static inline void ep_placement_leave(struct ep_placement *p, int cpu)
{
    cpu_set_t own, others;
    if (sched_getaffinity(0, sizeof own, &own) != 0)
        return;
    others = own;
    CPU_CLR(cpu, &others);
    if (CPU_COUNT(&others) == 0) {
        p->enabled = false;
        return;
    }
    if (sched_setaffinity(0, sizeof others, &others) == 0) {
        sched_setaffinity(0, sizeof own, &own);
        p->moves++;
    }
}

/* Did the last step do harm? Then rest, twice as long each time. */
static inline void ep_placement_judge(struct ep_placement *p, uint64_t now)
{
    if (p->mean_ns <= p->mean_before + p->mean_before / 4) {
        p->rest_ns = EP_PLACEMENT_REST_NS;
        return;
    }
    p->not_before = now + p->rest_ns;
    if (p->rest_ns < 64 * (uint64_t)EP_PLACEMENT_REST_NS)
        p->rest_ns *= 2;
}

/* After a lockstep wait of `waited` ns that ended at `now`. */
static inline void ep_placement_step(struct ep_placement *p, const struct rb_bell *bell, uint64_t dispatcher_cpu,
                                 uint64_t waited, uint64_t now)
{
    if (!p->enabled)
        return;
    p->mean_ns = p->mean_ns - p->mean_ns / 16 + waited / 16;
    if (p->trial && --p->trial == 0)
        ep_placement_judge(p, now);
    int cpu = sched_getcpu();
    if (cpu < 0 || (uint64_t)cpu != dispatcher_cpu) {
        p->streak = 0;
        return;
    }
    if (++p->streak < EP_PLACEMENT_STREAK || now < p->not_before)
        return;
    p->streak = 0;
    if (bell->hogs && now < bell->hog_until + EP_PLACEMENT_CALM * bell->hog_rest)
        return;
    p->mean_before = p->mean_ns;
    p->trial = EP_PLACEMENT_TRIAL;
    p->not_before = now + EP_PLACEMENT_PAUSE_NS;
    ep_placement_leave(p, cpu);
}

#endif
