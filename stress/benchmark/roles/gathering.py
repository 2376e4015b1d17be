"""Who asks all, who answers, and who looks whether anybody is there; each function is a role
(stage.py)."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import repeat
from statistics import median

import shmbus
from benchmark.stage import Stage

ALL, ONE = "bench.state", "bench.state.of"


def answerer(stage: Stage, bus: str, number: int, seconds: float) -> None:
    """Takes so many seconds for each answer, without computing."""
    with shmbus.attach(bus, name=f"answerer{number}", timeout=20.0) as endpoint:

        def answer(message: shmbus.Message) -> int:
            if seconds:
                time.sleep(seconds)
            return number

        endpoint.handle(ALL, answer)
        endpoint.handle(f"{ONE}.{number}", answer)
        stage.ready()
        endpoint.run()


def asker(stage: Stage, bus: str, count: int, rounds: int) -> tuple[float, float, float]:
    """Seconds of a question to all; of the slowest of them asked one by one; of all of these."""
    with shmbus.attach(bus, name="asker", timeout=20.0) as endpoint:
        endpoint.wait_for(ALL, receivers=count, timeout=20.0)
        stage.ready()
        together, slowest, summed = [], [], []
        for _ in range(rounds):
            each = [_timed_request(endpoint, f"{ONE}.{number}") for number in range(count)]
            slowest.append(max(each))
            summed.append(sum(each))
            began = time.perf_counter()
            found = endpoint.gather(ALL)
            together.append(time.perf_counter() - began)
            assert len(found) == count
            assert all(isinstance(one, shmbus.Message) for one in found.values())
        return median(together), median(slowest), median(summed)


def _timed_request(endpoint: shmbus.Endpoint, type: str) -> float:
    began = time.perf_counter()
    endpoint.request(type)
    return time.perf_counter() - began


def looker(stage: Stage, bus: str, looks: int) -> tuple[float, float, float]:
    """Seconds of a look with `matched`; of the first one after a change; of `bus.find`."""
    with (
        shmbus.attach(bus, name="looker", timeout=20.0) as endpoint,
        shmbus.attach(bus, name="subscriber", timeout=20.0) as subscriber,
    ):
        subscriber.subscribe("bench.tick")
        stage.ready()
        assert endpoint.matched("bench.tick") == 1
        known = _each(endpoint.matched, repeat("bench.tick", looks))
        fresh = []
        for _ in range(50):
            subscriber.subscribe("bench.other").close()
            began = time.perf_counter()
            endpoint.matched("bench.tick")
            fresh.append(time.perf_counter() - began)
        found = _each(endpoint.bus.find, repeat("bench.tick", 50))
        return known, median(fresh), found


def _each(look: Callable[[str], object], types: repeat[str]) -> float:
    looks = types.__length_hint__()
    began = time.perf_counter()
    for type in types:
        look(type)
    return (time.perf_counter() - began) / looks
