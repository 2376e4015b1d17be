"""The values that a bus keeps, as its cells show them.

A value has a number that is stored last, and is 0 before any cell of it is used again: what was
copied is a value where the number is the same before and after. No number is used twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np

from ringbuf import RingbufError
from ringbuf._kernel import Mapping
from shmbus.limits import MAX_NAME
from shmbus.shared import frames, layout, names, patterns

from .facts import Clock, Retained
from .memory import open_segment

_BEGIN = layout.PREFIX.itemsize
_CELL = layout.CELL_BYTES
_NEXT = layout.offset(layout.CELL, "next")
_FLAGS = layout.VALUE.itemsize + layout.offset(layout.RECORD, "flags")
_BLOCK = layout.BLOCK.itemsize
_TRIES = 3
"""For a value whose cells were used for another while it was copied."""


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
        found = (self._value(cell, pattern, clock) for cell in self._first_cells())
        return sorted((one for one in found if one is not None), key=lambda one: one.number)

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

    def _first_cells(self) -> Iterator[int]:
        """The cells in which values begin."""
        base = 0
        for chunk in self._chunks:
            count = (chunk.size - _BEGIN) // _CELL
            words = np.frombuffer(memoryview(chunk), np.uint64, count * _CELL // 8, _BEGIN)
            yield from (base + int(i) for i in np.flatnonzero(words[:: _CELL // 8].copy()))
            base += count

    def _place(self, cell: int) -> tuple[Mapping, int] | None:
        """Where a cell is; None: there is none of that number."""
        chunk, index = divmod(cell, (self._chunks[0].size - _BEGIN) // _CELL)
        if cell < 0 or chunk >= len(self._chunks):
            return None
        return self._chunks[chunk], _BEGIN + index * _CELL

    def _value(self, cell: int, pattern: str, clock: Clock) -> Retained | None:
        place = self._place(cell)
        assert place is not None
        memory, at = place
        for _ in range(_TRIES):
            number = memory.load(at)
            if not number:
                return None
            record = self._record(cell)
            if memory.load(at) == number:
                return None if record is None else _decoded(record, number, pattern, clock)
        return None

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


def _decoded(record: bytes, number: int, pattern: str, clock: Clock) -> Retained | None:
    header = np.frombuffer(record, layout.RECORD, 1)[0]
    begin = layout.RECORD.itemsize
    middle = begin + int(header["type_length"])
    end = middle + min(int(header["extension_length"]), MAX_NAME)
    type = record[begin:middle].decode("ascii", "replace")
    if not patterns.covers(pattern, type):
        return None
    raw = record[end:]
    return Retained(
        type=type,
        payload=_value_of(raw, int(header["flags"])),
        source=record[middle:end].decode("ascii", "replace"),
        number=number,
        sent=clock.at(int(header["sent_ns"])),
        size=len(raw),
        raw=raw,
    )


def _value_of(raw: bytes, flags: int) -> Any:
    """What it is as plain values; the bytes where it is none."""
    try:
        if flags & layout.RecordFlag.FRAMED:
            return frames.decode(raw)
        return raw if flags & layout.RecordFlag.RAW else msgspec.msgpack.decode(raw)
    except (ValueError, RecursionError):  # it may be anything
        return raw
