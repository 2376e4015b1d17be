/* How two patterns relate: whether they have a type in common, and whether one matches all that the other does
 * (overlaps and covers in shmbus/shared/patterns.py are the same).
 *
 * Offers: sb_is_wild, sb_overlap, sb_covers. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

struct sb_rest { /* the tokens of a pattern that are to be looked at yet */
    const char *text;
    size_t length;
};

static inline struct sb_rest sb_next_token(struct sb_rest *rest)
{
    size_t end = 0;
    while (end < rest->length && rest->text[end] != '.')
        end++;
    struct sb_rest token = {rest->text, end};
    size_t skip = end < rest->length ? end + 1 : end;
    rest->text += skip;
    rest->length -= skip;
    return token;
}

static inline bool sb_is_token(struct sb_rest token, char wild) { return token.length == 1 && token.text[0] == wild; }

/* Has it a `*` or a `>`, so that it stands for several types? */
static inline bool sb_is_wild(const char *pattern, size_t length)
{
    return memchr(pattern, '*', length) || memchr(pattern, '>', length);
}

/* Either may be a type. Both have sound tokens. */
static inline bool sb_overlap(const char *one, size_t one_length, const char *two, size_t two_length)
{
    struct sb_rest a = {one, one_length}, b = {two, two_length};
    bool own = one[0] == '$' || two[0] == '$', first = true;
    for (; a.length && b.length; first = false) {
        struct sb_rest x = sb_next_token(&a), y = sb_next_token(&b);
        bool rest = sb_is_token(x, '>') || sb_is_token(y, '>');
        bool wild = rest || sb_is_token(x, '*') || sb_is_token(y, '*');
        if (first && own && wild) /* what is the bus's own is matched by its first token alone */
            return false;
        if (rest)
            return true;
        if (!wild && (x.length != y.length || memcmp(x.text, y.text, x.length) != 0))
            return false;
    }
    return !a.length && !b.length;
}

/* Does the first match every type that the second (a pattern or a type) matches? Both have sound tokens. */
static inline bool sb_covers(const char *one, size_t one_length, const char *two, size_t two_length)
{
    struct sb_rest a = {one, one_length}, b = {two, two_length};
    for (bool first = true; a.length; first = false) {
        if (!b.length)
            return false;
        struct sb_rest x = sb_next_token(&a), y = sb_next_token(&b);
        bool rest = sb_is_token(x, '>'), any = rest || sb_is_token(x, '*');
        if (first && any && two[0] == '$') /* what is the bus's own is matched by its first token alone */
            return false;
        if (rest)
            return true;
        if (sb_is_token(y, '>') || (!any && (x.length != y.length || memcmp(x.text, y.text, x.length) != 0)))
            return false;
    }
    return !b.length;
}
