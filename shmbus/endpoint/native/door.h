/* The connection to the door of a dispatcher that adopted this endpoint. By its end the dispatcher learns that this
 * process has called exec; nothing passes it but the knock. The connection to the first dispatcher is Python's
 * (endpoint/door.py).
 *
 *   ep_knock              knock at its door
 *   ep_knock_again        show the dispatcher that adopted us such a connection
 *   ep_leave_door         close it: at the end, and in a forked child, where it would hide that the parent has gone
 */
#pragma once

#include "shmbus/endpoint/native/endpoint.h"

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* Knock as one that is attached, and pass a descriptor (-1: none): the connection, or -1. Never waits. */
static inline int ep_knock(const struct ep_endpoint *e, int passed)
{
    struct sockaddr_un door = {.sun_family = AF_UNIX};
    struct sb_knock knock = {SB_LAYOUT, e->up->nonce, e->up->identity.start_time};
    struct iovec record = {&knock, sizeof knock};
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(sizeof passed)];
    } control = {.header = {.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof passed)}};
    struct msghdr message = {.msg_iov = &record, .msg_iovlen = 1};
    if (passed >= 0) {
        memcpy(CMSG_DATA(&control.header), &passed, sizeof passed);
        message.msg_control = &control;
        message.msg_controllen = sizeof control.bytes;
    }
    if (!e->door_path[0])
        return -1;
    memcpy(door.sun_path, e->door_path, sizeof door.sun_path);
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -1;
    if (connect(fd, (struct sockaddr *)&door, sizeof door) != 0 ||
        sendmsg(fd, &message, MSG_NOSIGNAL) != (ssize_t)sizeof knock) {
        close(fd);
        return -1;
    }
    return fd;
}

static inline void ep_leave_door(struct ep_endpoint *e)
{
    if (e->door >= 0)
        close(e->door);
    e->door = -1;
}

/* Where it fails, for want of descriptors or of a listener, exec goes unseen until the process ends. */
static inline void ep_knock_again(struct ep_endpoint *e)
{
    int fd = ep_knock(e, -1);
    if (fd < 0)
        return;
    ep_leave_door(e);
    e->door = fd;
}
