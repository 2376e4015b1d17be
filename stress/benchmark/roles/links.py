"""Links, and what is measured of a bus that has one; each function is a role (stage.py)."""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import islice, repeat
from time import perf_counter_ns
from typing import Any

import shmbus
from benchmark.measure.calls import PAYLOAD, WARM_CALLS, latency
from benchmark.measure.floods import SPELL, Flood, sender_turns
from benchmark.stage import Stage
from shmbus.links.link import link

PATIENCE = 20.0
CALLS = 200
"""Requests of a turn."""

Config = dict[str, Any]


def linked(stage: Stage, bus: str, config: Config, peer: str) -> None:
    """A link, in a process of its own as `shmbus link` has it."""
    with shmbus.attach(bus, name="waits-for-the-bus", timeout=PATIENCE):
        pass
    with link(bus, config) as joined:
        deadline = time.monotonic() + PATIENCE
        while not any(each.up for each in joined.status().peers if each.site == peer):
            if time.monotonic() > deadline:
                raise RuntimeError(f"site {peer!r} does not come up")
            time.sleep(0.01)
        stage.ready()
        stage.wait_until_stopped()


@contextmanager
def _ends(name: str, buses: tuple[str, str]) -> Iterator[list[shmbus.Endpoint]]:
    """An endpoint on each of two buses."""
    with ExitStack() as stack:
        yield [
            stack.enter_context(shmbus.attach(bus, name=name, timeout=PATIENCE)) for bus in buses
        ]


def turning_sender(stage: Stage, buses: tuple[str, str], flood: Flood) -> tuple[float, float]:
    """Messages per second to each of two buses, which take turns."""
    with _ends("sender", buses) as ends:

        def spell(end: shmbus.Endpoint) -> Callable[[int], None]:
            def send(count: int) -> None:
                for _ in repeat(None, count):
                    end.publish("bench.flood", PAYLOAD)

            return send

        for end in ends:
            end.wait_for("bench.flood", timeout=PATIENCE)
        stage.ready()
        return sender_turns(flood, *map(spell, ends))


def turning_receiver(stage: Stage, buses: tuple[str, str], flood: Flood) -> None:
    """Takes what `turning_sender` sends, in its order."""
    with _ends("receiver", buses) as ends:
        for end in ends:
            end.subscribe("bench.flood")

        def take(end: shmbus.Endpoint, count: int) -> None:
            for message in islice(end, count):
                message.payload  # noqa: B018 (decoded when it is asked for)

        stage.ready()
        spells = (flood.messages - flood.warm) // SPELL
        take(ends[0], flood.messages - spells * SPELL)
        for turn in range(spells):
            take(ends[(0, 1, 1, 0)[turn % 4]], SPELL)


def turning_replier(stage: Stage, buses: tuple[str, str]) -> None:
    with _ends("replier", buses) as ends:
        for end in ends:
            end.handle("bench.echo", lambda message: message.payload)
            end.start()
        stage.ready()
        stage.wait_until_stopped()


def turning_requester(stage: Stage, buses: tuple[str, str], seconds: float) -> tuple[float, float]:
    """p50 of requests on each of two buses, which take turns, in microseconds."""
    with _ends("requester", buses) as ends:
        for end in ends:
            end.wait_for("bench.echo", timeout=PATIENCE)
            for _ in repeat(None, WARM_CALLS):
                end.request("bench.echo", PAYLOAD)
        stage.ready()
        took = array("q"), array("q")
        end_of_all = perf_counter_ns() + int(2 * seconds * 1e9)
        turn = 0
        while perf_counter_ns() < end_of_all:
            which = (0, 1, 1, 0)[turn % 4]
            request, mine = ends[which].request, took[which]
            for _ in repeat(None, CALLS):
                before = perf_counter_ns()
                request("bench.echo", PAYLOAD)
                mine.append(perf_counter_ns() - before)
            turn += 1
        return latency(took[0]).p50, latency(took[1]).p50
