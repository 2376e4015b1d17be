"""Between the parts of requests that follow each other closely, a link stays awake."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest

from shmbus.links.awake import ASLEEP, ENOUGH, FAR, LATE, MOMENT, MOST, REST, Awake

SPIN = 40_000
STAYS = MOMENT * SPIN
"""Nanoseconds that a link stays awake for the next part."""


class World:
    """A clock, a CPU, and a loop that runs what is to run soon."""

    def __init__(self, spin: int = SPIN) -> None:
        self.now, self.yield_takes, self.yields = 10**12, 1_000, 0
        self._soon: list[Callable[[], object]] = []
        loop = cast(asyncio.AbstractEventLoop, self)
        self.awake = Awake(loop, spin, lambda: self.now, self._give_way)

    def call_soon(self, function: Callable[[], object], *_: Any) -> None:
        self._soon.append(function)

    def _give_way(self) -> None:
        self.now += self.yield_takes
        self.yields += 1

    def pass_time(self, span: int) -> bool:
        """Whether the loop is awake at the end of it."""
        end = self.now + span
        while self.now < end and self._soon:
            self._soon.pop(0)()
        self.now = max(self.now, end)
        return bool(self._soon)

    def parts(self, count: int, every: int) -> int:
        """So many follow each other: before how many of them the loop was awake."""
        awake = 0
        for _ in range(count):
            awake += self.pass_time(every)
            self.awake.handled()
        return awake


@pytest.mark.smoke
def test_a_link_is_awake_for_the_next_part_of_requests_that_follow_each_other_closely() -> None:
    world = World()
    world.awake.handled()
    assert world.parts(100, STAYS // 2) >= 80


def test_it_sleeps_once_nothing_has_come_for_a_moment() -> None:
    world = World()
    world.parts(100, STAYS // 2)
    assert not world.pass_time(2 * STAYS)
    yields = world.yields
    world.pass_time(10**9)
    assert world.yields == yields


def test_where_parts_come_seldom_it_sleeps_but_for_a_try_now_and_then() -> None:
    world = World()
    world.parts(MOST, 10 * STAYS)
    yields = world.yields
    world.parts(100, 10 * STAYS)
    assert world.yields == yields
    world.parts(200, STAYS * ASLEEP * 3 // 4)  # asleep they seem to come soon: awake they do not
    tries = (world.yields - yields) * world.yield_takes / STAYS
    assert 1 <= tries <= 200 / FAR + ENOUGH


def test_it_wakes_up_again_when_they_follow_each_other_closely_anew() -> None:
    world = World()
    world.parts(MOST, 10 * STAYS)
    assert world.parts(3 * MOST, STAYS // 2) >= MOST


def test_beside_a_process_that_uses_the_cpu_it_sleeps() -> None:
    world = World()
    world.parts(20, STAYS // 2)
    world.yield_takes = 2 * LATE
    world.parts(50, STAYS // 2)
    beside = world.yields
    world.parts(200, STAYS // 2)
    assert world.yields - beside < 20
    world.yield_takes = 1_000
    world.pass_time(200 * REST)
    assert world.parts(100, STAYS // 2) >= 50


def test_one_late_return_of_the_cpu_is_no_reason_to_sleep() -> None:
    world = World()
    world.parts(20, STAYS // 2)
    world.yield_takes = LATE + 1
    world.pass_time(LATE)
    world.yield_takes = 1_000
    world.awake.handled()
    assert world.parts(20, STAYS // 2) >= 15


def test_on_a_bus_that_does_not_spin_it_sleeps() -> None:
    world = World(0)
    world.parts(100, 1_000)
    assert world.yields == 0
