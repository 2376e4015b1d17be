"""Grants: what an endpoint may do on a bus, and of whom that is asked."""

from __future__ import annotations

import msgspec


class Grant(msgspec.Struct, frozen=True, kw_only=True):
    """What an endpoint may do: patterns for each of four ways. What no pattern names is refused
    with `Forbidden`. The host gives it at admission (``serve(grants=...)``), and it holds for as
    long as the endpoint is attached. Replies to what it was asked need none."""

    publish: tuple[str, ...] = ()
    """Types that it may publish, as patterns such as ``buffer.*.changed``; none: no events."""
    subscribe: tuple[str, ...] = ()
    """Patterns to which it may subscribe, and any that matches no more than one of these."""
    handle: tuple[str, ...] = ()
    """Patterns that it may handle, and any that matches no more than one of these."""
    request: tuple[str, ...] = ()
    """Types that it may request, and of which it may send commands."""


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """An endpoint that is about to be admitted: the name that it asks for, and what the system
    says of its process, which that cannot invent."""

    name: str
    """The name that it asks for."""
    pid: int
    """Its process, as the system reports it."""
    command: tuple[str, ...]
    """The command line of that process; empty where it cannot be read."""
