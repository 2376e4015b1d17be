"""A link at work, in its event loop: what it consists of, and what happens when something comes.

Others add to it what frames of a lane mean (`lanes`), what is told in the control lane (`told`),
and what is to happen when a peer comes, goes, or wants something else.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection
from functools import partial
from typing import Annotated, Any

import msgspec

from shmbus.aio.attach import attach_as
from shmbus.aio.endpoint import Endpoint
from shmbus.aio.line import NO_LINE
from shmbus.aio.posting import EVENT
from shmbus.aio.threads import in_thread
from shmbus.errors import BusError, LinkFailed, NoSuchSite, SiteTaken
from shmbus.events import LinkDown, LinkUp
from shmbus.shared._kernel import monotonic_ns
from shmbus.views import EndpointInfo

from . import keys, wire
from .arrivals import Ack
from .channel import Channel
from .config import LinkConfig
from .keeper import Tell
from .losses import TYPES
from .membership import Change, Down, Membership, Rival, Up, rival
from .pauses import Pauses
from .peer import Peer
from .reach import Reach
from .rules import Rules
from .session import Frame, Session, Sign
from .status import LinkStatus, PeerStatus
from .tables import Away, Table, announced
from .tables import Change as TableChange

log = logging.getLogger("shmbus")

OnFrame = Callable[[Peer, str, msgspec.Raw, bytes], None]
"""Gets the peer, the type in the names of the space, the lane's body, and the payload. Raises
`Garbage`."""

COALESCED = 0.02
"""Seconds in which changes of the bus's routes become one."""

ACKNOWLEDGED = 0.05
"""Seconds after which a frame that came is acknowledged, at the latest."""

CONCURRENCY = 1 << 16
"""Messages of the bus that are worked on at a time. A request is until its answer has come, which
shall keep nobody else's from being asked."""


HELLO, BYE = "hello", "bye"
"""In the control lane: what this link's bus wants, and that the link ends in good order."""

FORGOTTEN = 3600.0
"""Seconds for which what a site that was cut off would get is counted as lost for it."""

_REASONS = {
    "left": "its link has ended",
    "gone": "its link has ended, or is not heard of any more",
    "restarted": "its link was started again",
    "closed": "the link here ends",
}


class Hello(msgspec.Struct, array_like=True, frozen=True):
    """What two links say to each other first."""

    table: Table
    known: bool
    """Whether the other's table has come."""
    came: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
    """The number of the last frame of the other run that has come."""
    link: Annotated[str, msgspec.Meta(max_length=48)]
    """The link's endpoint on its bus."""


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


_hello = wire.Reader(Hello)
_change = wire.Reader(TableChange)
_ack = wire.Reader(Ack)
_lost = wire.Reader(Lost)


class Node:
    """That of one link."""

    def __init__(
        self,
        bus: str | None,
        config: LinkConfig,
        run: str,
        keep: Tell | None = None,
        former: Collection[str] = (),
    ) -> None:
        self.config, self.run = config, run
        self.keep = keep
        """Has this link's keeper do something; None: it has none."""
        self.former = former
        """The sites that may have what lies there."""
        self._bus = bus
        self.endpoint: Endpoint
        self.peers: dict[str, Peer] = {}
        """The other sites whose tokens are there."""
        self.lanes: dict[str, OnFrame] = {}
        """What the frames of a lane are given to."""
        self.told: dict[str, OnFrame] = {
            HELLO: self._on_hello,
            "change": self._on_change,
            "ack": self._on_ack,
            "lost": self._on_lost,
        }
        """What the frames of the control lane are given to, by what they say."""
        self.on_up: list[Callable[[Peer], None]] = []
        """Called when a peer can be talked to."""
        self.on_down: list[Callable[[Peer, str], None]] = []
        """Called when it cannot any more, with the reason."""
        self.on_close: list[Callable[[], Awaitable[None] | None]] = []
        """Called before the link leaves its bus."""
        self.unconfirmed: Callable[[str], int] = lambda site: 0
        """How many messages for a site are held until that has confirmed them."""
        self.on_wants: list[Callable[[Peer], None]] = []
        """Called when what a peer's endpoints want may have changed."""
        self.on_heard: list[Callable[[Peer], None]] = []
        """Called when messages of a peer have come, once for many."""
        self.on_measured: list[Callable[[Peer], None]] = []
        """Called when more is known of a peer's clock, and of how far away it is."""
        self.on_refused: list[Callable[[], None]] = []
        """Called when sites that speak another version have come, or have gone."""
        self.on_settled: list[Callable[[], None]] = []
        """Called when what the peers want is subscribed to, and what they handle is handled."""
        self.unsettled: set[object] = set()
        """What is still to be done for that."""
        self.ping_peer: Callable[[Peer], Awaitable[float | None]]
        """Seconds to it and back; None: it has gone."""
        self._known: dict[str, Peer] = {}  # those that are not there at the moment, too
        self._unacknowledged: set[Peer] = set()
        self._acknowledging: asyncio.TimerHandle | None = None
        self.garbage = self.stale = 0
        self._membership = Membership(config.site, run)
        self._rivals: set[str] = set()
        self._rivals_changed = asyncio.Event()
        self._joined = False
        self._outliving: asyncio.Task[None] | None = None
        self._inbox = keys.Inbox(config.space, config.site)
        self._seen: list[EndpointInfo] = []  # on this bus, when it was looked last
        self._tables: dict[
            Rules, dict[str, Away]
        ] = {}  # made of that, by the rules that were applied
        self._of_sites: dict[str, Rules] = {}
        self._looking: asyncio.Task[None] | None = None
        self._look_again = False
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done, with the reason, when the link cannot go on."""

    # Beginning and ending --------------------------------------------------------------------

    async def attach(self) -> None:
        """Attach to the bus. Raises what attaching raises."""
        self.endpoint = await attach_as(
            f"@{self.config.name}", self._bus, reconnect="always", concurrency=CONCURRENCY
        )
        self.bus = self.endpoint.bus.name
        await self.endpoint.subscribe(
            "$bus.routes", lambda _: self.routes_changed(), overflow="latest"
        )

    async def join(self) -> None:
        """Then join the space. Raises `NotSupported`, `LinkFailed` and `SiteTaken`."""
        config = self.config
        await self._apart(self._require_sole)
        await self._see()
        self._session = Session(config, self.bus, self._on_frames, self._on_signs)
        await self._apart(self._session.open)
        self._reach = Reach(config, self._session.connected)
        await self._apart(partial(self._session.watch_connections, self._reach.look))
        self._reach.look()
        await self._apart(partial(self._session.watch, keys.tokens(config.space)))
        await self._alone()
        await self._apart(
            partial(self._session.receive, keys.inbox(config.space, config.site)),
        )
        token = keys.token(config.space, config.site, self.run)
        self._joined = True
        await self._apart(partial(self._session.declare_token, token))
        self.routes_changed()

    def end(self, why: BusError) -> None:
        """It cannot go on, for this reason."""
        if not self.ended.done():
            self.ended.set_exception(why)

    async def _apart(self, function: Callable[[], None]) -> None:
        """Call what may wait, in a thread."""
        await in_thread(self.endpoint.name, "session", function)

    def _require_sole(self) -> None:
        """Raises `LinkFailed` where another link joins this bus to the same space: all would cross
        twice."""
        space = self.config.space
        for other in self.endpoint.bus.sites():
            if (other.state, other.space) == ("here", space) and other.link != self.endpoint.name:
                raise LinkFailed(
                    bus=self.bus,
                    site=self.config.site,
                    reason=f"{other.link!r} joins it to space {space!r} already, as site "
                    f"{other.name!r}",
                    remedy="End that link, or give this one another space",
                )

    async def _alone(self) -> None:
        """Wait until no other link has this site's name. Raises `SiteTaken`."""
        config = self.config
        mine = keys.token(config.space, config.site, "*")
        found: list[str] = []
        await self._apart(
            lambda: found.extend(self._session.tokens(mine, config.detection)),
        )
        other = rival(config.site, self.run, found)
        if other is not None:
            self._rivals.add(other)
            await self._outlive()

    async def _outlive(self) -> None:
        """Wait for the end of rivals. Raises `SiteTaken`."""
        try:
            async with asyncio.timeout(self.config.detection):
                while self._rivals:
                    self._rivals_changed.clear()
                    await self._rivals_changed.wait()
        except TimeoutError:
            raise SiteTaken(
                space=self.config.space,
                site=self.config.site,
                run=min(self._rivals),
                seconds=self.config.detection,
            ) from None

    async def close(self) -> None:
        """Leave the space and the bus."""
        if self._looking is not None:
            self._looking.cancel()
        if hasattr(self, "_reach"):
            self._reach.close()
        if self._acknowledging is not None:
            self._acknowledging.cancel()
        if self._outliving is not None:
            self._outliving.cancel()
        for site, peer in list(self.peers.items()):
            peer.tell(BYE, None)
            self._down(site, "closed")
        for call in self.on_close:
            try:
                if (closing := call()) is not None:
                    await closing
            except BusError as why:
                log.warning("link %s: %s", self.config.site, why)
        for peer in self._known.values():
            peer.channel.close()
        if hasattr(self, "_session"):
            await self._apart(self._session.close)
        if hasattr(self, "endpoint"):
            await self.endpoint.close()

    # Sites -----------------------------------------------------------------------------------

    def _on_signs(self, signs: list[Sign]) -> None:
        refused = dict(self._membership.refused)
        for key, there in signs:
            for change in self._membership.sign(key, there):
                self._changed(change)
        if self._membership.refused != refused:
            for call in self.on_refused:
                call()

    def _changed(self, change: Change) -> None:
        match change:
            case Up(site, run):
                self._meet(site, run)
            case Down(site, _, reason):
                self._down(site, reason)
            case Rival(run, there):
                (self._rivals.add if there else self._rivals.discard)(run)
                self._rivals_changed.set()
                if there and self._joined and self._outliving is None and run < self.run:
                    loop = asyncio.get_running_loop()
                    self._outliving = loop.create_task(self._outlive_later())

    async def _outlive_later(self) -> None:
        """Two links of one site had not seen each other when they began: one of them gives way."""
        try:
            await self._outlive()
        except SiteTaken as why:
            self.end(why)
        self._outliving = None

    def _meet(self, site: str, run: str) -> None:
        peer = self._known.get(site)
        if peer is not None and peer.run == run:
            peer.came_again()
        else:
            if peer is not None:
                peer.channel.close()
            peer = self._known[site] = self._new(site, run, peer)
        self.peers[site] = peer
        peer.told.update(self._announced(peer))
        self._greet(peer)

    def _new(self, site: str, run: str, former: Peer | None) -> Peer:
        config = self.config
        channel = Channel(
            keys.Outbox(config.space, config.site, site),
            self.run,
            run,
            self._session.put,
            window=config.window,
            buffer=config.buffer,
            congestion=config.congestion,
        )
        peer = Peer(site, run, self._rules(site), channel)
        if former is not None:
            peer.count_on(former)
        return peer

    def _greet(self, peer: Peer) -> None:
        known = peer.table.version >= 0
        hello = Hello(peer.told.table(), known, peer.arrivals.seq, self.endpoint.name)
        peer.tell(HELLO, hello)
        if not peer.up:
            loop = asyncio.get_running_loop()
            loop.call_later(self.config.detection, self._greet_again, peer)

    def _greet_again(self, peer: Peer) -> None:
        """Its answer should have come."""
        if self.peers.get(peer.site) is peer and not peer.up:
            self._greet(peer)

    def _down(self, site: str, reason: str) -> None:
        peer = self.peers.pop(site, None)
        if peer is None:
            return  # this link ends, and has taken leave of it
        was_up, peer.up = peer.up, False
        if reason != "closed":
            peer.channel.cut()
            if peer.leaves:
                reason = "left"
            elif was_up:
                self._miss(peer)
        if was_up:
            for call in self.on_down:
                call(peer, reason)
        if peer.announced:
            peer.announced = False
            self._announce("$bus.link.down", LinkDown(**self._facts(peer), reason=_REASONS[reason]))

    def _miss(self, peer: Peer) -> None:
        """It has gone without a word, and misses what it wants until it is there again."""
        missing = peer.missing = peer.table

        def forget() -> None:
            known = self._known[peer.site]
            if known.missing is missing:
                self._forget(known)

        asyncio.get_running_loop().call_later(FORGOTTEN, forget)

    def _forget(self, peer: Peer) -> None:
        """It does not come again soon."""
        peer.missing = None
        for wants in self.on_wants:
            wants(peer)

    def settled(self, what: object) -> None:
        """This is done of what the peers want."""
        self.unsettled.discard(what)
        if self.unsettled:
            return
        for settled in self.on_settled:
            settled()
        for peer in self.peers.values():
            if peer.up and not peer.announced:
                peer.announced = True
                self._announce("$bus.link.up", LinkUp(**self._facts(peer)))

    def _facts(self, peer: Peer) -> dict[str, Any]:
        return {
            "site": peer.site,
            "run": peer.run,
            "link": self.endpoint.name,
            "space": self.config.space,
            "round_trip": peer.round_trip,
        }

    def _announce(self, type: str, event: LinkUp) -> None:
        try:
            self.endpoint._looped.post(EVENT, 0, type, event, NO_LINE)
        except BusError as why:
            log.debug("link %s: %s", self.config.site, why)

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
            for up in self.on_up:
                up(peer)
            self.routes_changed()
        for wants in self.on_wants:
            wants(peer)

    def _on_bye(self, site: str, head: wire.Head) -> None:
        """Its link ends in good order. Its token may have gone before."""
        peer = self._known.get(site)
        if peer is None or head.run != peer.run or head.to != self.run:
            self.stale += 1
            return
        peer.leaves = True
        if peer.missing is not None:
            self._forget(peer)

    def _on_ack(self, peer: Peer, _: str, body: msgspec.Raw, __: bytes) -> None:
        ack = _ack.read(body)
        peer.channel.acknowledge(ack.seq, ack.missing)

    def _on_lost(self, peer: Peer, _: str, body: msgspec.Raw, __: bytes) -> None:
        for type, count in _lost.read(body).by_type:
            peer.lose(type, count)

    def _on_change(self, peer: Peer, _: str, body: msgspec.Raw, __: bytes) -> None:
        if not peer.table.change(_change.read(body)):
            peer.table.version = -1
            self._greet(peer)
            return
        for wants in self.on_wants:
            wants(peer)

    def nearest(self, sites: list[Peer]) -> list[Peer]:
        """The same, the nearest first."""
        if len(sites) < 2:
            return sites
        return sorted(sites, key=lambda p: (p.clock.round_trip_ns, p.site))

    def sites_for(self, type: str) -> list[Peer]:
        """The peers that handle this type of this bus's, the nearest first."""
        found = []
        for peer in self.peers.values():
            there = peer.rules.outward(type)
            if there is not None and peer.up and peer.table.handles(there):
                found.append(peer)
        return self.nearest(found)

    def known(self) -> list[Peer]:
        """All peers that were there since this link began, by name."""
        return [peer for _, peer in sorted(self._known.items())]

    @property
    def refused(self) -> dict[str, str]:
        """Sites whose links speak another version, and which."""
        return self._membership.refused

    def peer(self, site: str) -> Peer:
        """That of this name. Raises `NoSuchSite`."""
        peer = self.peers.get(site)
        if peer is None or not peer.up:
            there = tuple(sorted(p.site for p in self.peers.values() if p.up))
            raise NoSuchSite(space=self.config.space, site=site, there=there)
        return peer

    async def ping(self, site: str) -> float:
        """Seconds to it and back, measured now. Raises `NoSuchSite`."""
        while (took := await self.ping_peer(self.peer(site))) is None:
            pass  # it has gone, or is there anew
        return took

    # What this bus wants ---------------------------------------------------------------------

    def routes_changed(self) -> None:
        """The routes of the bus have changed: tell the peers what is wanted now."""
        self._look_again = True
        if self._looking is None or self._looking.done():
            self._looking = asyncio.get_running_loop().create_task(self._look())

    async def _look(self) -> None:
        pauses = Pauses()
        while self._look_again:
            await asyncio.sleep(COALESCED)
            self._look_again = False
            try:
                await self._see()
            except BusError as why:
                log.debug("link %s: %s", self.config.site, why)
                self._look_again = True
                await asyncio.sleep(pauses.next())
                continue
            pauses.over()
            for peer in self.peers.values():
                if (change := peer.told.update(self._announced(peer))) is not None:
                    peer.tell("change", change)

    async def _see(self) -> None:
        there = self.endpoint.bus.endpoints
        found = await in_thread(self.endpoint.name, "looking", there)
        before = {(e.name, e.pid, e.generation): e for e in self._seen}
        # What the dispatcher does not route by yet is as it was; it tells when it does.
        routed = (e if e.routed else before.get((e.name, e.pid, e.generation)) for e in found)
        self._seen = [e for e in routed if e is not None]
        self._tables.clear()

    def _rules(self, site: str) -> Rules:
        """Towards this site; all that have none of their own share one."""
        own = site if site in self.config.sites else ""
        if own not in self._of_sites:
            self._of_sites[own] = self.config.towards(site)
        return self._of_sites[own]

    def _announced(self, peer: Peer) -> dict[str, Away]:
        """What is told to this peer, as that was seen last; to all with the same rules the same."""
        if peer.rules not in self._tables:
            self._tables[peer.rules] = announced(peer.rules, self._seen)
        return self._tables[peer.rules]

    # Frames ----------------------------------------------------------------------------------

    def _on_frames(self, frames: list[Frame]) -> None:
        for key, attachment, payload in frames:
            try:
                self._frame(key, attachment, payload)
            except wire.Garbage as why:
                self.garbage += 1
                log.debug("link %s: garbage at %s: %s", self.config.site, key, why)
            except Exception:  # a mistake of ours, which shall not cost other frames
                log.exception("link %s: the frame at %s is lost", self.config.site, key)
        for peer in list(self._unacknowledged):
            for heard in self.on_heard:
                heard(peer)
            if peer.arrivals.due:
                self.acknowledge(peer)
        if self._unacknowledged and self._acknowledging is None:
            loop = asyncio.get_running_loop()
            self._acknowledging = loop.call_later(ACKNOWLEDGED, self._acknowledge_all)

    def _frame(self, key: str, attachment: bytes, payload: bytes) -> None:
        address = self._inbox.read(key)
        if address is None:
            raise wire.Garbage("its key")
        head = wire.read_head(attachment)
        if address.lane == wire.CONTROL and address.type == BYE:
            self._on_bye(address.source, head)
            return
        peer = self.peers.get(address.source)
        lane, type = address.lane, address.type
        if peer is None or head.run != peer.run or head.to != self.run:
            if head.to != self.run or (lane, type) != (wire.CONTROL, HELLO):
                self.stale += 1  # else its token is yet to come: it greets again
            return
        found = self.told.get(type) if lane == wire.CONTROL else self.lanes.get(lane)
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

    # Facts -----------------------------------------------------------------------------------

    def status(self) -> LinkStatus:
        """Of now."""
        return LinkStatus(
            bus=self.bus,
            space=self.config.space,
            site=self.config.site,
            endpoint=self.endpoint.name,
            run=self.run,
            listening=self._session.listening,
            unreached=dict(self._reach.troubles),
            detection=self.config.detection,
            peers=tuple(
                PeerStatus(
                    site=p.site,
                    run=p.run,
                    up=p.up,
                    round_trip=p.round_trip,
                    endpoints=len(p.table.endpoints),
                    sent=p.channel.messages,
                    sent_bytes=p.channel.payload_bytes,
                    received=p.received,
                    received_bytes=p.received_bytes,
                    lost_there=p.channel.lost.total(),
                    lost_here=p.lost.total(),
                    lost_by_type=dict(p.channel.lost),
                    buffered=p.channel.waiting_bytes,
                    under_way=p.channel.under_way,
                    unconfirmed=self.unconfirmed(p.site),
                    garbage=p.garbage,
                    **_clock(p),
                )
                for _, p in sorted(self.peers.items())
            ),
            refused=dict(self._membership.refused),
            garbage=self.garbage,
            stale=self.stale,
            overrun=self._session.overrun,
        )


def _clock(peer: Peer) -> dict[str, float]:
    """What is known of its clock, for a status."""
    known = peer.clock.known
    if known is None:
        return {}
    error = known.error_ns(monotonic_ns())
    return {"ahead": known.ahead_ns / 1e9, "ahead_error": error / 1e9}
