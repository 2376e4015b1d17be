"""When which peer is pinged: one after the other when it has come, once a second while messages
come from it, else every ten seconds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from shmbus.shared._kernel import monotonic_ns

from .clock import IDLE, Ping, Pong, answered
from .wire import Garbage, Reader

if TYPE_CHECKING:
    from .node import Node
    from .peer import Peer

PING, PONG = "ping", "pong"
"""What a frame of the control lane is."""


class Pings:
    """Those of one link. `peers`: all that are up. `measured` is told of whom a pong has come."""

    def __init__(
        self,
        peers: Callable[[], Iterable[Peer]],
        measured: Callable[[Peer], object],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._peers, self._measured, self._loop = peers, measured, loop
        self._waiting: dict[Peer, list[asyncio.Future[int | None]]] = {}
        self._timer: asyncio.TimerHandle | None = None

    def came(self, peer: Peer) -> None:
        """It is up."""
        self._send(peer)
        if self._timer is None:
            self._timer = self._loop.call_later(IDLE / 1e9, self._look)

    def gone(self, peer: Peer) -> None:
        """It is not any more."""
        for future in self._waiting.pop(peer, ()):
            if not future.done():
                future.set_result(None)

    def heard(self, peer: Peer) -> None:
        """A message has come from it, or was confirmed there."""
        if peer.clock.due(monotonic_ns()):
            self._send(peer)

    def take_ping(self, peer: Peer, ping: Ping, came_ns: int) -> None:
        """It has asked for the time."""
        peer.tell(PONG, answered(ping, came_ns, monotonic_ns()))

    def take_pong(self, peer: Peer, pong: Pong, came_ns: int) -> None:
        """It has told the time. Raises `Garbage`."""
        round_trip = peer.clock.take(pong, came_ns)
        if round_trip is None:
            raise Garbage("the answer to no ping")
        for future in self._waiting.pop(peer, ()):
            if not future.done():
                future.set_result(round_trip)
        if peer.clock.due(came_ns):
            self._send(peer)
        self._measured(peer)

    async def ping(self, peer: Peer) -> float | None:
        """Ping it now: how many seconds it takes to there and back; None: it has gone."""
        future: asyncio.Future[int | None] = self._loop.create_future()
        self._waiting.setdefault(peer, []).append(future)
        self._send(peer)
        round_trip = await future
        return None if round_trip is None else round_trip / 1e9

    def end(self) -> None:
        """The link ends."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for peer in list(self._waiting):
            self.gone(peer)

    def _send(self, peer: Peer) -> None:
        peer.tell(PING, peer.clock.ping(monotonic_ns()))

    def _look(self) -> None:
        now, any = monotonic_ns(), False
        for peer in self._peers():
            any = True
            if peer.clock.due(now, idle=True):
                self._send(peer)
        self._timer = self._loop.call_later(IDLE / 1e9, self._look) if any else None


_ping = Reader(Ping)
_pong = Reader(Pong)


def ping_peers(node: Node) -> Pings:
    """From here on the peers of a link are pinged."""

    def measured(peer: Peer) -> None:
        for each in node.peers.on_measured:
            each(peer)

    pings = Pings(
        lambda: (peer for peer in node.peers if peer.up),
        measured,
        asyncio.get_running_loop(),
    )
    node.frames.told[PING] = lambda peer, _, body, __: pings.take_ping(
        peer, _ping.read(body), monotonic_ns()
    )
    node.frames.told[PONG] = lambda peer, _, body, __: pings.take_pong(
        peer, _pong.read(body), monotonic_ns()
    )
    node.ping_peer = pings.ping
    node.peers.on_up.append(pings.came)
    node.peers.on_down.append(lambda peer, _: pings.gone(peer))
    node.frames.on_heard.append(pings.heard)
    node.on_close.append(pings.end)
    return pings
