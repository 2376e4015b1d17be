"""Figures of `shmbus bench` beside those of an earlier run."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import msgspec
from shmbus_console.text import columns, duration

from shmbus.options import sized

from .figures import Figures, Latency

STEADY, TAIL = 1.15, 2.0
"""Ratios up to which a difference counts as noise: of medians and rates; and of means and p99,
which a few late ones determine."""


class Before(NamedTuple):
    """An earlier run."""

    file: str
    figures: Figures


class Ratio(msgspec.Struct, frozen=True, kw_only=True):
    """One figure, then and now."""

    figure: str
    before: float
    """Seconds, or a rate."""
    now: float
    worse: float
    """How many times worse it is now, below 1: better. Of a time now / before, of a rate before /
    now."""
    steady: bool
    """False: a mean or p99, which varies more from run to run."""
    is_time: bool

    @property
    def noise(self) -> bool:
        """Whether two runs of the same may differ by as much."""
        limit = STEADY if self.steady else TAIL
        return 1 / limit <= self.worse <= limit


class Compared(msgspec.Struct, frozen=True, kw_only=True):
    """A run beside an earlier one."""

    file: str
    """Of the earlier one."""
    same_machine: bool
    machine: str
    """Of the earlier one."""
    seconds: float
    """For which the earlier one ran."""
    size: int
    """Bytes of the earlier one's payloads."""
    figures: tuple[Ratio, ...]
    """Of what both have measured with payloads of the same size."""
    now: str
    """This machine."""
    size_now: int
    """Bytes of this run's payloads."""


def compare(before: Before, now: Figures) -> Compared:
    """Each figure that both have."""
    then = before.figures
    return Compared(
        file=before.file,
        same_machine=then.machine == now.machine,
        machine=then.machine,
        seconds=then.seconds,
        size=then.size,
        figures=tuple(_ratios(then, now)),
        now=now.machine,
        size_now=now.size,
    )


def _ratios(then: Figures, now: Figures) -> Iterator[Ratio]:
    if then.size == now.size:
        yield from _of_latency("request and reply", then.request, now.request)
        yield from _of_latency("event", then.event, now.event)
        yield _time("routing, mean", then.routing_mean, now.routing_mean, steady=False)
        yield _time("routing, p99", then.routing_p99, now.routing_p99, steady=False)
        if then.crowd and now.crowd and then.crowd.clients == now.crowd.clients:
            who = f"request of {now.crowd.clients} clients"
            yield from _of_latency(who, then.crowd.request, now.crowd.request)
            yield _rate(f"{who}, a second", then.crowd.rate, now.crowd.rate)
    known = {(flood.size, flood.batch): flood.rate for flood in then.floods}
    for flood in now.floods:
        if (rate := known.pop((flood.size, flood.batch), None)) is not None:
            how = "one by one" if flood.batch == 1 else f"batches of {flood.batch}"
            yield _rate(f"events of {sized(flood.size)}, {how}, a second", rate, flood.rate)


def _of_latency(what: str, then: Latency, now: Latency) -> Iterator[Ratio]:
    yield _time(f"{what}, mean", then.mean, now.mean, steady=False)
    for percentile in ("50", "99"):
        if percentile in then.percentiles and percentile in now.percentiles:
            before, after = then.percentiles[percentile], now.percentiles[percentile]
            yield _time(f"{what}, p{percentile}", before, after, steady=percentile == "50")


def _times(more: float, less: float) -> float:
    """How many times more it is; of nothing, what is more is infinitely more."""
    if less:
        return more / less
    return math.inf if more else 1.0


def _time(figure: str, then: float, now: float, *, steady: bool = True) -> Ratio:
    worse = _times(now, then)
    return Ratio(figure=figure, before=then, now=now, worse=worse, steady=steady, is_time=True)


def _rate(figure: str, then: float, now: float) -> Ratio:
    worse = _times(then, now)
    return Ratio(figure=figure, before=then, now=now, worse=worse, steady=True, is_time=False)


def table(compared: Compared) -> list[str]:
    """Lines for people."""
    lines = [f"BEFORE is {compared.file}, of a run of {compared.seconds:.0f} s; NOW is this run"]
    if not compared.same_machine:
        lines.append(
            f"! BEFORE is of another machine or Python: {compared.machine}; this is {compared.now}"
        )
    if compared.size != compared.size_now:
        lines.append(
            f"! BEFORE is of payloads of {compared.size} bytes, NOW of {compared.size_now}: only "
            "events of the same size are compared; give --size"
        )
    rows = [
        [
            one.figure,
            duration(one.before) if one.is_time else f"{one.before:,.0f}",
            duration(one.now) if one.is_time else f"{one.now:,.0f}",
            f"{_times(one.now, one.before):.2f}",
            _verdict(one),
        ]
        for one in compared.figures
    ]
    if not rows:
        return [*lines, "nothing is measured in both"]
    return [
        *lines,
        *columns(["FIGURE", "BEFORE", "NOW", "RATIO", ""], rows),
        f"noise: two runs of the same may differ by {(STEADY - 1) * 100:.0f} % in medians and "
        f"rates, by a factor of {TAIL:g} in means and p99; on a busy machine by more: repeat both",
    ]


def _verdict(one: Ratio) -> str:
    if one.noise:
        return "noise"
    times = max(one.worse, _times(1.0, one.worse))
    return f"{times:.2f} times {'worse' if one.worse > 1 else 'better'}"
