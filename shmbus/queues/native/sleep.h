/* Waiting for what a role's holder does, with as few system calls as naps.
 *
 *   sleep:  v = number; naps + 1 (seq_cst); look; nothing? futex_wait(number, v)
 *   ring:   what is new is stored; fence; t = naps; if t != rung: rung + 1, number + 1; unlock; futex_wake(one)
 *
 * Those asleep are never more than `naps - rung`: a nap adds one to both sides, a wake-up takes one off. Either the
 * ringer sees the nap, or the sleeper's look sees what is new. A nap that the ringer counted read `number` before it
 * was raised: it is asleep already, and is woken, or never falls asleep. Where a ringing wakes fewer than it
 * would, nobody whose nap was counted by then is asleep any more: their naps need no wake-up, and `none_asleep` says
 * so at the next ringing.
 *
 * A killed ringer may owe a wake-up, and one may go to a process that is stopped or killed: sleepers look again every
 * SQ_SLICE_NS. tests/models/queueing.py explores these steps.
 *
 * Offers: sq_call, sq_wake; sq_sleep; sq_nap. */
#pragma once

#include "shmbus/queues/native/core.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#define SQ_SLICE_NS 100000000u

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "a futex is the lower half of its word");

struct sq_call {
    uint64_t naps;  /* as they were at the ringing */
    uint64_t wakes; /* wake-ups that are due */
};

/* By the role's holder, after what is new was stored: up to `most` are to be woken. */
static inline struct sq_call sq_call(struct sq_bell *b, uint64_t none_asleep, uint64_t most)
{
    rb_fence_seq();
    struct sq_call call = {rb_load_seq(&b->naps), 0};
    uint64_t rung = rb_load(&b->rung);
    if (call.naps == rung)
        return call;
    if (none_asleep > rung)
        rung = none_asleep;
    call.wakes = call.naps - rung < most ? call.naps - rung : most;
    rb_store(&b->rung, rung + call.wakes);
    rb_store_seq(&b->number, rb_load(&b->number) + 1);
    return call;
}

/* Without the role. */
static inline void sq_wake(struct sq_bell *b, struct sq_call call, rb_word *none_asleep)
{
    if (!call.wakes)
        return;
    RB_FAIL("queue.wake");
    long woken = syscall(SYS_futex, (uint32_t *)(void *)&b->number, FUTEX_WAKE, (int)call.wakes, NULL, NULL, 0);
    if (woken >= 0 && (uint64_t)woken < call.wakes && call.naps > rb_load(none_asleep))
        rb_store(none_asleep, call.naps);
}

/* Sleep once, until `until` at the latest, unless `look` says yes; it may end in vain. */
static inline void sq_nap(struct sq_bell *b, rb_look look, void *context, uint64_t until)
{
    uint64_t number = rb_load_seq(&b->number);
    rb_count_seq(&b->naps);
    if (look(context))
        return;
    uint64_t now = rb_now();
    if (now >= until)
        return;
    uint64_t rest = until - now;
    struct timespec t = {(time_t)(rest / 1000000000u), (long)(rest % 1000000000u)};
    syscall(SYS_futex, (uint32_t *)(void *)&b->number, FUTEX_WAIT, (uint32_t)number, &t, NULL, 0);
}

/* Spin, where that has lately been of use, then sleep. */
static inline void sq_sleep(struct sq_user *u, struct sq_bell *b, rb_look look, void *context, uint64_t until)
{
    if (look(context))
        return;
    uint64_t start = rb_now();
    bool spins = rb_spins(&u->spin, start);
    if (spins && rb_spin(&u->spin, look, context, start))
        return;
    sq_nap(b, look, context, until);
    rb_note_slept(&u->spin, spins, start);
}
