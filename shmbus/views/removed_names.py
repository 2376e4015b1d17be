"""Buses that are served although somebody has removed one of their names from /dev/shm."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple

from shmbus.shared import names

_ACCEPTS = 1 << 16  # a flag in /proc/net/unix: the socket listens


class Nameless(NamedTuple):
    """A bus that is served, and has lost a name."""

    bus: str
    pid: int
    """The dispatcher's."""


def dispatcher_of_nameless(bus: str) -> int | None:
    """The pid of the dispatcher, where somebody has removed one of the bus's names. None: its
    names are all there, or no process that serves it is found."""
    if names.names_of(bus).complete():
        return None
    return next((found.pid for found in find_nameless() if found.bus == bus), None)


def find_nameless() -> Iterator[Nameless]:
    """Such buses of this user. Slow: reads what every process has open."""
    # A bus makes its door after its other names, and closes it before it removes any.
    for inode, bus in _open_doors().items():
        if not names.names_of(bus).complete() and (pid := _holder(inode)) is not None:
            yield Nameless(bus, pid)


def _open_doors() -> dict[str, str]:
    """The doors of this user at which a process listens: bus by inode."""
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
    """The process that has this socket open, if it sees the same /dev/shm as this one."""
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        with suppress(OSError):  # it has ended, or is another user's
            if f"socket:[{inode}]" in _open_files(pid):
                ours = os.path.samefile("/proc/self/ns/mnt", f"/proc/{pid}/ns/mnt")
                return int(pid) if ours else None
    return None


def _open_files(pid: str) -> Iterator[str]:
    for fd in os.listdir(f"/proc/{pid}/fd"):
        with suppress(FileNotFoundError):  # closed since, as is the one that lists them
            yield os.readlink(f"/proc/{pid}/fd/{fd}")
