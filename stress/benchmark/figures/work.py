"""Work for whoever of several is free, with the default `prefetch` and with a larger one."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import msgspec

import shmbus
from benchmark.claims import Bench, Claim, Figure, Sample, metric, ratio
from benchmark.roles import ends, outstanding, work
from benchmark.stage import Role, perform

from .outstanding import bus_rate

LARGER = 128


def bus_work(
    bench: Bench,
    put: work.Put,
    receiver: Callable[..., work.Share],
    receivers: int,
    settings: shmbus.Settings,
) -> Sample:
    bus, flood = bench.bus(), bench.flood(400_000)
    _, *shares = perform(
        [
            Role(work.sender, (bus, flood, put, receivers)),
            *(Role(receiver, (bus, number)) for number in range(receivers)),
            Role(ends.dispatcher, (bus, settings), supporting=True),
        ]
    )
    return {
        "rate": work.rate(shares),
        "missing": float(flood.messages - sum(share.messages for share in shares)),
    }


def figures(bench: Bench) -> list[Figure]:
    larger = msgspec.structs.replace(bench.settings, prefetch=LARGER)
    events = partial(bus_work, bench, shmbus.Endpoint.publish)
    commands = partial(bus_work, bench, shmbus.Endpoint.send, work.handler)
    variants: dict[str, Callable[[], Sample]] = {
        "events to one": partial(events, work.subscriber, 1, bench.settings),
        "commands to one": partial(commands, 1, bench.settings),
    }
    for suffix, settings in (("", bench.settings), (f", prefetch {LARGER}", larger)):
        variants |= {
            f"events to a group of two{suffix}": partial(events, work.member, 2, settings),
            f"commands to two{suffix}": partial(commands, 2, settings),
            f"futures to two{suffix}": partial(
                bus_rate, bench, outstanding.by_futures, settings=settings
            ),
            f"request_many to two{suffix}": partial(
                bus_rate, bench, outstanding.by_request_many, settings=settings
            ),
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
        if variant.startswith(("events", "commands"))
    ]
    claims += [
        Claim(f"rate of {two} / to one", ratio(two, one, "rate"), 0.3)
        for two, one in (
            ("events to a group of two", "events to one"),
            ("commands to two", "commands to one"),
        )
    ]
    return [Figure("work", variants, claims)]
