"""An endpoint or a view that has ended, or that does not end in time."""

from __future__ import annotations

from .error import BusError
from .groups import Disconnected
from .phrases import duration


class BusDown(Disconnected):
    """The dispatcher is gone, or has ended the bus."""

    bus: str
    reason: str
    pid: int | None = None
    remedy: str = ""
    """By default, to start the bus again."""
    reconnect: str = ""
    """The `attach(reconnect=)` with which calls would wait for the next dispatcher: True or always;
    empty where none would."""

    def _explain(self) -> str:
        pid = "" if self.pid is None else f" (dispatcher {self.pid})"
        start = f"Start it again ({self._by.serve(self.bus)})"
        remedy = self.remedy or start + self._by.reconnect(self.reconnect)
        return f"bus {self.bus!r} is down{pid}: {self.reason}. {remedy}"


class EndpointClosed(Disconnected):
    """This process closed the endpoint."""

    endpoint: str

    def _explain(self) -> str:
        return f"endpoint {self.endpoint!r} has been closed here. Attach anew"


class Evicted(Disconnected):
    """The dispatcher evicted this endpoint (`Bus.evict`) or quarantined it."""

    endpoint: str
    reason: str

    def _explain(self) -> str:
        return f"the dispatcher ended endpoint {self.endpoint!r}: {self.reason}. Attach anew"


class RingCorrupt(Disconnected):
    """A ring of this endpoint holds what the dispatcher never writes."""

    endpoint: str
    ring: str
    position: int
    reason: str

    def _explain(self) -> str:
        return (
            f"{self.ring} ring of endpoint {self.endpoint!r} is corrupt at position "
            f"{self.position}: {self.reason}. Find what writes past its buffers in that process, "
            "and restart it"
        )


class ViewClosed(Disconnected, ValueError):
    """This process closed the view of the bus, or the bus that it served."""

    bus: str

    def _explain(self) -> str:
        return f"this view of bus {self.bus!r} has been closed here. Look anew: shmbus.observe()"


class DrainTimeout(BusError, TimeoutError):
    """An endpoint could not finish in time what it had accepted."""

    endpoint: str
    left: int
    """Messages."""
    seconds: float

    def _explain(self) -> str:
        return (
            f"endpoint {self.endpoint!r}: {self.left} messages not done within "
            f"{duration(self.seconds)}; they were handed on or counted. Drain with a longer "
            "timeout, or shorten its handlers"
        )
