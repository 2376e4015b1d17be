"""Any user may be killed at any step: others go on; what it had is told, or delivered again."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from typing import Any

import pytest

import shmbus
from shmbus.testing import eventually, kill

from .conftest import Start
from .users import echo, echo_done, get_for_ever, put, put_for_ever, take_and_say

Make = Callable[..., shmbus.JoinableQueue[Any]]


@pytest.mark.smoke
def test_a_consumer_killed_in_get_hinders_nobody(make: Make, start: Start) -> None:
    questions, answers = make(), make()
    sleeper = start(echo, questions, answers)
    questions.put("is it there?")
    assert answers.get(timeout=30) == "is it there?"
    kill(sleeper.pid or 0)
    start(echo, questions, answers)
    for number in range(20):
        questions.put(number)
    got = [answers.get(timeout=30) for _ in range(20)]
    assert got == list(range(20))


def test_a_producer_killed_in_put_leaves_whole_messages_or_none(make: Make, start: Start) -> None:
    one, begun = make(), make()
    for _ in range(5):
        producer = start(put_for_ever, one, begun)
        for _ in range(100):
            one.get(timeout=30)
        kill(producer.pid or 0)
        by, before = None, 0
        while not one.empty():
            pid, number, content = one.get(timeout=30)
            assert content == b"x" * (number % 3000)
            assert by is None or (pid, number) == (by, before + 1)
            by, before = pid, number
    one.put("next")
    assert one.get(timeout=30) == "next"


def test_what_a_killed_consumer_had_in_hand_is_said_to_be_lost(
    make: Make, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    one, said = make(), make()
    put(one, "first", "second")
    consumer = start(take_and_say, one, said)
    assert said.get(timeout=30) == (consumer.pid, "first")
    kill(consumer.pid or 0)
    assert one.get(timeout=30) == "second"
    eventually(lambda: _looked_at(one).lost == 1)
    assert [record.levelname for record in caplog.records].count("WARNING") == 1
    assert str(consumer.pid) in caplog.text


def _looked_at(one: shmbus.Queue[Any]) -> shmbus.Queue[Any]:
    """After a wait, in which it looks for deaths."""
    try:
        one.get(timeout=0.01)
    except Exception:
        pass
    return one


def test_what_a_killed_consumer_had_in_hand_is_delivered_again_where_that_is_wanted(
    make: Make, start: Start
) -> None:
    one, said = make(redeliver=True), make()
    put(one, "first", "second")
    consumer = start(take_and_say, one, said)
    assert said.get(timeout=30) == (consumer.pid, "first")
    kill(consumer.pid or 0)
    assert sorted([one.get(timeout=30), one.get(timeout=30)]) == ["first", "second"]
    assert one.lost == 0


def test_join_returns_though_consumers_were_killed(make: Make, start: Start) -> None:
    one, said = make(), make()
    put(one, *range(10))
    for _ in range(2):
        consumer = start(take_and_say, one, said)
        said.get(timeout=30)
        kill(consumer.pid or 0)
    start(echo_done, one, said)
    assert one.join(timeout=30) is True
    assert one.lost == 2
    assert sorted(said.get(timeout=30) for _ in range(8)) == list(range(2, 10))


@pytest.mark.slow
@pytest.mark.parametrize("maxsize", [0, 3])
def test_users_killed_at_random_moments_stop_nobody(make: Make, start: Start, maxsize: int) -> None:
    chance = random.Random(maxsize)
    one, begun = make(maxsize=maxsize), make()
    users = [start(function, one, begun) for function in (put_for_ever, get_for_ever) * 2]
    for _ in users:
        begun.get(timeout=30)
    for _ in range(30):
        time.sleep(chance.uniform(0, 0.01))
        at = chance.randrange(len(users))
        kill(users[at].pid or 0)
        users[at] = start((put_for_ever, get_for_ever)[at % 2], one, begun)
        assert begun.get(timeout=30) == users[at].pid
        one.put((os.getpid(), 0, b""), timeout=30)
        _, number, content = one.get(timeout=30)
        assert content == b"x" * (number % 3000)
    for user in users:
        kill(user.pid or 0)
    while not one.empty():
        one.get(timeout=30)
    one.put("next", timeout=30)
    assert one.get(timeout=30) == "next"
