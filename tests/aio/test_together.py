"""Messages that are sent by one store: whoever is killed, all are sent, or none."""

from __future__ import annotations

import asyncio

import shmbus
from shmbus.shared.layout import Kind
from shmbus.testing import BusProcess

from .stage import AioAttach

EVENT, COMMAND = int(Kind.EVENT), int(Kind.SEND)


async def test_they_come_in_their_order(attach: AioAttach) -> None:
    async with attach("source") as source, attach("sink") as sink:
        messages = aiter(await sink.subscribe("x.>"))
        await source._posting.together([(EVENT, 0, f"x.{n}", n) for n in range(400)])
        assert [(await anext(messages)).payload for _ in range(400)] == list(range(400))


async def test_none_is_sent_before_there_is_space_for_all(
    bus_process: BusProcess, aio_attach: AioAttach
) -> None:
    settings = shmbus.Settings(in_bytes=1 << 14, out_bytes=1 << 14)
    async with aio_attach("source", settings=settings) as source, aio_attach("sink") as sink:
        messages = aiter(await sink.subscribe("x"))
        bus_process.pause()
        try:
            filled = 0
            while True:
                try:
                    await source.publish("x", bytes(1000), timeout=0)
                except shmbus.QueueFull:
                    break
                filled += 1
            sending = asyncio.ensure_future(
                source._posting.together([(EVENT, 0, "x", b""), (EVENT, 0, "x", bytes(2000))])
            )
            for _ in range(10):
                await asyncio.sleep(0)
            (found,) = [e for e in source.bus.endpoints() if e.name == "source"]
            assert (found.sent.events, sending.done()) == (filled, False)
        finally:
            bus_process.resume()
        sizes = [(await anext(messages)).size for _ in range(filled + 2)]
        assert sizes == [1000] * filled + [0, 2000]
        await sending
