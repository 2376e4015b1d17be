"""What is put comes out: of any kind, size and number, in order; and errors reach who made them."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import pytest

import shmbus
from shmbus.testing import eventually, in_shm

from .conftest import Start
from .users import echo, put

Make = Callable[..., shmbus.JoinableQueue[Any]]


class Broken:
    """Cannot be unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _raise, ("it is broken",)


def _raise(text: str) -> None:
    raise ValueError(text)


VALUES = [
    *(0, 1, -1, 2**62, -(2**63), 2**63 - 1, 2**63, 10**40),
    *(True, False, None, 0.5, float("inf"), "", "short", "ä€😀", "x" * 5000, b"", b"\0" * 300),
    *((), [1, [2]], {"a": (1, 2)}, {3}, bytearray(b"ab"), 2 + 3j, range(3), int, ValueError),
]


@pytest.mark.smoke
def test_every_kind_of_value_comes_out_as_it_went_in(make: Make) -> None:
    one = make()
    for value in VALUES:
        one.put(value)
        got = one.get(timeout=30)
        assert (got, type(got)) == (value, type(value))


def test_subclasses_of_plain_types_stay_what_they_are(make: Make) -> None:
    import enum
    import http

    one = make()
    for value in (http.HTTPStatus.OK, enum.Enum("E", "a", module=__name__) and True):
        one.put(value)
        assert type(one.get(timeout=30)) is type(value)


def test_large_values_cross_whole(make: Make, start: Start) -> None:
    questions, answers = make(), make()
    start(echo, questions, answers)
    for size in (1 << 16, 1 << 20, 12_345_678):
        array = np.arange(size // 8)
        questions.put(array)
        assert np.array_equal(answers.get(timeout=30), array)
    questions.put(None)


def test_everything_may_be_put_before_anybody_gets(make: Make) -> None:
    one = make()
    for number in range(100_000):
        one.put((number, "text"))
    assert one.qsize() == 100_000
    assert [one.get(timeout=30)[0] for _ in range(100_000)] == list(range(100_000))
    assert one.empty()


def test_the_messages_of_each_process_stay_in_order(make: Make, start: Start) -> None:
    one = make(maxsize=10)
    for who in "abc":
        start(put, one, *((who, number) for number in range(300)))
    got = [one.get(timeout=30) for _ in range(900)]
    for who in "abc":
        assert [number for by, number in got if by == who] == list(range(300))


def test_what_cannot_be_pickled_is_an_error_of_put(make: Make) -> None:
    one = make(maxsize=1)
    with pytest.raises((TypeError, AttributeError)):
        one.put(threading.Lock())
    with pytest.raises((TypeError, AttributeError)):
        one.put(lambda: None)
    one.put("next", timeout=30)
    assert one.get(timeout=30) == "next"
    assert one.empty()


def test_what_cannot_be_unpickled_is_an_error_of_get_and_gone(make: Make) -> None:
    one = make()
    put(one, Broken(), "next")
    with pytest.raises(ValueError, match="it is broken"):
        one.get(timeout=30)
    assert one.get(timeout=30) == "next"


def test_many_are_put_and_got_at_a_time(make: Make) -> None:
    one = make()
    one.put_many(range(1000))
    assert one.get_many(10) == list(range(10))
    assert one.get_many(2000) == list(range(10, 1000))
    with pytest.raises(queue.Empty):
        one.get_many(10, block=False)
    with pytest.raises(queue.Empty):
        one.get_many(10, timeout=0.01)


def test_many_more_than_fit_say_how_many_were_put(make: Make) -> None:
    one = make(maxsize=3)
    with pytest.raises(queue.Full) as raised:
        one.put_many(range(5), timeout=0.01)
    assert raised.value.args == (3,)
    assert one.get_many(5) == [0, 1, 2]


def test_maxsize_holds_for_all_processes_together(make: Make, start: Start) -> None:
    one = make(maxsize=3)
    for _ in range(2):
        start(put, one, *range(10))
    eventually(one.full)
    assert one.qsize() == 3
    with pytest.raises(queue.Full):
        one.put("more", block=False)
    for _ in range(20):
        one.get(timeout=30)
        assert one.qsize() <= 3
    assert one.empty()


class Putting:
    """Puts into a queue while it is pickled."""

    def __init__(self, queue: shmbus.Queue[Any]) -> None:
        self.queue = queue

    def __reduce__(self) -> tuple[Any, ...]:
        self.queue.put("from within")
        return str, ("itself",)


class Getting:
    """Gets from a queue while it is unpickled."""

    queue: ClassVar[shmbus.Queue[Any]]

    def __reduce__(self) -> tuple[Any, ...]:
        return _get, (b"x" * 400,)


def _get(content: bytes) -> tuple[bytes, object]:
    return content, Getting.queue.get(timeout=30)


def test_pickling_and_unpickling_may_use_the_queue_itself(make: Make) -> None:
    one = make()
    one.put(Putting(one))
    assert (one.get(), one.get()) == ("from within", "itself")
    assert one.put_many([1, Putting(one), 3]) == 3
    assert sorted(map(str, one.get_many(9))) == ["1", "3", "from within", "itself"]
    Getting.queue = one
    try:
        one.put_many([Getting(), b"y" * 410])
        assert one.get() == (b"x" * 400, b"y" * 410)
    finally:
        del Getting.queue


def test_a_ring_that_is_drained_goes(make: Make, bus_name: str) -> None:
    one = make()
    for _ in range(3):
        one.put_many(b"x" * 1000 for _ in range(1000))
        for _ in range(1000):
            one.get()
    assert len(in_shm(bus_name)) == 2  # the queue's own file, and the ring that it is at
