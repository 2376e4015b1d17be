"""Samples of a bus, and what shows only between two of them: rates, and what is lost now."""

from __future__ import annotations

from collections import deque

import msgspec

from shmbus.errors import BusError
from shmbus.views import BusView, EndpointInfo, Look, observe

from .rows import HELD, Rates, Row, Severities, remote
from .sites import Crossings, SiteRow
from .states import LATE, word

HISTORY = 240
"""Samples whose rate is kept."""


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """One look, and the rates since the look before."""

    look: Look
    rows: list[Row]
    """One for each of the look's endpoints, in the order of slots."""
    sites: list[SiteRow]
    """One for each other site that a link sees."""


class Sampler:
    """Samples one bus; after its end, the next one of its name."""

    def __init__(self, bus: str | None = None) -> None:
        self._view = observe(bus)
        self.name = self._view.name
        self.history: deque[tuple[float, float]] = deque(maxlen=HISTORY)
        """When, and how many messages a second there were."""
        self._before = self._view.look(late=LATE)
        self._lost: dict[tuple[int, int], float] = {}
        self._severities = Severities()
        self._crossings = Crossings()

    @property
    def view(self) -> BusView:
        """The view of the bus that is sampled now."""
        return self._view

    def sample(self) -> Sample:
        """Take a sample now."""
        self._follow()
        look, before = self._view.look(late=LATE), self._before
        self._before = look
        elapsed = look.seconds - before.seconds
        earlier = {(e.slot, e.generation): e for e in before.endpoints}
        self.history.append((look.seconds, look.health.rate))
        here = [e for e in look.endpoints if e.site is None]
        keys = [(e.slot, e.generation) for e in here]
        self._note_losses(look, earlier)
        states = [
            word(info, health, key in self._lost)
            for key, info, health in zip(keys, here, look.health.endpoints, strict=True)
        ]
        worst = self._severities.note(look.seconds, dict(zip(keys, states, strict=True)))
        rows = [
            Row(info, health, _rates(earlier.get(key), info, elapsed), state, worst.get(key, 0))
            for key, info, health, state in zip(
                keys, here, look.health.endpoints, states, strict=True
            )
        ]
        rows += [remote(e) for e in look.endpoints if e.site is not None]
        return Sample(look=look, rows=rows, sites=self._crossings.note(look.seconds, look.sites))

    def _note_losses(self, look: Look, earlier: dict[tuple[int, int], EndpointInfo]) -> None:
        """Remember who has just lost messages, and had not chosen so."""
        self._lost = {key: at for key, at in self._lost.items() if look.seconds - at < HELD}
        for e in look.endpoints:
            before = earlier.get((e.slot, e.generation))
            if before is not None and e.lost_by.unchosen > before.lost_by.unchosen:
                self._lost[e.slot, e.generation] = look.seconds

    def _follow(self) -> None:
        if self._before.info.alive:
            return
        try:
            successor = observe(self.name)
        except BusError:
            return
        if successor.info().alive:
            self._view.close()
            self._view = successor
        else:
            successor.close()

    def close(self) -> None:
        """Close the view."""
        self._view.close()


def _rates(before: EndpointInfo | None, now: EndpointInfo, elapsed: float) -> Rates:
    if before is None or elapsed <= 0:
        return Rates()
    return Rates(
        received=max(now.received.total - before.received.total, 0) / elapsed,
        sent=max(now.sent.total - before.sent.total, 0) / elapsed,
        lost=max(now.lost - before.lost, 0) / elapsed,
    )
