"""Calls one after the other, each waiting for its answer. Times are microseconds."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from itertools import repeat
from time import perf_counter_ns
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

PAYLOAD = bytes(range(64))


WARM_CALLS = 500


CALLS = 100  # between two looks at the clock


class Latency(NamedTuple):
    p50: float
    p99: float


def latency(nanoseconds: npt.ArrayLike) -> Latency:
    p50, p99 = np.percentile(np.asarray(nanoseconds, dtype=np.int64), [50, 99]) / 1e3
    return Latency(float(p50), float(p99))


def time_calls(call: Callable[[bytes], object], seconds: float) -> Latency:
    """Call one after the other, each waiting for its answer."""
    for _ in repeat(None, WARM_CALLS):
        if call(PAYLOAD) != PAYLOAD:
            raise ValueError("the reply is not what was sent")
    took = array("q")
    after = perf_counter_ns()
    end = after + int(seconds * 1e9)
    while after < end:
        before = perf_counter_ns()
        call(PAYLOAD)
        after = perf_counter_ns()
        took.append(after - before)
    return latency(took)


def call_rate(take: Callable[[int], None], seconds: float, calls: int = CALLS) -> float:
    """Replies per second, where ``take(n)`` brings n of them to Python; a fifth more warms up."""
    start = perf_counter_ns()
    while perf_counter_ns() - start < seconds * 2e8:
        take(calls)
    count, start = 0, perf_counter_ns()
    while (took := perf_counter_ns() - start) < seconds * 1e9:
        take(calls)
        count += calls
    return count * 1e9 / took
