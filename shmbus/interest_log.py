"""What an endpoint wants, as it writes it down for the dispatcher: a log of additions and removals.

The dispatcher's forwarding plane reads it natively; this is how endpoints write it, and how
observers read it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from ringbuf import RingbufError, Segment, SegmentMismatch
from ringbuf._kernel import Mapping
from ringbuf.segment import unlink

from . import layout, names, segments
from ._kernel import append_interest
from .interests import LocalInterest
from .patterns import Interest, Role, check_pattern

_LOG_BYTES = 4096  # of a new log
_Entry = tuple[int, int, int, int, int, bytes, bytes]

_ROLES: dict[int, Role] = {
    layout.InterestRole.SUBSCRIBE: "subscribe",
    layout.InterestRole.HANDLE: "handle",
    layout.InterestRole.OBSERVE: "tap",
}


class InterestWriter:
    """The log of an endpoint of this process, which it appends to and now and then replaces."""

    def __init__(self, bus: names.BusNames, owner: names.Owner) -> None:
        self._bus, self._owner = bus, owner
        self._serial = 1
        self._segment = segments.create(
            bus.interests(owner, 1), _LOG_BYTES, layout.SegmentKind.INTERESTS
        )
        self._old: list[str] = []

    def write(
        self, operation: layout.InterestOp, interest: LocalInterest, active: Iterable[LocalInterest]
    ) -> int:
        """Append, or begin a new log with what is `active` then; returns the serial of the log."""
        if not append_interest(self._segment.memory, *_entry(operation, interest)):
            self._replace([_entry(layout.InterestOp.ADD, each) for each in active])
        return self._serial

    def _replace(self, entries: list[_Entry]) -> None:
        """A new log with these, twice as large as they need it."""
        needed = sum(layout.INTEREST.itemsize + len(e[5]) + len(e[6]) + 8 for e in entries)
        size = _LOG_BYTES
        while size < layout.INTERESTS.itemsize + 2 * needed + 1024:
            size *= 2

        def prepare(mapping: Mapping) -> None:
            for entry in entries:
                append_interest(mapping, *entry)

        name = self._bus.interests(self._owner, self._serial + 1)
        new = segments.create(name, size, layout.SegmentKind.INTERESTS, prepare)
        self._old.append(self._segment.name)
        self._segment.close()
        self._segment = new
        self._serial += 1

    def drop_old(self) -> None:
        """Remove the logs that were replaced."""
        while self._old:
            unlink(self._old.pop())

    def unlink(self) -> None:
        """Remove all of them."""
        self._segment.unlink()
        self.drop_old()


def _entry(operation: layout.InterestOp, i: LocalInterest) -> _Entry:
    """As it stands in the log."""
    if operation == layout.InterestOp.REMOVE:
        return operation, i.role, i.bit, 0, i.id, b"", b""
    return operation, i.role, i.bit, i.flags, i.id, i.pattern.encode(), i.group.encode()


class InterestLog:
    """What one endpoint wants, from the log that it appends to and now and then replaces."""

    def __init__(self, bus: names.BusNames, owner: names.Owner, endpoint: str) -> None:
        self._bus, self._owner, self._endpoint = bus, owner, endpoint
        self._version = self._serial = -1
        self._memory: Mapping | None = None
        self._read = 0
        self._active: dict[int, Interest] = {}
        self._interests: tuple[Interest, ...] = ()
        self._note = ""

    def read(self, version: int, serial: int) -> tuple[tuple[Interest, ...], str]:
        """The interests at least up to this version, and a note where the log is broken (then
        there are none)."""
        if version == 0:
            return (), ""
        if (version, serial) == (self._version, self._serial):
            return self._interests, self._note
        try:
            if serial != self._serial or self._memory is None:
                self._open(serial)
            self._extend()
            self._interests, self._note = tuple(self._active.values()), ""
            self._version = version
        except RingbufError as problem:  # replaced meanwhile, perhaps: read again next time
            self._interests, self._note = (), str(problem)
        except ValueError as problem:
            self._interests, self._note = (), f"its interest log is broken: {problem}"
            self._version = version
        return self._interests, self._note

    def _open(self, serial: int) -> None:
        self._serial, self._memory, self._active = serial, None, {}
        self._read = layout.INTERESTS.itemsize
        name = self._bus.interests(self._owner, serial)
        memory = Segment.attach(
            name, kind=layout.SegmentKind.INTERESTS, layout=layout.LAYOUT
        ).memory
        if memory.size < self._read:
            raise SegmentMismatch(name, "size", self._read, memory.size)
        self._memory = memory

    def _extend(self) -> None:
        assert self._memory is not None
        complete = int(layout.view(self._memory, layout.INTERESTS)[0]["bytes"])
        end = layout.INTERESTS.itemsize + complete
        if end > self._memory.size or end < self._read:
            raise ValueError(f"{complete} bytes of {self._memory.size} are said to be complete")
        log = bytes(memoryview(self._memory)[self._read : end])
        for identifier, interest in parse(log, self._endpoint):
            if interest is None:
                self._active.pop(identifier, None)
            else:
                self._active[identifier] = interest
        self._read = end


def parse(log: bytes, endpoint: str) -> Iterator[tuple[int, Interest | None]]:
    """The entries of a log: an id and the interest added under it, or None for its removal.
    Raises ``ValueError`` at an entry that no endpoint writes."""
    at = 0
    while at < len(log):
        if len(log) - at < layout.INTEREST.itemsize:
            raise ValueError(f"entry cut off at byte {at}")
        entry = np.frombuffer(log, layout.INTEREST, 1, at)[0].item()
        length, op, role, _, flags, identifier, pattern_length, group_length, _ = entry
        begin = at + layout.INTEREST.itemsize
        middle, end = begin + pattern_length, begin + pattern_length + group_length
        if end - at > length or at + length > len(log):
            raise ValueError(f"entry of {length} bytes at byte {at}")
        if op == layout.InterestOp.REMOVE:
            yield identifier, None
        elif op == layout.InterestOp.ADD and role in _ROLES:
            yield (
                identifier,
                Interest(
                    endpoint=endpoint,
                    pattern=check_pattern(log[begin:middle].decode("ascii")),
                    role=_ROLES[role],
                    group=names.check_group(log[middle:end].decode("ascii"))
                    if group_length
                    else None,
                    overflow="drop_newest" if flags & layout.InterestFlag.DROP_NEWEST else "block",
                ),
            )
        else:
            raise ValueError(f"unknown entry at byte {at}")
        at += -(-length // 8) * 8
