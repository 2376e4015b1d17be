/* Reserving: memory for a part of a segment's file, without the signal that a limit on file sizes sends, too, and that
 * by default kills. Done in C, since what a handler of another signal raises could leave that one blocked.
 *
 * Offers: rb_reserve; rb_truncate, which gives a file its size and no memory. */
#pragma once

#include "ringbuf/native/order.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

/* `length` 0: the file's size is to be `start`. */
static inline int rb_without_signal(int fd, off_t start, off_t length)
{
    sigset_t excess, before;
    sigemptyset(&excess);
    sigaddset(&excess, SIGXFSZ);
    pthread_sigmask(SIG_BLOCK, &excess, &before);
    int error = length ? posix_fallocate(fd, start, length) : ftruncate(fd, start) ? errno : 0;
    if (error == EFBIG && !sigismember(&before, SIGXFSZ))
        sigtimedwait(&excess, NULL, &(struct timespec){0});
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return error;
}

/* Returns 0 or an error number; EINTR: a signal came, and nothing is reserved. */
static inline int rb_reserve(int fd, off_t start, off_t length) { return rb_without_signal(fd, start, length); }

/* Returns 0 or an error number. */
static inline int rb_truncate(int fd, off_t size) { return rb_without_signal(fd, size, 0); }
