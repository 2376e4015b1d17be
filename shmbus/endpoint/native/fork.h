/* Is this process the one that attached? A page that the kernel wipes in every forked child tells, at the cost
 * of one load. A child shares the parent's rings and bells: one store of its own would ruin them.
 *
 *   ep_fork_watch         once a process, before its first attach
 *   ep_fork_mark          what an endpoint remembers at its attach
 *   ep_forked             is that not our mark any more?
 */
#pragma once

#include "ringbuf/native/order.h"

#include <sys/mman.h>
#include <unistd.h>

#ifndef MADV_WIPEONFORK
#define MADV_WIPEONFORK 18
#endif

static rb_word *ep_fork_page;       /* not 0 in a process that has attached, 0 again in its forked children */
static uint64_t ep_fork_generation; /* ordinary memory: a child goes on counting where its parent was */

/* False where the kernel cannot do it. Call again in a child that attaches anew. */
static inline bool ep_fork_watch(void)
{
    if (!ep_fork_page) {
        long size = sysconf(_SC_PAGESIZE);
        void *page = mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (page == MAP_FAILED)
            return false;
        if (madvise(page, (size_t)size, MADV_WIPEONFORK) != 0) {
            munmap(page, (size_t)size);
            return false;
        }
        ep_fork_page = page;
    }
    return true;
}

static inline uint64_t ep_fork_mark(void)
{
    if (rb_load(ep_fork_page) == 0)
        rb_store(ep_fork_page, ++ep_fork_generation);
    return rb_load(ep_fork_page);
}

static inline bool ep_forked(uint64_t mark) { return rb_load(ep_fork_page) != mark; }
