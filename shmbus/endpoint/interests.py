"""The interests of an endpoint of this process, and what is called for what it receives."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from enum import IntEnum
from operator import attrgetter
from typing import Any

import msgspec

from shmbus import errors
from shmbus.limits import GROUPS
from shmbus.shared.layout import InterestFlag, InterestRole

from ._kernel import Callbacks, EventCallback, Gate, Late, Message, PatternTable
from .payloads import Types

Callback = Callable[[Message], Any]

MATCHED = "$bus.matched"
"""The type of what the dispatcher tells an interest of the role MATCH alone."""

# Plain numbers: the first message of each type waits for `callbacks`, and an operation on an enum's
# flag takes a microsecond.
_ADDRESSED = int(InterestFlag.DROP_OLDEST | InterestFlag.LATEST)
_HANDLE, _MATCH = int(InterestRole.HANDLE), int(InterestRole.MATCH)
_EVENTS = (int(InterestRole.SUBSCRIBE), _MATCH)
_GROUPS = GROUPS - 1  # the first bit is that of plain subscriptions


class MailState(IntEnum):
    """Who takes what comes for a subscription's mailbox."""

    TAKEN = 0
    """Whoever takes messages."""
    ASKED = 1
    """Who takes those that no callback gets."""
    LEFT = 2
    """Nobody, for the time being."""


class LocalInterest(msgspec.Struct, frozen=True):
    """A subscription, handler or tap, with what is called for it, if anything is."""

    id: int
    role: int
    pattern: str
    bit: int = 0
    flags: int = 0
    group: str = ""
    function: Callback | None = None
    payload_type: Any = None
    limit: float | None = None
    """Seconds that the function may take."""
    retry: bool = False
    description: bytes = b""
    """What observers are told about it."""
    history: int = 0
    """How many of each type that were kept it wants at first."""
    depth: int = 0
    """How many messages, or types, may wait where it loses what has waited longest."""
    key: int = 0
    """Of a group's: a bit for each token of the type that belongs to the key."""
    mailbox: int = -1
    """Which of its endpoint's mailboxes is its own; -1: none."""
    gate: Gate | None = None
    """In an event loop: where the jobs of an asynchronous function begin."""
    late: Late | None = None
    """With history: since when it gets what others get; with a mailbox, that it never does."""

    @property
    def addressed(self) -> bool:
        """Whether it gets only what comes for it alone, not what comes for all plain ones."""
        return bool(self.flags & _ADDRESSED) or self.role == _MATCH

    @property
    def received(self) -> str:
        """The pattern of the types that come for it."""
        return MATCHED if self.role == InterestRole.MATCH else self.pattern


_by_id = attrgetter("id")


def _is_called(interest: LocalInterest) -> bool:
    """Whether its messages go to its function, or to who iterates over it alone."""
    return interest.function is not None or (interest.gate is not None and interest.gate.iterated)


class Interests:
    """All of one endpoint, in the order in which they were added. `Subscribing` changes them, under
    its lock; nothing here takes longer the more there are.

    `types`: what payloads are decoded to where an interest names no type, by pattern."""

    def __init__(self, endpoint: str, types: Types) -> None:
        self._endpoint = endpoint
        self._by_id: dict[int, LocalInterest] = {}
        self._handled: set[str] = set()
        self._redelivering = 0
        self._uncalled: dict[int, str] = {}
        self._bits: dict[str, int] = {}
        self._members = [0] * (_GROUPS + 1)
        self._types: list[Any] = []
        self.late: dict[int, Late] = {}
        """Those of interests with history, by id."""
        self.patterns = PatternTable()
        """Ids by pattern, and those of payload types, which are negative."""
        for pattern, payload_type in types.items():
            self._types.append(payload_type)
            self.patterns.add(pattern, -len(self._types))

    def __len__(self) -> int:
        return len(self._by_id)

    def __contains__(self, interest: LocalInterest) -> bool:
        return interest.id in self._by_id

    def __iter__(self) -> Iterator[LocalInterest]:
        return iter(self._by_id.values())

    def add(self, interest: LocalInterest) -> None:
        """One more."""
        self._by_id[interest.id] = interest
        if interest.late is not None:
            self.late[interest.id] = interest.late
        self.patterns.add(interest.received, interest.id)
        self._count(interest, 1)

    def discard(self, interest: LocalInterest) -> None:
        """One less, if it is there."""
        if self._by_id.pop(interest.id, None) is not None:
            self.late.pop(interest.id, None)
            self.patterns.remove(interest.received, interest.id)
            self._count(interest, -1)

    def _count(self, interest: LocalInterest, step: int) -> None:
        if interest.function is None:
            if step > 0:
                self._uncalled[interest.id] = interest.pattern
            else:
                del self._uncalled[interest.id]
        if interest.role == InterestRole.SUBSCRIBE:
            self._members[interest.bit] += step
        elif interest.role == InterestRole.HANDLE:
            (self._handled.add if step > 0 else self._handled.discard)(interest.pattern)
            self._redelivering += step * bool(interest.flags & InterestFlag.REDELIVER)

    @property
    def redeliver(self) -> bool:
        """Whether some handler is redeliver=True."""
        return self._redelivering > 0

    def handled(self, pattern: str) -> bool:
        """Whether there is a handler of exactly this pattern."""
        return pattern in self._handled

    def uncalled(self) -> list[str]:
        """Patterns for which nothing is called."""
        return list(self._uncalled.values())

    def bit(self, group: str, in_hand: int) -> int:
        """The bit that is set in messages for this group. `in_hand`: those of messages in
        hand, which must not be given back to it. Raises `TooManyGroups`."""
        if group in self._bits:
            return self._bits[group]
        # The bit of a group that was left may still be set in messages under way: reuse it last.
        fresh = [b for b in range(1, _GROUPS + 1) if b not in self._bits.values()]
        stale = [b for b in range(1, _GROUPS + 1) if not self._members[b] and not in_hand >> b & 1]
        if not fresh and not stale:
            raise errors.TooManyGroups(endpoint=self._endpoint, group=group, limit=_GROUPS)
        bit = (fresh or stale)[0]
        self._bits = {name: b for name, b in self._bits.items() if b != bit} | {group: bit}
        return bit

    def groups(self, bits: int) -> tuple[str, ...]:
        """The groups with these bits."""
        return tuple(name for name, bit in self._bits.items() if bits >> bit & 1)

    def callbacks(self, keys: tuple[int, ...]) -> Callbacks:
        """What to call for messages of a type for which `patterns` has these keys. The first
        message of each type waits for this."""
        default: Any = None
        best: LocalInterest | None = None
        events: list[LocalInterest] = []
        for key in keys:
            if key < 0:
                default = self._types[-key - 1] if default is None else default
            elif (found := self._by_id.get(key)) is None:
                continue  # another thread has just removed it
            elif found.role in _EVENTS:
                events.append(found)
            elif found.role == _HANDLE and best is None:
                best = found
        events.sort(key=_by_id)
        called: list[EventCallback] = []
        alone: dict[int, Any] = {}
        late: list[Late] = []
        yields, yielded_type, all_late = 0, None, True
        for i in events:
            wanted = _either(i.payload_type, default)
            if _is_called(i):
                called.append(_event_callback(i, wanted))
                continue
            if not i.bit:
                alone[i.id] = wanted
            if not i.addressed:
                yields |= 1 << i.bit
                yielded_type = _either(yielded_type, i.payload_type)
                if i.late is not None:
                    late.append(i.late)
                elif not i.bit:
                    all_late = False
        return Callbacks(
            events=tuple(called),
            yields=yields,
            payload_type=_either(yielded_type, default),
            alone=alone,
            late=tuple(late) if late and all_late else None,
            handler=best.function if best else None,
            handler_type=_either(best.payload_type, default) if best else None,
            limit=best.limit if best else None,
            redeliver=best is not None and bool(best.flags & InterestFlag.REDELIVER),
            gate=best.gate if best else None,
        )


def _either(payload_type: Any, default: Any) -> Any:
    return default if payload_type is None else payload_type


def _event_callback(interest: LocalInterest, payload_type: Any) -> EventCallback:
    return EventCallback(
        id=interest.id,
        bit=interest.bit,
        function=interest.function,
        payload_type=payload_type,
        retry=interest.retry,
        limit=interest.limit,
        gate=interest.gate,
        addressed=interest.addressed,
        late=interest.late,
    )
