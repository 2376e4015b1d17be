"""Who comes late to what is kept."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

import shmbus
from benchmark.measure.calls import PAYLOAD, time_calls
from benchmark.stage import Stage

TYPES = 10_000


def source(stage: Stage, bus: str) -> None:
    """Has all values kept, then answers requests."""
    with shmbus.attach(bus, name="source", timeout=30.0) as ep:
        for n in range(TYPES):
            ep.publish(f"state.{n}", PAYLOAD, retain=True, timeout=None)
        ep.handle("echo", lambda message: message.payload)
        stage.ready()
        ep.run()


def joiner(stage: Stage, bus: str, rounds: int, seconds: float) -> tuple[float, ...]:
    """Microseconds: of a request; to subscribe without history, and to have an event in hand that
    it publishes then; to subscribe with history and have the value of one type in hand; to have
    that of all. Then how many are kept, and in how many bytes."""
    with shmbus.attach(bus, name="joiner", timeout=30.0) as ep:
        stage.ready()
        while ep.bus.info().retained < TYPES:
            time.sleep(0.01)
        request = time_calls(lambda payload: ep.request("echo", payload).payload, seconds).p50

        def joined(n: int, history: int) -> float:
            pattern = f"state.{n % TYPES}" if n >= 0 else "state.>"
            before = time.perf_counter_ns()
            subscription = ep.subscribe(pattern, history=history)
            for _ in range(history and (1 if n >= 0 else TYPES)):
                assert ep.receive(60.0) is not None
            took = time.perf_counter_ns() - before
            subscription.close()
            return took / 1e3

        def first(n: int) -> float:
            type = f"state.{n % TYPES}"
            before = time.perf_counter_ns()
            subscription = ep.subscribe(type)
            ep.publish(type, PAYLOAD)
            assert ep.receive(60.0) is not None
            took = time.perf_counter_ns() - before
            subscription.close()
            return took / 1e3

        def typical(join: Callable[[int], float], count: int) -> float:
            return median(join(n) for n in range(count))

        typical(lambda n: joined(n, 1), rounds)
        plain = typical(lambda n: joined(n, 0), rounds)
        event = typical(first, rounds)
        one = typical(lambda n: joined(n, 1), rounds)
        everything = typical(lambda _: joined(-1, 1), 5)
        info = ep.bus.info()
        return request, plain, event, one, everything, info.retained, info.retained_bytes
