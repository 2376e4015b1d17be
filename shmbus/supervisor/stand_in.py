"""A stand-in: an endpoint that handles what a process will handle, and takes nothing of it.

What is sent meanwhile lies untouched in its ring. When it leaves, the bus hands that on to whoever
handles it by then, as it does at any departure: so nothing is copied, and nothing comes twice.
"""

from __future__ import annotations

import select
from collections.abc import Collection
from typing import TYPE_CHECKING

from shmbus import errors
from shmbus.shared._kernel import monotonic
from shmbus.shared.patterns import covers, overlaps

from .process import STAND_IN, Process

if TYPE_CHECKING:
    from shmbus.bus import Bus

SETTLED = 1.0
"""Seconds after which a process is taken to handle no more of a pattern than it does."""

LONGEST = 10.0
"""And no more patterns than it does."""


class StandIn:
    """The one of a process."""

    def __init__(self, bus: Bus, process: Process) -> None:
        self.on = process.on
        self._handled, self._since = frozenset[str](), monotonic()
        self._endpoint = bus.attach(process.name + STAND_IN)
        try:
            self._endpoint.receive(0)  # nothing: from now on nobody is missed who runs handlers
            for pattern in process.on:
                self._endpoint.handle(pattern, _never)
            self.fd = self._endpoint.fileno()
            """Readable once something was sent."""
            self.idle = False
            """Whether that descriptor says nothing, and `touched` has to be asked instead."""
        except BaseException:
            self._endpoint.close()
            raise

    def touched(self) -> bool:
        """Whether something was sent. Where the descriptor is readable for another reason, as when
        the bus has ended, it is of no use any more."""
        try:
            found = bool(self._endpoint._data_waits())
        except errors.BusError:
            found = False
        if not found and not self.idle:
            look = select.poll()
            look.register(self.fd, select.POLLIN)
            self.idle = bool(look.poll(0)) and not self._endpoint._data_waits()
        return found

    @property
    def alone(self) -> bool:
        """Whether nobody else handles anything of that. Costs next to nothing while no endpoint's
        handlers change."""
        try:
            return all(self._endpoint.matched(each, handlers=True) <= 1 for each in self.on)
        except errors.BusError:
            return True

    def missing(self, handled: Collection[str]) -> list[str]:
        """The patterns that it stands in for, and of which these have nothing."""
        return [each for each in self.on if not any(overlaps(own, each) for own in handled)]

    def replaced_by(self, handled: Collection[str]) -> bool:
        """Whether it is to leave for a process that handles these patterns. At once, if that
        handles all that it stands in for. Which types there are is not known: so one that handles
        but a part of a pattern handles all once it has begun with nothing more for a moment. Of one
        that handles some patterns only, those are to be had, too, though it takes longer."""
        if all(any(covers(own, each) for own in handled) for each in self.on):
            return True
        now, handled = monotonic(), frozenset(handled)
        if handled != self._handled:
            self._handled, self._since = handled, now
        missing = self.missing(handled)
        if missing == list(self.on):
            return False
        return now - self._since >= (LONGEST if missing else SETTLED)

    def close(self) -> None:
        """Leave: what lies here goes to whoever handles it."""
        self._endpoint.close()


def _never(message: object) -> None:
    raise AssertionError("a stand-in takes nothing")
