"""Buses of which somebody has removed a name from /dev/shm while they are served."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress

from shmbus.shared import names

_ACCEPTS = 1 << 16  # among the flags of /proc/net/unix: it listens


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
