"""Frames that come: each is given to whom its lane concerns, and acknowledged."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Annotated

import msgspec

from . import keys, wire
from .arrivals import Ack
from .config import LinkConfig
from .losses import TYPES
from .peer import Peer
from .peers import Peers
from .session import Frame

log = logging.getLogger("shmbus")

OnFrame = Callable[[Peer, str, msgspec.Raw, bytes], None]
"""Gets the peer, the type in the names of the space, the lane's body, and the payload. Raises
`Garbage`."""

ACKNOWLEDGED = 0.05
"""Seconds after which a frame that came is acknowledged, at the latest."""


class Lost(msgspec.Struct, array_like=True, frozen=True):
    """Messages that were to come and do not."""

    by_type: Annotated[
        list[
            tuple[
                Annotated[str, msgspec.Meta(max_length=255)],
                Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)],
            ]
        ],
        msgspec.Meta(max_length=TYPES),
    ]


_ack = wire.Reader(Ack)
_lost = wire.Reader(Lost)


class Frames:
    """Those of all peers of one link."""

    def __init__(self, config: LinkConfig, run: str, peers: Peers) -> None:
        self._site, self._run, self._peers = config.site, run, peers
        self._inbox = keys.Inbox(config.space, config.site)
        self.lanes: dict[str, OnFrame] = {}
        """What the frames of a lane are given to."""
        self.told: dict[str, OnFrame] = {"ack": self._on_ack, "lost": self._on_lost}
        """What the frames of the control lane are given to, by what they say."""
        self.on_heard: list[Callable[[Peer], None]] = []
        """Called when messages of a peer have come, once for many."""
        self.garbage = self.stale = 0
        self._unacknowledged: set[Peer] = set()
        self._acknowledging: asyncio.TimerHandle | None = None

    def take(self, frames: list[Frame]) -> None:
        """These have come."""
        for key, attachment, payload in frames:
            try:
                self._take(key, attachment, payload)
            except wire.Garbage as why:
                self.garbage += 1
                log.debug("link %s: garbage at %s: %s", self._site, key, why)
            except Exception:  # a mistake of ours, which shall not cost other frames
                log.exception("link %s: the frame at %s is lost", self._site, key)
        for peer in list(self._unacknowledged):
            for heard in self.on_heard:
                heard(peer)
            if peer.arrivals.due:
                self.acknowledge(peer)
        if self._unacknowledged and self._acknowledging is None:
            loop = asyncio.get_running_loop()
            self._acknowledging = loop.call_later(ACKNOWLEDGED, self._acknowledge_all)

    def _take(self, key: str, attachment: bytes, payload: bytes) -> None:
        address = self._inbox.read(key)
        if address is None:
            raise wire.Garbage("its key")
        head = wire.read_head(attachment)
        lane, type = address.lane, address.type
        told = type if lane == wire.CONTROL else None
        # The token of one that says that it ends may have gone before.
        peer = self._peers.get(address.source, there=told != wire.BYE)
        if peer is None or head.run != peer.run or head.to != self._run:
            if head.to != self._run or told != wire.HELLO:
                self.stale += 1  # else its token is yet to come: it greets again
            return
        found = self.lanes.get(lane) if told is None else self.told.get(told)
        if found is None:
            raise wire.Garbage(f"nobody knows its lane {lane}/{type}")
        if head.seq:
            if not peer.arrivals.come(head.seq, len(payload) + len(attachment)):
                self.stale += 1
                return
            self._unacknowledged.add(peer)
            if lane != wire.EVENT:  # which has several
                peer.received += 1
                peer.received_bytes += len(payload)
        try:
            found(peer, type, head.body, payload)
        except wire.Garbage:
            peer.garbage += 1
            raise

    def acknowledge(self, peer: Peer) -> None:
        """Tell it what of its frames is done with."""
        self._unacknowledged.discard(peer)
        if (ack := peer.arrivals.ack()) is not None:
            peer.tell("ack", ack)

    def _acknowledge_all(self) -> None:
        self._acknowledging = None
        for peer in list(self._unacknowledged):
            self.acknowledge(peer)

    def _on_ack(self, peer: Peer, _: str, body: msgspec.Raw, __: bytes) -> None:
        ack = _ack.read(body)
        peer.channel.acknowledge(ack.seq, ack.missing)

    def _on_lost(self, peer: Peer, _: str, body: msgspec.Raw, __: bytes) -> None:
        for type, count in _lost.read(body).by_type:
            peer.lose(type, count)

    def close(self) -> None:
        """Acknowledge nothing more."""
        if self._acknowledging is not None:
            self._acknowledging.cancel()
