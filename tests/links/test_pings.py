"""Peers are pinged so that their clocks are known, and seldom while nothing comes from them."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from shmbus.links.channel import Channel
from shmbus.links.clock import Ping, Pong
from shmbus.links.peer import Peer
from shmbus.links.pings import PING, PONG, Pings
from shmbus.links.rules import Rules
from shmbus.links.wire import Garbage
from shmbus.shared._kernel import monotonic_ns
from shmbus.testing import run_async


class Site(Peer):
    """A peer that answers only when it is told to."""

    def __init__(self) -> None:
        super().__init__("paris", "0" * 16, Rules([], []), cast(Channel, self))
        self.heard: list[tuple[str, object]] = []

    def tell(self, what: str, body: object) -> None:
        self.heard.append((what, body))

    def answer(self, pings: Pings) -> None:
        """To the last ping."""
        what, ping = self.heard[-1]
        assert what == PING
        assert isinstance(ping, Ping)
        now = monotonic_ns()
        pings.take_pong(self, Pong(ping.left_ns, now, now), monotonic_ns())


def test_a_peer_that_has_come_is_pinged_until_it_is_known_and_then_left_alone() -> None:
    async def main() -> None:
        site = Site()
        pings = Pings(lambda: [site], lambda peer: None, asyncio.get_running_loop())
        pings.came(site)
        for _ in range(3):
            site.answer(pings)
        there = len(site.heard)
        site.answer(pings)
        for _ in range(100):
            pings.heard(site)
        assert there == len(site.heard) == 4
        assert site.clock.known is not None
        pings.end()

    run_async(main)


def test_who_asks_how_far_it_is_gets_the_round_trip() -> None:
    async def main() -> None:
        site = Site()
        pings = Pings(lambda: [site], lambda peer: None, asyncio.get_running_loop())
        asked = asyncio.create_task(pings.ping(site))
        await asyncio.sleep(0)
        site.answer(pings)
        took = await asked
        assert took is not None
        assert 0 < took < 60
        gone = asyncio.create_task(pings.ping(site))
        await asyncio.sleep(0)
        pings.gone(site)
        assert await gone is None
        pings.end()

    run_async(main)


def test_a_ping_is_answered_and_an_answer_to_none_is_garbage() -> None:
    async def main() -> None:
        site = Site()
        pings = Pings(lambda: [site], lambda peer: None, asyncio.get_running_loop())
        pings.take_ping(site, Ping(5), 10)
        ((what, pong),) = site.heard
        assert what == PONG
        assert isinstance(pong, Pong)
        assert (pong.left_ns, pong.came_ns) == (5, 10)
        with pytest.raises(Garbage):
            pings.take_pong(site, Pong(5, 6, 7), monotonic_ns())
        pings.end()

    run_async(main)
