/* The last will of a process: an early sign of its death, by a robust futex.
 *
 * Pidfd and sockets show a death only after the process's memory has been freed, milliseconds for a small one, a
 * second and more for a large one. But the first thing the kernel does for a dying thread is to handle its list of
 * robust futexes: for the one that the thread was about to touch (list_op_pending), if nobody owns it, it wakes who
 * waits there. So the watcher of each process, a thread of ours that uses no robust mutex, names there for all its
 * life a word of the bus, and a thread of the dispatcher waits for that word.
 *
 * It says that somebody may be dying, no more, and it may be missed: who is woken looks at the task flags of all.
 * See exit_robust_list() and handle_futex_death() in Linux's kernel/futex/core.c.
 *
 *   sb_make_will, sb_leave_will     in each process: once, by its watcher; which bus is to be told
 *   sb_await_will, sb_close_wills   in the dispatcher: wait; let who waits come to an end
 */
#pragma once

#include "ringbuf/native/order.h"

#include <errno.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#define SB_WILLS_CLOSED FUTEX_OWNER_DIED /* nobody waits any more; a bit that the kernel takes for no owner */

static struct robust_list_head sb_will;

/* By the thread whose end is to be the sign. */
static inline void sb_make_will(void)
{
    sb_will.list.next = &sb_will.list;
    (void)syscall(SYS_set_robust_list, &sb_will, sizeof sb_will);
}

/* `wills` of the bus whose dispatcher is to be woken, one at a time; NULL: none. By any thread: the kernel alone
 * reads it. */
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
    rb_store_seq(wills, SB_WILLS_CLOSED); /* who is about to wait finds the word changed: FUTEX_WAIT, EAGAIN */
    (void)syscall(SYS_futex, wills, FUTEX_WAKE, 1 << 30, NULL, NULL, 0);
}
