/* Shares: blocks of the pools of others that this endpoint looks at.
 *
 * Its table, in its own segment POOL, says which: so the dispatcher has none of them returned to its sender. An entry
 * stands there before `taken` passes the record, until nobody looks any more and the message needs no handing on. What
 * comes beyond the setting `loans`, or makes several hold more than half of their pool, is copied into private memory.
 * Pools of others are mapped read-only, privately, whole, when the first block of theirs comes, and no descriptor of them is kept.
 *
 * An endpoint that ends, or was evicted, may hold nothing any more. So what somebody still looks at becomes private in
 * its place, at the same addresses. In a forked child, too, since the entries are the parent's, which goes on when that
 * is done.
 *
 *   ep_enter_share        a record with SB_POOLED is about to be taken: its share. NULL: no memory, or it is nobody's any more
 *   ep_drop_unmapped      is it not to be taken, since its pool cannot be mapped now?
 *   ep_pass_share         one was taken that nobody wants
 *   ep_share_data         where its payload is, ep_share_size bytes; NULL: it could not be mapped
 *   ep_copies_share       is it to be copied? ep_copy_share does it
 *   ep_unpin_share        its message needs no handing on any more
 *   ep_free_share         nobody looks any more. In any thread, whatever locks it has
 *   ep_part_shares        what is looked at becomes private, while everything goes on: ep_end_shares then has little to do
 *   ep_end_shares         the endpoint ends, or its dispatcher forgets it: what is looked at becomes private, all else
 *                         is unmapped
 *   ep_drop_maps          unmap the pools of those that have gone, and of those that send nothing: when to come again
 *   ep_free_shares        the endpoint is freed
 *
 * Modelled in tests/models/pools.py and tests/models/parting.py.
 */
#pragma once

#include "shmbus/endpoint/native/fork.h"
#include "shmbus/endpoint/native/pool.h"

#include <poll.h>
#include <sys/stat.h>

#define EP_VIEW_ALIGN 64u /* of private copies; blocks begin with a page */
#define EP_LOOKS_NS 300000000u /* how often to see whether one that looks at any was evicted: its blocks stay for 1 s */
#define EP_MAPS_NS 1000000000u /* how often to see whose pools have gone, */
#define EP_KEPT_NS 5000000000u /* while one was looked at within this time: then it is unmapped, and nobody need see */
#define EP_TRIES_NS 100000000u /* how often to try to make a table, while there is no memory for it */
#define EP_FORK_NS 5000000000u /* a parent waits so long for its child to have copied what it looks at */
#define EP_NO_ENTRY SB_SHARES
#define EP_POPULATE_WRITE 23 /* MADV_POPULATE_WRITE, which older headers do not have */

struct ep_map {              /* somebody's pool */
    struct ep_map *next;
    uint64_t whom;           /* sb_whom() */
    uint8_t *at;
    uint64_t size;           /* of the file */
    uint64_t held;           /* bytes of the payloads that are looked at there */
    uint32_t shares;         /* how many those are */
    uint64_t used_ns;        /* when somebody last began or ceased to look there; 0: nobody has */
    bool parted;             /* what they look at is private now: nothing else is found there */
};

struct ep_share {
    struct ep_shares *of;
    struct ep_share *next, *before; /* all of its endpoint */
    struct ep_map *map;      /* NULL: it is copied, or could not be mapped, */
    int unmapped;            /* for this reason: an errno */
    uint8_t *copy;
    struct sb_block block;
    uint32_t entry;          /* EP_NO_ENTRY: none, or none any more */
    bool pinned;             /* its message may have to be handed on: the entry stays */
    bool excess;             /* to be copied */
    bool first;              /* its pool was not mapped before */
    bool parted;             /* it lies in private memory, at the same addresses */
    bool parting;            /* it is being copied there; nobody frees it meanwhile, */
    bool dropped;            /* but then it is freed */
};

struct ep_shares {
    pthread_mutex_t lock;    /* of all that follows; taken last, and held across nothing but C */
    uint64_t fork_mark;
    uint64_t references;     /* the endpoint, and its shares */
    struct sb_up *up;
    struct sb_pool *own;     /* with the table; NULL: there is none */
    _Atomic uint32_t *ready;
    struct rb_poster dispatcher;
    bool over;               /* the endpoint is not known any more: nothing is said about its shares */
    uint64_t tries_ns;       /* there was no memory for a table; not before then it is tried again */
    uint32_t entered;        /* entries in use */
    uint32_t free_from;      /* no entry before this one is free */
    struct ep_map *maps;
    struct ep_share *first;
    struct ep_shares *other; /* of this process, under the lock of ep_forks */
};

struct ep_forks {
    pthread_mutex_t lock;    /* taken before those of its tables */
    bool watched;
    struct ep_shares *first; /* all of this process */
    int kept[2];             /* a pipe, by which a child says that it has what it looks at; -1: none */
};
static struct ep_forks ep_forks = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* Pools ----------------------------------------------------------------------------------------------------------- */

/* The size of an opened file, if it may be a pool of our user; 0 otherwise. */
static inline uint64_t ep_pool_file_size(int fd)
{
    struct stat found;
    if (fstat(fd, &found) != 0 || !S_ISREG(found.st_mode) || found.st_uid != geteuid() || found.st_mode & 077 ||
        found.st_size < (off_t)SB_POOL_DATA)
        return 0;
    return (uint64_t)found.st_size;
}

static inline bool ep_pool_is_of(const struct sb_pool *pool, uint64_t whom)
{
    return rb_load_acquire(&pool->prefix.magic) == RB_MAGIC && pool->prefix.layout == SB_LAYOUT &&
           pool->prefix.kind == SB_SEGMENT_POOL && pool->slot == sb_whom_slot(whom) &&
           pool->generation == sb_whom_generation(whom);
}

static inline struct ep_map *ep_open_map(const struct ep_endpoint *e, uint64_t whom)
{
    char path[160];
    struct ep_map *map = NULL;
    if (!ep_pool_path(e, sb_whom_slot(whom), sb_whom_generation(whom), path, sizeof path))
        return NULL;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0)
        return NULL;
    uint64_t size = ep_pool_file_size(fd);
    void *at = size ? mmap(NULL, size, PROT_READ, MAP_PRIVATE, fd, 0) : MAP_FAILED;
    close(fd);
    if (at == MAP_FAILED)
        return NULL;
    if (ep_pool_is_of(at, whom))
        map = malloc(sizeof *map);
    if (!map) {
        munmap(at, size);
        return NULL;
    }
    madvise(at, size, MADV_DONTDUMP);
    *map = (struct ep_map){.whom = whom, .at = at, .size = size};
    return map;
}

static inline uint64_t ep_map_most(const struct ep_endpoint *e, const struct ep_map *map)
{
    return sb_pool_most(map->size, e->bus->pool_total_bytes);
}

static inline bool ep_has_gone(const struct ep_endpoint *e, uint64_t whom)
{
    const struct sb_row *rows = (const struct sb_row *)((const uint8_t *)e->bus + e->bus->rows_offset);
    return sb_whom_slot(whom) >= e->bus->slots ||
           rb_load(&rows[sb_whom_slot(whom)].generation) != sb_whom_generation(whom) ||
           rb_load(&rows[sb_whom_slot(whom)].state) == SB_ROW_FREE;
}

/* Those that nobody looks at: `all`, or of endpoints that have gone, or that nobody has looked at for some time. Whether
 * others are left. */
static inline bool ep_unmap_idle(const struct ep_endpoint *e, struct ep_shares *s, bool all)
{
    struct ep_map **at = &s->maps;
    while (*at) {
        struct ep_map *map = *at;
        bool idle = rb_coarse_now() > map->used_ns + EP_KEPT_NS;
        if (map->shares || !(all || idle || ep_has_gone(e, map->whom))) {
            at = &map->next;
            continue;
        }
        *at = map->next;
        munmap(map->at, map->size);
        free(map);
    }
    return s->maps != NULL;
}

/* NULL: it is not there, or no more can be mapped. */
static inline struct ep_map *ep_map_of(const struct ep_endpoint *e, struct ep_shares *s, uint64_t whom)
{
    for (struct ep_map *map = s->maps; map; map = map->next)
        if (map->whom == whom && !map->parted)
            return map;
    ep_unmap_idle(e, s, false);
    struct ep_map *map = ep_open_map(e, whom);
    if (!map && errno == ENOMEM && s->maps) { /* rather those that are looked at now */
        ep_unmap_idle(e, s, true);
        map = ep_open_map(e, whom);
    }
    if (map) {
        map->next = s->maps;
        s->maps = map;
    }
    return map;
}

/* The table -------------------------------------------------------------------------------------------------------- */

/* Something that was held is not any more. */
static inline void ep_tell_ended(struct ep_shares *s)
{
    if (s->over)
        return;
    rb_store_release(&s->up->shares_ended, rb_load(&s->up->shares_ended) + 1);
    RB_FAIL("share.ended");
    atomic_fetch_add_explicit(s->ready, 1, memory_order_seq_cst); /* as in ep_ring_dispatcher */
    rb_ring_bell(&s->dispatcher);
}

/* Before `taken` passes the record. The dispatcher loads that, then looks here. */
static inline uint32_t ep_fill_entry(struct ep_shares *s, uint64_t id, const struct sb_block *block)
{
    struct sb_pool *own = s->own;
    uint32_t i = s->free_from;
    while (own && i < SB_SHARES && rb_load(&own->shares[i].share))
        i++;
    if (!own || i == SB_SHARES)
        return EP_NO_ENTRY;
    struct sb_share *entry = &own->shares[i];
    rb_fence_release(); /* who sees what follows sees that the share before is over */
    rb_store(&entry->pool, sb_whom(block->pool_slot, block->pool_generation));
    rb_store(&entry->block, block->index | 1ull << 63);
    rb_store(&entry->bytes, block->length);
    if (rb_load(&own->shares_used) <= i)
        rb_store_release(&own->shares_used, i + 1);
    RB_FAIL("share.filled");
    rb_store_release(&entry->share, id);
    RB_FAIL("share.entered");
    s->free_from = i + 1;
    s->entered++;
    return i;
}

static inline void ep_clear_entry(struct ep_share *share)
{
    struct ep_shares *s = share->of;
    uint32_t i = share->entry;
    share->entry = EP_NO_ENTRY;
    if (i == EP_NO_ENTRY || s->over)
        return;
    rb_store_release(&s->own->shares[i].share, 0); /* who looked there has read all that it wanted */
    RB_FAIL("share.cleared");
    s->free_from = i < s->free_from ? i : s->free_from;
    s->entered--;
    ep_tell_ended(s);
}

/* Shares ----------------------------------------------------------------------------------------------------------- */

static inline uint64_t ep_share_size(const struct ep_share *share) { return share->block.length; }

static inline const uint8_t *ep_share_data(const struct ep_share *share)
{
    return share->copy ? share->copy : share->map ? share->map->at + share->block.offset : NULL;
}

static inline bool ep_copies_share(const struct ep_share *share) { return share->excess && !share->copy && share->map; }

static inline void ep_leave_map(struct ep_share *share)
{
    if (!share->map)
        return;
    share->map->held -= share->block.length;
    share->map->shares--;
    share->map->used_ns = rb_coarse_now();
    share->map = NULL;
}

/* Under s->lock. */
static inline void ep_use_copy(struct ep_share *share, uint8_t *copy)
{
    share->copy = copy;
    share->excess = false;
    if (copy && !share->of->over)
        rb_add(&share->of->up->copied, 1);
    ep_leave_map(share);
    if (!share->pinned)
        ep_clear_entry(share);
}

static inline uint8_t *ep_copy_of(const struct ep_share *share)
{
    void *copy = NULL;
    if (!share->map || posix_memalign(&copy, EP_VIEW_ALIGN, share->block.length) != 0)
        return NULL;
    memcpy(copy, share->map->at + share->block.offset, share->block.length);
    return copy;
}

/* By whoever has the share, mostly without the endpoint's lock. Where there is no memory for it, it stays where it is. */
static inline void ep_copy_share(struct ep_share *share)
{
    uint8_t *copy = ep_copy_of(share);
    pthread_mutex_lock(&share->of->lock);
    if (copy)
        ep_use_copy(share, copy);
    share->excess = false;
    pthread_mutex_unlock(&share->of->lock);
}

static void ep_before_fork(void);
static void ep_after_fork_in_parent(void);
static void ep_after_fork_in_child(void);

/* False: no memory. */
static inline bool ep_list_shares(struct ep_shares *s)
{
    pthread_mutex_lock(&ep_forks.lock);
    bool done = ep_forks.watched ||
                pthread_atfork(ep_before_fork, ep_after_fork_in_parent, ep_after_fork_in_child) == 0;
    ep_forks.watched = done;
    if (done) {
        s->other = ep_forks.first;
        ep_forks.first = s;
    }
    pthread_mutex_unlock(&ep_forks.lock);
    return done;
}

static inline void ep_unlist_shares(struct ep_shares *s)
{
    pthread_mutex_lock(&ep_forks.lock);
    struct ep_shares **at = &ep_forks.first;
    while (*at != s)
        at = &(*at)->other;
    *at = s->other;
    pthread_mutex_unlock(&ep_forks.lock);
}

/* Without a table as yet. NULL: no memory. */
static inline struct ep_shares *ep_listed_shares(struct ep_endpoint *e)
{
    if (e->shares)
        return e->shares;
    struct ep_shares *s = calloc(1, sizeof *s);
    if (!s)
        return NULL;
    pthread_mutex_init(&s->lock, NULL);
    if (!ep_list_shares(s)) {
        free(s);
        return NULL;
    }
    s->fork_mark = e->fork_mark;
    s->references = 1;
    s->up = e->up;
    s->ready = e->ready;
    s->dispatcher = e->dispatcher;
    e->shares = s;
    return s;
}

static inline struct ep_shares *ep_shares_of(struct ep_endpoint *e)
{
    if (!ep_listed_shares(e))
        return NULL;
    struct ep_shares *s = e->shares;
    bool tries = e->pool || rb_coarse_now() >= s->tries_ns;
    if (s->own || s->over || ep_trouble(e) & EP_FOR_GOOD || !tries)
        return s;
    if (ep_make_pool(e) == 0)
        s->own = e->pool->memory;
    else
        s->tries_ns = rb_coarse_now() + EP_TRIES_NS;
    return s;
}

static inline struct ep_map *ep_map_for(const struct ep_endpoint *e, struct ep_shares *s, const struct sb_block *block)
{
    struct ep_map *map = ep_map_of(e, s, sb_whom(block->pool_slot, block->pool_generation));
    bool inside = map && block->length && block->offset >= SB_POOL_DATA && block->offset <= map->size &&
                  block->length <= map->size - block->offset;
    return inside ? map : NULL;
}

static inline void ep_dismiss_shares(struct ep_shares *s) /* under s->lock, which it gives back */
{
    bool last = --s->references == 0;
    pthread_mutex_unlock(&s->lock);
    if (!last)
        return;
    ep_unlist_shares(s);
    for (struct ep_map *map = s->maps, *next; map; map = next) {
        next = map->next;
        munmap(map->at, map->size);
        free(map);
    }
    pthread_mutex_destroy(&s->lock);
    free(s);
}

static inline void ep_remove_share(struct ep_share *share) /* likewise */
{
    struct ep_shares *s = share->of;
    struct ep_map *map = share->map;
    ep_leave_map(share);
    ep_clear_entry(share);
    if (share->before)
        share->before->next = share->next;
    else
        s->first = share->next;
    if (share->next)
        share->next->before = share->before;
    if (s->over && map && !map->shares) { /* nobody asks any more who has gone */
        munmap(map->at, map->size);
        struct ep_map **at = &s->maps;
        while (*at != map)
            at = &(*at)->next;
        *at = map->next;
        free(map);
    }
    free(share->copy);
    free(share);
    ep_dismiss_shares(s);
}

/* In a forked child the memory stays until its end: its lock may be another thread's, which is not there. */
static inline void ep_free_share(struct ep_share *share)
{
    struct ep_shares *s = share->of;
    if (ep_forked(s->fork_mark))
        return;
    pthread_mutex_lock(&s->lock);
    share->dropped = share->parting;
    if (share->dropped)
        pthread_mutex_unlock(&s->lock);
    else
        ep_remove_share(share);
}

/* Whoever is evicted, or has closed, may find blocks that are used again. After the entry: dp_depart says so, fences,
 * then looks at the table. */
static inline bool ep_out_of_shares(struct ep_endpoint *e)
{
    rb_fence_seq();
    return ep_trouble(e) & (EP_EVICTED | EP_CLOSED_HERE);
}

/* `id`: sb_share_of() or sb_share_of_mail(). `pinned`: its message may have to be handed on. */
static inline struct ep_share *ep_enter_share(struct ep_endpoint *e, uint64_t id, const struct sb_record *header,
                                              const uint8_t *record, bool pinned)
{
    uint64_t offset = sb_payload_offset(header);
    struct ep_shares *s = ep_shares_of(e);
    struct ep_share *share = s ? calloc(1, sizeof *share) : NULL;
    if (!share)
        return NULL;
    share->of = s;
    share->pinned = pinned;
    if (header->length - offset == sizeof share->block)
        memcpy(&share->block, record + offset, sizeof share->block);
    pthread_mutex_lock(&s->lock);
    errno = 0;
    share->map = ep_map_for(e, s, &share->block);
    share->unmapped = share->map ? 0 : errno;
    if (share->map) {
        share->first = !share->map->used_ns;
        share->map->used_ns = rb_coarse_now();
        share->map->held += share->block.length;
        share->map->shares++;
    }
    share->entry = ep_fill_entry(s, id, &share->block);
    share->excess = s->entered > e->up->loans ||
                    (share->map && share->map->shares > 1 && share->map->held > ep_map_most(e, share->map) / 2);
    if (share->entry == EP_NO_ENTRY) {
        ep_use_copy(share, ep_copy_of(share));
        ep_tell_ended(s);
    }
    s->references++;
    share->next = s->first;
    if (s->first)
        s->first->before = share;
    s->first = share;
    pthread_mutex_unlock(&s->lock);
    if (__builtin_expect(ep_out_of_shares(e), 0)) {
        ep_free_share(share);
        return NULL;
    }
    return share;
}

/* Its pool cannot be mapped for want of something that may come: then what names it is not taken, and the share goes. */
static inline bool ep_drop_unmapped(struct ep_endpoint *e, struct ep_share *share)
{
    int why = share->unmapped;
    if (__builtin_expect(why != EMFILE && why != ENFILE && why != ENOMEM, 1))
        return false;
    ep_free_share(share);
    e->unmapped = why;
    return true;
}

/* It is taken, and was not entered. */
static inline void ep_pass_share(struct ep_endpoint *e)
{
    struct ep_shares *s = ep_listed_shares(e);
    if (!s)
        return;
    pthread_mutex_lock(&s->lock);
    ep_tell_ended(s);
    pthread_mutex_unlock(&s->lock);
}

static inline void ep_unpin_share(struct ep_share *share)
{
    if (ep_forked(share->of->fork_mark))
        return;
    pthread_mutex_lock(&share->of->lock);
    share->pinned = false;
    if (!share->map)
        ep_clear_entry(share);
    pthread_mutex_unlock(&share->of->lock);
}

/* Ends ------------------------------------------------------------------------------------------------------------- */

/* What lies in its pages becomes private memory, at the same addresses: whoever reads there meanwhile sees the same. A
 * pool is mapped privately, so a page that is written becomes the process's own, by the kernel, in one step; each is
 * written as it is. So nothing is unmapped or moved, no address space is needed, and what fails leaves the page there:
 * valid, but perhaps not unchanged later. That is for want of memory alone, or of mappings, for which the kernel splits
 * one.
 *
 * Where pages are larger than a block's, a neighbour that lies in the same ones keeps what it has, since blocks that are
 * looked at do not change; nothing else is found there afterwards (`parted`). */
struct ep_pages {
    uint8_t *from;
    uint64_t size;
};

static inline struct ep_pages ep_pages_of(const struct ep_share *share)
{
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE), from = share->block.offset & ~(page - 1);
    uint64_t to = (share->block.offset + share->block.length + page - 1) & ~(page - 1);
    return (struct ep_pages){share->map->at + from, to - from};
}

/* Under s->lock, like ep_close_pages: whoever has it and writes finds them open. */
static inline bool ep_open_pages(struct ep_pages pages)
{
    return mprotect(pages.from, pages.size, PROT_READ | PROT_WRITE) == 0;
}

static inline void ep_close_pages(struct ep_pages pages) { (void)mprotect(pages.from, pages.size, PROT_READ); }

/* May be done without the lock, by several at once: it fails where another has closed them. */
static inline bool ep_own_pages(struct ep_pages pages) { return madvise(pages.from, pages.size, EP_POPULATE_WRITE) == 0; }

/* For a kernel that does not know that (before Linux 5.14). */
static inline void ep_touch_pages(struct ep_pages pages)
{
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
    for (uint64_t i = 0; i < pages.size; i += page) {
        volatile uint8_t *byte = pages.from + i;
        *byte = *byte;
    }
}

/* Under s->lock. */
static inline void ep_make_private(struct ep_share *share)
{
    struct ep_pages pages = ep_pages_of(share);
    if (ep_open_pages(pages) && !ep_own_pages(pages) && errno == EINVAL)
        ep_touch_pages(pages);
    ep_close_pages(pages);
    share->parted = true;
}

/* One that may change, or go; `idle`: and nobody copies. */
static inline struct ep_share *ep_unparted_share(const struct ep_shares *s, bool idle)
{
    struct ep_share *share = s->first;
    while (share && (!share->map || share->parted || (idle && (share->parting || share->excess))))
        share = share->next;
    return share;
}

static inline void ep_make_all_private(struct ep_shares *s)
{
    struct ep_share *share;
    while ((share = ep_unparted_share(s, false)) != NULL)
        ep_make_private(share);
    for (struct ep_map *map = s->maps; map; map = map->next)
        map->parted |= map->shares != 0;
}

/* Called without a lock, and none is held while it copies. What fails here is left to ep_end_shares. */
static inline void ep_part_shares(struct ep_endpoint *e)
{
    struct ep_share *share;
    bool copied = true;
    ep_lock(e);
    struct ep_shares *s = e->shares;
    ep_unlock(e);
    if (!s)
        return;
    pthread_mutex_lock(&s->lock);
    while (copied && !s->over && (share = ep_unparted_share(s, true)) != NULL) {
        share->map->parted = true;
        share->parting = true;
        struct ep_pages pages = ep_pages_of(share);
        copied = ep_open_pages(pages);
        pthread_mutex_unlock(&s->lock);
        copied = copied && ep_own_pages(pages);
        pthread_mutex_lock(&s->lock);
        share->parting = false;
        share->parted |= copied;
        ep_close_pages(pages);
        if (!share->dropped)
            continue;
        ep_remove_share(share);
        pthread_mutex_lock(&s->lock);
    }
    pthread_mutex_unlock(&s->lock);
}

/* Before UP.state says that it is closed, and when it was evicted: afterwards its entries count no more. */
static inline void ep_end_shares(struct ep_endpoint *e)
{
    struct ep_shares *s = e->shares;
    if (!s)
        return;
    pthread_mutex_lock(&s->lock);
    if (!s->over) {
        ep_make_all_private(s);
        ep_unmap_idle(e, s, true);
        s->over = true;
        for (uint32_t i = 0; s->own && i < rb_load(&s->own->shares_used); i++)
            rb_store_release(&s->own->shares[i].share, 0);
        s->own = NULL;
        rb_store_release(&s->up->shares_ended, rb_load(&s->up->shares_ended) + 1);
    }
    pthread_mutex_unlock(&s->lock);
}

/* By the watcher, which then also sees in time that the dispatcher forgets this endpoint. */
static inline uint64_t ep_drop_maps(struct ep_endpoint *e, uint64_t now)
{
    struct ep_shares *s = e->shares;
    if (!s)
        return SB_NOWHERE;
    pthread_mutex_lock(&s->lock);
    bool left = ep_unmap_idle(e, s, false), looks = s->first && !s->over;
    pthread_mutex_unlock(&s->lock);
    return looks ? now + EP_LOOKS_NS : left ? now + EP_MAPS_NS : SB_NOWHERE;
}

static inline void ep_free_shares(struct ep_endpoint *e)
{
    struct ep_shares *s = e->shares;
    if (!s || ep_forked(s->fork_mark))
        return;
    ep_end_shares(e);
    e->shares = NULL;
    pthread_mutex_lock(&s->lock);
    ep_dismiss_shares(s);
}

/* Forks, by whomever: libc calls these ------------------------------------------------------------------------ */

static void ep_before_fork(void)
{
    bool any = false;
    pthread_mutex_lock(&ep_forks.lock);
    for (struct ep_shares *s = ep_forks.first; s; s = s->other) {
        pthread_mutex_lock(&s->lock);
        any |= s->first && !s->over;
    }
    ep_forks.kept[0] = ep_forks.kept[1] = -1;
    if (any && pipe2(ep_forks.kept, O_CLOEXEC) != 0)
        ep_forks.kept[0] = ep_forks.kept[1] = -1; /* no descriptor is left: nobody waits */
}

static inline void ep_end_fork(void)
{
    for (struct ep_shares *s = ep_forks.first; s; s = s->other)
        pthread_mutex_unlock(&s->lock);
    for (int i = 0; i < 2; i++)
        if (ep_forks.kept[i] >= 0)
            close(ep_forks.kept[i]);
    pthread_mutex_unlock(&ep_forks.lock);
}

/* Until then nothing may be given back. Where there is no child, or none any more, its end of the pipe is closed. */
static void ep_after_fork_in_parent(void)
{
    struct pollfd kept = {.fd = ep_forks.kept[0], .events = POLLIN};
    if (kept.fd >= 0)
        close(ep_forks.kept[1]); /* ours, so that the end of the child's shows */
    ep_forks.kept[1] = -1;
    uint64_t until = rb_now() + EP_FORK_NS, now;
    while (kept.fd >= 0 && (now = rb_now()) < until)
        if (poll(&kept, 1, (int)((until - now) / 1000000u) + 1) >= 0 || errno != EINTR)
            break;
    ep_end_fork();
}

static void ep_after_fork_in_child(void)
{
    for (struct ep_shares *s = ep_forks.first; s; s = s->other) {
        if (!s->over)
            ep_make_all_private(s);
        s->over = true;
    }
    if (ep_forks.kept[1] >= 0)
        (void)!write(ep_forks.kept[1], "", 1);
    ep_end_fork();
}
