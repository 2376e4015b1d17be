"""A row of the comparison: one way to use a peer, and what can be measured of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from benchmark.claims import Bench, Sample
from benchmark.measure.floods import Flood
from benchmark.measure.paced import Pace, at_the_last
from benchmark.roles import plain
from benchmark.stage import Role, perform

REQUEST, ONE_WAY, BATCHES, FAN_OUT = "request", "one-way", "batches", "fan-out"
FIGURES = (REQUEST, ONE_WAY, BATCHES, FAN_OUT)
SUBSCRIBERS = 4
BATCH = 100

Measure = Callable[[Bench], Sample]


@dataclass(frozen=True)
class Row:
    """`figures` has what it can do: ``request`` gives p50 and p99, ``one-way`` and ``batches`` the
    rate, ``fan-out`` p50 and p99 at the last of four subscribers."""

    name: str
    options: str
    figures: Mapping[str, Measure]
    by_hand: frozenset[str] = frozenset()
    """The figures for which it has no means of its own: made here of what it has."""


def fan_out_pace(bench: Bench) -> Pace:
    """An event a millisecond."""
    return Pace(chunks=int(2000 * bench.scale.seconds), chunk=1, interval=1e-3)


def request(
    bench: Bench,
    server: plain.Opened[plain.Serve],
    caller: plain.Opened[Callable[[bytes], object]],
    *more: Role,
    abrupt: bool = False,
) -> Sample:
    (latency,) = perform(
        [
            *more,
            Role(plain.server, (server, abrupt), supporting=True),
            Role(plain.caller, (caller, bench.scale.seconds)),
        ]
    )
    return {"p50": latency.p50, "p99": latency.p99}


def one_way(
    bench: Bench,
    sender: plain.Opened[plain.Many],
    receiver: plain.Opened[plain.Many],
    messages: int,
    *more: Role,
) -> Sample:
    flood: Flood = bench.flood(messages)
    cpu, rate = perform(
        [*more, Role(plain.sender, (sender, flood)), Role(plain.receiver, (receiver, flood))]
    )
    return {"rate": rate, "cpu": cpu}


def fan_out(
    bench: Bench,
    publisher: plain.Opened[plain.Send],
    subscribers: list[plain.Opened[plain.Receive]],
    *more: Role,
) -> Sample:
    pace = fan_out_pace(bench)
    _, *took = perform(
        [
            *more,
            Role(plain.publisher, (publisher, pace)),
            *(Role(plain.subscriber, (subscriber, pace)) for subscriber in subscribers),
        ]
    )
    return at_the_last(took)
