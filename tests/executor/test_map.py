"""`Executor.map`: a function applied to many items."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

import shmbus
from tests.executor import tasks


@pytest.mark.smoke
@pytest.mark.parametrize("chunksize", [1, 7])
def test_the_results_come_in_the_order_of_the_items(
    executor: shmbus.Executor, chunksize: int
) -> None:
    numbers = range(-500, 500)
    assert list(executor.map(abs, numbers, chunksize=chunksize)) == [abs(n) for n in numbers]
    pairs = executor.map(divmod, numbers, itertools.repeat(7), chunksize=chunksize)
    assert list(pairs) == [divmod(n, 7) for n in numbers]
    assert list(executor.map(abs, [], chunksize=chunksize)) == []


@pytest.mark.parametrize("chunksize", [1, 4])
def test_of_endless_items_few_are_taken_before_their_results_are(
    executor: shmbus.Executor, chunksize: int
) -> None:
    taken = 0

    def endless() -> Iterator[int]:
        nonlocal taken
        for number in itertools.count():
            taken += 1
            yield number

    results = executor.map(abs, endless(), window=16, chunksize=chunksize)
    for number in range(100):
        assert next(results) == number
        assert taken <= number + 16 + chunksize
    results.close()


def test_results_that_need_no_order_come_as_they_are_done(
    executor: shmbus.Executor, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    results = executor.map(tasks.await_file_if, [go, None, None, None], ordered=False)
    assert [next(results) for _ in range(3)] == [None] * 3
    go.touch()
    assert list(results) == ["gone"]


def test_what_a_call_raises_comes_in_its_place_and_ends_the_iteration(
    executor: shmbus.Executor,
) -> None:
    results = executor.map(divmod, [1, 2, 3], [1, 0, 1])
    assert next(results) == (1, 0)
    with pytest.raises(ZeroDivisionError):
        next(results)
    assert list(results) == []


def test_the_time_for_all_results_is_counted_from_the_call(
    executor: shmbus.Executor, tmp_path: Path
) -> None:
    results = executor.map(tasks.await_file_if, [None, tmp_path / "go"], timeout=0.2)
    with pytest.raises(TimeoutError):
        list(results)
    (tmp_path / "go").touch()


def test_results_are_there_after_the_executor_has_been_shut_down() -> None:
    with shmbus.Executor(1) as executor:
        results = executor.map(abs, range(-1500, 0), window=100)
        forgotten = executor.map(abs, range(10))
    del forgotten, executor
    assert list(results) == list(range(1500, 0, -1))


def test_what_is_left_is_not_begun_when_the_iterator_is_closed(
    executor: shmbus.Executor, tmp_path: Path
) -> None:
    written = tmp_path / "written"
    results = executor.map(tasks.append_after, itertools.repeat(written), itertools.count())
    assert next(results) == 0
    results.close()
    assert executor.submit(abs, -1).result() == 1
    assert len(written.read_text()) < 1000


def test_what_cannot_be_asked_for_is_refused(executor: shmbus.Executor) -> None:
    with pytest.raises(ValueError, match="chunksize"):
        executor.map(abs, [1], chunksize=0)
    with pytest.raises(ValueError, match="window"):
        executor.map(abs, [1], window=0)
