"""The ends of a bus in an event loop, and of zmq.asyncio through pyzmq's proxy; each function is a
role (stage.py)."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from itertools import repeat
from typing import Any, TypeVar

import zmq
import zmq.asyncio

import shmbus
from benchmark.measure.awaited import receive_rate, task_rate, time_calls
from benchmark.measure.calls import PAYLOAD, Latency
from benchmark.measure.floods import Flood
from benchmark.roles.outstanding import OUTSTANDING, TYPE
from benchmark.roles.peers import Address
from benchmark.stage import Stage
from shmbus import aio

LOOPS = ("asyncio", "uvloop") if importlib.util.find_spec("uvloop") else ("asyncio",)

T = TypeVar("T")


def run(loop: str, main: Coroutine[Any, Any, T]) -> T:
    """Run it in an event loop of this kind."""
    factory = None
    if loop == "uvloop":
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(main)


async def until_stopped(work: Awaitable[object]) -> None:
    """Wait for it, or until this role is stopped."""
    working = asyncio.ensure_future(work)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, working.cancel)
    with contextlib.suppress(asyncio.CancelledError, shmbus.BusError):  # the bus may end before
        await working


# The bus ----------------------------------------------------------------------------------------


def replier(stage: Stage, bus: str, loop: str, number: int = 0) -> None:
    async def main() -> None:
        async with aio.attach(bus, name=f"replier-{number}", timeout=20.0) as endpoint:

            @endpoint.handle(TYPE)
            async def echo(message: shmbus.Message) -> object:
                return message.payload

            stage.ready()
            await until_stopped(endpoint.run())

    run(loop, main())


def requester(stage: Stage, bus: str, loop: str, seconds: float) -> Latency:
    async def main() -> Latency:
        async with aio.attach(bus, name="requester", timeout=20.0) as endpoint:
            await endpoint.wait_for(TYPE, timeout=20.0)
            request = endpoint.request

            async def call(payload: bytes) -> bytes:
                return bytes((await request(TYPE, payload)).payload)

            stage.ready()
            return await time_calls(call, seconds)

    return run(loop, main())


def asker(stage: Stage, bus: str, loop: str, repliers: int, seconds: float) -> float:
    """Replies per second, of so many tasks that each make one request after another."""

    async def main() -> float:
        async with aio.attach(bus, name="requester", timeout=20.0) as endpoint:
            await endpoint.wait_for(TYPE, receivers=repliers, timeout=20.0)
            request = endpoint.request

            async def ask() -> None:
                (await request(TYPE, PAYLOAD)).payload  # noqa: B018 (decoded when it is asked for)

            stage.ready()
            return await task_rate(ask, OUTSTANDING, seconds)

    return run(loop, main())


def receiver(stage: Stage, bus: str, loop: str, flood: Flood) -> float:
    """Messages per second."""

    async def main() -> float:
        async with aio.attach(bus, name="receiver", timeout=20.0) as endpoint:
            messages = aiter(await endpoint.subscribe("bench.flood"))

            async def take(count: int) -> None:
                async for message in messages:
                    message.payload  # noqa: B018
                    count -= 1
                    if not count:
                        return

            stage.ready()
            return await receive_rate(flood, take)

    return run(loop, main())


def idle(stage: Stage, bus: str, count: int) -> None:
    """Endpoints of one loop that wait for messages that never come."""

    async def main() -> None:
        async with AsyncExitStack() as stack:
            waits = []
            for number in range(count):
                attached = aio.attach(bus, name=f"idle-{number}", timeout=20.0)
                endpoint = await stack.enter_async_context(attached)
                await endpoint.subscribe("bench.never")
                waits.append(asyncio.ensure_future(endpoint.receive()))
            await asyncio.sleep(0)
            stage.ready()
            await until_stopped(asyncio.gather(*waits))

    run("asyncio", main())


def idle_in_threads(stage: Stage, bus: str, count: int) -> None:
    """The same of threads."""
    with ExitStack() as stack:
        for number in range(count):
            attached = shmbus.attach(bus, name=f"idle-{number}", timeout=20.0, reconnect="always")
            endpoint = stack.enter_context(attached)
            endpoint.subscribe("bench.never", lambda message: None)
            endpoint.start()
        stage.ready()
        stage.wait_until_stopped()


# pyzmq ------------------------------------------------------------------------------------------


@asynccontextmanager
async def _socket(kind: int, **where: str) -> AsyncIterator[zmq.asyncio.Socket]:
    context = zmq.asyncio.Context()
    sock = context.socket(kind)
    try:
        for how, address in where.items():
            getattr(sock, how)(address)
        yield sock
    finally:
        sock.close(linger=0)
        context.term()


def zmq_replier(stage: Stage, address: Address, loop: str) -> None:
    async def main() -> None:
        async with _socket(zmq.REP, connect=address.back) as sock:

            async def serve() -> None:
                while True:
                    await sock.send(await sock.recv())

            stage.ready()
            await until_stopped(serve())

    run(loop, main())


def zmq_requester(stage: Stage, address: Address, loop: str, seconds: float) -> Latency:
    async def main() -> Latency:
        async with _socket(zmq.REQ, connect=address.front) as sock:

            async def call(payload: bytes) -> bytes:
                await sock.send(payload)
                return bytes(await sock.recv())

            stage.ready()
            return await time_calls(call, seconds)

    return run(loop, main())


def zmq_asker(stage: Stage, address: Address, loop: str, seconds: float) -> float:
    """Replies per second, of so many tasks that share a DEALER: one more task takes the replies,
    and knows by a frame of their own whose they are."""

    async def main() -> float:
        async with _socket(zmq.DEALER, connect=address.front) as sock:
            waiting: dict[bytes, asyncio.Future[bytes]] = {}
            create_future = asyncio.get_running_loop().create_future
            numbers = iter(range(2**62))

            async def take() -> None:
                while True:
                    mine, _, payload = await sock.recv_multipart()
                    waiting.pop(mine).set_result(payload)

            async def ask() -> None:
                mine = next(numbers).to_bytes(8, "little")
                waiting[mine] = reply = create_future()
                await sock.send_multipart([mine, b"", PAYLOAD])
                await reply

            taking = asyncio.ensure_future(take())
            stage.ready()
            try:
                return await task_rate(ask, OUTSTANDING, seconds)
            finally:
                taking.cancel()

    return run(loop, main())


def zmq_dealer(stage: Stage, address: Address, loop: str, seconds: float) -> float:
    """Replies per second of one task with so many requests outstanding, which does not ask whose a
    reply is."""

    async def main() -> float:
        async with _socket(zmq.DEALER, connect=address.front) as sock:

            async def ask() -> None:
                await sock.recv()
                await sock.recv()
                await sock.send(b"", zmq.SNDMORE)
                await sock.send(PAYLOAD)

            stage.ready()
            for _ in repeat(None, OUTSTANDING):
                await sock.send(b"", zmq.SNDMORE)
                await sock.send(PAYLOAD)
            return await task_rate(ask, 1, seconds)

    return run(loop, main())


def zmq_receiver(stage: Stage, address: Address, loop: str, flood: Flood) -> float:
    """Messages per second."""

    async def main() -> float:
        async with _socket(zmq.PULL, connect=address.back) as sock:
            receive: Callable[[], Awaitable[bytes]] = sock.recv

            async def take(count: int) -> None:
                for _ in repeat(None, count):
                    await receive()

            stage.ready()
            return await receive_rate(flood, take)

    return run(loop, main())
