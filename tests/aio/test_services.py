"""Services in an event loop: async methods served, and methods called that are awaited."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Protocol

import msgspec
import pytest

import shmbus
import shmbus.aio
from shmbus import errors

from .stage import AioAttach


class Point(msgspec.Struct):
    x: int
    y: int = 0


class Calculator:
    """Computes, in tasks and without."""

    def __init__(self) -> None:
        self.cancelled = asyncio.Event()
        self.begun = asyncio.Event()
        self.order: list[int] = []

    async def add(self, a: int, b: int = 2) -> int:
        """The sum of two numbers."""
        await asyncio.sleep(0)
        return a + b

    def move(self, point: Point, *, by: int = 1) -> Point:
        return Point(point.x + by, point.y)

    async def note(self, n: int, *, pauses: int = 0) -> None:
        for _ in range(pauses):
            await asyncio.sleep(0)
        self.order.append(n)

    async def fail(self) -> None:
        raise KeyError("it")

    async def wrong(self) -> int:
        return "text"  # type: ignore[return-value]  # on purpose

    async def hang(self) -> None:
        self.begun.set()
        try:
            await asyncio.sleep(60)
        finally:
            self.cancelled.set()


class Calls(Protocol):
    """What callers see."""

    async def add(self, a: int, b: int = 2) -> int: ...
    async def move(self, point: Point, *, by: int = 1) -> Point: ...
    async def note(self, n: int, *, pauses: int = 0) -> None: ...
    async def fail(self) -> None: ...
    async def wrong(self) -> int: ...
    async def hang(self) -> None: ...


class Plain(Protocol):
    """The same without a loop."""

    def add(self, a: int, b: int = 2) -> int: ...
    def move(self, point: Point, *, by: int = 1) -> Point: ...


@pytest.mark.smoke
async def test_async_and_plain_methods_are_served_and_awaited(attach: AioAttach) -> None:
    async with attach("server") as server, attach("client") as client:
        server.offer(Calculator(), "calc")
        server.start()
        calculator = client.client(Calls, "calc", timeout=60)
        assert await calculator.add(1) == 3
        assert await calculator.move(Point(1), by=4) == Point(5)
        sums = await asyncio.gather(*(calculator.add(n, b=n) for n in range(200)))
        assert sums == [2 * n for n in range(200)]


async def test_errors_are_those_of_a_synchronous_client(attach: AioAttach) -> None:
    async with attach("server") as server, attach("client") as client:
        server.offer(Calculator(), "calc")
        server.start()
        calculator: Any = client.client(Calls, "calc", timeout=60)
        with pytest.raises(errors.InvalidArguments, match=r"calc\.add: argument a: Expected int"):
            await calculator.add("1")
        with pytest.raises(TypeError, match=r"calc.add\(\): missing a required argument: 'a'"):
            await calculator.add()
        with pytest.raises(errors.InvalidResult, match=r"calc\.wrong: result: Expected int"):
            await calculator.wrong()
        with pytest.raises(shmbus.RemoteError, match="KeyError"):
            await calculator.fail()
        with pytest.raises(errors.InvalidService, match="Calculator is a class"):
            server.offer(Calculator, "other")
        with pytest.raises(AttributeError, match="has no method 'nothing'"):
            calculator.nothing  # noqa: B018


async def test_one_of_a_loop_and_one_without_call_each_other(
    bus: shmbus.Bus, attach: AioAttach
) -> None:
    class Doubles:
        def double(self, n: int) -> int:
            return 2 * n

    class Doubling(Protocol):
        async def double(self, n: int) -> int: ...

    with bus.attach("plain") as plain:
        plain.offer(Doubles(), "doubles")
        plain.start()
        async with attach("aio") as ep:
            ep.offer(Calculator(), "calc")
            ep.start()
            assert await ep.client(Doubling, "doubles", timeout=60).double(4) == 8
            calculator = plain.client(Plain, "calc", timeout=60)
            assert await asyncio.to_thread(calculator.add, 1) == 3
            assert await asyncio.to_thread(calculator.move, Point(1)) == Point(2)


async def test_a_call_that_is_cancelled_cancels_the_method(attach: AioAttach) -> None:
    async with attach("server") as server, attach("client") as client:
        offered = Calculator()
        server.offer(offered, "calc")
        server.start()
        task = asyncio.create_task(hang(client.client(Calls, "calc", timeout=60)))
        await offered.begun.wait()
        task.cancel()
        await offered.cancelled.wait()
        with pytest.raises(asyncio.CancelledError):
            await task


def hang(calculator: Calls) -> Coroutine[Any, Any, None]:
    return calculator.hang()


async def test_one_call_at_a_time_keeps_the_order_of_all_methods(attach: AioAttach) -> None:
    async with attach("server") as server, attach("client") as client:
        offered = Calculator()
        server.offer(offered, "calc", concurrency=1)
        server.start()
        calculator = client.client(Calls, "calc", timeout=60)
        await asyncio.gather(*(calculator.note(n, pauses=20 - n) for n in range(20)))
        assert offered.order == list(range(20))


async def test_a_service_ends_and_tells_what_it_was(attach: AioAttach) -> None:
    async with attach("server") as server, attach("client") as client:
        server.start()
        calculator = client.client(Calls, "calc", timeout=60)
        async with server.offer(Calculator(), "calc"):
            assert await calculator.add(1) == 3
            (service,) = client.bus.services("calc.*")
            tasks = {method.name: method.asynchronous for method in service.methods}
            assert (tasks["add"], tasks["move"]) == (True, False)
        with pytest.raises(shmbus.NoRoute):
            await calculator.add(1)


async def test_what_waits_for_a_task_cannot_keep_order_where_there_is_none(
    attach: AioAttach,
) -> None:
    class Doubles:
        def double(self, n: int) -> int:
            return 2 * n

    async with attach("server") as server:
        with pytest.raises(errors.InvalidSetting, match="concurrency"):
            server.offer(Doubles(), "doubles", concurrency=2)


def test_async_methods_are_refused_where_nothing_would_run_them(bus: shmbus.Bus) -> None:
    with bus.attach("plain") as plain, asyncio.Runner() as runner:

        async def make() -> Calculator:
            return Calculator()

        with pytest.raises(errors.InvalidService, match=r"async.*shmbus\.aio"):
            plain.offer(runner.run(make()), "calc")
