"""What an endpoint does in its event loop whenever something has come for it: a turn.

The bus makes the descriptor of the endpoint's event readable, which the loop watches like any
other; so nothing runs while nothing happens. A turn wakes the calls that wait, takes messages, a
portion at a time, and arms the event anew.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from shmbus import errors
from shmbus.endpoint._kernel import Gate, Looped
from shmbus.endpoint.runners import SHORTAGE
from shmbus.shared._kernel import monotonic_ns
from shmbus.shared.messages import Death

from .jobs import Jobs
from .line import Line
from .receivers import Receivers

if TYPE_CHECKING:
    from shmbus.endpoint._kernel import Connection

log = logging.getLogger("shmbus")

_running_loop = asyncio._get_running_loop

NEVER = 2**64 - 1

PATIENCE = 2.0
"""Seconds that no message is taken, because too many are here, before a warning is logged."""


class Turns:
    """Those of one endpoint."""

    def __init__(
        self, connection: Connection, looped: Looped, loop: asyncio.AbstractEventLoop
    ) -> None:
        self._connection, self._looped, self._loop = connection, looped, loop
        self.jobs = Jobs(connection.name, loop, self._job_ended)
        self.lines = tuple(Line(looped, number, loop, self.arm) for number in range(2))
        self.receivers = Receivers(looped, loop)
        looped.resume, looped.forgo = self.again, self.receivers.forgo
        looped.pause, looped.future = partial(asyncio.sleep, 0), loop.create_future
        looped.expect, looped.rearm = self.expect, self.arm
        self._taker: Callable[[], object] | None = None
        self.runs = 0
        """How many messages can be worked on at a time though nobody waits for one."""
        self._context = contextvars.copy_context()  # of callbacks, whoever has a turn made
        self._leaving = False
        self.over = False
        """The endpoint is closed."""
        self.trouble: errors.BusError | None = None
        """What kept its calls from proceeding at the last turn."""
        self._hopeless = False  # it stays
        self._scheduled = False
        self._watchers: list[asyncio.Future[None]] = []  # of each turn,
        self._runners: list[asyncio.Future[None]] = []  # or of trouble and the end
        self._timer: asyncio.TimerHandle | None = None
        self.earliest = NEVER
        """When the timer looks for requests whose time has elapsed, ns."""
        self._patience: asyncio.TimerHandle | None = None
        self._short: asyncio.TimerHandle | None = None
        """The system has no descriptor or memory for the next message: when to look again."""

    def here(self) -> None:
        """Raises `WrongLoop` unless it is called in that loop."""
        if _running_loop() is not self._loop:
            raise errors.WrongLoop(endpoint=self._connection.name, closed=self._loop.is_closed())

    def begin(self) -> None:
        """From here on the loop watches."""
        self._loop.add_reader(self._connection.event, self._turn)
        self.again()

    def watch_elsewhere(self) -> int:
        """The descriptor of the event, which from now on another thread watches, and calls `work`
        and `arm`, in the loop's place, while that sleeps."""
        self._loop.remove_reader(self._connection.event)
        return self._connection.event

    def take_by(self, taker: Callable[[], object] | None) -> None:
        """Have that called in each turn, which takes what no callback gets, all that waits."""
        self._taker = taker
        self.again()

    def start(self, receivers: int) -> None:
        """Take messages although nobody waits for one: so many can be worked on at a time."""
        self.runs = receivers
        self.again()

    def stop(self) -> None:
        """Take none any more: who waits for one is told that there is none."""
        self._leaving = True
        self.runs, self._taker = 0, None
        self._connection.stop(at_once=True)
        self.receivers.wake_all()
        self.again()

    def close_parts(self, caller: asyncio.Task[Any] | None) -> None:
        """Close the generators of replies that are given in parts, but the caller's."""
        self.jobs.close_parts(caller)
        self._looped.close_parts()

    def end(self) -> None:
        """The loop watches no more: whoever waits is woken."""
        self.over = True
        if self._connection.event >= 0 and not self._loop.is_closed():
            self._loop.remove_reader(self._connection.event)
        for timer in (self._timer, self._patience, self._short):
            if timer is not None:
                timer.cancel()
        self._wake_all()

    # A turn ----------------------------------------------------------------------------------

    def again(self) -> None:
        """Have a turn soon."""
        if not self._scheduled and not self.over and not self._loop.is_closed():
            self._scheduled = True
            self._loop.call_soon(self._turn, context=self._context)

    def _job_ended(self) -> None:
        if self._watchers:  # else nobody waits for that
            self.again()

    def _turn(self) -> None:
        try:
            self.work()
        finally:  # whatever a callback raised
            self.arm()

    def work(self) -> None:
        """All that a turn does before the loop may sleep."""
        self._scheduled = False
        if self.over:
            return
        looped = self._looped
        if withdrawn := looped.look():
            self.jobs.withdraw(withdrawn)
        if looped.troubled or self.trouble is not None:
            self._note_trouble()
        self._wake_lines()
        if (self.runs or self.receivers.iterates) and self._short is None:
            self._take_next()
        if self._taker is not None:
            self._taker()
        if looped.giving:
            self.expect(looped.go_on())
        self.receivers.wake()
        _wake(self._watchers)

    def _take_next(self) -> None:
        try:
            self._looped.next(False)
        except errors.NoResource as why:  # the message waits until it can be had
            log.warning("%s", why)
            self._short = self._loop.call_later(SHORTAGE, self._long_enough, context=self._context)
        self._note_pause()

    def _long_enough(self) -> None:
        self._short = None
        self.again()

    def _note_trouble(self) -> None:
        try:
            self._looped.require()
        except errors.BusError as why:
            hopeless = not self._looped.recoverable
            if self.trouble is None or hopeless > self._hopeless:
                self.trouble = why.with_traceback(None)
                self._hopeless = hopeless
                self._looped.fail_all(self.trouble)
                if hopeless:  # nobody gets the rest of them
                    self.close_parts(None)
                self._wake_all()
        else:
            self.trouble = None

    def _wake_all(self) -> None:
        self._wake_lines()
        self.receivers.wake_all()
        _wake(self._watchers)
        _wake(self._runners)

    def _wake_lines(self) -> None:
        for line in self.lines:
            line.wake()

    def _note_pause(self) -> None:
        """There may be more messages: go on after others, or watch that it goes on some time."""
        if self._looped.paused:
            self.again()
        if self._looped.crowded != (self._patience is not None):
            if self._patience is not None:
                self._patience.cancel()
                self._patience = None
            else:
                ended = self._looped.ended
                self._patience = self._loop.call_later(PATIENCE, self._warn_if_stuck, ended)

    def _warn_if_stuck(self, ended: int) -> None:
        self._patience = None
        if self._looped.ended == ended and not self.over:
            log.warning(
                "endpoint %r takes no messages: as many are at work, or wait for who iterates over "
                "their subscription, as its concurrency permits (%d), and none has been done for "
                "%g s. Iterate over each subscription or close it, let handlers end sooner, or "
                "attach with a larger concurrency=",
                self._connection.name,
                self._looped.most,
                PATIENCE,
            )

    def arm(self) -> None:
        """The loop may sleep, unless there is something to do by now."""
        if self._scheduled or self.over:
            return
        receivers = self.runs or len(self.receivers) or self._taker is not None
        asks = self._taker is not None or self.receivers.asks
        if self._looped.arm(receivers if self._short is None else 0, asks):
            self.again()

    # Waiting ---------------------------------------------------------------------------------

    def message(self, gate: Gate | None) -> asyncio.Future[None] | None:
        """Done when there may be a message without a callback, or one of that subscription. None at
        the end of the endpoint, or of the subscription. Raises the error of a trouble."""
        if self.over or self._leaving or (gate and not self.receivers.iterated(gate)):
            return None
        self._looped.require()
        future = self.receivers.wait(gate)
        self.arm()
        return future

    async def changed(self) -> None:
        """Wait for the next turn, also where only a job has ended."""
        await self._wait_among(self._watchers)

    async def disturbed(self) -> None:
        """Wait for trouble, or for the end."""
        await self._wait_among(self._runners)

    async def _wait_among(self, waiting: list[asyncio.Future[None]]) -> None:
        future = self._loop.create_future()
        waiting.append(future)
        try:
            await future
        finally:
            waiting.remove(future)

    def tell(self, callback: Callable[[Death], Any], death: Death) -> None:
        """From another thread: have the loop call it."""
        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self.jobs.call, callback, death)

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
            left = max(0.0, (deadline - monotonic_ns()) / 1e9)
            self._timer = self._loop.call_later(left, self._expire)

    def _expire(self) -> None:
        self._set_timer(self._looped.expire())
        self.again()


def _wake(futures: list[asyncio.Future[None]]) -> None:
    for future in futures:
        if not future.done():
            future.set_result(None)
