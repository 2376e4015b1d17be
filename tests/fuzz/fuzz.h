/* What every target needs of the harness, which it uses without its tests. */
#pragma once

#include "tests/native/harness.h"

struct test *all_tests;
const char *test_name = "a fuzzed input";
char made_names[64][160];
unsigned made_count;

/* Take the names out of /dev/shm as soon as what they name is mapped: a fuzzer may be killed at any time. */
static inline void forget_names(struct world *w)
{
    for (uint32_t i = 0; i < w->peers_count; i++)
        shm_unlink(w->peers[i]->log_name);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);
