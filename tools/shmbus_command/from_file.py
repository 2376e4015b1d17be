"""A file, published: whole, or in pieces."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

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


@contextmanager
def opened(path: str) -> Iterator[BinaryIO]:
    """The file. Raises ``UsageError``."""
    try:
        file = open(path, "rb")  # noqa: SIM115
    except OSError as problem:
        raise click.UsageError(f"{path}: {problem.strerror}") from None
    with file:
        yield file


def publish(
    endpoint: Endpoint, type: str, file: BinaryIO, chunk: int | None, pace: Pace, **ways: Any
) -> Iterator[int]:
    """Publish it, whole or in pieces of so many bytes; yields the bytes of each event once it is
    published. ``ways``: further arguments of `Endpoint.publish`."""
    if chunk is None:
        pace.wait()
        yield _publish_whole(endpoint, type, file, ways)
        return
    while piece := file.read(chunk):
        pace.wait()
        endpoint.publish(type, piece, **ways)
        yield len(piece)


def _publish_whole(endpoint: Endpoint, type: str, file: BinaryIO, ways: dict[str, Any]) -> int:
    """A large file is read straight into the endpoint's pool."""
    status = os.fstat(file.fileno())
    if not stat.S_ISREG(status.st_mode) or status.st_size <= _SMALL:
        content = file.read()
        endpoint.publish(type, content, **ways)
        return len(content)
    with endpoint.loan(type, status.st_size, **ways) as loan:
        read = 0
        while more := file.readinto(loan.data[read:]):  # type: ignore[attr-defined]
            read += more
        if read < status.st_size:
            raise Failure(f"{file.name} was made shorter while it was read; publish it again")
    return status.st_size


@contextmanager
def progress(file: BinaryIO, times: int) -> Iterator[Progress]:
    """Shows on a terminal how much of a large file has been sent, with the task 0."""
    total = os.fstat(file.fileno()).st_size * times
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
        shown.add_task(os.path.basename(file.name), total=total)
        yield shown
