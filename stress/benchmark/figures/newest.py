"""The newest alone: what a display costs that looks now and then at what comes fast."""

from __future__ import annotations

from functools import partial
from statistics import median

from benchmark.claims import Bench, Claim, Figure, Runs, Sample, ratio
from benchmark.roles import ends, newest
from benchmark.stage import Role, perform


def bus_source(bench: Bench, *, watched: bool) -> Sample:
    """A source of which somebody has everything; `watched`: and a display the newest."""
    bus, seconds = bench.bus(), bench.scale.seconds
    roles = [
        Role(ends.dispatcher, (bus, bench.settings), supporting=True),
        Role(newest.taker, (bus,), supporting=True),
        Role(newest.source, (bus, seconds)),
    ]
    if not watched:
        ((cpu, rate),) = perform(roles)
        return {"cpu": cpu, "rate": rate}
    (share, seen), (cpu, rate) = perform([Role(newest.display, (bus, seconds)), *roles])
    return {"cpu": cpu, "rate": rate, "share": share, "looks": seen / seconds}


def _share(runs: Runs) -> float:
    return 100 * median(runs["watched"]["share"])


def _newest(bench: Bench) -> Figure:
    return Figure(
        "newest",
        {
            "alone": partial(bus_source, bench, watched=False),
            "watched": partial(bus_source, bench, watched=True),
        },
        [
            Claim(
                "a display with overflow='latest' that looks 60 times a second at 100,000 "
                "messages a second: of a core",
                _share,
                1.0,
                at_most=True,
                unit="%",
            ),
            Claim(
                "CPU time of the source per message: with that display / without",
                ratio("watched", "alone", "cpu"),
                1.1,
                at_most=True,
            ),
        ],
    )


def figures(bench: Bench) -> list[Figure]:
    return [_newest(bench)]
