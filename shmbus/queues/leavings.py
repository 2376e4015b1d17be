"""Queues in /dev/shm: who uses them, and those that nobody can use any more.

The last user that leaves in good order removes a queue. Where all died, the next queue that is made
does, or ``shmbus doctor --fix``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from ringbuf import RingbufError
from shmbus.shared import processes

from . import names, users
from ._kernel import users_of
from .names import QueueName


class Found(NamedTuple):
    """A queue of this user."""

    name: QueueName
    files: tuple[Path, ...]
    users: tuple[int, ...]
    """The pids of its users, the dead included."""
    used: bool
    """Whether one of them is alive, or may be: this process cannot see another pid namespace."""


def queues(bus: str | None = None) -> Iterator[Found]:
    """The queues of this user: all, or those of that bus; ``""``: of no bus."""
    for name, paths in names.files().items():
        if name.uid == os.geteuid() and bus in (None, name.bus):
            yield _look(name, tuple(paths))


def remove_dead() -> None:
    """Remove the queues that nobody can use any more."""
    used = users.used()
    for name, paths in names.files().items():
        if name.uid != os.geteuid() or str(name) in used:
            continue
        found = _look(name, tuple(paths))
        if not found.used:
            remove(found)


def remove(found: Found) -> int:
    """Remove its names; returns the bytes that this freed."""
    own = str(found.name)
    freed = 0
    for path in sorted(found.files, key=lambda path: path.name == own):  # what names users: last
        with suppress(FileNotFoundError):
            taken = path.lstat().st_blocks * 512
            path.unlink()
            freed += taken
    return freed


def _look(name: QueueName, files: tuple[Path, ...]) -> Found:
    rows = _users(name)
    if name.namespace != processes.namespace("pid"):
        used = True
    else:  # before anybody has a row, its maker alone has it
        used = any(processes.process_alive(*user) for user in rows or [name.maker[:2]])
    return Found(name, files, tuple(sorted({pid for pid, _ in rows})), used)


def _users(name: QueueName) -> set[tuple[int, int]]:
    """The processes that use it, by pid and start time; none where it cannot be read."""
    try:
        return {(user.pid, user.start) for user in users_of(str(name))}
    except RingbufError:
        return set()
