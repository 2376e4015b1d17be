"""Who is on a bus: slot rows and endpoints' own words, read from shared memory into plain facts.

Nothing here writes, waits for anybody, or believes what it reads: rows are read under their
sequence numbers, everything an endpoint wrote is checked, and what cannot be read becomes a note.
"""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from ringbuf import (
    RingbufError,
    Segment,
    SegmentMismatch,
    SegmentNotFound,
    SegmentNotReady,
    layout_text,
)
from ringbuf._kernel import Mapping
from shmbus import errors
from shmbus.shared import layout, names
from shmbus.shared.processes import namespace, process_alive

from .facts import BusInfo, Clock, Counts, EndpointInfo, PendingRequest, Ring, State
from .interest_log import InterestLog

# Segments -------------------------------------------------------------------------------------


def open_segment(name: str, kind: layout.SegmentKind, least: int) -> Mapping:
    """A segment, read-only; it stays mapped while the mapping or a view of it is alive. Raises
    ``RingbufError``."""
    mapping = Segment.attach(name, kind=kind, layout=layout.LAYOUT).memory
    if mapping.size < least:
        raise SegmentMismatch(name, "size", least, mapping.size)
    return mapping


def _copy(memory: Mapping, structure: layout.Dtype) -> Any:
    """The structure at the start of a segment as it is now; copied as bytes, which is quick."""
    return np.frombuffer(memoryview(memory)[: structure.itemsize].tobytes(), structure)[0]


def open_bus(bus: str) -> Mapping:
    """BUS, read-only and checked.

    Raises ``NoSuchBus``, ``LayoutMismatch`` or ``SegmentError`` (foreign or broken)."""
    name = names.names_of(bus).bus_segment
    try:
        memory = open_segment(name, layout.SegmentKind.BUS, layout.BUS.itemsize)
    except (SegmentNotFound, SegmentNotReady):  # as good as not there, where it is being made
        _refuse_foreign(bus)
        raise errors.NoSuchBus(bus=bus, running=running()) from None
    except SegmentMismatch as problem:
        if problem.what != "layout":
            raise _untrusted(name, str(problem)) from problem
        raise errors.LayoutMismatch(
            bus=bus,
            mine=layout_text(layout.LAYOUT),
            theirs=layout_text(problem.found),
            pids=_users(bus),
        ) from None
    except RingbufError as problem:
        raise _untrusted(name, str(problem)) from problem
    head = layout.view(memory, layout.BUS)[0]
    slots, rows = int(head["slots"]), int(head["rows_offset"])
    if rows % 8 or slots > 0xFFFF or rows + slots * layout.ROW.itemsize > memory.size:
        raise _untrusted(name, f"it says that {slots} slots begin at byte {rows}")
    return memory


def _untrusted(name: str, reason: str) -> errors.SegmentError:
    return errors.SegmentError(
        name=name,
        reason=reason.removeprefix(f"segment {name!r} "),
        remedy="See whose it is: shmbus doctor",
    )


def _refuse_foreign(bus: str) -> None:
    for _, entry in names.entries():
        if entry.kind == "bus" and entry.bus == bus and entry.uid != os.geteuid():
            raise errors.SegmentError(
                name=entry.names.bus_segment,
                reason=f"this bus belongs to user {entry.uid}, you are {os.geteuid()}",
                remedy="A bus is for the user who serves it: run as that user, or serve your own",
            )


def _users(bus: str) -> tuple[int, ...]:
    """The live processes that are attached to a bus, by the names of their segments."""
    owners = {e.owner for _, e in names.entries(bus) if e.kind == "up" and e.owner is not None}
    return tuple(sorted({o.pid for o in owners if process_alive(o.pid, o.start)}))


# One bus --------------------------------------------------------------------------------------


def steady(head: NDArray[np.void], sequence: str, tries: int = 100) -> tuple[Any, NDArray[Any]]:
    """A copy of structures that change under a sequence number (odd while they do), and which of
    them stood still. The dispatcher may have died over one: that stays out of it."""
    # Three calls in this order; on machines that reorder loads, the calls between them make a
    # torn read improbable, not impossible. What is read here is looked at, never acted upon.
    memory = head.view(np.uint8)  # bytes are copied far more quickly than structures
    result = memory.copy().view(head.dtype)
    done = np.zeros(head.shape, bool)
    for turn in range(tries):
        if turn >= 10:
            time.sleep(0.001)  # its writer has lost the CPU over it, or waits for our GIL
        before = head[sequence].copy()
        copy = memory.copy().view(head.dtype)
        still = (before == head[sequence]) & (before % 2 == 0)
        result[still & ~done] = copy[still & ~done]
        done |= still
        if done.all():
            break
    return result, done


class Registry:
    """The rows of one bus and the endpoints behind them. Not for several threads at once."""

    def __init__(self, bus: str) -> None:
        self.bus = names.names_of(bus)
        memory = open_bus(bus)
        self.head = layout.view(memory, layout.BUS)
        slots, rows = int(self.head[0]["slots"]), int(self.head[0]["rows_offset"])
        self._rows = layout.view(memory, layout.ROW, slots, rows)
        self._known: dict[tuple[int, int], _Endpoint] = {}

    def info(self, clock: Clock | None = None) -> BusInfo:
        """The bus itself."""
        return _bus_info(self.bus.bus, self.head, clock or Clock.now())

    def endpoints(self, clock: Clock | None = None) -> list[EndpointInfo]:
        """All endpoints that hold a slot, in the order of slots."""
        clock = clock or Clock.now()
        rows, still = steady(self._rows, "seq")
        there = still & (rows["state"] != layout.RowState.FREE)
        there &= rows["state"] <= layout.RowState.DYING
        known, found = self._known, []
        self._known = {}
        # A pid of another namespace means nothing here: such an endpoint is believed alive.
        here = namespace("pid")
        foreign = ~np.isin(rows["identity"]["pid_namespace"], (0, here))
        alive: dict[tuple[int, int], bool] = {}
        for slot in np.flatnonzero(there).tolist():
            row = rows[slot]
            key = slot, int(row["generation"])
            endpoint = known.get(key) or _Endpoint(self.bus, slot, row)
            self._known[key] = endpoint
            process = endpoint.owner.pid, endpoint.owner.start
            if process not in alive:
                alive[process] = bool(foreign[slot]) or process_alive(*process)
            found.append(endpoint.info(row, clock, alive[process]))
        return found

    def requests(self, slot: int, generation: int) -> list[PendingRequest]:
        """The requests under way of one endpoint, of those that `endpoints` saw last."""
        endpoint = self._known.get((slot, generation))
        if endpoint is None:
            return []
        names_of = {(e.slot, e.generation & 0xFFFFFFFF): e.name for e in self._known.values()}
        now = time.monotonic_ns()
        return [
            PendingRequest(
                correlation_id=identifier,
                deadline=(deadline - now) / 1e9,
                handler=names_of.get((whom & 0xFFFF, whom >> 16 & 0xFFFFFFFF)) if whom else None,
            )
            for identifier, deadline, whom in endpoint.requests()
        ]

    def waiting(self, slot: int, generation: int) -> list[int]:
        """When those messages were sent that wait for one endpoint, of those that `endpoints` saw
        last: CLOCK_MONOTONIC, in nanoseconds."""
        endpoint = self._known.get((slot, generation))
        return [] if endpoint is None else list(endpoint.waiting())


_REASONS = layout.words(layout.Reason) | {layout.Reason.ALIVE: ""}

# What stands in a segment under the same name as in `EndpointInfo`.
_OF_UP = ["orphans", "expired", "handler_errors", "decode_errors", "timeouts", "let_go"]
_OF_DOWN = ["forwarded", "lost", "redelivered", "undeliverable", "unrouted"]

# These stand for a segment that cannot be opened.
_NO_UP: Any = np.zeros(1, layout.UP)[0]
_NO_DOWN: Any = np.zeros(1, layout.DOWN)[0]


class _Endpoint:
    """One generation of one slot: its segments, opened once and kept."""

    def __init__(self, bus: names.BusNames, slot: int, row: np.void) -> None:
        self.bus, self.slot, self.generation = bus, slot, int(row["generation"])
        self.owner = names.owner_in(row)
        self.name = layout.text(row["name"])
        self.up: Mapping | None = None
        self.down: Mapping | None = None
        self.log = InterestLog(bus, self.owner, self.name)

    def _open(self) -> str:
        """Open what is not open yet; what is missing, as a note."""
        try:
            if self.up is None:
                name = self.bus.up(self.owner)
                self.up = open_segment(name, layout.SegmentKind.UP, layout.UP.itemsize)
            if self.down is None:
                name = self.bus.down(self.slot, self.generation)
                self.down = open_segment(name, layout.SegmentKind.DOWN, layout.DOWN.itemsize)
        except RingbufError as problem:
            return str(problem)
        return ""

    def info(self, row: np.void, clock: Clock, alive: bool) -> EndpointInfo:
        note = self._open()
        up, down = _NO_UP, _NO_DOWN
        if self.down is not None:
            # DOWN first: what was delivered by then can have been taken since, never the reverse.
            down = _copy(self.down, layout.DOWN)
        if self.up is not None:
            up = _copy(self.up, layout.UP)
        outgoing, incoming = up["outgoing"], up["incoming"]
        version = int(outgoing[0]["interests_version"])
        serial = int(outgoing[0]["interests_serial"])
        interests, broken = self.log.read(version, serial) if self.up is not None else ((), "")

        row_state = int(row["state"])
        state: State = "attached" if row_state == layout.RowState.LIVE else "leaving"
        if row_state == layout.RowState.DYING or not alive:
            state = "dead"
        health = int(row["health"])
        in_hand = int(up["in_hand"])
        progress = int(up["progress_ns"])
        sent, received = _counts(up, "sent"), _counts(up, "received")
        taken = int(incoming["taken_count"].sum())
        delivered = int(down["incoming"]["delivered"].sum())
        pending = self._pending(up)
        return EndpointInfo(
            name=self.name,
            pid=self.owner.pid,
            slot=self.slot,
            generation=self.generation,
            state=state,
            reason=_REASONS.get(int(row["reason"]), "unknown"),
            stalled=bool(health & layout.Fitness.STALLED),
            slow=bool(health & layout.Fitness.SLOW),
            since=int(row["since_wall_ns"]) / 1e9,
            last_progress=clock.at(progress) if progress else None,
            patterns=tuple(dict.fromkeys(i.pattern for i in interests if i.role != "tap")),
            groups=tuple(dict.fromkeys(i.group for i in interests if i.group is not None)),
            interests=interests,
            routed=int(down["interests_seen"]) >= version,
            incoming=_incoming(up, down, 0),
            incoming_replies=_incoming(up, down, 1),
            outgoing=_outgoing(up, down, 0),
            outgoing_replies=_outgoing(up, down, 1),
            untouched=max(delivered - taken, 0),
            unforwarded=max(sent.total - int(down["forwarded"]), 0),
            in_hand=in_hand,
            in_hand_seconds=clock.age(int(up["in_hand_since_ns"])) if in_hand else 0.0,
            held=_held(up["held"]) if self.up is not None else 0,
            receivers=int(up["receivers"]),
            pending=int(np.count_nonzero(pending["state"] == layout.PendingState.WAITING)),
            pending_limit=len(pending),
            sent=sent,
            received=received,
            note=note or broken,
            **{field: int(up[field]) for field in _OF_UP},
            **{field: int(down[field]) for field in _OF_DOWN},
        )

    def _pending(self, up: Any) -> NDArray[np.void]:
        """The pending table, live; empty where what UP says of it cannot be."""
        return _table(self.up, up["pending_count"], up["pending_offset"], layout.PENDING)

    def waiting(self) -> Iterator[int]:
        """When those messages were sent that it has not taken yet."""
        if self.up is None or self.down is None:
            return
        down = _copy(self.down, layout.DOWN)
        place, head = down["incoming_ring"][0], int(down["incoming"][0]["head"])
        at, capacity = int(place["offset"]), int(place["capacity"])
        if at < layout.DOWN.itemsize or at + capacity > self.down.size:
            return
        data = memoryview(self.down)[at : at + capacity].tobytes()
        # Read last: nothing from here on was overwritten while the copy was made.
        position = int(_copy(self.up, layout.UP)["incoming"][0]["taken"])
        if head - position > capacity:
            return
        header = layout.RECORD.itemsize
        while position < head:
            start = position % capacity
            if start + 8 > capacity:
                return
            length, kind = struct.unpack_from("<IH", data, start)
            if length < 8 or length > capacity:
                return
            if kind != layout.PADDING and length >= header and start + header <= capacity:
                yield int(np.frombuffer(data, layout.RECORD, 1, start)[0]["sent_ns"])
            position += -(-length // 8) * 8

    def requests(self) -> Iterator[tuple[UUID, int, int]]:
        """Of each request under way the id, the deadline and whom the dispatcher chose, 0 for
        nobody yet."""
        if self.up is None or self.down is None:
            return
        pending = self._pending(_copy(self.up, layout.UP)).copy()
        down = _copy(self.down, layout.DOWN)
        targets = _table(self.down, down["target_count"], down["target_offset"], layout.TARGET)
        for index in np.flatnonzero(pending["state"] == layout.PendingState.WAITING).tolist():
            entry, whom = pending[index], 0
            if index < len(targets) and (targets[index]["id"] == entry["id"]).all():
                whom = int(targets[index]["whom"])
            yield UUID(bytes=entry["id"].tobytes()), int(entry["deadline_ns"]), whom


def _table(
    memory: Mapping | None, count: Any, at: Any, structure: layout.Dtype
) -> NDArray[np.void]:
    """A table of structures in a segment, live; empty where it cannot be where it is said to be."""
    count, at = int(count), int(at)
    size = count * structure.itemsize
    if memory is None or count > 65536 or at % 8 or at + size > memory.size:
        return np.zeros(0, structure)
    return layout.view(memory, structure, count, at)


def _counts(up: Any, way: str) -> Counts:
    return Counts(**{kind: int(up[f"{way}_{kind}"]) for kind in Counts.__struct_fields__})


def _held(held: NDArray[np.void]) -> int:
    return int(np.count_nonzero((held["position"] != layout.NOWHERE) & (held["done"] == 0)))


def _incoming(up: Any, down: Any, ring: int) -> Ring:
    """One that is consumed by the endpoint, after its end by the dispatcher."""
    producer = down["incoming"][ring]
    tail = int(producer["reclaim"])
    if tail == layout.NOWHERE:
        tail = int(up["incoming"][ring]["tail"])
    return _ring(producer, tail, down["incoming_ring"][ring])


def _outgoing(up: Any, down: Any, ring: int) -> Ring:
    tail = int(down["outgoing"][ring]["tail"])
    return _ring(up["outgoing"][ring], tail, up["outgoing_ring"][ring])


def _ring(producer: Any, tail: int, place: Any) -> Ring:
    capacity = int(place["capacity"])
    depth = int(producer["head"]) - tail
    # The two sides were not read at one moment, and either may hold garbage.
    return Ring(
        depth=min(max(depth, 0), capacity),
        capacity=capacity,
        high=min(int(producer["high"]), capacity),
    )


# All buses ------------------------------------------------------------------------------------


def _bus_info(name: str, head: NDArray[np.void], clock: Clock) -> BusInfo:
    copies, _ = steady(head, "identity_seq")
    bus = copies[0]
    identity = bus["identity"]
    heartbeat, control = int(bus["heartbeat_ns"]), int(bus["control_ns"])
    if int(identity["pid_namespace"]) in (0, namespace("pid")):
        alive = process_alive(int(identity["pid"]), int(identity["start_time"]))
    else:  # its pid means nothing here; its heart tells
        alive = clock.age(heartbeat) < 1.0
    said = int(bus["state"])
    state: Any = "unreadable"
    if said in tuple(layout.BusState):
        state = layout.BusState(said).name.lower()
        if not alive and said not in (layout.BusState.ENDED, layout.BusState.HANDOVER):
            state = "dead"
    return BusInfo(
        name=name,
        state=state,
        alive=alive,
        pid=int(identity["pid"]),
        since=clock.at(int(bus["started_ns"])),
        package=layout.text(bus["package"]),
        layout=layout_text(int(bus["prefix"]["layout"])),
        endpoints=int(bus["attached"]),
        slots=int(bus["slots"]),
        ring_bytes=int(bus["ring_bytes"]),
        serial=int(bus["serial"]),
        heartbeat_age=clock.age(heartbeat) if heartbeat else None,
        control_age=clock.age(control) if control else None,
    )


def buses() -> list[BusInfo]:
    """The buses of this user on this machine, by name; a bus whose dispatcher died is among
    them."""
    return [info for info in map(_look, _standing()) if info is not None]


def _standing() -> list[str]:
    """The names of this user's buses, by what stands in /dev/shm."""
    return sorted({e.bus for _, e in names.entries() if e.kind == "bus" and e.uid == os.geteuid()})


def _look(bus: str) -> BusInfo | None:
    try:
        memory = open_bus(bus)
    except errors.NoSuchBus:  # it ended since we looked
        return None
    except errors.BusError as problem:
        theirs = problem.theirs if isinstance(problem, errors.LayoutMismatch) else ""
        pids = problem.pids if isinstance(problem, errors.LayoutMismatch) else ()
        return BusInfo(
            name=bus, state="unreadable", alive=bool(pids), layout=theirs, note=str(problem)
        )
    return _bus_info(bus, layout.view(memory, layout.BUS), Clock.now())


def running() -> tuple[str, ...]:
    """The names of this user's buses whose dispatcher lives."""
    alive = []
    for bus in _standing():
        name = names.names_of(bus).bus_segment
        try:
            memory = open_segment(name, layout.SegmentKind.BUS, layout.BUS.itemsize)
        except RingbufError:
            continue
        if _bus_info(bus, layout.view(memory, layout.BUS), Clock.now()).alive:
            alive.append(bus)
    return tuple(alive)


def choose(bus: str | None) -> str:
    """The bus that is meant: the one named, or else the only one running, or else the only one
    that is there at all. Raises ``NoSuchBus``, ``InvalidName``."""
    if bus is not None:
        return names.check_bus(bus)
    candidates = running()
    if not candidates:
        candidates = tuple(info.name for info in buses() if info.state != "unreadable")
    if len(candidates) != 1:
        raise errors.NoSuchBus(bus=None, running=candidates)
    return candidates[0]
