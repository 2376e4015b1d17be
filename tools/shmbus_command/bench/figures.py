"""What was measured, as it is printed, and kept as JSON."""

from __future__ import annotations

import array

import msgspec
from hdrh.histogram import HdrHistogram

PERCENTILES = (50.0, 90.0, 99.0, 99.9, 99.99, 100.0)


def new_histogram() -> HdrHistogram:
    return HdrHistogram(1, 60_000_000_000, 3)


class Latency(msgspec.Struct, frozen=True, kw_only=True):
    """A distribution of times, in seconds."""

    count: int
    mean: float
    percentiles: dict[str, float]
    histogram: str
    """The whole distribution, in nanoseconds, as HdrHistogram encodes it."""

    @classmethod
    def of(cls, nanoseconds: array.array[int]) -> Latency:
        histogram = new_histogram()
        for value in nanoseconds:
            histogram.record_value(max(value, 1))
        return cls.counted(histogram)

    @classmethod
    def counted(cls, histogram: HdrHistogram) -> Latency:
        """What a histogram says, of nanoseconds."""
        return cls(
            count=histogram.get_total_count(),
            mean=histogram.get_mean_value() / 1e9,
            percentiles={f"{p:g}": histogram.get_value_at_percentile(p) / 1e9 for p in PERCENTILES},
            histogram=histogram.encode().decode(),
        )

    def curve(self) -> list[tuple[float, float]]:
        """Percentiles (0 to 100) and seconds, from end to end."""
        histogram = HdrHistogram.decode(self.histogram)
        return [
            (step.percentile_level_iterated_to, step.value_iterated_to / 1e9)
            for step in histogram.get_percentile_iterator(5)
        ]


class Flood(msgspec.Struct, frozen=True, kw_only=True):
    """As many messages as possible, in one direction."""

    size: int
    """Bytes of each payload."""
    batch: int
    """Messages published at a time."""
    rate: float
    """Messages a second, each received in Python."""
    bytes_per_second: float
    """Of payload."""
    lost: int


class Crowd(msgspec.Struct, frozen=True, kw_only=True):
    """Requests of several clients at the same time, each a process that makes one after another."""

    clients: int
    rate: float
    """Requests a second, of all of them together."""
    request: Latency
    """Of all of them."""


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured, between two processes through the dispatcher, a third."""

    machine: str
    seconds: float
    size: int = 64
    """Bytes of the payloads of requests and events."""
    request: Latency
    """From the call of ``request`` to its return."""
    event: Latency
    """From ``publish`` to the receiver's callback, at 10,000 messages a second at most."""
    routing_mean: float
    """Of these events, from ring to ring."""
    routing_p99: float
    floods: tuple[Flood, ...]
    crowd: Crowd | None = None
    """None: it was not asked for."""
