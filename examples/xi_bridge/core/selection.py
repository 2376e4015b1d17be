"""A selection: regions, each with the caret at one of its ends, in order and apart."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from .text import Position


class Region(NamedTuple):
    """What is selected between an anchor and a caret; nothing where they are at one place."""

    anchor: Position
    caret: Position
    goal: int | None = None
    """The column that moves up and down aim at, also from shorter lines."""

    @property
    def start(self) -> Position:
        return min(self.anchor, self.caret)

    @property
    def end(self) -> Position:
        return max(self.anchor, self.caret)

    @property
    def empty(self) -> bool:
        return self.anchor == self.caret


Selection = list[Region]


def caret(at: Position, goal: int | None = None) -> Region:
    return Region(at, at, goal)


def selection(regions: Iterable[Region]) -> Selection:
    """These regions in order, those that overlap made one."""
    apart: Selection = []
    for region in sorted(regions, key=lambda region: (region.start, region.end)):
        if apart and _touch(apart[-1], region):
            before = apart[-1]
            start, end = before.start, max(before.end, region.end)
            forward = (region if before.empty else before).caret >= start and not _backward(
                region if before.empty else before
            )
            apart[-1] = Region(start, end) if forward else Region(end, start)
        else:
            apart.append(region)
    return apart


def _touch(before: Region, after: Region) -> bool:
    if after.start == before.end:
        return before.empty or after.empty
    return after.start < before.end


def _backward(region: Region) -> bool:
    return region.caret < region.anchor
