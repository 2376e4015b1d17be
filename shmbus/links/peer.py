"""Another site, as this link sees it."""

from __future__ import annotations

from collections.abc import Iterable

from shmbus.endpoint._kernel import Encoded, Origin
from shmbus.errors import InvalidName
from shmbus.shared import names
from shmbus.shared._kernel import monotonic_ns
from shmbus.shared.frames import Bytes

from .arrivals import Arrivals
from .channel import Channel, Lost
from .clock import Clock
from .losses import OTHER, Losses
from .rules import Rules
from .tables import Incoming, Outgoing, Wanted
from .wire import Garbage, packed


class Peer:
    """One run of another site's link."""

    def __init__(self, site: str, run: str, rules: Rules, channel: Channel) -> None:
        self.site, self.run, self.rules, self.channel = site, run, rules, channel
        self.told, self.table, self.arrivals = Outgoing(), Incoming(), Arrivals()
        self.link = "@link"
        """Its endpoint there, once it has told that."""
        self.up = False
        """Its table has come: it can be talked to."""
        self.met = False
        """It has been up, or a former run of it has."""
        self.leaves = False
        """It has said that its link ends."""
        self.missing: Incoming | None = None
        """What it wanted, while it is cut off: it misses that. None: it misses nothing."""
        self.announced = False
        """What it wants is subscribed to, and the bus was told that it is up."""
        self.clock = Clock()
        self.received = self.received_bytes = 0
        """Messages that have come, and bytes of their payloads."""
        self.lost = Losses()
        """Messages that should have come and were lost, as it says, or that this bus did not take,
        by type in the space."""
        self.untold = Losses()
        """Those of them that no receiver has been told of yet."""
        self.garbage = 0
        """Frames in its name that no link sends."""

    def lose(self, type: str, count: int = 1) -> None:
        """So many messages of a type of the space's, that should have come, are lost."""
        self.untold[self.lost.count(type, count)] += count

    def take_untold(self, type: str) -> int:
        """How many of a type's were lost that no receiver has been told of: one is told now."""
        untold = self.untold
        return untold.pop(type if type in self.lost else OTHER, 0) if untold else 0

    def named(self, link: str) -> None:
        """So its endpoint there is called. Raises `Garbage`."""
        try:
            self.link = names.check_link(link)
        except InvalidName as why:
            raise Garbage(str(why)) from None

    @property
    def link_there(self) -> str:
        """Who is at fault there, if nobody knows better."""
        return f"{self.link}@{self.site}"

    @property
    def round_trip(self) -> float | None:
        """Seconds to it and back; None: not measured yet."""
        known = self.clock.known
        return None if known is None else self.clock.round_trip_ns / 1e9

    def receivers(self, type: str) -> tuple[bool, frozenset[str]]:
        """Whether somebody there subscribes to this type of the space's outside of groups, and
        which groups do. Of one that is cut off: who misses it."""
        if self.up:
            return self.table.receivers(type)
        if self.missing is None:
            return False, frozenset()
        return self.missing.receivers(type)[0], frozenset()

    def wants(self) -> Iterable[Wanted]:
        """What is to be subscribed to for it."""
        if self.up:
            return self.table.wants()
        if self.missing is None:
            return ()
        return (wanted for wanted in self.missing.wants() if wanted.group is None)

    def payload(
        self,
        source: str,
        sent_ns: int,
        flags: int,
        data: bytes,
        group: str = "",
        lost: int = 0,
    ) -> Encoded:
        """What an endpoint there has sent when its clock showed `sent_ns`, for this bus; with a
        `group`, for a member of that. `lost`: how many of its type before it. Raises `Garbage`."""
        here, error = self.clock.here(sent_ns, monotonic_ns())
        try:
            origin = Origin(source, self.site, here, error, sent_ns, min(lost, 2**32 - 1))
            return Encoded(flags, data, origin, group)
        except ValueError as why:
            raise Garbage(f"payload: {why}") from None

    def send(
        self,
        lane: str,
        type: str,
        body: object,
        payload: Bytes = b"",
        lost: Lost | None = None,
    ) -> None:
        """Send a frame, behind those that were sent before. `type`: in the names of the space.
        `lost`: called if it does not come there, once that is known."""
        self.channel.send(lane, type, packed(body), payload, lost=lost)

    def tell(self, what: str, body: object) -> None:
        """Send a frame of the control lane: ahead of all that waits, and not numbered."""
        self.channel.tell(what, body)

    def count_on(self, former: Peer) -> None:
        """It has the place of a former run, whose counts go on."""
        self.received, self.received_bytes = former.received, former.received_bytes
        self.lost, self.untold, self.garbage = former.lost, former.untold, former.garbage
        self.met, self.missing = former.met, former.missing
        self.channel.count_on(former.channel)

    def came_again(self) -> None:
        """The same run is there after a cut: what it wants it tells anew."""
        self.table = Incoming()

    def __repr__(self) -> str:
        return f"<peer {self.site} run={self.run}>"
