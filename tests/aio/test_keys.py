"""Groups with a key, in an event loop."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from functools import partial
from typing import Any

import pytest

from shmbus import Message, errors, events

from .stage import AioAttach


@pytest.mark.smoke
async def test_messages_of_one_key_go_to_one_member_and_move_in_order(attach: AioAttach) -> None:
    had: dict[str, list[tuple[str, int]]] = defaultdict(list)
    done = asyncio.Event()

    async with attach("source") as source, attach("one") as one, attach("other") as other:

        async def work(name: str, message: Message) -> None:
            await asyncio.sleep(0)
            had[message.type].append((name, message.payload))
            if sum(map(len, had.values())) % 600 == 0:
                done.set()

        async def send(start: int) -> None:
            done.clear()
            await source.publish_many(
                [(f"order.{k}.x", start + n) for n in range(60) for k in range(10)]
            )

        for each in (one, other):
            each.start()
        await source.subscribe("$bus.group.rebalanced", payload_type=events.GroupRebalanced)
        key: dict[str, Any] = {"group": "workers", "key": "order.{id}.>", "concurrency": 1}
        await one.subscribe("order.*.>", partial(work, "one"), **key)
        await send(0)
        await other.subscribe("order.*.>", partial(work, "other"), **key)
        await asyncio.wait_for(done.wait(), 60)
        await send(60)
        await asyncio.wait_for(done.wait(), 60)
        for entries in had.values():
            assert [n for _, n in entries] == list(range(120))
            names = [name for name, _ in entries]
            assert names == sorted(names)  # from one to the other, once
        assert {entries[-1][0] for entries in had.values()} == {"one", "other"}
        told = [await source.receive(10) for _ in range(2)]
        assert [len(m.payload.members) for m in told if m] == [1, 2]
        with pytest.raises(errors.GroupConflict):
            await source.subscribe("order.*", group="workers", key="order.{id}")
