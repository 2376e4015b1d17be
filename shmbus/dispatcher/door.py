"""The dispatcher's side of the door: it listens, and the system reports who knocks."""

from __future__ import annotations

import array
import os
import socket
import struct
from typing import NamedTuple

from shmbus.shared import door
from shmbus.shared.door import KNOCK_SIZE, Knock
from shmbus.shared.names import Owner

_SO_PEERPIDFD = 77


class Passed(NamedTuple):
    """The descriptors that came with a knock; whoever gets it closes them."""

    descriptors: tuple[int, ...] = ()
    more: bool = False
    """Others were passed, too, and there was none left for them, or no space."""

    def __bool__(self) -> bool:
        return bool(self.descriptors) or self.more

    def close(self) -> None:
        for fd in self.descriptors:
            os.close(fd)


class Caller(NamedTuple):
    """Who knocked, as the system reports it."""

    owner: Owner
    layout: int
    uid: int
    pidfd: int | None
    """None where the system gives none."""
    passed: Passed = Passed()


def listen(bus: str) -> socket.socket:
    """Open the door. Only the holder of the fence may, so a file of that name was left by a
    dead dispatcher."""
    path = door.path(bus)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
    try:
        os.fchmod(listener.fileno(), 0o600)  # before the name exists
        try:
            os.unlink(path)
        except FileNotFoundError:
            pass
        listener.bind(path)
        os.chmod(path, 0o600)  # the umask may have removed bits
        listener.listen(512)
    except BaseException:
        listener.close()
        raise
    return listener


def read(connection: socket.socket) -> Caller | None:
    """Who knocks; None where that is malformed or its sender has ended already. Raises OSError."""
    passed = array.array("i")
    space = socket.CMSG_SPACE(passed.itemsize)
    record, ancillary, flags, _ = connection.recvmsg(KNOCK_SIZE + 1, space, socket.MSG_CMSG_CLOEXEC)
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            passed.frombytes(data[: len(data) - len(data) % passed.itemsize])
    came = Passed(tuple(passed), bool(flags & socket.MSG_CTRUNC))
    caller = None
    try:
        caller = _identify(connection, record, came)
    finally:
        if caller is None:
            came.close()
    return caller


def _identify(connection: socket.socket, record: bytes, passed: Passed) -> Caller | None:
    if len(record) != KNOCK_SIZE:
        return None
    theirs, nonce, start = Knock.unpack(record)
    pid, uid, _ = struct.unpack(
        "3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    )
    try:
        pidfd = _open_pidfd(connection, pid)
    except ProcessLookupError:
        return None
    return Caller(Owner(pid, start, f"{nonce:016x}"), theirs, uid, pidfd, passed)


def _open_pidfd(connection: socket.socket, pid: int) -> int | None:
    """A pidfd of who connected; None where an old system has none. Raises ProcessLookupError."""
    try:
        return connection.getsockopt(socket.SOL_SOCKET, _SO_PEERPIDFD)
    except OSError:
        pass
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        raise
    except OSError:
        return None
