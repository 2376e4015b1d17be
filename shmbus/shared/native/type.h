/* What a message's type is: tokens of letters, digits, `_` and `-`, between dots (check_type in
 * shmbus/shared/patterns.py says why a text is none).
 *
 * Offers: sb_is_type. */
#pragma once

#include "shmbus/shared/native/record.h"

/* A type that users may send: none of the bus's own, which begin with `$`. Without branches, as it is asked for each
 * message: a cache of the types seen before is slower as soon as there are many. */
static inline bool sb_is_type(const char *text, size_t length)
{
    uint8_t odd = 0, dot = 1;
    if (length == 0 || length > SB_MAX_TYPE)
        return false;
    for (size_t i = 0; i < length; i++) {
        uint8_t c = (uint8_t)text[i], was = dot;
        uint8_t letter = (uint8_t)((c | 0x20) - 'a') < 26, digit = (uint8_t)(c - '0') < 10;
        dot = c == '.';
        odd |= (dot & was) | !(letter | digit | (c == '_') | (c == '-') | dot);
    }
    return !(odd | dot);
}
