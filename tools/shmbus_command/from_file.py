"""A file, published: whole, or in pieces."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, NamedTuple

import click
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn
from shmbus_console.run import Failure

from shmbus import Endpoint

from .pace import Pace

_SMALL = 64 << 10
"""Bytes up to which a file is read as any payload is."""
_LONG = 64 << 20
"""Bytes from which on progress is shown."""


class Source(NamedTuple):
    """A file that is open, and what people call it."""

    file: BinaryIO
    name: str

    def read(self, most: int = -1) -> bytes:
        with self._naming():
            return self.file.read(most)

    def read_into(self, memory: memoryview) -> int:
        with self._naming():
            return self.file.readinto(memory)  # type: ignore[attr-defined, no-any-return]

    def left(self) -> int | None:
        """Bytes from where it is read on; None where nobody knows, as of a pipe."""
        status = os.fstat(self.file.fileno())
        return max(status.st_size - self.file.tell(), 0) if stat.S_ISREG(status.st_mode) else None

    @contextmanager
    def _naming(self) -> Iterator[None]:
        """An error of the system's says which file it was."""
        try:
            yield
        except OSError as problem:
            problem.filename = self.name
            raise


@contextmanager
def opened(path: str, times: int) -> Iterator[Source]:
    """The file, to be read so many times; ``-`` is standard input. Raises ``UsageError``."""
    if path == "-":
        yield _repeatable(Source(sys.stdin.buffer, "standard input"), times)
        return
    try:
        file = open(path, "rb")  # noqa: SIM115
    except OSError as problem:
        raise click.UsageError(f"{path}: {problem.strerror}") from None
    with file:
        yield _repeatable(Source(file, path), times)


def _repeatable(source: Source, times: int) -> Source:
    if times > 1 and not source.file.seekable():
        raise click.UsageError(
            f"{source.name} cannot be read more than once, as --count says: it is a pipe"
        )
    return source


def publish(
    endpoint: Endpoint, type: str, source: Source, chunk: int | None, pace: Pace, **ways: Any
) -> Iterator[int]:
    """Publish it, whole or in pieces of so many bytes; yields the bytes of each event once it is
    published. ``ways``: further arguments of `Endpoint.publish`."""
    if chunk is None:
        pace.wait()
        yield _publish_whole(endpoint, type, source, ways)
        return
    while piece := source.read(chunk):
        pace.wait()
        endpoint.publish(type, piece, **ways)
        yield len(piece)


def _publish_whole(endpoint: Endpoint, type: str, source: Source, ways: dict[str, Any]) -> int:
    """A large file is read straight into the endpoint's pool."""
    left = source.left()
    if left is None or left <= _SMALL:
        content = source.read()
        endpoint.publish(type, content, **ways)
        return len(content)
    with endpoint.loan(type, left, **ways) as loan:
        read = 0
        while more := source.read_into(loan.data[read:]):
            read += more
        if read < left:
            raise Failure(f"{source.name} was made shorter while it was read; publish it again")
    return left


@contextmanager
def progress(source: Source, times: int) -> Iterator[Progress]:
    """Shows on a terminal how much of a large file has been sent, with the task 0."""
    total = (source.left() or 0) * times
    shown = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        console=Console(stderr=True),
        transient=True,
        disable=total < _LONG or not sys.stderr.isatty(),
    )
    with shown:
        shown.add_task(os.path.basename(source.name), total=total)
        yield shown
