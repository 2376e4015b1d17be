"""Messages of other sites that are to be confirmed: published once each.

A message and a kept value with the ids of the last ones are published by one store. So who receives
after this link knows them.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from shmbus.aio.threads import in_thread
from shmbus.endpoint._kernel import Encoded, ways
from shmbus.errors import BusError, Disconnected, SetupError
from shmbus.shared.layout import Kind

from .ids import Ids, identity
from .pauses import Pauses
from .sure import HELD, Receipt, Sure, read_sure
from .wire import CONFIRMED

if TYPE_CHECKING:
    from shmbus.aio.endpoint import Endpoint

    from .node import Node
    from .peer import Peer

log = logging.getLogger("shmbus")

TOGETHER = 64 << 10  # bytes that are published by one store
_PAUSE = 0.01

SETTLED = 10.0
"""Seconds in which what a link that was killed had sent is forwarded. What comes beyond that, and
before it is, is not confirmed, and so comes again."""

NOTE = "$bus.link.done"
"""What the types of notes begin with; behind it the site that the messages came from."""


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
        sure = read_sure(body)
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
            await self._node.relay.together([*items, note])
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
