"""A frame by loan and a 64-byte event in turns, and when they come; each function is a role
(stage.py)."""

from __future__ import annotations

from itertools import islice
from time import monotonic_ns

import numpy as np

import shmbus
from benchmark.measure.calls import PAYLOAD, Latency, latency
from benchmark.measure.paced import Pace
from benchmark.stage import Stage

EVENT, FRAME = "bench.event", "bench.frame"
WARM = 20  # of each


def producer(stage: Stage, bus: str, pace: Pace, nbytes: int) -> None:
    with shmbus.attach(bus, name="producer", timeout=20.0) as endpoint:
        endpoint.wait_for(EVENT, timeout=20.0)
        endpoint.wait_for(FRAME, timeout=20.0)
        stamp, rest = np.empty(1, np.int64), PAYLOAD[8:]

        def event() -> None:
            stamp[0] = monotonic_ns()
            endpoint.publish(EVENT, stamp.tobytes() + rest)

        def frame() -> None:
            now = monotonic_ns()
            with endpoint.loan_array(FRAME, nbytes // 8, np.int64, timeout=None) as loan:
                loan.array[0] = now

        stage.ready()
        turns = (event, frame)
        for number, _ in enumerate(pace.ticks()):
            turns[number % 2]()


def consumer(stage: Stage, bus: str, pace: Pace) -> tuple[Latency, Latency]:
    """Of events, and of frames: until the time in them has been read."""
    took: dict[str, list[int]] = {EVENT: [], FRAME: []}
    with shmbus.attach(bus, name="consumer", timeout=20.0) as endpoint:
        endpoint.subscribe(EVENT)
        endpoint.subscribe(FRAME)
        stage.ready()
        for message in islice(endpoint, pace.chunks):
            sent = int(np.frombuffer(message.payload, np.int64, 1)[0])
            took[message.type].append(monotonic_ns() - sent)
    return latency(took[EVENT][WARM:]), latency(took[FRAME][WARM:])
