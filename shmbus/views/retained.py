"""The values that a bus keeps, as its cells show them.

A value has a number that is stored last, and is 0 before any cell of it is used again: what was
copied is a value where the number is the same before and after. No number is used twice. So it is
with a payload that lies in a pool: its sender writes there again only after that number is 0. It
is read from the pool's file, where what is not there any more is an end, and no fault.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from ringbuf import RingbufError
from ringbuf._kernel import Mapping
from shmbus.limits import MAX_NAME
from shmbus.shared import layout, names, patterns

from .facts import Clock, Retained
from .memory import open_file, open_segment
from .plain import Format, decode_plain

_BEGIN = layout.PREFIX.itemsize
_CELL = layout.CELL_BYTES
_NEXT = layout.offset(layout.CELL, "next")
_FLAGS = layout.VALUE.itemsize + layout.offset(layout.RECORD, "flags")
_BLOCK = layout.BLOCK.itemsize
_LOOKS = 100
"""As long as values are replaced while they are copied."""


class _Gone(Exception):
    """A value was replaced, or dropped, while it was copied."""


class _Record(NamedTuple):
    """What stands in the cells, taken apart."""

    header: Any
    type: str
    source: str
    content: bytes

    @classmethod
    def of(cls, record: bytes) -> _Record:
        header = np.frombuffer(record, layout.RECORD, 1)[0]
        begin = layout.RECORD.itemsize
        middle = begin + int(header["type_length"])
        end = middle + min(int(header["extension_length"]), MAX_NAME)
        source = record[middle:end].decode("ascii", "replace")
        return cls(header, record[begin:middle].decode("ascii", "replace"), source, record[end:])

    @property
    def flags(self) -> int:
        return int(self.header["flags"])

    @property
    def format(self) -> Format:
        if self.flags & layout.RecordFlag.RAW:
            return "raw"
        return "framed" if self.flags & layout.RecordFlag.FRAMED else "msgpack"


class Values:
    """Those of one bus. Not for several threads at once."""

    def __init__(self, bus: names.BusNames) -> None:
        self._bus = bus
        self._chunks: list[Mapping] = []

    def look(self, chunks: int, pattern: str, clock: Clock) -> list[Retained]:
        """Those of the types that match, in the order in which they were published. ``chunks``: how
        many segments BUS says there are."""
        if not self._open(chunks):
            return []
        here: dict[int, int] = {}
        copied: dict[int, Retained | None] = {}  # by number; None: of a type that does not match
        for _ in range(_LOOKS):
            here = self._first_cells()
            gone = False
            for cell, number in sorted(here.items(), key=lambda one: -one[1]):
                if number not in copied:
                    try:
                        copied[number] = self._value(cell, number, pattern, clock)
                    except _Gone:  # what came in its place is elsewhere
                        gone = True
            if not gone:
                break
        found = (copied.get(number) for number in sorted(here.values()))
        return [one for one in found if one is not None]

    def blocks(self, chunks: int) -> Iterator[np.void]:
        """What says where their payloads lie, of those that are too large for cells."""
        base = 0
        for chunk in self._chunks if self._open(chunks) else ():
            count = (chunk.size - _BEGIN) // _CELL
            cells = np.frombuffer(memoryview(chunk), np.uint8, count * _CELL, _BEGIN)
            numbers, flags = cells.view(np.uint64)[:: _CELL // 8], cells.view(np.uint16)
            pooled = flags[_FLAGS // 2 :: _CELL // 2] & layout.RecordFlag.POOLED != 0
            for cell in np.flatnonzero(pooled & (numbers != 0)).tolist():
                number, record = int(numbers[cell]), self._record(base + cell)
                if record is not None and len(record) >= _BLOCK and int(numbers[cell]) == number:
                    yield np.frombuffer(record[-_BLOCK:], layout.BLOCK, 1)[0]
            base += count

    def _open(self, chunks: int) -> bool:
        """Open those that are not open yet; False: the bus has ended meanwhile."""
        try:
            while len(self._chunks) < min(chunks, layout.CHUNKS):
                name = self._bus.retained(len(self._chunks))
                self._chunks.append(open_segment(name, layout.SegmentKind.RETAINED, _BEGIN + _CELL))
        except RingbufError:
            return False
        return True

    def _first_cells(self) -> dict[int, int]:
        """The cells in which values begin, and their numbers. Looked at twice, since a value may
        come where was looked already, and replace one that was not reached yet."""
        found: dict[int, int] = {}
        for _ in range(2):
            base = 0
            for chunk in self._chunks:
                count = (chunk.size - _BEGIN) // _CELL
                words = np.frombuffer(memoryview(chunk), np.uint64, count * _CELL // 8, _BEGIN)
                numbers = words[:: _CELL // 8].copy()
                found |= {base + int(i): int(numbers[i]) for i in np.flatnonzero(numbers)}
                base += count
        return found

    def _place(self, cell: int) -> tuple[Mapping, int] | None:
        """Where a cell is; None: there is none of that number."""
        chunk, index = divmod(cell, (self._chunks[0].size - _BEGIN) // _CELL)
        if cell < 0 or chunk >= len(self._chunks):
            return None
        return self._chunks[chunk], _BEGIN + index * _CELL

    def _value(self, cell: int, number: int, pattern: str, clock: Clock) -> Retained | None:
        """None: its type does not match. Raises `_Gone`."""
        place = self._place(cell)
        assert place is not None
        memory, at = place
        copied = self._record(cell)
        if copied is None or memory.load(at) != number:
            raise _Gone
        record = _Record.of(copied)
        if not patterns.covers(pattern, record.type):
            return None
        payload: bytes | None = record.content
        if record.flags & layout.RecordFlag.POOLED:
            payload = self._pooled(record.content)
        if payload is None or memory.load(at) != number:
            raise _Gone
        return _retained(record, payload, number, clock)

    def _pooled(self, content: bytes) -> bytes | None:
        """The payload proper; None where it is not there any more."""
        if len(content) != _BLOCK:
            return None
        block = np.frombuffer(content, layout.BLOCK, 1)[0]
        name = self._bus.pool(int(block["pool_slot"]), int(block["pool_generation"]))
        parts: list[bytes] = []
        at, left = int(block["offset"]), int(block["length"])
        try:
            with open_file(name) as pool:
                while left and (part := os.pread(pool, left, at)):
                    parts.append(part)
                    at, left = at + len(part), left - len(part)
        except (OSError, RingbufError, OverflowError, MemoryError):
            return None
        if left:
            return None
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _record(self, cell: int) -> bytes | None:
        """The bytes in the chain of cells that begins here; None where it is none, as while it is
        written anew."""
        parts: list[bytes] = []
        left, skip = -1, layout.VALUE.itemsize
        while left:
            place = self._place(cell)
            if place is None:
                return None
            memory, at = place
            part = memoryview(memory)[at + skip : at + _CELL].tobytes()
            if left < 0:
                left = int.from_bytes(part[:4], "little")
                if left < layout.RECORD.itemsize:
                    return None
            parts.append(part[:left])
            left -= len(parts[-1])
            cell, skip = memory.load(at + _NEXT) - 1, layout.CELL.itemsize
        return b"".join(parts)


def _retained(record: _Record, raw: bytes, number: int, clock: Clock) -> Retained:
    return Retained(
        type=record.type,
        payload=_value_of(raw, record.format),
        source=record.source,
        number=number,
        sent=clock.at(int(record.header["sent_ns"])),
        size=len(raw),
        raw=raw,
    )


def _value_of(raw: bytes, format: Format) -> Any:
    """What these bytes stand for; the bytes where they are no such thing."""
    try:
        return decode_plain(raw, format)
    except ValueError:
        return raw
