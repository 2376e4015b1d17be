"""The measurements themselves, alike for every transport. Times are microseconds unless named."""

from __future__ import annotations

import struct
import time
from array import array
from collections.abc import Callable, Iterator
from itertools import repeat
from time import monotonic_ns, perf_counter_ns, process_time_ns
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

PAYLOAD = bytes(range(64))
WARM_CALLS = 500
CALLS = 100  # between two looks at the clock


class Reading(msgspec.Struct):
    """What the typed figures send: five fields, 64 bytes once encoded as MessagePack."""

    sensor: str
    sequence: int
    value: float
    unit: str
    flags: list[int]


READING = Reading("fan3", 123_456, 48.25, "1/min", [1, 2, 3, 4])


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


def call_rate(take: Callable[[int], None], seconds: float) -> float:
    """Replies per second, where ``take(n)`` brings n of them to Python; a fifth more warms up."""
    start = perf_counter_ns()
    while perf_counter_ns() - start < seconds * 2e8:
        take(CALLS)
    count, start = 0, perf_counter_ns()
    while (took := perf_counter_ns() - start) < seconds * 1e9:
        take(CALLS)
        count += CALLS
    return count * 1e9 / took


class Flood(NamedTuple):
    """How many messages one sender sends; the first tenth warms up and is not measured."""

    messages: int

    @property
    def warm(self) -> int:
        return self.messages // 10


def receive_rate(flood: Flood, take: Callable[[int], None]) -> float:
    """Messages per second, where ``take(n)`` brings n of them to Python."""
    take(flood.warm)
    start = perf_counter_ns()
    take(flood.messages - flood.warm)
    return (flood.messages - flood.warm) * 1e9 / (perf_counter_ns() - start)


def sender_cpu(flood: Flood, send: Callable[[int], None]) -> float:
    """CPU of the sending process per message, where ``send(n)`` sends n of them."""
    send(flood.warm)
    start = process_time_ns()
    send(flood.messages - flood.warm)
    return (process_time_ns() - start) / 1e3 / (flood.messages - flood.warm)


SPELL = 5000


def sender_turns(
    flood: Flood, one: Callable[[int], None], other: Callable[[int], None]
) -> tuple[float, float]:
    """Messages per second of two ways to send, which take turns in spells too short for the
    machine to change meanwhile. Each is first as often as the other."""
    spells = (flood.messages - flood.warm) // SPELL
    one(flood.messages - spells * SPELL)
    took, count = [0, 0], [0, 0]
    for turn in range(spells):
        which = (0, 1, 1, 0)[turn % 4]
        start = perf_counter_ns()
        (one, other)[which](SPELL)
        took[which] += perf_counter_ns() - start
        count[which] += SPELL
    return count[0] * 1e9 / took[0], count[1] * 1e9 / took[1]


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
    """Latency of each event at the subscriber that had it last."""
    p50, p99, most = np.percentile(np.max(took, axis=0), [50, 99, 100]) / 1e3
    return {"p50": float(p50), "p99": float(p99), "max": float(most)}
