"""Replies in parts; each function is a role (stage.py)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice, repeat
from time import process_time_ns

import shmbus
from benchmark.measure.calls import PAYLOAD
from benchmark.measure.floods import Flood, receive_rate
from benchmark.stage import Stage


def many_sender(stage: Stage, bus: str, flood: Flood) -> None:
    """Publish with `publish_many`, for `ends.receiver`."""
    with shmbus.attach(bus, name="sender", timeout=20.0) as endpoint:
        endpoint.wait_for("bench.flood", timeout=20.0)
        stage.ready()
        endpoint.publish_many(repeat(("bench.flood", PAYLOAD), flood.messages))


def server(stage: Stage, bus: str) -> None:
    """Yields as many parts as it is asked for."""
    with shmbus.attach(bus, name="server", timeout=20.0) as endpoint:

        @endpoint.handle("bench.parts")
        def parts(message: shmbus.Message) -> Iterator[bytes]:
            yield from repeat(PAYLOAD, message.payload)

        stage.ready()
        endpoint.run()


def reader(stage: Stage, bus: str, flood: Flood) -> tuple[float, float]:
    """Parts per second of one stream, and CPU microseconds of its reader for each."""
    with shmbus.attach(bus, name="reader", timeout=20.0) as endpoint:
        endpoint.wait_for("bench.parts", timeout=20.0)
        stage.ready()
        with endpoint.stream("bench.parts", flood.messages, timeout=20.0) as stream:
            take = _taker(stream)
            began = process_time_ns()
            rate = receive_rate(flood, take)
            return rate, (process_time_ns() - began) / 1e3 / flood.messages


def _taker(stream: Iterator[shmbus.Message]) -> Callable[[int], None]:
    def take(parts: int) -> None:
        for part in islice(stream, parts):
            part.payload  # noqa: B018 (decoded when it is asked for)

    return take
