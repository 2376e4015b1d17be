"""The rows of the table, in the order of trouble."""

from __future__ import annotations

import time
from math import log2
from typing import NamedTuple

import msgspec

from shmbus.views import EndpointHealth, EndpointInfo

from .states import SEVERITY

HELD = 5.0
"""Seconds for which a row keeps its place after a trouble has passed: what comes and goes from look
to look would else make all rows jump."""


class Rates(msgspec.Struct, frozen=True, kw_only=True):
    """Messages a second of one endpoint between two looks."""

    received: float = 0.0
    sent: float = 0.0
    lost: float = 0.0


class Row(NamedTuple):
    """The facts about one endpoint."""

    info: EndpointInfo
    health: EndpointHealth
    rates: Rates
    state: str
    """In one word, of `states.STATES`."""
    severity: int
    """The worst of the last seconds, see `HELD`; 0: no trouble."""

    @property
    def key(self) -> str:
        if self.info.site is not None:
            return self.info.name
        return f"{self.info.slot}:{self.info.generation}"

    @property
    def handling(self) -> float:
        """Seconds that a handler has taken so far. Of what is overdue, the longest; else since the
        last message was taken, where one thread takes them all, and where several do, since
        something has been in hand without a break."""
        info = self.info
        if info.overdue:
            return info.overdue[0].seconds
        if info.receivers > 1 or info.last_progress is None:
            return info.in_hand_seconds
        return min(info.in_hand_seconds, max(time.time() - info.last_progress, 0.0))


def remote(info: EndpointInfo) -> Row:
    """That of an endpoint of another site, of which nothing is counted."""
    health = EndpointHealth(
        name=info.name,
        state="remote",
        pid=info.pid,
        cpu=None,
        memory=None,
        incoming=0,
        outgoing=0,
        incoming_high=0,
        outgoing_high=0,
        untouched=0,
        oldest=None,
        in_hand=0,
        sent=0,
        received=0,
        lost=0,
        lost_by=info.lost_by,
        redelivered=0,
        last_progress=None,
    )
    return Row(info, health, Rates(), "remote", 0)


def trouble(row: Row) -> tuple[int, int]:
    """The worse, the larger: the state, and among those alike for how long the oldest message has
    waited, or a handler has been overdue. Times count as powers of two, so that a row moves seldom;
    those of calm rows do not count."""
    if not row.severity:
        return 0, 0
    longest = max(row.health.oldest or 0.0, row.handling if row.info.overdue else 0.0)
    return row.severity, int(log2(longest)) if longest > 1.0 else 0


def matches(row: Row, words: str) -> bool:
    """Whether each of the words is in the endpoint's name, state, pid, patterns or groups."""
    if not words:
        return True
    info = row.info
    text = " ".join(
        (info.name, row.state, info.condition, str(info.pid), *info.patterns, *info.groups)
    )
    return all(word in text.lower() for word in words.lower().split())


class Severities:
    """Remembers how bad it was with each endpoint lately."""

    def __init__(self) -> None:
        self._worst: dict[tuple[int, int], list[tuple[float, int]]] = {}

    def note(self, now: float, states: dict[tuple[int, int], str]) -> dict[tuple[int, int], int]:
        """The worst severity of the last `HELD` seconds by slot and generation, given the states
        at this moment."""
        worst = {}
        for key, state in states.items():
            severity = SEVERITY.get(state, 0)
            # What is both older and less bad than another can never be the worst again.
            kept = [
                (until, each)
                for until, each in self._worst.get(key, ())
                if until > now and each > severity
            ]
            if severity:
                kept.append((now + HELD, severity))
            if kept:
                worst[key] = kept
        self._worst = worst
        return {key: max(each for _, each in kept) for key, kept in worst.items()}
