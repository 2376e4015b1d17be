"""What the endpoints of each site want and handle, as it is told to the other sites.

Each link tells each peer which of its bus's interests that peer may serve: a `Table`, then what
changes in it. Patterns are in the names of the space.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

import msgspec

from shmbus.errors import UsageError
from shmbus.shared import names
from shmbus.shared.methods import MethodInfo
from shmbus.shared.patterns import Interest, check_pattern, covers, overlaps

from .rules import Rules
from .wire import Garbage

if TYPE_CHECKING:
    from shmbus.views import EndpointInfo

HOST = socket.gethostname()

MOST = 10_000
"""Endpoints in a table, and interests of one of them."""

_Number = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
_Text = Annotated[str, msgspec.Meta(max_length=255)]


class Wanted(msgspec.Struct, array_like=True, frozen=True):
    """One interest of an endpoint."""

    role: Literal["subscribe", "handle"]
    pattern: _Text
    group: _Text | None = None
    key: _Text | None = None
    history: _Number = 0
    method: MethodInfo | None = None


class Away(msgspec.Struct, array_like=True, frozen=True):
    """An endpoint of another site."""

    name: _Text
    pid: _Number
    host: _Text
    wants: Annotated[tuple[Wanted, ...], msgspec.Meta(max_length=MOST)]


class Table(msgspec.Struct, array_like=True, frozen=True):
    """Those of one site."""

    version: _Number
    endpoints: Annotated[tuple[Away, ...], msgspec.Meta(max_length=MOST)] = ()


class Change(msgspec.Struct, array_like=True, frozen=True):
    """What is other in a table than in the one before."""

    version: _Number
    now: Annotated[tuple[Away, ...], msgspec.Meta(max_length=MOST)]
    """Endpoints that are new, or want something else."""
    gone: Annotated[tuple[_Text, ...], msgspec.Meta(max_length=MOST)]
    """Names of those that are not there any more."""


class History(NamedTuple):
    """An endpoint that wants what was kept of what this matches."""

    endpoint: str
    pattern: str
    history: int


class Outgoing:
    """What one peer is told of this bus."""

    def __init__(self) -> None:
        self._told: dict[str, Away] = {}
        self._version = 0

    def table(self) -> Table:
        """All of it."""
        return Table(self._version, tuple(self._told.values()))

    def wants(self, type: str, group: str) -> bool:
        """Whether it was told that somebody handles this type, or is a member of this group for
        it."""
        role = "subscribe" if group else "handle"
        return any(
            wanted.role == role and (wanted.group or "") == group and covers(wanted.pattern, type)
            for each in self._told.values()
            for wanted in each.wants
        )

    def update(self, now: dict[str, Away]) -> Change | None:
        """What is other now; None: nothing. `now`: by `announced`."""
        told = self._told
        changed = tuple(a for name, a in now.items() if told.get(name) != a)
        gone = tuple(told.keys() - now.keys())
        if not changed and not gone:
            return None
        self._told, self._version = now, self._version + 1
        return Change(self._version, changed, gone)


def announced(rules: Rules, endpoints: Iterable[EndpointInfo]) -> dict[str, Away]:
    """What peers to which these rules apply are told of the endpoints of this bus, by name."""
    return {
        e.name: Away(e.name, e.pid, HOST, tuple(w for i in e.interests for w in _wanted(rules, i)))
        for e in endpoints
        if not e.name.startswith("@") and not e.site and e.state == "attached"
    }


def _wanted(rules: Rules, interest: Interest) -> Iterable[Wanted]:
    if interest.role not in ("subscribe", "handle") or interest.pattern.startswith("$"):
        return
    for pattern in rules.wanted(interest.pattern):
        yield Wanted(
            interest.role,
            pattern,
            interest.group,
            interest.key,
            interest.history,
            interest.method,
        )


class Incoming:
    """What one peer has told, in the names of the space."""

    def __init__(self) -> None:
        self.endpoints: dict[str, Away] = {}
        self.version = -1
        """Of its table; -1: it has told none."""
        self.receivers = lru_cache(4096)(self._receivers)
        self.handles = lru_cache(4096)(self._handles)

    def set(self, table: Table) -> None:
        """All of it, anew. Raises `Garbage`."""
        _check(table.endpoints)
        self.endpoints = {each.name: each for each in table.endpoints}
        self._changed(table.version)

    def change(self, change: Change) -> bool:
        """What has changed. False: something before that is missing, so all must be asked for.
        Raises `Garbage`."""
        if change.version != self.version + 1:
            return False
        _check(change.now)
        if len(self.endpoints) + len(change.now) - len(change.gone) > MOST:
            raise Garbage(f"more than {MOST} endpoints")
        for name in change.gone:
            self.endpoints.pop(name, None)
        for each in change.now:
            self.endpoints[each.name] = each
        self._changed(change.version)
        return True

    def _changed(self, version: int) -> None:
        self.version = version
        self.receivers.cache_clear()
        self.handles.cache_clear()

    def wants(self) -> Iterable[Wanted]:
        """All interests, one after the other."""
        return (wanted for each in self.endpoints.values() for wanted in each.wants)

    def histories(self) -> Iterable[History]:
        """Those that want what was kept, too."""
        for endpoint in self.endpoints.values():
            for wanted in endpoint.wants:
                if wanted.history and wanted.group is None:
                    yield History(endpoint.name, wanted.pattern, wanted.history)

    def _receivers(self, type: str) -> tuple[bool, frozenset[str]]:
        """Whether somebody subscribes to this type outside of groups, and which groups do."""
        found = [w for w in self.wants() if w.role == "subscribe" and covers(w.pattern, type)]
        groups = frozenset(w.group for w in found if w.group is not None)
        return any(w.group is None for w in found), groups

    def _handles(self, type: str) -> bool:
        """Whether somebody handles this type."""
        return any(w.role == "handle" and covers(w.pattern, type) for w in self.wants())

    def touches(self, pattern: str) -> bool:
        """Whether somebody subscribes to what this pattern matches."""
        return any(w.role == "subscribe" and overlaps(w.pattern, pattern) for w in self.wants())


def _check(endpoints: Iterable[Away]) -> None:
    """Names and patterns come from another machine. Raises `Garbage`."""
    try:
        for endpoint in endpoints:
            names.check_endpoint(endpoint.name)
            for wanted in endpoint.wants:
                check_pattern(wanted.pattern)
                if wanted.pattern.startswith("$"):
                    raise Garbage(f"{wanted.pattern!r} stays on its bus")
                if wanted.group is not None:
                    names.check_group(wanted.group)
    except UsageError as why:
        raise Garbage(str(why)) from None
