"""Typing into an editor's core: from the key to the line in the front-end, beside a busy bus."""

from __future__ import annotations

from functools import partial

from benchmark.claims import Bench, Claim, Figure, Sample, metric, ratio
from benchmark.measure.paced import Pace
from benchmark.roles import ends, typing
from benchmark.stage import Role, perform

RATE = 100_000


def _typed(bench: Bench, *, through_bus: bool) -> Sample:
    """`through_bus`: on the bus that has the load; else on the core's own pipes."""
    bus, directory, seconds = bench.bus(), bench.subdirectory(), 3 * bench.scale.seconds
    pace = Pace(chunks=int(RATE / 10 * (seconds + 0.5)), chunk=10, interval=1e-4)
    if through_bus:
        middle = Role(typing.host, (bus, directory, bench.settings), supporting=True)
        typist = Role(typing.typist, (bus, directory, seconds))
    else:
        middle = Role(ends.dispatcher, (bus, bench.settings), supporting=True)
        typist = Role(typing.direct_typist, (directory, seconds))
    took, (held, _, lost), _ = perform(
        [
            typist,
            Role(ends.publisher, (bus, pace, 1)),
            Role(ends.subscriber, (bus, 0, pace)),
            middle,
        ]
    )
    return {**took._asdict(), "rate": held.rate, "lost": float(lost)}


BUS, PIPE = "through bus and host", "on the core's pipes"


def _claims_of_load(way: str) -> list[Claim]:
    """That both ways had the same load beside them."""
    return [
        Claim(f"rate held beside typing {way}", metric(way, "rate"), 0.99 * RATE, unit="/s"),
        Claim(f"lost beside typing {way}", metric(way, "lost"), 0, at_most=True, unit=""),
    ]


def _typing(bench: Bench) -> Figure:
    typed = f"key to line in the front-end beside {RATE:,} messages a second"
    return Figure(
        "typing",
        {
            BUS: partial(_typed, bench, through_bus=True),
            PIPE: partial(_typed, bench, through_bus=False),
        },
        [
            Claim(
                f"{typed}, p99",
                metric(BUS, "p99"),
                5000,
                at_most=True,
                unit="µs",
            ),
            Claim(
                f"{typed}, p99: through the bus / without one",
                ratio(BUS, PIPE, "p99"),
                1.5,
                at_most=True,
            ),
            *_claims_of_load(BUS),
            *_claims_of_load(PIPE),
        ],
    )


def figures(bench: Bench) -> list[Figure]:
    return [_typing(bench)]
