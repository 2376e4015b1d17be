"""What an endpoint subscribes to, handles and taps: its log, read by an observer. Of a link, also
what it notes there of other sites."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from ringbuf import RingbufError, Segment, SegmentMismatch
from ringbuf._kernel import Mapping
from shmbus.shared import keys, layout, methods, names, sites
from shmbus.shared.patterns import OVERFLOWS, Interest, Role, check_pattern

from .sites import Noted

_POLICIES = {flags: policy for policy, flags in OVERFLOWS.items()}
_OVERFLOW_BITS = sum(OVERFLOWS.values())  # each policy but the default has a bit of its own
ROLES: dict[int, Role] = {
    layout.InterestRole.SUBSCRIBE: "subscribe",
    layout.InterestRole.HANDLE: "handle",
    layout.InterestRole.OBSERVE: "tap",
    layout.InterestRole.MATCH: "match",
}


class NoNote(NamedTuple):
    """What stands in the place of a note and is none."""

    why: str


class InterestLog:
    """The interests of one endpoint, from the log that it appends to and now and then replaces."""

    def __init__(self, bus: names.BusNames, owner: names.Owner, endpoint: str) -> None:
        self._bus, self._owner, self._endpoint = bus, owner, endpoint
        self._version = self._serial = -1
        self._memory: Mapping | None = None
        self._read = 0
        self._active: dict[int, Interest] = {}
        self._interests: tuple[Interest, ...] = ()
        self._note = ""
        self._odd: dict[int, NoNote] = {}
        self.noted = Noted(endpoint)
        """What it notes of other sites, by the last call of `read`."""

    def read(self, version: int, serial: int) -> tuple[tuple[Interest, ...], str]:
        """The interests of this version or a later one; none, and a note, if the log is broken."""
        if version == 0:
            return (), ""
        if (version, serial) == (self._version, self._serial):
            return self._interests, self._note
        try:
            if serial != self._serial or self._memory is None:
                self._open(serial)
            self._extend()
            self._interests, self._note = tuple(self._active.values()), self._odd_notes()
            self._version = version
        except RingbufError as problem:  # it may have been replaced meanwhile: read it next time
            self._interests, self._note = (), str(problem)
        except ValueError as problem:
            self._interests, self._note = (), f"its interest log is broken: {problem}"
            self.noted = Noted(self._endpoint)
            self._version = version
        return self._interests, self._note

    def refused(self, identifier: int, why: int) -> str:
        """What there is to say where the dispatcher refused the interest with this id, and it
        stands there still."""
        interest = self._active.get(identifier)
        if interest is None:
            return ""
        if why == layout.Refusal.FORBIDDEN:
            return f"nothing comes to it for {interest.pattern}, which its grant does not cover"
        return (
            f"nothing comes to it for {interest.pattern} in group {interest.group}, whose other "
            "members have another key, or none"
        )

    def _open(self, serial: int) -> None:
        self._serial, self._memory, self._active = serial, None, {}
        self._odd, self.noted = {}, Noted(self._endpoint)
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
            raise ValueError(
                f"its header has {complete} complete bytes, the log {self._memory.size}"
            )
        log = bytes(memoryview(self._memory)[self._read : end])
        for identifier, found in parse(log, self._endpoint):
            if isinstance(found, Interest):
                self._active[identifier] = found
                continue
            self._odd.pop(identifier, None)
            if isinstance(found, NoNote):
                self._odd[identifier], found = found, None
            if found is None:
                self._active.pop(identifier, None)
            self.noted.put(identifier, found)
        self._read = end

    def _odd_notes(self) -> str:
        """What there is to say of notes that are none."""
        if not self._odd:
            return ""
        last = next(reversed(self._odd.values()))
        return f"{len(self._odd)} of its notes of other sites cannot be read: {last.why}"


def parse(log: bytes, endpoint: str) -> Iterator[tuple[int, Interest | sites.Note | NoNote | None]]:
    """The entries of a log: an id and the interest or note added under it, or None for its removal.
    Raises ``ValueError`` at an entry that no endpoint writes."""
    at = 0
    while at < len(log):
        if len(log) - at < layout.INTEREST.itemsize:
            raise ValueError(f"entry cut off at byte {at}")
        entry = np.frombuffer(log, layout.INTEREST, 1, at)[0]
        length, identifier, role = int(entry["length"]), int(entry["id"]), int(entry["role"])
        operation = int(entry["op"])
        overflow = _POLICIES.get(int(entry["flags"]) & _OVERFLOW_BITS)
        begin = at + layout.INTEREST.itemsize
        middle = begin + int(entry["pattern_length"])
        end = middle + int(entry["group_length"])
        last = end + int(entry["description_length"])
        if last - at > length or at + length > len(log):
            raise ValueError(f"entry of {length} bytes at byte {at}")
        if operation == layout.InterestOp.REMOVE:
            yield identifier, None
        elif operation == layout.InterestOp.NOTE:
            yield identifier, _note(log[end:last], endpoint)
        elif operation == layout.InterestOp.ADD and role in ROLES and overflow:
            yield (
                identifier,
                Interest(
                    endpoint=endpoint,
                    pattern=check_pattern(log[begin:middle].decode("ascii")),
                    role=ROLES[role],
                    group=names.check_group(log[middle:end].decode("ascii"))
                    if end > middle
                    else None,
                    overflow=overflow,
                    key=keys.text_of(log[begin:middle].decode("ascii"), int(entry["key"]))
                    if entry["key"]
                    else None,
                    history=int(entry["history"]),
                    depth=int(entry["depth"]),
                    method=methods.decode(log[end:last]) if last > end else None,
                ),
            )
        else:
            raise ValueError(f"unknown entry at byte {at}")
        at += -(-length // 8) * 8


def _note(found: bytes, endpoint: str) -> sites.Note | NoNote:
    if names.rank(endpoint) != layout.Rank.LINK:
        return NoNote(f"{endpoint} is no link")
    try:
        return sites.decode(found)
    except ValueError as problem:
        return NoNote(str(problem))
