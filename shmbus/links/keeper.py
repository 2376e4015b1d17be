"""A keeper: what is sent to a link that is being restarted waits there.

It lives in the parent of a link's process. Its endpoint has the link's interests, and takes nothing
of what comes. Its name begins with ``@@``: so the bus gives it only what nobody else is to have,
which is what was held by a link that was killed, and what is sent until the next one is there. Then
it leaves, and the bus hands on what lies there, as it does at any departure: nothing is copied, and
nothing comes twice. Before that another one takes its place, in case that link is killed as well.

A link says what its interests will be, before the bus routes by them, and when it does.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Self

import msgspec

from shmbus.endpoint.attach import attach_as
from shmbus.errors import BusError

if TYPE_CHECKING:
    from shmbus.endpoint.endpoint import Endpoint

log = logging.getLogger("shmbus")


class Kept(msgspec.Struct, array_like=True, frozen=True):
    """An interest of a link."""

    pattern: str
    group: str | None = None
    """None: it handles what matches."""
    of: str = ""
    """The group whose members, on another site, are to get it."""


class Keep(msgspec.Struct, array_like=True, frozen=True, tag="keep"):
    """What a link says to its keeper."""

    endpoint: str
    """Which of the link's."""
    interests: tuple[Kept, ...]
    now: bool
    """Whether the bus routes by them, and by no others of it; else it is about to."""
    all: tuple[str, ...] | None = None
    """Which endpoints the link has: what is kept for others is kept no more. None: it may have
    others."""


Tell = Callable[[Keep], None]
"""Has a link's keeper do it; returns when that has."""


def endpoint_of(link: str, site: str) -> str:
    """The name of that endpoint of a link which holds what is for a site."""
    return f"@{link}.{site}"


class Keeper:
    """That of one link. A context manager: leaving its block ends it. Not thread-safe."""

    def __init__(self, bus: str, link: str) -> None:
        self._bus, self._link = bus, link
        self._numbers = itertools.count(1)
        self._kept: dict[str, frozenset[Kept]] = {}
        self._there = frozenset[Kept]()
        self._place = self._attach(self._there)

    def keep(self, told: Keep) -> None:
        """Have these interests, as long as the link has them. Raises what attaching and subscribing
        raise."""
        before = self._kept.get(told.endpoint, frozenset())
        now = frozenset(told.interests)
        self._kept[told.endpoint] = now if told.now else before | now
        if told.all is not None:
            self._kept = {name: kept for name, kept in self._kept.items() if name in told.all}
        wanted = frozenset[Kept]().union(*self._kept.values())
        if told.now and (self._place._data_waits() or wanted < self._there):
            self._follow(wanted)
        else:
            _add(self._place, wanted - self._there)
            self._there |= wanted

    @property
    def sites(self) -> tuple[str, ...]:
        """Those for which a link before has sent what may lie here."""
        prefix = endpoint_of(self._link, "")
        return tuple(name.removeprefix(prefix) for name in self._kept if name.startswith(prefix))

    def _follow(self, wanted: frozenset[Kept]) -> None:
        """Leave, so that what lies there goes to the link; where it has gone by then, to another
        keeper."""
        place = self._attach(wanted)
        before, self._place, self._there = self._place, place, wanted
        before.close()

    def _attach(self, interests: Collection[Kept]) -> Endpoint:
        name = f"@@{self._link}-{next(self._numbers)}"
        endpoint = attach_as(name, self._bus, reconnect="always")
        try:
            endpoint.receive(0)  # nothing: from now on nobody is missed who runs handlers
            _add(endpoint, interests)
        except BaseException:
            endpoint.close()
            raise
        return endpoint

    def close(self) -> None:
        """Leave the bus: what lies here goes to whoever takes it."""
        try:
            self._place.close()
        except BusError as why:
            log.debug("keeper of %s: %s", self._link, why)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _add(endpoint: Endpoint, interests: Collection[Kept]) -> None:
    for each in interests:
        if each.group is None:
            endpoint.handle(each.pattern, _never)
        else:
            endpoint.subscribe(each.pattern, group=each.group)


def _never(message: object) -> None:
    raise AssertionError("a keeper takes nothing")
