"""Where the lines go that processes print."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

import click
from shmbus_console.output import note, write_past
from shmbus_console.text import one_line

from shmbus.streams import OUTPUT
from shmbus.supervisor import Line

from .file import Output

_COLOURS = ("cyan", "yellow", "green", "magenta", "blue", "bright_red")


class ToTerminal:
    """Lines with the name of their process before them, each name in a colour of its own. Raises
    ``OSError`` where nobody reads them any more."""

    def __init__(self, names: list[str], stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stdout
        self._width = max(map(len, names), default=0)
        self._colours: dict[str, str] = {}
        self._coloured = self._stream.isatty()
        for name in names:
            self._colour(name)

    def __call__(self, line: Line) -> None:
        self._width = max(self._width, len(line.name))
        before = f"{line.name:<{self._width}} |"
        if self._coloured:
            before = click.style(before, fg=self._colour(line.name))
        try:
            write_past(self._stream, f"{before} {one_line(line.text.expandtabs())}\n")
        except OSError as problem:
            problem.filename = OUTPUT
            raise

    def _colour(self, name: str) -> str:
        return self._colours.setdefault(name, _COLOURS[len(self._colours) % len(_COLOURS)])


class WhileRead:
    """Gives lines on until nobody reads them any more; then they are dropped, and the processes go
    on."""

    def __init__(self, to: Callable[[Line], object]) -> None:
        self._to, self._read = to, True

    def __call__(self, line: Line) -> None:
        if self._read:
            try:
                self._to(line)
            except (OSError, ValueError):  # its reader has gone, or it is closed
                self._read = False


class ToFiles:
    """A file for each process, as it printed; see `Output`. What a full disk does not take is
    dropped, and told when that begins."""

    def __init__(self, output: Output) -> None:
        self._directory = Path(output.directory)
        self._size, self._count = output.size, output.count
        self._directory.mkdir(parents=True, exist_ok=True)
        self._refused: set[str] = set()

    def __call__(self, line: Line) -> None:
        name = line.name
        try:
            self._write(self._directory / f"{name}.log", f"{line.text}\n".encode(errors="replace"))
            self._refused.discard(name)
        except OSError as problem:
            if name not in self._refused:
                self._refused.add(name)
                note("up", f"what {name} prints is not kept: {problem}")

    def _write(self, path: Path, content: bytes) -> None:
        # Opened for each: then whoever removes or renames it gets no writer that nobody sees.
        with open(path, "ab", buffering=0) as file:
            if not file.tell() or file.tell() + len(content) <= self._size:
                file.write(content)
                return
        for number in range(self._count, 0, -1):
            older = path if number == 1 else path.with_name(f"{path.name}.{number - 1}")
            if older.exists():
                os.replace(older, path.with_name(f"{path.name}.{number}"))
        with open(path, "ab" if self._count else "wb", buffering=0) as file:
            file.write(content)
