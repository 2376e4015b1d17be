"""The interests of an endpoint of this process, and what is called for what it receives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from shmbus import errors
from shmbus.limits import GROUPS
from shmbus.shared import patterns
from shmbus.shared.layout import InterestFlag, InterestRole

from ._kernel import Callbacks, EventCallback, Message
from .payloads import Types

Callback = Callable[[Message], Any]

_GROUPS = GROUPS - 1  # the first bit is that of plain subscriptions


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


class Interests(dict[int, LocalInterest]):
    """All of one endpoint, by id. `Subscribing` changes them, under its lock.

    `types`: what payloads are decoded to where an interest names no type."""

    def __init__(self, endpoint: str, types: Types) -> None:
        self._endpoint, self._types = endpoint, types
        self._bits: dict[str, int] = {}

    @property
    def redeliver(self) -> bool:
        """Whether some handler is redeliver=True."""
        return any(
            i.role == InterestRole.HANDLE and i.flags & InterestFlag.REDELIVER
            for i in self.values()
        )

    def handled(self, pattern: str) -> bool:
        """Whether there is a handler of exactly this pattern."""
        return any(i.role == InterestRole.HANDLE and i.pattern == pattern for i in self.values())

    def uncalled(self) -> list[str]:
        """Patterns for which nothing is called."""
        return [i.pattern for i in list(self.values()) if i.function is None]

    def bit(self, group: str) -> int:
        """The bit that is set in messages for this group. Raises `TooManyGroups`."""
        if group in self._bits:
            return self._bits[group]
        used = {i.bit for i in self.values() if i.role == InterestRole.SUBSCRIBE}
        # The bit of a group that was left may still be set in messages under way: reuse it last.
        fresh = [b for b in range(1, _GROUPS + 1) if b not in self._bits.values()]
        stale = [b for b in range(1, _GROUPS + 1) if b not in used]
        if not fresh and not stale:
            raise errors.TooManyGroups(endpoint=self._endpoint, group=group, limit=_GROUPS)
        bit = (fresh or stale)[0]
        self._bits = {name: b for name, b in self._bits.items() if b != bit} | {group: bit}
        return bit

    def callbacks(self, type: str) -> Callbacks:
        """What to call for messages of this type."""
        default = self._types.find(type)

        def wanted(payload_type: Any) -> Any:
            return default if payload_type is None else payload_type

        found = [i for i in list(self.values()) if patterns.matches(i.pattern, type)]
        events = [i for i in found if i.role == InterestRole.SUBSCRIBE]
        yielded = [i for i in events if i.function is None]
        types = [i.payload_type for i in yielded if i.payload_type is not None]
        handlers = [i for i in found if i.role == InterestRole.HANDLE]
        best = min(handlers, key=lambda i: patterns.specificity(i.pattern), default=None)
        return Callbacks(
            events=tuple(
                EventCallback(bit=i.bit, function=i.function, payload_type=wanted(i.payload_type))
                for i in events
                if i.function is not None
            ),
            yields=sum({1 << i.bit for i in yielded}),
            payload_type=types[0] if types else default,
            handler=best.function if best else None,
            handler_type=wanted(best.payload_type) if best else None,
            redeliver=best is not None and bool(best.flags & InterestFlag.REDELIVER),
        )
