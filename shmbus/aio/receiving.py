"""Messages that have no callback, taken one at a time by the task that asks for them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from shmbus import errors
from shmbus.endpoint._kernel import LoopIteration
from shmbus.shared._kernel import seconds

if TYPE_CHECKING:
    from shmbus.endpoint._kernel import Looped, Message

    from .turns import Turns


class Receiving:
    """That of one endpoint. Each task has an iteration of its own, which ends with it."""

    def __init__(self, looped: Looped, turns: Turns, endpoint: str) -> None:
        self._looped, self._turns, self._endpoint = looped, turns, endpoint
        self._iterations: dict[asyncio.Task[Any] | None, LoopIteration] = {}

    async def receive(self, timeout: float | None) -> Message | None:
        """The next message; None after `timeout` seconds (None: never)."""
        span = seconds(timeout)
        iteration = self._iteration()
        while (message := iteration.take()) is None and self._looped.paused:
            await asyncio.sleep(0)
        if message is not None or span == 0.0:
            return message
        try:
            async with asyncio.timeout(span) as limit:
                return await iteration.__anext__()
        except StopAsyncIteration:
            raise errors.EndpointClosed(endpoint=self._endpoint) from None
        except TimeoutError:
            if not limit.expired():
                raise
            return None

    def _iteration(self) -> LoopIteration:
        """That of the calling task."""
        task = asyncio.current_task()
        iteration = self._iterations.get(task)
        if iteration is None:
            iteration = LoopIteration(self._looped, None, self._turns.message)
            self._iterations[task] = iteration
            if task is not None:
                task.add_done_callback(self._task_done)
        return iteration

    def _task_done(self, task: asyncio.Task[Any]) -> None:
        self._iterations.pop(task).put_down()
