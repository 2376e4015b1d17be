"""The messages for a client: shown in order, as far as its credit goes; and those in its hand."""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from collections.abc import AsyncGenerator, Awaitable, Callable

import msgspec
from shmbus_console.messages import envelope

from shmbus import Message
from shmbus.errors import CannotNack, EncodeError, MessageTooLarge

from .giving import Giving, Taken
from .lines import BadLine
from .output import Output


class _InHand(msgspec.Struct, eq=False):
    message: Message
    answered: asyncio.Future[bool]
    """Whether the client has done what was to be done; False: it has gone."""
    giving: Giving | None = None
    """The reply, where it comes in parts."""


class Inbox:
    """The messages for one client. Those that it has to answer, or to finish, are in its hand from
    before it sees them until it has: so long the bus counts them as begun at its endpoint."""

    def __init__(self, output: Output, credit: int | None) -> None:
        self._output = output
        self._credit = credit
        self._more = asyncio.Event()
        self._turn = asyncio.Lock()  # fair, so that messages are shown in their order
        self._in_hand: dict[int, _InHand] = {}
        self._count = 0
        self._leaving = False
        self._unanswered: list[Message] = []
        """Requests that nobody answers; kept until the endpoint has left, which tells who asked."""

    def add_credit(self, n: int) -> None:
        """So many more may be shown. Raises `BadLine`."""
        if self._credit is None:
            raise BadLine(
                "this client has no credit: it gets messages as fast as it reads",
                'Attach with {"op": "attach", "credit": 0}, or leave out more',
            )
        self._credit += n
        self._more.set()

    def event(self, pattern: str) -> Callable[[Message], Awaitable[None]]:
        """The callback of a subscription without a group."""

        async def show(message: Message) -> None:
            await self._show({"pattern": pattern, **envelope(message)})

        return show

    def work(self, pattern: str) -> Callable[[Message], Awaitable[object]]:
        """The handler of a pattern, and the callback of a group's subscription: it returns when
        the client has answered, or finished, the message."""

        async def show(message: Message) -> AsyncGenerator[object, None] | None:
            return await self._hand(message, pattern)

        return show

    async def _hand(self, message: Message, pattern: str) -> AsyncGenerator[object, None] | None:
        self._count += 1
        number, shown = self._count, False
        mine = _InHand(message, asyncio.get_running_loop().create_future())
        self._in_hand[number] = mine
        try:
            line = {"message": number, "pattern": pattern, **envelope(message)}
            shown = await self._show(line)
            if not (shown and await mine.answered):
                await self._give_up(mine.message)
        except asyncio.CancelledError:
            self._put_away(number, withdrawn=shown)
            raise
        if mine.giving is None:
            self._put_away(number, withdrawn=False)
            return None
        parts = mine.giving.parts()
        weakref.finalize(parts, self._given, number, mine.giving)  # also where it never begins
        return parts

    def _given(self, number: int, giving: Giving) -> None:
        """The reply in parts has ended, or is broken off."""
        withdrawn = not giving.ended
        giving.break_off()
        self._put_away(number, withdrawn=withdrawn)

    def _put_away(self, number: int, *, withdrawn: bool) -> None:
        """`withdrawn`: nobody waits for the client's answer any more."""
        del self._in_hand[number]
        if withdrawn and not self._leaving:
            self._output.put({"withdrawn": number})

    async def _show(self, line: dict[str, object]) -> bool:
        """Whether it was shown."""
        async with self._turn:
            while self._credit == 0 and not self._leaving:
                self._more.clear()
                await self._more.wait()
            await self._output.space()
            if self._leaving:
                return False
            if self._credit is not None:
                self._credit -= 1
            self._output.put(line)
            return True

    # What the client says of a message ----------------------------------------------------------

    def part(self, number: int, payload: object, taken: Taken) -> None:
        """Raises `BadLine`."""
        mine = self._find(number)
        if mine.message.kind != "request":
            raise BadLine(f"message {number} is no request", "Finish it with done")
        if mine.giving is None:
            mine.giving = Giving()
            self._put_down(mine, True)
        mine.giving.add(payload, taken)

    def reply(self, number: int, payload: object) -> None:
        """Raises `BadLine`, `BusError`."""
        mine = self._find(number)
        if mine.giving is not None:
            if payload is not None:
                raise BadLine("the end of a reply in parts has no payload", "Write it as a part")
            mine.giving.end(None)
            return
        try:
            mine.message.reply(payload)
        except (EncodeError, MessageTooLarge):  # of which who asked is told
            self._put_down(mine, True)
            raise
        self._put_down(mine, True)

    def fail(self, number: int, error: BaseException) -> None:
        """Raises `BadLine`, `BusError`."""
        mine = self._find(number)
        if mine.giving is not None:
            mine.giving.end(error)
            return
        mine.message.fail(error)
        self._put_down(mine, True)

    def done(self, number: int) -> None:
        """Raises `BadLine`."""
        mine = self._find(number)
        if mine.message.kind == "request":
            raise BadLine(f"message {number} is a request", "Answer it with reply or error")
        self._put_down(mine, True)

    async def nack(self, number: int, delay: float, reason: str) -> None:
        """Raises `BadLine`, `BusError`."""
        mine = self._find(number)
        try:
            await _give_back(mine.message, delay, reason)
        except CannotNack:
            if mine.message.kind != "request":  # it was, as that of another group
                self._put_down(mine, True)
            raise
        self._put_down(mine, True)

    def _find(self, number: int) -> _InHand:
        mine = self._in_hand.get(number)
        if mine is None or (mine.giving.ended if mine.giving else mine.answered.done()):
            raise BadLine(
                f"message {number} is not in hand: it was never shown, is answered or finished, or "
                "was withdrawn",
                "Take the number from a line that has message, once",
            )
        return mine

    def _put_down(self, mine: _InHand, answered: bool) -> None:
        if not mine.answered.done():  # else it was withdrawn meanwhile
            mine.answered.set_result(answered)

    # The end -------------------------------------------------------------------------------------

    def leave(self) -> None:
        """The client does no more: what is in its hand goes where it would go at a death."""
        self._leaving = True
        self._output.leave()
        self._more.set()
        for mine in self._in_hand.values():
            self._put_down(mine, False)

    async def _give_up(self, message: Message) -> None:
        if message.kind == "request":
            message.defer()  # what this callback returns is no reply
            self._unanswered.append(message)
        else:
            with contextlib.suppress(CannotNack):  # it was, as that of another group
                await _give_back(message, 0.0, "its client has gone")


async def _give_back(message: Message, delay: float, reason: str) -> None:
    """In a thread: it waits where the endpoint's ring is full, and other clients shall not."""
    await asyncio.to_thread(message.nack, delay, reason)
