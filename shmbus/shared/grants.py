"""Grants: what an endpoint may do on a bus, and of whom that is asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Literal

import msgspec

from shmbus.errors import InvalidSetting
from shmbus.limits import GRANTED

from . import layout
from .patterns import Interest, Role, check_pattern, covers

if TYPE_CHECKING:
    from ringbuf._kernel import Mapping as Memory

Right = Literal["publish", "subscribe", "handle", "request"]


class Grant(msgspec.Struct, frozen=True, kw_only=True):
    """What an endpoint may do: patterns for each of four ways. What no pattern names is refused
    with `Forbidden`. The host gives it at admission (``serve(grants=...)``), and it holds for as
    long as the endpoint is attached. Replies to what it was asked need none. Raises
    `InvalidPattern`, `InvalidSetting`."""

    publish: tuple[str, ...] = ()
    """Types that it may publish, as patterns such as ``buffer.*.changed``; none: no events."""
    subscribe: tuple[str, ...] = ()
    """Patterns to which it may subscribe, and any that matches no more than one of these."""
    handle: tuple[str, ...] = ()
    """Patterns that it may handle, and any that matches no more than one of these."""
    request: tuple[str, ...] = ()
    """Types that it may request, and of which it may send commands."""

    def __post_init__(self) -> None:
        for right in self.__struct_fields__:
            granted = getattr(self, right)
            if not isinstance(granted, tuple):
                raise InvalidSetting(
                    setting=right,
                    value=granted,
                    reason="it is no tuple of patterns",
                    remedy='Give such as ("buffer.>",)',
                )
            for pattern in granted:
                check_pattern(pattern)
        count = sum(len(getattr(self, right)) for right in self.__struct_fields__)
        if count > GRANTED:
            raise InvalidSetting(
                setting="patterns of a Grant",
                value=count,
                reason=f"there may be {GRANTED} in all: a type that is new is held against each",
                remedy="Let one pattern with * or > stand for several",
            )

    def covers(self, right: Right, pattern: str) -> bool:
        """Whether it lets an endpoint do that with this type, or with all that this pattern
        matches."""
        return any(covers(granted, pattern) for granted in getattr(self, right))

    def allows(self, interest: Interest) -> bool:
        """Whether it lets an endpoint have that interest."""
        return all(self.covers(right, interest.pattern) for right in NEEDS[interest.role])


NEEDS: dict[Role, tuple[Right, ...]] = {
    "subscribe": ("subscribe",),
    "handle": ("handle",),
    "tap": ("subscribe", "handle"),
    "match": ("publish",),
}
"""The rights that an interest needs, by its role: a tap gets messages of every kind. The dispatcher
has the same (dp_forbid_interest)."""


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """An endpoint that is about to be admitted: the name that it asks for, and what the system
    says of its process, which that cannot invent."""

    name: str
    """The name that it asks for."""
    pid: int
    """Its process, as the system reports it."""
    command: tuple[str, ...]
    """The command line of that process, which it may have changed; empty where it cannot be
    read."""


Grants = Callable[[Candidate], Grant | None] | Mapping[str, Grant | None]
"""Who may do what: asked for each endpoint, or by its name, with ``*`` for all others."""

_RIGHTS = layout.words(layout.Right)


def pack(grant: Grant) -> bytes:
    """Its patterns as they stand behind RIGHTS."""
    return b"".join(
        bytes((number, len(pattern))) + pattern.encode()
        for number, right in _RIGHTS.items()
        for pattern in getattr(grant, right)
    )


def read(down: Memory) -> Grant | None:
    """The grant that a segment DOWN holds; None: there is none. Raises ``ValueError`` where it
    holds no grant that a dispatcher writes."""
    at = int(layout.view(down, layout.DOWN)[0]["rights_offset"])
    if not at:
        return None
    begin = at + layout.RIGHTS.itemsize
    if begin > down.size:
        raise ValueError("its grant does not lie in it")
    end = begin + int(layout.view(down, layout.RIGHTS, 1, at)[0]["bytes"])
    try:
        return _unpack(bytes(memoryview(down)[begin:end]), end - begin)
    except ValueError as problem:
        raise ValueError(f"its grant is broken: {problem}") from problem


def _unpack(packed: bytes, size: int) -> Grant:
    found: dict[str, list[str]] = {right: [] for right in _RIGHTS.values()}
    at = 0
    while at < len(packed) == size:
        number, length = packed[at : at + 2]
        at += 2 + length
        if number not in _RIGHTS:
            raise ValueError(f"there is no right {number}")
        found[_RIGHTS[number]].append(packed[at - length : at].decode("ascii"))
    if at != size:
        raise ValueError("it is cut off")
    return Grant(**{right: tuple(patterns) for right, patterns in found.items()})
