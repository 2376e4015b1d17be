"""Requests one after another, also beside a busy host and beside silent endpoints."""

from __future__ import annotations

import socket
from collections.abc import Callable
from functools import partial

import shmbus
from benchmark.claims import Bench, Claim, Figure, Sample, most, ratio
from benchmark.measure.calls import Latency
from benchmark.roles import bare, ends, peers
from benchmark.stage import ENDS_SHARE, FREE, PLACEMENTS, Placement, Role, perform


def bus_requests(
    bench: Bench,
    place: Placement,
    *,
    busy: bool = False,
    silent: int = 0,
    settings: shmbus.Settings | None = None,
    typed: bool = False,
) -> Sample:
    bus = bench.bus()
    small = shmbus.Settings(in_bytes=4096, out_bytes=4096, reply_bytes=4096)
    roles = [
        Role(
            ends.dispatcher,
            (bus, settings or bench.settings, busy),
            place.middle,
            supporting=True,
        ),
        Role(ends.offerer if typed else ends.replier, (bus,), place.server, supporting=True),
        Role(ends.requester, (bus, bench.scale.seconds, typed), place.client),
    ]
    roles += [
        Role(ends.silent, (bus, first, silent // 8, small), supporting=True)
        for first in range(0, silent, silent // 8 or 1)
    ]
    return _latency(*perform(roles))


def pyzmq_requests(bench: Bench, place: Placement, *, busy: bool = False) -> Sample:
    address = peers.Address(bench.subdirectory())
    return _latency(
        *perform(
            [
                Role(peers.proxy, (address, peers.REQUESTS, busy), place.middle, True),
                Role(peers.replier, (address,), place.server, supporting=True),
                Role(peers.requester, (address, bench.scale.seconds), place.client),
            ]
        )
    )


def bare_requests(bench: Bench, place: Placement) -> Sample:
    bus = bench.bus()
    return _latency(
        *perform(
            [
                Role(ends.dispatcher, (bus, bench.settings), place.middle, supporting=True),
                Role(bare.replier, (bus, bench.library), place.server, supporting=True),
                Role(bare.requester, (bus, bench.library, bench.scale.seconds), place.client),
            ]
        )
    )


def pair_requests(bench: Bench) -> Sample:
    client, server = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with client, server:
        return _latency(
            *perform(
                [
                    Role(peers.pair_server, (server,), supporting=True),
                    Role(peers.pair_client, (client, bench.scale.seconds)),
                ]
            )
        )


def _requests(bench: Bench) -> Figure:
    variants: dict[str, Callable[[], Sample]] = {}
    for place in PLACEMENTS:
        variants[f"bus, {place.name}"] = partial(bus_requests, bench, place)
        variants[f"pyzmq, {place.name}"] = partial(pyzmq_requests, bench, place)
        if bench.library and place is not FREE:
            variants[f"bare kernel, {place.name}"] = partial(bare_requests, bench, place)
    variants["socket pair"] = partial(pair_requests, bench)
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
    claims += [
        Claim(
            f"request p50, {place.name}: bus / its bare C kernel",
            ratio(f"bus, {place.name}", f"bare kernel, {place.name}", "p50"),
            1.5,
            at_most=True,
        )
        for place in PLACEMENTS
        if place is not FREE
    ]
    return Figure("requests", variants, claims)


def _placement(bench: Bench) -> Figure:
    """Where the scheduler puts the three is luck; what they make of it must not be."""
    variants = {"bus, free": partial(bus_requests, bench, FREE)}
    if bench.library:
        variants["bare kernel, free"] = partial(bare_requests, bench, FREE)
    claims = [
        Claim(
            "request, free: p99 / p50, in the run where that is most",
            most("bus, free", "p99", "p50"),
            3,
            at_most=True,
        ),
        Claim(
            "request p50, free: bus / its bare C kernel",
            ratio("bus, free", "bare kernel, free", "p50"),
            1.4,
            at_most=True,
        ),
    ]
    return Figure("placement", variants, claims, each=True)


def _busy(bench: Bench) -> Figure:
    return Figure(
        "busy",
        {
            "bus, busy host": partial(bus_requests, bench, FREE, busy=True),
            "pyzmq, busy host": partial(pyzmq_requests, bench, FREE, busy=True),
        },
        [
            Claim(
                "request p50 beside a busy Python thread in the middle: pyzmq's proxy / bus",
                ratio("pyzmq, busy host", "bus, busy host", "p50"),
                5,
            )
        ],
    )


def _services(bench: Bench) -> Figure:
    return Figure(
        "services",
        {
            "request": partial(bus_requests, bench, ENDS_SHARE),
            "call of a service": partial(bus_requests, bench, ENDS_SHARE, typed=True),
        },
        [
            Claim(
                "request p50, the ends share a core: a typed call of a service / a plain request",
                ratio("call of a service", "request", "p50"),
                1.6,
                at_most=True,
            )
        ],
    )


def _silent(bench: Bench) -> Figure:
    settings = shmbus.Settings(max_endpoints=258)
    return Figure(
        "silent",
        {
            "2 endpoints": partial(bus_requests, bench, ENDS_SHARE, settings=settings),
            "256 silent": partial(bus_requests, bench, ENDS_SHARE, settings=settings, silent=256),
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


def _latency(measured: Latency) -> Sample:
    return measured._asdict()


def figures(bench: Bench) -> list[Figure]:
    return [
        _requests(bench),
        _placement(bench),
        _busy(bench),
        _services(bench),
        _silent(bench),
    ]
