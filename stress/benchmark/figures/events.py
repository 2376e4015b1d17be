"""Events at a pace, and how long each takes to the subscriber that has it last."""

from __future__ import annotations

import mmap
from functools import partial

from benchmark.claims import Bench, Claim, Figure, Sample, metric, ratio, within
from benchmark.measure.paced import Pace, at_the_last
from benchmark.roles import crowd, ends, peers
from benchmark.stage import Role, perform


def bus_paced(bench: Bench, pace: Pace, subscribers: int, *, busy: bool = False) -> Sample:
    bus = bench.bus()
    (held, routing, lost), *took = perform(
        [
            Role(ends.publisher, (bus, pace, subscribers)),
            *(Role(ends.subscriber, (bus, n, pace)) for n in range(subscribers)),
            Role(ends.dispatcher, (bus, bench.settings, busy), supporting=True),
        ],
        timeout=60.0 + pace.chunks * pace.interval,
    )
    return {
        **at_the_last(took),
        "rate": held.rate,
        "routing": routing,
        "lost": float(lost),
    }


def pyzmq_paced(bench: Bench, pace: Pace, subscribers: int) -> Sample:
    address = peers.Address(bench.subdirectory())
    held, *took = perform(
        [
            Role(peers.publisher, (address, pace)),
            *(Role(peers.subscriber, (address, pace)) for _ in range(subscribers)),
            Role(peers.proxy, (address, peers.FAN_OUT), supporting=True),
        ]
    )
    return {**at_the_last(took), "rate": held.rate}


def bare_paced(bench: Bench, pace: Pace, waiters: int) -> Sample:
    with crowd.bells(waiters) as bells, mmap.mmap(-1, 8 * pace.messages) as times:
        _, *took = perform(
            [
                Role(crowd.waker, (bells, times, pace)),
                *(Role(crowd.waiter, (bell, times, pace)) for bell in bells),
            ]
        )
    return at_the_last(took)


def _fanout(bench: Bench) -> Figure:
    pace = Pace(chunks=int(2000 * bench.scale.seconds), chunk=1, interval=1e-3)
    return Figure(
        "fanout",
        {
            "bus, 4 subscribers": partial(bus_paced, bench, pace, 4),
            "pyzmq, 4 subscribers": partial(pyzmq_paced, bench, pace, 4),
        },
        [
            Claim(
                "event at the last of 4 subscribers, p50: pyzmq's XPUB proxy / bus",
                ratio("pyzmq, 4 subscribers", "bus, 4 subscribers", "p50"),
                2,
            ),
            Claim(
                "event at the last of 4 subscribers, p99: pyzmq's XPUB proxy / bus",
                ratio("pyzmq, 4 subscribers", "bus, 4 subscribers", "p99"),
                1,
            ),
            Claim(
                "event at the last of 4 subscribers, p99",
                metric("bus, 4 subscribers", "p99"),
                1000,
                at_most=True,
                unit="µs",
            ),
        ],
    )


def _crowd(bench: Bench) -> Figure:
    pace = Pace(chunks=int(100 * bench.scale.seconds), chunk=1, interval=2e-2)
    return Figure(
        "crowd",
        {
            "bus, 64 subscribers": partial(bus_paced, bench, pace, 64),
            "64 processes woken without a bus": partial(bare_paced, bench, pace, 64),
        },
        [
            Claim(
                "event at the last of 64 subscribers: p99 / p50",
                within("bus, 64 subscribers", "p99", "p50"),
                3,
                at_most=True,
            )
        ],
    )


def _routing(bench: Bench) -> Figure:
    pace = Pace(chunks=int(10_000 * bench.scale.seconds), chunk=10, interval=1e-4)
    variants = {
        "100,000/s": partial(bus_paced, bench, pace, 1),
        "100,000/s, busy host": partial(bus_paced, bench, pace, 1, busy=True),
    }
    claims = []
    for variant in variants:
        claims += [
            Claim(
                f"average routing latency at {variant}",
                metric(variant, "routing"),
                50,
                at_most=True,
                unit="µs",
            ),
            Claim(
                f"rate held at {variant}",
                metric(variant, "rate"),
                99_000,
                unit="/s",
            ),
        ]
    return Figure("routing", variants, claims)


def _sustained(bench: Bench) -> Figure:
    pace = Pace(chunks=int(1000 * bench.scale.sustained), chunk=10, interval=1e-3)
    seconds = f"{bench.scale.sustained:.0f} s"
    return Figure(
        "sustained",
        {"10,000/s": partial(bus_paced, bench, pace, 1)},
        [
            Claim(
                f"rate held for {seconds}",
                metric("10,000/s", "rate"),
                9_990,
                unit="/s",
            ),
            Claim(
                f"messages lost in {seconds} at 10,000/s (sequence numbers and counters)",
                metric("10,000/s", "lost"),
                0,
                at_most=True,
                always=True,
                unit="",
            ),
        ],
        runs=1,
    )


def figures(bench: Bench) -> list[Figure]:
    return [_fanout(bench), _crowd(bench), _routing(bench), _sustained(bench)]
