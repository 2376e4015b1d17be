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
def test_what_another_thread_schedules_in_its_turn_is_done(loop: SharedLoop) -> None:
    soon, later, task = threading.Event(), threading.Event(), threading.Event()

    async def work() -> None:
        await asyncio.sleep(0)
        task.set()

    assert loop.take_turn()
    try:
        assert asyncio.get_running_loop() is loop
        loop.call_soon(soon.set)
        loop.call_later(0.001, later.set)
        working = loop.create_task(work())
    finally:
        loop.end_turn()
    for done in (soon, later, task):
        assert done.wait(LONG)
    assert working.get_loop() is loop
    with pytest.raises(RuntimeError):
        asyncio.get_running_loop()


def test_while_the_loop_works_nobody_else_has_a_turn(loop: SharedLoop) -> None:
    at_work, go_on = threading.Event(), threading.Event()

    def work() -> None:
        at_work.set()
        go_on.wait(LONG)

    loop.call_soon_threadsafe(work)
    assert at_work.wait(LONG)
    assert not loop.try_turn()
    threading.Timer(0.01, go_on.set).start()
    assert loop.take_turn()
    assert go_on.is_set()
    loop.end_turn()


def test_while_another_thread_has_its_turn_the_loop_does_nothing(loop: SharedLoop) -> None:
    done = threading.Event()
    assert loop.take_turn()
    loop.call_soon_threadsafe(done.set)
    assert not done.wait(0.02)
    loop.end_turn()
    assert done.wait(LONG)


def test_who_tries_has_the_turn_once_nobody_else_has(loop: SharedLoop) -> None:
    assert loop.take_turn()
    assert not loop.try_turn()
    loop.end_turn()

    def tried() -> bool:
        had = loop.try_turn()
        if had:
            loop.end_turn()
        return had

    eventually(tried)


def test_a_loop_that_has_ended_gives_no_turn() -> None:
    loop = SharedLoop()
    loop.run_until_complete(asyncio.sleep(0))
    assert not loop.take_turn()
    assert not loop.try_turn()
    loop.close()


def test_many_threads_never_have_it_at_once(loop: SharedLoop) -> None:
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
            elif loop.take_turn() if number % 3 == 1 else loop.try_turn():
                turn()
                loop.end_turn()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONG)
    eventually(lambda: turns >= 4 * 200)
    assert most == 1
