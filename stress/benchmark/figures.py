"""The figures: variants that take turns, and the bounds that are claimed of them."""

from __future__ import annotations

import itertools
import mmap
import os
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

import shmbus

from . import bare, crowd, ends, many, outstanding, peers
from .measure import Flood, Latency, Pace
from .stage import ENDS_SHARE, FIRST, FREE, PLACEMENTS, Placement, Role, cpu_seconds, perform

Sample = dict[str, float]
Medians = dict[str, Sample]

BATCHES = [2**i for i in range(11)]


class Scale(NamedTuple):
    """How long and how often to measure."""

    runs: int
    seconds: float  # of requests, per run
    flood: float  # messages of a flood, relative
    sustained: float  # seconds
    idle: float  # seconds
    patience: float  # seconds that a receiver may not run before it loses messages


FULL = Scale(runs=5, seconds=1.0, flood=1.0, sustained=60.0, idle=5.0, patience=1.0)
QUICK = Scale(runs=1, seconds=0.3, flood=0.2, sustained=3.0, idle=5.0, patience=30.0)


@dataclass(frozen=True)
class Claim:
    """One figure: a value computed from the medians, and the bound that it must keep."""

    text: str
    value: Callable[[Medians], float]
    bound: float
    at_most: bool = False
    always: bool = False  # noise of the machine does not affect it: asserted with --quick, too
    unit: str = "x"

    def kept(self, value: float) -> bool:
        return value <= self.bound if self.at_most else value >= self.bound


@dataclass(frozen=True)
class Figure:
    """Variants that take turns, and what is claimed of them."""

    name: str
    variants: Mapping[str, Callable[[], Sample]]
    claims: list[Claim]
    runs: int | None = None  # where it is not the scale's


def ratio(over: str, under: str, metric: str) -> Callable[[Medians], float]:
    return lambda medians: medians[over][metric] / medians[under][metric]


def metric(variant: str, name: str) -> Callable[[Medians], float]:
    return lambda medians: medians[variant][name]


class Bench:
    """All figures at one scale. Every run gets a bus name and a directory of its own."""

    def __init__(self, scale: Scale, directory: str, library: str | None) -> None:
        self.scale = scale
        self.directory = directory
        self.library = library
        self.settings = shmbus.Settings(block_timeout=scale.patience)
        self._serial = itertools.count()

    def _bus(self) -> str:
        return f"bench-{os.getpid()}-{next(self._serial)}"

    def _address(self) -> peers.Address:
        directory = Path(self.directory, str(next(self._serial)))
        directory.mkdir()
        return peers.Address(str(directory))

    def _flood(self, messages: int) -> Flood:
        return Flood(int(messages * self.scale.flood))

    # Requests

    def bus_requests(
        self,
        place: Placement,
        *,
        busy: bool = False,
        silent: int = 0,
        settings: shmbus.Settings | None = None,
    ) -> Sample:
        bus = self._bus()
        small = shmbus.Settings(ring_bytes=4096)
        roles = [
            Role(
                ends.dispatcher,
                (bus, settings or self.settings, busy),
                place.middle,
                supporting=True,
            ),
            Role(ends.replier, (bus,), place.server, supporting=True),
            Role(ends.requester, (bus, self.scale.seconds), place.client),
        ]
        roles += [
            Role(ends.silent, (bus, first, silent // 8, small), supporting=True)
            for first in range(0, silent, silent // 8 or 1)
        ]
        return _latency(*perform(roles))

    def pyzmq_requests(self, place: Placement, *, busy: bool = False) -> Sample:
        address = self._address()
        return _latency(
            *perform(
                [
                    Role(peers.proxy, (address, peers.REQUESTS, busy), place.middle, True),
                    Role(peers.replier, (address,), place.server, supporting=True),
                    Role(peers.requester, (address, self.scale.seconds), place.client),
                ]
            )
        )

    def bare_requests(self, place: Placement) -> Sample:
        bus = self._bus()
        return _latency(
            *perform(
                [
                    Role(ends.dispatcher, (bus, self.settings), place.middle, supporting=True),
                    Role(bare.replier, (bus, self.library), place.server, supporting=True),
                    Role(bare.requester, (bus, self.library, self.scale.seconds), place.client),
                ]
            )
        )

    def pair_requests(self) -> Sample:
        client, server = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with client, server:
            return _latency(
                *perform(
                    [
                        Role(peers.pair_server, (server,), supporting=True),
                        Role(peers.pair_client, (client, self.scale.seconds)),
                    ]
                )
            )

    def requests(self) -> Figure:
        variants: dict[str, Callable[[], Sample]] = {}
        for place in PLACEMENTS:
            variants[f"bus, {place.name}"] = partial(self.bus_requests, place)
            variants[f"pyzmq, {place.name}"] = partial(self.pyzmq_requests, place)
            if self.library:
                variants[f"bare kernel, {place.name}"] = partial(self.bare_requests, place)
        variants["socket pair"] = self.pair_requests
        claims = [
            Claim(
                f"request p50, {place.name}: pyzmq's proxy / bus",
                ratio(f"pyzmq, {place.name}", f"bus, {place.name}", "p50"),
                bound,
            )
            for place, bound in zip(PLACEMENTS, (20, 20, 13), strict=True)
        ]
        claims += [
            Claim(
                f"request {p}, free: direct socket pair / bus",
                ratio("socket pair", "bus, free", p),
                1.0,
            )
            for p in ("p50", "p99")
        ]
        claims.append(
            Claim(
                "request, free: p99 / p50",
                lambda medians: medians["bus, free"]["p99"] / medians["bus, free"]["p50"],
                3,
                at_most=True,
            )
        )
        claims += [
            Claim(
                f"request p50, {place.name}: bus / its bare C kernel",
                ratio(f"bus, {place.name}", f"bare kernel, {place.name}", "p50"),
                1.5,
                at_most=True,
            )
            for place in PLACEMENTS
        ]
        return Figure("requests", variants, claims)

    def busy(self) -> Figure:
        return Figure(
            "busy",
            {
                "bus, busy host": partial(self.bus_requests, FREE, busy=True),
                "pyzmq, busy host": partial(self.pyzmq_requests, FREE, busy=True),
            },
            [
                Claim(
                    "request p50 beside a busy Python thread in the middle: pyzmq's proxy / bus",
                    ratio("pyzmq, busy host", "bus, busy host", "p50"),
                    5,
                )
            ],
        )

    def silent(self) -> Figure:
        settings = shmbus.Settings(max_endpoints=258)
        return Figure(
            "silent",
            {
                "2 endpoints": partial(self.bus_requests, ENDS_SHARE, settings=settings),
                "256 silent": partial(self.bus_requests, ENDS_SHARE, settings=settings, silent=256),
            },
            [
                Claim(
                    "request p50, the ends share a core: with 256 silent endpoints / with none",
                    ratio("256 silent", "2 endpoints", "p50"),
                    1.2,
                    at_most=True,
                )
            ],
        )

    def bus_rate(
        self,
        way: Callable[[shmbus.Endpoint], outstanding.Take],
        threads: int = 1,
        core: int | None = None,
    ) -> Sample:
        bus = self._bus()
        (rate,) = perform(
            [
                Role(ends.dispatcher, (bus, self.settings), supporting=True),
                *(Role(outstanding.replier, (bus, n), supporting=True) for n in range(2)),
                Role(outstanding.requester, (bus, 2, way, threads, self.scale.seconds), core),
            ]
        )
        return {"rate": rate}

    def pyzmq_rate(self) -> Sample:
        address = self._address()
        (rate,) = perform(
            [
                Role(peers.proxy, (address, peers.REQUESTS), supporting=True),
                *(Role(peers.replier, (address,), supporting=True) for _ in range(2)),
                Role(peers.dealer, (address, outstanding.OUTSTANDING, self.scale.seconds)),
            ]
        )
        return {"rate": rate}

    def lock_rate(self, core: int | None = None) -> Sample:
        args = (outstanding.THREADS, self.scale.seconds)
        (rate,) = perform([Role(outstanding.locks_handed_round, args, core)])
        return {"rate": rate}

    def outstanding(self) -> Figure:
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
                "one after another": partial(self.bus_rate, one),
                "futures": partial(self.bus_rate, outstanding.by_futures),
                "request_many": partial(self.bus_rate, outstanding.by_request_many),
                "eight threads": partial(self.bus_rate, one, eight),
                "eight threads on one core": partial(self.bus_rate, one, eight, FIRST),
                "pyzmq, DEALER": self.pyzmq_rate,
                "locks handed round": self.lock_rate,
                "locks handed round on one core": partial(self.lock_rate, FIRST),
            },
            claims,
        )

    # One-way

    def bus_flood(self, batch: int | None = None, *, typed: bool = False) -> Sample:
        bus, flood = self._bus(), self._flood(1_000_000)
        cpu, rate = perform(
            [
                Role(ends.sender, (bus, flood, batch, typed)),
                Role(ends.receiver, (bus, flood, typed)),
                Role(ends.dispatcher, (bus, self.settings), supporting=True),
            ]
        )
        return {"rate": rate, "cpu": cpu}

    def bus_turns(self) -> Sample:
        bus, flood = self._bus(), self._flood(3_000_000)
        (none, one), _ = perform(
            [
                Role(ends.turning_sender, (bus, flood)),
                Role(ends.receiver, (bus, flood)),
                Role(ends.dispatcher, (bus, self.settings), supporting=True),
            ]
        )
        return {"none": none, "one": one, "ratio": one / none}

    def pyzmq_flood(self, *, typed: bool = False) -> Sample:
        address, flood = self._address(), self._flood(250_000)
        cpu, rate = perform(
            [
                Role(peers.sender, (address.front, flood, typed)),
                Role(peers.receiver, (flood, address.back, None, typed)),
                Role(peers.proxy, (address, peers.ONE_WAY), supporting=True),
            ]
        )
        return {"rate": rate, "cpu": cpu}

    def pyzmq_direct(self) -> Sample:
        address, flood = self._address(), self._flood(500_000)
        cpu, rate = perform(
            [
                Role(peers.sender, (address.front, flood)),
                Role(peers.receiver, (flood, None, address.front)),
            ]
        )
        return {"rate": rate, "cpu": cpu}

    def oneway(self) -> Figure:
        return Figure(
            "oneway",
            {
                "bus": self.bus_flood,
                "pyzmq, streamer": self.pyzmq_flood,
                "pyzmq, direct": self.pyzmq_direct,
            },
            [
                Claim(
                    "one-way rate: bus / pyzmq's streamer",
                    ratio("bus", "pyzmq, streamer", "rate"),
                    5,
                ),
                Claim(
                    "one-way rate: bus / pyzmq's direct PUSH/PULL",
                    ratio("bus", "pyzmq, direct", "rate"),
                    1,
                ),
            ],
        )

    def typed(self) -> Figure:
        return Figure(
            "typed",
            {
                "bus, typed": partial(self.bus_flood, typed=True),
                "pyzmq, typed": partial(self.pyzmq_flood, typed=True),
            },
            [
                Claim(
                    "one-way rate of a msgspec.Struct: bus / pyzmq's streamer",
                    ratio("bus, typed", "pyzmq, typed", "rate"),
                    2.5,
                )
            ],
        )

    def batching(self) -> Figure:
        variants: dict[str, Callable[[], Sample]] = {"no batch": self.bus_flood}
        for size in BATCHES:
            variants[f"batch of {size}"] = partial(self.bus_flood, size)
        return Figure(
            "batching",
            variants,
            [
                Claim(
                    "one-way rate: batch of 1 / no batch (equal within 3 % of noise)",
                    ratio("batch of 1", "no batch", "rate"),
                    0.97,
                ),
                Claim(
                    "one-way rate: batch of 64 / no batch",
                    ratio("batch of 64", "no batch", "rate"),
                    1.0,
                ),
                Claim(
                    "sender's CPU per message: batch of 64 / no batch",
                    ratio("batch of 64", "no batch", "cpu"),
                    1.0,
                    at_most=True,
                ),
            ],
        )

    def batch_of_1(self) -> Figure:
        # Two floods differ by a tenth whatever they send; two ways in one flood do not.
        return Figure(
            "batch_of_1",
            {"taking turns": self.bus_turns},
            [
                Claim(
                    "one-way rate: batch of 1 / no batch, in turns (equal within 3 % of noise)",
                    lambda medians: (
                        medians["taking turns"]["one"] / medians["taking turns"]["none"]
                    ),
                    0.97,
                )
            ],
        )

    # Many types, many patterns

    def bus_types(self, types: int) -> Sample:
        bus, flood = self._bus(), self._flood(1_000_000)
        cpu, rate = perform(
            [
                Role(many.sender, (bus, flood, types)),
                Role(many.receiver, (bus, flood)),
                Role(ends.dispatcher, (bus, self.settings), supporting=True),
            ]
        )
        return {"rate": rate, "cpu": cpu}

    def types(self) -> Figure:
        return Figure(
            "types",
            {
                "10 types": partial(self.bus_types, 10),
                "100,000 types": partial(self.bus_types, 100_000),
            },
            [
                Claim(
                    "one-way rate: 100,000 types in turn / 10",
                    ratio("100,000 types", "10 types", "rate"),
                    0.5,
                )
            ],
        )

    def bus_patterns(self, most: int) -> Sample:
        bus = self._bus()
        ((few, many_),) = perform(
            [
                Role(many.subscriber, (bus, most)),
                Role(ends.dispatcher, (bus, self.settings), supporting=True),
            ]
        )
        return {"few": few, "many": many_}

    def patterns(self) -> Figure:
        return Figure(
            "patterns",
            {"5,000 patterns": partial(self.bus_patterns, 5000)},
            [
                Claim(
                    "subscribe at an endpoint with 5,000 patterns / with 100",
                    lambda medians: (
                        medians["5,000 patterns"]["many"] / medians["5,000 patterns"]["few"]
                    ),
                    2,
                    at_most=True,
                )
            ],
        )

    # Events, paced

    def bus_paced(self, pace: Pace, subscribers: int, *, busy: bool = False) -> Sample:
        bus = self._bus()
        (held, routing, lost), *took = perform(
            [
                Role(ends.publisher, (bus, pace, subscribers)),
                *(Role(ends.subscriber, (bus, n, pace)) for n in range(subscribers)),
                Role(ends.dispatcher, (bus, self.settings, busy), supporting=True),
            ],
            timeout=60.0 + pace.chunks * pace.interval,
        )
        return {
            **_all_reached(took),
            "rate": held.rate,
            "routing": routing,
            "lost": float(lost),
        }

    def pyzmq_paced(self, pace: Pace, subscribers: int) -> Sample:
        address = self._address()
        held, *took = perform(
            [
                Role(peers.publisher, (address, pace)),
                *(Role(peers.subscriber, (address, pace)) for _ in range(subscribers)),
                Role(peers.proxy, (address, peers.FAN_OUT), supporting=True),
            ]
        )
        return {**_all_reached(took), "rate": held.rate}

    def fanout(self) -> Figure:
        pace = Pace(chunks=int(2000 * self.scale.seconds), chunk=1, interval=1e-3)
        return Figure(
            "fanout",
            {
                "bus, 4 subscribers": partial(self.bus_paced, pace, 4),
                "pyzmq, 4 subscribers": partial(self.pyzmq_paced, pace, 4),
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

    def bare_paced(self, pace: Pace, waiters: int) -> Sample:
        with crowd.bells(waiters) as bells, mmap.mmap(-1, 8 * pace.messages) as times:
            _, *took = perform(
                [
                    Role(crowd.waker, (bells, times, pace)),
                    *(Role(crowd.waiter, (bell, times, pace)) for bell in bells),
                ]
            )
        return _all_reached(took)

    def crowd(self) -> Figure:
        pace = Pace(chunks=int(100 * self.scale.seconds), chunk=1, interval=2e-2)
        return Figure(
            "crowd",
            {
                "bus, 64 subscribers": partial(self.bus_paced, pace, 64),
                "64 processes woken without a bus": partial(self.bare_paced, pace, 64),
            },
            [
                Claim(
                    "event at the last of 64 subscribers: p99 / p50",
                    lambda medians: (
                        medians["bus, 64 subscribers"]["p99"]
                        / medians["bus, 64 subscribers"]["p50"]
                    ),
                    3,
                    at_most=True,
                )
            ],
        )

    def routing(self) -> Figure:
        pace = Pace(chunks=int(10_000 * self.scale.seconds), chunk=10, interval=1e-4)
        variants = {
            "100,000/s": partial(self.bus_paced, pace, 1),
            "100,000/s, busy host": partial(self.bus_paced, pace, 1, busy=True),
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

    def sustained(self) -> Figure:
        pace = Pace(chunks=int(1000 * self.scale.sustained), chunk=10, interval=1e-3)
        seconds = f"{self.scale.sustained:.0f} s"
        return Figure(
            "sustained",
            {"10,000/s": partial(self.bus_paced, pace, 1)},
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

    # Nothing at all

    def bus_idle(self) -> Sample:
        bus = self._bus()

        def consumed(pids: list[int]) -> float:
            time.sleep(0.5)  # until the start is over
            before = sum(map(cpu_seconds, pids))
            time.sleep(self.scale.idle)
            return sum(map(cpu_seconds, pids)) - before

        (cpu,) = perform(
            [
                Role(ends.dispatcher, (bus, self.settings), supporting=True),
                *(Role(ends.idle, (bus, n), supporting=True) for n in range(5)),
            ],
            meanwhile=consumed,
        )
        return {"cpu": cpu}

    def idle(self) -> Figure:
        return Figure(
            "idle",
            {"idle": self.bus_idle},
            [
                Claim(
                    f"CPU of dispatcher and 5 processes, idle for {self.scale.idle:.0f} s",
                    metric("idle", "cpu"),
                    0.03,
                    at_most=True,
                    unit="s",
                )
            ],
        )

    def figures(self) -> list[Figure]:
        return [
            self.requests(),
            self.busy(),
            self.silent(),
            self.outstanding(),
            self.oneway(),
            self.typed(),
            self.types(),
            self.patterns(),
            self.batching(),
            self.batch_of_1(),
            self.fanout(),
            self.crowd(),
            self.routing(),
            self.sustained(),
            self.idle(),
        ]


def _latency(measured: Latency) -> Sample:
    return measured._asdict()


def _all_reached(took: list[npt.NDArray[np.int64]]) -> Sample:
    """Latency of each event at the subscriber that had it last."""
    p50, p99, most = np.percentile(np.max(took, axis=0), [50, 99, 100]) / 1e3
    return {"p50": float(p50), "p99": float(p99), "max": float(most)}
