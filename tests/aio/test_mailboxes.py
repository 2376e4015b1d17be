"""Subscriptions with `drop_oldest` and `latest` in an event loop."""

from __future__ import annotations

import asyncio

import pytest

import shmbus
from shmbus import errors

from .stage import AioAttach


async def settled(view: shmbus.BusView, sender: str) -> None:
    while next(e for e in view.endpoints() if e.name == sender).unforwarded:
        await asyncio.sleep(0.001)


@pytest.mark.smoke
async def test_who_iterates_gets_the_newest_there_is_when_it_asks(attach: AioAttach) -> None:
    async with attach("source") as source, attach("display") as display:
        frames = aiter(await display.subscribe("frame.*", overflow="latest"))
        first = asyncio.create_task(anext(frames))
        await asyncio.sleep(0)
        await source.publish("frame.a", 0)
        assert (await first).payload == 0
        for n in range(1, 200):  # while nobody asks
            await source.publish("frame.a", n)
            await asyncio.sleep(0)
        await source.publish("frame.b", 0)
        await settled(display.bus, "source")
        message = await anext(frames)
        assert (message.type, message.payload, message.lost) == ("frame.a", 199, 198)
        assert (await anext(frames)).type == "frame.b"
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(frames), 0.01)
        await source.publish("frame.b", 1)
        assert (await anext(frames)).payload == 1


async def test_receive_and_iterations_over_the_endpoint_get_the_newest(attach: AioAttach) -> None:
    async with attach("source") as source, attach("here") as here:
        await here.subscribe("x", overflow="latest")
        await here.subscribe("y", overflow="drop_oldest", depth=2)
        asked = asyncio.create_task(here.receive(10))
        await asyncio.sleep(0)
        await source.publish("x", 0)
        message = await asked
        assert message is not None
        assert message.payload == 0
        for n in range(1, 100):
            await source.publish("x", n)
            await source.publish("y", n)
        await settled(here.bus, "source")
        got = [await here.receive(10) for _ in range(3)]
        assert {(m.type, m.payload) for m in got if m} == {("x", 99), ("y", 98), ("y", 99)}
        assert await here.receive(0) is None


async def test_an_asynchronous_callback_gets_the_newest_when_it_is_free(attach: AioAttach) -> None:
    async with attach("source") as source, attach("here") as here:
        seen, go_on = list[int](), asyncio.Event()

        async def show(message: shmbus.Message) -> None:
            seen.append(message.payload)
            await go_on.wait()

        await here.subscribe("x", show, overflow="latest", concurrency=1)
        here.start()
        await source.publish("x", 0)
        while seen != [0]:
            await asyncio.sleep(0.001)
        for n in range(1, 200):
            await source.publish("x", n)
            await asyncio.sleep(0)
        await settled(here.bus, "source")
        go_on.set()
        while seen[-1] != 199:
            await asyncio.sleep(0.001)
        assert seen == [0, 199]


async def test_what_makes_no_sense_is_refused(attach: AioAttach) -> None:
    async with attach("here") as here:
        with pytest.raises(errors.InvalidSetting) as caught:
            await here.subscribe("x", depth=3)
        assert caught.value.setting == "depth"
