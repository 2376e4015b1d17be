/* Segments that the forwarding thread makes itself, without Python: reserved in full, for this user alone.
 *
 * Offers: dp_make_segment, dp_open_segment, dp_close_segment, dp_remove_segment; of those that endpoints make:
 *         dp_map_head, dp_unmap_head, dp_read_segment, dp_punch_segment, dp_list_segments. The exhaustive tests of
 * kills put memory that they can put back in its place. */
#pragma once

#include "ringbuf/native/order.h"

struct dp_extent { /* bytes */
    uint64_t size, reserved;
    bool known;
};

#ifndef DP_SEGMENTS_ELSEWHERE

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
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

/* Its first bytes, to be read alone, and how large it is. NULL: they are not there, or not reserved, where reading may
 * find no memory. */
static inline const void *dp_map_head(const char *name, uint64_t bytes, struct dp_extent *extent)
{
    struct stat st = {0};
    void *at = MAP_FAILED;
    int fd = shm_open(name, O_RDONLY | O_CLOEXEC, 0);
    if (fd < 0)
        return NULL;
    if (fstat(fd, &st) == 0)
        *extent = (struct dp_extent){(uint64_t)st.st_size, 512 * (uint64_t)st.st_blocks, true};
    if (extent->size >= bytes && extent->reserved >= bytes)
        at = mmap(NULL, bytes, PROT_READ, MAP_SHARED, fd, 0);
    close(fd);
    return at == MAP_FAILED ? NULL : at;
}

static inline void dp_unmap_head(const void *at, uint64_t bytes) { munmap((void *)(uintptr_t)at, bytes); }

/* Of `n` bytes from there on as many as there are. */
static inline uint32_t dp_read_segment(const char *name, uint64_t from, void *to, uint64_t n)
{
    int fd = shm_open(name, O_RDONLY | O_CLOEXEC, 0);
    ssize_t got = fd < 0 ? 0 : pread(fd, to, n, (off_t)from);
    if (fd >= 0)
        close(fd);
    return got < 0 ? 0 : (uint32_t)got;
}

/* The memory there goes, if it is there still. */
static inline void dp_punch_segment(const char *name, uint64_t from, uint64_t bytes)
{
    int fd = shm_open(name, O_RDWR | O_CLOEXEC, 0);
    if (fd < 0)
        return;
    (void)fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)from, (off_t)bytes);
    close(fd);
}

/* The names that begin so. */
static inline void dp_list_segments(const char *prefix, void (*found)(void *, const char *), void *context)
{
    DIR *folder = opendir("/dev/shm");
    for (struct dirent *one; folder && (one = readdir(folder));)
        if (strncmp(one->d_name, prefix + 1, strlen(prefix + 1)) == 0)
            found(context, one->d_name + strlen(prefix + 1));
    if (folder)
        closedir(folder);
}

#endif
