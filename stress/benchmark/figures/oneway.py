"""One-way floods: plain, typed and in batches."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from benchmark.claims import Bench, Claim, Figure, Sample, ratio, within
from benchmark.roles import ends, peers
from benchmark.stage import Role, perform

BATCHES = [2**i for i in range(11)]


def bus_flood(bench: Bench, batch: int | None = None, *, typed: bool = False) -> Sample:
    bus, flood = bench.bus(), bench.flood(1_000_000)
    cpu, rate = perform(
        [
            Role(ends.sender, (bus, flood, batch, typed)),
            Role(ends.receiver, (bus, flood, typed)),
            Role(ends.dispatcher, (bus, bench.settings), supporting=True),
        ]
    )
    return {"rate": rate, "cpu": cpu}


def bus_turns(bench: Bench) -> Sample:
    bus, flood = bench.bus(), bench.flood(3_000_000)
    (none, one), _ = perform(
        [
            Role(ends.turning_sender, (bus, flood)),
            Role(ends.receiver, (bus, flood)),
            Role(ends.dispatcher, (bus, bench.settings), supporting=True),
        ]
    )
    return {"none": none, "one": one, "ratio": one / none}


def pyzmq_flood(bench: Bench, *, typed: bool = False) -> Sample:
    address, flood = peers.Address(bench.subdirectory()), bench.flood(250_000)
    cpu, rate = perform(
        [
            Role(peers.sender, (address.front, flood, typed)),
            Role(peers.receiver, (flood, address.back, None, typed)),
            Role(peers.proxy, (address, peers.ONE_WAY), supporting=True),
        ]
    )
    return {"rate": rate, "cpu": cpu}


def pyzmq_direct(bench: Bench) -> Sample:
    address, flood = peers.Address(bench.subdirectory()), bench.flood(500_000)
    cpu, rate = perform(
        [
            Role(peers.sender, (address.front, flood)),
            Role(peers.receiver, (flood, None, address.front)),
        ]
    )
    return {"rate": rate, "cpu": cpu}


def _oneway(bench: Bench) -> Figure:
    return Figure(
        "oneway",
        {
            "bus": partial(bus_flood, bench),
            "pyzmq, streamer": partial(pyzmq_flood, bench),
            "pyzmq, direct": partial(pyzmq_direct, bench),
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


def _typed(bench: Bench) -> Figure:
    return Figure(
        "typed",
        {
            "bus, typed": partial(bus_flood, bench, typed=True),
            "pyzmq, typed": partial(pyzmq_flood, bench, typed=True),
        },
        [
            Claim(
                "one-way rate of a msgspec.Struct: bus / pyzmq's streamer",
                ratio("bus, typed", "pyzmq, typed", "rate"),
                2.5,
            )
        ],
    )


def _batching(bench: Bench) -> Figure:
    variants: dict[str, Callable[[], Sample]] = {"no batch": partial(bus_flood, bench)}
    for size in BATCHES:
        variants[f"batch of {size}"] = partial(bus_flood, bench, size)
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


def _batch_of_1(bench: Bench) -> Figure:
    # Two floods differ by a tenth whatever they send; two ways in one flood do not.
    return Figure(
        "batch_of_1",
        {"taking turns": partial(bus_turns, bench)},
        [
            Claim(
                "one-way rate: batch of 1 / no batch, in turns (equal within 3 % of noise)",
                within("taking turns", "one", "none"),
                0.97,
            )
        ],
    )


def figures(bench: Bench) -> list[Figure]:
    return [_oneway(bench), _typed(bench), _batching(bench), _batch_of_1(bench)]
