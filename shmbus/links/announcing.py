"""What a link tells its bus of sites: that one is up, once it can be asked, and that it is down."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from shmbus.errors import BusError
from shmbus.events import LinkDown, LinkUp

if TYPE_CHECKING:
    from .node import Node
    from .peer import Peer

log = logging.getLogger("shmbus")

_REASONS = {
    "left": "its link has ended",
    "gone": "its link has ended, or is not heard of any more",
    "restarted": "its link was started again",
    "closed": "the link here ends",
}


class Announcing:
    """That of one link. Whoever else is to know that a site is up or down is told before."""

    def __init__(self, node: Node) -> None:
        self._node = node
        node.settling.on_settled.append(self._settled)
        node.peers.on_down.append(self._down)

    def _settled(self) -> None:
        for peer in self._node.peers:
            if peer.up and not peer.announced:
                peer.announced = True
                self._publish("$bus.link.up", LinkUp(**self._facts(peer)))

    def _down(self, peer: Peer, reason: str) -> None:
        if peer.announced:
            peer.announced = False
            self._publish("$bus.link.down", LinkDown(**self._facts(peer), reason=_REASONS[reason]))

    def _facts(self, peer: Peer) -> dict[str, Any]:
        return {
            "site": peer.site,
            "run": peer.run,
            "link": self._node.endpoint.name,
            "space": self._node.config.space,
            "round_trip": peer.round_trip,
        }

    def _publish(self, type: str, event: LinkUp) -> None:
        try:
            self._node.relay.announce(type, event)
        except BusError as why:
            log.debug("link %s: %s", self._node.config.site, why)
