"""Whether a file is as it was when it was last read or written."""

from __future__ import annotations

from pathlib import Path

Stamp = tuple[int, int]
"""When it was written, in nanoseconds, and its size."""


def stamp(path: str) -> Stamp | None:
    """None where there is no file."""
    try:
        found = Path(path).stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size


def changed(path: str, before: Stamp | None) -> bool:
    """Whether somebody has written it since. One that is gone can be written again."""
    now = stamp(path)
    return now is not None and now != before
