"""Work for whoever of several is free."""

from __future__ import annotations

from functools import partial

import shmbus
from benchmark.claims import Bench, Claim, Figure, Sample, metric, ratio
from benchmark.roles import ends, work
from benchmark.stage import Role, perform


def bus_events(bench: Bench, members: int) -> Sample:
    bus, flood = bench.bus(), bench.flood(400_000)
    group = "members" if members > 1 else None
    return _rate(
        flood.messages,
        *perform(
            [
                Role(work.sender, (bus, flood, shmbus.Endpoint.publish, members)),
                *(Role(work.member, (bus, number, group)) for number in range(members)),
                Role(ends.dispatcher, (bus, bench.settings), supporting=True),
            ]
        ),
    )


def bus_commands(bench: Bench, handlers: int) -> Sample:
    bus, flood = bench.bus(), bench.flood(400_000)
    return _rate(
        flood.messages,
        *perform(
            [
                Role(work.sender, (bus, flood, shmbus.Endpoint.send, handlers)),
                *(Role(work.handler, (bus, number)) for number in range(handlers)),
                Role(ends.dispatcher, (bus, bench.settings), supporting=True),
            ]
        ),
    )


def _rate(messages: int, _sent: None, *shares: work.Share) -> Sample:
    return {
        "rate": work.rate(list(shares)),
        "missing": float(messages - sum(share.messages for share in shares)),
    }


def figures(bench: Bench) -> list[Figure]:
    variants = {
        "events to one": partial(bus_events, bench, 1),
        "events to a group of two": partial(bus_events, bench, 2),
        "commands to one": partial(bus_commands, bench, 1),
        "commands to two": partial(bus_commands, bench, 2),
    }
    claims = [
        Claim(
            f"messages missing of {variant}",
            metric(variant, "missing"),
            0,
            at_most=True,
            always=True,
            unit="",
        )
        for variant in variants
    ]
    claims += [
        Claim(
            "rate of events: to a group of two / to one",
            ratio("events to a group of two", "events to one", "rate"),
            0.3,
        ),
        Claim(
            "rate of commands: to two / to one",
            ratio("commands to two", "commands to one", "rate"),
            0.3,
        ),
    ]
    return [Figure("work", variants, claims)]
