"""A child counts as a user before it is there, and no longer than it may come."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from typing import Any

import pytest

import shmbus
from shmbus.testing import TIMEOUT, in_shm, kill, run_python

Make = Callable[..., shmbus.JoinableQueue[Any]]


class Fatal:
    """Ends the process in which it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        import os

        return os._exit, (7,)


class Stopped:
    """Stops the process in which it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        import signal

        return signal.raise_signal, (signal.SIGSTOP,)


class Unpicklable:
    """Nothing that can be passed to a child."""

    def __reduce__(self) -> tuple[Any, ...]:
        raise RuntimeError("not to be pickled")


def test_a_child_that_dies_before_it_has_the_queue_keeps_it_no_longer(
    make: Make, bus_name: str
) -> None:
    one = make()
    child = multiprocessing.get_context("forkserver").Process(
        target=print, args=(Fatal(), one), daemon=True
    )
    child.start()
    child.join(TIMEOUT)
    assert child.exitcode == 7
    one.close()
    assert not in_shm(bus_name)


def test_a_child_that_dies_when_its_parent_has_closed_the_queue_leaves_nothing(
    make: Make, bus_name: str
) -> None:
    one = make()
    child = multiprocessing.get_context("forkserver").Process(
        target=print, args=(Stopped(), one), daemon=True
    )
    child.start()
    one.close()
    assert in_shm(bus_name)
    kill(child.pid or 0)
    child.join(TIMEOUT)
    make().close()
    assert not in_shm(bus_name)


def test_a_child_that_is_never_made_keeps_nothing(make: Make, bus_name: str) -> None:
    one = make()
    for _ in range(600):  # more than there are places
        with pytest.raises(RuntimeError, match="not to be pickled"):
            multiprocessing.get_context("spawn").Process(
                target=print, args=(one, Unpicklable())
            ).start()
    one.close()
    assert not in_shm(bus_name)


def test_a_program_that_ends_while_a_thread_waits_leaves_nothing(bus_name: str) -> None:
    run_python(
        """
        import sys, threading, time, shmbus
        queue = shmbus.Queue(bus=sys.argv[1])
        queue.put("begun")
        threading.Thread(target=lambda: (queue.get(), queue.get()), daemon=True).start()
        while not queue.empty():
            time.sleep(0.001)
        time.sleep(0.02)
        """,
        bus_name,
    )
    assert not in_shm(bus_name)
