"""Requests of other sites that endpoints of this bus answer: `Serving`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from shmbus import errors
from shmbus.aio.relay import Relay
from shmbus.endpoint._kernel import until

from . import failures
from .exchanges import (
    ALL,
    PARTS,
    REPLY,
    WINDOW,
    Answer,
    Answered,
    Ask,
    Asked,
    Credit,
    End,
    Failed,
    Part,
    part_bytes,
)
from .gathering import gather_here
from .wire import REPLY as REPLIES
from .wire import Garbage

if TYPE_CHECKING:
    from shmbus.aio.endpoint import Endpoint
    from shmbus.endpoint._kernel import Encoded, Message, PendingReply
    from shmbus.shared.frames import Bytes

    from .channel import Lost
    from .peer import Peer

log = logging.getLogger("shmbus")

MOST = 4096
"""Requests of one peer that are worked on at a time."""


class Work:
    """One request of a peer."""

    def __init__(self, peer: Peer, type: str, number: int, link: str) -> None:
        """`type`: in the names of the space. `link`: the endpoint that asks here for the peer."""
        self.peer, self.type, self.number, self._link = peer, type, number, link
        self.stop: Callable[[], object] = _nothing
        """Do no more of it."""
        self._sent, self._granted = 0, WINDOW
        self._parts = 0
        self._waiter: asyncio.Future[None] | None = None

    def answer(self, reply: Message) -> None:
        """Its reply is there."""
        payload = reply._encoded()
        lost = partial(_lose, self.peer, self.type, self.number, reply.source)
        body = Answer(self.number, reply.source, reply.sent_ns, payload.flags)
        self._say(body, payload.data, lost)

    def answer_all(self, found: bytes) -> None:
        """What became of each is."""
        lost = partial(_lose, self.peer, self.type, self.number, self._link)
        self._say(Answer(self.number, self._link, 0, 0), found, lost)

    async def give(self, part: Message) -> None:
        """A part of its reply is; returns when the next is wanted."""
        payload = part._encoded()
        body = Part(self.number, part.source, part.sent_ns, payload.flags, self._parts)
        self._say(body, payload.data, self._lose_parts)
        self._parts += 1
        self._sent += part_bytes(len(payload))
        while self._sent >= self._granted:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter

    def grant(self, bytes: int) -> None:
        """More parts are wanted."""
        self._granted = max(self._granted, bytes)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def end(self) -> None:
        """Those were all parts."""
        self._say(End(self.number, self._parts), b"", self._lose_parts)

    def fail(self, why: errors.BusError) -> None:
        """It has failed."""
        if isinstance(why, errors.Disconnected):  # this link is, not who asks
            reason = "its bus is down"
            why = errors.EndpointDied(type=self.type, endpoint=self._link, reason=reason)
        _fail(self.peer, self.type, self.number, failures.account(why))

    def _lose_parts(self) -> None:
        """Not all of its parts have come there: no more are wanted."""
        self.stop()
        _lose(self.peer, self.type, self.number, self._link)

    def _say(self, body: Answered, data: Bytes, lost: Lost) -> None:
        self.peer.send(REPLIES, self.type, body, data, lost)


class Serving:
    """Those of one link, whose endpoint asks here."""

    def __init__(
        self,
        endpoint: Endpoint,
        loop: asyncio.AbstractEventLoop,
        detection: float,
        answered: Callable[[], object],
    ) -> None:
        """`detection`: seconds after which this bus counts as dead where nobody serves it.
        `answered`: called when a request has been, here."""
        self._endpoint, self._loop, self._detection = endpoint, loop, detection
        self._answered = answered
        self._relay = Relay(endpoint)
        self._works: dict[Peer, dict[int, Work]] = {}
        self._look: asyncio.TimerHandle | None = None
        self._unserved = False  # at the last look

    def take(self, peer: Peer, type: str, body: Asked, data: bytes) -> None:
        """A frame of the lane of requests. `type`: in the names of the space. Raises `Garbage`."""
        works = self._works.setdefault(peer, {})
        work = works.get(body.number)
        if not isinstance(body, Ask):
            if work is None:
                return  # it is over
            if isinstance(body, Credit):
                work.grant(body.bytes)
            else:
                self._end(work)
            return
        if work is not None:
            raise Garbage("the number of another request")
        payload = peer.payload(body.source, body.sent_ns, body.flags, data)
        link = self._endpoint.name
        work = Work(peer, type, body.number, link)
        here = peer.rules.inward(type)
        if here is None:
            work.fail(errors.NoRoute(type=type))
        elif len(works) >= MOST:
            work.fail(errors.RequestsFull(type=type, endpoint=link, limit=MOST, seconds=0.0))
        else:
            works[body.number] = work
            if self._look is None:
                self._look_later()
            if body.want != REPLY or not self._ask(work, body, here, payload):
                task = self._loop.create_task(
                    self._serve(work, body, here, payload), name=f"shmbus:{link}:{here}"
                )
                work.stop = task.cancel

    def _ask(self, work: Work, ask: Ask, type: str, payload: Encoded) -> bool:
        """Ask here, without a task. False: there is no space for that now."""
        relay = self._relay

        def ended(reply: PendingReply) -> None:
            self._over(work)
            found = reply._ended()
            if isinstance(found, errors.BusError):
                work.fail(found)
            else:
                work.answer(found)
            self._answered()

        try:
            deadline = until(ask.left_ns / 1e9 if ask.left_ns else None, None)
            reply = relay.begin(type, payload, deadline, ask.attempt, ended)
        except errors.BusError as why:
            self._over(work)
            work.fail(why)
            return True
        if reply is not None:
            work.stop = partial(relay.give_up, reply)
        return reply is not None

    def _look_later(self) -> None:
        self._look = self._loop.call_later(self._detection / 2, self._look_at_bus)

    def _look_at_bus(self) -> None:
        """While something is asked here: a bus that nobody serves any more answers nothing, however
        long this link waits for who serves it next."""
        self._look = None
        works = [work for of_peer in self._works.values() for work in of_peer.values()]
        unserved = self._relay.unserved
        if unserved and self._unserved:
            for work in works:
                self._end(work)
                work.fail(errors.BusDown(bus=self._endpoint.bus.name, reason="nobody serves it"))
        elif works:
            self._look_later()
        self._unserved = unserved

    def _over(self, work: Work) -> None:
        self._works.get(work.peer, {}).pop(work.number, None)

    def _end(self, work: Work) -> None:
        """Nobody waits for it any more."""
        self._over(work)
        work.stop()

    async def _serve(self, work: Work, ask: Ask, type: str, payload: Encoded) -> None:
        left = ask.left_ns / 1e9 if ask.left_ns else None
        try:
            if ask.want == PARTS:
                await self._stream(work, type, payload, left)
            elif ask.want == ALL:
                work.answer_all(await gather_here(self._endpoint, type, payload, left))
            else:
                deadline = until(left, None)
                work.answer(await self._relay.ask(type, payload, deadline, None, ask.attempt))
        except errors.BusError as why:
            work.fail(why)
        finally:
            self._over(work)

    async def _stream(self, work: Work, type: str, payload: Encoded, left: float | None) -> None:
        stream = self._endpoint.stream(type, payload, timeout=None, total=left)
        async with stream:
            async for part in stream:
                if part.kind == "reply":
                    work.answer(part)
                    return
                await work.give(part)
        work.end()

    def gone(self, peer: Peer, *, may_return: bool = False) -> None:
        """That site is not there any more: nobody waits for its requests. `may_return`: perhaps it
        only seems so from here; then it is told, once it is there again."""
        name, reason = self._endpoint.name, "the link there did not see this one for a moment"
        for work in self._works.pop(peer, {}).values():
            work.stop()
            if may_return:
                work.fail(errors.EndpointDied(type=work.type, endpoint=name, reason=reason))

    def end(self) -> None:
        """The link ends."""
        if self._look is not None:
            self._look.cancel()
        for peer in list(self._works):
            self.gone(peer)


def _lose(peer: Peer, type: str, number: int, source: str) -> None:
    """Say that a reply was lost. It holds none of what that was made of."""
    why = errors.ReplyLost(type=type, endpoint=source, reason="it was lost between the sites")
    _fail(peer, type, number, failures.account(why))


def _fail(peer: Peer, type: str, number: int, account: bytes) -> None:
    """Say that a request has failed; again if that does not come there."""
    again = partial(_fail, peer, type, number, account)
    peer.send(REPLIES, type, Failed(number), account, again)


def _nothing() -> None:
    """Stops what has not begun."""
