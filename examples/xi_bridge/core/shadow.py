"""What the front-end's cache has of the lines, and the `update` that brings it up to date.

The lines of the view are described by few spans, so that an edit costs the lines that it touches,
whatever the size of the file. What lies far from the window that is shown is given up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from enum import IntEnum
from typing import Any, NamedTuple

SLOP = 2
"""Lines beyond the window that are sent with it."""
KEPT = 1000
"""Lines beyond the window that the front-end keeps when it has them."""


class State(IntEnum):
    MISSING = 0
    OUTDATED = 1
    """The text is right, carets or styles are not."""
    CURRENT = 2


class Span(NamedTuple):
    """So many lines, which are from `first` on in the front-end's cache unless they are missing."""

    lines: int
    first: int
    state: State

    def part(self, skipped: int, count: int) -> Span:
        return Span(count, self.first + skipped, self.state)


class Tactic(IntEnum):
    DISCARD = 0
    KEEP = 1
    SHOW = 2


Render = Callable[[int, bool], dict[str, Any]]
"""Makes a line for the wire, with its text or without."""


class Shadow:
    def __init__(self, lines: int) -> None:
        self.spans = [Span(lines, 0, State.MISSING)]

    @property
    def lines(self) -> int:
        return sum(span.lines for span in self.spans)

    def replace(self, first: int, gone: int, come: int) -> None:
        """Other lines are in the place of `gone` lines from `first` on."""
        begin, end = self._cut(first), self._cut(first + gone)
        self.spans[begin:end] = [Span(come, 0, State.MISSING)]

    def outdate(self, first: int, count: int = 1) -> None:
        """Carets or styles of these lines are others."""
        begin, end = self._cut(first), self._cut(first + count)
        self.spans[begin:end] = [
            span if span.state is State.MISSING else span._replace(state=State.OUTDATED)
            for span in self.spans[begin:end]
        ]

    def program(
        self, window: tuple[int, int], asked: tuple[int, int], render: Render
    ) -> list[dict[str, Any]]:
        """The operations that bring the front-end up to date: it then has all lines of the window,
        and those asked for."""
        ops: list[dict[str, Any]] = []
        spans: list[Span] = []
        ours = theirs = 0
        for span, tactic in self._pieces(window, asked):
            state = span.state if tactic is not Tactic.DISCARD else State.MISSING
            numbers = range(ours, ours + span.lines)
            if state is State.MISSING and tactic is Tactic.SHOW:
                _extend(ops, "ins", span.lines, [render(line, True) for line in numbers])
                state = State.CURRENT
            elif state is State.MISSING:
                _extend(ops, "invalidate", span.lines)
            else:
                if span.first > theirs:
                    _extend(ops, "skip", span.first - theirs)
                if state is State.CURRENT:
                    _extend(ops, "copy", span.lines, ln=ours + 1)
                else:
                    _extend(ops, "update", span.lines, [render(line, False) for line in numbers])
                    state = State.CURRENT
                theirs = span.first + span.lines
            _append(spans, Span(span.lines, ours, state))
            ours += span.lines
        self.spans = spans
        return ops

    def _pieces(
        self, window: tuple[int, int], asked: tuple[int, int]
    ) -> Iterator[tuple[Span, Tactic]]:
        """The spans, cut where what is to be done changes."""
        total = self.lines
        first, last = (min(max(line, 0), total) for line in window)
        wanted = max(first - SLOP, 0), min(last + SLOP, total)
        kept = max(first - KEPT, 0), min(last + KEPT, total)
        also = max(asked[0], 0), min(asked[1], total)
        edges = sorted({*wanted, *kept, *also, total})
        at = 0
        for span in self.spans:
            end, done = at + span.lines, 0
            for edge in [edge for edge in edges if at < edge < end] + [end]:
                line = at + done
                if wanted[0] <= line < wanted[1] or also[0] <= line < also[1]:
                    tactic = Tactic.SHOW
                else:
                    tactic = Tactic.KEEP if kept[0] <= line < kept[1] else Tactic.DISCARD
                yield span.part(done, edge - line), tactic
                done = edge - at
            at = end

    def _cut(self, line: int) -> int:
        """The index of the span that begins with that line, which is made where there is none."""
        at = 0
        for index, span in enumerate(self.spans):
            if at == line:
                return index
            if line < at + span.lines:
                head = line - at
                self.spans[index : index + 1] = [
                    span.part(0, head),
                    span.part(head, span.lines - head),
                ]
                return index + 1
            at += span.lines
        return len(self.spans)


def _append(spans: list[Span], span: Span) -> None:
    """Make one of it and the last where they are one."""
    if spans and spans[-1].state is span.state:  # `first` is the line itself: they follow
        spans[-1] = spans[-1]._replace(lines=spans[-1].lines + span.lines)
    else:
        spans.append(span)


def _extend(
    ops: list[dict[str, Any]],
    kind: str,
    count: int,
    lines: list[dict[str, Any]] | None = None,
    ln: int | None = None,
) -> None:
    """Add an operation, as part of the last where that is of its kind."""
    if ops and ops[-1]["op"] == kind:
        ops[-1]["n"] += count
        if lines is not None:
            ops[-1]["lines"] += lines
        return
    op: dict[str, Any] = {"op": kind, "n": count}
    if lines is not None:
        op["lines"] = lines
    if ln is not None:
        op["ln"] = ln
    ops.append(op)
