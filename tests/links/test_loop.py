"""While a link's loop sleeps, other threads take its place, one at a time."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

from shmbus.links.loop import SharedLoop
from shmbus.testing import eventually

LONG = 10.0


@pytest.fixture
def loop() -> Iterator[SharedLoop]:
    """One that runs in a thread of its own, and has nothing to do."""
    made = SharedLoop()
    stop = asyncio.Event()

    async def serve() -> None:
        await stop.wait()

    def run() -> None:
        with asyncio.Runner(loop_factory=lambda: made) as runner:
            runner.run(serve())

    thread = threading.Thread(target=run)
    thread.start()
    eventually(made.is_running)
    yield made
    if not made.is_closed():
        made.call_soon_threadsafe(stop.set)
    thread.join(LONG)
    assert not thread.is_alive()


@pytest.mark.smoke
def test_what_another_thread_schedules_in_its_place_is_done(loop: SharedLoop) -> None:
    soon, later, task = threading.Event(), threading.Event(), threading.Event()

    async def work() -> None:
        await asyncio.sleep(0)
        task.set()

    def schedule() -> None:
        assert asyncio.get_running_loop() is loop
        loop.call_soon(soon.set)
        loop.call_later(0.001, later.set)
        working.append(loop.create_task(work()))

    working: list[asyncio.Task[None]] = []
    assert loop.in_its_place(schedule, wait=True)
    for done in (soon, later, task):
        assert done.wait(LONG)
    with pytest.raises(RuntimeError):
        asyncio.get_running_loop()


def test_while_the_loop_works_nobody_takes_its_place(loop: SharedLoop) -> None:
    at_work, go_on = threading.Event(), threading.Event()

    def work() -> None:
        at_work.set()
        go_on.wait(LONG)

    loop.call_soon_threadsafe(work)
    assert at_work.wait(LONG)
    assert not loop.in_its_place(pytest.fail)
    threading.Timer(0.01, go_on.set).start()
    seen: list[bool] = []
    assert loop.in_its_place(lambda: seen.append(go_on.is_set()), wait=True)
    assert seen == [True]


def test_while_another_thread_is_in_its_place_the_loop_does_nothing(loop: SharedLoop) -> None:
    done = threading.Event()

    def work() -> None:
        loop.call_soon_threadsafe(done.set)
        assert not done.wait(0.02)
        assert not loop.in_its_place(pytest.fail)

    assert loop.in_its_place(work, wait=True)
    assert done.wait(LONG)
    eventually(lambda: loop.in_its_place(lambda: None))


def test_what_fails_in_its_place_is_logged_and_the_loop_goes_on(
    loop: SharedLoop, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise ValueError("a mistake")

    assert loop.in_its_place(fail, wait=True)
    assert "a mistake" in caplog.text
    done = threading.Event()
    assert loop.in_its_place(lambda: loop.call_soon(done.set), wait=True)
    assert done.wait(LONG)


def test_nobody_takes_the_place_of_a_loop_that_has_ended() -> None:
    loop = SharedLoop()
    loop.run_until_complete(asyncio.sleep(0))
    assert not loop.in_its_place(pytest.fail)
    assert not loop.in_its_place(pytest.fail, wait=True)
    loop.close()


def test_many_threads_are_never_in_its_place_at_once(loop: SharedLoop) -> None:
    inside, most, turns = 0, 0, 0

    def turn() -> None:
        nonlocal inside, most, turns
        inside += 1
        most = max(most, inside)
        turns += 1
        inside -= 1

    def work() -> None:
        for number in range(300):
            if number % 3 == 0:
                loop.call_soon_threadsafe(turn)
            else:
                loop.in_its_place(turn, wait=number % 3 == 1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONG)
    eventually(lambda: turns >= 4 * 200)
    assert most == 1
