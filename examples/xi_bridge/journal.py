"""What was typed into a view, in a file: like an editor's swap file.

A journal is a base and the edits since. The base is the whole text at a moment when the core had
confirmed it; the edits follow as they were sent to the core, so that sending them to a new core
makes the same text again. One line is one `write`, so a killed host leaves whole lines, or a last
one that is torn and was never confirmed to anybody. Nothing is synced to the disk: this is against
the death of processes, not of the machine.
"""

from __future__ import annotations

import errno
import os
from itertools import takewhile
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from .positions import Range
from .stamp import Stamp


class InnerEdit(msgspec.Struct):
    """One call of the core's `edit`."""

    method: str
    params: Any = None


class Entry(msgspec.Struct, rename={"author": "from"}):
    """Edits that one front-end made at once, and that the core gets without others between."""

    author: str
    n: int
    """Its author's number for it, from 1 without gaps: what comes again is known by it."""
    edits: list[InnerEdit]


class Base(msgspec.Struct):
    """A view at a moment when the core had done all that it was sent."""

    file: str | None
    text: str
    pristine: bool = True
    author: str = ""
    """Whose selection the core has."""
    ranges: dict[str, list[Range]] = {}
    """What each front-end has selected."""
    done: dict[str, int] = {}
    """The last number of each front-end."""
    results: dict[str, Any] = {}
    """What that edit brought, where it was a `cut`: there may be no other copy."""
    stamp: Stamp | None = None
    """Of the file, as it was read or saved last."""
    opened: bool = True
    """False: the core has not said yet what the text is, and nobody has the view."""


_encode = msgspec.json.encode


class Journal:
    """The journal of one view. Made by :meth:`create` or :meth:`read`."""

    def __init__(self, path: Path, base: Base, entries: list[Entry], file: BinaryIO) -> None:
        self.path, self.base, self.entries = path, base, entries
        self.first = 0
        """Edits of this process's time that are in the base."""
        self._file = file

    @classmethod
    def create(cls, path: Path, base: Base) -> Journal:
        path.parent.mkdir(mode=0o700, parents=True)
        return cls(path, base, [], _written(path, base, []))

    @classmethod
    def read(cls, path: Path) -> Journal:
        """Raises `OSError`, and `msgspec.MsgspecError` where there is no base."""
        first, *rest = path.read_bytes().split(b"\n")
        base = msgspec.json.decode(first, type=Base)
        entries = [msgspec.json.decode(line, type=Entry) for line in rest[:-1]]
        return cls(path, base, entries, _written(path, base, entries))  # without a torn last line

    def append(self, entry: Entry) -> None:
        """When this returns, the edit outlives this process. Raises `OSError`, and then there is
        nothing of it."""
        line = _encode(entry) + b"\n"
        end = self._file.seek(0, os.SEEK_END)
        try:
            _write(self._file, line)
        except OSError:
            self._file.truncate(end)
            raise
        self.entries.append(entry)

    @property
    def end(self) -> int:
        """How many edits there have been in this process's time."""
        return self.first + len(self.entries)

    def rebase(self, base: Base, end: int) -> None:
        """Go on from another base, in which all edits up to `end` are done. Raises `OSError`, and
        then it is as it was."""
        entries = self.entries[max(end - self.first, 0) :]
        gone = len(self.entries) - len(entries)
        self._replace(base, entries)
        self.first += gone

    def _replace(self, base: Base, entries: list[Entry]) -> None:
        file = _written(self.path, base, entries)
        self._file.close()
        self._file, self.base, self.entries = file, base, entries

    def drop(self, entry: Entry) -> None:
        """Leave out an edit that no core survives, but for what places the caret before it. It
        keeps its number. Raises `OSError`."""
        placing = [*takewhile(lambda one: one.method == "gesture", entry.edits)]
        left = placing if len(placing) < len(entry.edits) else []
        entries = list(self.entries)
        entries[entries.index(entry)] = Entry(entry.author, entry.n, left)
        self._replace(self.base, entries)

    @property
    def done(self) -> dict[str, int]:
        """The last number of each front-end, by base and edits."""
        return self.base.done | {entry.author: entry.n for entry in self.entries}

    def close(self) -> None:
        self._file.close()

    def remove(self) -> None:
        self.close()
        self.path.unlink(missing_ok=True)


def _written(path: Path, base: Base, entries: list[Entry]) -> BinaryIO:
    """Replace the file in one step, and open it for more."""
    new = path.with_suffix(".new")
    file = open(new, "wb", buffering=0)  # noqa: SIM115 (its owner closes it)
    try:
        _write(file, b"".join(_encode(line) + b"\n" for line in (base, *entries)))
        os.replace(new, path)
    except BaseException:
        file.close()
        raise
    return file


def _write(file: BinaryIO, data: bytes) -> None:
    """All of it; a disk that is nearly full takes a part."""
    if file.write(data) < len(data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), file.name)
