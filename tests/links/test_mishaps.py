"""What goes wrong within a link costs as little as may be. Without a network."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import msgspec
import pytest

import shmbus
from shmbus import errors
from shmbus.links import keys, wire
from shmbus.links.channel import DIRECT, Channel
from shmbus.links.config import LinkConfig
from shmbus.links.node import Node
from shmbus.links.peer import Peer
from shmbus.links.receiving import Receiving
from shmbus.links.rules import Rules
from shmbus.links.sure import Sure
from shmbus.testing import eventually, run_async

RUN, ITS = "0" * 16, "1" * 16
SETTINGS: Any = {"window": 1 << 20, "buffer": 1 << 20, "congestion": "drop_newest"}


def made(bus: shmbus.Bus) -> Node:
    return Node(bus.name, LinkConfig(site="berlin", listen=("tcp/127.0.0.1:0",)), RUN)


def test_a_frame_that_fails_costs_no_other(
    bus: shmbus.Bus, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, "shmbus")

    @run_async
    async def main() -> None:
        node, came = made(bus), list[str]()
        there = keys.Outbox("default", "berlin", "paris")
        channel = Channel(there, RUN, ITS, lambda *_: None, **SETTINGS)
        node.peers._there["paris"] = Peer("paris", ITS, Rules([], []), channel)

        def take(peer: Peer, type: str, body: msgspec.Raw, payload: bytes) -> None:
            if type == "bad":
                raise RuntimeError("a mistake")
            came.append(type)

        node.frames.lanes[wire.EVENT] = take
        outbox = keys.Outbox("default", "paris", "berlin")
        node.frames.take(
            [
                (outbox.key(wire.EVENT, type), wire.head(ITS, RUN, seq, b"\xc0"), b"")
                for seq, type in enumerate(("bad", "good"), 1)
            ]
        )
        assert came == ["good"]
        assert node.frames._acknowledging is not None
        await node.close()


def test_a_link_leaves_the_others_whatever_fails_when_it_ends(bus: shmbus.Bus) -> None:
    @run_async
    async def main() -> None:
        node, left = made(bus), asyncio.Event()

        def fail() -> None:
            raise errors.BusDown(bus=bus.name, reason="it has ended")

        node.on_close += [fail, left.set]
        await node.close()
        assert left.is_set()


def test_a_frame_that_a_thread_cannot_send_keeps_no_later_one_from_leaving(
    caplog: pytest.LogCaptureFixture,
) -> None:
    sent = list[str]()

    def put(key: str, head: bytes, payload: Any) -> None:
        if key.endswith("bad"):
            raise RuntimeError("a mistake")
        sent.append(key.rpartition("/")[2])

    channel = Channel(keys.Outbox("default", "berlin", "paris"), RUN, ITS, put, **SETTINGS)
    with caplog.at_level(logging.CRITICAL, "shmbus"):
        for type in ("bad", "good"):
            channel.send(wire.EVENT, type, b"\xc0", bytes(DIRECT))
        eventually(lambda: sent == ["good"], "the other one has left")
    channel.close()


@pytest.mark.parametrize(
    ("why", "said"),
    [
        (errors.NoSuchBus(bus="berlin"), []),
        (errors.MessageTooLarge(type="job", endpoint="@link", size=2, limit=1), ["refused"]),
    ],
)
def test_a_message_is_refused_only_where_it_cannot_be_published_later(
    why: errors.BusError, said: list[str]
) -> None:
    @run_async
    async def main() -> None:
        told = list[str]()

        class Paris(Peer):
            def tell(self, what: str, body: Any) -> None:
                told.extend(["refused"] * len(body.refused))

        class Berlin:
            @property
            def bus(self) -> Any:
                raise why

            name = "@link"

        class Link:
            endpoint, config = Berlin(), LinkConfig(site="berlin", listen=("tcp/127.0.0.1:0",))

            def __init__(self) -> None:
                self.peers: dict[str, Peer] = {}

        there = keys.Outbox("default", "berlin", "paris")
        channel = Channel(there, RUN, ITS, lambda *_: None, **SETTINGS)
        link: Any = Link()
        peer = link.peers["paris"] = Paris("paris", ITS, Rules([">"], [">"]), channel)
        receiving = Receiving(link)
        receiving.take(peer, "job", msgspec.Raw(wire.packed(Sure("writer", 1, "", 0))), b"")
        assert receiving._work is not None
        await receiving._work
        assert told == said
