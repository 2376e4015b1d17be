/* Reserving: memory for a part of a segment's file, without the signal that a limit on file sizes sends, too, and that
 * by default kills. Done in C, since what a handler of another signal raises could leave that one blocked.
 *
 * Offers: rb_reserve. */
#pragma once

#include "ringbuf/native/order.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <time.h>

/* Returns 0 or an error number; EINTR: a signal came, and nothing is reserved. */
static inline int rb_reserve(int fd, off_t start, off_t length)
{
    sigset_t excess, before;
    sigemptyset(&excess);
    sigaddset(&excess, SIGXFSZ);
    pthread_sigmask(SIG_BLOCK, &excess, &before);
    int error = posix_fallocate(fd, start, length);
    if (error == EFBIG && !sigismember(&before, SIGXFSZ))
        sigtimedwait(&excess, NULL, &(struct timespec){0});
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return error;
}
