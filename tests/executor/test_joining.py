"""Workers that were started elsewhere: they come and go as they like."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import shmbus
from shmbus.executor import work
from shmbus.testing import Attach


@contextmanager
def working(bus: shmbus.Bus, **options: Any) -> Iterator[threading.Thread]:
    """A block in which a thread of this process works for the pool; the end of the bus ends it."""
    ready = threading.Event()
    doing = partial(work, bus.name, "frames", ready=ready.set, **options)
    thread = threading.Thread(target=doing)
    thread.start()
    try:
        assert ready.wait(60)
        yield thread
    finally:
        bus.close()
        thread.join(60)
        assert not thread.is_alive()


def frames(bus: shmbus.Bus) -> shmbus.Executor:
    """An executor that starts no worker."""
    return shmbus.Executor(0, bus=bus, name="frames")


def test_a_worker_may_come_first_and_works_for_one_executor_after_another(bus: shmbus.Bus) -> None:
    with working(bus):
        for number in range(2):
            with frames(bus) as executor:
                assert executor.submit(os.getpid).result(60) == os.getpid()
                assert list(executor.map(abs, range(-3, number))) == list(range(3, -number, -1))


def test_what_is_submitted_waits_for_the_first_worker_and_goes_on_with_the_next(
    bus: shmbus.Bus,
) -> None:
    with frames(bus) as executor:
        tasks = [executor.submit(abs, -number) for number in range(3)]
        work(bus.name, "frames", max_tasks=1)
        assert tasks[0].result(60) == 0
        work(bus.name, "frames", max_tasks=2)
        assert [task.result(60) for task in tasks] == [0, 1, 2]


def test_a_worker_calls_an_initializer_of_its_own_and_what_that_raises_is_raised(
    bus: shmbus.Bus,
) -> None:
    called: list[int] = []
    with working(bus, initializer=called.append, initargs=(1,)):
        assert called == [1]
        with pytest.raises(ValueError, match="no model"):
            work(bus.name, "pictures", initializer=fail, initargs=("no model",))


def fail(text: str) -> None:
    raise ValueError(text)


def test_a_pool_needs_a_name_that_can_be_part_of_a_message_type(bus: shmbus.Bus) -> None:
    for name in ("a.b", "", "a b", "a" * 33):
        with pytest.raises(shmbus.errors.InvalidName, match="pool"):
            work(bus.name, name)


def makes(directory: Path) -> bytes:
    """What makes a directory where it is unpickled."""
    return f"cos\nmkdir\n(V{directory}\ntR.".encode()


def test_a_worker_unpickles_what_its_executor_sends_and_nothing_of_others(
    bus: shmbus.Bus, attach: Attach, tmp_path: Path
) -> None:
    stranger = attach("stranger")
    with working(bus):
        with pytest.raises(shmbus.RemoteError, match="PermissionError"):
            stranger.request("pool.frames.task", makes(tmp_path / "done"), timeout=60)
        assert not (tmp_path / "done").exists()
        with frames(bus) as executor:
            assert executor.submit(abs, -1).result(60) == 1


def test_an_executor_unpickles_nothing_of_who_is_no_worker(
    bus: shmbus.Bus, attach: Attach, tmp_path: Path
) -> None:
    stranger = attach("stranger")
    with frames(bus):
        for word in ("ready", "report"):
            with pytest.raises(shmbus.RemoteError, match="PermissionError"):
                stranger.request(f"pool.frames.{word}", makes(tmp_path / word), timeout=60)
            assert not (tmp_path / word).exists()
