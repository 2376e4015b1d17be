"""What dead buses and endpoints left in /dev/shm: found by name, removed only where its owner is
provably dead."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from . import errors, names, processes, registry

SHM = Path("/dev/shm")


def of_bus(bus: str) -> Iterator[tuple[Path, names.Entry]]:
    """Every file of a bus of this user."""
    for path in SHM.iterdir():
        entry = names.parse(path.name)
        if entry is not None and entry.bus == bus and entry.uid == os.geteuid():
            yield path, entry


def clear_for(bus: str, *, replace: bool) -> None:
    """Make room for a new bus of this name; the caller holds its fence. Raises ``BusExists``."""
    info = next((info for info in registry.buses() if info.name == bus), None)
    if info is not None and info.alive and info.pid is not None and info.pid != os.getpid():
        raise errors.BusExists(bus=bus, pid=info.pid)
    for path, entry in of_bus(bus):
        if entry.kind == "lock":
            continue  # we hold it
        if entry.owner is not None and processes.process_alive(entry.owner.pid, entry.owner.start):
            continue
        path.unlink(missing_ok=True)
