"""A busy pair whose sender has a grant, and one whose sender has none, in turns."""

from __future__ import annotations

from functools import partial

from benchmark.claims import Bench, Claim, Figure, Sample, metric
from benchmark.roles import ends, grants
from benchmark.stage import Role, perform


def bus_grants(bench: Bench, many: bool = False) -> Sample:
    bus, flood = bench.bus(), bench.flood(3_000_000)
    given = grants.MANY if many else grants.GRANTS
    (none, granted), _ = perform(
        [
            Role(grants.sender, (bus, flood, many)),
            Role(ends.receiver, (bus, flood, False, "bench.>" if many else "bench.flood")),
            Role(ends.dispatcher, (bus, bench.settings, False, given), supporting=True),
        ]
    )
    return {"none": none, "granted": granted, "ratio": granted / none}


def figures(bench: Bench) -> list[Figure]:
    return [
        Figure(
            "grants",
            {
                "in turns": partial(bus_grants, bench),
                "many types": partial(bus_grants, bench, many=True),
            },
            [
                Claim(
                    "one-way rate of an endpoint with a grant / without, taking turns",
                    metric("in turns", "ratio"),
                    0.97,
                ),
                Claim(
                    "the same with as many patterns as there may be, and 1,000 types",
                    metric("many types", "ratio"),
                    0.97,
                ),
            ],
        )
    ]
