"""Many requests at a time to two repliers."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import shmbus
from benchmark.claims import Bench, Claim, Figure, Sample, ratio
from benchmark.roles import ends, outstanding, peers
from benchmark.stage import FIRST, Role, perform


def bus_rate(
    bench: Bench,
    way: Callable[[shmbus.Endpoint], outstanding.Take],
    threads: int = 1,
    core: int | None = None,
    settings: shmbus.Settings | None = None,
) -> Sample:
    bus = bench.bus()
    (rate,) = perform(
        [
            Role(ends.dispatcher, (bus, settings or bench.settings), supporting=True),
            *(Role(outstanding.replier, (bus, n), supporting=True) for n in range(2)),
            Role(outstanding.requester, (bus, 2, way, threads, bench.scale.seconds), core),
        ]
    )
    return {"rate": rate}


def pyzmq_rate(bench: Bench) -> Sample:
    address = peers.Address(bench.subdirectory())
    (rate,) = perform(
        [
            Role(peers.proxy, (address, peers.REQUESTS), supporting=True),
            *(Role(peers.replier, (address,), supporting=True) for _ in range(2)),
            Role(peers.dealer, (address, outstanding.OUTSTANDING, bench.scale.seconds)),
        ]
    )
    return {"rate": rate}


def lock_rate(bench: Bench, core: int | None = None) -> Sample:
    args = (outstanding.THREADS, bench.scale.seconds)
    (rate,) = perform([Role(outstanding.locks_handed_round, args, core)])
    return {"rate": rate}


def _outstanding(bench: Bench) -> Figure:
    one, eight = outstanding.one_after_another, outstanding.THREADS
    claims = [
        Claim(
            f"requests to two repliers, rate: {way} / {other}",
            ratio(way, other, "rate"),
            bound,
        )
        for way in ("futures", "request_many")
        for other, bound in (("one after another", 2), ("pyzmq, DEALER", 4))
    ]
    return Figure(
        "outstanding",
        {
            "one after another": partial(bus_rate, bench, one),
            "futures": partial(bus_rate, bench, outstanding.by_futures),
            "request_many": partial(bus_rate, bench, outstanding.by_request_many),
            "eight threads": partial(bus_rate, bench, one, eight),
            "eight threads on one core": partial(bus_rate, bench, one, eight, FIRST),
            "pyzmq, DEALER": partial(pyzmq_rate, bench),
            "locks handed round": partial(lock_rate, bench),
            "locks handed round on one core": partial(lock_rate, bench, FIRST),
        },
        claims,
    )


def figures(bench: Bench) -> list[Figure]:
    return [_outstanding(bench)]
