"""The values that a bus keeps, as its cells show them.

A value has a number that is stored last, and is 0 before any cell of it is used again: what was
copied is a value where the number is the same before and after. No number is used twice. So it is
with a payload that lies in a pool: its sender writes there again only after that number is 0. It
is read from the pool's file, where what is not there any more is an end, and no fault.

Where values are replaced while they are copied, the cells are looked at again, for so long; what
has gone even then is shown without its payload.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from msgspec.structs import replace

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
_ORIGIN = layout.ORIGIN.itemsize
_PATIENCE = 0.5
"""Seconds in which what is replaced while it is copied is looked for again."""
_PIECE = 8 << 20
"""Bytes of a payload that are read before its number is looked at."""


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
        self._room = bytearray()  # payloads are read into it: new memory costs more than the copy

    def look(self, chunks: int, pattern: str, clock: Clock) -> list[Retained]:
        """Those of the types that match, in the order in which they were published. ``chunks``: how
        many segments BUS says there are."""
        if not self._open(chunks):
            return []
        found: dict[int, Retained | None] = {}  # by number; None: of a type that does not match
        until = math.inf
        while True:
            here = self._first_cells()
            found = {n: found[n] for n in here.values() if n in found}
            if self._copy(here, found, pattern, clock) or time.monotonic() > until:
                break
            until = min(until, time.monotonic() + _PATIENCE)
        self._room = bytearray()
        values = (found.get(number) for number in sorted(here.values()))
        return [one for one in values if one is not None]

    def _copy(
        self, here: dict[int, int], found: dict[int, Retained | None], pattern: str, clock: Clock
    ) -> bool:
        """Copy what was not found whole yet, large payloads last, and the newest first: those stand
        for longest. False: something was gone, and what came in its place is elsewhere."""
        large: list[tuple[int, int, _Record]] = []
        complete = True
        for cell, number in sorted(here.items(), key=lambda one: -one[1]):
            known = found.get(number)
            if number in found and (known is None or known.whole):
                continue
            copied = self._record(cell)
            if copied is None or not self._stands(cell, number):
                complete = False
                continue
            record = _Record.of(copied)
            if not patterns.covers(pattern, record.type):
                found[number] = None
            elif record.flags & layout.RecordFlag.POOLED:
                large.append((cell, number, record))
            else:
                found[number] = _retained(record, number, clock, record.content)
        for cell, number, record in large:
            block = _block(record)
            payload = self._pooled(block, partial(self._stands, cell, number))
            if payload is not None:
                found[number] = _retained(record, number, clock, payload)
                continue
            found[number] = _torn(record, number, clock, int(block["length"]))
            complete &= self._stands(cell, number)  # its memory was removed, and does not come back
        return complete

    def _stands(self, cell: int, number: int) -> bool:
        """The value has not been replaced, or dropped."""
        place = self._place(cell)
        return place is not None and place[0].load(place[1]) == number

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

    def _pooled(self, block: Any, stands: Callable[[], bool]) -> bytes | None:
        """The payload proper; None where it is not there, or its value does not stand any more."""
        name = self._bus.pool(int(block["pool_slot"]), int(block["pool_generation"]))
        begin, length, read = int(block["offset"]), int(block["length"]), 0
        try:
            with open_file(name) as pool:
                if begin + length > os.fstat(pool).st_size:
                    return None
                if len(self._room) < length:
                    self._room = bytearray(length)
                room = memoryview(self._room)[:length]
                while read < length and stands():
                    part = os.preadv(pool, [room[read : read + _PIECE]], begin + read)
                    if not part:
                        return None
                    read += part
        except (OSError, RingbufError, OverflowError, MemoryError):
            return None
        return bytes(room) if stands() else None

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


def _block(record: _Record) -> Any:
    """Where its payload lies."""
    content = record.content if len(record.content) == _BLOCK else bytes(_BLOCK)
    return np.frombuffer(content, layout.BLOCK, 1)[0]


def _retained(record: _Record, number: int, clock: Clock, raw: bytes) -> Retained:
    torn = _torn(record, number, clock, len(raw))
    if torn.size < len(raw):  # behind the payload stands where it comes from
        origin = np.frombuffer(raw[-_ORIGIN:], layout.ORIGIN, 1)[0]
        site = layout.text(origin["site"])
        torn = replace(
            torn,
            source=f"{layout.text(origin['source'])}@{site}",
            site=site,
            sent=clock.at(int(origin["sent_ns"])),
            sent_error=int(origin["error_ns"]) / 1e9,
            stamp_ns=int(origin["sent_there_ns"]),
        )
        raw = raw[:-_ORIGIN]
    return replace(torn, payload=_value_of(raw, record.format), raw=raw, whole=True)


def _torn(record: _Record, number: int, clock: Clock, size: int) -> Retained:
    """All but the payload, which takes `size` bytes with where it comes from."""
    relayed = bool(record.flags & layout.RecordFlag.RELAYED) and size >= _ORIGIN
    return Retained(
        type=record.type,
        payload=None,
        source=record.source,
        number=number,
        sent=clock.at(int(record.header["sent_ns"])),
        stamp_ns=int(record.header["sent_ns"]),
        size=size - _ORIGIN * relayed,
        format=record.format,
        raw=b"",
        whole=False,
    )


def _value_of(raw: bytes, format: Format) -> Any:
    """What these bytes stand for; the bytes where they are no such thing."""
    try:
        return decode_plain(raw, format)
    except ValueError:
        return raw
