"""Who holds how much of /dev/shm."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import msgspec

from shmbus import errors
from shmbus.queues import leavings as queues
from shmbus.queues import names as queue_names
from shmbus.shared import names
from shmbus.shared.names import SHM, Entry, Owner

from .facts import Backlog, BusInfo, EndpointInfo, Pool, Ring
from .leavings import Foreign, Leaving, bytes_of, find_foreign, find_leavings
from .registry import Registry

What = Literal["bus", "endpoint", "backlog", "retained", "pool", "queue"]

_RETAINED = -1, 0
"""In the place of slot and generation: all that holds values which are kept."""


class Holder(msgspec.Struct, frozen=True, kw_only=True):
    """A bus itself, an endpoint with its pool, a backlog, what is kept, the pool of one that has
    gone, or a queue, and what it takes of /dev/shm."""

    bus: str
    """Its name; empty of a queue of no bus."""
    what: What
    """Which of these it is."""
    name: str
    """Of the endpoint; of a backlog, what waits there; of the pool of one that has gone, who holds
    something there; empty of the bus, and of an endpoint that is not admitted yet."""
    pid: int | None
    """Of the dispatcher or the endpoint, or of who made the queue; None of a backlog."""
    bytes: int
    """What its files take. A ring's memory is reserved when it is made, whatever is in it; a pool's
    as it is needed."""
    files: int
    """How many these are."""
    rings: dict[str, Ring] = {}
    """Its rings: ``incoming``, ``incoming_replies``, ``incoming_urgent``, ``outgoing`` and
    ``outgoing_replies`` of an endpoint, ``backlog`` of a backlog. `Ring.high` is the most that it
    ever held."""
    pool: Pool | None = None
    """An endpoint's memory for what is too large for rings; None: it has needed none."""


class SharedMemory(msgspec.Struct, frozen=True, kw_only=True):
    """What is in /dev/shm, and whose it is."""

    size: int | None
    """Bytes that it may hold; None: as many as the machine has."""
    used: int
    """Bytes that are taken."""
    free: int
    """Bytes that this user may still take."""
    holders: tuple[Holder, ...]
    """Those of this user's buses and queues that are in use, the largest first within each bus."""
    leavings: tuple[Leaving, ...]
    """What this user's dead processes left."""
    foreign: tuple[Foreign, ...]
    """What buses and queues of other users take."""
    other_files: int
    """Files that are no bus's, and no queue's."""
    other_bytes: int
    """What these take."""
    unseen: int
    """Bytes in use that belong to no file with a name that this user can see: the names were
    removed, and processes still map or have open what they stood for; or they stand in directories
    that this user may not read."""


def shared_memory() -> SharedMemory:
    """Look at /dev/shm, read-only. What changes meanwhile is as it was at one moment or the other.
    Raises ``OSError`` where there is no /dev/shm."""
    system = os.statvfs(SHM)
    leavings = tuple(find_leavings())
    left = {file for leaving in leavings for file in leaving.files}
    files: dict[str, list[tuple[Path, Entry]]] = {}
    for path, entry in names.entries():
        if entry.uid == os.geteuid() and path.name not in left:
            files.setdefault(entry.bus, []).append((path, entry))
    holders = [holder for bus, its in files.items() for holder in _holders(bus, its)]
    holders.extend(_queues())
    foreign = tuple(find_foreign())
    others = [bytes_of(path) for path in _files(SHM) if not _ours(path.name)]
    used = (system.f_blocks - system.f_bfree) * system.f_frsize
    seen = sum(holder.bytes for holder in holders) + sum(others)
    seen += sum(leaving.bytes for leaving in leavings) + sum(user.bytes for user in foreign)
    return SharedMemory(
        size=system.f_blocks * system.f_frsize or None,
        used=used,
        free=system.f_bavail * system.f_frsize,
        holders=tuple(holders),
        leavings=leavings,
        foreign=foreign,
        other_files=len(others),
        other_bytes=sum(others),
        unseen=max(used - seen, 0),
    )


def _ours(file: str) -> bool:
    return names.parse(file) is not None or queue_names.parse(file) is not None


def _queues() -> list[Holder]:
    found = [
        Holder(
            bus=queue.name.bus,
            what="queue",
            name=str(queue.name),
            pid=queue.name.maker.pid,
            bytes=sum(map(bytes_of, queue.files)),
            files=len(queue.files),
        )
        for queue in queues.queues()
        if queue.used
    ]
    return sorted(found, key=lambda holder: (-holder.bytes, holder.name))


def _files(directory: Path) -> Iterator[Path]:
    for where, _, found in os.walk(directory):
        yield from (Path(where, file) for file in found)


class _Bus:
    """Whose the files of one bus are; nothing but the bus's where it cannot be read."""

    def __init__(self, bus: str) -> None:
        self.info: BusInfo | None = None
        self.endpoints: dict[tuple[int, int], EndpointInfo] = {}
        self.backlogs: dict[tuple[int, int], Backlog] = {}
        self.owners: dict[tuple[int, int], tuple[int, int]] = {}
        self.left: dict[tuple[int, int], Pool] = {}
        self.owned: dict[Owner, tuple[int, int]] = {}
        try:
            registry = Registry(bus)
        except errors.BusError:  # of another version, broken, or just being made
            return
        self.info = registry.info()
        endpoints = registry.endpoints()
        self.endpoints = {(e.slot, e.generation): e for e in endpoints}
        self.owners = {
            (box.slot, box.generation): (e.slot, e.generation)
            for e in endpoints
            for box in e.mailboxes
        }
        self.backlogs = {(b.slot, b.generation): b for b in registry.backlogs(endpoints)}
        self.left = {
            (p.slot, p.generation): p for p in registry.pools(endpoints) if p.endpoint is None
        }
        self.owned = registry.owners()


def _holders(bus: str, files: list[tuple[Path, Entry]]) -> list[Holder]:
    found = _Bus(bus)
    of: dict[tuple[int, int] | Owner | None, list[Path]] = {None: []}
    for path, entry in files:
        key: tuple[int, int] | Owner | None = None
        if entry.owner is not None:
            key = found.owned.get(entry.owner, entry.owner)
        elif entry.slot is not None and entry.generation is not None:
            key = found.owners.get((entry.slot, entry.generation), (entry.slot, entry.generation))
            if entry.kind == "retained":
                key = _RETAINED
            elif not any(key in known for known in (found.endpoints, found.backlogs, found.left)):
                key = None
        of.setdefault(key, []).append(path)
    holders = []
    for key, paths in of.items():
        what, name, pid = _who(found, key)
        e = None if key is None or isinstance(key, Owner) else found.endpoints.get(key)
        holders.append(
            Holder(
                bus=bus,
                what=what,
                name=name,
                pid=pid,
                bytes=sum(map(bytes_of, paths)),
                files=len(paths),
                rings=_rings(found, key),
                pool=e.pool if e else None,
            )
        )
    first, *rest = holders
    return [first, *sorted(rest, key=lambda holder: (-holder.bytes, holder.name))]


def _who(found: _Bus, key: tuple[int, int] | Owner | None) -> tuple[What, str, int | None]:
    """What holds it, its name and pid."""
    if key == _RETAINED:
        return "retained", "", None
    if key is None:
        return "bus", "", found.info.pid if found.info else None
    if isinstance(key, Owner):
        return "endpoint", "", key.pid
    if (backlog := found.backlogs.get(key)) is not None:
        return "backlog", backlog.what, None
    if (pool := found.left.get(key)) is not None:
        return "pool", ", ".join(one.endpoint or "" for one in pool.holders), None
    e = found.endpoints.get(key)
    return ("endpoint", e.name, e.pid) if e else ("endpoint", "", None)  # it left meanwhile


def _rings(found: _Bus, key: tuple[int, int] | Owner | None) -> dict[str, Ring]:
    if key is None or isinstance(key, Owner):
        return {}
    if (backlog := found.backlogs.get(key)) is not None:
        return {"backlog": backlog.ring}
    if (e := found.endpoints.get(key)) is None:
        return {}
    return {
        "incoming": e.incoming,
        "incoming_replies": e.incoming_replies,
        "incoming_urgent": e.incoming_urgent,
        "outgoing": e.outgoing,
        "outgoing_replies": e.outgoing_replies,
    }
