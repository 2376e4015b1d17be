"""How long to wait before what has failed is tried again."""

from __future__ import annotations

FIRST, LONGEST = 0.5, 10.0
"""Seconds."""


class Pauses:
    """Between the tries of one thing: they double, up to the longest, until one succeeds."""

    def __init__(self, first: float | None = None, longest: float = LONGEST) -> None:
        self._first = FIRST if first is None else first
        self._longest, self._next = longest, self._first

    def next(self) -> float:
        """It has failed: seconds until the next try."""
        pause, self._next = self._next, min(2 * self._next, self._longest)
        return pause

    def over(self) -> None:
        """It has succeeded."""
        self._next = self._first
