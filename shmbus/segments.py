"""The bus's segments: ringbuf's, of the bus's layout, with the bus's errors."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ringbuf import RingbufError, Segment, SegmentMismatch, SegmentNoSpace, layout_text
from ringbuf.segment import refusal

from . import errors
from .layout import LAYOUT, SegmentKind

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
    """Make one. Raises ``SegmentError``."""
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


def attach(bus: str, name: str, kind: SegmentKind, *, writable: bool = False) -> Segment:
    """Open one of a bus. Raises ``SegmentError``, ``LayoutMismatch``."""
    try:
        return Segment.attach(name, kind=kind, layout=LAYOUT, writable=writable)
    except RingbufError as problem:
        raise error(bus, name, problem) from problem


def error(bus: str | None, name: str, problem: RingbufError | OSError) -> errors.BusError:
    """An error of ringbuf's, or of the system's, as the bus says it."""
    if isinstance(problem, OSError):
        problem = refusal(name, problem, "made")
    if isinstance(problem, SegmentMismatch) and problem.what == "layout":
        return errors.LayoutMismatch(
            bus=bus, mine=layout_text(problem.expected), theirs=layout_text(problem.found)
        )
    # ringbuf's messages read "segment NAME has such a problem; do this".
    reason, _, remedy = str(problem).removeprefix(f"segment {name!r} ").partition("; ")
    size = free = None
    if isinstance(problem, SegmentNoSpace):
        size, free = problem.size, problem.free
        reason = "not enough shared memory"
        remedy = f"Set a smaller ring_bytes, or {remedy}"
    remedy = remedy[:1].upper() + remedy[1:] or "See shmbus doctor"
    return errors.SegmentError(name=name, reason=reason, remedy=remedy, size=size, free=free)
