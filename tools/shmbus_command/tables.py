"""Tables that several commands show: of what waits, was lost, and died."""

from __future__ import annotations

from collections.abc import Sequence

from shmbus_console.pools import held_by
from shmbus_console.text import columns, duration

from shmbus.options import sized
from shmbus.views import Backlog, PastDeath, PastLoss, Pool

from .facts import LOSSES, when


def below(
    backlogs: Sequence[Backlog],
    pools: Sequence[Pool],
    losses: Sequence[PastLoss],
    deaths: Sequence[PastDeath] = (),
) -> list[str]:
    """Those that have rows, each after an empty line."""
    tables = (_backlogs(backlogs), _pools(pools), _losses(losses), _deaths(deaths))
    return [line for table in tables if table for line in ("", *table)]


def _backlogs(backlogs: Sequence[Backlog]) -> list[str]:
    """A table of those in which messages wait, or were lost."""
    heads = ["BACKLOG OF", "WAITING", "OLDEST", "FULL", "SIZE", "LOST", "FOR WHOM OF THESE IS FREE"]
    rows = [
        [
            b.what,
            str(b.waiting),
            duration(b.oldest),
            f"{b.ring.fill:.0%}",
            sized(b.ring.capacity),
            str(b.lost),
            " ".join(b.takers) or "nobody is attached",
        ]
        for b in backlogs
        if b.waiting or b.lost
    ]
    return columns(heads, rows, "  ") if rows else []


def _pools(pools: Sequence[Pool]) -> list[str]:
    """A table of those in which something is, or for which a sender has waited."""
    heads = ["POOL OF", "IN USE", "FULL", "TAKEN", "OF", "WAITS", "HELD BY"]
    rows = [
        [
            p.endpoint or "one that has gone",
            sized(p.in_use),
            f"{p.fill:.0%}",
            sized(p.reserved),
            sized(p.limit),
            f"{p.waits}{', now' if p.waiting else ''}",
            held_by(p),
        ]
        for p in pools
        if p.reserved or p.waits
    ]
    return columns(heads, rows, "  ") if rows else []


def _losses(losses: Sequence[PastLoss]) -> list[str]:
    """A table of what was lost last and nobody had chosen so."""
    heads = ["LOST AT", "PID", "MESSAGES", "WHY", "LAST", "FROM", "WHEN"]
    rows = [
        [
            p.name,
            str(p.pid or "-"),
            str(p.count),
            LOSSES.get(p.reason, p.reason),
            p.type or "-",
            p.source or "-",
            when(p.at),
        ]
        for p in losses
    ]
    return columns(heads, rows, "  ") if rows else []


def _deaths(deaths: Sequence[PastDeath]) -> list[str]:
    """A table of the last endpoints that died."""
    heads = ["DIED", "PID", "HOW", "WHEN", "IN HAND", "UNTOUCHED", "REQUESTS"]
    rows = [
        [
            d.name,
            str(d.pid),
            d.reason,
            when(d.at),
            str(d.in_hand),
            str(d.untouched),
            str(d.pending),
        ]
        for d in deaths
    ]
    return columns(heads, rows, "  ") if rows else []
