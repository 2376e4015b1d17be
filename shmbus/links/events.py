"""Events, from this bus to others and from others to this bus."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import wire
from .coming import Coming
from .histories import Histories
from .leaving import Leaving
from .wanting import Wanting

if TYPE_CHECKING:
    from .node import Node
    from .peer import Peer


class Events:
    """Both directions, and what this link subscribes to for others."""

    def __init__(self, node: Node) -> None:
        self._leaving, self._coming = Leaving(node), Coming(node)
        self._wanting = Wanting(node)
        self._histories = Histories(node, self._leaving)
        node.frames.lanes[wire.EVENT] = self._coming.take
        node.peers.on_wants.append(self._changed)
        node.peers.on_down.append(self._gone)
        node.on_close.append(self.close)
        self._leaving.begin()

    def _changed(self, peer: Peer) -> None:
        self._leaving.forget()
        self._wanting.look()
        self._histories.send(peer)

    def _gone(self, peer: Peer, _: str) -> None:
        self._leaving.drop(peer)
        self._histories.forget(peer)
        self._wanting.look()

    def close(self) -> None:
        """End both."""
        self._leaving.close()
        self._coming.close()
        self._histories.close()
        self._wanting.close()
