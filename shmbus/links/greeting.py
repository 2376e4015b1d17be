"""What two links tell each other of their buses: a hello first, then each change, then goodbye."""

from __future__ import annotations

import asyncio
from typing import Annotated

import msgspec

from . import wire
from .config import LinkConfig
from .frames import Frames
from .looking import Looking
from .peer import Peer
from .peers import Peers
from .tables import Change, Table

CHANGE = "change"
"""In the control lane: what has changed of what this link's bus wants."""


class Hello(msgspec.Struct, array_like=True, frozen=True):
    """What two links say to each other first."""

    table: Table
    known: bool
    """Whether the other's table has come."""
    came: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
    """The number of the last frame of the other run that has come."""
    link: Annotated[str, msgspec.Meta(max_length=48)]
    """The link's endpoint on its bus."""


_hello = wire.Reader(Hello)
_change = wire.Reader(Change)


class Greeting:
    """That of one link."""

    def __init__(self, config: LinkConfig, frames: Frames, peers: Peers, looking: Looking) -> None:
        self._config, self._peers, self._looking = config, peers, looking
        peers.on_met.append(self._met)
        looking.on_seen.append(self._tell_changes)
        frames.told[wire.HELLO] = self._on_hello
        frames.told[CHANGE] = self._on_change
        frames.told[wire.BYE] = self._on_bye

    def _met(self, peer: Peer) -> None:
        peer.told.update(self._looking.announced(peer.rules))
        self._greet(peer)

    def _greet(self, peer: Peer) -> None:
        known, link = peer.table.version >= 0, f"@{self._config.name}"
        peer.tell(wire.HELLO, Hello(peer.told.table(), known, peer.arrivals.seq, link))
        if not peer.up:
            loop = asyncio.get_running_loop()
            loop.call_later(self._config.detection, self._greet_again, peer)

    def _greet_again(self, peer: Peer) -> None:
        """Its answer should have come."""
        if self._peers.get(peer.site) is peer and not peer.up:
            self._greet(peer)

    def _tell_changes(self) -> None:
        for peer in self._peers:
            if (change := peer.told.update(self._looking.announced(peer.rules))) is not None:
                peer.tell(CHANGE, change)

    def _on_hello(self, peer: Peer, _: str, body: msgspec.Raw, __: bytes) -> None:
        hello = _hello.read(body)
        peer.named(hello.link)
        peer.table.set(hello.table)
        began = not peer.up
        if began:
            peer.up, peer.met, peer.missing = True, True, None
            peer.channel.resume(hello.came)
        if not hello.known:
            self._greet(peer)
        if began:
            self._peers.came_up(peer)
            self._looking.look()
        self._peers.wants(peer)

    def _on_change(self, peer: Peer, _: str, body: msgspec.Raw, __: bytes) -> None:
        if peer.table.change(_change.read(body)):
            self._peers.wants(peer)
        else:
            peer.table.version = -1
            self._greet(peer)

    def _on_bye(self, peer: Peer, _: str, __: msgspec.Raw, ___: bytes) -> None:
        self._peers.leaves(peer)

    def close(self) -> None:
        """Take leave of all."""
        for peer in list(self._peers):
            peer.tell(wire.BYE, None)
            self._peers.down(peer.site, "closed")
