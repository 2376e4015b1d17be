"""A source that publishes at a rate, and a display that looks 60 times a second; each function is a
role (stage.py)."""

from __future__ import annotations

import time

import shmbus
from benchmark.measure.calls import PAYLOAD
from benchmark.stage import Stage

RATE = 100_000
LOOKS = 60
_BURST = RATE // 1000


def source(stage: Stage, bus: str, seconds: float) -> tuple[float, float]:
    """CPU microseconds per message, and the rate that it held."""
    with shmbus.attach(bus, name="source", timeout=20.0) as endpoint:
        endpoint.wait_for("bench.state", timeout=20.0)
        publish, count = endpoint.publish, int(seconds * RATE) // _BURST * _BURST
        stage.ready()
        began, spent = time.monotonic(), time.process_time()
        for sent in range(0, count, _BURST):
            for _ in range(_BURST):
                publish("bench.state", PAYLOAD)
            time.sleep(max(began + (sent + _BURST) / RATE - time.monotonic(), 0))
        spent, took = time.process_time() - spent, time.monotonic() - began
        return spent / count * 1e6, count / took


def taker(stage: Stage, bus: str) -> None:
    """Whoever else has all of it."""
    with shmbus.attach(bus, name="taker", timeout=20.0) as endpoint:
        endpoint.subscribe("bench.state", lambda message: None)
        stage.ready()
        endpoint.run()


def display(stage: Stage, bus: str, seconds: float) -> tuple[float, int]:
    """Its share of a core, and how many messages it has seen."""
    with shmbus.attach(bus, name="display", timeout=20.0) as endpoint:
        endpoint.subscribe("bench.state", overflow="latest")
        stage.ready()
        seen = 0
        began, spent = time.monotonic(), time.process_time()
        for look in range(int(seconds * LOOKS)):
            seen += endpoint.receive(0) is not None
            time.sleep(max(began + (look + 1) / LOOKS - time.monotonic(), 0))
        return (time.process_time() - spent) / (time.monotonic() - began), seen
