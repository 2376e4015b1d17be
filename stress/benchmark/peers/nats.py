"""NATS: nats-py on asyncio's own loop, and a server on a private port of the loopback interface."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import nats
import nats.errors
import numpy as np
import numpy.typing as npt

from benchmark.claims import Bench, Sample
from benchmark.measure import awaited
from benchmark.measure.calls import PAYLOAD, Latency
from benchmark.measure.floods import Flood
from benchmark.measure.paced import Arrivals, Pace, at_the_last
from benchmark.roles.program import free_port, program
from benchmark.stage import Role, Stage, perform

from .row import FAN_OUT, ONE_WAY, REQUEST, SUBSCRIBERS, Row, fan_out_pace

SERVER = "nats-server"
NO_LIMIT: dict[str, Any] = {"pending_msgs_limit": 0, "pending_bytes_limit": 0}
"""Else nats-py drops what its subscriber is behind with."""


def _server(port: int) -> Role:
    return Role(program, ([SERVER, "-a", "127.0.0.1", "-p", str(port)],), supporting=True)


async def _silent(_error: Exception) -> None:
    """That the server is not up yet is no news."""


@asynccontextmanager
async def _client(port: int) -> AsyncIterator[nats.NATS]:
    deadline = asyncio.get_running_loop().time() + 20.0
    while True:
        try:
            client = await nats.connect(
                f"nats://127.0.0.1:{port}",
                allow_reconnect=False,
                reconnect_time_wait=0.02,
                error_cb=_silent,
            )
            break
        except (OSError, nats.errors.Error):
            if asyncio.get_running_loop().time() > deadline:
                raise
            await asyncio.sleep(0.02)
    try:
        yield client
    finally:
        await client.close()


def _replier(stage: Stage, port: int) -> None:
    async def play() -> None:
        async with _client(port) as client:

            async def answer(message: nats.aio.msg.Msg) -> None:
                await message.respond(message.data)

            await client.subscribe("echo", cb=answer)
            await client.flush()
            stage.ready()
            await asyncio.Event().wait()

    asyncio.run(play())


def _requester(stage: Stage, port: int, seconds: float) -> Latency:
    async def play() -> Latency:
        async with _client(port) as client:

            async def call(payload: bytes) -> bytes:
                answer: bytes = (await client.request("echo", payload, timeout=5)).data
                return answer

            stage.ready()
            return await awaited.time_calls(call, seconds)

    return asyncio.run(play())


def _sender(stage: Stage, port: int, flood: Flood) -> None:
    async def play() -> None:
        async with _client(port) as client:

            async def send(count: int) -> None:
                for _ in range(count):
                    await client.publish("flood", PAYLOAD)
                await client.flush()

            stage.ready()
            stage.report(await awaited.sender_cpu(flood, send))

    asyncio.run(play())


def _counted() -> tuple[Callable[[object], Awaitable[None]], Callable[[int], Awaitable[None]]]:
    """A callback, and what waits until it has been called so many times more."""
    received = wanted = 0
    enough = asyncio.Event()

    async def count(_message: object) -> None:
        nonlocal received
        received += 1
        if received == wanted:
            enough.set()

    async def take(number: int) -> None:
        nonlocal wanted
        wanted += number
        if received < wanted:
            enough.clear()
            await enough.wait()

    return count, take


def _receiver(stage: Stage, port: int, flood: Flood) -> float:
    async def play() -> float:
        async with _client(port) as client:
            count, take = _counted()
            await client.subscribe("flood", cb=count, **NO_LIMIT)
            await client.flush()
            stage.ready()
            return await awaited.receive_rate(flood, take)

    return asyncio.run(play())


def _publisher(stage: Stage, port: int, pace: Pace) -> None:
    async def play() -> None:
        async with _client(port) as client:

            async def send(payload: bytes) -> None:
                await client.publish("paced", payload)

            stage.ready()
            stage.report(await awaited.send_stamped(pace, send, warm=20))
            await client.flush()

    asyncio.run(play())


def _subscriber(stage: Stage, port: int, pace: Pace) -> npt.NDArray[np.int64]:
    async def play() -> npt.NDArray[np.int64]:
        async with _client(port) as client:
            arrivals, complete = Arrivals(pace), asyncio.Event()

            async def take(message: nats.aio.msg.Msg) -> None:
                if not arrivals.take(message.data):
                    complete.set()

            await client.subscribe("paced", cb=take, **NO_LIMIT)
            await client.flush()
            stage.ready()
            await complete.wait()
            return arrivals.took

    return asyncio.run(play())


def _requests(bench: Bench) -> Sample:
    port = free_port()
    (latency,) = perform(
        [
            _server(port),
            Role(_replier, (port,), supporting=True),
            Role(_requester, (port, bench.scale.seconds)),
        ]
    )
    return {"p50": latency.p50, "p99": latency.p99}


def _one_way(messages: int, bench: Bench) -> Sample:
    port, flood = free_port(), bench.flood(messages)
    cpu, rate = perform(
        [_server(port), Role(_sender, (port, flood)), Role(_receiver, (port, flood))]
    )
    return {"rate": rate, "cpu": cpu}


def _fan_out(bench: Bench) -> Sample:
    port, pace = free_port(), fan_out_pace(bench)
    _, *took = perform(
        [
            _server(port),
            Role(_publisher, (port, pace)),
            *(Role(_subscriber, (port, pace)) for _ in range(SUBSCRIBERS)),
        ]
    )
    return at_the_last(took)


ROWS = [
    Row(
        "NATS",
        "core NATS over TCP on the loopback, asyncio's own loop, callbacks, no pending limits",
        {REQUEST: _requests, ONE_WAY: partial(_one_way, 100_000), FAN_OUT: _fan_out},
    )
]
