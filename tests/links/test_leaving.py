"""Events that leave a bus, without a network."""

from __future__ import annotations

import asyncio
from itertools import chain
from typing import Any

import msgspec

import shmbus
from shmbus.aio.line import NO_LINE
from shmbus.aio.posting import EVENT
from shmbus.events import Undeliverable
from shmbus.links import keys, wire
from shmbus.links.channel import Channel
from shmbus.links.config import LinkConfig
from shmbus.links.leaving import Leaving
from shmbus.links.node import Node
from shmbus.links.peer import Peer
from shmbus.links.rules import Rules
from shmbus.links.tables import Away, Table, Wanted
from shmbus.shared.layout import RecordFlag
from shmbus.testing import Attach, run_async

RUN = "0" * 16
ALL = Table(0, (Away("reader", 1, "paris", (Wanted("subscribe", ">"),)),))


class Paris(Peer):
    """A peer that wants all, and what is sent there."""

    def __init__(self) -> None:
        self.sent: list[str] = []
        self.targets: list[list[str]] = []
        outbox = keys.Outbox("space", "berlin", "paris")
        settings: Any = {"window": 1000, "buffer": 1000, "congestion": "drop_newest"}
        channel = Channel(outbox, RUN, RUN, self.put, **settings)
        super().__init__("paris", RUN, Rules([">"], [">"]), channel)
        self.table.set(ALL)
        self.up = True

    def put(self, key: str, head: bytes, _: Any) -> None:
        self.sent.append(key)
        if f"/{wire.EVENT}/" in key:
            self.targets.append(msgspec.msgpack.decode(wire.read_head(head).body)[2])


async def berlin(bus: shmbus.Bus, *peers: Peer) -> Node:
    """A link that knows these."""
    node = Node(bus.name, LinkConfig(site="berlin", listen=("tcp/127.0.0.1:0",)), RUN)
    await node.attach()
    node.peers._known |= {peer.site: peer for peer in peers}
    return node


def test_an_endpoint_that_writes_garbage_keeps_no_event_of_others_from_leaving(
    bus: shmbus.Bus,
) -> None:
    @run_async
    async def main() -> None:
        paris = Paris()
        node = await berlin(bus, paris)
        await node.endpoint.subscribe("job.*")
        leaving = Leaving(node)
        leaving.begin()
        async with shmbus.aio.attach(bus.name, name="writer") as writer:
            flags = int(RecordFlag.NONE | RecordFlag.FRAMED)
            writer._looped.post(EVENT, flags, "job.bad", b"payload", NO_LINE)
            await writer.publish("job.good")
            while not paris.sent:
                await asyncio.sleep(0)
        (sent,) = paris.sent
        assert sent.endswith(f"{wire.EVENT}/job/good")
        leaving.close()
        await node.close()


def test_an_event_of_a_group_that_no_other_site_has_any_more_goes_to_a_member_here(
    bus: shmbus.Bus, attach: Attach
) -> None:
    member = attach("member")

    @run_async
    async def main() -> None:
        node = await berlin(bus, Paris())
        await node.endpoint.subscribe("job", group="workers")
        async with shmbus.aio.attach(bus.name, name="writer") as writer:
            await writer.publish("job", 1)
        member.subscribe("job", group="workers")
        leaving = Leaving(node)
        leaving.begin()
        while (message := member.receive(0)) is None:
            await asyncio.sleep(0)
        assert message.payload == 1
        leaving.close()
        await node.close()


def test_what_plain_subscribers_elsewhere_get_is_given_back_for_the_group_that_has_gone(
    bus: shmbus.Bus, attach: Attach
) -> None:
    member = attach("member")

    @run_async
    async def main() -> None:
        paris = Paris()
        wants = (Wanted("subscribe", "job"), Wanted("subscribe", "job", "there"))
        paris.table.set(Table(0, (Away("reader", 1, "paris", wants),)))
        node = await berlin(bus, paris)
        node.peers._there["paris"] = paris
        for group in (None, "gone", "there"):
            await node.endpoint.subscribe("job", group=group)
        leaving = Leaving(node)
        async with shmbus.aio.attach(bus.name, name="writer") as writer:
            for number in (1, 2):
                await writer.publish("job", number)
        member.subscribe("job", group="gone")
        leaving.begin()
        got = list[object]()
        while len(got) < 2 or len([*chain(*paris.targets)]) < 4:
            await asyncio.sleep(0)
            if (message := member.receive(0)) is not None:
                got.append(message.payload)
        assert sorted(map(str, got)) == ["1", "2"]
        assert sorted(chain(*paris.targets)) == ["", "", "there", "there"]
        assert member.receive(0) is None
        leaving.close()
        await node.close()


def test_an_event_of_a_group_that_nobody_has_any_more_is_undeliverable(
    bus: shmbus.Bus, attach: Attach
) -> None:
    ear = attach("ear")
    ear.subscribe("$bus.undeliverable", payload_type=Undeliverable)

    @run_async
    async def main() -> None:
        node = await berlin(bus, Paris())
        await node.endpoint.subscribe("job", group="workers")
        leaving = Leaving(node)
        leaving.begin()
        async with shmbus.aio.attach(bus.name, name="writer") as writer:
            await writer.publish("job", 1)
            while (message := ear.receive(0)) is None:
                await asyncio.sleep(0)
        assert (message.payload.type, message.payload.source) == ("job", "writer")
        leaving.close()
        await node.close()
