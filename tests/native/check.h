/* Checks, tests that register themselves (main.c runs them), and a random number that is the same everywhere. */
#pragma once

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#define CHECK(condition)                                                                                        \
    do {                                                                                                        \
        if (!(condition)) {                                                                                     \
            fprintf(stderr, "%s:%d: %s: not so: %s\n", __FILE__, __LINE__, test_name, #condition);            \
            exit(1);                                                                                            \
        }                                                                                                       \
    } while (0)

#define EQUAL(is, wanted)                                                                                       \
    do {                                                                                                        \
        unsigned long long is_ = (unsigned long long)(is), wanted_ = (unsigned long long)(wanted);              \
        if (is_ != wanted_) {                                                                                   \
            fprintf(stderr, "%s:%d: %s: %s is %llu, not %llu\n", __FILE__, __LINE__, test_name, #is, is_,     \
                    wanted_);                                                                                   \
            exit(1);                                                                                            \
        }                                                                                                       \
    } while (0)

struct test {
    const char *name;
    void (*run)(void);
    struct test *next;
};
extern struct test *all_tests; /* main.c */
extern const char *test_name;  /* the one that runs */

#define TEST(promise)                                                                                           \
    static void promise(void);                                                                                  \
    __attribute__((constructor)) static void register_##promise(void)                                           \
    {                                                                                                           \
        static struct test t = {#promise, promise, NULL};                                                       \
        t.next = all_tests;                                                                                     \
        all_tests = &t;                                                                                         \
    }                                                                                                           \
    static void promise(void)

static inline uint64_t draw(uint64_t *seed) /* xorshift: the same on every machine */
{
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    return *seed * 0x2545f4914f6cdd1dull;
}
