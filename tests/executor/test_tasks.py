"""The future of a task: as `concurrent.futures` has it, and what it can do besides."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent import futures
from pathlib import Path
from typing import Any

import pytest

import shmbus
from shmbus import errors
from shmbus.testing import eventually
from tests.executor import tasks


def begun(executor: shmbus.Executor, function: Callable[[], Any] = tasks.stay) -> Any:
    """A task that a worker has begun, and never ends."""
    task = executor.submit(function)
    eventually(task.running, "a worker has begun it")
    return task


@pytest.mark.smoke
def test_tasks_are_done_and_have_their_results_in_whatever_order_these_are_asked_for(
    executor: shmbus.Executor,
) -> None:
    given = [executor.submit(divmod, number, 7) for number in range(2000)]
    assert [task.result() for task in reversed(given)] == [
        divmod(number, 7) for number in reversed(range(2000))
    ]
    assert all(task.done() and not task.running() and not task.cancel() for task in given)


def test_threads_submit_and_wait_beside_each_other(executor: shmbus.Executor) -> None:
    wrong: list[int] = []

    def use(first: int) -> None:
        for number in range(first, first + 200):
            if executor.submit(abs, -number).result(timeout=60) != number:
                wrong.append(number)

    threads = [threading.Thread(target=use, args=(1000 * n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_one_that_waits_gives_up_when_its_time_is_over_and_the_task_goes_on(
    executor: shmbus.Executor, tmp_path: Path
) -> None:
    task = executor.submit(tasks.await_file, tmp_path / "go")
    with pytest.raises(TimeoutError):
        task.result(timeout=0.01)
    with pytest.raises(TimeoutError):
        task.exception(timeout=0)
    (tmp_path / "go").touch()
    assert task.result() == "gone"


def test_a_task_may_wait_for_one_that_was_submitted_after_it(
    executor: shmbus.Executor, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    before = [executor.submit(abs, -number) for number in range(500)]  # the bus gives some ahead
    waits = executor.submit(tasks.await_file, go)
    after = [executor.submit(tasks.append, go, "x") for _ in range(20)]
    assert waits.result(timeout=60) == "gone"
    assert [task.result() for task in before] == list(range(500))
    assert [task.result() for task in after] == [None] * 20
    assert go.read_text() == "x" * 20


def test_callbacks_are_called_in_a_thread_of_the_executors_and_may_submit_more(
    executor: shmbus.Executor,
) -> None:
    told: list[tuple[int, int]] = []

    def next_one(task: futures.Future[int]) -> None:
        told.append((task.result(), threading.get_ident()))
        if task.result() > 1:
            executor.submit(int, task.result() - 1).add_done_callback(next_one)

    executor.submit(int, 5).add_done_callback(next_one)
    eventually(lambda: len(told) == 5, "each has submitted the next")
    assert [number for number, _ in told] == [5, 4, 3, 2, 1]
    assert threading.get_ident() not in {thread for _, thread in told}


def test_who_waits_for_several_is_told_of_the_first_that_ends(
    executor: shmbus.Executor, tmp_path: Path
) -> None:
    slow: Any = executor.submit(tasks.await_file, tmp_path / "go")
    quick: Any = executor.submit(abs, -1)
    done, others = futures.wait([slow, quick], return_when=futures.FIRST_COMPLETED, timeout=60)
    assert (done, others) == ({quick}, {slow})
    (tmp_path / "go").touch()
    assert set(futures.as_completed([slow, quick], timeout=60)) == {slow, quick}
    assert futures.wait([slow, quick]).done == {slow, quick}


def test_cancelling_a_task_that_runs_stops_it_and_the_others_are_done() -> None:
    with shmbus.Executor(1) as executor:
        task = begun(executor)
        others = [executor.submit(abs, -number) for number in range(20)]
        assert not others[-1].running()
        assert others[-1].cancel()
        assert task.cancel()
        assert task.cancelled()
        assert task.done()
        assert not task.running()
        with pytest.raises(futures.CancelledError):
            task.result()
        assert [other.result() for other in others[:-1]] == list(range(19))


def test_a_task_that_takes_too_long_is_stopped_with_the_facts(executor: shmbus.Executor) -> None:
    with pytest.raises(errors.TaskTimeout) as raised:
        executor.submit_with(tasks.compute, timeout=0.05).result()
    assert raised.value.seconds >= 0.05
    assert raised.value.task.startswith("compute #")
    assert raised.value.pid is not None
    eventually(lambda: not os.path.exists(f"/proc/{raised.value.pid}"), "its worker has ended")
    assert executor.submit(abs, -1).result() == 1


def test_a_task_is_begun_anew_as_often_as_it_may_be_if_its_worker_dies(
    executor: shmbus.Executor, tmp_path: Path
) -> None:
    assert executor.submit_with(tasks.die_unless, tmp_path / "mark", retries=1).result() > 0
    with pytest.raises(errors.WorkerDied) as raised:
        executor.submit_with(tasks.die, retries=1).result()
    assert raised.value.signal == "SIGKILL"


def test_what_a_task_reports_comes_in_order_and_before_its_result(
    executor: shmbus.Executor,
) -> None:
    heard: list[int] = []
    assert executor.submit_with(tasks.count, 20, progress=heard.append).result() == 20
    assert heard == list(range(20))
    assert executor.submit(tasks.count, 3).result() == 3  # nobody listens


def test_an_argument_that_cannot_be_pickled_is_the_error_of_its_task_alone(
    executor: shmbus.Executor,
) -> None:
    lock: Any = threading.Lock()
    task = executor.submit(abs, lock)
    assert isinstance(task.exception(), TypeError)
    assert executor.submit(abs, -1).result() == 1


def test_a_forked_child_cannot_use_its_parents_executor(executor: shmbus.Executor) -> None:
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            executor.submit(abs, -1)
        except errors.ForkedEndpoint:
            os.write(writer, b"refused")
        finally:
            os._exit(0)
    os.close(writer)
    os.waitpid(pid, 0)
    with open(reader, "rb") as pipe:
        assert pipe.read() == b"refused"
    assert executor.submit(abs, -1).result() == 1


def test_all_tasks_end_where_no_worker_can_begin() -> None:
    with shmbus.Executor(1, initializer=tasks.fail) as executor:
        given = [executor.submit(abs, -1) for _ in range(3)]
        for task in given:
            with pytest.raises(errors.PoolBroken, match="nothing there"):
                task.result()
        with pytest.raises(errors.PoolBroken):
            executor.submit(abs, -1)
        with pytest.raises(errors.PoolBroken):
            executor.map(abs, [-1])
