"""Events of others for this bus, in the order of each peer.

The kernel publishes a run as a whole, as far as there is space; what finds none waits in line.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from shmbus.aio.line import NO_LINE
from shmbus.aio.threads import in_thread
from shmbus.endpoint._kernel import Encoded, Origin, entry_in, events_in, ways
from shmbus.errors import BusError, Disconnected
from shmbus.shared._kernel import monotonic_ns

from . import runs, wire
from .peer import Peer
from .runs import KEPT, RETAIN, URGENT, Run

if TYPE_CHECKING:
    from shmbus.views import Retained

    from .clock import Clock
    from .node import Node

log = logging.getLogger("shmbus")


class _Came:
    """A run that came, and how far it is published."""

    def __init__(
        self,
        peer: Peer,
        there: str,
        type: str,
        run: Run,
        payloads: bytes,
        events: int,
        origin: Origin,
        ahead: int,
    ) -> None:
        """`there`: its type in the names of the space."""
        self.events = events
        self.peer, self.there = peer, there
        self.type, self.run, self.payloads = type, run, payloads
        self.origin, self.ahead = origin, ahead
        self.flags = wire.FLAGS_OF[run.format]
        self.flags |= ways(bool(run.way & RETAIN), bool(run.way & URGENT))
        self.target = self.number = 0
        """Of its targets, and of its events: the next."""
        self.line = NO_LINE
        """In which that waits."""
        self.held = 0
        """Its frame's number, where it waits."""

    def left(self) -> Encoded:
        """The next one."""
        at, size, there = entry_in(self.run.table, self.number)
        o = self.origin
        origin = Origin(o.source, o.site, max(there - self.ahead, 0), o.error_ns, there, o.lost)
        group = self.run.targets[self.target]
        return Encoded(wire.FLAGS_OF[self.run.format], self.payloads[at : at + size], origin, group)

    def told(self) -> None:
        """What was lost before it has been told with the one before."""
        o = self.origin
        if o.lost:
            self.origin = Origin(o.source, o.site, o.sent_ns, o.error_ns, o.sent_there_ns, 0)

    def skip(self) -> None:
        """That is done with."""
        self.number += 1
        if self.number == self.events:
            self.number, self.target = 0, self.target + 1

    @property
    def done(self) -> bool:
        """Whether it is published, all of it."""
        return self.target == len(self.run.targets)


class Coming:
    """Events of others for this bus, in the order of each peer."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._behind: dict[Peer, deque[_Came]] = {}
        self._working: dict[Peer, asyncio.Task[None]] = {}

    def take(self, peer: Peer, there: str, body: msgspec.Raw, payload: bytes) -> None:
        """A frame. Raises `Garbage`."""
        run = runs.read(body)
        type = peer.rules.inward(there)
        if type is None:
            raise wire.Garbage(f"{there!r} is not imported")
        came = self._came(peer, there, type, run, payload)
        peer.received += came.events
        peer.received_bytes += len(payload)
        if peer not in self._behind and not run.way & KEPT and self._publish(came):
            return
        came.held = peer.arrivals.hold()
        self._behind.setdefault(peer, deque()).append(came)
        if peer not in self._working:
            working = asyncio.get_running_loop().create_task(self._publish_behind(peer))
            self._working[peer] = working

    def _came(self, peer: Peer, there: str, type: str, run: Run, payload: bytes) -> _Came:
        try:
            events = events_in(run.table, len(payload))
            if events > 1 and run.way & KEPT:
                raise ValueError(f"{events} at once that were kept")
            _, _, first = entry_in(run.table, 0)
            here, error = peer.clock.here(first, monotonic_ns())
            lost = min(peer.take_untold(there), 2**32 - 1)
            origin = Origin(run.source, peer.site, here, error, first, lost)
            for group in run.targets:
                Encoded(0, b"", origin, group)  # says whether it can be one
        except ValueError as why:
            raise wire.Garbage(f"an event: {why}") from None
        return _Came(peer, there, type, run, payload, events, origin, first - here)

    def _publish(self, came: _Came) -> bool:
        """As much of it as there is space for. False: some is left."""
        relay, run = self._node.relay, came.run
        while not came.done:
            try:
                came.line = relay.post_run(
                    came.type,
                    came.origin,
                    came.flags,
                    run.targets[came.target],
                    came.payloads,
                    run.table,
                    came.ahead,
                    came.number,
                )
            except BusError as why:
                came.number = relay.run_at
                self._refuse(came, why)
                came.skip()
                continue
            came.number = relay.run_at
            if came.line != NO_LINE:
                return False
            came.number, came.target = 0, came.target + 1
        return True

    def _refuse(self, came: _Came, why: BusError) -> None:
        """One of them cannot be published here: it is too large, or the endpoint has ended."""
        if isinstance(why, Disconnected):
            self._node.end(why)
            return
        came.peer.lose(came.there)
        log.warning("link %s: an event that came is lost: %s", self._node.config.site, why)

    async def _publish_behind(self, peer: Peer) -> None:
        """What waits, one frame after the other."""
        behind = self._behind[peer]
        try:
            while behind:
                came = behind[0]
                if not came.run.way & KEPT or await self._is_new(came):
                    while not self._publish(came):
                        await self._publish_next(came)
                behind.popleft()
                peer.arrivals.release(came.held)
                self._node.frames.acknowledge(peer)
        finally:
            del self._behind[peer], self._working[peer]

    async def _publish_next(self, came: _Came) -> None:
        """The one that found no space."""
        flags = came.flags & ~wire.FORMAT_BITS
        try:
            await self._node.relay.publish_in_line(came.line, flags, came.type, came.left())
            came.told()
        except BusError as why:
            self._refuse(came, why)
        came.skip()

    async def _is_new(self, came: _Came) -> bool:
        """Whether a value that was kept elsewhere is newer than what this bus keeps of its type."""
        endpoint = self._node.endpoint
        try:
            if came.peer.clock.known is None:  # whether its times go on from those before
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._node.config.detection):
                        await self._node.ping_peer(came.peer)
            look = partial(endpoint.bus.retained, came.type)
            kept = await in_thread(endpoint.name, "looking", look)
        except BusError as why:
            self._refuse(came, why)
            return False
        return is_newer(came.peer.clock, came.origin, kept, monotonic_ns(), time.time())

    def close(self) -> None:
        """Publish no more."""
        for working in self._working.values():
            working.cancel()


def is_newer(clock: Clock, origin: Origin, kept: Iterable[Retained], now: int, wall: float) -> bool:
    """Whether what a peer has kept, whose clock this is, is newer than all of these. Values of one
    source are compared by the times that it stamped, those of others by when they were sent.
    `now`, `wall`: the time here, in nanoseconds and in seconds since the epoch."""
    source = f"{origin.source}@{origin.site}"
    sent_ns, _ = clock.here(origin.sent_there_ns, now)
    for value in kept:
        value_ns = now - int((wall - value.sent) * 1e9)
        if value.source == source and not clock.began_anew_since(value.stamp_ns, value_ns, now):
            if value.stamp_ns >= origin.sent_there_ns:
                return False
        elif value_ns > sent_ns:
            return False
    return True
