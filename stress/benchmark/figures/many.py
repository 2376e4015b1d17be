"""Many types and many patterns at one pair of endpoints."""

from __future__ import annotations

from functools import partial

from benchmark.claims import Bench, Claim, Figure, Sample, ratio, within
from benchmark.roles import ends, many
from benchmark.stage import Role, perform


def bus_types(bench: Bench, types: int) -> Sample:
    bus, flood = bench.bus(), bench.flood(1_000_000)
    cpu, rate = perform(
        [
            Role(many.sender, (bus, flood, types)),
            Role(many.receiver, (bus, flood)),
            Role(ends.dispatcher, (bus, bench.settings), supporting=True),
        ]
    )
    return {"rate": rate, "cpu": cpu}


def _types(bench: Bench) -> Figure:
    return Figure(
        "types",
        {
            "10 types": partial(bus_types, bench, 10),
            "100,000 types": partial(bus_types, bench, 100_000),
        },
        [
            Claim(
                "one-way rate: 100,000 types in turn / 10",
                ratio("100,000 types", "10 types", "rate"),
                0.5,
            )
        ],
    )


def bus_patterns(bench: Bench, most: int) -> Sample:
    bus = bench.bus()
    ((few, many_),) = perform(
        [
            Role(many.subscriber, (bus, most)),
            Role(ends.dispatcher, (bus, bench.settings), supporting=True),
        ]
    )
    return {"few": few, "many": many_}


def _patterns(bench: Bench) -> Figure:
    return Figure(
        "patterns",
        {"5,000 patterns": partial(bus_patterns, bench, 5000)},
        [
            Claim(
                "subscribe at an endpoint with 5,000 patterns / with 100",
                within("5,000 patterns", "many", "few"),
                2,
                at_most=True,
            )
        ],
    )


def figures(bench: Bench) -> list[Figure]:
    return [_types(bench), _patterns(bench)]
