"""What may cross between two sites, and under which names.

A message of type T goes from A to B if A exports T and B imports T. Patterns of a site's rules are
in the names of its own bus. A renaming puts another prefix in the place of one, on the way out,
and back on the way in: so types have names *here*, and names *in the space*.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

import msgspec

from shmbus.shared.patterns import covers


class Rename(msgspec.Struct, frozen=True, kw_only=True):
    """A prefix of types that is another one for the other sites."""

    local: str
    """On this bus: ``sensor`` stands for the type ``sensor`` and all that begin with ``sensor.``"""
    space: str
    """For the others."""


def meet(one: str, two: str) -> str | None:
    """The pattern of all types that both patterns match; None: there are none."""
    ours, theirs, both = one.split("."), two.split("."), list[str]()
    for i, (mine, its) in enumerate(zip(ours, theirs, strict=False)):
        if i == 0 and _apart(mine, its):
            return None
        if mine == ">":
            return ".".join(both + theirs[i:])
        if its == ">":
            return ".".join(both + ours[i:])
        if mine != its and "*" not in (mine, its):
            return None
        both.append(its if mine == "*" else mine)
    return ".".join(both) if len(ours) == len(theirs) else None


def _apart(mine: str, its: str) -> bool:
    """A leading wildcard does not match the bus's own types."""
    wild = ("*", ">")
    return (mine in wild and its[0] == "$") or (its in wild and mine[0] == "$")


def widest(patterns: Iterable[str]) -> tuple[str, ...]:
    """Those that no other of them covers."""
    kept: list[str] = []
    for pattern in patterns:
        if not any(covers(other, pattern) for other in kept):
            kept = [other for other in kept if not covers(pattern, other)]
            kept.append(pattern)
    return tuple(kept)


class Rules:
    """Those of one site towards another."""

    def __init__(
        self, exports: Iterable[str], imports: Iterable[str], renames: Iterable[Rename] = ()
    ) -> None:
        self._exports, self._imports = tuple(exports), tuple(imports)
        pairs = [(each.local, each.space) for each in renames]
        self._out = sorted(pairs, key=lambda pair: -len(pair[0]))
        self._in = sorted(((two, one) for one, two in pairs), key=lambda pair: -len(pair[0]))
        self.outward = lru_cache(4096)(self._outward)
        self.inward = lru_cache(4096)(self._inward)
        self.wanted = lru_cache(4096)(self._wanted)
        self.offered = lru_cache(4096)(self._offered)

    def _outward(self, type: str) -> str | None:
        """The name in the space of a type of this bus; None: it stays here."""
        return self._renamed(type) if _any(self._exports, type) else None

    def _inward(self, type: str) -> str | None:
        """The name on this bus of a type of the space; None: it stays outside."""
        there = self._named_back(type)
        return there if there is not None and _any(self._imports, there) else None

    def _renamed(self, type: str) -> str | None:
        there = _replaced(type, self._out)
        return there if _replaced(there, self._in) == type else None

    def _named_back(self, type: str) -> str | None:
        here = _replaced(type, self._in)
        return here if _replaced(here, self._out) == type else None

    def _wanted(self, pattern: str) -> tuple[str, ...]:
        """Patterns of the space for what matches this one here and may come in. With wildcards
        before the end of a prefix they may match a little more, but never less."""
        cut = (meet(pattern, imported) for imported in self._imports)
        return widest(p for each in cut if each for p in _translated(each, self._out))

    def _offered(self, pattern: str) -> tuple[str, ...]:
        """Patterns of this bus for what matches this one of the space and may go out; likewise."""
        here = _translated(pattern, self._in)
        cut = (meet(each, exported) for each in here for exported in self._exports)
        return widest(filter(None, cut))


def _any(patterns: tuple[str, ...], type: str) -> bool:
    return type[0] != "$" and any(covers(pattern, type) for pattern in patterns)


def _replaced(type: str, pairs: list[tuple[str, str]]) -> str:
    """With the longest prefix that it has replaced."""
    for old, new in pairs:
        if type == old or type.startswith(old + "."):
            return new + type[len(old) :]
    return type


def _translated(pattern: str, pairs: list[tuple[str, str]]) -> list[str]:
    """What it may be under other names."""
    found = []
    for old, new in pairs:
        for part in (meet(pattern, old), meet(pattern, f"{old}.>")):
            if part is not None:
                found.append(new + part[len(old) :])
    if not any(covers(f"{old}.>", pattern) or old == pattern for old, _ in pairs):
        found.append(pattern)
    return found
