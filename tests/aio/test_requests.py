"""Requests in an event loop."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import threading
from collections.abc import Callable
from typing import Any

import pytest

import shmbus
import shmbus.aio
from shmbus import errors
from shmbus.testing import StartWorker

from .stage import AioAttach, facts


@pytest.mark.smoke
async def test_a_request_is_answered_by_an_async_handler_and_by_a_plain_one(
    attach: AioAttach,
) -> None:
    async with attach("server") as server, attach("client") as client:

        @server.handle("double")
        async def double(message: shmbus.Message) -> int:
            await asyncio.sleep(0)
            return 2 * int(message.payload)

        server.handle("half", lambda message: message.payload / 2)
        server.start()
        assert (await client.request("double", 21)).payload == 42
        assert (await client.request("half", 21)).payload == 10.5


async def test_a_synchronous_endpoint_and_one_of_a_loop_serve_each_other(
    bus: shmbus.Bus, attach: AioAttach
) -> None:
    with bus.attach("plain") as plain:
        plain.handle("ping", lambda message: "pong")
        plain.start()
        async with attach("aio") as ep:
            ep.handle("pong", lambda message: "ping")
            ep.start()
            assert (await ep.request("ping")).payload == "pong"
            answer = await asyncio.to_thread(plain.request, "pong")
            assert answer.payload == "ping"


async def test_each_of_many_requests_at_a_time_gets_its_own_reply(attach: AioAttach) -> None:
    async with attach("server") as server, attach("client") as client:

        @server.handle("square")
        async def square(message: shmbus.Message) -> int:
            for _ in range(random.randrange(4)):
                await asyncio.sleep(0)
            return int(message.payload) ** 2

        server.start()
        replies = await asyncio.gather(*(client.request("square", n) for n in range(500)))
        assert [reply.payload for reply in replies] == [n**2 for n in range(500)]


async def test_requests_beyond_the_table_wait_their_turn_and_the_loop_goes_on(
    bus: shmbus.Bus, attach: AioAttach
) -> None:
    settings = shmbus.Settings(max_requests=4)
    async with attach("server") as server, attach("client", settings=settings) as client:
        gate = asyncio.Event()

        @server.handle("wait")
        async def wait(message: shmbus.Message) -> Any:
            await gate.wait()
            return message.payload

        server.start()
        tasks = [asyncio.create_task(client.request("wait", n, timeout=None)) for n in range(100)]
        for _ in range(20):  # the loop is not blocked
            await asyncio.sleep(0)
        assert not any(task.done() for task in tasks)
        gate.set()
        assert [reply.payload for reply in await asyncio.gather(*tasks)] == list(range(100))


async def test_a_large_request_takes_no_memory_before_there_is_an_entry_for_it(
    bus: shmbus.Bus, attach: AioAttach
) -> None:
    settings = shmbus.Settings(max_requests=1)
    async with attach("server") as server, attach("client", settings=settings) as client:
        gate = asyncio.Event()

        @server.handle("size")
        async def size(message: shmbus.Message) -> int:
            await gate.wait()
            return message.size

        server.start()
        tasks = [asyncio.create_task(client.request("size", bytes(n))) for n in (1, 2_000_000)]
        for _ in range(20):
            await client.publish("x")
            await asyncio.sleep(0)
        assert "client" not in [pool.endpoint for pool in bus.pools()]
        gate.set()
        assert [reply.payload for reply in await asyncio.gather(*tasks)] == [1, 2_000_000]


async def test_a_request_that_finds_no_entry_in_time_says_so(attach: AioAttach) -> None:
    settings = shmbus.Settings(max_requests=1)
    async with attach("server") as server, attach("client", settings=settings) as client:
        server.handle("never", lambda message: message.defer())
        async with asyncio.TaskGroup() as group:
            first = group.create_task(client.request("never", timeout=None))
            await asyncio.sleep(0)
            with pytest.raises(errors.RequestsFull) as caught:
                await client.request("never", timeout=0.05)
            assert caught.value.limit == 1
            first.cancel()


async def test_errors_are_those_of_the_synchronous_side(attach: AioAttach) -> None:
    async with attach("server") as server, attach("client") as client:

        @server.handle("fail")
        async def fail(message: shmbus.Message) -> None:
            raise ValueError("no such line")

        @server.handle("slow")
        async def slow(message: shmbus.Message) -> None:
            await asyncio.sleep(60)

        server.start()
        with pytest.raises(errors.NoRoute):
            await client.request("nobody")
        with pytest.raises(errors.RemoteError, match="no such line") as caught:
            await client.request("fail")
        assert caught.value.error == "ValueError"
        with pytest.raises(errors.RequestTimeout) as late:
            await client.request("slow", timeout=0.05)
        assert late.value.endpoint == "server"


def die_of_it(endpoint: shmbus.Endpoint) -> None:
    endpoint.handle("die", lambda message: os.kill(os.getpid(), signal.SIGKILL))
    endpoint.run()


async def test_whoever_has_died_is_named(attach: AioAttach, worker: StartWorker) -> None:
    async with attach("client") as client:
        worker(die_of_it, name="server")
        await client.wait_for("die", timeout=60)
        with pytest.raises(errors.EndpointDied) as caught:
            await client.request("die", timeout=60)
        assert caught.value.endpoint == "server"


@pytest.mark.parametrize("how", ["cancel", "timeout", "group"])
async def test_a_cancelled_request_is_withdrawn_and_its_handler_is_cancelled(
    attach: AioAttach, how: str
) -> None:
    settings = shmbus.Settings(max_requests=1)
    async with attach("server") as server, attach("client", settings=settings) as client:
        begun, ended = asyncio.Event(), asyncio.Event()

        @server.handle("long")
        async def long(message: shmbus.Message) -> None:
            begun.set()
            try:
                await asyncio.sleep(60)
            finally:
                ended.set()

        server.handle("short", lambda message: "done")
        server.start()
        if how == "timeout":
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await client.request("long", timeout=None)
        elif how == "cancel":
            task = asyncio.create_task(client.request("long", timeout=None))
            await begun.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        else:
            with pytest.raises(ExceptionGroup):  # noqa: PT012
                async with asyncio.TaskGroup() as group:
                    group.create_task(client.request("long", timeout=None))
                    await begun.wait()
                    raise ValueError("another task has failed")
        await ended.wait()
        assert (await client.request("short")).payload == "done"  # the entry is free again


async def test_what_nobody_waits_for_any_more_is_not_begun(
    bus: shmbus.Bus, attach: AioAttach
) -> None:
    async with attach("server") as server, attach("client") as client:
        finish, begun = asyncio.Event(), list[int]()

        @server.handle("long", concurrency=1)
        async def long(message: shmbus.Message) -> None:
            begun.append(message.payload)
            await finish.wait()

        server.start()
        first = asyncio.create_task(client.request("long", 1, timeout=60))
        given_up = [
            asyncio.create_task(client.request("long", 2, timeout=60)),
            asyncio.create_task(client.request("long", 3, timeout=0.05)),
        ]
        while server._looped.jobs < 3:
            await asyncio.sleep(0)
        given_up[0].cancel()
        await asyncio.wait(given_up)
        with pytest.raises(errors.RequestTimeout):
            await given_up[1]
        finish.set()
        await first
        await client.request("long", 4)
        assert begun == [1, 4]
        counted = facts(bus, "server")
        assert (counted.withdrawn, counted.expired) == (1, 1)


async def test_what_has_nothing_to_wait_for_does_not_suspend(
    bus: shmbus.Bus, attach: AioAttach
) -> None:
    async with attach("ep") as ep:
        sub = await ep.subscribe("note")
        for call in (ep.publish("note", 1), ep.send("nobody"), ep.publish_many([("note", 2)])):
            with pytest.raises(StopIteration):
                call.send(None)
        messages = aiter(sub)
        while facts(bus, "ep").untouched < 2:
            await asyncio.sleep(0)
        first = await anext(messages)
        assert first.payload == 1
        second = anext(messages).__await__()
        with pytest.raises(StopIteration) as caught:
            second.send(None)
        assert caught.value.value.payload == 2


async def test_many_requests_are_answered_in_their_order(attach: AioAttach) -> None:
    async with attach("server") as server, attach("client") as client:
        most = 0

        @server.handle("square")
        async def square(message: shmbus.Message) -> int:
            nonlocal most
            most = max(most, server._looped.jobs)
            for _ in range(message.payload % 5):
                await asyncio.sleep(0)
            if message.payload == 7:
                raise ValueError("not 7")
            return int(message.payload) ** 2

        server.start()
        asked = (("square", number) for number in range(100))
        got = [reply async for reply in client.request_many(asked, window=8)]
        failed = got.pop(7)
        assert isinstance(failed, errors.RemoteError)
        values = [reply.payload for reply in got if not isinstance(reply, errors.BusError)]
        assert values == [n**2 for n in range(100) if n != 7]
        assert 1 < most <= 8


async def test_an_attempt_that_fails_is_made_again(attach: AioAttach) -> None:
    async with attach("server") as server, attach("client") as client:
        task = asyncio.create_task(
            client.request("late", retry=shmbus.Retry(attempts=20, backoff=0.01))
        )
        await asyncio.sleep(0.02)
        server.handle("late", lambda message: message.attempt)
        server.start()
        assert (await task).payload > 1


async def test_what_a_task_asks_ends_with_the_request_that_it_serves(attach: AioAttach) -> None:
    async with attach("server") as server, attach("client") as client:
        left: list[float | None] = []

        @server.handle("outer")
        async def outer(message: shmbus.Message) -> None:
            left.append(shmbus.deadline())
            await server.request("inner", timeout=600)

        @server.handle("inner")
        async def inner(message: shmbus.Message) -> None:
            left.append(shmbus.deadline())

        server.start()
        await client.request("outer", timeout=60)
        assert len(left) == 2
        assert left[0] is not None
        assert left[1] is not None
        assert 0 < left[1] <= left[0] <= 60
        assert shmbus.deadline() is None


async def test_a_call_from_another_loop_or_thread_is_refused(attach: AioAttach) -> None:
    async with attach("ep") as ep:

        def elsewhere() -> None:
            asyncio.run(ep.publish("note"))

        with pytest.raises(errors.WrongLoop, match="run_coroutine_threadsafe"):
            await asyncio.to_thread(elsewhere)
        loop = asyncio.get_running_loop()

        def by_loop() -> None:
            asyncio.run_coroutine_threadsafe(ep.publish("note"), loop).result(60)

        await asyncio.to_thread(by_loop)


async def test_a_call_of_the_other_kind_says_which_to_use(attach: AioAttach) -> None:
    async with attach("ep") as ep:
        with pytest.raises(TypeError, match="async with"), ep:
            pass
        with pytest.raises(TypeError, match="async for"):
            iter(ep)
        with pytest.raises(TypeError, match="create_task"):
            ep.request_async("x")
        with pytest.raises(TypeError, match="async with"), shmbus.aio.attach("nowhere"):
            pass
        forgotten: Any = shmbus.aio.attach("nowhere")
        with pytest.raises(AttributeError, match="ep = await"):
            forgotten.publish("x")


def test_several_loops_in_several_threads_have_an_endpoint_each(
    bus: shmbus.Bus, loop_factory: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    results: list[int] = []

    async def ask(number: int) -> None:
        async with shmbus.aio.attach(bus.name, name=f"ep-{number}") as ep:
            ep.handle(f"number.{number}", lambda message: number)
            ep.start()
            await ep.wait_for("number.*", receivers=3)
            for other in range(3):
                results.append((await ep.request(f"number.{other}")).payload)
            await ep.publish("done")
            await done.wait_for(number)

    class Done:
        """All have asked."""

        def __init__(self) -> None:
            self._barrier = threading.Barrier(3)

        async def wait_for(self, number: int) -> None:
            await asyncio.to_thread(self._barrier.wait, 60)

    done = Done()

    def run(number: int) -> None:
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            runner.run(ask(number))

    threads = [threading.Thread(target=run, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(results) == sorted([0, 1, 2] * 3)
