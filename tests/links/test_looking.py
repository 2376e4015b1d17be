"""How a link learns what the endpoints of its bus want."""

from __future__ import annotations

import asyncio

import shmbus
from shmbus.links.config import LinkConfig
from shmbus.links.node import Node
from shmbus.links.wire import new_run
from shmbus.testing import Attach, run_async


def lost(bus: shmbus.Bus) -> int:
    """Messages that the link on this bus has lost."""
    return next(e.lost for e in bus.endpoints() if e.name == "@link")


def test_a_link_that_is_far_behind_learns_of_an_interest_all_the_same(
    bus: shmbus.Bus, attach: Attach
) -> None:
    talker, worker = attach("talker"), attach("worker")

    async def main() -> None:
        node = Node(bus.name, LinkConfig(site="berlin", listen=("tcp/127.0.0.1:0",)), new_run())
        await node.attach()
        await node.endpoint.subscribe("talk", lambda _: None, overflow="drop_newest")
        node.endpoint.start()
        await asyncio.sleep(0.1)  # what has changed until then is looked at
        for size in (1000, 0):  # until its ring has space for nothing more
            before = lost(bus)
            while lost(bus) == before:
                talker.publish_many([("talk", bytes(size))] * 100)
        worker.handle("order", lambda _: None)
        async with asyncio.timeout(10):
            while not any(e.name == "worker" and e.interests for e in node.looking._seen):
                await asyncio.sleep(0.01)
        await node.close()

    run_async(main)
