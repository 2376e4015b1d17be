"""The text of a buffer: lines, positions in them, and replacements, each with its inverse."""

from __future__ import annotations

from typing import NamedTuple


class Position(NamedTuple):
    """A place between two characters. Columns count characters; the wire counts bytes of UTF-8."""

    line: int
    column: int


class Replacement(NamedTuple):
    """Text that takes the place of what stands between two positions."""

    start: Position
    end: Position
    text: str

    @property
    def landing(self) -> Position:
        """Where the new text ends."""
        more = self.text.count("\n")
        if not more:
            return Position(self.start.line, self.start.column + len(self.text))
        return Position(self.start.line + more, len(self.text) - self.text.rindex("\n") - 1)

    def moves(self, position: Position, *, stays: bool = False) -> Position:
        """Where a position is afterwards: one in what was replaced is after what came, but with
        `stays` one at its beginning is still there."""
        if position < self.start or (stays and position == self.start):
            return position
        landing = self.landing
        if position <= self.end:
            return landing
        if position.line > self.end.line:
            return Position(position.line - self.end.line + landing.line, position.column)
        return Position(landing.line, position.column - self.end.column + landing.column)


class Text:
    """Lines without the line feeds between them; there is always one, which may be empty."""

    def __init__(self, content: str = "") -> None:
        self.lines = content.split("\n")

    def __str__(self) -> str:
        return "\n".join(self.lines)

    @property
    def end(self) -> Position:
        return Position(len(self.lines) - 1, len(self.lines[-1]))

    def between(self, start: Position, end: Position) -> str:
        if start.line == end.line:
            return self.lines[start.line][start.column : end.column]
        first = self.lines[start.line][start.column :]
        last = self.lines[end.line][: end.column]
        return "\n".join([first, *self.lines[start.line + 1 : end.line], last])

    def replace(self, replacement: Replacement) -> Replacement:
        """Make it, and return the one that undoes it. Costs the lines that it touches."""
        start, end, text = replacement
        inverse = Replacement(start, replacement.landing, self.between(start, end))
        head, tail = self.lines[start.line][: start.column], self.lines[end.line][end.column :]
        self.lines[start.line : end.line + 1] = f"{head}{text}{tail}".split("\n")
        return inverse

    def nearest(self, line: int, bytes_before: int) -> Position:
        """The position that a front-end means, which may lie beyond a line or the text."""
        line = min(max(line, 0), len(self.lines) - 1)
        content = self.lines[line]
        if not content.isascii():
            head = content.encode()[: max(bytes_before, 0)]
            return Position(line, len(head.decode(errors="ignore")))
        return Position(line, min(max(bytes_before, 0), len(content)))

    def bytes_before(self, position: Position) -> int:
        content = self.lines[position.line]
        if content.isascii():
            return position.column
        return len(content[: position.column].encode())
