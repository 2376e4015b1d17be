"""How an endpoint leaves its bus in an event loop: `drain` and `close`."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

from shmbus import errors
from shmbus.shared.layout import DownState

from .interrupts import held
from .threads import begin_in_thread, in_thread, to_the_end

if TYPE_CHECKING:
    from collections.abc import Callable

    from shmbus.endpoint._kernel import Looped
    from shmbus.endpoint.endpoint import Endpoint

    from .turns import Turns


PATIENCE = 5.0
"""Seconds that close() waits for tasks at work, and drain() at an interruption."""

FAREWELL = 1.0
"""Seconds that close() waits until answers which found no space have been sent."""


class Ending:
    """The end of one endpoint, which has a synchronous one inside. `start` makes it take
    messages."""

    def __init__(
        self,
        inner: Endpoint,
        looped: Looped,
        turns: Turns,
        loop: asyncio.AbstractEventLoop,
        start: Callable[[], None],
    ) -> None:
        self._inner, self._looped, self._turns, self._loop = inner, looped, turns, loop
        self._start = start
        self._leaving: asyncio.Task[None] | None = None

    async def drain(self, timeout: float | None) -> None:
        """Finish what has been accepted, then close. Where the caller is cancelled, close at
        once."""
        task = asyncio.current_task()
        if self._leaving is None and task is not None:
            mine = int(self._turns.jobs.works(task))
            with held(task.cancel):
                try:
                    left = await self._finish(mine, timeout)
                except asyncio.CancelledError:
                    await self.close(0.0)
                    raise
                await self.close(0.0 if left else None)
            if left and timeout is not None:
                raise errors.DrainTimeout(endpoint=self._inner.name, left=left, seconds=timeout)
        await self.close()

    async def _finish(self, mine: int, timeout: float | None) -> int:
        """How many messages are left; `mine`: those of the caller's."""
        inner = self._inner
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await in_thread(inner.name, "draining", lambda: self._await_drained(timeout))
                self._start()
                while inner._unfinished() > mine and self._turns.trouble is None:
                    await self._turns.changed()
        return max(0, inner._unfinished() - mine)

    def _await_drained(self, timeout: float | None) -> None:
        self._inner._ending.say_leaving(PATIENCE if timeout is None else min(PATIENCE, timeout))
        self._inner._connection.await_state(DownState.DRAINED, timeout)

    async def close(self, patience: float | None = None) -> None:
        """Leave, once; whoever calls it meanwhile waits for that, but for tasks that it waits
        for."""
        caller = asyncio.current_task()
        if self._leaving is not None and self._turns.jobs.is_one(caller):
            return
        cancelled: asyncio.CancelledError | None = None
        with held(self._hasten):
            while True:
                if self._leaving is None or self._leaving.cancelled():  # by the program, unbegun
                    self._leaving = self._loop.create_task(
                        self._leave(caller, PATIENCE if patience is None else patience)
                    )
                try:
                    await to_the_end(self._leaving)
                except asyncio.CancelledError as why:
                    cancelled = why
                if not self._leaving.cancelled():
                    break
                patience = 0.0
        if cancelled is not None and (caller is None or caller.cancelling()):
            raise cancelled

    def _hasten(self) -> None:
        """Wait for no task any more."""
        if self._leaving is not None:
            self._leaving.cancel()

    async def _leave(self, caller: asyncio.Task[Any] | None, patience: float) -> None:
        inner, looped, turns = self._inner, self._looped, self._turns
        turns.stop()
        turns.close_parts(caller)
        try:
            await self._await_last(patience, caller)
        except asyncio.CancelledError:  # this very task, by the program: it cancels all there are
            with contextlib.suppress(asyncio.CancelledError):
                await turns.jobs.finish(0.0, caller)
        if turns.trouble is None:
            looped.release_all([each.gate for each in inner._interests if each.gate is not None])
        looped.fail_all(errors.EndpointClosed(endpoint=inner.name))
        turns.end()
        looped.end()
        try:
            with contextlib.suppress(asyncio.CancelledError):
                await to_the_end(begin_in_thread(inner.name, "closing", inner.close))
        except errors.NoThread:
            inner.close()

    async def _await_last(self, patience: float, caller: asyncio.Task[Any] | None) -> None:
        """Until tasks have ended, and what they answered is sent."""
        looped, turns = self._looped, self._turns
        await turns.jobs.finish(patience, caller)
        end = self._loop.time() + FAREWELL
        while looped.late and turns.trouble is None and self._loop.time() < end:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(end):
                    await turns.changed()
