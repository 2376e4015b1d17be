/* Runs the promises that are named, or all. */
#include "harness.h"

struct test *all_tests;
const char *test_name;
char made_names[64][160];
unsigned made_count;

static void leave_nothing(void)
{
    for (unsigned i = 0; i < 64; i++)
        if (made_names[i][0])
            shm_unlink(made_names[i]);
}

int main(int count, char **names)
{
    atexit(leave_nothing);
    int ran = 0;
    for (struct test *t = all_tests; t; t = t->next) {
        bool wanted = count < 2;
        for (int i = 1; i < count; i++)
            wanted |= strcmp(names[i], t->name) == 0;
        if (!wanted)
            continue;
        alarm(240); /* none may hang */
        test_name = t->name;
        t->run();
        ran++;
    }
    return ran ? 0 : 2;
}
