"""SIGTERM inside `run`: what was accepted is finished, and `run` returns."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import pytest

import shmbus
import shmbus.aio
from shmbus.testing import Attach, eventually, start_python

PLAIN = """
    import os, sys, time, shmbus
    def work(message):
        print("begun", flush=True)
        while not os.path.exists(sys.argv[1]):
            time.sleep(0.005)
        return message.payload
    with shmbus.attach(name="worker") as endpoint:
        endpoint.handle("work", work)
        print("up", flush=True)
        endpoint.run()
        print("finished", flush=True)
"""

ASYNCHRONOUS = """
    import asyncio, os, sys, shmbus, shmbus.aio
    async def work(message):
        print("begun", flush=True)
        while not os.path.exists(sys.argv[1]):
            await asyncio.sleep(0.005)
        return message.payload
    async def main():
        async with (
            shmbus.aio.attach(name="worker") as endpoint,
            shmbus.aio.attach(name="other") as other,
        ):
            endpoint.handle("work", work)
            async with asyncio.TaskGroup() as group:
                group.create_task(endpoint.run())
                group.create_task(other.run())
                await asyncio.sleep(0)
                print("up", flush=True)
            print("finished", flush=True)
    asyncio.run(main())
"""


def await_leaving(bus: shmbus.Bus) -> None:
    """Wait until the worker takes nothing new."""
    eventually(lambda: [e.state for e in bus.endpoints() if e.name == "worker"] == ["leaving"])


@pytest.mark.smoke
@pytest.mark.parametrize("code", [PLAIN, ASYNCHRONOUS], ids=["plain", "asyncio"])
def test_what_is_at_work_and_what_waits_is_finished(
    bus: shmbus.Bus, attach: Attach, tmp_path: Path, code: str
) -> None:
    client = attach("client")
    with start_python(code, tmp_path / "go", bus=bus.name) as program:
        assert program.line() == "up"
        replies = [client.request_async("work", number, timeout=60) for number in range(3)]
        assert program.line() == "begun"
        os.kill(program.pid, signal.SIGTERM)
        await_leaving(bus)
        (tmp_path / "go").touch()
        assert [reply.result().payload for reply in replies] == [0, 1, 2]
        while (line := program.line()) == "begun":
            pass
        assert line == "finished"
        assert program.wait() == 0


def test_a_second_one_ends_it(bus: shmbus.Bus, attach: Attach) -> None:
    client = attach("client")
    with start_python(PLAIN, "/never/there", bus=bus.name) as program:
        program.line()
        client.send("work")
        assert program.line() == "begun"
        os.kill(program.pid, signal.SIGTERM)
        await_leaving(bus)
        os.kill(program.pid, signal.SIGTERM)
        assert program.wait() == -signal.SIGTERM


def test_whoever_has_a_handler_of_its_own_keeps_it(bus: shmbus.Bus) -> None:
    code = """
        import signal, sys, shmbus
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
        with shmbus.attach() as endpoint:
            print("up", flush=True)
            endpoint.run()
    """
    with start_python(code, bus=bus.name) as program:
        program.line()
        os.kill(program.pid, signal.SIGTERM)
        assert program.wait() == 7


def test_loops_of_other_threads_go_on(bus: shmbus.Bus) -> None:
    code = """
        import asyncio, logging, sys, threading, shmbus.aio
        logging.basicConfig(stream=sys.stdout)
        async def run(name, up):
            async with shmbus.aio.attach(name=name) as endpoint:
                running = asyncio.create_task(endpoint.run())
                await asyncio.sleep(0)
                await up(endpoint)
                await running
        async def second(endpoint):
            begun.set()
            await asyncio.to_thread(finished.wait)
            print("still", endpoint.matched("none"), flush=True)
            await endpoint.close()
        async def first(endpoint):
            thread.start()
            await asyncio.to_thread(begun.wait)
            print("up", flush=True)
        begun, finished = threading.Event(), threading.Event()
        thread = threading.Thread(target=lambda: asyncio.run(run("second", second)))
        asyncio.run(run("first", first))
        print("finished", flush=True)
        finished.set()
        thread.join()
    """
    with start_python(code, bus=bus.name) as program:
        assert program.line() == "up"
        os.kill(program.pid, signal.SIGTERM)
        assert [program.line(), program.line()] == ["finished", "still 0"]
        assert program.wait() == 0


def test_a_loop_that_takes_no_signals_runs_all_the_same(bus: shmbus.Bus) -> None:
    class Deaf(asyncio.SelectorEventLoop):
        def add_signal_handler(self, *_: Any) -> None:  # type: ignore[override]
            raise NotImplementedError

    async def main() -> None:
        async with shmbus.aio.attach(bus.name) as endpoint:
            running = asyncio.create_task(endpoint.run())
            await asyncio.sleep(0)
            assert not running.done()
            await endpoint.close()
            await running

    with asyncio.Runner(loop_factory=Deaf) as runner:
        runner.run(asyncio.wait_for(main(), 60))
