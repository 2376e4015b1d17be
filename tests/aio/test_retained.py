"""Last values in an event loop."""

from __future__ import annotations

from typing import Any

import pytest

import shmbus
from shmbus import errors
from shmbus.testing import eventually_async

from .stage import AioAttach


async def kept(bus: shmbus.BusView, count: int) -> None:
    await eventually_async(lambda: bus.info().retained == count)


@pytest.mark.smoke
async def test_who_iterates_gets_the_last_values_first(attach: AioAttach) -> None:
    async with attach("source") as source, attach("display") as display:
        for n in range(5):
            await source.publish("state.a", n, retain=True)
        await source.publish("state.b", "only", retain=True)
        await kept(source.bus, 6)
        states = await display.subscribe("state.*", history=2)
        await source.publish("state.a", "new")
        got = []
        async for message in states:
            got.append((message.payload, message.retained))
            if len(got) == 4:
                break
        assert got == [(3, True), (4, True), ("only", True), ("new", False)]


async def test_each_subscription_has_a_past_of_its_own(attach: AioAttach) -> None:
    async with attach("source") as source, attach("ep") as ep:
        got: dict[str, list[tuple[Any, bool]]] = {"task": [], "call": [], "none": []}

        async def work(message: shmbus.Message[Any]) -> None:
            got["task"].append((message.payload, message.retained))

        ep.start()
        await ep.subscribe("a", lambda m: got["none"].append((m.payload, m.retained)))
        await source.publish("a", 1, retain=True)
        await eventually_async(lambda: got["none"])
        await ep.subscribe("a", work, history=1)
        await ep.subscribe("a", lambda m: got["call"].append((m.payload, m.retained)), history=9)
        await source.publish("a", 2, retain=True)
        await eventually_async(lambda: all(len(each) == 2 for each in got.values()))
        assert got["none"] == [(1, False), (2, False)]
        assert got["task"] == got["call"] == [(1, True), (2, False)]


async def test_a_display_has_the_state_first_then_the_newest(attach: AioAttach) -> None:
    async with attach("source") as source, attach("display") as display:
        for n in range(5):
            await source.publish("state.a", n, retain=True)
        await source.publish("state.b", "only", retain=True)
        await kept(source.bus, 6)
        states = await display.subscribe("state.*", overflow="latest", history=1)
        got = []
        async for message in states:
            got.append((message.payload, message.retained))
            if len(got) == 2:
                await source.publish("state.a", "new")
            elif len(got) == 3:
                break
        assert got == [(4, True), ("only", True), ("new", False)]


async def test_a_type_is_forgotten(attach: AioAttach) -> None:
    async with attach("source") as source, attach("late") as late:
        async with source.batch() as batch:
            await batch.publish("a", 1, retain=True)
            await batch.publish("b", 2, retain=True)
            await batch.publish("a", None, retain=True)
        await kept(source.bus, 1)
        await late.subscribe(">", history=1)
        message = await late.receive(timeout=60)
        assert message is not None
        assert (message.type, message.retained) == ("b", True)


async def test_a_group_has_no_history(attach: AioAttach) -> None:
    async with attach("ep") as ep:
        with pytest.raises(errors.InvalidSetting, match="share what comes"):
            await ep.subscribe("a", group="g", history=1)
