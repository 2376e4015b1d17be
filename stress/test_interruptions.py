"""Calls are interrupted by signals whose handlers raise one thing or another: at some of the
places, and after some of the times, at which one can; with `--long` at all of them."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import pytest

import shmbus
from shmbus.testing import Attach
from tests.interruption import KINDS, Alarm, Journey
from tests.stage import BEGINNINGS, CALLS, IN_C, Stage, places_of, staged, sweep

T = TypeVar("T")

SOME = 20
"""Places and times that are tried of each call, without `--long`."""

# An interrupted `open` leaves its file to the garbage collector.
pytestmark = [
    pytest.mark.bus(in_bytes=65536, out_bytes=65536, block_timeout=3600),
    pytest.mark.filterwarnings(
        "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
    ),
]


@pytest.fixture
def stage(bus: shmbus.Bus, attach: Attach) -> Iterator[Stage]:
    with staged(bus, attach) as stage:
        yield stage


class Choice:
    """Which places and times are tried, and what is raised there."""

    def __init__(self, chance: random.Random, long: bool) -> None:
        self._chance, self._long = chance, long

    def of(self, all: Sequence[T]) -> Sequence[T]:
        return all if self._long else self._chance.sample(all, min(SOME, len(all)))

    def kind(self) -> type[BaseException]:
        return self._chance.choice(KINDS)

    def sweep(self, interrupt: Callable[[Journey], bool]) -> None:
        sweep(interrupt, self.of(places_of(interrupt)), self.kind)


@pytest.fixture
def choice(chance: random.Random, long: bool) -> Choice:
    return Choice(chance, long)


@pytest.mark.parametrize("call", CALLS)
def test_an_interruption_anywhere_comes_out_and_harms_nothing(
    stage: Stage, choice: Choice, call: str
) -> None:
    choice.sweep(lambda how: stage.interrupt(CALLS[call], how))


@pytest.mark.parametrize("call", IN_C)
def test_an_interruption_at_any_time_comes_out_and_harms_nothing(
    stage: Stage, choice: Choice, call: str
) -> None:
    for delay in choice.of(range(1, 200)):
        stage.interrupt(IN_C[call], Alarm(delay * 5e-6, choice.kind()))


@pytest.mark.parametrize("call", BEGINNINGS)
def test_an_interrupted_beginning_can_be_made_anew(
    stage: Stage, choice: Choice, call: Callable[[Stage], None]
) -> None:
    choice.sweep(lambda how: stage.begin(call, how))
