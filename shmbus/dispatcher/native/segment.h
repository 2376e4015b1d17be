/* Segments that the forwarding thread makes itself, without Python: reserved in full, for this user alone.
 *
 * Offers: dp_make_segment, dp_open_segment, dp_close_segment, dp_remove_segment. The exhaustive tests of kills put
 * memory that they can put back in its place. */
#pragma once

#include "ringbuf/native/order.h"

#ifndef DP_SEGMENTS_ELSEWHERE

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static inline void *dp_map_segment(int fd, uint64_t size)
{
    void *at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    return at == MAP_FAILED ? NULL : at;
}

static inline void dp_remove_segment(const char *name) { shm_unlink(name); }

/* Zeros; what had the name is removed. NULL: there is no memory. */
static inline void *dp_make_segment(const char *name, uint64_t size)
{
    shm_unlink(name);
    int fd = shm_open(name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600), failed;
    if (fd < 0)
        return NULL;
    do
        failed = posix_fallocate(fd, 0, (off_t)size);
    while (failed == EINTR);
    void *at = failed ? NULL : dp_map_segment(fd, size);
    close(fd);
    if (!at)
        shm_unlink(name);
    return at;
}

/* As it stands, with its size. NULL: it is not there. */
static inline void *dp_open_segment(const char *name, uint64_t *size)
{
    struct stat st;
    void *at = NULL;
    int fd = shm_open(name, O_RDWR | O_CLOEXEC, 0);
    if (fd < 0)
        return NULL;
    if (fstat(fd, &st) == 0 && st.st_size > 0)
        at = dp_map_segment(fd, *size = (uint64_t)st.st_size);
    close(fd);
    return at;
}

static inline void dp_close_segment(void *at, uint64_t size) { munmap(at, size); }

#endif
