"""The buses of this machine: which there are, and which one is meant."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ringbuf import RingbufError, SegmentMismatch, SegmentNotFound, SegmentNotReady, layout_text
from ringbuf._kernel import Mapping
from ringbuf.segment import SHORTAGES
from shmbus import errors
from shmbus.limits import MAX_SLOTS
from shmbus.shared import layout, names, segments, shortage
from shmbus.shared.processes import namespace, process_alive

from .facts import BusInfo, Clock
from .memory import open_segment, steady

VARIABLE = "SHMBUS_BUS"
"""Of the environment: it names the bus where a call or a command names none."""


def buses() -> list[BusInfo]:
    """The buses of this user on this machine, by name; a bus whose dispatcher died is among
    them."""
    return [info for info in map(_look, _names()) if info is not None]


def _names() -> list[str]:
    """The names of this user's buses, by their segments in /dev/shm."""
    with shortage.told(None, "list of buses"):  # which must not look as if there were none
        files = os.listdir(names.SHM)
    entries = filter(None, map(names.parse, files))
    return sorted({e.bus for e in entries if e.kind == "bus" and e.uid == os.geteuid()})


def _look(bus: str) -> BusInfo | None:
    try:
        memory = open_bus(bus)
    except errors.NoSuchBus:  # it ended meanwhile
        return None
    except errors.BusError as problem:
        theirs = problem.theirs if isinstance(problem, errors.LayoutMismatch) else ""
        pids = problem.pids if isinstance(problem, errors.LayoutMismatch) else ()
        return BusInfo(
            name=bus, state="unreadable", alive=bool(pids), layout=theirs, note=str(problem)
        )
    return bus_info(bus, layout.view(memory, layout.BUS), Clock.now())


def running() -> tuple[str, ...]:
    """The names of this user's buses whose dispatcher is alive."""
    alive = []
    for bus in _names():
        name = names.names_of(bus).bus_segment
        try:
            memory = open_segment(name, layout.SegmentKind.BUS, layout.BUS.itemsize)
        except RingbufError as problem:
            if getattr(problem, "errno", 0) in SHORTAGES:
                raise segments.error(bus, name, problem) from problem
            continue
        if bus_info(bus, layout.view(memory, layout.BUS), Clock.now()).alive:
            alive.append(bus)
    return tuple(alive)


def choose(bus: str | None) -> str:
    """The bus that is meant: the one named, here or by ``SHMBUS_BUS`` in the environment, or else
    the only one running, or else the only one that is there at all. Raises ``NoSuchBus``,
    ``InvalidName``."""
    if bus is None:
        bus = os.environ.get(VARIABLE) or None
    if bus is not None:
        return names.check_bus(bus)
    candidates = running()
    if not candidates:
        candidates = tuple(info.name for info in buses() if info.state != "unreadable")
    if len(candidates) != 1:
        raise errors.NoSuchBus(bus=None, running=candidates)
    return candidates[0]


@contextmanager
def named(bus: str | None) -> Iterator[None]:
    """Errors say so where ``SHMBUS_BUS`` named the bus and a caller did not (``bus`` is None)."""
    try:
        yield
    except (errors.NoSuchBus, errors.AttachTimeout, errors.InvalidName) as problem:
        if bus is not None or not os.environ.get(VARIABLE):
            raise
        raise type(problem)(**{**problem.data, "variable": VARIABLE}) from problem.__cause__


def open_bus(bus: str) -> Mapping:
    """BUS, read-only and checked.

    Raises ``NoSuchBus``, ``LayoutMismatch`` or ``SegmentError`` (foreign or broken)."""
    name = names.names_of(bus).bus_segment
    try:
        memory = open_segment(name, layout.SegmentKind.BUS, layout.BUS.itemsize)
    except (SegmentNotFound, SegmentNotReady):  # not ready: it is just being made
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
        if getattr(problem, "errno", 0) in SHORTAGES:
            raise segments.error(bus, name, problem) from problem
        raise _untrusted(name, str(problem)) from problem
    head = layout.view(memory, layout.BUS)[0]
    slots, rows = int(head["slots"]), int(head["rows_offset"])
    if rows % 8 or slots > MAX_SLOTS or rows + slots * layout.ROW.itemsize > memory.size:
        raise _untrusted(name, f"it claims {slots} slots from byte {rows} on")
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


def _dispatcher_alive(bus: Any, clock: Clock) -> bool:
    identity = bus["identity"]
    if int(identity["pid_namespace"]) in (0, namespace("pid")):
        return process_alive(int(identity["pid"]), int(identity["start_time"]))
    # Its pid means nothing here: judge by the heartbeat.
    return clock.age(int(bus["heartbeat_ns"])) < 1.0


def bus_info(name: str, head: NDArray[np.void], clock: Clock) -> BusInfo:
    for _ in range(2):  # once more where it is dead: it may have ended the bus after the first look
        copies, _ = steady(head, "identity_seq")
        bus = copies[0]
        if alive := _dispatcher_alive(bus, clock):
            break
    identity = bus["identity"]
    heartbeat, control = int(bus["heartbeat_ns"]), int(bus["control_ns"])
    stored = int(bus["state"])
    state: Any = "unreadable"
    if stored in tuple(layout.BusState):
        state = layout.BusState(stored).name.lower()
        if not alive and stored not in (layout.BusState.ENDED, layout.BusState.HANDOVER):
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
        in_bytes=int(bus["in_bytes"]),
        out_bytes=int(bus["out_bytes"]),
        reply_bytes=int(bus["reply_bytes"]),
        prefetch=int(bus["prefetch"]),
        backlog_bytes=int(bus["backlog_bytes"]),
        history=int(bus["history"]),
        retain_bytes=int(bus["retain_bytes"]),
        retained=int(bus["retained"]),
        retained_bytes=int(bus["retained_bytes"]),
        evicted=int(bus["evicted"]),
        pool_bytes=int(bus["pool_bytes"]),
        pool_total_bytes=int(bus["pool_total_bytes"]),
        pools_granted=int(bus["pools_granted"]),
        pools_left=int(bus["pools_left"]),
        loans=int(bus["loans"]),
        serial=int(bus["serial"]),
        heartbeat_age=clock.age(heartbeat) if heartbeat else None,
        control_age=clock.age(control) if control else None,
    )
