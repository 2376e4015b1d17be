"""Urgent events in an event loop."""

from __future__ import annotations

import asyncio

import pytest

import shmbus

from .stage import AioAttach


@pytest.mark.smoke
async def test_an_urgent_event_overtakes_what_waits(bus: shmbus.Bus, attach: AioAttach) -> None:
    async with attach("source") as source, attach("sink") as sink:
        messages = aiter(await sink.subscribe("x"))
        await source.publish_many([("x", n) for n in range(100)])
        async with source.batch() as batch:
            await batch.publish("x", "first", urgent=True)
            await batch.publish("x", "second", urgent=True)
        while bus.find("x")[0].untouched < 102:
            await asyncio.sleep(0.001)
        got = [await anext(messages) for _ in range(102)]
        assert [m.payload for m in got] == ["first", "second", *range(100)]
        assert [m.urgent for m in got[:3]] == [True, True, False]


async def test_one_wakes_a_task_that_waits_however_large_it_is(attach: AioAttach) -> None:
    async with attach("source") as source, attach("sink") as sink:
        messages = aiter(await sink.subscribe("x"))
        waiting = asyncio.ensure_future(anext(messages))
        await asyncio.sleep(0)
        await source.publish("x", "now", urgent=True)
        assert (await waiting).payload == "now"
        await source.publish("x", bytes(20000), urgent=True)
        assert (await anext(messages)).size == 20000
