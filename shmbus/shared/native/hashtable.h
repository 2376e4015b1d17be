/* A hash table of pointers with open addressing: the items carry their own keys. One thread owns it.
 *
 * Offers: sb_hash, sb_same_bytes; sb_table_find, sb_table_put, sb_table_remove; and sb_grown for plain arrays. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

struct sb_table_slot {
    uint64_t hash;
    void *item; /* NULL: never used; SB_TOMB: removed */
};
struct sb_table {
    struct sb_table_slot *slots;
    uint64_t mask, used, live;
};
#define SB_TOMB ((void *)1)

/* FNV-1a, eight bytes at a time where there are eight, finished by a multiply-shift. */
static inline uint64_t sb_hash(const void *bytes, size_t n, uint64_t seed)
{
    const uint8_t *p = bytes;
    uint64_t h = seed ^ 0x9e3779b97f4a7c15ull ^ n;
    while (n >= 8) {
        uint64_t w;
        memcpy(&w, p, 8);
        h = (h ^ w) * 0x9fb21c651e98df25ull;
        h ^= h >> 32;
        p += 8;
        n -= 8;
    }
    uint64_t w = 0;
    memcpy(&w, p, n);
    h = (h ^ w) * 0x9fb21c651e98df25ull;
    return h ^ (h >> 29);
}

/* Texts of a few bytes, mostly: a call of memcmp would take longer. */
static inline bool sb_same_bytes(const void *one, const void *other, size_t n)
{
    const uint8_t *p = one, *q = other;
    uint64_t a, b;
    if (n < 8) {
        for (size_t i = 0; i < n; i++)
            if (p[i] != q[i])
                return false;
        return true;
    }
    for (size_t i = 0, last = n - 8;; i = i + 8 < last ? i + 8 : last) {
        memcpy(&a, p + i, 8);
        memcpy(&b, q + i, 8);
        if (a != b)
            return false;
        if (i == last)
            return true;
    }
}

typedef bool (*sb_same)(const void *item, const void *key);

static inline void *sb_table_find(const struct sb_table *t, uint64_t hash, sb_same same, const void *key)
{
    if (!t->slots)
        return NULL;
    for (uint64_t i = hash & t->mask;; i = (i + 1) & t->mask) {
        const struct sb_table_slot *s = &t->slots[i];
        if (!s->item)
            return NULL;
        if (s->item != SB_TOMB && s->hash == hash && same(s->item, key))
            return s->item;
    }
}

static inline bool sb_table_put(struct sb_table *t, uint64_t hash, void *item)
{
    if (!t->slots || (t->used + 1) * 4 > (t->mask + 1) * 3) {
        uint64_t capacity = 64;
        while (capacity < t->live * 3)
            capacity *= 2;
        struct sb_table_slot *fresh = calloc(capacity, sizeof *fresh);
        if (!fresh)
            return false;
        for (uint64_t i = 0; t->slots && i <= t->mask; i++) {
            if (!t->slots[i].item || t->slots[i].item == SB_TOMB)
                continue;
            uint64_t k = t->slots[i].hash & (capacity - 1);
            while (fresh[k].item)
                k = (k + 1) & (capacity - 1);
            fresh[k] = t->slots[i];
        }
        free(t->slots);
        t->slots = fresh;
        t->mask = capacity - 1;
        t->used = t->live;
    }
    uint64_t i = hash & t->mask;
    while (t->slots[i].item)
        i = (i + 1) & t->mask;
    t->slots[i] = (struct sb_table_slot){hash, item};
    t->used++;
    t->live++;
    return true;
}

static inline void sb_table_remove(struct sb_table *t, uint64_t hash, const void *item)
{
    if (!t->slots)
        return;
    for (uint64_t i = hash & t->mask; t->slots[i].item; i = (i + 1) & t->mask)
        if (t->slots[i].item == item) {
            t->slots[i].item = SB_TOMB;
            t->live--;
            return;
        }
}

/* The array with space for one more than `count`, new entries zeroed; NULL: no memory, and the array stays. */
static inline void *sb_grown(void *list, uint32_t count, uint32_t *capacity, size_t size)
{
    if (count < *capacity)
        return list;
    uint32_t more = *capacity ? *capacity * 2 : 4;
    uint8_t *fresh = realloc(list, more * size);
    if (!fresh)
        return NULL;
    memset(fresh + *capacity * size, 0, (more - *capacity) * size);
    *capacity = more;
    return fresh;
}
