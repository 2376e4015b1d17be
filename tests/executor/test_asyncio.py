"""An executor under asyncio: `run_in_executor` with shmbus.Executor."""

from __future__ import annotations

import asyncio
import os

import pytest

import shmbus
from shmbus import errors
from shmbus.testing import eventually, eventually_async, run_async
from tests.executor import tasks


@pytest.mark.smoke
def test_a_coroutine_awaits_calls_in_workers(executor: shmbus.Executor) -> None:
    @run_async
    async def main() -> None:
        loop = asyncio.get_running_loop()
        results = await asyncio.gather(
            *(loop.run_in_executor(executor, abs, -number) for number in range(100))
        )
        assert results == list(range(100))


def test_what_a_task_raises_is_raised_where_it_is_awaited(executor: shmbus.Executor) -> None:
    @run_async
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with pytest.raises(LookupError):
            await loop.run_in_executor(executor, tasks.fail)
        with pytest.raises(errors.WorkerDied):
            await loop.run_in_executor(executor, tasks.die)
        assert await loop.run_in_executor(executor, abs, -1) == 1


def test_cancelling_what_awaits_a_task_stops_the_task(executor: shmbus.Executor) -> None:
    pids: list[int] = []

    @run_async
    async def main() -> None:
        loop = asyncio.get_running_loop()
        waiting = asyncio.ensure_future(
            asyncio.wrap_future(executor.submit_with(tasks.stay, progress=pids.append))
        )
        await eventually_async(lambda: pids, "the task has begun")
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert await loop.run_in_executor(executor, abs, -1) == 1

    eventually(lambda: not os.path.exists(f"/proc/{pids[0]}"), "its worker has ended")


def test_a_time_limit_on_awaiting_stops_the_task(executor: shmbus.Executor) -> None:
    @run_async
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(loop.run_in_executor(executor, tasks.compute), 0.3)
        assert await loop.run_in_executor(executor, abs, -1) == 1
