"""Many types and many patterns at one pair of endpoints; each function is a role (stage.py)."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count, cycle, islice
from time import perf_counter_ns

import shmbus
from benchmark.measure.calls import PAYLOAD
from benchmark.measure.floods import Flood, receive_rate, sender_cpu
from benchmark.stage import Stage


def sender(stage: Stage, bus: str, flood: Flood, types: int) -> float:
    """CPU microseconds per message, each of another one of so many types."""
    with shmbus.attach(bus, name="sender", timeout=20.0) as endpoint:
        endpoint.wait_for("bench.value.0.changed", timeout=20.0)
        names = cycle([f"bench.value.{n}.changed" for n in range(types)])
        publish = endpoint.publish

        def send(messages: int) -> None:
            for name in islice(names, messages):
                publish(name, PAYLOAD)

        stage.ready()
        return sender_cpu(flood, send)


def receiver(stage: Stage, bus: str, flood: Flood) -> float:
    """Messages per second, of whatever type."""
    with shmbus.attach(bus, name="receiver", timeout=20.0) as endpoint:
        endpoint.subscribe("bench.value.*.changed")

        def take(messages: int) -> None:
            for message in islice(endpoint, messages):
                message.payload  # noqa: B018 (decoded when it is asked for)

        stage.ready()
        return receive_rate(flood, take)


def subscriber(stage: Stage, bus: str, most: int) -> tuple[float, float]:
    """Microseconds of one `subscribe`: of the second hundred, and of the last of so many."""
    with shmbus.attach(bus, name="subscriber", timeout=20.0) as endpoint:
        numbers = count()

        def subscribe(patterns: int) -> Iterator[int]:
            for number in islice(numbers, patterns):
                start = perf_counter_ns()
                endpoint.subscribe(f"bench.value.{number}.*")
                yield perf_counter_ns() - start

        stage.ready()
        list(subscribe(100))
        few = sum(subscribe(100)) / 100
        list(subscribe(most - 1200))
        many = sum(subscribe(1000)) / 1000
        return few / 1e3, many / 1e3
