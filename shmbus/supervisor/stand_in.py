"""A stand-in: an endpoint that handles what a process will handle, and takes nothing of it.

What is sent meanwhile lies untouched in its ring. When it leaves, the bus hands that on to whoever
handles it by then, as it does at any departure: so nothing is copied, and nothing comes twice.
"""

from __future__ import annotations

import select
from typing import TYPE_CHECKING

from shmbus import errors

from .process import STAND_IN, Process

if TYPE_CHECKING:
    from shmbus.bus import Bus


class StandIn:
    """The one of a process."""

    def __init__(self, bus: Bus, process: Process) -> None:
        self.on = process.on
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
    def replaced(self) -> bool:
        """Whether others handle all that it stands in for."""
        try:
            return all(self._endpoint.matched(each, handlers=True) > 1 for each in self.on)
        except errors.BusError:
            return False

    def close(self) -> None:
        """Leave: what lies here goes to whoever handles it."""
        self._endpoint.close()


def _never(message: object) -> None:
    raise AssertionError("a stand-in takes nothing")
