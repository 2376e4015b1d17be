"""Frames that are lost and that no other follows: who sent them says so himself, while they are not
acknowledged."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Annotated

import msgspec

from .wire import Reader

if TYPE_CHECKING:
    from .node import Node
    from .peer import Peer

SENT = "sent"
"""What a frame of the control lane is."""

LONGEST = 5.0
"""Seconds after which it is said, at the most; else after half of `detection`."""


class Sent(msgspec.Struct, array_like=True, frozen=True):
    """All frames up to this one have left before."""

    seq: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


_sent = Reader(Sent)


class Ends:
    """Those of one link."""

    def __init__(self, node: Node) -> None:
        self._node, self._loop = node, asyncio.get_running_loop()
        self._pause = min(node.config.detection / 2, LONGEST)
        self._timers: dict[Peer, asyncio.TimerHandle] = {}
        node.frames.told[SENT] = self._take
        node.peers.on_up.append(self._came)
        node.on_close.append(self.close)

    def _came(self, peer: Peer) -> None:
        peer.channel.on_sent = partial(self._sent, peer)

    def _sent(self, peer: Peer) -> None:
        """Something is on its way to a peer."""
        if peer not in self._timers:
            self._timers[peer] = self._loop.call_later(
                self._pause, self._look, peer, peer.channel.last
            )

    def _look(self, peer: Peer, last: int) -> None:
        """It is, or something else: what was then has had its time."""
        del self._timers[peer]
        oldest = peer.channel.oldest
        if oldest is None or not peer.up:
            return
        if oldest <= last:
            peer.tell(SENT, Sent(peer.channel.last))
        self._sent(peer)

    def _take(self, peer: Peer, _: str, body: msgspec.Raw, __: bytes) -> None:
        if peer.arrivals.end(_sent.read(body).seq):
            self._node.frames.acknowledge(peer)

    def close(self) -> None:
        """The link ends."""
        for timer in self._timers.values():
            timer.cancel()
