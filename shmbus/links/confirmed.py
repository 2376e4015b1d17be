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
import logging
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from shmbus.aio.threads import in_thread
from shmbus.errors import BusError
from shmbus.shared._kernel import monotonic_ns

from .holding import Holding, group_of
from .keeper import Keep, Kept, endpoint_of
from .receiving import Receiving
from .sure import confirms, read_receipt
from .wire import CONFIRMED

if TYPE_CHECKING:
    from shmbus.endpoint._kernel import Message

    from .node import Node
    from .peer import Peer

log = logging.getLogger("shmbus")

AWAY = 30.0
"""Seconds for which messages for a site are accepted that is not there: it may be restarted."""

KEPT = 3600.0
"""Seconds after that for which it keeps those that it holds; then it gives them back."""


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
        node.frames.lanes[CONFIRMED] = self._receiving.take
        node.frames.told[CONFIRMED] = self._take_receipt
        if node.config.delivery == "confirmed":
            node.peers.on_up.append(self._met)
            node.peers.on_down.append(self._gone)
            node.peers.on_wants.append(self._changed)
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
        met = {peer.site for peer in self._node.peers.known()}
        for site in self._node.former:
            if site not in met:
                self._held[site].lapse()
        loop = asyncio.get_running_loop()
        self._telling = loop.create_task(self._keep_no_others())

    async def _keep_no_others(self) -> None:
        node = self._node
        if (tell := node.keep) is not None:
            met = {peer.site for peer in node.peers.known()}
            names = tuple(endpoint_of(node.config.name, site) for site in self._held if site in met)
            keep = Keep(node.endpoint.name, (), now=True, all=names)
            try:
                await in_thread(node.endpoint.name, "keeper", partial(tell, keep))
            except BusError as why:
                log.warning("link %s: %s", node.config.site, why)

    def _take_receipt(self, peer: Peer, _: str, body: msgspec.Raw, __: bytes) -> None:
        receipt = read_receipt(body)
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
