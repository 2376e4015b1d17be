"""A file as payloads: whole, or in pieces."""

from __future__ import annotations

import mmap
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

import click
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

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


def pieces(file: BinaryIO, chunk: int | None) -> Iterator[bytes | memoryview]:
    """Its content, as bytes: in pieces of so many, or all of it, which is mapped where that can be.
    Each is valid until the next is asked for."""
    if chunk is not None:
        while piece := file.read(chunk):
            yield piece
        return
    status = os.fstat(file.fileno())
    if not stat.S_ISREG(status.st_mode) or not status.st_size:
        yield file.read()
        return
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        with memoryview(content) as whole:
            yield whole


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
