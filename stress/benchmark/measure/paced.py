"""Messages that are sent at a rate, each with the time: how long they take."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Iterator
from itertools import repeat
from time import monotonic_ns, perf_counter_ns
from typing import NamedTuple

import numpy as np
import numpy.typing as npt


class Pace(NamedTuple):
    """``chunks`` of ``chunk`` messages, one every ``interval`` seconds."""

    chunks: int
    chunk: int
    interval: float

    @property
    def messages(self) -> int:
        return self.chunks * self.chunk

    def delays(self) -> Iterator[float]:
        """Seconds until each chunk is due. A chunk that comes late does not delay the next."""
        due = time.monotonic()
        for _ in repeat(None, self.chunks):
            due += self.interval
            yield max(0.0, due - time.monotonic())

    def ticks(self) -> Iterator[None]:
        """Sleep until each chunk is due."""
        for delay in self.delays():
            if delay:
                time.sleep(delay)
            yield


class Paced(NamedTuple):
    """The result of a paced sender: the rate that it held, in messages per second."""

    rate: float


_stamp = struct.Struct("<qq48x")


def stamped(number: int) -> bytes:
    """64 bytes with a sequence number, -1 where it only warms up, and the time."""
    return _stamp.pack(number, monotonic_ns())


def warm_up(pace: Pace, send: Callable[[bytes], object]) -> None:
    """One message that is not measured, and the pause after it."""
    send(stamped(-1))
    time.sleep(pace.interval)


def send_stamped(pace: Pace, send: Callable[[bytes], object], warm: int = 0) -> Paced:
    """Send 64 bytes with sequence number and time, after so many to warm up."""
    for _ in repeat(None, warm):
        warm_up(pace, send)
    start = perf_counter_ns()
    number = 0
    for _ in pace.ticks():
        for _ in repeat(None, pace.chunk):
            send(stamped(number))
            number += 1
    return Paced(pace.messages * 1e9 / (perf_counter_ns() - start))


class Arrivals:
    """Nanoseconds from send to receipt of each message; ``ValueError`` if one is missing."""

    def __init__(self, pace: Pace) -> None:
        self.took = np.empty(pace.messages, dtype=np.int64)
        self._expected = 0

    def take(self, payload: bytes) -> bool:
        """A message has come: False once it was the last."""
        now = monotonic_ns()
        number, sent = _stamp.unpack(payload)
        if number < 0:
            return True
        if number != self._expected:
            raise ValueError(f"message {number} came in place of {self._expected}")
        self.took[number] = now - sent
        self._expected += 1
        return self._expected < self.took.size


def receive_stamped(pace: Pace, messages: Iterator[bytes]) -> npt.NDArray[np.int64]:
    """Nanoseconds from send to receipt of each message; ``ValueError`` if one is missing."""
    arrivals = Arrivals(pace)
    for payload in messages:
        if not arrivals.take(payload):
            break
    return arrivals.took


def at_the_last(took: list[npt.NDArray[np.int64]]) -> dict[str, float]:
    """Latency of each event at the subscriber that had it last, in microseconds."""
    p50, p99, most = np.percentile(np.max(took, axis=0), [50, 99, 100]) / 1e3
    return {"p50": float(p50), "p99": float(p99), "max": float(most)}
