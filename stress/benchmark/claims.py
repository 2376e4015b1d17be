"""What a figure is: variants that take turns, and the bounds that are claimed of them."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import NamedTuple

import shmbus

from .measure.floods import Flood

Sample = dict[str, float]
Runs = Mapping[str, Mapping[str, list[float]]]
"""By variant and measure, the values of all runs."""


class Scale(NamedTuple):
    """How long and how often to measure."""

    runs: int
    each: int  # runs of a figure that is claimed of each of them
    stolen: float  # share of its cores that the host may take from such a run
    seconds: float  # of requests, per run
    flood: float  # messages of a flood, relative
    sustained: float  # seconds
    idle: float  # seconds
    patience: float  # seconds that a receiver may not run before it loses messages


FULL = Scale(
    runs=5,
    each=10,
    # A p99 is of one in a hundred: beyond that it tells more of the host than of the bus.
    stolen=0.01,
    seconds=1.0,
    flood=1.0,
    sustained=60.0,
    idle=5.0,
    patience=1.0,
)
QUICK = Scale(
    runs=1,
    each=1,
    stolen=1.0,
    seconds=0.3,
    flood=0.2,
    sustained=3.0,
    idle=5.0,
    patience=30.0,
)


@dataclass(frozen=True)
class Claim:
    """One figure: a value computed from the runs, and the bound that it must keep."""

    text: str
    value: Callable[[Runs], float]
    bound: float
    at_most: bool = False
    always: bool = False  # noise of the machine does not affect it: asserted with --quick, too
    unit: str = "x"

    def kept(self, value: float) -> bool:
        return value <= self.bound if self.at_most else value >= self.bound


@dataclass(frozen=True)
class Figure:
    """Variants that take turns, and what is claimed of them."""

    name: str
    variants: Mapping[str, Callable[[], Sample]]
    claims: list[Claim]
    runs: int | None = None  # where it is not the scale's
    each: bool = False  # it is claimed of each run: one from which the host took much is made again
    absent: Mapping[str, str] = field(
        default_factory=dict
    )  # what is not installed, and how to get it

    def rounds(self, scale: Scale) -> int:
        return self.runs or (scale.each if self.each else scale.runs)


def ratio(over: str, under: str, metric: str) -> Callable[[Runs], float]:
    return lambda runs: median(runs[over][metric]) / median(runs[under][metric])


def within(variant: str, over: str, under: str) -> Callable[[Runs], float]:
    return lambda runs: median(runs[variant][over]) / median(runs[variant][under])


def most(variant: str, over: str, under: str) -> Callable[[Runs], float]:
    """The ratio in the run where it is greatest."""
    return lambda runs: max(
        a / b for a, b in zip(runs[variant][over], runs[variant][under], strict=True)
    )


def metric(variant: str, name: str) -> Callable[[Runs], float]:
    return lambda runs: median(runs[variant][name])


class Bench:
    """The scale of one benchmark, and names of its own for every run."""

    def __init__(self, scale: Scale, directory: str, library: str | None) -> None:
        self.scale = scale
        self.library = library
        self.settings = shmbus.Settings(block_timeout=scale.patience)
        self._directory = directory
        self._serial = itertools.count()

    def bus(self) -> str:
        return f"bench-{os.getpid()}-{next(self._serial)}"

    def subdirectory(self) -> str:
        path = Path(self._directory, str(next(self._serial)))
        path.mkdir()
        return str(path)

    def flood(self, messages: int) -> Flood:
        return Flood(int(messages * self.scale.flood))
