"""The dispatcher's side of the door: it listens, and the system reports who knocks."""

from __future__ import annotations

import os
import socket
import struct
from typing import NamedTuple

from shmbus.shared import door
from shmbus.shared.door import KNOCK_SIZE, Knock
from shmbus.shared.names import Owner

_SO_PEERPIDFD = 77


class Caller(NamedTuple):
    """Who knocked, as the system reports it."""

    owner: Owner
    layout: int
    uid: int
    pidfd: int | None
    """None where the system gives none."""


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


def identify(connection: socket.socket, record: bytes) -> Caller | None:
    """Who sent this record; None where it is malformed or its sender has ended already."""
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
    return Caller(Owner(pid, start, f"{nonce:016x}"), theirs, uid, pidfd)


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
