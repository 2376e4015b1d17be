"""The processes of an executor: how they start, how many tasks they do, what they do first."""

from __future__ import annotations

import os
import threading
from concurrent.futures import BrokenExecutor

import pytest

import shmbus
from shmbus import errors
from tests.executor import tasks

METHODS = ["forkserver", pytest.param("spawn", marks=pytest.mark.slow), "fork"]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_each_start_method_does_tasks_raises_and_survives_a_kill(method: str) -> None:
    with shmbus.Executor(1, mp_context=method) as executor:
        first = executor.submit(os.getpid).result()
        assert first != os.getpid()
        assert isinstance(executor.submit(tasks.fail).exception(), LookupError)
        assert isinstance(executor.submit(tasks.die).exception(), errors.WorkerDied)
        assert executor.submit(os.getpid).result() not in (first, os.getpid())
        assert list(executor.map(abs, range(-5, 0))) == [5, 4, 3, 2, 1]


def test_a_worker_leaves_after_so_many_tasks_and_none_is_stranded() -> None:
    with shmbus.Executor(1, max_tasks_per_child=2) as executor:
        done = [executor.submit(os.getpid) for _ in range(8)]
        pids = [task.result() for task in done]
        assert len(set(pids)) == 4
        assert all(pids.count(pid) == 2 for pid in pids)


def test_the_initializer_is_called_once_in_each_worker_before_its_tasks() -> None:
    with shmbus.Executor(1, initializer=tasks.say, initargs=("hello",)) as executor:
        assert executor.submit(tasks.said).result() == ["hello"]
        assert executor.submit(tasks.said).result() == ["hello"]
        assert isinstance(executor.submit(tasks.die).exception(), errors.WorkerDied)
        assert executor.submit(tasks.said).result() == ["hello"]


def test_an_initializer_that_raises_ends_every_task_with_its_traceback() -> None:
    with shmbus.Executor(1, initializer=tasks.fail) as executor:
        waiting = [executor.submit(abs, -1) for _ in range(3)]
        for task in waiting:
            error = task.exception()
            assert isinstance(error, errors.PoolBroken)
            assert isinstance(error, BrokenExecutor)
            assert 'raise LookupError("nothing there")' in str(error)
        with pytest.raises(errors.PoolBroken):
            executor.submit(abs, -1)


@pytest.mark.slow
def test_workers_that_die_before_they_are_ready_are_given_up() -> None:
    with shmbus.Executor(1, initializer=tasks.crash) as executor:
        error = executor.submit(abs, -1).exception()
        assert isinstance(error, errors.PoolBroken)
        assert "SIGSEGV" in str(error)


def test_threads_submit_at_once(executor: shmbus.Executor) -> None:
    found: dict[int, list[int]] = {}

    def submit(thread: int) -> None:
        numbers = range(thread * 100, thread * 100 + 100)
        found[thread] = [task.result() for task in [executor.submit(abs, -n) for n in numbers]]

    threads = [threading.Thread(target=submit, args=(thread,)) for thread in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {n: list(range(n * 100, n * 100 + 100)) for n in range(8)}


@pytest.mark.slow
def test_a_task_may_have_an_executor_of_its_own(executor: shmbus.Executor) -> None:
    assert executor.submit(tasks.nested, -7).result() == 7
