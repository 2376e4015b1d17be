"""The bus's segments: ringbuf's, of the bus's layout, with the bus's errors."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from ringbuf import RingbufError, Segment, SegmentMismatch, SegmentNoSpace, layout_text
from ringbuf.segment import REMEDIES, available, refusal, unused_memory
from shmbus import errors
from shmbus.limits import KEYED_GROUPS, MAILBOXES

from . import grants, layout
from .grants import Grant
from .layout import LAYOUT, SegmentKind
from .names import BusNames

if TYPE_CHECKING:
    from ringbuf._kernel import Mapping


def create(
    name: str,
    size: int,
    kind: SegmentKind,
    prepare: Callable[[Mapping], Any] | None = None,
    *,
    generation: int = 0,
) -> Segment:
    """Make a segment. Raises ``SegmentError``."""
    try:
        return Segment.create(
            name,
            -(-size // 8) * 8,
            kind=kind,
            layout=LAYOUT,
            generation=generation,
            prepare=prepare,
        )
    except RingbufError as problem:
        raise error(None, name, problem) from problem


class Shape(NamedTuple):
    """What an endpoint's UP asks of its DOWN."""

    data_bytes: int
    """Capacity of the incoming data ring."""
    reply_bytes: int
    """Capacity of the incoming reply ring."""
    urgent_bytes: int
    """Capacity of the incoming ring for urgent events."""
    requests: int
    """Requests in flight at a time."""


def create_down(
    bus: BusNames, slot: int, generation: int, shape: Shape, slots: int, grant: Grant | None
) -> Segment:
    """Make the DOWN of an endpoint. Raises ``SegmentError``."""
    todo = slots + layout.BACKLOGS + MAILBOXES + KEYED_GROUPS
    targets_at = _line(layout.DOWN.itemsize)
    todo_at = _line(targets_at + shape.requests * layout.TARGET.itemsize)
    at = _line(todo_at + todo * layout.TODO_TARGET.itemsize)
    rings = []
    for kind, capacity in enumerate(shape[:3]):
        rings.append((at, capacity, kind, 0, 0, 0))
        at = _line(at + capacity)
    rights_at, patterns = at, b"" if grant is None else grants.pack(grant)
    if grant is not None:
        at += layout.RIGHTS.itemsize + len(patterns)

    def prepare(memory: Mapping) -> None:
        down = layout.view(memory, layout.DOWN)[0]
        down["slot"], down["generation"] = slot, generation
        down["incoming_ring"] = rings
        down["target_count"], down["target_offset"] = shape.requests, targets_at
        down["todo_count"], down["todo_offset"] = todo, todo_at
        down["state"] = layout.DownState.LIVE
        down["incoming"]["need"] = layout.NOWHERE
        down["incoming"]["reclaim"] = layout.NOWHERE
        down["todo"]["from"] = layout.NOWHERE
        if grant is not None:
            down["rights_offset"] = rights_at
            layout.view(memory, layout.RIGHTS, 1, rights_at)[0]["bytes"] = len(patterns)
            memoryview(memory)[at - len(patterns) : at] = patterns

    name = bus.down(slot, generation)
    return create(name, at, SegmentKind.DOWN, prepare, generation=generation)


def attach(bus: str, name: str, kind: SegmentKind, *, writable: bool = False) -> Segment:
    """Open a segment of a bus. Raises ``SegmentError``, ``LayoutMismatch``."""
    try:
        return Segment.attach(name, kind=kind, layout=LAYOUT, writable=writable)
    except RingbufError as problem:
        raise error(bus, name, problem) from problem


def error(bus: str | None, name: str, problem: RingbufError | OSError) -> errors.BusError:
    """The bus's error for one of ringbuf or of the system."""
    if isinstance(problem, OSError):
        problem = refusal(name, problem, "made")
    if isinstance(problem, SegmentMismatch) and problem.what == "layout":
        return errors.LayoutMismatch(
            bus=bus, mine=layout_text(problem.expected), theirs=layout_text(problem.found)
        )
    # ringbuf's messages read "segment NAME has such a problem; do this".
    name = getattr(problem, "name", name)
    said = str(problem).removeprefix("segment ").removeprefix("doorbell ")
    reason, _, remedy = said.removeprefix(f"{name!r} ").partition("; ")
    size = free = None
    if isinstance(problem, SegmentNoSpace):
        size, free = problem.size, problem.free
        reason = "not enough shared memory"
        remedy = f"Set a smaller in_bytes, out_bytes or reply_bytes, or {remedy}"
    remedy = remedy[:1].upper() + remedy[1:] or "See shmbus doctor"
    return errors.SegmentError(name=name, reason=reason, remedy=remedy, size=size, free=free)


def pool_error(name: str, number: int) -> errors.BusError:
    """The bus's error where a pool cannot be made or enlarged, by error number."""
    problem = OSError(number, os.strerror(number))
    if number not in REMEDIES:
        return error(None, name, problem)
    return errors.SegmentError(
        name=name,
        reason="not enough shared memory",
        remedy=f"Set a smaller pool_bytes or pool_total_bytes, or {REMEDIES[number]}",
        free=min(available(), unused_memory()),
    )


def _line(at: int) -> int:
    """The next whole cache line."""
    return -(-at // layout.LINE) * layout.LINE
