"""An endpoint's interests, written for the dispatcher: a log of additions and removals.

This module writes it; the forwarding plane reads it natively, observers through
views/interest_log.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple, Self

from ringbuf._kernel import Mapping
from ringbuf.segment import unlink
from shmbus import errors
from shmbus.shared import layout, names, segments

from ._kernel import append_interest
from .interests import LocalInterest

_LOG_BYTES = 4096  # of a new log


class Entry(NamedTuple):
    """An addition, a removal or a note, as it is in the log."""

    op: layout.InterestOp
    id: int
    role: int = 0
    bit: int = 0
    flags: int = 0
    pattern: bytes = b""
    group: bytes = b""
    description: bytes = b""
    history: int = 0
    depth: int = 0
    key: int = 0
    mailbox: int = 0

    @classmethod
    def adding(cls, interest: LocalInterest) -> Self:
        return cls(
            op=layout.InterestOp.ADD,
            id=interest.id,
            role=interest.role,
            bit=interest.bit,
            flags=interest.flags,
            pattern=interest.pattern.encode(),
            group=interest.group.encode(),
            description=interest.description,
            history=interest.history,
            depth=interest.depth,
            key=interest.key,
            mailbox=max(interest.mailbox, 0),
        )

    @classmethod
    def removing(cls, id: int) -> Self:
        """Of an interest, or of a note."""
        return cls(op=layout.InterestOp.REMOVE, id=id)

    @classmethod
    def noting(cls, id: int, text: bytes) -> Self:
        return cls(op=layout.InterestOp.NOTE, id=id, description=text)

    @property
    def size(self) -> int:
        """Bytes in the log, at most."""
        text = len(self.pattern) + len(self.group) + len(self.description)
        return layout.INTEREST.itemsize + text + 8


class InterestWriter:
    """The log of an endpoint of this process, which it appends to and now and then replaces."""

    def __init__(self, bus: names.BusNames, owner: names.Owner, endpoint: str) -> None:
        self._bus, self._owner, self._endpoint = bus, owner, endpoint
        self._serial = 1
        self._segment = segments.create(
            bus.interests(owner, 1), _LOG_BYTES, layout.SegmentKind.INTERESTS
        )
        self._old: list[str] = []

    def write(self, entries: Iterable[Entry], active: Callable[[], list[Entry]]) -> int:
        """Append them, or begin a new log with what is `active` then; returns the serial of the
        log. Raises `EndpointClosed`."""
        for entry in entries:
            if not append_interest(self._memory(), entry):
                self._replace(active())
                break
        return self._serial

    @property
    def replaced(self) -> bool:
        """Whether there are logs that were replaced."""
        return bool(self._old)

    def _replace(self, entries: list[Entry]) -> None:
        """Begin a new log with these, twice as large as they need."""
        needed = sum(entry.size for entry in entries)
        size = _LOG_BYTES
        while size < layout.INTERESTS.itemsize + 2 * needed + 1024:
            size *= 2

        def prepare(mapping: Mapping) -> None:
            for entry in entries:
                append_interest(mapping, entry)

        name = self._bus.interests(self._owner, self._serial + 1)
        new = segments.create(name, size, layout.SegmentKind.INTERESTS, prepare)
        if self._segment.mapping is None:  # closed meanwhile: nobody else would remove the new one
            new.unlink()
        self._memory()
        self._old.append(self._segment.name)
        self._segment.close()
        self._segment = new
        self._serial += 1

    def drop_old(self) -> None:
        """Remove the logs that were replaced."""
        while self._old:
            unlink(self._old.pop())

    def close(self) -> None:
        """Nothing more is written: give its memory back."""
        self._segment.close()

    def _memory(self) -> Mapping:
        memory = self._segment.mapping
        if memory is None:
            raise errors.EndpointClosed(endpoint=self._endpoint)
        return memory

    def unlink(self) -> None:
        """Remove all of them."""
        self._segment.unlink()
        self.drop_old()
