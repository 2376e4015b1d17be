"""Another site, as this link sees it."""

from __future__ import annotations

from .channel import Channel
from .rules import Rules
from .tables import Incoming, Outgoing
from .wire import packed


class Peer:
    """One run of another site's link."""

    def __init__(self, site: str, run: str, rules: Rules, channel: Channel) -> None:
        self.site, self.run, self.rules, self.channel = site, run, rules, channel
        self.told, self.table = Outgoing(rules), Incoming()
        self.up = False
        """Its table has come: it can be talked to."""
        self.round_trip: float | None = None
        """Seconds; None: not known yet."""

    def send(self, lane: str, type: str, body: object, payload: bytes | memoryview = b"") -> None:
        """Send a frame, behind those that were sent before. `type`: in the names of the space."""
        self.channel.send(lane, type, packed(body), payload)

    def tell(self, what: str, body: object) -> None:
        """Send a frame of the control lane: ahead of all that waits, and not numbered."""
        self.channel.tell(what, body)

    def __repr__(self) -> str:
        return f"<peer {self.site} run={self.run}>"
