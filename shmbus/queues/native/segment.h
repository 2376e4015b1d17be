/* Segments that are made while a role is held, so without Python: reserved in full, for this user alone, and complete
 * before anybody is told of them.
 *
 * Offers: sq_make_segment, sq_open_segment, sq_unmap, sq_part_name. */
#pragma once

#include "ringbuf/native/reserve.h"
#include "shmbus/queues/native/core.h"

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#define SQ_PIECE 1048576u /* bytes reserved at once: tmpfs takes back what an interrupted call had reserved */

/* "QUEUE:12" of a ring, "QUEUE:hand-3" of a row's copies. */
static inline const char *sq_part_name(const struct sq_core *c, const char *what, uint64_t number, char *name)
{
    snprintf(name, SQ_MAX_FILE + 32, "%s:%s%llu", c->name, what, (unsigned long long)number);
    return name;
}

static inline void sq_unmap(struct sq_mapped *m)
{
    void *at = m->at;
    m->serial = 0;
    m->at = NULL; /* before it is unmapped: a fork in between must not unmap what comes after it */
    if (at)
        munmap(at, m->size);
}

static inline bool sq_reserve(int fd, uint64_t size)
{
    struct statvfs system;
    /* Asking for more than there is would first take all that is free. */
    if (fstatvfs(fd, &system) == 0 && system.f_blocks && (uint64_t)system.f_bavail * system.f_frsize < size)
        return false;
    for (uint64_t start = 0; start < size; start += SQ_PIECE) {
        uint64_t length = size - start < SQ_PIECE ? size - start : SQ_PIECE;
        int error;
        do
            error = rb_reserve(fd, (off_t)start, (off_t)length);
        while (error == EINTR);
        if (error)
            return false;
    }
    return true;
}

static inline bool sq_map(int fd, uint64_t size, uint64_t serial, struct sq_mapped *m)
{
    void *at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (at == MAP_FAILED)
        return false;
    madvise(at, size, MADV_DONTDUMP);
    *m = (struct sq_mapped){at, size, serial};
    return true;
}

/* Zeros; what had the name, which nobody was told of, is removed. The prefix is yet to be written. */
static inline bool sq_make_segment(const char *name, uint64_t size, uint64_t serial, struct sq_mapped *m)
{
    shm_unlink(name);
    int fd = shm_open(name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        return false;
    RB_FAIL("queue.made");
    bool done = fchmod(fd, 0600) == 0 && sq_reserve(fd, size) && sq_map(fd, size, serial, m);
    close(fd);
    if (!done)
        shm_unlink(name);
    return done;
}

static inline void sq_write_prefix(struct sq_mapped *m, uint32_t kind)
{
    struct rb_prefix *p = m->at;
    p->layout = SQ_LAYOUT;
    p->size = m->size;
    p->kind = kind;
    rb_store_release(&p->magic, RB_MAGIC);
}

/* SQ_GONE: it is not there, or is not ours. */
static inline enum sq_status sq_open_segment(const char *name, uint32_t kind, uint64_t serial, struct sq_mapped *m)
{
    struct stat st;
    int fd = shm_open(name, O_RDWR | O_CLOEXEC, 0);
    if (fd < 0)
        return errno == ENOENT ? SQ_GONE : SQ_NO_SPACE;
    bool ours = fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_uid == geteuid() &&
                st.st_size >= (off_t)sizeof(struct rb_prefix);
    bool mapped = ours && sq_map(fd, (uint64_t)st.st_size, serial, m);
    close(fd);
    if (!mapped)
        return ours ? SQ_NO_SPACE : SQ_GONE;
    struct rb_prefix *p = m->at;
    if (rb_load_acquire(&p->magic) == RB_MAGIC && p->layout == SQ_LAYOUT && p->kind == kind && p->size == m->size)
        return SQ_OK;
    sq_unmap(m);
    return SQ_CORRUPT;
}
