"""What goes wrong with a task, wherever it does, is told by that task alone: an error, an exit or a
crash, as it is pickled, unpickled, done, and as its result is pickled and unpickled."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

import shmbus
from shmbus import errors
from tests.executor import tasks
from tests.executor.tasks import At, crash, end, fail, give, leave

Submit = Callable[[shmbus.Executor], Any]


def _submit(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Submit:
    return lambda executor: executor.submit(function, *args, **kwargs)


CASES: dict[str, tuple[Submit, type[BaseException]]] = {
    "error as the task is pickled": (_submit(id, At(fail, pickled=True)), LookupError),
    "error as the task is unpickled": (_submit(id, At(fail)), LookupError),
    "exit as the task is unpickled": (_submit(id, At(end)), SystemExit),
    "leaving as the task is unpickled": (_submit(id, At(leave)), errors.WorkerDied),
    "crash as the task is unpickled": (_submit(id, At(crash)), errors.WorkerDied),
    "error in the task": (_submit(fail), LookupError),
    "exit in the task": (_submit(end), SystemExit),
    "leaving in the task": (_submit(leave), errors.WorkerDied),
    "crash in the task": (_submit(crash), errors.WorkerDied),
    "error as the result is pickled": (_submit(give, fail, pickled=True), LookupError),
    "exit as the result is pickled": (_submit(give, end, pickled=True), SystemExit),
    "leaving as the result is pickled": (_submit(give, leave, pickled=True), errors.WorkerDied),
    "crash as the result is pickled": (_submit(give, crash, pickled=True), errors.WorkerDied),
    "error as the result is unpickled": (_submit(give, fail, pickled=False), LookupError),
    "exit as the result is unpickled": (_submit(give, end, pickled=False), SystemExit),
}


@pytest.mark.parametrize("what", CASES)
def test_it_reaches_whoever_waits_and_the_others_go_on(
    executor: shmbus.Executor, what: str
) -> None:
    submit, error = CASES[what]
    others = [executor.submit(abs, -number) for number in range(5)]
    with pytest.raises(error):
        submit(executor).result()
    others += [executor.submit(abs, -number) for number in range(5)]
    assert [other.result() for other in others] == [0, 1, 2, 3, 4] * 2


def test_an_exit_with_0_in_a_task_is_told_as_a_death_with_that_code(
    executor: shmbus.Executor,
) -> None:
    error = executor.submit(leave).exception()
    assert isinstance(error, errors.WorkerDied)
    assert (error.signal, error.code) == ("", 0)
    assert "exit code 0" in str(error)


def test_an_error_shows_where_in_the_worker_it_was_raised(executor: shmbus.Executor) -> None:
    error = executor.submit(fail).exception()
    assert isinstance(error, LookupError)
    assert error.args == ("nothing there",)
    assert 'raise LookupError("nothing there")' in str(error.__cause__)


def test_an_error_that_cannot_be_pickled_is_told_in_words(executor: shmbus.Executor) -> None:
    error = executor.submit(_raise_unpicklable).exception()
    assert isinstance(error, shmbus.RemoteError)
    assert "Unpicklable" in str(error)
    assert "no way" in str(error)


class Unpicklable(Exception):
    """With something that belongs to its process."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.held = partial(print, file=open("/dev/null", "w"))  # noqa: SIM115


def _raise_unpicklable() -> None:
    raise Unpicklable("no way")


def test_a_function_that_the_worker_does_not_find_is_an_error_of_that_task(
    executor: shmbus.Executor,
) -> None:
    with pytest.raises(Exception, match=r"<lambda>|local object"):
        executor.submit(lambda: 1).result()
    assert executor.submit(tasks.said).result() == []
