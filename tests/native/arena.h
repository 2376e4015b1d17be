/* One piece of memory that forked processes share, and that can be put back as it was; also for the segments that
 * the forwarder makes. */
#pragma once

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "check.h"

static uint8_t *arena;
static uint64_t arena_used, arena_size = 1 << 20;

static inline void *shared(uint64_t size)
{
    if (!arena)
        arena = mmap(NULL, arena_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    void *at = arena + arena_used;
    arena_used += (size + 63) & ~(uint64_t)63;
    CHECK(arena_used <= arena_size);
    return at;
}
static inline void unshare_memory(void *at) { (void)at; }
#ifdef SEGMENTS_IN_FILES
static inline void unshare_all(void) /* the next test begins with an empty one */
{
    memset(arena, 0, arena_used);
    arena_used = 0;
}
#else
/* Segments that the forwarder makes: a test reserves a few before its victim begins. */
#define DP_SEGMENTS_ELSEWHERE
#include "shmbus/dispatcher/native/segment.h"
#ifndef ARENA_SEGMENTS
#define ARENA_SEGMENTS 3
#endif
#ifndef ARENA_SEGMENT_BYTES
#define ARENA_SEGMENT_BYTES 16384u
#endif

struct arena_segment { /* in the arena, too */
    char name[160]; /* empty: there is none */
    uint64_t size;
    void *memory;
};
static struct arena_segment *arena_segments;

static inline void unshare_all(void) /* the next test begins with an empty one */
{
    memset(arena, 0, arena_used);
    arena_used = 0;
    arena_segments = NULL;
}

static inline void reserve_segments(void)
{
    arena_segments = shared(ARENA_SEGMENTS * sizeof *arena_segments);
    for (int i = 0; i < ARENA_SEGMENTS; i++)
        arena_segments[i].memory = shared(ARENA_SEGMENT_BYTES);
}

static inline struct arena_segment *segment_named(const char *name)
{
    for (int i = 0; arena_segments && i < ARENA_SEGMENTS; i++)
        if (strcmp(arena_segments[i].name, name) == 0)
            return &arena_segments[i];
    return NULL;
}

static inline void dp_remove_segment(const char *name)
{
    struct arena_segment *s = segment_named(name);
    if (s)
        s->name[0] = 0;
}

static inline void *dp_make_segment(const char *name, uint64_t size)
{
    dp_remove_segment(name);
    struct arena_segment *s = segment_named("");
    if (!s || size > ARENA_SEGMENT_BYTES)
        return NULL;
    memset(s->memory, 0, ARENA_SEGMENT_BYTES);
    s->size = size;
    strcpy(s->name + 1, name + 1);
    *(volatile char *)s->name = name[0]; /* last: whoever is killed before has made none */
    return s->memory;
}

static inline void *dp_open_segment(const char *name, uint64_t *size)
{
    struct arena_segment *s = segment_named(name);
    if (s)
        *size = s->size;
    return s ? s->memory : NULL;
}

static inline void dp_close_segment(void *at, uint64_t size) { (void)at, (void)size; }

static inline const void *dp_map_head(const char *name, uint64_t bytes, struct dp_extent *extent)
{
    const struct arena_segment *s = segment_named(name);
    *extent = (struct dp_extent){s ? s->size : 0, s ? s->size : 0, s};
    return s && s->size >= bytes ? s->memory : NULL;
}

static inline void dp_unmap_head(const void *at, uint64_t bytes) { (void)at, (void)bytes; }

static inline uint32_t dp_read_segment(const char *name, uint64_t from, void *to, uint64_t n)
{
    (void)name, (void)from, (void)to, (void)n;
    return 0;
}

static inline void dp_list_segments(const char *prefix, void (*found)(void *, const char *), void *context)
{
    for (int i = 0; arena_segments && i < ARENA_SEGMENTS; i++)
        if (strncmp(arena_segments[i].name, prefix, strlen(prefix)) == 0)
            found(context, arena_segments[i].name + strlen(prefix));
}
#endif
