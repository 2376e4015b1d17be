"""Work for whoever of several is free; each function is a role (stage.py)."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import repeat
from time import monotonic_ns
from typing import NamedTuple

import shmbus
from benchmark.measure.calls import PAYLOAD
from benchmark.measure.floods import Flood
from benchmark.stage import Stage

TYPE = "bench.work"
QUIET = 1.0  # seconds without a message: all of them have come

Put = Callable[[shmbus.Endpoint, str, bytes], None]


class Share(NamedTuple):
    """How many messages one of several receivers got, and when (ns)."""

    messages: int
    first: int
    last: int


def rate(shares: list[Share]) -> float:
    """Messages per second at all receivers together."""
    took = max(share.last for share in shares) - min(share.first for share in shares)
    return sum(share.messages for share in shares) * 1e9 / took


def sender(stage: Stage, bus: str, flood: Flood, put: Put, receivers: int) -> None:
    """Send them as fast as they are taken; the receivers say how many arrived."""
    with shmbus.attach(bus, name="sender", timeout=20.0) as endpoint:
        endpoint.wait_for(TYPE, receivers=receivers, timeout=20.0)
        stage.ready()
        for _ in repeat(None, flood.messages):
            put(endpoint, TYPE, PAYLOAD)
        stage.report(None)
        stage.wait_until_stopped()


def subscriber(stage: Stage, bus: str, number: int) -> Share:
    """Receives events for itself."""
    return _receive(stage, bus, number, None)


def member(stage: Stage, bus: str, number: int) -> Share:
    """Receives a group's events."""
    return _receive(stage, bus, number, "members")


def _receive(stage: Stage, bus: str, number: int, group: str | None) -> Share:
    with shmbus.attach(bus, name=f"member-{number}", timeout=20.0) as endpoint:
        endpoint.subscribe(TYPE, group=group)
        stage.ready()
        endpoint.receive()
        count, first = 1, monotonic_ns()
        last = first
        while endpoint.receive(QUIET):
            count, last = count + 1, monotonic_ns()
        return Share(count, first, last)


def handler(stage: Stage, bus: str, number: int) -> Share:
    """Handles commands."""
    count, first, last = 0, 0, 0

    def handle(message: shmbus.Message) -> None:
        nonlocal count, first, last
        last = monotonic_ns()
        first = first or last
        count += 1

    with shmbus.attach(bus, name=f"handler-{number}", timeout=20.0) as endpoint:
        endpoint.handle(TYPE, handle)
        endpoint.start()
        stage.ready()
        while not last or monotonic_ns() - last < QUIET * 1e9:
            time.sleep(QUIET / 4)
        return Share(count, first, last)
