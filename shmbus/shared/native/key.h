/* Keys: the tokens of a type by which its messages go to the same member of a group, and how much a member wants one.
 *
 * Of all members the one that wants a key most owns it (rendezvous hashing): so whoever joins takes keys from each of
 * the others, and of one that leaves each of them takes some, and no other key moves.
 *
 * Offers: sb_key_hash, sb_key_weight. shmbus/events.py has the same for whoever keeps state by key. */
#pragma once

#include <stddef.h>
#include <stdint.h>

/* Of the tokens whose positions are bits of `key`. */
static inline uint64_t sb_key_hash(const uint8_t *type, size_t length, uint64_t key)
{
    uint64_t hash = 0xcbf29ce484222325ull;
    uint32_t token = 0;
    for (size_t i = 0; i < length && token < 32; i++) {
        token += type[i] == '.';
        if (key >> token & 1) /* the dot before a token is of it */
            hash = (hash ^ type[i]) * 0x100000001b3ull;
    }
    return hash;
}

static inline uint64_t sb_key_weight(uint64_t hash, uint32_t generation)
{
    uint64_t x = hash ^ generation * 0x9e3779b97f4a7c15ull;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ x >> 27) * 0x94d049bb133111ebull;
    return x ^ x >> 31;
}
