"""A busy pair whose sender has a grant, and one whose sender has none, in turns."""

from __future__ import annotations

from functools import partial

from benchmark.claims import Bench, Claim, Figure, Sample, metric
from benchmark.roles import ends, grants
from benchmark.stage import Role, perform


def bus_grants(bench: Bench) -> Sample:
    bus, flood = bench.bus(), bench.flood(3_000_000)
    (none, granted), _ = perform(
        [
            Role(grants.sender, (bus, flood)),
            Role(ends.receiver, (bus, flood)),
            Role(ends.dispatcher, (bus, bench.settings, False, grants.GRANTS), supporting=True),
        ]
    )
    return {"none": none, "granted": granted, "ratio": granted / none}


def figures(bench: Bench) -> list[Figure]:
    return [
        Figure(
            "grants",
            {"in turns": partial(bus_grants, bench)},
            [
                Claim(
                    "one-way rate of an endpoint with a grant / without, taking turns",
                    metric("in turns", "ratio"),
                    0.97,
                )
            ],
        )
    ]
