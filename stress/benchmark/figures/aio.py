"""In an event loop, beside the same in threads, and beside zmq.asyncio through pyzmq's proxy."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

from benchmark.claims import Bench, Claim, Figure, Runs, Sample, metric, ratio
from benchmark.roles import awaiting, ends, peers
from benchmark.roles import outstanding as threads
from benchmark.stage import FREE, Role, cpu_seconds, perform

from .oneway import bus_flood
from .requests import bus_requests

LOOP = "asyncio"


def bus_latency(bench: Bench, loop: str, *, both: bool = False) -> Sample:
    """The requester in an event loop; with `both`, the replier as well, whose handler is a task."""
    bus = bench.bus()
    play, args = (awaiting.replier, (bus, loop)) if both else (ends.replier, (bus,))
    (measured,) = perform(
        [
            Role(play, args, supporting=True),
            Role(awaiting.requester, (bus, loop, bench.scale.seconds)),
            Role(ends.dispatcher, (bus, bench.settings), supporting=True),
        ]
    )
    return dict(measured._asdict())


def pyzmq_latency(bench: Bench, loop: str, *, both: bool = False) -> Sample:
    address = peers.Address(bench.subdirectory())
    play, args = (awaiting.zmq_replier, (address, loop)) if both else (peers.replier, (address,))
    (measured,) = perform(
        [
            Role(peers.proxy, (address, peers.REQUESTS), supporting=True),
            Role(play, args, supporting=True),
            Role(awaiting.zmq_requester, (address, loop, bench.scale.seconds)),
        ]
    )
    return dict(measured._asdict())


def bus_rate(bench: Bench, loop: str) -> Sample:
    bus = bench.bus()
    (rate,) = perform(
        [
            Role(ends.dispatcher, (bus, bench.settings), supporting=True),
            *(Role(threads.replier, (bus, n), supporting=True) for n in range(2)),
            Role(awaiting.asker, (bus, loop, 2, bench.scale.seconds)),
        ]
    )
    return {"rate": rate}


def pyzmq_rate(bench: Bench, loop: str, way: Callable[..., float]) -> Sample:
    address = peers.Address(bench.subdirectory())
    (rate,) = perform(
        [
            Role(peers.proxy, (address, peers.REQUESTS), supporting=True),
            *(Role(peers.replier, (address,), supporting=True) for _ in range(2)),
            Role(way, (address, loop, bench.scale.seconds)),
        ]
    )
    return {"rate": rate}


def bus_oneway(bench: Bench, loop: str) -> Sample:
    bus, flood = bench.bus(), bench.flood(1_000_000)
    _, rate = perform(
        [
            Role(ends.sender, (bus, flood)),
            Role(awaiting.receiver, (bus, loop, flood)),
            Role(ends.dispatcher, (bus, bench.settings), supporting=True),
        ]
    )
    return {"rate": rate}


def pyzmq_oneway(bench: Bench, loop: str) -> Sample:
    address, flood = peers.Address(bench.subdirectory()), bench.flood(250_000)
    _, rate = perform(
        [
            Role(peers.sender, (address.front, flood)),
            Role(awaiting.zmq_receiver, (address, loop, flood)),
            Role(peers.proxy, (address, peers.ONE_WAY), supporting=True),
        ]
    )
    return {"rate": rate}


def _no_worse(what: str, value: Callable[[Runs], float]) -> list[Claim]:
    """uvloop is not slower, within a tenth of noise."""
    if len(awaiting.LOOPS) == 1:
        return []
    return [Claim(f"in an event loop, {what}: uvloop / asyncio", value, 0.9)]


def _requests(bench: Bench) -> Figure:
    variants: dict[str, Callable[[], Sample]] = {"threads": partial(bus_requests, bench, FREE)}
    for both, name in ((False, ""), (True, ", both ends")):
        for loop in awaiting.LOOPS:
            variants[loop + name] = partial(bus_latency, bench, loop, both=both)
        variants[f"zmq.asyncio{name}"] = partial(pyzmq_latency, bench, LOOP, both=both)
    return Figure(
        "aio_requests",
        variants,
        [
            Claim(
                "request p50: from an event loop / from a thread",
                ratio(LOOP, "threads", "p50"),
                2.5,
                at_most=True,
            ),
            *(
                Claim(
                    f"request p50, {where}: zmq.asyncio through its proxy / bus",
                    ratio(f"zmq.asyncio{name}", LOOP + name, "p50"),
                    5,
                )
                for where, name in (
                    ("from an event loop", ""),
                    ("both ends in event loops", ", both ends"),
                )
            ),
            *_no_worse(
                "requests one at a time, both ends",
                ratio(f"{LOOP}, both ends", "uvloop, both ends", "p50"),
            ),
        ],
    )


def _tasks(bench: Bench) -> Figure:
    ways = {
        "zmq.asyncio, tasks": awaiting.zmq_asker,
        "zmq.asyncio, one task": awaiting.zmq_dealer,
    }
    return Figure(
        "aio_tasks",
        {
            **{loop: partial(bus_rate, bench, loop) for loop in awaiting.LOOPS},
            **{name: partial(pyzmq_rate, bench, LOOP, way) for name, way in ways.items()},
        },
        [
            *(
                Claim(
                    f"requests of {threads.OUTSTANDING} tasks, rate: bus / {name}",
                    ratio(LOOP, name, "rate"),
                    8,
                )
                for name in ways
            ),
            *_no_worse(f"requests of {threads.OUTSTANDING} tasks", ratio("uvloop", LOOP, "rate")),
        ],
    )


def _oneway(bench: Bench) -> Figure:
    return Figure(
        "aio_oneway",
        {
            "threads": partial(bus_flood, bench),
            **{loop: partial(bus_oneway, bench, loop) for loop in awaiting.LOOPS},
            "zmq.asyncio": partial(pyzmq_oneway, bench, LOOP),
        },
        [
            Claim("received in an event loop", metric(LOOP, "rate"), 1_000_000, unit="/s"),
            Claim(
                "one-way rate, received in an event loop: bus / zmq.asyncio",
                ratio(LOOP, "zmq.asyncio", "rate"),
                5,
            ),
            *_no_worse("one-way", ratio("uvloop", LOOP, "rate")),
        ],
    )


IDLE = 20


def bus_idle(bench: Bench, role: Callable[..., None]) -> Sample:
    bus = bench.bus()

    def consumed(pids: list[int]) -> float:
        time.sleep(0.5)  # until the start is over
        before = sum(map(cpu_seconds, pids))
        time.sleep(bench.scale.idle / 2)
        return sum(map(cpu_seconds, pids)) - before

    (cpu,) = perform(
        [
            Role(role, (bus, IDLE), supporting=True),
            Role(ends.dispatcher, (bus, bench.settings), supporting=True),
        ],
        meanwhile=consumed,
    )
    return {"cpu": cpu}


def _idle(bench: Bench) -> Figure:
    def more(runs: Runs) -> float:
        return metric(LOOP, "cpu")(runs) - metric("threads", "cpu")(runs)

    return Figure(
        "aio_idle",
        {
            LOOP: partial(bus_idle, bench, awaiting.idle),
            "threads": partial(bus_idle, bench, awaiting.idle_in_threads),
        },
        [
            Claim(
                f"CPU of {IDLE} endpoints in an event loop, idle for {bench.scale.idle / 2:g} s, "
                "beyond that of as many in threads",
                more,
                0.02,
                at_most=True,
                always=True,
                unit="s",
            )
        ],
    )


def figures(bench: Bench) -> list[Figure]:
    return [_requests(bench), _tasks(bench), _oneway(bench), _idle(bench)]
