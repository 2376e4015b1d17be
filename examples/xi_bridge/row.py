"""A line as a terminal shows it, and where in it the bytes of its text are."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass

from rich.cells import cell_len

TAB = 4


@dataclass(frozen=True)
class Row:
    """What is shown, and three lists that go together: for each character of the text, and its
    end, the bytes before it, the characters shown before it, and their cells."""

    shown: str
    bytes: list[int]
    indices: list[int]
    cells: list[int]

    @classmethod
    def of(cls, text: str) -> Row:
        """Tabs reach to the next stop, and what is not printable is a dot."""
        shown: list[str] = []
        bytes, indices, cells = [0], [0], [0]
        for character in text.rstrip("\n"):
            if character == "\t":
                part = " " * (TAB - cells[-1] % TAB)
            else:
                part = character if character.isprintable() else "·"
            shown.append(part)
            bytes.append(bytes[-1] + len(character.encode()))
            indices.append(indices[-1] + len(part))
            cells.append(cells[-1] + cell_len(part))
        return cls("".join(shown), bytes, indices, cells)

    def index(self, byte: int) -> int:
        """Which of the characters shown is at that byte."""
        return self.indices[max(bisect_right(self.bytes, byte) - 1, 0)]

    def cell(self, byte: int) -> int:
        return self.cells[max(bisect_right(self.bytes, byte) - 1, 0)]

    def byte(self, cell: int) -> int:
        """The byte that is shown at that cell, or the end."""
        return self.bytes[max(bisect_right(self.cells, cell) - 1, 0)]
