/* Runs the promises that are named, or all, one after another, and prints the name of each that was kept. */
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

static int run(struct test *t)
{
    alarm(240); /* none may hang */
    test_name = t->name;
    t->run();
    puts(t->name);
    fflush(stdout);
    return 1;
}

int main(int count, char **names)
{
    atexit(leave_nothing);
    int ran = 0;
    for (struct test *t = all_tests; t && count < 2; t = t->next)
        ran += run(t);
    for (int i = 1; i < count; i++)
        for (struct test *t = all_tests; t; t = t->next)
            if (strcmp(names[i], t->name) == 0)
                ran += run(t);
    return ran ? 0 : 2;
}
