"""Requests that tasks make, and their replies."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

from shmbus import errors
from shmbus.endpoint._kernel import LoopReply, dispatcher_from, in_force, until
from shmbus.endpoint.many import window_of
from shmbus.endpoint.retry import Attempts, Retry, check_retry

from .line import NO_LINE

if TYPE_CHECKING:
    from shmbus.endpoint._kernel import Addressee, Deadline, Found, Looped, Message
    from shmbus.endpoint._kernel import Requests as Table

    from .turns import Turns


class _Called:
    """What stands in the place of a future: it calls a function."""

    __slots__ = ("_function", "_reply")

    def __init__(self, function: Callable[[LoopReply], object], reply: LoopReply) -> None:
        self._function, self._reply = function, reply

    def done(self) -> bool:
        return False

    def set_result(self, _: None) -> None:
        self._reply.future = None  # neither keeps the other alive
        self._function(self._reply)


class Requests:
    """Those of one endpoint. `table` has those under way."""

    def __init__(
        self, table: Table, looped: Looped, turns: Turns, loop: asyncio.AbstractEventLoop
    ) -> None:
        self._table, self._looped, self._turns, self._loop = table, looped, turns, loop
        looped.line_up = self._line_up

    async def ask(
        self,
        type: str,
        payload: object,
        deadline: Deadline,
        reply_type: Any,
        attempt: int = 1,
        to: Addressee | None = None,
    ) -> Message:
        """Make one, and wait for its reply."""
        reply: LoopReply = LoopReply.__new__(LoopReply)
        ask = partial(self._looped.ask, reply, type, payload, deadline, reply_type, attempt)
        line = ask(NO_LINE, to)
        if line != NO_LINE:
            await self._line_up(line, lambda line: ask(line, to), type, deadline)
        if not self._looped.spin(reply):
            reply.future = future = self._loop.create_future()
            if reply.deadline < self._turns.earliest:
                self._turns.expect(reply.deadline)
            try:
                await future
            except BaseException:
                reply.cancel()
                self._turns.again()  # another may have its entry
                raise
        return reply.raise_or_return()

    def begin(
        self,
        type: str,
        payload: object,
        deadline: Deadline,
        attempt: int,
        ended: Callable[[LoopReply], object],
    ) -> LoopReply | None:
        """Make one without a task: `ended` is called once it is, in a turn, and raises nothing.
        None: there is no space now. Raises like `ask`."""
        reply: LoopReply = LoopReply.__new__(LoopReply)
        if self._looped.ask(reply, type, payload, deadline, None, attempt, NO_LINE) != NO_LINE:
            return None
        reply.future = _Called(ended, reply)
        if reply.deadline < self._turns.earliest:
            self._turns.expect(reply.deadline)
        return reply

    def give_up(self, reply: LoopReply) -> None:
        """Withdraw one that `begin` has made; nothing is called."""
        reply.future = None
        reply.cancel()
        self._turns.again()  # another may have its entry

    async def _line_up(
        self, line: int, attempt: Callable[[int], int], type: str, deadline: Deadline
    ) -> None:
        """Wait in this line until there is space for a request, and an entry in the table."""
        await self._turns.lines[line].wait(
            attempt,
            deadline.left,
            lambda: (
                self._looped.table_full(type, deadline.seconds)
                or self._looped.full(type, deadline.seconds, None, line)
            ),
        )

    async def ask_again(
        self, type: str, payload: object, deadline: Deadline, reply_type: Any, retry: Retry
    ) -> Message:
        """Likewise, as often as `retry` permits."""
        attempts = Attempts(check_retry(retry), deadline)
        while True:
            try:
                return await self.ask(type, payload, deadline, reply_type, attempts.number)
            except retry.on as why:
                pause = attempts.pause(why)
                if pause is None:
                    raise
            await asyncio.sleep(pause)

    async def ask_many(
        self,
        items: Iterable[tuple[str, object]],
        timeout: float | None,
        window: int | None,
        reply_type: Any,
        inherit_deadline: bool,
    ) -> AsyncGenerator[Message | errors.BusError, None]:
        """Their replies, or the errors that came instead, in the order of the items."""
        self._turns.here()
        limit = window_of(window, self._table.limit)
        outer = in_force() if inherit_deadline else None
        source = iter(items)
        under_way: deque[asyncio.Task[Message]] = deque()
        try:
            while True:
                for type, payload in islice(source, limit - len(under_way)):
                    ask = self.ask(type, payload, until(timeout, outer), reply_type)
                    under_way.append(self._loop.create_task(ask))
                if not under_way:
                    return
                await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
                while under_way and under_way[0].done():
                    first = under_way.popleft()
                    try:
                        reply: Message | errors.BusError = first.result()
                    except errors.BusError as why:
                        reply = why
                    yield reply
        finally:
            for task in under_way:
                task.cancel()
            await asyncio.gather(*under_way, return_exceptions=True)

    async def find(self, type: str, deadline: Deadline) -> Found:
        """All who handle this type, asked of the dispatcher."""
        found = None
        to: Addressee | None = dispatcher_from(0)
        while to is not None:
            more = self._table.found_in(await self.ask(type, None, deadline, None, 1, to))
            found = more if found is None else self._table.add(found, more)
            to = self._table.more_of(found)
        assert found is not None
        return found
