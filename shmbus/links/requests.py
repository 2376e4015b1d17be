"""Requests of endpoints on this bus that other sites answer: `Asking`."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from shmbus import errors
from shmbus.endpoint._kernel import Encoded
from shmbus.shared._kernel import monotonic_ns
from shmbus.shared.failures import Passed

from . import failures
from .exchanges import (
    PARTS,
    REPLY,
    WINDOW,
    Answer,
    Answered,
    Ask,
    Credit,
    End,
    Part,
    Withdrawn,
    number_in,
    part_bytes,
    read_answered,
)
from .wire import REQUEST, Garbage

if TYPE_CHECKING:
    from shmbus.aio.jobs import Jobs
    from shmbus.endpoint._kernel import Job, Message
    from shmbus.shared.frames import Bytes

    from .peer import Peer

log = logging.getLogger("shmbus")

LATE = 1.0
"""Seconds after its deadline that an exchange is forgotten whose answer was lost, and between looks
for those that nobody waits for any more, since their requester has gone."""


class Whole(NamedTuple):
    """What came is the reply."""

    payload: Encoded


class Piece(NamedTuple):
    """What came is a part of it."""

    payload: Encoded


class Complete(NamedTuple):
    """Those were all parts."""


Came = Whole | Piece | Complete | errors.BusError


class Exchange:
    """A request that a peer works on. What comes of it waits here until it is taken."""

    def __init__(
        self, asking: Asking, peer: Peer, message: Message, type: str, number: int
    ) -> None:
        """`type`: in the names of the space."""
        self.peer, self.message, self.number = peer, message, number
        self._asking, self._type = asking, type
        self.when_came: Callable[[Came], object] | None = None
        """Called with what comes, which does not wait here then."""
        self._came: deque[Came] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._parts = 0  # that have come
        self._received = self._taken = 0  # bytes of them
        self._granted = WINDOW

    def put(self, came: Came) -> None:
        """This has come."""
        if (when_came := self.when_came) is not None:
            self.when_came = None  # neither keeps the other alive, nor the request's payload
            when_came(came)
            return
        self._came.append(came)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def put_part(self, part: Part, payload: Encoded) -> None:
        """Likewise. Raises `Garbage` where it is more than was granted."""
        if self._received >= self._granted:
            self.lose("more of them came than were asked for")
            raise Garbage("a part that was not granted")
        self._received += part_bytes(len(payload))
        if self._follows(part.index):
            self._parts += 1
            self.put(Piece(payload))

    def put_end(self, end: End) -> None:
        """Likewise: the last part has come."""
        if self._follows(end.parts):
            self.put(Complete())

    def _follows(self, index: int) -> bool:
        """Whether all parts before this one have come; if not, it has failed."""
        if index == self._parts:
            return True
        self.lose(f"{index - self._parts} of them were lost between the sites")
        return False

    def lose(self, why: str) -> None:
        """Its parts are not all there."""
        self.fail(self.lost(why))

    def lost(self, why: str) -> errors.ReplyLost:
        """The error of that."""
        return errors.ReplyLost(
            type=self.message.type, endpoint=self.peer.link_there, reason=f"of its parts, {why}"
        )

    def fail(self, error: errors.BusError) -> None:
        """It has failed, and nothing more is to come."""
        self.withdraw()
        self.put(error)

    async def next(self) -> Came:
        """What comes next of it. Where the task is cancelled, it is withdrawn."""
        while not self._came:
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            except BaseException:
                self.withdraw()
                raise
            finally:
                self._waiter = None
        return self._came.popleft()

    def took(self, part: Piece) -> None:
        """Its requester has room for more."""
        self._taken += part_bytes(len(part.payload))
        if 2 * (self._granted - self._taken) <= WINDOW:
            self._granted = self._taken + WINDOW
            if self._asking.is_open(self):
                self.say(Credit(self.number, self._granted))

    def withdraw(self) -> None:
        """Nobody waits for it any more. Harmless if it is over."""
        if self._asking.close(self):
            self.say(Withdrawn(self.number))

    def say(self, body: Withdrawn | Credit) -> None:
        """To its peer; again if it does not come there."""
        self.peer.send(REQUEST, self._type, body, lost=partial(self.say, body))

    def ask(self, body: Ask, data: Bytes) -> None:
        """Have its peer begin it."""
        self.peer.send(REQUEST, self._type, body, data, partial(self._asking.lost, self.number))


class Asking:
    """Those of one link. `able`: the peers that handle a type, the nearest first, with its name in
    the space."""

    def __init__(
        self,
        able: Callable[[str], Sequence[tuple[Peer, str]]],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.able, self._loop = able, loop
        self._numbers = itertools.count(1)
        self._open: dict[int, Exchange] = {}
        self._timer: asyncio.TimerHandle | None = None

    def ask_without_task(self, job: Job, jobs: Jobs) -> None:
        """Have the nearest site answer a request that handles it, by a whole reply."""
        Question(self, job, jobs)

    async def ask(self, message: Message) -> Encoded | AsyncGenerator[Encoded, None] | None:
        """Likewise, in a task; the reply may come in parts where it is asked for so."""
        why: errors.BusError | None = None
        for peer, type in self.able(message.type):
            exchange = self.begin(peer, type, message, PARTS if message._streams else REPLY)
            came = await exchange.next()
            if isinstance(came, Whole):
                return came.payload
            if not isinstance(came, errors.BusError):
                return _parts(exchange, came)
            why = came
            if not _is_untouched(why):
                break
        message._fail_as(why or errors.NoRoute(type=message.type))
        return None

    def begin(
        self, peer: Peer, type: str, message: Message, want: int, sooner_ns: int = 0
    ) -> Exchange:
        """Ask that peer, to answer so much sooner than its requester needs it."""
        exchange = Exchange(self, peer, message, type, next(self._numbers))
        payload, left = message._encoded(), 0
        if not peer.channel.has_room(len(payload)):
            self._loop.call_soon(exchange.put, _full(peer, message.type))
            return exchange
        if message.deadline_ns is not None:
            left = max(1, message.deadline_ns - sooner_ns - monotonic_ns())
        exchange.ask(
            Ask(
                exchange.number,
                message.source,
                message.sent_ns,
                payload.flags,
                want,
                left,
                message.attempt,
            ),
            payload.data,
        )
        self._open[exchange.number] = exchange
        if self._timer is None:
            self._timer = self._loop.call_later(LATE, self._look)
        return exchange

    def is_open(self, exchange: Exchange) -> bool:
        """Whether something may still come of it."""
        return exchange.number in self._open

    def close(self, exchange: Exchange) -> bool:
        """Nothing more comes of it: whether something could have."""
        return self._open.pop(exchange.number, None) is not None

    def come(self, peer: Peer, body: msgspec.Raw, data: bytes) -> None:
        """A frame of the lane of replies. Raises `Garbage`; then what it is the reply to has
        failed, if that can be read."""
        try:
            self.take(peer, read_answered(body), data)
        except Garbage:
            exchange = self._open.get(number_in(body))
            if exchange is not None and exchange.peer is peer:
                type, reason = exchange.message.type, "what came as one is none"
                exchange.fail(errors.ReplyLost(type=type, endpoint=peer.link_there, reason=reason))
            raise

    def take(self, peer: Peer, body: Answered, data: bytes) -> None:
        """What that says. Raises `Garbage`."""
        exchange = self._open.get(body.number)
        if exchange is None or exchange.peer is not peer:
            return  # it is over
        if isinstance(body, Part):
            exchange.put_part(body, peer.payload(body.source, body.sent_ns, body.flags, data))
        elif isinstance(body, Answer):
            payload = peer.payload(body.source, body.sent_ns, body.flags, data)
            self.close(exchange)
            exchange.put(Whole(payload))
        elif isinstance(body, End):
            exchange.put_end(body)
            self.close(exchange)
        else:
            self.close(exchange)
            exchange.put(failures.read(data, exchange.message.type, peer))

    def lost(self, number: int) -> None:
        """What would have begun that exchange has not come there, nor will."""
        exchange = self._open.pop(number, None)
        if exchange is not None:
            exchange.put(
                errors.EndpointDied(
                    type=exchange.message.type,
                    endpoint=exchange.peer.link_there,
                    reason="the request was lost on its way there",
                    begun=False,
                )
            )

    def gone(self, peer: Peer, reason: str) -> None:
        """That site is not there any more, or is there anew."""
        for exchange in [each for each in self._open.values() if each.peer is peer]:
            exchange.fail(
                errors.EndpointDied(
                    type=exchange.message.type, endpoint=peer.link_there, reason=reason
                )
            )

    def _look(self) -> None:
        """Forget those that nobody waits for any more."""
        self._timer = None
        now = monotonic_ns()
        for exchange in list(self._open.values()):
            message = exchange.message
            if now > (message.deadline_ns or now) + LATE * 1e9 or message.cancelled:
                exchange.fail(
                    errors.RequestTimeout(
                        type=message.type, seconds=LATE, endpoint=exchange.peer.link_there
                    )
                )
        if self._open:
            self._timer = self._loop.call_later(LATE, self._look)

    def end(self) -> None:
        """The link ends."""
        if self._timer is not None:
            self._timer.cancel()


class Question:
    """A request that one site after the other is asked, the nearest first, until one answers: the
    next one where it has turned out that nobody there handles it, or has begun it and will."""

    def __init__(self, asking: Asking, job: Job, jobs: Jobs) -> None:
        self._asking, self._job, self._jobs = asking, job, jobs
        self._sites = iter(asking.able(job.message.type))
        self._exchange: Exchange | None = None
        jobs.begin_without_task(job, self._withdraw)
        try:
            if job.lapsed():
                self._withdraw()
            else:
                self._ask(None)
        except Exception as why:  # such as a payload that has gone
            job.raised(why)
            jobs.over(job)

    def _ask(self, why: errors.BusError | None) -> None:
        """The next one. `why`: what the one before has said."""
        message = self._job.message
        for peer, type in self._sites:
            self._exchange = self._asking.begin(peer, type, message, REPLY)
            self._exchange.when_came = self._came
            return
        self._fail(why or errors.NoRoute(type=message.type))

    def _came(self, came: Came) -> None:
        if isinstance(came, Whole):
            self._job.returned(came.payload)
            self._jobs.over(self._job)
        elif not isinstance(came, errors.BusError):  # which nobody has asked for
            assert self._exchange is not None
            self._exchange.withdraw()
            self._fail(self._exchange.lost("nobody takes them"))
        elif _is_untouched(came):
            self._ask(came)
        else:
            self._fail(came)

    def _fail(self, why: errors.BusError) -> None:
        try:
            self._job.message._fail_as(why)
        except errors.BusError as trouble:
            log.debug("%r is not answered: %s", self._job.message.type, trouble)
        self._jobs.over(self._job)

    def _withdraw(self) -> None:
        if self._exchange is not None:
            self._exchange.when_came = None
            self._exchange.withdraw()
        self._job.abandoned("its requester withdrew it")
        self._jobs.over(self._job)


async def _parts(exchange: Exchange, came: Came) -> AsyncGenerator[Encoded, None]:
    """Those of a reply. Closing it breaks it off there."""
    try:
        while isinstance(came, Piece):
            yield came.payload
            exchange.took(came)
            came = await exchange.next()
        if isinstance(came, errors.BusError):
            raise Passed(came)
    finally:
        exchange.withdraw()


def _full(peer: Peer, type: str) -> errors.QueueFull:
    """Too much waits to leave for that site."""
    channel = peer.channel
    return errors.QueueFull(
        type=type,
        endpoint=peer.link_there,
        depth=channel.waiting_bytes,
        capacity=channel.buffer,
        seconds=0.0,
        setting="buffer",
    )


def _is_untouched(why: errors.BusError) -> bool:
    """Whether nobody there had begun it, nor will."""
    return isinstance(why, (errors.NoRoute, errors.QueueFull)) or (
        isinstance(why, errors.EndpointDied) and not why.begun
    )
