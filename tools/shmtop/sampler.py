"""Samples of a bus, and rates between two of them."""

from __future__ import annotations

from collections import deque

import msgspec

from shmbus.errors import BusError
from shmbus.views import BusView, EndpointInfo, Look, observe

HISTORY = 120
"""Samples whose rate the sparkline shows."""


class Rates(msgspec.Struct, frozen=True, kw_only=True):
    """Messages a second of one endpoint between two looks."""

    received: float = 0.0
    sent: float = 0.0
    lost: float = 0.0


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """One look, and the rates since the look before."""

    look: Look
    rates: tuple[Rates, ...]
    """One for each of the look's endpoints."""


class Sampler:
    """Samples one bus; after its end, the next one of its name."""

    def __init__(self, bus: str | None = None) -> None:
        self._view = observe(bus)
        self.name = self._view.name
        self.history: deque[float] = deque(maxlen=HISTORY)
        self._before = self._view.look()

    @property
    def view(self) -> BusView:
        """The view of the bus that is sampled now."""
        return self._view

    def sample(self) -> Sample:
        """Take a sample now."""
        self._follow()
        look, before = self._view.look(), self._before
        self._before = look
        elapsed = look.seconds - before.seconds
        earlier = {(e.slot, e.generation): e for e in before.endpoints}
        self.history.append(look.health.rate)
        return Sample(
            look=look,
            rates=tuple(
                _rates(earlier.get((e.slot, e.generation)), e, elapsed) for e in look.endpoints
            ),
        )

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
