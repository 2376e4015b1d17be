"""A task that takes too long, or is not wanted any more, is stopped, whatever it does."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import pytest

import shmbus
from shmbus import errors
from shmbus.testing import eventually
from tests.executor import tasks

DOING = [tasks.stay, tasks.compute]
"""Something that waits, and something that lets nothing else run in its process."""


def begin(executor: shmbus.Executor, function: Callable[..., Any]) -> tuple[Any, int]:
    """A task that has begun, and the process that does it."""
    pids: list[int] = []
    task = executor.submit_with(function, progress=pids.append)
    eventually(lambda: pids, "the task has begun")
    return task, pids[0]


@pytest.mark.parametrize("function", DOING)
def test_a_task_is_stopped_at_its_timeout(
    executor: shmbus.Executor, function: Callable[..., Any]
) -> None:
    pids: list[int] = []
    task = executor.submit_with(function, timeout=0.3, progress=pids.append)
    with pytest.raises(errors.TaskTimeout) as raised:
        task.result()
    assert isinstance(raised.value, TimeoutError)
    assert raised.value.task.startswith(f"{function.__name__} #")
    assert pids in ([], [raised.value.pid])
    assert executor.submit(abs, -1).result() == 1


def test_a_timeout_begins_with_the_task_and_not_while_it_waits_for_its_turn() -> None:
    with shmbus.Executor(1, timeout=5.0) as executor:
        first = executor.submit_with(time.sleep, 0.5, timeout=None)
        second = executor.submit_with(abs, -1, timeout=0.4)
        assert first.result() is None
        assert second.result() == 1


@pytest.mark.smoke
@pytest.mark.parametrize("function", DOING)
def test_a_task_that_runs_can_be_cancelled_and_others_go_on(
    executor: shmbus.Executor, function: Callable[..., Any]
) -> None:
    other = executor.submit(time.sleep, 0.2)
    task, pid = begin(executor, function)
    assert task.running()
    assert task.cancel()
    assert task.cancelled()
    with pytest.raises(CancelledError):
        task.result()
    assert other.result() is None
    assert [executor.submit(abs, -number).result() for number in range(5)] == [0, 1, 2, 3, 4]
    eventually(lambda: not os.path.exists(f"/proc/{pid}"), "its worker has ended")


def test_a_task_that_waits_for_its_turn_can_be_cancelled_and_is_never_begun(tmp_path: Path) -> None:
    written = tmp_path / "written"
    with shmbus.Executor(1) as executor:
        first, _ = begin(executor, tasks.stay)
        waiting = [executor.submit(tasks.append, written, "x") for _ in range(50)]
        assert all(task.cancel() for task in waiting)
        assert first.cancel()
        assert executor.submit(abs, -1).result() == 1
    assert not written.exists()


def test_a_task_that_has_ended_cannot_be_cancelled(executor: shmbus.Executor) -> None:
    task = executor.submit(abs, -1)
    assert task.result() == 1
    assert not task.cancel()
    assert not task.cancelled()


def test_a_shutdown_that_cancels_ends_what_waits_and_lets_finish_what_runs() -> None:
    with shmbus.Executor(1) as executor:
        assert executor.submit(abs, -1).result() == 1  # its worker is there
        running = executor.submit(time.sleep, 0.3)
        eventually(running.running, "it runs")
        waiting = [executor.submit(time.sleep, 600) for _ in range(200)]
        executor.shutdown(cancel_futures=True)
        assert running.result() is None
        assert all(task.cancelled() for task in waiting)


def test_a_task_cancelled_where_no_worker_ever_came_keeps_no_shutdown_waiting() -> None:
    with shmbus.Executor(0) as executor:
        assert executor.submit(abs, -1).cancel()
        executor.shutdown(wait=False)
        eventually(lambda: not executor._attending.thread.is_alive(), "it has ended")
