"""What the link's endpoint handles on its bus, in the place of endpoints of other sites."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator

import msgspec

from shmbus.aio.subscribing import Subscription
from shmbus.endpoint._kernel import Encoded, Job, Message
from shmbus.errors import BusError
from shmbus.shared._kernel import monotonic_ns

from .commands import Commands, send_there
from .exchanges import read_asked
from .gathering import gather_there
from .node import Node
from .peer import Peer
from .requests import Asking
from .serving import Serving
from .wire import REPLY, REQUEST, SEND

log = logging.getLogger("shmbus")

AGAIN = 0.5
"""Seconds until another try where the bus cannot be told now."""

Answer = Encoded | AsyncGenerator[Encoded, None] | None


class Handling:
    """That of one link, from when its endpoint is attached."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._loop = asyncio.get_running_loop()
        self._asking = Asking(self._able, self._loop)
        self._serving = Serving(
            node.endpoint, self._loop, node.config.detection, lambda: node.asked()
        )
        self._jobs = node.relay.jobs
        self._handled: dict[str, Subscription] = {}
        self._following: asyncio.Task[None] | None = None
        self._behind = False
        self._commands = Commands(node.endpoint, self._loop, node.frames.acknowledge)
        node.frames.lanes[SEND] = self._commands.take
        node.frames.lanes[REQUEST] = self._take_request
        node.frames.lanes[REPLY] = self._take_reply
        node.peers.on_down.append(self._gone)
        node.peers.on_wants.append(self._changed)
        node.on_close.append(self.end)

    def _able(self, type: str) -> list[tuple[Peer, str]]:
        """The peers that handle a type of this bus, the nearest first, with its name there."""
        return [
            (peer, there)
            for peer in self._node.peers.handling(type)
            if (there := peer.rules.outward(type)) is not None
        ]

    def _begin(self, job: Job) -> None:
        """In a turn of the endpoint's. What is quick to begin is done without a task."""
        message = job.message
        if job.is_request and not message._streams and not message._directed:
            self._asking.ask_without_task(job, self._jobs)
            self._node.asked()
        else:
            self._jobs.begin(job)

    async def _do(self, message: Message) -> Answer:
        if message.kind == "send":
            await send_there(self._able(message.type), message)
            return None
        if message._directed:  # of each site that is not served by an endpoint of its own
            able = [
                each
                for each in self._able(message.type)
                if not self._node.config.confirms(message.type)
            ]
            return await gather_there(self._asking, able, message, monotonic_ns())
        return await self._asking.ask(message)

    async def answer(self, site: str, message: Message) -> Answer:
        """Of a request that an endpoint for that site alone has got: unless it is for all,
        the nearest site is asked, whichever that is."""
        if message._directed:
            able = [each for each in self._able(message.type) if each[0].site == site]
            return await gather_there(self._asking, able, message, monotonic_ns())
        return await self._asking.ask(message)

    def _take_request(self, peer: Peer, type: str, body: msgspec.Raw, payload: bytes) -> None:
        self._serving.take(peer, type, read_asked(body), payload)
        self._node.asked()

    def _take_reply(self, peer: Peer, _: str, body: msgspec.Raw, payload: bytes) -> None:
        self._asking.come(peer, body, payload)
        self._node.asked()

    def _gone(self, peer: Peer, reason: str) -> None:
        self._asking.gone(peer, reason)
        self._serving.gone(peer, may_return=reason == "gone")
        self._changed(peer)

    # What is handled -------------------------------------------------------------------------

    def _changed(self, _: Peer) -> None:
        """What endpoints of a site handle may be other now."""
        self._behind = True
        self._node.settling.begin(self)
        if self._following is None or self._following.done():
            self._following = self._loop.create_task(self._follow())

    async def _follow(self) -> None:
        """Handle what they do, and no more."""
        while self._behind:
            self._behind = False
            wanted = self._wanted()
            try:
                for pattern in self._handled.keys() - wanted:
                    await self._handled.pop(pattern).close()
                for pattern in wanted - self._handled.keys():
                    self._handled[pattern] = await self._node.relay.handle(
                        pattern, self._do, begin=self._begin
                    )
            except BusError as why:
                log.debug("link %s: %s", self._node.config.site, why)
                await asyncio.sleep(AGAIN)
                self._behind = True
        self._node.settling.done(self)

    def _wanted(self) -> set[str]:
        return {
            pattern
            for peer in self._node.peers
            if peer.up
            for wanted in peer.table.wants()
            if wanted.role == "handle"
            for pattern in peer.rules.offered(wanted.pattern)
            if not self._node.config.confirms(pattern)
        }

    def end(self) -> None:
        """The link ends."""
        if self._following is not None:
            self._following.cancel()
        self._asking.end()
        self._serving.end()
        self._commands.end()
