"""Sites as links see them, and what crosses between two looks."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from shmbus.views import SiteInfo

SPAN = 5.0
"""Seconds over which rates are averaged: a link tells of its counts only now and then."""


class Crossing(NamedTuple):
    """What crosses in a second."""

    sent: float = 0.0
    received: float = 0.0
    sent_bytes: float = 0.0
    received_bytes: float = 0.0


class SiteRow(NamedTuple):
    """A site, and what crosses to it and from it."""

    info: SiteInfo
    rates: Crossing


class Crossings:
    """Remembers what had crossed at the looks of the last seconds."""

    def __init__(self) -> None:
        self._looks: deque[tuple[float, dict[tuple[str, str, str], Crossing]]] = deque()

    def note(self, now: float, sites: Sequence[SiteInfo]) -> list[SiteRow]:
        """The other sites at this moment: what is down first, then the nearest."""
        there = [site for site in sites if site.state != "here"]
        counts = {(s.link, s.name, s.run): _counts(s) for s in there}
        self._looks.append((now, counts))
        while len(self._looks) > 2 and self._looks[1][0] <= now - SPAN:
            self._looks.popleft()
        then, before = self._looks[0]
        rows = [
            SiteRow(s, _rates(before.get(key), counts[key], now - then))
            for s in there
            for key in [(s.link, s.name, s.run)]
        ]
        return sorted(rows, key=_order)


def _counts(site: SiteInfo) -> Crossing:
    return Crossing(site.sent, site.received, site.sent_bytes, site.received_bytes)


def _rates(before: Crossing | None, now: Crossing, elapsed: float) -> Crossing:
    if before is None or elapsed <= 0:
        return Crossing()
    return Crossing(*(max(a - b, 0) / elapsed for a, b in zip(now, before, strict=True)))


def _order(row: SiteRow) -> tuple[bool, float, str]:
    far = row.info.round_trip
    return row.info.state == "up", float("inf") if far is None else far, row.info.name
