"""Delivery that is confirmed: commands, and events for queue groups, are kept until they are on the
other bus.

For each site there is an endpoint that handles what is handled there, and is a member of the groups
there. It holds each message until the site's link has confirmed it, so a link that is killed leaves
them to its successor, and the other link is killed or cut off without loss: they are sent again.

Each message has an id. The receiving link publishes a message and a kept value with the ids of the
last ones, by one store. So who receives after it knows them, and nothing is published twice. An id
is settled once its message is done here: it cannot come again, and is told with the next message.

Modelled in tests/models/confirming.py.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import msgspec

from shmbus.aio.attach import attach_as
from shmbus.aio.threads import in_thread
from shmbus.endpoint._kernel import Encoded, ways
from shmbus.errors import BusError, Disconnected, SetupError
from shmbus.limits import MAX_NAME
from shmbus.settings import MIB, Settings
from shmbus.shared._kernel import monotonic_ns
from shmbus.shared.layout import Kind
from shmbus.shared.patterns import covers

from .config import LinkConfig
from .keeper import Keep, Kept, endpoint_of
from .pauses import Pauses
from .tables import Wanted
from .wire import CONFIRMED, Reader

if TYPE_CHECKING:
    from shmbus.aio.endpoint import Endpoint
    from shmbus.aio.subscribing import Subscription
    from shmbus.endpoint._kernel import Message

    from .node import Node
    from .peer import Peer

log = logging.getLogger("shmbus")

HELD = 32
"""Messages that are held for a site at a time. An endpoint can hold 64."""

NOTED = 256
"""Ids in a note. Those that are not settled are fewer: `HELD`, and as many again for each time that
the sending link was killed, until what it held has come again."""

AGAIN = 5.0
"""Seconds until a message that is not confirmed is sent again though nothing is known to have
failed, then twice as long."""

TOGETHER = 64 << 10  # bytes that are published by one store
_LONGEST = 60.0
_PAUSE = 0.01

SETTLED = 10.0
"""Seconds in which what a link that was killed had sent is forwarded. What comes beyond that, and
before it is, is not confirmed, and so comes again."""

AWAY = 30.0
"""Seconds for which messages for a site are accepted that is not there: it may be restarted."""

KEPT = 3600.0
"""Seconds after that for which it keeps those that it holds; then it gives them back."""

NOTE = "$bus.link.done"
"""What the types of notes begin with; behind it the site that the messages came from."""

_RING = 8 * MIB  # of which a quarter may be held: more would be let go

_SETTINGS = Settings(in_bytes=_RING, prefetch=HELD)

_Id = Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]
_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=48)]
_Count = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class Sure(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A message, in front of its payload."""

    source: _Name
    sent_ns: _Count
    group: Annotated[str, msgspec.Meta(max_length=48)]
    """Of whose members one gets it. Empty: it is a command."""
    flags: Annotated[int, msgspec.Meta(ge=0, le=0xFFFF)]
    """Of its payload."""
    settled: tuple[_Id, ...] = ()
    """What is not sent again."""
    asked: bool = False
    """It is only asked whether it is published there; the payload is left out."""


class Receipt(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What became of messages."""

    published: tuple[_Id, ...] = ()
    refused: tuple[tuple[_Id, str], ...] = ()
    """Those that nobody is there for any more, with the reason."""
    unknown: tuple[_Id, ...] = ()
    """Those that were asked about, and have not been published."""


_sure, _receipt = Reader(Sure), Reader(Receipt)


def identity(source: str, sent_ns: int, group: str) -> bytes:
    """The id of a message among those of one site."""
    name = f"{source}/{group}".encode()
    return sent_ns.to_bytes(8, "big") + hashlib.blake2b(name, digest_size=8).digest()


def confirms(config: LinkConfig, wanted: Wanted) -> bool:
    """Whether this interest of another site, in the names of this bus, is served here, and not with
    what is sent at most once. With a key a group's order counts for more."""
    if wanted.role == "subscribe" and (wanted.group is None or wanted.key is not None):
        return False
    return config.confirms(wanted.pattern)


def groups_held(config: LinkConfig, peer: Peer, there: str) -> frozenset[str]:
    """The groups of a peer for which events of this type are confirmed, named as in the space."""
    return frozenset(
        wanted.group
        for wanted in peer.table.wants()
        if wanted.group is not None and covers(wanted.pattern, there)
        for pattern in peer.rules.offered(wanted.pattern)
        if confirms(config, msgspec.structs.replace(wanted, pattern=pattern))
    )


def group_of(site: str, group: str) -> str:
    """The group of its own that holds here what is for this group of the site, where groups stay
    local: another one for each, also where both names together are too long."""
    name = f"{site}.{group}"
    if len(name) <= MAX_NAME and "." not in site:
        return name
    digest = hashlib.blake2b(f"{site}/{group}".encode(), digest_size=8).hexdigest()
    return f"{name[: MAX_NAME - len(digest) - 1]}.{digest}"


class Ids:
    """Those of the last messages of one site."""

    def __init__(self, content: bytes = b"") -> None:
        self._there = dict.fromkeys(content[i : i + 16] for i in range(0, len(content) - 15, 16))

    def __contains__(self, id: bytes) -> bool:
        return id in self._there

    def settle(self, ids: Iterable[bytes]) -> None:
        """These do not come again."""
        for id in ids:
            self._there.pop(id, None)

    def add(self, ids: Iterable[bytes]) -> None:
        """These are published."""
        for id in ids:
            self._there[id] = None
        while len(self._there) > NOTED:
            del self._there[next(iter(self._there))]

    def note(self, more: Iterable[bytes]) -> bytes:
        """What is kept of them, once there are these as well."""
        return b"".join([*self._there, *more][-NOTED:])


# What leaves ----------------------------------------------------------------------------------


class _Held:
    """A message that is not confirmed yet."""

    def __init__(self, message: Message, group: str, *, asked: bool = False) -> None:
        """`asked`: it is another site's, and it is asked whether this one has it."""
        self.message, self.group, self.asked = message, group, asked
        self.ready = asked
        """It may be sent: no other site has it."""
        self.result: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        """Why it was refused; empty: it is confirmed."""
        self.next, self.pause = 0.0, AGAIN


class Holding:
    """What is held for one site."""

    def __init__(
        self,
        node: Node,
        site: str,
        answer: Callable[[Message], Awaitable[Any]],
        elsewhere: Callable[[Holding, Message, str], Awaitable[bool]],
    ) -> None:
        """`elsewhere`: whether another site has it from a link before this one."""
        self._node, self.site, self._answer = node, site, answer
        self._elsewhere = elsewhere
        self._loop = asyncio.get_running_loop()
        self._held: dict[bytes, _Held] = {}
        self._asked: dict[bytes, _Held] = {}
        self._lapsed = False
        self._settled: list[bytes] = []
        self._there: dict[Kept, Subscription] = {}
        self._wanted: frozenset[Kept] = frozenset()
        self._changing: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._endpoint: Endpoint | None = None
        self.sent = self.again = 0

    @property
    def waiting(self) -> int:
        """Messages that are not confirmed."""
        return len(self._held)

    # Its interests ----------------------------------------------------------------------------

    def want(self, wanted: frozenset[Kept]) -> None:
        """The site wants these now."""
        self._wanted = wanted
        if self._changing is None or self._changing.done():
            self._changing = self._loop.create_task(self._change())

    async def _change(self) -> None:
        pauses, said = Pauses(), ""
        while (wanted := self._wanted) != self._there.keys():
            try:
                endpoint = self._endpoint or await self._attach()
                await self._tell_keeper(endpoint, wanted, now=False)
                for kept in wanted - self._there.keys():
                    self._there[kept] = await self._begin(endpoint, kept)
                for kept in self._there.keys() - wanted:
                    await self._there.pop(kept).close()
                await self._tell_keeper(endpoint, wanted, now=True)
            except BusError as why:
                if str(why) != said:
                    said = str(why)
                    log.warning("link %s: %s", self._node.config.site, why)
                await asyncio.sleep(pauses.next())

    async def _tell_keeper(self, endpoint: Endpoint, wanted: frozenset[Kept], *, now: bool) -> None:
        if (tell := self._node.keep) is not None:
            keep = Keep(endpoint.name, tuple(wanted), now)
            await in_thread(endpoint.name, "keeper", partial(tell, keep))

    async def _attach(self) -> Endpoint:
        name = endpoint_of(self._node.config.name, self.site)
        self._endpoint = endpoint = await attach_as(
            name, self._node.bus, settings=_SETTINGS, reconnect="always", concurrency=HELD
        )
        endpoint.start()
        return endpoint

    async def _begin(self, endpoint: Endpoint, kept: Kept) -> Subscription:
        if kept.group is None:
            return await endpoint._handle(kept.pattern, self._handle, redeliver=True)
        hold = partial(self._hold, kept.of)
        return await endpoint.subscribe(kept.pattern, hold, group=kept.group)

    # Messages ---------------------------------------------------------------------------------

    async def _handle(self, message: Message) -> Any:
        if message.kind == "request":
            return await self._answer(message)
        await self._hold("", message)
        return None

    async def _hold(self, group: str, message: Message) -> None:
        id = identity(message.source, message.sent_ns, group)
        if id in self._held:
            return  # it has come by another pattern of that group as well
        held = self._held[id] = _Held(message, group)
        try:
            if await self._elsewhere(self, message, group):
                return
            held.ready = True
            self._send(id, held)
            refused = await held.result
        finally:
            del self._held[id]
        if refused:
            message.nack(reason=refused)
        else:
            self._settle_later(id)

    def _settle_later(self, id: bytes) -> None:
        """It is confirmed: it cannot come again once it is done, and not before."""
        self._loop.call_soon(self._settled.append, id)

    async def has(self, message: Message, group: str) -> bool:
        """Whether the site has this one from a link before this one. While it is away that is not
        known: waits until `lapse`."""
        if self._lapsed:
            return False
        id = identity(message.source, message.sent_ns, group)
        held = self._asked[id] = _Held(message, group, asked=True)
        try:
            self._send(id, held)
            unknown = await held.result
        finally:
            del self._asked[id]
        if not unknown:
            self._settle_later(id)
        return not unknown

    def _send(self, id: bytes, held: _Held) -> None:
        peer = self._node.peers.get(self.site)
        if peer is None or not peer.up or not held.ready:
            return  # when it is there again, or is known not to be elsewhere
        message = held.message
        there = peer.rules.outward(message.type)
        if there is None:
            self._settle(id, "it may not leave for that site any more")
            return
        payload = message._encoded()
        settled, self._settled = self._settled, []
        sure = Sure(
            message.source, message.sent_ns, held.group, payload.flags, tuple(settled), held.asked
        )
        peer.send(CONFIRMED, there, sure, b"" if held.asked else payload.data)
        self.sent += 1
        held.next = self._loop.time() + held.pause
        if self._timer is None:
            self._timer = self._loop.call_later(AGAIN, self._look)

    def _look(self) -> None:
        """Send again what is not confirmed for long."""
        self._timer, now = None, self._loop.time()
        for id, held in self._all():
            if held.next <= now:
                held.pause = min(2 * held.pause, _LONGEST)
                self.again += 1
                self._send(id, held)
        if (self._held or self._asked) and self._timer is None:
            self._timer = self._loop.call_later(AGAIN, self._look)

    def _all(self) -> list[tuple[bytes, _Held]]:
        return [*self._asked.items(), *self._held.items()]

    def met(self) -> None:
        """The site is there anew: what it has not confirmed is sent again."""
        self._lapsed = False
        for id, held in self._all():
            held.pause = AGAIN
            self.again += 1
            self._send(id, held)

    def take(self, receipt: Receipt) -> None:
        """The site says what became of messages. What is not held was another link's."""
        for id in receipt.published:
            self._settle(id, "")
        for id, reason in receipt.refused:
            self._settle(id, reason or "refused")
        for id in receipt.unknown:
            _end(self._asked.get(id), "unknown")

    def _settle(self, id: bytes, refused: str) -> None:
        _end(self._held.get(id), refused)
        _end(self._asked.get(id), refused)

    def lapse(self) -> None:
        """The site is away for long: what it may have is not waited for any more."""
        self._lapsed = True
        for held in self._asked.values():
            _end(held, "unknown")

    def give_up(self) -> None:
        """The site does not return: give back what is held for it. Who else handles that gets it,
        as what a receiver had that died; where nobody does, it becomes a dead letter."""
        for id in self._held:
            self._settle(id, f"site {self.site} has not returned, and may have it")

    async def close(self) -> None:
        """Give back what is held, and leave."""
        if self._timer is not None:
            self._timer.cancel()
        if self._changing is not None:
            self._changing.cancel()
        if self._endpoint is not None:
            await self._endpoint._ending.close(0.0)  # nothing held is confirmed any more


def _end(held: _Held | None, refused: str) -> None:
    if held is not None and not held.result.done():
        held.result.set_result(refused)


# What comes in --------------------------------------------------------------------------------


class _Came(NamedTuple):
    peer: Peer
    there: str  # its type in the names of the space
    type: str
    sure: Sure
    encoded: Encoded
    id: bytes


class _Unsettled(Exception):
    """What the link before this one has published is not known yet: what came must come again."""


class Receiving:
    """Messages of all sites, published once each."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._ids: dict[str, Ids] = {}
        self._came: deque[_Came] = deque()
        self._work: asyncio.Task[None] | None = None
        self.published = self.known = 0

    def take(self, peer: Peer, type: str, body: msgspec.Raw, payload: bytes) -> None:
        """A frame of the lane. Raises `Garbage`."""
        sure = _sure.read(body)
        here = peer.rules.inward(type)
        id = identity(sure.source, sure.sent_ns, sure.group)
        if here is None:
            why = f"site {self._node.config.site} does not import it"
            self._say(peer, Receipt(refused=((id, why),)))
            return
        flags = 0 if sure.asked else sure.flags
        encoded = peer.payload(sure.source, sure.sent_ns, flags, payload, sure.group)
        self._came.append(_Came(peer, type, here, sure, encoded, id))
        if self._work is None or self._work.done():
            self._work = asyncio.get_running_loop().create_task(self._publish_all())

    async def _publish_all(self) -> None:
        while self._came:
            site = self._came[0].peer.site
            part, size = list[_Came](), 0
            while self._came and self._came[0].peer.site == site and len(part) < HELD:
                size += len(self._came[0].encoded)
                if part and size > TOGETHER:
                    break
                part.append(self._came.popleft())
            try:
                await self._publish(part)
            except _Unsettled:
                log.warning("link %s: its former run is not done with", self._node.config.site)
            except BusError:
                for each in part:
                    await self._publish_alone(each)

    async def _publish_alone(self, came: _Came) -> None:
        try:
            await self._publish([came])
        except (Disconnected, SetupError) as why:  # this bus is not there now: it comes again
            log.debug("link %s: %s", self._node.config.site, why)
        except BusError as why:  # it cannot be published here, such as one that is too large
            self._say(came.peer, Receipt(refused=((came.id, str(why)),)))

    async def _publish(self, part: list[_Came]) -> None:
        """Publish those of one site that are new, and their ids, by one store; then confirm."""
        peer = part[-1].peer
        ids = self._ids.get(peer.site) or await self._begin(peer.site)
        new: dict[bytes, _Came] = {}
        unknown: list[bytes] = []
        for each in part:  # one behind the other: what is settled may lie before that once more
            ids.settle(each.sure.settled)
            if each.id not in ids:
                if each.sure.asked:
                    unknown.append(each.id)
                else:
                    new.setdefault(each.id, each)
        refused = {id: why for id, each in new.items() if (why := self._refusal(each))}
        items = [self._item(each) for id, each in new.items() if id not in refused]
        fresh = [id for id in new if id not in refused]
        if fresh:
            note = (int(Kind.EVENT), ways(True, False), f"{NOTE}.{peer.site}", ids.note(fresh))
            await self._node.endpoint._posting.together([*items, note])
            ids.add(fresh)
        self.published += len(fresh)
        self.known += len(part) - len(new) - len(unknown)
        done = tuple(e.id for e in part if e.id not in refused and e.id not in unknown)
        self._say(peer, Receipt(done, tuple(refused.items()), tuple(unknown)))

    async def _begin(self, site: str) -> Ids:
        """What the link before this one has published: all of it is forwarded by now."""
        endpoint = self._node.endpoint
        await _settle(endpoint)
        values = endpoint.bus.retained(f"{NOTE}.{site}")
        newest = max(values, key=lambda value: value.number, default=None)
        ids = self._ids[site] = Ids(b"" if newest is None else newest.raw)
        return ids

    def _refusal(self, came: _Came) -> str | None:
        """Why it is not published: nobody is there for it any more."""
        wants = came.peer.told.wants(came.there, came.sure.group)
        return None if wants else f"nobody at site {self._node.config.site} takes it any more"

    def _item(self, came: _Came) -> tuple[int, int, str, Encoded]:
        kind = Kind.EVENT if came.sure.group else Kind.SEND
        return int(kind), 0, came.type, came.encoded

    def _say(self, peer: Peer, receipt: Receipt) -> None:
        if self._node.peers.get(peer.site) is peer:
            peer.tell(CONFIRMED, receipt)

    def close(self) -> None:
        """Publish no more."""
        if self._work is not None:
            self._work.cancel()


async def _settle(endpoint: Endpoint) -> None:
    """Wait until all is forwarded that an endpoint of the same name had sent that was killed.
    Raises `_Unsettled`."""
    pauses, until = Pauses(_PAUSE), asyncio.get_running_loop().time() + SETTLED
    while any(
        each.name == endpoint.name and each.state != "attached"
        for each in await in_thread(endpoint.name, "looking", endpoint.bus.endpoints)
    ):
        pause = pauses.next()
        if asyncio.get_running_loop().time() + pause > until:
            raise _Unsettled
        await asyncio.sleep(pause)


# The whole ------------------------------------------------------------------------------------


class Confirmed:
    """Of one link, from when its endpoint is attached. `answer`: of a request that comes with
    commands, for which of the sites."""

    def __init__(self, node: Node, answer: Callable[[str, Message], Awaitable[Any]]) -> None:
        self._node, self._answer = node, answer
        self._held: dict[str, Holding] = {}
        self._receiving = Receiving(node)
        self._away: dict[str, asyncio.TimerHandle] = {}
        self._beginning: asyncio.TimerHandle | None = None
        self._telling: asyncio.Task[None] | None = None
        self._began = monotonic_ns()
        node.on_close.append(self.close)
        node.unconfirmed = self.unconfirmed
        node.lanes[CONFIRMED] = self._receiving.take
        node.told[CONFIRMED] = self._take_receipt
        if node.config.delivery == "confirmed":
            node.on_up.append(self._met)
            node.on_down.append(self._gone)
            node.on_wants.append(self._changed)
            if node.keep is not None:
                loop = asyncio.get_running_loop()
                self._beginning = loop.call_later(AWAY, self._begun)
            for site in node.former:
                self._holding(site)

    def _changed(self, peer: Peer) -> None:
        wanted = frozenset(self._wanted(peer))
        holding = self._held.get(peer.site)
        if holding is None:
            if not wanted:
                return
            holding = self._holding(peer.site)
        holding.want(wanted)

    def _holding(self, site: str) -> Holding:
        answer = partial(self._answer, site)
        made = self._held[site] = Holding(self._node, site, answer, self._is_elsewhere)
        return made

    async def _is_elsewhere(self, holding: Holding, message: Message, group: str) -> bool:
        """Whether another site has it, from a link before this one, which was sharing such
        messages among them. What was sent since this one began, that one has not seen."""
        if message.sent_ns >= self._began or (group and self._node.config.groups == "local"):
            return False
        for site in self._node.former:
            if (other := self._held[site]) is not holding and await other.has(message, group):
                return True
        return False

    def _wanted(self, peer: Peer) -> Iterable[Kept]:
        config = self._node.config
        for wanted in peer.table.wants():
            for pattern in peer.rules.offered(wanted.pattern):
                if confirms(config, msgspec.structs.replace(wanted, pattern=pattern)):
                    group = wanted.group
                    if group is not None and config.groups == "local":
                        group = group_of(peer.site, group)
                    yield Kept(pattern, group, wanted.group or "")

    def _met(self, peer: Peer) -> None:
        if (timer := self._away.pop(peer.site, None)) is not None:
            timer.cancel()
        if (holding := self._held.get(peer.site)) is not None:
            holding.met()

    def _gone(self, peer: Peer, _: str) -> None:
        """It may be there again soon."""
        if (holding := self._held.get(peer.site)) is not None:
            loop = asyncio.get_running_loop()
            self._away[peer.site] = loop.call_later(AWAY, self._expect_no_more, holding)

    def _expect_no_more(self, holding: Holding) -> None:
        """Its site is away for long."""
        holding.want(frozenset())
        holding.lapse()
        loop = asyncio.get_running_loop()
        self._away[holding.site] = loop.call_later(KEPT, holding.give_up)

    def _begun(self) -> None:
        """What was kept for sites that the link before this one knew, and that have not come, is
        kept no more."""
        met = {peer.site for peer in self._node.known()}
        for site in self._node.former:
            if site not in met:
                self._held[site].lapse()
        loop = asyncio.get_running_loop()
        self._telling = loop.create_task(self._keep_no_others())

    async def _keep_no_others(self) -> None:
        node = self._node
        if (tell := node.keep) is not None:
            met = {peer.site for peer in node.known()}
            names = tuple(endpoint_of(node.config.name, site) for site in self._held if site in met)
            keep = Keep(node.endpoint.name, (), now=True, all=names)
            try:
                await in_thread(node.endpoint.name, "keeper", partial(tell, keep))
            except BusError as why:
                log.warning("link %s: %s", node.config.site, why)

    def _take_receipt(self, peer: Peer, _: str, body: msgspec.Raw, __: bytes) -> None:
        receipt = _receipt.read(body)
        if (holding := self._held.get(peer.site)) is not None:
            holding.take(receipt)

    def unconfirmed(self, site: str) -> int:
        """Messages for that site that are not confirmed."""
        holding = self._held.get(site)
        return 0 if holding is None else holding.waiting

    async def close(self) -> None:
        """Give back what is held, and end."""
        self._receiving.close()
        for timer in (*self._away.values(), self._beginning):
            if timer is not None:
                timer.cancel()
        if self._telling is not None:
            self._telling.cancel()
        await asyncio.gather(*(holding.close() for holding in self._held.values()))
