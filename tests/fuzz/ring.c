/* A ring whose words and bytes a hostile peer wrote: see ring_fuzz.c, which is the target. */
#define RB_LIBFUZZER
#include "tests/native/ring_fuzz.c"
