"""The names that queues have in /dev/shm.

A queue's own segment is ``shmbus:UID:BUS:queue:NAMESPACE:PID:START:NONCE``, its other files have
that and a part more: ``:1``, ``:2`` for rings, ``:hand-ROW`` for copies of what is in hand. BUS is
empty for queues of no bus. NAMESPACE is the pid namespace of the process that made it and PID:START
this process, so that nobody takes users for dead whose pids mean nothing to him.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from shmbus.shared import names, processes
from shmbus.shared.names import SHM, Owner

_QUEUE = re.compile(
    r"shmbus:(?P<uid>\d+):(?P<bus>[A-Za-z0-9_.-]*):queue:"
    r"(?P<namespace>\d+):(?P<pid>\d+):(?P<start>\d+):(?P<nonce>[0-9a-f]{16})"
)
_PART = re.compile(r"(?::[a-z0-9-]+)?\Z")


class QueueName(NamedTuple):
    """The name of a queue, in its parts."""

    uid: int
    bus: str
    """Empty: of no bus."""
    namespace: int
    """The pid namespace of its maker."""
    maker: Owner

    def __str__(self) -> str:
        return f"shmbus:{self.uid}:{self.bus}:queue:{self.namespace}:{self.maker}"


def new(bus: str | None) -> QueueName:
    """The name of a queue that this process makes. Raises ``InvalidName``."""
    me = processes.identity()
    return QueueName(
        uid=me.uid,
        bus="" if bus is None else names.check_bus(bus),
        namespace=me.pid_namespace,
        maker=names.new_owner(me.pid, me.start_time),
    )


def parse(file: str) -> QueueName | None:
    """Of which queue a file in /dev/shm is; None: of none."""
    found = _QUEUE.match(file)
    if found is None or not _PART.match(file, found.end()):
        return None
    maker = Owner(int(found["pid"]), int(found["start"]), found["nonce"])
    return QueueName(int(found["uid"]), found["bus"], int(found["namespace"]), maker)


def files() -> dict[QueueName, list[Path]]:
    """The files in /dev/shm of every queue of any user, by queue."""
    found: dict[QueueName, list[Path]] = {}
    for path, name in _files():
        found.setdefault(name, []).append(path)
    return found


def _files() -> Iterator[tuple[Path, QueueName]]:
    try:
        listed = sorted(os.listdir(SHM))
    except OSError:
        return
    for file in listed:
        if (name := parse(file)) is not None:
            yield SHM / file, name
