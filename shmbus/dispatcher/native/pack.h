/* As much MessagePack as the bus's own events need: a map of texts, numbers and bytes.
 *
 * Offers: dp_pack_map, then as many pairs: dp_pack_text, dp_pack_string, dp_pack_number, dp_pack_seconds,
 *         dp_pack_bytes; dp_pack_array, then as many maps. */
#pragma once

#include <stdint.h>
#include <string.h>

struct dp_pack {
    uint8_t *bytes;
    uint32_t length, capacity;
};

static inline void dp_pack_raw(struct dp_pack *p, const void *bytes, uint32_t n)
{
    if (n <= p->capacity - p->length) {
        memcpy(p->bytes + p->length, bytes, n);
        p->length += n;
    }
}

static inline void dp_pack_head(struct dp_pack *p, uint8_t code, uint64_t value, int width)
{
    uint8_t head[9] = {code};
    for (int i = 0; i < width; i++)
        head[1 + i] = (uint8_t)(value >> (8 * (width - 1 - i)));
    dp_pack_raw(p, head, (uint32_t)width + 1);
}

static inline void dp_pack_map(struct dp_pack *p, uint8_t pairs) { dp_pack_head(p, (uint8_t)(0x80 | pairs), 0, 0); }

static inline void dp_pack_short(struct dp_pack *p, const char *text, size_t n)
{
    dp_pack_head(p, 0xd9, n > 255 ? 255 : n, 1);
    dp_pack_raw(p, text, n > 255 ? 255 : (uint32_t)n);
}

static inline void dp_pack_text(struct dp_pack *p, const char *key, const char *text, size_t n)
{
    dp_pack_short(p, key, strlen(key));
    dp_pack_short(p, text, n);
}

static inline void dp_pack_string(struct dp_pack *p, const char *key, const char *text)
{
    dp_pack_text(p, key, text, strlen(text));
}

static inline void dp_pack_number(struct dp_pack *p, const char *key, uint64_t value)
{
    dp_pack_short(p, key, strlen(key));
    dp_pack_head(p, 0xcf, value, 8);
}

static inline void dp_pack_array(struct dp_pack *p, const char *key, uint16_t count)
{
    dp_pack_short(p, key, strlen(key));
    dp_pack_head(p, 0xdc, count, 2);
}

/* A time in nanoseconds, as a number of seconds. */
static inline void dp_pack_seconds(struct dp_pack *p, const char *key, uint64_t ns)
{
    double seconds = (double)ns / 1e9;
    uint64_t bits;
    memcpy(&bits, &seconds, sizeof bits);
    dp_pack_short(p, key, strlen(key));
    dp_pack_head(p, 0xcb, bits, 8);
}

static inline void dp_pack_bytes(struct dp_pack *p, const char *key, const uint8_t *bytes, uint32_t n)
{
    dp_pack_short(p, key, strlen(key));
    dp_pack_head(p, 0xc6, n, 4);
    dp_pack_raw(p, bytes, n);
}
