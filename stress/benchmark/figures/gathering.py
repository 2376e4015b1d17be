"""A question to all, beside the same asked one by one; and a look whether anybody is there."""

from __future__ import annotations

from functools import partial

from benchmark.claims import Bench, Claim, Figure, Sample, metric, within
from benchmark.roles import ends, gathering
from benchmark.stage import Role, perform

COUNT, ROUNDS, TAKES = 16, 20, 0.005


def bus_gather(bench: Bench, seconds: float) -> Sample:
    bus = bench.bus()
    roles = [
        Role(ends.dispatcher, (bus, bench.settings), supporting=True),
        Role(gathering.asker, (bus, COUNT, ROUNDS)),
    ]
    roles += [
        Role(gathering.answerer, (bus, number, seconds), supporting=True) for number in range(COUNT)
    ]
    ((together, slowest, summed),) = perform(roles)
    return {"together": together, "slowest": slowest, "summed": summed}


def _gather(bench: Bench) -> Figure:
    return Figure(
        "gather",
        {
            "16 that take 5 ms": partial(bus_gather, bench, TAKES),
            "16 at once": partial(bus_gather, bench, 0.0),
        },
        [
            Claim(
                "gather from 16 that take 5 ms each / the slowest of them asked alone",
                within("16 that take 5 ms", "together", "slowest"),
                1.5,
                at_most=True,
            ),
            Claim(
                "gather from 16 that answer at once / all of them asked one by one",
                within("16 at once", "together", "summed"),
                1.0,
                at_most=True,
            ),
        ],
    )


def bus_matched(bench: Bench) -> Sample:
    bus = bench.bus()
    ((known, fresh, found),) = perform(
        [
            Role(gathering.looker, (bus, int(200_000 * bench.scale.flood))),
            Role(ends.dispatcher, (bus, bench.settings), supporting=True),
        ]
    )
    return {"known": 1e6 * known, "fresh": 1e6 * fresh, "found": 1e6 * found}


def _matched(bench: Bench) -> Figure:
    return Figure(
        "matched",
        {"matched": partial(bus_matched, bench)},
        [
            Claim(
                "matched, nothing has changed",
                metric("matched", "known"),
                0.3,
                at_most=True,
                unit=" us",
            ),
            Claim(
                "bus.find / matched after a change",
                within("matched", "found", "fresh"),
                5,
            ),
        ],
    )


def figures(bench: Bench) -> list[Figure]:
    return [_gather(bench), _matched(bench)]
