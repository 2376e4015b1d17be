/* The last will of a process: an early sign of its death. Its pidfd and its sockets say nothing until its memory has been
 * torn down, milliseconds for a small one and a second and more for a large one. But the first thing that the kernel
 * does of all this is to look after the futexes of a dying thread (robust futexes): it wakes who waits for the one that
 * the thread was about to touch, if nobody owns it. So the watcher of each process, a thread of ours alone that
 * uses no robust mutex, claims for ever to be about to touch a word of the bus, which the dispatcher waits for.
 *
 * It is a sign that somebody may be dying, no more, and it may be missed: whoever gets it looks at the flags of all.
 * See exit_robust_list() and handle_futex_death() in Linux's kernel/futex/core.c. */
#ifndef SB_WILL_H
#define SB_WILL_H

#include "ringbuf/native/order.h"

#include <errno.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#define SB_WILLS_CLOSED FUTEX_OWNER_DIED /* in the word: nobody waits; a bit that names no owner */

static struct robust_list_head sb_will;

/* In the thread whose end is to be the sign. */
static inline void sb_make_will(void)
{
    sb_will.list.next = &sb_will.list;
    (void)syscall(SYS_set_robust_list, &sb_will, sizeof sb_will);
}

/* Whose dispatcher is to be woken; one bus at a time, NULL: none. */
static inline void sb_leave_will(const rb_word *wills)
{
    sb_will.list_op_pending = (struct robust_list *)(uintptr_t)wills;
}

/* Wait for somebody's death. False: the word was closed, or the system does not know how. */
static inline bool sb_await_will(const rb_word *wills)
{
    bool woken = false;
    while (rb_load(wills) != SB_WILLS_CLOSED) {
        if (woken)
            return true;
        woken = syscall(SYS_futex, wills, FUTEX_WAIT, 0, NULL, NULL, 0) == 0;
        if (!woken && errno != EAGAIN && errno != EINTR)
            return false;
    }
    return false;
}

static inline void sb_close_wills(rb_word *wills)
{
    rb_store_seq(wills, SB_WILLS_CLOSED);
    (void)syscall(SYS_futex, wills, FUTEX_WAKE, 1 << 30, NULL, NULL, 0);
}

#endif
