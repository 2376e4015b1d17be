"""Waiting ends: with a message, with space, at its timeout, or by Ctrl-C; whatever others do."""

from __future__ import annotations

import os
import queue
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

import shmbus
from shmbus.testing import pause, resume, start_python

from .conftest import Start
from .users import echo, echo_done, get_for_ever, put, put_for_ever

Make = Callable[..., shmbus.JoinableQueue[Any]]


def test_who_waits_for_a_message_gets_it_when_it_comes(make: Make, start: Start) -> None:
    questions, answers = make(), make()
    start(echo, questions, answers)
    for number in range(100):
        questions.put(number)
        assert answers.get(timeout=30) == number


def test_who_waits_for_space_puts_when_there_is_some(make: Make) -> None:
    one = make(maxsize=1)
    one.put(1)
    waiting = threading.Thread(target=one.put, args=(2,))
    waiting.start()
    assert one.get(timeout=30) == 1
    assert one.get(timeout=30) == 2
    waiting.join()


def test_a_timeout_is_kept_and_nothing_comes_before_it(make: Make) -> None:
    one = make(maxsize=1)
    begin = time.monotonic()
    with pytest.raises(queue.Empty):
        one.get(timeout=0.05)
    one.put(1)
    with pytest.raises(queue.Full):
        one.put(2, timeout=0.05)
    assert time.monotonic() - begin >= 0.1
    puts: list[Callable[[], object]] = [
        lambda: one.put(2, False),
        lambda: one.put_nowait(2),
        lambda: one.put(2, True, 0),
    ]
    for put_now in puts:
        with pytest.raises(queue.Full):
            put_now()
    one.get()
    gets: list[Callable[[], object]] = [
        lambda: one.get(False),
        one.get_nowait,
        lambda: one.get(True, -1.0),
    ]
    for get_now in gets:
        with pytest.raises(queue.Empty):
            get_now()


@pytest.mark.parametrize("call", ["get()", "put(2)", "join()"])
def test_ctrl_c_ends_a_wait_and_the_queue_goes_on(call: str, bus_name: str) -> None:
    code = f"""
        import sys, shmbus
        queue = shmbus.JoinableQueue(1, bus=sys.argv[1])
        if {call!r} != "get()":
            queue.put(1)
        try:
            print("waits")
            queue.{call}
        except KeyboardInterrupt:
            print("interrupted")
        if {call!r} == "get()":
            queue.put(1)
        print(queue.get(), queue.qsize())
        """
    with start_python(code, bus_name) as program:
        assert program.line() == "waits"
        # The signal may come before the call waits; it is raised there then.
        os.kill(program.pid, signal.SIGINT)
        assert program.line() == "interrupted"
        assert program.line() == "1 0"
        assert program.wait() == 0


def test_others_go_on_while_a_user_stands_still(make: Make, start: Start) -> None:
    one, answers, begun = make(), make(), make()
    stopped = [start(get_for_ever, one, begun) for _ in range(2)]
    assert {begun.get(timeout=30) for _ in stopped} == {user.pid for user in stopped}
    for user in stopped:
        pause(user.pid or 0)
    start(echo, one, answers)
    for number in range(100):
        one.put(number, timeout=30)
        assert answers.get(timeout=30) == number
    for user in stopped:
        resume(user.pid or 0)


def test_a_timeout_is_kept_though_who_holds_a_role_stands_still(make: Make, start: Start) -> None:
    one, begun = make(maxsize=5), make()
    users = [start(put_for_ever, one, begun), start(get_for_ever, one, begun)]
    assert {begun.get(timeout=30) for _ in users} == {user.pid for user in users}
    for _ in range(20):  # wherever they stop
        for user in users:
            pause(user.pid or 0)
        for call in (lambda: one.put(1, timeout=0.005), lambda: one.get(timeout=0.005)):
            try:
                call()
            except (queue.Full, queue.Empty):
                pass
        for user in users:
            resume(user.pid or 0)


@pytest.mark.smoke
def test_join_returns_when_all_that_was_put_is_done(make: Make, start: Start) -> None:
    questions, answers = make(), make()
    put(questions, *range(20))
    assert questions.join(timeout=0.01) is False
    for _ in range(3):
        start(echo_done, questions, answers)
    assert questions.join(timeout=30) is True
    assert sorted(answers.get_many(20)) == list(range(20))
    with pytest.raises(ValueError, match="too many times"):
        questions.task_done()
