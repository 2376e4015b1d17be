"""What dead processes left in /dev/shm.

`find_leavings` lists what no process uses any more, whose it was and how much it takes;
`free_leaving` removes it. Only what is provably unused is freed: its owner is dead, and no
dispatcher holds, or can take, the fence of its bus meanwhile.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from ringbuf import RingbufError, Segment
from ringbuf._kernel import Mapping
from shmbus.queues import leavings as queues
from shmbus.queues import names as queue_names
from shmbus.shared import fence, layout, names, processes
from shmbus.shared.layout import BusState, RowState, SegmentKind, UpState
from shmbus.shared.names import SHM, Entry, Owner

_INITIAL_PID_NAMESPACE = 0xEFFFFFFC
_TRIES = 500  # to take the fence, 10 ms each
_in_vain: dict[str, fence.Holder] = {}  # by bus: for whom this process has waited that long


class Leaving(msgspec.Struct, frozen=True, kw_only=True):
    """Something in /dev/shm whose owner is dead."""

    bus: str
    """Of which bus it is; empty: a queue of no bus."""
    queue: str = ""
    """Of which queue; empty: it is no queue's."""
    owner: str
    """Whose it was."""
    bytes: int
    """What it takes of /dev/shm."""
    files: tuple[str, ...]
    """The names that it has there."""
    removable: bool
    """Whether it is provably unused."""
    reason: str
    """Why, or why not."""

    @property
    def what(self) -> str:
        """What it was part of, for people."""
        return f"queue {self.queue}" if self.queue else f"bus {self.bus}"


class Foreign(msgspec.Struct, frozen=True, kw_only=True):
    """What another user has in /dev/shm; whether it is in use is not checked."""

    uid: int
    """The user."""
    buses: tuple[str, ...]
    """The buses that it has names of."""
    queues: int = 0
    """The queues that it has names of."""
    bytes: int
    """What they take of /dev/shm."""


def find_leavings(bus: str | None = None) -> list[Leaving]:
    """What this user's dead buses, endpoints and users of queues left, or those of one bus. Raises
    ``InvalidName``."""
    found = _buses() if bus is None else [names.check_bus(bus)]
    left = [leaving for name in found for leaving in _Bus(name).leavings()]
    return left + [_of_queue(queue) for queue in queues.queues(bus) if not queue.used]


def _of_queue(queue: queues.Found) -> Leaving:
    pids = ", ".join(map(str, queue.users))
    return Leaving(
        bus=queue.name.bus,
        queue=str(queue.name),
        owner=f"processes {pids}" if pids else f"process {queue.name.maker.pid}",
        bytes=sum(map(bytes_of, queue.files)),
        files=tuple(path.name for path in queue.files),
        removable=True,
        reason="none of its users is alive",
    )


def find_foreign() -> list[Foreign]:
    """What other users have here."""
    buses: dict[int, list[tuple[Path, Entry]]] = {}
    for path, entry in names.entries():
        if entry.uid != os.geteuid():
            buses.setdefault(entry.uid, []).append((path, entry))
    queues: dict[int, list[list[Path]]] = {}
    for queue, paths in queue_names.files().items():
        if queue.uid != os.geteuid():
            queues.setdefault(queue.uid, []).append(paths)
    return [
        Foreign(
            uid=uid,
            buses=tuple(sorted({entry.bus for _, entry in buses.get(uid, ())})),
            queues=len(queues.get(uid, ())),
            bytes=sum(bytes_of(path) for path, _ in buses.get(uid, ()))
            + sum(bytes_of(path) for paths in queues.get(uid, ()) for path in paths),
        )
        for uid in sorted(buses.keys() | queues.keys())
    ]


def free_leaving(leaving: Leaving) -> int:
    """Remove it if it may still be removed; returns the bytes that this freed.

    Its bus cannot begin anew meanwhile: that needs the fence, which is held here."""
    if leaving.queue:
        return sum(
            queues.remove(found)
            for found in queues.queues(leaving.bus)
            if str(found.name) == leaving.queue and not found.used
        )
    whole = any(entry.owner is None for entry in map(names.parse, leaving.files) if entry)
    if whole and fence.acquire(leaving.bus) is not None:
        return 0  # it is being served again
    freed = 0
    try:
        for now in _Bus(leaving.bus, fenced=whole).leavings():
            if now.removable:
                for file in now.files:
                    entry = names.parse(file)
                    if file in leaving.files and entry is not None and entry.kind != "lock":
                        freed += _remove(SHM / file)
    finally:
        if whole:
            _release(leaving.bus)
    return freed


def remove_deserted(bus: str, last: Owner) -> None:
    """Remove all of a bus that has no dispatcher now, and no endpoint but this one, which has said
    that it is closed. No dispatcher can begin meanwhile: that needs the fence."""
    if not _fenced(bus):
        return
    try:
        found = _Bus(bus, fenced=True)
        left = found.state == BusState.HANDOVER or not found._served()
        if left and not found.elsewhere and not found.alive - found.closed - {last}:
            for path, entry in found.files:
                if entry.kind != "lock":
                    _remove(path)
    finally:
        _release(bus)


def _fenced(bus: str) -> bool:
    """Take the fence; False where a dispatcher has it that stays. Others have it for a moment, as
    they leave; for one that hangs meanwhile this process waits once, however many endpoints it
    has."""
    tries = 0
    try:
        while (holder := fence.acquire(bus)) is not None:
            if holder == _in_vain.get(bus):
                return False
            if holder == _dispatcher(bus) and processes.process_alive(*holder):
                return False
            if tries == _TRIES:
                _in_vain[bus] = holder
                return False
            tries += 1
            time.sleep(0.01)
    except OSError:
        return False
    _in_vain.pop(bus, None)
    return True


def _dispatcher(bus: str) -> fence.Holder | None:
    """Who serves this bus, or served it last. None: it is leaving, or cannot be read."""
    try:
        memory = _memory_of(bus)
    except (RingbufError, ValueError):
        return None
    left = int(layout.view(memory, layout.BUS)[0]["state"]) == BusState.HANDOVER
    return None if left else _serves(memory)


def _memory_of(bus: str) -> Mapping:
    name = names.names_of(bus).bus_segment
    return Segment.attach(name, kind=SegmentKind.BUS, layout=layout.LAYOUT).memory


def _serves(memory: Mapping) -> fence.Holder:
    identity = layout.view(memory, layout.BUS)[0]["identity"]
    return fence.Holder(int(identity["pid"]), int(identity["start_time"]))


def _release(bus: str) -> None:
    """Release the fence. Its file stays with BUS alone: whose else names are left removes them, and
    nothing more."""
    kinds = {entry.kind for _, entry in names.entries(bus)}
    fence.release(bus, remove="bus" not in kinds)


def _remove(path: Path) -> int:
    size = bytes_of(path)
    try:
        path.unlink()
    except FileNotFoundError:
        return 0
    return size


def bytes_of(path: Path) -> int:
    """What a file takes; 0 where it has gone."""
    try:
        return os.lstat(path).st_blocks * 512
    except OSError:
        return 0


def served_elsewhere() -> list[str]:
    """This user's buses that are served from another pid namespace."""
    return [name for name in _buses() if _Bus(name).elsewhere]


def _buses() -> list[str]:
    return sorted({entry.bus for _, entry in names.entries() if entry.uid == os.geteuid()})


class _Bus:
    """One bus of this user: whether it is dead, and which of its endpoints are."""

    def __init__(self, name: str, *, fenced: bool = False) -> None:
        self.name = name
        self.files = list(names.entries(name))
        self.dispatcher: fence.Holder | None = None
        self.elsewhere = False
        self.state: int | None = None
        self.rows: set[Owner] = set()
        self._namespaces: dict[Owner, int] = {}
        self._names: dict[Owner, str] = {}
        self.closed: set[Owner] = set()
        self._read()
        # While this process holds the fence, there is no dispatcher, whatever BUS contains.
        self.holder = None if fenced else fence.holder(name)
        owners = {entry.owner for _, entry in self.files if entry.owner is not None}
        self._read_owners(owners)
        self.alive = {owner for owner in owners if not self._dead(owner)}

    def _read(self) -> None:
        try:
            memory = _memory_of(self.name)
            head = layout.view(memory, layout.BUS)[0]
            rows = layout.view(memory, layout.ROW, int(head["slots"]), int(head["rows_offset"]))
        except (RingbufError, ValueError):
            return
        self.dispatcher = _serves(memory)
        namespace = int(head["identity"]["pid_namespace"])
        self.elsewhere = namespace not in (0, processes.namespace("pid"))
        self.state = int(head["state"])
        for row in rows:
            if int(row["state"]) != RowState.FREE:
                self.rows.add(names.owner_in(row))

    def _read_owners(self, owners: set[Owner]) -> None:
        for owner in owners:
            try:
                up = names.names_of(self.name).up(owner)
                memory = Segment.attach(up, kind=SegmentKind.UP, layout=layout.LAYOUT).memory
                head = layout.view(memory, layout.UP)[0]
            except (RingbufError, ValueError):
                continue
            self._namespaces[owner] = int(head["identity"]["pid_namespace"])
            self._names[owner] = layout.text(head["name"])
            if int(head["state"]) == UpState.CLOSED:
                self.closed.add(owner)

    def _dead(self, owner: Owner) -> bool:
        """Whether it is provably dead: of this pid namespace, or this is the first one, which shows
        all processes."""
        if self._namespaces.get(owner) == processes.namespace("pid"):
            return not processes.process_alive(owner.pid, owner.start)
        return _nobody_began_at(owner.start)

    def _served(self) -> bool:
        if self.holder is not None:
            return True
        if self.dispatcher is None:
            return False
        if self.elsewhere:
            return not _nobody_began_at(self.dispatcher.start)
        return processes.process_alive(self.dispatcher.pid, self.dispatcher.start)

    def leavings(self) -> Iterator[Leaving]:
        if self._served():
            yield from self._strays()
            return
        if not self.files:
            return
        files = [path for path, _ in self.files]
        if self.dispatcher is not None:
            how = "ended" if self.state == BusState.ENDED else "died"
            owner = f"its dispatcher, process {self.dispatcher.pid}, {how}"
        elif any(entry.kind == "bus" for _, entry in self.files):
            owner = "a dispatcher of another version, or broken"
        else:
            owner = "remains of a bus"
        dead = [owner for owner in self._names if owner not in self.alive]
        if dead:
            listed = ", ".join(sorted(self._names[owner] for owner in dead)[:5])
            owner += f"; endpoints {listed}{', ..' if len(dead) > 5 else ''}"
        if self.alive:
            seen = {o.pid for o in self.alive if processes.process_alive(o.pid, o.start)}
            pids = ", ".join(map(str, sorted(seen)))
            reason = (
                f"processes {pids} wait for it: serve it again, or end them"
                if seen
                else "its endpoints cannot be proved dead from this pid namespace: look from the "
                "first one, the host's"
            )
        else:
            reason = "none of its processes is alive"
        yield Leaving(
            bus=self.name,
            owner=owner,
            bytes=sum(map(bytes_of, files)),
            files=tuple(path.name for path in files),
            removable=not self.alive,
            reason=reason,
        )

    def _strays(self) -> Iterator[Leaving]:
        """On a bus that is served: what processes left that died before they were admitted. The
        dispatcher removes all else."""
        if self.dispatcher is None:
            return
        found: dict[Owner, list[Path]] = {}
        for path, entry in self.files:
            if entry.owner is not None and entry.owner not in self.alive:
                found.setdefault(entry.owner, []).append(path)
        for owner, files in found.items():
            if owner not in self.rows:
                name = self._names.get(owner)
                yield Leaving(
                    bus=self.name,
                    owner=f"{f'endpoint {name}, ' if name else ''}process {owner.pid}",
                    bytes=sum(map(bytes_of, files)),
                    files=tuple(path.name for path in files),
                    removable=True,
                    reason="it died before it was admitted",
                )


def _nobody_began_at(start: int) -> bool:
    """Whether no process, of any pid namespace, began at this time. False unless this process is
    in the first namespace, and /proc shows all processes there."""
    if processes.namespace("pid") != _INITIAL_PID_NAMESPACE:
        return False
    try:
        all_pids = [int(pid) for pid in os.listdir("/proc") if pid.isdigit()]
    except OSError:
        return False
    if 1 not in all_pids:  # hidden, so others may be
        return False
    return not any(
        processes.start_time(pid) == start and processes.process_alive(pid, start)
        for pid in all_pids
    )
