"""Another site, as this link sees it."""

from __future__ import annotations

from collections import Counter

from shmbus.endpoint._kernel import Encoded, Origin
from shmbus.shared._kernel import monotonic_ns
from shmbus.shared.frames import Bytes

from .arrivals import Arrivals
from .channel import Channel
from .clock import Clock
from .rules import Rules
from .tables import Incoming, Outgoing
from .wire import Garbage, packed


class Peer:
    """One run of another site's link."""

    def __init__(self, site: str, run: str, rules: Rules, channel: Channel) -> None:
        self.site, self.run, self.rules, self.channel = site, run, rules, channel
        self.told, self.table, self.arrivals = Outgoing(rules), Incoming(), Arrivals()
        self.up = False
        """Its table has come: it can be talked to."""
        self.announced = False
        """What it wants is subscribed to, and the bus was told that it is up."""
        self.clock = Clock()
        self.received = self.received_bytes = 0
        """Events that have come, and bytes of their payloads."""
        self.lost: Counter[str] = Counter()
        """Messages that should have come and were lost, as it says, by type in the space."""
        self.untold: Counter[str] = Counter()
        """Those of them that no receiver has been told of yet."""
        self.garbage = 0
        """Frames in its name that no link sends."""

    @property
    def round_trip(self) -> float | None:
        """Seconds to it and back; None: not measured yet."""
        known = self.clock.known
        return None if known is None else self.clock.round_trip_ns / 1e9

    def payload(
        self, source: str, sent_ns: int, flags: int, data: bytes, group: str = ""
    ) -> Encoded:
        """What an endpoint there has sent when its clock showed `sent_ns`, for this bus; with a
        `group`, for a member of that. Raises `Garbage`."""
        here, error = self.clock.here(sent_ns, monotonic_ns())
        try:
            origin = Origin(source, self.site, here, error, sent_ns, 0)
            return Encoded(flags, data, origin, group)
        except ValueError as why:
            raise Garbage(f"payload: {why}") from None

    def send(self, lane: str, type: str, body: object, payload: Bytes = b"") -> None:
        """Send a frame, behind those that were sent before. `type`: in the names of the space."""
        self.channel.send(lane, type, packed(body), payload)

    def tell(self, what: str, body: object) -> None:
        """Send a frame of the control lane: ahead of all that waits, and not numbered."""
        self.channel.tell(what, body)

    def count_on(self, former: Peer) -> None:
        """It has the place of a former run, whose counts go on."""
        self.received, self.received_bytes = former.received, former.received_bytes
        self.lost, self.garbage = former.lost, former.garbage
        self.channel.count_on(former.channel)

    def came_again(self) -> None:
        """The same run is there after a cut: what it wants it tells anew."""
        self.table = Incoming()

    def __repr__(self) -> str:
        return f"<peer {self.site} run={self.run}>"
