"""Messages of this bus that are held for a site until that has confirmed them.

For each site there is an endpoint that handles what is handled there, and is a member of the groups
there. What it holds is not done, so a link that is killed leaves it to its successor.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from shmbus.aio.attach import attach_as
from shmbus.aio.relay import Relay
from shmbus.aio.threads import in_thread
from shmbus.errors import BusError
from shmbus.limits import MAX_NAME
from shmbus.settings import MIB, Settings

from .ids import identity
from .keeper import Keep, Kept, endpoint_of
from .pauses import Pauses
from .sure import HELD, Receipt, Sure
from .wire import CONFIRMED

if TYPE_CHECKING:
    from shmbus.aio.endpoint import Endpoint
    from shmbus.aio.subscribing import Subscription
    from shmbus.endpoint._kernel import Message

    from .node import Node

log = logging.getLogger("shmbus")

AGAIN = 5.0
"""Seconds until a message that is not confirmed is sent again though nothing is known to have
failed, then twice as long."""

_LONGEST = 60.0

_RING = 8 * MIB  # of which a quarter may be held: more would be let go

_SETTINGS = Settings(in_bytes=_RING, prefetch=HELD)


def group_of(site: str, group: str) -> str:
    """The group of its own that holds here what is for this group of the site, where groups stay
    local: another one for each, also where both names together are too long."""
    name = f"{site}.{group}"
    if len(name) <= MAX_NAME and "." not in site:
        return name
    digest = hashlib.blake2b(f"{site}/{group}".encode(), digest_size=8).hexdigest()
    return f"{name[: MAX_NAME - len(digest) - 1]}.{digest}"


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
        self.settled: list[bytes] = []
        """What is told with it, again each time that it is sent."""


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
            return await Relay(endpoint).handle(kept.pattern, self._handle, redeliver=True)
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
        self._loop.call_soon(lambda: self._settled.append(id))

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
        held.settled += self._settled
        self._settled.clear()
        settled = tuple(held.settled)
        sure = Sure(message.source, message.sent_ns, held.group, payload.flags, settled, held.asked)
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
            await Relay(self._endpoint).leave()  # nothing held is confirmed any more


def _end(held: _Held | None, refused: str) -> None:
    if held is not None and not held.result.done():
        held.result.set_result(refused)
