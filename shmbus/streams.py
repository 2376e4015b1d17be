"""The standard streams of a program that may be started with some of them closed, or in a locale
that is not UTF-8. Public."""

from __future__ import annotations

import codecs
import contextlib
import io
import os
import sys
from typing import Any, TextIO, cast

__all__ = ["OUTPUT", "leave", "prepare", "say"]

OUTPUT = "standard output"
"""The file that an ``OSError`` names where standard output does not take what is printed."""

_ERRORS = "shmbus.plain"
_PLAIN = {"µ": "u", "μ": "u", "…": "..."}


class _Output(io.BufferedWriter):
    """Standard output, which says so in its errors.

    A signal's handler that raises in here does so beside the buffer's own steps, never between the
    writing of bytes and their removal from the buffer: nothing is printed twice."""

    def write(self, content: Any, /) -> int:
        try:
            return super().write(content)
        except OSError as problem:
            problem.filename = OUTPUT
            raise

    def flush(self) -> None:
        try:
            super().flush()
        except OSError as problem:
            problem.filename = OUTPUT
            raise


def prepare() -> None:
    """Open what is closed, and let everything be printed in any locale. Call it first.

    A closed descriptor would be given to the next file, which would get what is printed. Now
    reading from and writing to a stream that was closed raises ``OSError``; only standard error
    discards what it gets. What the locale cannot express is printed as ``u`` for ``µ``, or escaped.
    """
    codecs.register_error(_ERRORS, _plain)
    if sys.stdin is None:
        sys.stdin = open(_opened(os.O_WRONLY), encoding="utf-8")  # noqa: SIM115
    if sys.stdout is None:
        sys.stdout = _output(_opened(os.O_RDONLY), "utf-8")
    elif sys.__stdout__ is not None and sys.stdout is sys.__stdout__:  # replaced by nobody
        sys.stdout = _output(sys.__stdout__.fileno(), sys.__stdout__.encoding)
    if sys.stderr is None:
        sys.stderr = open(_opened(os.O_WRONLY), "w", encoding="utf-8")  # noqa: SIM115
    if isinstance(sys.stderr, io.TextIOWrapper):
        sys.stderr.reconfigure(errors=_ERRORS)


def leave() -> None:
    """Write out what is buffered. Where a stream does not take it, discard it, so that Python's own
    end says nothing."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            with contextlib.suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
                stream.flush()


def say(text: str, to: TextIO) -> None:
    """Print a line at once. Where nobody can be told, the program goes on."""
    try:
        print(text, file=to, flush=True)
    except OSError:
        leave()


def _opened(flags: int) -> int:
    """In the place of a closed descriptor: the lowest, as a rule that one."""
    file = os.open(os.devnull, flags)
    os.set_inheritable(file, file <= 2)
    return file


def _output(file: int, encoding: str) -> io.TextIOWrapper:
    buffer = _Output(io.FileIO(file, "w", closefd=False))
    terminal = os.isatty(file)
    return io.TextIOWrapper(buffer, encoding, errors=_ERRORS, line_buffering=terminal)


def _plain(problem: UnicodeError) -> tuple[str | bytes, int]:
    """What stands for characters that an encoding lacks, and for bytes that were no characters."""
    found = cast("Any", problem)
    part = found.object[found.start : found.end]
    text = "".join(_PLAIN.get(c) or c.encode("unicode_escape").decode() for c in part)
    return text, found.end
