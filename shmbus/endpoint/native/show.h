/* An event (event.h) is made, and shown to the dispatcher: by the watcher, through the door, to each successor anew.
 *
 *   ep_event_open         make it; ep_wake_watcher after that
 *   ep_show_event         the watcher's part
 *   ep_drop_event         close it: at the end, and in a forked child its copy
 */
#pragma once

#include "shmbus/endpoint/native/door.h"

#include <sys/eventfd.h>

#define EP_SHOW_NS 20000000u /* how often to look, or to try again: the dispatcher may have no descriptor left */
#define EP_REFUSED_NS 500000000u /* and after a refusal */

static inline void ep_leave_event_door(struct ep_endpoint *e)
{
    if (e->event_door >= 0)
        close(e->event_door);
    e->event_door = -1;
}

/* 0 or an errno. */
static inline int ep_event_open(struct ep_endpoint *e)
{
    if (e->event_fd >= 0)
        return 0;
    int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (fd < 0)
        return errno;
    e->event_fd = fd;
    e->event = sb_event_open(e->up, fd);
    return 0;
}

static inline void ep_drop_event(struct ep_endpoint *e)
{
    ep_leave_event_door(e);
    e->event = (struct sb_event){0};
    if (e->event_fd >= 0)
        close(e->event_fd);
    e->event_fd = -1;
}

/* The answer to the knock, if it has come: RB_OK where the event was taken, RB_EMPTY: not yet, else RB_CORRUPT. */
static inline enum rb_status ep_read_event_answer(struct ep_endpoint *e)
{
    struct sb_answer answer;
    ssize_t got = recv(e->event_door, &answer, sizeof answer, MSG_DONTWAIT);
    if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR))
        return RB_EMPTY;
    bool answered = got == (ssize_t)sizeof answer, taken = answered && answer.code == SB_DOOR_ADMITTED;
    if (answered)
        memcpy(e->event_refusal, answer.text, sizeof e->event_refusal - 1);
    return taken ? RB_OK : RB_CORRUPT;
}

/* By the watcher, while there is a dispatcher. Never waits: returns when to look again; the answer is polled for,
 * too. */
static inline uint64_t ep_show_event(struct ep_endpoint *e, uint64_t now)
{
    if (e->event_fd < 0 || e->event_taken == e->serial)
        return SB_NOWHERE;
    if (e->event_shown != e->serial) /* it was shown to one that has ended since */
        ep_leave_event_door(e);
    if (e->event_door < 0) {
        if (now < e->event_again && e->event_shown == e->serial)
            return e->event_again;
        e->event_shown = e->serial;
        e->event_door = ep_knock(e, e->event_fd);
        e->event_again = now + EP_SHOW_NS;
        return e->event_again;
    }
    enum rb_status answered = ep_read_event_answer(e);
    e->event_again = now + EP_SHOW_NS;
    if (answered == RB_EMPTY)
        return e->event_again;
    ep_leave_event_door(e);
    if (answered != RB_OK)
        return e->event_again = now + EP_REFUSED_NS;
    e->event_taken = e->serial; /* DOWN says so when it is */
    return SB_NOWHERE;
}
