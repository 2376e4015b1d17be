"""Doorbells: a waiter sleeps until what it waits for is there, and can be interrupted."""

import os
import signal
import stat
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ringbuf import (
    Doorbell,
    DoorbellError,
    DoorbellExists,
    DoorbellNotFound,
    RingBusy,
    Segment,
)

EPOCH, COUNT = 64, 128


@pytest.fixture
def segment(name: str) -> Iterator[Segment]:
    with Segment.create(name, 4096, kind=1, layout=1) as segment:
        yield segment


def until_parked(segment: Segment) -> None:
    deadline = time.monotonic() + 30
    while not segment.memory.load(EPOCH) & 1:
        assert time.monotonic() < deadline
        os.sched_yield()


def test_a_wait_for_what_is_there_returns_at_once(name: str, segment: Segment) -> None:
    with Doorbell.create(name, segment.memory, EPOCH) as bell:
        assert bell.wait(segment.memory, COUNT, 0)
        segment.memory.store(COUNT, 5)
        assert bell.wait(segment.memory, COUNT, 5, timeout=0)
        assert segment.memory.load(EPOCH) == 0


@pytest.mark.parametrize("timeout", [-1.0, 0.0, 0.02])
def test_a_wait_for_what_does_not_come_ends(name: str, segment: Segment, timeout: float) -> None:
    with Doorbell.create(name, segment.memory, EPOCH) as bell:
        start = time.monotonic()
        assert not bell.wait(segment.memory, COUNT, 1, timeout)
        assert time.monotonic() - start >= timeout
        assert not segment.memory.load(EPOCH) & 1


def test_tokens_left_over_do_not_end_a_wait(name: str, segment: Segment) -> None:
    import posix_ipc

    with Doorbell.create(name, segment.memory, EPOCH) as bell:
        semaphore = posix_ipc.Semaphore("/" + name)
        for _ in range(5):
            semaphore.release()
        assert not bell.wait(segment.memory, COUNT, 1, timeout=0.01)
        semaphore.close()


@pytest.mark.smoke
def test_a_thread_that_waits_is_woken_and_meanwhile_others_run(name: str, segment: Segment) -> None:
    with Doorbell.create(name, segment.memory, EPOCH) as bell:
        seen: list[bool] = []
        thread = threading.Thread(target=lambda: seen.append(bell.wait(segment.memory, COUNT, 3)))
        thread.start()
        ringer = Doorbell.attach(name, segment.memory, EPOCH)
        for count in (1, 2):  # too few: it goes back to sleep
            until_parked(segment)
            segment.memory.store(COUNT, count)
            ringer.ring()
        segment.memory.store(COUNT, 3)
        ringer.ring()
        thread.join(30)
        assert seen == [True]


def test_only_one_thread_may_wait(name: str, segment: Segment) -> None:
    with Doorbell.create(name, segment.memory, EPOCH) as bell:
        thread = threading.Thread(target=lambda: bell.wait(segment.memory, COUNT, 1))
        thread.start()
        until_parked(segment)
        with pytest.raises(RingBusy):
            bell.wait(segment.memory, COUNT, 1, timeout=1)
        segment.memory.store(COUNT, 1)
        bell.ring()
        thread.join(30)
        assert not thread.is_alive()


WAITER = """
import signal, sys
from ringbuf import Doorbell, Segment
name = sys.argv[1]
memory = Segment.attach(name, writable=True).memory
bell = Doorbell.attach(name, memory, 64)
signal.signal(signal.SIGUSR1, lambda *_: memory.store(192, memory.load(192) + 1))
try:
    bell.wait(memory, 128, 1)
    print("woken")
except KeyboardInterrupt:
    print("interrupted")
"""


def test_it_wakes_another_process(
    name: str, segment: Segment, start: Callable[..., subprocess.Popen[str]]
) -> None:
    with Doorbell.create(name, segment.memory, EPOCH) as bell:
        waiter = start(WAITER, name)
        until_parked(segment)
        segment.memory.store(COUNT, 1)
        bell.ring()
        assert waiter.communicate(timeout=30) == ("woken\n", "")


def test_ctrl_c_ends_a_wait(
    name: str, segment: Segment, start: Callable[..., subprocess.Popen[str]]
) -> None:
    with Doorbell.create(name, segment.memory, EPOCH):
        waiter = start(WAITER, name)
        until_parked(segment)
        waiter.send_signal(signal.SIGINT)
        assert waiter.communicate(timeout=30) == ("interrupted\n", "")


def test_other_signals_are_handled_and_the_wait_goes_on(
    name: str, segment: Segment, start: Callable[..., subprocess.Popen[str]]
) -> None:
    with Doorbell.create(name, segment.memory, EPOCH) as bell:
        waiter = start(WAITER, name)
        until_parked(segment)
        waiter.send_signal(signal.SIGUSR1)
        deadline = time.monotonic() + 30
        while segment.memory.load(192) < 1:
            assert time.monotonic() < deadline
        until_parked(segment)
        segment.memory.store(COUNT, 1)
        bell.ring()
        assert waiter.communicate(timeout=30) == ("woken\n", "")


def test_a_waiter_that_was_killed_can_be_followed_by_another(
    name: str, segment: Segment, start: Callable[..., subprocess.Popen[str]]
) -> None:
    with Doorbell.create(name, segment.memory, EPOCH) as bell:
        victim = start(WAITER, name)
        until_parked(segment)
        victim.kill()
        victim.wait()
        assert not bell.wait(segment.memory, COUNT, 1, timeout=0.01)
        assert not segment.memory.load(EPOCH) & 1
        segment.memory.store(COUNT, 1)
        bell.ring()
        assert bell.wait(segment.memory, COUNT, 1)


EXITING = """
import sys, threading
from ringbuf import Doorbell, Segment
memory = Segment.attach(sys.argv[1], writable=True).memory
bell = Doorbell.attach(sys.argv[1], memory, 64)
threading.Thread(target=bell.wait, args=(memory, 128, 1), daemon=True).start()
while not memory.load(64) & 1:
    pass
"""


def test_a_process_may_end_while_a_daemon_thread_waits(
    name: str, segment: Segment, python: Callable[..., str]
) -> None:
    with Doorbell.create(name, segment.memory, EPOCH):
        python(EXITING, name)


def test_who_may_only_read_can_ring_but_not_wait(name: str, segment: Segment) -> None:
    with Doorbell.create(name, segment.memory, EPOCH), Segment.attach(name) as reader:
        bell = Doorbell.attach(name, reader.memory, EPOCH)
        bell.ring()
        with pytest.raises(TypeError, match="read-only"):
            bell.wait(reader.memory, COUNT, 1)


def test_what_is_no_time_is_refused(name: str, segment: Segment) -> None:
    with Doorbell.create(name, segment.memory, EPOCH) as bell:
        with pytest.raises(ValueError, match="not a number"):
            bell.wait(segment.memory, COUNT, 1, float("nan"))
        with pytest.raises(IndexError):
            bell.wait(segment.memory, 4092, 1, 0)
        segment.memory.store(COUNT, 1)
        assert bell.wait(segment.memory, COUNT, 1, float("inf"))


def test_names_are_given_once_and_missing_ones_are_named(name: str, segment: Segment) -> None:
    with pytest.raises(DoorbellNotFound, match=name):
        Doorbell.attach(name, segment.memory, EPOCH)
    with Doorbell.create(name, segment.memory, EPOCH) as bell:
        with pytest.raises(DoorbellExists, match=name):
            Doorbell.create(name, segment.memory, EPOCH)
        Doorbell.attach(name, segment.memory, EPOCH)
        bell.unlink()
        bell.unlink()


def test_a_doorbell_that_cannot_be_opened_leaves_nothing(name: str, segment: Segment) -> None:
    with pytest.raises(IndexError):
        Doorbell.create(name, segment.memory, 4096)
    with pytest.raises(DoorbellNotFound):
        Doorbell.attach(name, segment.memory, EPOCH)


@pytest.mark.parametrize("umask", [0o000, 0o777])
def test_only_the_owner_may_open_it_whatever_the_umask(
    name: str, segment: Segment, umask: int
) -> None:
    before = os.umask(umask)
    try:
        with Doorbell.create(name, segment.memory, EPOCH):
            assert stat.S_IMODE(Path(f"/dev/shm/sem.{name}").stat().st_mode) == 0o600
    finally:
        os.umask(before)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_another_owner_is_refused(name: str, segment: Segment) -> None:
    with Doorbell.create(name, segment.memory, EPOCH):
        os.chown(f"/dev/shm/sem.{name}", 65534, 65534)
        with pytest.raises(DoorbellError, match="65534"):
            Doorbell.attach(name, segment.memory, EPOCH)
