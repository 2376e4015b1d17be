"""A last value to who comes late, beside a request; and ten thousand types of which one is kept."""

from __future__ import annotations

from functools import partial
from statistics import median

from benchmark.claims import Bench, Claim, Figure, Runs, Sample, metric, within
from benchmark.roles import ends, late
from benchmark.stage import Role, perform

MIB = 1024 * 1024
VARIANT = "10,000 kept"


def bus_late(bench: Bench) -> Sample:
    bus = bench.bus()
    ((request, plain, first, one, everything, kept, size),) = perform(
        [
            Role(ends.dispatcher, (bus, bench.settings), supporting=True),
            Role(late.source, (bus,), supporting=True),
            Role(late.joiner, (bus, int(1000 * bench.scale.seconds), bench.scale.seconds)),
        ]
    )
    return {
        "request": request,
        "plain": plain,
        "first": first,
        "one": one,
        "everything": everything,
        "kept": kept,
        "MiB": size / MIB,
    }


def _beyond(runs: Runs) -> float:
    """Round trips of a request by which a value comes later than subscribing alone takes."""
    run = runs[VARIANT]
    return (median(run["one"]) - median(run["plain"])) / median(run["request"])


def figures(bench: Bench) -> list[Figure]:
    """`one` is the time from the call of `subscribe(type, history=1)` until `receive()` has
    returned the value, at an endpoint that is attached, among 10,000 values; `plain` that of the
    call of `subscribe(type)`; `first` that from there until `receive()` has returned an event that
    the subscriber itself publishes then, without history."""
    return [
        Figure(
            "late",
            {VARIANT: partial(bus_late, bench)},
            [
                Claim(
                    "a last value to a late joiner, beyond what subscribing takes / request",
                    _beyond,
                    2,
                    at_most=True,
                ),
                Claim(
                    "a last value / the first event without history, published at once",
                    within(VARIANT, "one", "first"),
                    1.1,
                    at_most=True,
                ),
                Claim(
                    "a subscriber of one of 10,000 kept types has its value",
                    metric(VARIANT, "one"),
                    10_000,
                    at_most=True,
                    always=True,
                    unit=" us",
                ),
                Claim("types kept", metric(VARIANT, "kept"), late.TYPES, always=True, unit=""),
                Claim(
                    "/dev/shm for 10,000 kept types of 64 bytes",
                    metric(VARIANT, "MiB"),
                    64,
                    at_most=True,
                    always=True,
                    unit=" MiB",
                ),
            ],
        )
    ]
