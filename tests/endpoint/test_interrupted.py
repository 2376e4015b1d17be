"""A signal's handler may raise wherever Python runs it: that comes out of the call, leaves an
endpoint that works and closes, and harms no other. `stress/test_interruptions.py` does it at many
more places."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

import shmbus
from shmbus.testing import Attach
from tests.interruption import KINDS, Alarm, Journey
from tests.stage import BEGINNINGS, CALLS, IN_C, Stage, places_of, staged, sweep

FEW = 6
"""Places of each call that are tried."""

small = pytest.mark.bus(in_bytes=65536, out_bytes=65536, block_timeout=3600)

# An interrupted `open` leaves its file to the garbage collector.
pytestmark = pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)


@pytest.fixture
def stage(bus: shmbus.Bus, attach: Attach) -> Iterator[Stage]:
    with staged(bus, attach) as stage:
        yield stage


def few(interrupt: Callable[[Journey], bool]) -> None:
    """Interrupt at some places, by one exception after the other."""
    places = places_of(interrupt)
    kinds = iter(KINDS * FEW)
    sweep(interrupt, places[:: -(-len(places) // FEW)], lambda: next(kinds))


@small
@pytest.mark.parametrize("call", CALLS)
def test_an_interruption_here_and_there_comes_out_and_harms_nothing(
    stage: Stage, call: str
) -> None:
    few(lambda how: stage.interrupt(CALLS[call], how))


@small
@pytest.mark.parametrize("call", IN_C)
def test_an_interruption_of_a_wait_comes_out_and_harms_nothing(stage: Stage, call: str) -> None:
    for delay in (0.0001, 0.03):
        assert stage.interrupt(IN_C[call], Alarm(delay))


@small
@pytest.mark.parametrize("call", BEGINNINGS)
def test_an_interrupted_beginning_can_be_made_anew(
    stage: Stage, call: Callable[[Stage], None]
) -> None:
    few(lambda how: stage.begin(call, how))
