"""Loans in an event loop: waiting for memory suspends the task alone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import numpy as np
import pytest

import shmbus
from shmbus import errors
from shmbus.testing import TIMEOUT, AioAttach

SMALL = shmbus.Settings(pool_bytes=1_000_000)


async def until_waiting(bus: shmbus.Bus, name: str) -> None:
    """Until a call of this endpoint waits for memory."""
    await asyncio.sleep(0)  # it has begun: before, what is seen is of one that has waited
    async with asyncio.timeout(TIMEOUT):
        while not any(pool.waiting for pool in bus.pools() if pool.endpoint == name):
            await asyncio.sleep(0.001)


@pytest.mark.smoke
async def test_what_was_filled_in_is_published(attach: AioAttach) -> None:
    async with attach("source") as source, attach("sink") as sink:
        messages = aiter(await sink.subscribe("x"))
        async with source.loan("x", 3) as loan:
            loan.data[:] = b"abc"
        assert (await anext(messages)).payload == b"abc"
        async with source.loan_array("x", (2, 3), "i4") as loan:
            loan.array[:] = 5
        assert (await anext(messages)).payload.tolist() == [[5] * 3] * 2
        with pytest.raises(ZeroDivisionError):
            async with source.loan("x", 3):
                raise ZeroDivisionError
        await source.publish("x", bytes(1_000_000))
        assert (await anext(messages)).size == 1_000_000


async def test_a_first_large_payload_needs_no_time(attach: AioAttach) -> None:
    async with attach("source") as source, attach("other") as other:
        await source.publish("x", bytes(1_000_000), timeout=0)
        async with other.loan("x", 1_000_000, timeout=0):
            pass


async def test_a_task_waits_for_memory_and_others_go_on(bus: shmbus.Bus, attach: AioAttach) -> None:
    async with attach("source", settings=SMALL) as source, attach("sink") as sink:
        messages = aiter(await sink.subscribe("x"))
        sink.handle("echo", lambda message: message.payload)
        sink.start()
        async with source.loan("x", 900_000) as loan:
            waiting = asyncio.ensure_future(source.publish("x", bytes(950_000), timeout=60))
            await until_waiting(bus, "source")
            await source.publish("x", b"small", timeout=0)
            await source.publish_many([("x", b"small")] * 2, timeout=0)
            async with source.batch() as batch:
                await batch.publish("x", b"small", timeout=0)
            assert (await source.request("echo", b"small")).payload == b"small"
            assert [(await anext(messages)).payload for _ in range(4)] == [b"small"] * 4
            assert not waiting.done()
            loan.discard()
        await waiting
        assert (await anext(messages)).size == 950_000


async def test_a_part_that_waits_for_memory_is_encoded_once(
    bus: shmbus.Bus, attach: AioAttach
) -> None:
    encoded: list[object] = []

    def encode(value: object) -> bytes:
        encoded.append(value)
        return bytes(400_000)

    def plain(message: shmbus.Message) -> Iterator[object]:
        yield object()

    async def asynchronous(message: shmbus.Message) -> AsyncIterator[object]:
        yield object()

    async def parts(type: str) -> list[int]:
        return [part.size async for part in client.stream(type, timeout=60)]

    async with (
        attach("source", settings=SMALL, encode=encode) as source,
        attach("client") as client,
    ):
        source.handle("plain", plain)
        source.handle("asynchronous", asynchronous)
        source.handle("echo", lambda message: message.payload)
        source.start()
        async with source.loan("x", 900_000) as loan:
            streams = [asyncio.ensure_future(parts(each)) for each in ("plain", "asynchronous")]
            async with asyncio.timeout(TIMEOUT):
                while len(encoded) < 2:
                    await asyncio.sleep(0.001)
            await until_waiting(bus, "source")
            for number in range(20):
                assert (await client.request("echo", number)).payload == number
            loan.discard()
        assert [len(each) for each in await asyncio.gather(*streams)] == [1, 1]
        assert len(encoded) == 2


async def test_of_those_that_wait_for_memory_none_is_passed_by(
    bus: shmbus.Bus, attach: AioAttach
) -> None:
    async with attach("source", settings=SMALL) as source, attach("sink") as sink:
        messages = aiter(await sink.subscribe("x"))
        sink.handle("size", lambda message: message.size)
        sink.start()
        async with source.loan("x", 500_000) as loan:
            first = asyncio.ensure_future(source.publish("x", bytes(900_000), timeout=60))
            await until_waiting(bus, "source")
            with pytest.raises(errors.QueueFull, match="pool_bytes"):  # there is space for it
                await source.request("size", bytes(300_000), timeout=0.02)
            later = asyncio.ensure_future(source.publish("x", bytes(300_000), timeout=60))
            asked = asyncio.ensure_future(source.request("size", bytes(310_000), timeout=60))
            await asyncio.sleep(0)
            loan.discard()
        assert (await anext(messages)).size == 900_000
        assert (await anext(messages)).size == 300_000
        assert (await asked).payload == 310_000
        await asyncio.gather(first, later)


async def test_nothing_takes_memory_too_and_waits_for_it(
    bus: shmbus.Bus, attach: AioAttach
) -> None:
    async with attach("source", settings=shmbus.Settings(pool_bytes=4096)) as source:
        messages = aiter(await source.subscribe("x"))
        async with source.loan("x", 4096) as loan:
            with pytest.raises(errors.QueueFull, match="pool_bytes"):
                await source.loan("x", 0, timeout=0.02).__aenter__()
            waiting = asyncio.ensure_future(source.loan("x", 0, timeout=60).__aenter__())
            await until_waiting(bus, "source")
            loan.discard()
        async with asyncio.timeout(30):
            await (await waiting).publish()
            assert (await anext(messages)).payload == b""


@pytest.mark.slow
async def test_who_asked_is_told_that_its_reply_finds_no_space(attach: AioAttach) -> None:
    async with attach("server", settings=SMALL) as server, attach("client") as client:

        @server.handle("whole")
        async def whole(message: shmbus.Message[int]) -> bytes:
            return bytes(message.payload)

        server.start()
        async with server.loan("x", 900_000) as loan:
            large = asyncio.ensure_future(client.request("whole", 300_000, timeout=2))
            async with asyncio.timeout(30):
                with pytest.raises(errors.RemoteError, match="its own loans") as caught:
                    await large
                assert caught.value.error == "shmbus.errors.QueueFull"
            large = asyncio.ensure_future(client.request("whole", 300_000, timeout=60))
            assert (await client.request("whole", 5, timeout=60)).size == 5
            assert (await client.request("whole", 10, timeout=60)).size == 10  # past the other
            loan.discard()
        assert (await large).size == 300_000


async def test_a_cancelled_wait_leaves_the_memory_to_others(
    bus: shmbus.Bus, attach: AioAttach
) -> None:
    async with attach("source", settings=SMALL) as source:
        async with source.loan("x", 900_000):
            for call in (
                source.loan("x", 900_000).__aenter__(),
                source.publish("x", bytes(990_000)),
            ):
                waiting = asyncio.ensure_future(call)
                await until_waiting(bus, "source")
                waiting.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await waiting
            with pytest.raises(errors.QueueFull, match="pool_bytes"):
                await source.publish("x", bytes(990_000), timeout=0.02)
        async with source.loan("x", 900_000, timeout=30) as loan:
            loan.data[:] = bytes(900_000)


async def test_replies_and_parts_wait_for_memory_without_holding_up_the_loop(
    bus: shmbus.Bus,
    attach: AioAttach,
) -> None:
    settings = shmbus.Settings(pool_bytes=1_000_000, reply_bytes=8192)
    async with attach("server", settings=settings) as server, attach("client") as client:

        @server.handle("whole")
        async def whole(message: shmbus.Message[int]) -> bytes:
            return bytes(message.payload)

        @server.handle("frame")
        async def frame(message: shmbus.Message[int]) -> np.ndarray[Any, np.dtype[np.uint8]]:
            return np.full(message.payload, 7, np.uint8)

        @server.handle("parts")
        async def parts(message: shmbus.Message[int]) -> AsyncIterator[bytes]:
            for _ in range(4):
                yield bytes(message.payload)

        @server.handle("many")
        async def many(message: shmbus.Message[int]) -> AsyncIterator[bytes]:
            for _ in range(100):
                yield bytes(message.payload)

        server.start()
        async with server.loan("x", 900_000) as loan:
            taken = asyncio.ensure_future(anext(client.stream("parts", 400_000, timeout=60)))
            await until_waiting(bus, "server")
            sizes = [part.size async for part in client.stream("many", 1500, timeout=30)]
            assert sizes == [1500] * 100  # more than the ring holds
            asked = [client.request("whole", 300_000, timeout=60) for _ in range(3)]
            waiting = asyncio.gather(*asked)
            framed = asyncio.ensure_future(client.request("frame", 300_000, timeout=60))
            assert (await client.request("whole", 10, timeout=60)).size == 10
            await asyncio.sleep(0.05)
            used = time.thread_time()
            await asyncio.sleep(0.2)
            assert time.thread_time() - used < 0.1  # the loop sleeps
            assert not waiting.done()
            assert not taken.done()
            loan.discard()
        assert [reply.size for reply in await waiting] == [300_000] * 3
        assert (await framed).payload.tobytes() == b"\7" * 300_000
        assert (await taken).size == 400_000
