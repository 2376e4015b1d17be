"""What a new dispatcher does with what there is of its bus's name.

Nothing: the bus begins anew. A bus of the same layout whose dispatcher has died while endpoints
are alive: it is adopted. A bus that nobody uses any more: it is removed. A bus of another layout
that is in use: an error names both versions; only ``replace`` puts it out of service.
"""

from __future__ import annotations

import logging
import os
import time
from contextlib import ExitStack, suppress
from typing import Any, NamedTuple

import posix_ipc

from ringbuf import (
    RingbufError,
    Segment,
    SegmentMismatch,
    SegmentNotFound,
    SegmentNotReady,
    layout_text,
)
from ringbuf.doorbell import Doorbell
from ringbuf.segment import SHORTAGES
from shmbus import errors
from shmbus.settings import Settings
from shmbus.shared import fence, layout, names, processes, segments
from shmbus.shared._kernel import monotonic
from shmbus.shared.layout import BusState, RowState, SegmentKind

from . import table

log = logging.getLogger("shmbus")

_TEARDOWN = 10.0
"""Seconds within which the system frees the memory of a dead dispatcher, and releases its lock."""
_BEGINNING = 2.0
"""Seconds for which the fence may be held by a process that does not serve: it begins to, or frees
what is left (`shmbus doctor --fix`)."""


class Standing(NamedTuple):
    """What a bus consists of before an endpoint is attached."""

    bus: Segment
    ready: Segment
    bell: Doorbell
    """The dispatcher's."""


def take_fence(bus: str) -> None:
    """Become the only dispatcher of a bus. One that is dead, but whose memory is still being
    freed, is waited for. Raises ``BusExists`` with the pid of one that is alive."""
    began = monotonic()
    while (holder := fence.acquire(bus)) is not None:
        waited = monotonic() - began
        alive = holder.pid == os.getpid() or processes.process_alive(*holder)
        if waited > _TEARDOWN or (alive and (waited > _BEGINNING or _serves(bus, holder))):
            raise errors.BusExists(bus=bus, pid=holder.pid)
        time.sleep(0.002)


def _serves(bus: str, holder: fence.Holder) -> bool:
    """Whether BUS names this process as its dispatcher; True where it cannot be read."""
    try:
        name = names.names_of(bus).bus_segment
        memory = Segment.attach(name, kind=SegmentKind.BUS, layout=layout.LAYOUT).memory
    except SegmentNotFound:
        return False
    except RingbufError:
        return True
    return int(layout.view(memory, layout.BUS)[0]["identity"]["pid"]) == holder.pid


def standing(bus: str, *, replace: bool) -> Standing | None:
    """What there is to adopt. The caller holds the fence.

    Raises ``BusExists``, ``LayoutMismatch``, ``Refused``, ``SegmentError``.
    """
    try:
        found = Segment.attach(names.names_of(bus).bus_segment, writable=True)
    except (
        SegmentNotFound,
        SegmentNotReady,
    ):  # not ready: its maker was killed before it was complete
        return None
    except SegmentMismatch as problem:
        if replace:
            return None
        raise errors.SegmentError(
            name=names.names_of(bus).bus_segment,
            reason=f"it has the name of a bus, and is none ({problem})",
            remedy="Replace it: serve(replace=True), shmbus serve --replace",
        ) from problem
    except RingbufError as problem:
        raise segments.error(bus, names.names_of(bus).bus_segment, problem) from problem
    prefix = found.prefix
    if prefix.layout != layout.LAYOUT or prefix.kind != SegmentKind.BUS:
        _supersede(bus, found, replace=replace)
        return None
    head = layout.view(found.memory, layout.BUS)[0]
    theirs = head["identity"]
    if int(theirs["pid_namespace"]) not in (0, processes.namespace("pid")):
        raise errors.Refused(
            bus=bus,
            reason="a bus of that name was served from another pid namespace",
            remedy="End it there, or choose another name",
        )
    pid, state = int(theirs["pid"]), int(head["state"])
    alive = pid != os.getpid() and processes.process_alive(pid, int(theirs["start_time"]))
    if alive and state != BusState.HANDOVER:
        raise errors.BusExists(bus=bus, pid=pid)  # it lost its lock, but is alive
    if state == BusState.ENDED or not _anyone_alive(found, head):
        return None
    try:
        ready = Segment.attach(
            names.names_of(bus).ready, kind=SegmentKind.READY, layout=layout.LAYOUT, writable=True
        )
        epoch = layout.offset(layout.BUS, "bell")
        bell = Doorbell.attach(names.names_of(bus).bell[1:], found.memory, epoch)
    except RingbufError as problem:  # somebody removed the names: those attached cannot be reached
        if getattr(problem, "errno", 0) in SHORTAGES:
            raise  # a dispatcher that gets more of the system can adopt the bus
        log.warning("bus %r cannot be adopted and begins anew: %s", bus, problem)
        found.memory.store(layout.offset(layout.BUS, "state"), BusState.ENDED)
        return None
    return Standing(found, ready, bell)


def _anyone_alive(found: Segment, head: Any) -> bool:
    rows = layout.view(found.memory, layout.ROW, int(head["slots"]), int(head["rows_offset"]))
    return any(
        int(row["state"]) in (RowState.LIVE, RowState.LEAVING)
        and processes.process_alive(int(row["identity"]["pid"]), int(row["identity"]["start_time"]))
        for row in rows
    )


def _supersede(bus: str, found: Segment, *, replace: bool) -> None:
    """Handle a bus of another layout: do nothing where nobody uses it; with ``replace``, put it out
    of service; else raise ``LayoutMismatch``."""
    users = {
        entry.owner
        for _, entry in names.entries(bus)
        if entry.owner is not None and processes.process_alive(entry.owner.pid, entry.owner.start)
    }
    if not users:
        return
    if not replace:
        raise errors.LayoutMismatch(
            bus=bus,
            mine=layout_text(layout.LAYOUT),
            theirs=layout_text(found.prefix.layout),
            pids=tuple(sorted({user.pid for user in users})),
        )
    found.memory.store(layout.offset(layout.PREFIX, "superseded_by"), layout.LAYOUT)
    for user in users:  # ring their bells, so that they see it
        try:
            posix_ipc.Semaphore(names.names_of(bus).endpoint_bell(user)).release()
        except posix_ipc.Error:
            pass


def begin(bus: str, settings: Settings, package: bytes) -> Standing:
    """Make a bus anew; what had its name is removed. The caller holds the fence. Raises
    ``SegmentError``, ``DoorbellError``."""
    _clear(bus)
    of = names.names_of(bus)
    slots = -(-settings.max_endpoints // 16) * 16  # whole cache lines
    with ExitStack() as undo:
        segment = table.create(bus, settings, package)
        undo.callback(segment.unlink)
        size = layout.READY.itemsize + 4 * slots
        ready = segments.create(of.ready, size, SegmentKind.READY)
        undo.callback(ready.unlink)
        bell = Doorbell.create(of.bell[1:], segment.memory, layout.offset(layout.BUS, "bell"))
        undo.pop_all()
    return Standing(segment, ready, bell)


def _clear(bus: str) -> None:
    """Remove everything of a bus but its fence, which the caller holds, and the segments of living
    processes that are about to attach."""
    for path, entry in names.entries(bus):
        if entry.kind != "lock" and not _owner_alive(entry):
            path.unlink(missing_ok=True)


def clear_dead(bus: str, admitted: set[names.Owner]) -> None:
    """Remove what dead endpoints left, except ``admitted``, whose departures are still handled."""
    for path, entry in names.entries(bus):
        if entry.owner is not None and entry.owner not in admitted and not _owner_alive(entry):
            with suppress(OSError):
                path.unlink()


def clear_made(bus: str, listed: set[str]) -> None:
    """Remove what dispatchers of a bus made beside BUS, its door, READY and the bell, except what
    BUS lists: a dispatcher that is killed between making a segment and listing it leaves one that
    nobody else would find."""
    for path, entry in names.entries(bus):
        if entry.kind in ("down", "backlog", "mailbox", "retained") and path.name not in listed:
            path.unlink(missing_ok=True)


def clear_pools(bus: str) -> None:
    """Remove the pools of all endpoints of a bus that has ended. Whoever looks into one keeps that
    mapped."""
    for path, entry in names.entries(bus):
        if entry.kind == "pool":
            path.unlink(missing_ok=True)


def _owner_alive(entry: names.Entry) -> bool:
    return entry.owner is not None and processes.process_alive(entry.owner.pid, entry.owner.start)
