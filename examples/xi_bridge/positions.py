"""Where a place in a text is after somebody else has changed the text.

Places are as in XI's protocol: a line, and the bytes of UTF-8 before the place in that line.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Position(NamedTuple):
    line: int
    column: int


class Range(NamedTuple):
    """What is selected, with the caret at `end`, which may be before `start` or where that is."""

    start: Position
    end: Position


class Splice(NamedTuple):
    """One piece of text replaced by another: `start` to `old_end` became `start` to `new_end`."""

    start: Position
    old_end: Position
    new_end: Position

    @classmethod
    def between(cls, first: int, old: Sequence[str], new: Sequence[str]) -> Splice | None:
        """The smallest that makes `new` from the lines `old`, which begin at line `first`."""
        before, after = "".join(old), "".join(new)
        if before == after:
            return None
        head = _common(before, after)
        most = min(len(before), len(after)) - head
        tail = min(_common(before[::-1], after[::-1]), most)
        start = _at(first, before[:head])
        return cls(
            start,
            _at(first, before[: len(before) - tail]),
            _at(first, after[: len(after) - tail]),
        )

    def moved(self, place: Position) -> Position:
        """Where that place is afterwards. One that has gone is at the end of what came; one at
        which something was inserted stays before it."""
        if place <= self.start:
            return place
        if place < self.old_end:
            return min(place, self.new_end)
        if place.line > self.old_end.line:
            return Position(place.line + self.new_end.line - self.old_end.line, place.column)
        return Position(self.new_end.line, self.new_end.column + place.column - self.old_end.column)

    def moved_range(self, range: Range) -> Range:
        return Range(self.moved(range.start), self.moved(range.end))


def _common(one: str, other: str) -> int:
    """With how many characters both begin."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((n for n, (a, b) in pairs if a != b), min(len(one), len(other)))


def _at(first: int, text: str) -> Position:
    """The place behind that text, which begins at the beginning of line `first`."""
    return Position(
        first + text.count("\n"), len(text[text.rfind("\n") + 1 :].encode("utf-8", "surrogatepass"))
    )
