"""What is searched for, and where it is found: within lines, and kept up to date line by line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from .protocol import FindQuery
from .selection import Region
from .text import Position, Text

Found = list[tuple[int, int]]
"""Matches in one line: first and last column."""


class Search:
    """One query and its matches in every line."""

    def __init__(self, number: int, query: FindQuery, text: Text) -> None:
        self.number = number
        self.query = query
        self._pattern = _pattern(query)
        self.lines = [self._in(line) for line in text.lines]

    def replace(self, first: int, gone: int, new: list[str]) -> None:
        self.lines[first : first + gone] = [self._in(line) for line in new]

    def matches(self, first: int = 0, last: int | None = None) -> Iterator[Region]:
        """The matches in these lines, each as a region."""
        for number, found in enumerate(self.lines[first:last], first):
            for start, end in found:
                yield Region(Position(number, start), Position(number, end))

    def status(self) -> dict[str, Any]:
        lines = [number + 1 for number, found in enumerate(self.lines) for _ in found]
        return {
            "id": self.number,
            "chars": self.query.chars,
            "case_sensitive": self.query.case_sensitive,
            "is_regex": self.query.regex,
            "whole_words": self.query.whole_words,
            "matches": len(lines),
            "lines": lines,
        }

    def _in(self, line: str) -> Found:
        if self._pattern is None:
            return []
        return [
            found.span() for found in self._pattern.finditer(line) if found.end() > found.start()
        ]


def _pattern(query: FindQuery) -> re.Pattern[str] | None:
    """None where it cannot be searched for."""
    pattern = query.chars if query.regex else re.escape(query.chars)
    if query.whole_words:
        pattern = rf"\b(?:{pattern})\b"
    try:
        return re.compile(pattern, 0 if query.case_sensitive else re.IGNORECASE)
    except re.error:
        return None
