"""What queues leave in /dev/shm: nothing, once their users have ended, one way or another."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import shmbus
from shmbus.testing import eventually, in_shm, run_python, start_python
from shmbus.views import find_leavings, free_leaving, shared_memory

from .conftest import Start
from .users import echo

Make = Callable[..., shmbus.JoinableQueue[Any]]
KILLED = """
    import os, signal, sys, shmbus
    queue = shmbus.Queue(bus=sys.argv[1] or None)
    queue.put("left")
    print(queue.name, flush=True)
    signal.pause()
"""


def killed(bus: str) -> str:
    """The name of a queue whose users are all dead."""
    with start_python(KILLED, bus) as program:
        name = program.line()
        program.kill()
    return name


@pytest.mark.smoke
def test_the_last_that_leaves_removes_a_queue(make: Make, bus_name: str) -> None:
    one = make()
    two = make()
    one.put(1)
    assert len(in_shm(bus_name)) >= 2
    one.close()
    one.close()
    assert not [file for file in in_shm(bus_name) if file.startswith(one.name)]
    del two
    assert not in_shm(bus_name)


def test_a_closed_queue_says_so(make: Make) -> None:
    one = make()
    one.close()
    one.join_thread()
    one.cancel_join_thread()
    calls: list[Callable[[], object]] = [lambda: one.put(1), one.get, one.qsize, one.task_done]
    for call in calls:
        with pytest.raises(ValueError, match="is closed"):
            call()
    with pytest.raises(OSError, match="is closed"):
        one.empty()
    with pytest.raises(shmbus.errors.QueueClosed) as raised:
        one.full()
    assert raised.value.queue == one.name
    assert "closed" in repr(one)


def test_a_queue_shows_what_it_is(make: Make) -> None:
    one = make(maxsize=7)
    one.put(1)
    assert one.name in repr(one)
    assert "1 in it of 7" in repr(one)
    assert (one.maxsize, one.redeliver) == (7, False)


def test_a_name_that_no_bus_can_have_is_refused() -> None:
    with pytest.raises(shmbus.errors.InvalidName):
        shmbus.Queue(bus="a:b")


def test_a_program_that_ends_leaves_nothing(bus_name: str) -> None:
    run_python(
        """
        import multiprocessing, sys, shmbus
        queue = shmbus.JoinableQueue(bus=sys.argv[1])
        child = multiprocessing.get_context("fork").Process(target=queue.put, args=(b"x" * 10**6,))
        child.start()
        queue.put_many(range(10000))
        kept = [queue]
        kept.append(kept)  # never freed by counting
        """,
        bus_name,
    )
    assert not in_shm(bus_name)


def test_a_queue_goes_with_the_last_user_wherever_that_is(
    make: Make, start: Start, bus_name: str
) -> None:
    questions, answers = make(), make()
    name = questions.name
    child = start(echo, questions, answers)
    questions.put("hello")
    assert answers.get(timeout=30) == "hello"
    questions.put(None)
    questions.close()
    child.join(30)
    assert not [file for file in in_shm(bus_name) if file.startswith(name)]


def test_a_queue_whose_users_are_all_dead_is_removed_by_the_next(make: Make, bus_name: str) -> None:
    killed(bus_name)
    make().close()
    assert not in_shm(bus_name)


def test_a_queue_that_somebody_uses_is_removed_by_nobody(make: Make, bus_name: str) -> None:
    with start_python(KILLED, bus_name) as program:
        name = program.line()
        make().close()
        assert not [left for left in find_leavings() if left.queue == name]
        assert any(file.startswith(name) for file in in_shm(bus_name))
        program.kill()
    make().close()


@pytest.mark.parametrize("listed", [True, False])
def test_the_doctor_frees_a_queue_whose_users_are_all_dead(bus_name: str, listed: bool) -> None:
    bus = bus_name if listed else ""
    command = [str(Path(sys.executable).with_name("shmbus")), "doctor", "--fix", "--json"]

    def frees_it() -> bool:
        """Unless a queue of another test is made meanwhile, which removes it first."""
        name = killed(bus)
        left = [left for left in find_leavings(bus or None) if left.queue == name]
        done = subprocess.run([*command, *filter(None, [bus])], capture_output=True, text=True)
        assert not [left for left in find_leavings() if left.queue == name]
        for one in left:
            assert (one.bus, one.removable, one.bytes > 0) == (bus, True, True)
            assert free_leaving(one) == 0
        return name in [freed["queue"] for freed in json.loads(done.stdout)["freed"]]

    eventually(frees_it)


def test_memory_of_queues_is_shown_with_their_bus(make: Make, bus_name: str) -> None:
    one = make()
    one.put(1)
    (holder,) = (holder for holder in shared_memory().holders if holder.bus == bus_name)
    assert (holder.what, holder.name, holder.pid) == ("queue", one.name, os.getpid())
    assert holder.bytes > 0
