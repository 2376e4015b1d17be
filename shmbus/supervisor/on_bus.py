"""A supervisor's endpoint: what it asks of the bus, and what others learn and ask there."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from shmbus import errors
from shmbus.events import EndpointOverdue

from .process import SUPERVISOR, Process
from .sessions import session_of
from .stand_in import StandIn
from .status import Line, ProcessEvent

if TYPE_CHECKING:
    from shmbus.bus import Bus
    from shmbus.endpoint._kernel import Message
    from shmbus.views.facts import EndpointInfo

    from .control import Control

log = logging.getLogger("shmbus")

PROCESS = f"{SUPERVISOR}.process"
OUTPUT = f"{SUPERVISOR}.output"


class OnBus:
    """That endpoint. Where the bus has ended, nobody handles anything and nobody is told."""

    def __init__(self, bus: Bus) -> None:
        self.bus = bus
        self._followed = False
        self._endpoint = bus.attach(SUPERVISOR)

    def begin(self, control: Control, overdue: Callable[[EndpointOverdue], object]) -> None:
        """Serve others."""
        endpoint = self._endpoint

        def on_overdue(message: Message) -> None:
            overdue(message.payload)

        endpoint.subscribe("$bus.endpoint.overdue", on_overdue, payload_type=EndpointOverdue)
        endpoint.on_match(f"{OUTPUT}.>", self._follow)
        endpoint.offer(control, SUPERVISOR)
        endpoint.start(threads=2, reconnect=False)

    def _follow(self, receivers: int) -> None:
        self._followed = receivers > 0

    def handled(self, pattern: str) -> bool:
        """Whether somebody handles what it matches."""
        try:
            return self._endpoint.matched(pattern, handlers=True) > 0
        except errors.BusError:
            return False

    def handlers(self) -> list[tuple[int, list[str]]]:
        """The pid of each endpoint, and the patterns that it handles."""
        return [
            (each.pid, [one.pattern for one in each.interests if one.role == "handle"])
            for each in self._endpoints()
        ]

    def handled_in(self, session: int) -> list[str]:
        """The patterns that endpoints in this session handle by now."""
        there = [e for e in self._endpoints() if e.state == "attached" and e.routed]
        return [
            one.pattern
            for each in there
            if session_of(each.pid) == session
            for one in each.interests
            if one.role == "handle"
        ]

    def attached(self) -> list[tuple[int, str]]:
        """The pid and the name of each endpoint."""
        return [(e.pid, e.name) for e in self._endpoints() if e.state == "attached"]

    def _endpoints(self) -> list[EndpointInfo]:
        """Those of this machine; none where the bus cannot be looked at."""
        try:
            return [e for e in self.bus.endpoints() if e.site is None]
        except errors.BusError:
            return []

    def stand_in(self, process: Process) -> StandIn:
        """One for this process. Raises BusError."""
        return StandIn(self.bus, process)

    def tell(self, event: ProcessEvent) -> None:
        """Publish it. Never waits."""
        self._publish(PROCESS, event)

    def line(self, line: Line) -> None:
        """Publish a line of output, if somebody subscribes to it. Never waits."""
        if self._followed:
            self._publish(f"{OUTPUT}.{line.name}", line)

    def _publish(self, type: str, payload: msgspec.Struct) -> None:
        try:
            self._endpoint.publish(type, payload, timeout=0)
        except errors.BusError as why:
            log.debug("%s", why)

    def close(self) -> None:
        """Leave the bus."""
        try:
            self._endpoint.close()
        except errors.BusError as why:
            log.debug("%s", why)
