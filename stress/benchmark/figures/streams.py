"""Replies in parts, beside events that go one way."""

from __future__ import annotations

from functools import partial

from benchmark.claims import Bench, Claim, Figure, Sample, ratio
from benchmark.roles import ends, streams
from benchmark.stage import Role, perform


def bus_parts(bench: Bench) -> Sample:
    bus, flood = bench.bus(), bench.flood(1_000_000)
    ((rate, cpu),) = perform(
        [
            Role(streams.reader, (bus, flood)),
            Role(streams.server, (bus,), supporting=True),
            Role(ends.dispatcher, (bus, bench.settings), supporting=True),
        ]
    )
    return {"rate": rate, "cpu": cpu}


def bus_events(bench: Bench) -> Sample:
    bus, flood = bench.bus(), bench.flood(1_000_000)
    _, rate = perform(
        [
            Role(streams.many_sender, (bus, flood)),
            Role(ends.receiver, (bus, flood, False)),
            Role(ends.dispatcher, (bus, bench.settings), supporting=True),
        ]
    )
    return {"rate": rate}


def _streams(bench: Bench) -> Figure:
    return Figure(
        "streams",
        {"parts": partial(bus_parts, bench), "publish_many": partial(bus_events, bench)},
        [
            Claim(
                "rate of 64 bytes: parts of a streamed reply / events of publish_many",
                ratio("parts", "publish_many", "rate"),
                0.5,
            )
        ],
    )


def figures(bench: Bench) -> list[Figure]:
    return [_streams(bench)]
