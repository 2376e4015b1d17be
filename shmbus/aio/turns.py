"""What an endpoint does in its event loop whenever something has come for it: a turn.

The bus makes the descriptor of the endpoint's event readable, which the loop watches like any
other; so nothing runs while nothing happens. A turn wakes the calls that wait, takes messages, a
portion at a time, and arms the event anew.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from shmbus import errors
from shmbus.endpoint._kernel import Gate, Looped
from shmbus.shared._kernel import monotonic_ns
from shmbus.shared.messages import Death

from .jobs import Jobs

if TYPE_CHECKING:
    from shmbus.endpoint._kernel import Connection

log = logging.getLogger("shmbus")

NEVER = 2**64 - 1


class Turns:
    """Those of one endpoint."""

    def __init__(
        self, connection: Connection, looped: Looped, loop: asyncio.AbstractEventLoop
    ) -> None:
        self._connection, self._looped, self._loop = connection, looped, loop
        self.jobs = Jobs(connection.name, loop, self.again)
        self._runs = 0
        self._leaving = False
        self.over = False
        """The endpoint is closed."""
        self.trouble: errors.BusError | None = None
        """What kept its calls from proceeding at the last turn."""
        self._scheduled = False
        self._receivers: deque[asyncio.Future[None]] = deque()
        self._iterated: dict[Gate, asyncio.Future[None] | None] = {}
        self._watchers: list[asyncio.Future[None]] = []
        self._line = asyncio.Lock()
        self._in_line = 0
        self._room: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.earliest = NEVER
        """When the timer looks for requests whose time has elapsed, ns."""

    def begin(self) -> None:
        """From here on the loop watches."""
        self._loop.add_reader(self._connection.event, self._turn)
        self.again()

    def start(self, receivers: int) -> None:
        """Take messages although nobody waits for one: so many can be worked on at a time."""
        self._runs = receivers
        self.again()

    def stop(self) -> None:
        """Take none any more: who waits for one is told that there is none."""
        self._leaving = True
        self._runs = 0
        self._connection.stop(at_once=True)
        self._wake_all()
        self.again()

    def end(self) -> None:
        """And no more: whoever waits is woken."""
        self.over = True
        if self._connection.event >= 0 and not self._loop.is_closed():
            self._loop.remove_reader(self._connection.event)
        if self._timer is not None:
            self._timer.cancel()
        self._wake_all()

    # A turn ----------------------------------------------------------------------------------

    def again(self) -> None:
        """Have a turn soon."""
        if not self._scheduled and not self.over:
            self._scheduled = True
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        self._scheduled = False
        if self.over:
            return
        looped = self._looped
        looped.rest()
        looped.collect()
        if withdrawn := looped.take_cancelled():
            self.jobs.withdraw(withdrawn)
        looped.send_late()
        self._note_trouble()
        if self._room is not None and not self._room.done():
            self._room.set_result(None)
        self._receive()
        for watcher in self._watchers:
            if not watcher.done():
                watcher.set_result(None)
        self._arm()

    def _note_trouble(self) -> None:
        try:
            self._looped.require()
        except errors.BusError as why:
            if self.trouble is None:
                self.trouble = why.with_traceback(None)
                self._looped.fail_all(self.trouble)
                self._wake_all()
        else:
            self.trouble = None

    def _wake_all(self) -> None:
        waiting = [*self._receivers, *self._iterated.values(), self._room, *self._watchers]
        for future in waiting:
            if future is not None and not future.done():
                future.set_result(None)

    def _receive(self) -> None:
        looped = self._looped
        if self._runs or self._iterated:
            looped.next(False)
            if looped.paused:
                self.again()
        while self._receivers and self._receivers[0].done():
            self._receivers.popleft()
        if self._receivers and (looped.queue or looped.data_waits()):
            self._receivers.popleft().set_result(None)

    def _arm(self) -> None:
        receivers = self._runs or len(self._receivers) or len(self._iterated)
        if not self._scheduled and self._looped.arm(receivers):
            self.again()

    # Waiting ---------------------------------------------------------------------------------

    def message(self, gate: Gate | None) -> asyncio.Future[None] | None:
        """Done when there may be a message without a callback, or one of that subscription. None at
        the end of the endpoint. Raises the error of a trouble."""
        if self.over or self._leaving or (gate is not None and gate not in self._iterated):
            return None
        self._looped.require()
        future = self._loop.create_future()
        if gate is None:
            self._receivers.append(future)
        else:
            self._iterated[gate] = future
        self._arm()
        return future

    def iterate(self, gate: Gate) -> None:
        """Messages of this subscription are taken for who iterates over them."""
        self._iterated.setdefault(gate, None)

    def forget(self, gate: Gate) -> None:
        """Not any more."""
        future = self._iterated.pop(gate, None)
        if future is not None and not future.done():
            future.set_result(None)

    def arrived(self, gate: Gate) -> None:
        """A message of that subscription is there."""
        future = self._iterated.get(gate)
        if future is not None and not future.done():
            future.set_result(None)

    def tell(self, callback: Callable[[Death], Any], death: Death) -> None:
        """From another thread: have the loop call it."""
        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self.jobs.call, callback, death)

    async def changed(self) -> None:
        """Wait for the next turn."""
        watcher = self._loop.create_future()
        self._watchers.append(watcher)
        try:
            await watcher
        finally:
            self._watchers.remove(watcher)

    async def in_line(
        self,
        attempt: Callable[[], bool],
        timeout: float | None,
        elapsed: Callable[[], errors.BusError],
    ) -> None:
        """Wait behind others until `attempt` finds space, which then returns True. Raises what it
        raises, and `elapsed()` after `timeout` seconds."""
        self._in_line += 1
        self._looped.waiting = True
        try:
            async with asyncio.timeout(timeout) as limit, self._line:
                while not attempt():
                    await self._await_room()
        except TimeoutError:
            if not limit.expired():
                raise
            raise elapsed() from None
        finally:
            self._in_line -= 1
            self._looped.waiting = self._in_line > 0

    async def _await_room(self) -> None:
        self._room = self._loop.create_future()
        self._arm()
        try:
            await self._room
        finally:
            self._room = None

    # Deadlines -------------------------------------------------------------------------------

    def expect(self, deadline: int) -> None:
        """A request is under way whose time elapses then (ns, by the monotonic clock)."""
        if deadline < self.earliest:
            self._set_timer(deadline)

    def _set_timer(self, deadline: int) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self.earliest = deadline
        if deadline == NEVER:
            self._timer = None
        else:
            self._timer = self._loop.call_later(
                max(0.0, (deadline - monotonic_ns()) / 1e9), self._expire
            )

    def _expire(self) -> None:
        self._set_timer(self._looped.expire())
        self.again()
