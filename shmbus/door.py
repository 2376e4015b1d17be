"""The door: where a process asks to be let onto a bus. Messages never pass here.

A SEQPACKET socket beside the segments. The caller has made its segment UP, complete, before it
knocks; it sends one record, gets one answer, and keeps the connection open for as long as it is
attached: its end is how an ``exec`` shows. Who knocks, and that it lives, the dispatcher learns
from the socket itself.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import suppress
from enum import IntEnum
from typing import NamedTuple

from ringbuf import SegmentNoSpace, layout_text
from ringbuf.segment import REMEDIES

from . import errors, layout, names, registry, segments
from .names import Owner

KNOCK = struct.Struct("<QQQ")  # layout, nonce, start time
ANSWER = struct.Struct(
    "<IIQIIQ480s"
)  # code, slot, generation, pid, reserved, layout or limit, text

_SO_PEERPIDFD = 77
_ACCEPTS = 1 << 16  # among the flags of /proc/net/unix: it listens


class Code(IntEnum):
    """What the dispatcher answers."""

    ADMITTED = 0
    NAME_TAKEN = 1
    BUS_FULL = 2
    OTHER_LAYOUT = 3
    REFUSED = 4
    ENDING = 5
    NO_SPACE = 6


class Answer(NamedTuple):
    """One answer at the door."""

    code: Code
    slot: int = 0
    generation: int = 0
    pid: int = 0
    number: int = 0
    text: str = ""

    def pack(self) -> bytes:
        text = self.text.encode()[:480]
        return ANSWER.pack(self.code, self.slot, self.generation, self.pid, 0, self.number, text)

    @classmethod
    def unpack(cls, record: bytes) -> Answer:
        code, slot, generation, pid, _, number, text = ANSWER.unpack(record)
        return cls(
            Code(code), slot, generation, pid, number, text.rstrip(b"\0").decode(errors="replace")
        )


class Caller(NamedTuple):
    """Who knocked, as the kernel says it, and a descriptor that shows when it ends (None: not to
    be had)."""

    owner: Owner
    layout: int
    uid: int
    pidfd: int | None


class Admission(NamedTuple):
    """A place on the bus. The connection stays open while one is attached. It is a descriptor: a
    socket of a forgotten endpoint could be closed before that has left."""

    slot: int
    generation: int
    connection: int


# The dispatcher's side --------------------------------------------------------------------------


def listen(bus: str) -> socket.socket:
    """Open the door. Only the holder of the fence may, so whatever has the name is a leaving."""
    path = _path(bus)
    door = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
    try:
        os.fchmod(door.fileno(), 0o600)  # before the name exists
        try:
            os.unlink(path)
        except FileNotFoundError:
            pass
        door.bind(path)
        os.chmod(path, 0o600)  # what the umask took
        door.listen(512)
    except BaseException:
        door.close()
        raise
    return door


def identify(connection: socket.socket, record: bytes) -> Caller | None:
    """Who sent this record; None where it is none of ours or its sender has gone already."""
    if len(record) != KNOCK.size:
        return None
    theirs, nonce, start = KNOCK.unpack(record)
    pid, uid, _ = struct.unpack(
        "3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    )
    try:
        pidfd = _open_pidfd(connection, pid)
    except ProcessLookupError:
        return None
    return Caller(Owner(pid, start, f"{nonce:016x}"), theirs, uid, pidfd)


def _open_pidfd(connection: socket.socket, pid: int) -> int | None:
    """A pidfd of who connected; None where an old kernel has none, and /proc alone shows the end.
    Raises ProcessLookupError."""
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


# The caller's side ------------------------------------------------------------------------------


def knock(bus: str, *, nonce: int, start_time: int, began_ns: int, deadline_ns: int) -> Admission:
    """Ask to be let in, from ``began_ns`` until ``deadline_ns`` on the monotonic clock.

    Raises ``AttachTimeout``, ``NameTaken``, ``BusFull``, ``LayoutMismatch``, ``Refused``.
    """
    record = KNOCK.pack(layout.LAYOUT, nonce, start_time)
    while True:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            answer = _ask(connection, bus, record, began_ns, deadline_ns)
            if answer is not None:
                if answer.code == Code.ADMITTED:
                    return Admission(answer.slot, answer.generation, connection.detach())
                raise _refusal(bus, answer)
        except BaseException:
            connection.close()
            raise
        connection.close()
        if time.monotonic_ns() >= deadline_ns:
            raise _timeout(bus, began_ns)
        time.sleep(0.005)


def _ask(
    connection: socket.socket, bus: str, record: bytes, began: int, deadline_ns: int
) -> Answer | None:
    """One try; None: nobody is there yet."""
    connection.setblocking(False)
    try:
        connection.connect(_path(bus))
    except OSError as problem:
        if problem.errno in (errno.ENOENT, errno.ECONNREFUSED, errno.EAGAIN):
            return None
        raise
    connection.settimeout(max(0.001, (deadline_ns - time.monotonic_ns()) / 1e9))
    try:
        connection.send(record)
        answer = connection.recv(ANSWER.size + 1)
    except TimeoutError:
        raise _timeout(bus, began) from None
    except (ConnectionError, BrokenPipeError):
        return None
    if len(answer) != ANSWER.size:
        return None  # the dispatcher ended meanwhile
    result = Answer.unpack(answer)
    return None if result.code == Code.ENDING else result


def _timeout(bus: str, began: int) -> errors.AttachTimeout:
    seconds = (time.monotonic_ns() - began) / 1e9
    info = next((info for info in registry.buses() if info.name == bus), None)
    if (pid := robbed(bus)) is not None:
        return errors.AttachTimeout(bus=bus, seconds=seconds, pid=pid, removed=True)
    if info is None or not info.alive:
        return errors.AttachTimeout(bus=bus, seconds=seconds)
    return errors.AttachTimeout(bus=bus, seconds=seconds, pid=info.pid, silent=info.control_age)


# Names that somebody has removed ----------------------------------------------------------------


def robbed(bus: str) -> int | None:
    """The pid of who serves the bus, where somebody has removed one of its names from /dev/shm.
    None: its names are all there, or nobody is seen to serve it."""
    return None if names.names_of(bus).complete() else dict(all_robbed()).get(bus)


def all_robbed() -> Iterator[tuple[str, int]]:
    """The buses of this user of which somebody has removed a name, and the pids of who serves
    them. Reads what every process has open: not for a busy path."""
    # A bus makes its door after its other names, and closes it before it removes any.
    for inode, bus in _open_doors().items():
        if not names.names_of(bus).complete() and (pid := _holder(inode)) is not None:
            yield bus, pid


def _open_doors() -> dict[str, str]:
    """The doors of this user at which somebody listens: inode to bus."""
    try:
        with open("/proc/net/unix") as table:
            sockets = [line.split() for line in table]
    except OSError:
        return {}
    found = {}
    for _, _, _, flags, _, _, inode, *path in sockets[1:]:
        if path and int(flags, 16) & _ACCEPTS:
            entry = names.parse(os.path.basename(path[0]))
            if entry is not None and entry.kind == "door" and entry.uid == os.geteuid():
                found[inode] = entry.bus
    return found


def _holder(inode: str) -> int | None:
    """Who has this socket open, of those who see the same /dev/shm as we do."""
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        with suppress(OSError):  # it is gone, or another user's
            if f"socket:[{inode}]" in _open_files(pid):
                ours = os.path.samefile("/proc/self/ns/mnt", f"/proc/{pid}/ns/mnt")
                return int(pid) if ours else None
    return None


def _open_files(pid: str) -> Iterator[str]:
    for fd in os.listdir(f"/proc/{pid}/fd"):
        with suppress(FileNotFoundError):  # closed meanwhile, as the one by which we list them
            yield os.readlink(f"/proc/{pid}/fd/{fd}")


def _refusal(bus: str, answer: Answer) -> errors.BusError:
    match answer.code:
        case Code.NAME_TAKEN:
            return errors.NameTaken(bus=bus, name=answer.text, pid=answer.pid)
        case Code.BUS_FULL:
            return errors.BusFull(bus=bus, limit=answer.number)
        case Code.NO_SPACE:
            name, _, free = answer.text.partition("\n")
            problem = SegmentNoSpace(
                name, answer.number, int(free), REMEDIES[errno.ENOSPC], errno=errno.ENOSPC
            )
            return segments.error(bus, name, problem)
        case Code.OTHER_LAYOUT:
            mine, theirs = layout_text(layout.LAYOUT), layout_text(answer.number)
            return errors.LayoutMismatch(bus=bus, mine=mine, theirs=theirs, pids=(answer.pid,))
        case _:
            reason, _, remedy = answer.text.partition("\n")
            return errors.Refused(bus=bus, reason=reason, remedy=remedy, pid=answer.pid)


def _path(bus: str) -> str:
    return str(names.SHM / names.names_of(bus).door)
