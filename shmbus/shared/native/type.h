/* What a message's type is: tokens of letters, digits, `_` and `-`, between dots (check_type in
 * shmbus/shared/patterns.py says why a text is none).
 *
 * Offers: sb_is_type. */
#pragma once

#include "shmbus/shared/native/record.h"

#define SB_EACH_BYTE 0x0101010101010101ull
#define SB_EACH_TOP (0x80 * SB_EACH_BYTE)

/* Of eight characters: the top bit of each that lies in this range. Nothing sensible where one is not ASCII. */
static inline uint64_t sb_bytes_within(uint64_t bytes, uint8_t from, uint8_t to)
{
    return (bytes + (128u - from) * SB_EACH_BYTE) & ~(bytes + (127u - to) * SB_EACH_BYTE) & SB_EACH_TOP;
}

/* Zero: these eight characters may stand in a type, after a dot if `after_dot`. */
static inline uint64_t sb_odd_bytes(uint64_t bytes, bool after_dot)
{
    uint64_t dots = sb_bytes_within(bytes, '.', '.');
    uint64_t sound = sb_bytes_within(bytes | 0x20 * SB_EACH_BYTE, 'a', 'z') | sb_bytes_within(bytes, '0', '9') |
                     sb_bytes_within(bytes, '-', '.') | sb_bytes_within(bytes, '_', '_');
    return (~sound & SB_EACH_TOP) | (bytes & SB_EACH_TOP) | (dots & (dots << 8 | (after_dot ? 0x80 : 0)));
}

/* A type that users may send: none of the bus's own, which begin with `$`. Eight characters at a time, as it is
 * asked for each message: a cache of the types seen before is slower as soon as there are many. */
static inline bool sb_is_type(const char *text, size_t length)
{
    uint64_t bytes = 'a' * SB_EACH_BYTE, odd = 0;
    if (length == 0 || length > SB_MAX_TYPE || text[length - 1] == '.')
        return false;
    if (length < 8) {
        for (size_t i = 0; i < length; i++)
            bytes = bytes << 8 | (uint8_t)text[length - 1 - i];
        return !sb_odd_bytes(bytes, true);
    }
    for (size_t i = 0, last = length - 8;; i = i + 8 < last ? i + 8 : last) {
        memcpy(&bytes, text + i, 8);
        odd |= sb_odd_bytes(bytes, i == 0 || text[i - 1] == '.');
        if (i == last)
            return !odd;
    }
}
