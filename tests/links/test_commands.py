"""Commands of other sites, without a network."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from shmbus import errors
from shmbus.links import keys, wire
from shmbus.links.arrivals import Ack
from shmbus.links.channel import Channel
from shmbus.links.commands import Command, Commands
from shmbus.links.peer import Peer
from shmbus.links.rules import Rules
from shmbus.testing import run_async

RUN = "0" * 16


class Bus:
    """One whose rings are full for now."""

    def __init__(self) -> None:
        self.free = asyncio.Event()
        self.sent: list[str] = []

    async def send(self, type: str, payload: object, *, timeout: float | None) -> None:
        await self.free.wait()
        if type == "large":
            raise errors.MessageTooLarge(type=type, endpoint="x", size=2, limit=1)
        self.sent.append(type)


def paris(imports: str = ">") -> Peer:
    outbox = keys.Outbox("space", "berlin", "paris")
    settings: Any = {"window": 1000, "buffer": 1000, "congestion": "drop_newest"}
    channel = Channel(outbox, RUN, RUN, lambda *_: None, **settings)
    return Peer("paris", RUN, Rules([">"], [imports]), channel)


def come(commands: Commands, peer: Peer, *types: str) -> None:
    """Commands of these types come from there."""
    body = msgspec.Raw(wire.packed(Command("writer", 1, 0)))
    for type in types:
        peer.arrivals.come(peer.arrivals.seq + 1, 100)
        commands.take(peer, type, body, b"")


def test_a_command_is_acknowledged_once_it_is_on_the_bus_so_few_wait_for_that() -> None:
    @run_async
    async def main() -> None:
        bus, peer, acks = Bus(), paris(), list[Ack | None]()
        endpoint: Any = bus
        loop = asyncio.get_running_loop()
        commands = Commands(endpoint, loop, lambda peer: acks.append(peer.arrivals.ack()))
        come(commands, peer, "one", "two")
        await asyncio.sleep(0)
        assert peer.arrivals.ack() is None
        bus.free.set()
        while len(bus.sent) < 2:
            await asyncio.sleep(0)
        assert acks == [Ack(2)]


def test_a_command_that_this_bus_does_not_take_is_counted_as_lost() -> None:
    @run_async
    async def main() -> None:
        bus, peer, done = Bus(), paris("large"), asyncio.Event()
        bus.free.set()
        endpoint: Any = bus
        commands = Commands(endpoint, asyncio.get_running_loop(), lambda _: done.set())
        come(commands, peer, "secret", "large")
        await done.wait()
        assert peer.lost == {"secret": 1, "large": 1}
