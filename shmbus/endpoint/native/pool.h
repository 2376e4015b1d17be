/* The endpoint's own segment POOL: memory for payloads that it sends and that are too large for rings, with the table
 * of what it holds of the pools of others. Made when either is first needed.
 *
 * Its size is the endpoint's limit, and costs address space alone: memory is reserved for the tables, and behind them
 * for the pages up to `reserved`, which grows with what is asked for, and is given back from its end. So what is
 * written there never meets a page that /dev/shm cannot give. All pools of a bus share a limit, too, so the dispatcher
 * is asked first. Blocks lie in these pages, see block.h.
 *
 *   ep_pool_path          where the pool of an endpoint is
 *   ep_make_pool          have one: 0, or an error number
 *   ep_may_reserve        may it have so many pages? If not, the dispatcher has been asked
 *   ep_grant_is_open      is an answer to come?
 *   ep_want_no_more       than so many, whether they were granted or are still asked for
 *   ep_reserve_pages      do reserve those that block.h asks for; called without the lock
 *   ep_give_back_pages    give back those from here on, a portion at a time
 *   ep_drop_pool_file     at the end
 *   ep_part_pool          in a forked child: what is lent there is not the parent's memory
 *   ep_vacate_pool, ep_free_pool    its memory is not used any more
 */
#pragma once

#include "ringbuf/native/reserve.h"
#include "shmbus/endpoint/native/trouble.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/statvfs.h>
#include <unistd.h>

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

#define EP_PAGE 4096u
#define EP_ASKED_PAGES 256u   /* a question is for so many at the least: each takes a round to the dispatcher */
#define EP_RESERVED_BYTES (1u << 20) /* of one call: a signal undoes what that has done */
#define EP_GIVEN_BACK_PAGES 1024u /* at a time, since that is done under the lock */

struct ep_block {            /* of the pool; private */
    uint64_t first, pages;   /* where; 0 pages: the index is free */
    rb_word held;            /* 1: it is being filled, or lent to the user; stored without the lock */
};

struct ep_pool {
    struct sb_pool *memory;
    int fd;                  /* of its file; -1: closed */
    bool vacated;
    uint64_t pages;          /* behind the tables */
    uint64_t reserved;       /* of these, from the first on */
    uint64_t grows_to;       /* a thread reserves up to there; 0: none does */
    uint64_t may;            /* the last answer, or less, see ep_may_reserve */
    bool exact;              /* the last question was for what is needed, and no more */
    uint64_t used_ns;        /* when a block was last taken, or more was asked for */
    rb_word let;             /* 1: a block was let while somebody had the lock; stored without it */
    rb_word indices;         /* no index from here on was ever used */
    uint32_t count;          /* blocks that are not free, */
    uint16_t order[SB_BLOCKS]; /* their indices, by `first` */
    struct ep_block blocks[SB_BLOCKS];
};

/* False: the bus's own is not known, or there is no space for it. */
static inline bool ep_pool_path(const struct ep_endpoint *e, uint32_t slot, uint32_t generation, char *path,
                                size_t size)
{
    size_t length = strlen(e->bus_path);
    if (length < 3 || strcmp(e->bus_path + length - 3, "bus") != 0)
        return false;
    int made = snprintf(path, size, "%.*spool:%u:%u", (int)(length - 3), e->bus_path, slot, generation);
    return made > 0 && (size_t)made < size;
}

static inline uint8_t *ep_pool_data(const struct ep_pool *pool) { return (uint8_t *)pool->memory + SB_POOL_DATA; }

static inline uint64_t ep_pool_pages(uint64_t bytes) { return (bytes + EP_PAGE - 1) / EP_PAGE; }

static inline struct sb_pool *ep_map_pool(int fd, uint64_t size, int *failed)
{
    *failed = rb_truncate(fd, (off_t)size);
    if (!*failed)
        do
            *failed = rb_reserve(fd, 0, SB_POOL_DATA);
        while (*failed == EINTR);
    if (*failed)
        return NULL;
    void *at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (at == MAP_FAILED) {
        *failed = errno;
        return NULL;
    }
    madvise(at, size, MADV_DONTDUMP);
    return at;
}

static inline int ep_make_pool(struct ep_endpoint *e)
{
    char path[160];
    int failed = 0;
    if (e->pool)
        return 0;
    if (!ep_pool_path(e, e->slot, e->generation, path, sizeof path))
        return ENAMETOOLONG;
    struct ep_pool *pool = calloc(1, sizeof *pool);
    if (!pool)
        return ENOMEM;
    pool->pages = ep_pool_pages(e->up->pool_limit);
    uint64_t size = SB_POOL_DATA + pool->pages * EP_PAGE;
    unlink(path); /* of an endpoint of an earlier bus */
    pool->fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    failed = pool->fd < 0 ? errno : 0;
    RB_FAIL("pool.created");
    if (!failed)
        pool->memory = ep_map_pool(pool->fd, size, &failed);
    if (failed) {
        if (pool->fd >= 0) {
            close(pool->fd);
            unlink(path);
        }
        free(pool);
        return failed;
    }
    struct sb_pool *memory = pool->memory;
    memory->slot = e->slot;
    memory->generation = e->generation;
    memory->bytes = size;
    memory->prefix.layout = SB_LAYOUT;
    memory->prefix.size = size;
    memory->prefix.generation = e->generation;
    memory->prefix.kind = SB_SEGMENT_POOL;
    rb_store_release(&memory->prefix.magic, RB_MAGIC);
    e->pool = pool;
    RB_FAIL("pool.made");
    rb_store_release(&e->up->pool_bytes, size);
    ep_ring_dispatcher(e);
    return 0;
}

static inline bool ep_grant_is_open(const struct ep_endpoint *e)
{
    return rb_load_acquire(&e->down->pool_granted) >> 40 != rb_load(&e->up->pool_asked) >> 40;
}

static inline void ep_ask_for_pages(struct ep_endpoint *e, uint64_t pages)
{
    uint64_t number = (rb_load(&e->up->pool_asked) >> 40) + 1;
    rb_store_release(&e->up->pool_asked, sb_pool_question(number, pages));
    e->pool->used_ns = rb_coarse_now();
    RB_FAIL("pool.asked");
    ep_ring_dispatcher(e);
}

/* The first `pages` of it. Only an answer to the last question counts; until it comes, the lesser of what the one
 * before gave and what is asked for. What is given may rise later. More is asked for once less was answered: two pools
 * of which each waits for what the other has been granted would else keep it, see ep_tend_pool. After a part no more is
 * asked for than is needed, so that nobody loses anything for the rest. */
static inline bool ep_may_reserve(struct ep_endpoint *e, uint64_t pages)
{
    struct ep_pool *pool = e->pool;
    bool open = ep_grant_is_open(e);
    uint64_t answer = rb_load_acquire(&e->down->pool_granted), asked = sb_pool_pages(rb_load(&e->up->pool_asked));
    if (!open)
        pool->may = sb_pool_pages(answer) < pool->pages ? sb_pool_pages(answer) : pool->pages;
    if (pages <= pool->may)
        return true;
    bool in_part = sb_pool_pages(answer) < asked;
    if (!open && (asked < pages || (in_part && !pool->exact && asked > pages))) {
        uint64_t want = (pages + EP_ASKED_PAGES - 1) / EP_ASKED_PAGES * EP_ASKED_PAGES;
        pool->exact = in_part;
        ep_ask_for_pages(e, in_part ? pages : want < pool->pages ? want : pool->pages);
    }
    return false;
}

/* None behind them is reserved. */
static inline void ep_want_no_more(struct ep_endpoint *e, uint64_t pages)
{
    struct ep_pool *pool = e->pool;
    if (sb_pool_pages(rb_load(&e->up->pool_asked)) <= pages)
        return;
    pool->may = pool->may < pages ? pool->may : pages;
    ep_ask_for_pages(e, pages);
}

/* Bytes that can be had of this kind of memory, before the system would have to end processes for it: `free` of the
 * line of /proc/meminfo. */
static inline uint64_t ep_unused_memory(void)
{
    char line[128];
    uint64_t kilobytes, unused = 0;
    FILE *facts = fopen("/proc/meminfo", "re");
    if (!facts)
        return UINT64_MAX;
    while (fgets(line, sizeof line, facts))
        if (sscanf(line, "MemAvailable: %lu", &kilobytes) == 1 || sscanf(line, "SwapFree: %lu", &kilobytes) == 1)
            unused += kilobytes * 1024;
    fclose(facts);
    return unused;
}

/* Whether there is so much: reserving more would first take all that is there. 0, or an error number. */
static inline int ep_memory_there(int fd, uint64_t bytes)
{
    struct statvfs system;
    if (fstatvfs(fd, &system) == 0 && system.f_blocks && bytes / system.f_frsize >= system.f_bavail)
        return ENOSPC;
    if (bytes > (uint64_t)sysconf(_SC_AVPHYS_PAGES) * EP_PAGE && bytes > ep_unused_memory())
        return ENOMEM;
    return 0;
}

/* By the thread that was told to (EP_BLOCK_GROW), without the lock: 0, or an error number. */
static inline int ep_reserve_pages(struct ep_endpoint *e)
{
    struct ep_pool *pool = e->pool;
    uint64_t at = pool->reserved * EP_PAGE, end = pool->grows_to * EP_PAGE;
    int failed = ep_memory_there(pool->fd, end - at);
    while (!failed && at < end) {
        uint64_t piece = end - at < EP_RESERVED_BYTES ? end - at : EP_RESERVED_BYTES;
        do
            failed = rb_reserve(pool->fd, (off_t)(SB_POOL_DATA + at), (off_t)piece);
        while (failed == EINTR);
        if (!failed) /* or else who writes there first has a fault for each page; an old system cannot */
            madvise(ep_pool_data(pool) + at, piece, MADV_POPULATE_WRITE);
        at += failed ? 0 : piece;
    }
    ep_lock(e);
    pool->reserved = at / EP_PAGE;
    pool->grows_to = 0;
    rb_store(&e->up->pool_reserved, at);
    if (failed)
        ep_want_no_more(e, pool->reserved); /* others may have it */
    ep_wake(e, SB_EVENT_SPACE); /* others may wait for that */
    ep_unlock(e);
    return failed;
}

/* Whether more is left to be given back, of that from page `from` on, which no block takes. */
static inline bool ep_give_back_pages(struct ep_endpoint *e, uint64_t from)
{
    struct ep_pool *pool = e->pool;
    uint64_t least = pool->reserved > EP_GIVEN_BACK_PAGES ? pool->reserved - EP_GIVEN_BACK_PAGES : 0;
    if (pool->grows_to || pool->fd < 0 || pool->reserved <= from)
        return false;
    least = least > from ? least : from;
    if (fallocate(pool->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)(SB_POOL_DATA + least * EP_PAGE),
                  (off_t)((pool->reserved - least) * EP_PAGE)) != 0)
        return false;
    pool->reserved = least;
    rb_store(&e->up->pool_reserved, least * EP_PAGE);
    RB_FAIL("pool.punched");
    return least > from;
}

static inline void ep_drop_pool_file(struct ep_endpoint *e)
{
    if (e->pool && e->pool->fd >= 0) {
        close(e->pool->fd);
        e->pool->fd = -1;
    }
}

/* Views of what is lent stay, of memory that is private and empty. */
static inline void ep_part_pool(struct ep_endpoint *e)
{
    ep_drop_pool_file(e);
    if (e->pool && !e->pool->vacated)
        mmap(e->pool->memory, SB_POOL_DATA + e->pool->pages * EP_PAGE, PROT_READ | PROT_WRITE,
             MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0);
}

/* It is closed, and nobody waits in it. What is lent to the user stays as it is until ep_free_pool; otherwise private
 * memory takes its place. */
static inline void ep_vacate_pool(struct ep_endpoint *e)
{
    struct ep_pool *pool = e->pool;
    if (!pool || pool->vacated)
        return;
    if (!pool->grows_to) /* by a thread that did not leave in time */
        ep_drop_pool_file(e);
    pool->vacated = true;
    bool lent = false;
    for (uint32_t i = 0; i < SB_BLOCKS; i++)
        if (rb_load_acquire(&pool->blocks[i].held))
            lent = true;
        else
            rb_store(&pool->memory->blocks[i].bytes, 0); /* dp_trim_block */
    mmap(pool->memory, SB_POOL_DATA + (lent ? 0 : pool->pages * EP_PAGE), PROT_READ | PROT_WRITE,
         MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0);
}

static inline void ep_free_pool(struct ep_endpoint *e)
{
    if (!e->pool)
        return;
    ep_drop_pool_file(e);
    munmap(e->pool->memory, SB_POOL_DATA + e->pool->pages * EP_PAGE);
    free(e->pool);
    e->pool = NULL;
}
