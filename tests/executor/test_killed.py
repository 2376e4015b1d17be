"""A worker that is killed takes its own task along, and nothing else."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

import shmbus
from shmbus import errors
from shmbus.testing import eventually
from tests.executor import tasks


@pytest.mark.smoke
def test_a_killed_worker_fails_its_own_task_alone_and_the_error_names_task_and_signal(
    executor: shmbus.Executor,
) -> None:
    before = [executor.submit(abs, -number) for number in range(20)]
    killed = executor.submit(tasks.die)
    after = [executor.submit(abs, -number) for number in range(20)]
    with pytest.raises(errors.WorkerDied) as raised:
        killed.result()
    assert raised.value.signal == "SIGKILL"
    assert raised.value.task.startswith("die #")
    assert raised.value.pid not in (None, os.getpid())
    for named in ("die #", "SIGKILL", f"process {raised.value.pid}"):
        assert named in str(raised.value)
    assert [task.result() for task in before + after] == [*range(20), *range(20)]


def test_a_crash_names_its_signal(executor: shmbus.Executor) -> None:
    error = executor.submit(tasks.crash).exception()
    assert isinstance(error, errors.WorkerDied)
    assert error.signal == "SIGSEGV"


def test_a_killed_worker_is_told_as_an_endpoint_that_died(executor: shmbus.Executor) -> None:
    with pytest.raises(shmbus.EndpointDied):
        executor.submit(tasks.die).result()


def test_a_task_whose_worker_was_killed_is_tried_again_if_that_is_asked_for(
    executor: shmbus.Executor, tmp_path: Path
) -> None:
    task = executor.submit_with(tasks.die_unless, tmp_path / "mark", retries=1)
    assert task.result() != os.getpid()


def test_it_is_not_tried_more_often_than_asked_for(executor: shmbus.Executor) -> None:
    with pytest.raises(errors.WorkerDied):
        executor.submit_with(tasks.die, retries=1).result()


def test_what_a_task_raises_is_not_tried_again(executor: shmbus.Executor, tmp_path: Path) -> None:
    tried = tmp_path / "tried"
    assert executor.submit_with(tasks.append, tried, "once", retries=3).result() is None
    with pytest.raises(LookupError):
        executor.submit_with(tasks.fail, retries=3).result()
    assert tried.read_text() == "once"


def test_a_worker_killed_while_it_has_nothing_to_do_is_replaced() -> None:
    with shmbus.Executor(1) as executor:
        first = executor.submit(os.getpid).result()
        os.kill(first, signal.SIGKILL)
        assert executor.submit_with(os.getpid, retries=1).result() != first


def test_a_map_says_which_item_died_and_the_executor_goes_on(executor: shmbus.Executor) -> None:
    results = executor.map(_die_at_3, range(10))
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(errors.WorkerDied) as raised:
        next(results)
    assert "_die_at_3 #" in raised.value.task
    assert executor.submit(abs, -1).result() == 1


def _die_at_3(number: int) -> int:
    if number == 3:
        tasks.die()
    return number


@pytest.mark.slow
def test_what_a_killed_worker_of_a_worker_does_is_ended_with_it() -> None:
    pids: list[int] = []
    with shmbus.Executor(1) as executor:
        outer = executor.submit(os.getpid).result()
        task = executor.submit_with(tasks.nested_stay, progress=pids.append)
        eventually(lambda: len(pids) == 1, "the inner task has begun")
        os.kill(outer, signal.SIGKILL)
        assert isinstance(task.exception(), errors.WorkerDied)
        eventually(lambda: not _runs(pids[0]), "the inner worker has ended")


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False
