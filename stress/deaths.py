#!/usr/bin/env python3
"""Measure how soon a death is reported, and what a killed dispatcher costs, and check the limits.

    python stress/deaths.py [--quick] [--only NAME ...] [--skip NAME ...] [--json FILE]

Every fault is real: processes that are killed, stopped, that exit, exec or dump core. Times are of
CLOCK_MONOTONIC, from just before the fault until Python has the event or error. It ends by itself,
with exit code 1 where a figure falls short or could not be measured. ``--quick`` makes 5
faults of each kind, with less memory, and asserts only that the times could be measured.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parent))

from benchmark.stage import CORES
from faults.load import restarts
from faults.measures import Samples, Scale, bus_down, deaths, released, stopped, watching
from faults.stage import NotMeasured

GIB = 1 << 30
FULL = Scale(200, 8, 30, 4 * GIB, GIB // 4, 50, 20, 5.0)
QUICK = Scale(5, 5, 5, GIB // 2, GIB // 16, 5, 5, 2.0)
WAYS = ("SIGKILL", "os._exit", "exec", "abort")


@dataclass(frozen=True)
class Limit:
    """Of one figure; ``None``: none is promised."""

    middle: float | None = None
    most: float | None = None
    unit: str = "ms"
    always: bool = False  # asserted with --quick, too


@dataclass(frozen=True)
class Figure:
    name: str
    measure: Callable[[], Samples]
    samples: tuple[str, ...]  # what is to be measured
    limit: Limit
    limits: dict[str, Limit]  # of samples that differ

    def limit_of(self, sample: str) -> Limit:
        return self.limits.get(sample, self.limit)


def figures(scale: Scale) -> list[Figure]:
    prompt, large = Limit(5.0, 100.0), Limit(50.0, 100.0)
    soon = Limit(most=100.0)

    def dying(name: str, limit: Limit, ways: tuple[str, ...], count: int, **more: int) -> Figure:
        expected = tuple(f"{way}, {whom}" for way in ways for whom in ("event", "caller"))
        return Figure(name, lambda: deaths(ways, count, **more), expected, limit, {})

    return [
        dying("idle", prompt, WAYS, scale.kills),
        dying("busy", prompt, WAYS, scale.kills, hogs=len(CORES)),
        dying("crowded", prompt, WAYS, scale.kills, others=100),
        dying("large", large, ("SIGKILL",), scale.few, size=scale.memory),
        dying("core", large, ("core dump",), scale.cores, size=scale.core),
        Figure("stopped", lambda: stopped(scale), ("stalled",), Limit(most=250.0), {}),
        Figure(
            "watching", lambda: watching(scale), ("CPU",), Limit(most=1.0, unit="% of core"), {}
        ),
        Figure("bus_down", lambda: bus_down(scale.stops), ("request", "receive"), soon, {}),
        Figure(
            "large_bus_down",
            lambda: bus_down(scale.few, scale.memory),
            ("request", "receive"),
            soon,
            {},
        ),
        Figure("released", lambda: released(scale.stops), ("SIGKILL", "close"), soon, {}),
        Figure(
            "restarts",
            lambda: restarts(scale),
            ("resumed", "lost", "doubled", "accepted"),
            Limit(most=0.0, unit="messages", always=True),
            {"resumed": soon, "accepted": Limit(unit="messages")},
        ),
    ]


@dataclass(frozen=True)
class Verdict:
    figure: str
    sample: str
    values: list[float]
    limit: Limit
    asserted: bool

    @property
    def kept(self) -> bool:
        if not self.values:
            return False
        middle, most = self.limit.middle, self.limit.most
        return (middle is None or median(self.values) < middle) and (
            most is None or max(self.values) <= most
        )

    @property
    def short(self) -> bool:
        return not self.values or (self.asserted and not self.kept)


def report(verdicts: list[Verdict]) -> Table:
    columns = ("figure", "", "times", "p50", "limit", "max", "limit", "unit", "")
    table = Table(*columns, title="Deaths")
    last = ""
    for v in verdicts:
        if last and last != v.figure:
            table.add_section()
        word = "[green]kept" if v.kept else "[red]short" if v.values else "[red]not measured"
        if v.values and not v.kept and not v.asserted:
            word += "[/] (not asserted)"
        middle, most = (number(f(v.values)) if v.values else "" for f in (median, max))
        limits = [
            f"{bound:g}" if bound is not None else "" for bound in (v.limit.middle, v.limit.most)
        ]
        name = v.figure if v.figure != last else ""
        table.add_row(
            name,
            v.sample,
            str(len(v.values)),
            middle,
            limits[0],
            most,
            limits[1],
            v.limit.unit,
            word,
        )
        last = v.figure
    return table


def number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def main(arguments: list[str] | None = None) -> int:
    names = [figure.name for figure in figures(QUICK)]
    parser = argparse.ArgumentParser(description="Measure how soon a death is reported.")
    parser.add_argument("--quick", action="store_true", help="5 faults of each kind")
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=names, help=" ".join(names))
    parser.add_argument("--skip", nargs="+", metavar="NAME", choices=names, default=[])
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every sample here")
    options = parser.parse_args(arguments)

    console = Console()
    verdicts: list[Verdict] = []
    failures: list[str] = []
    home = os.getcwd()
    for figure in figures(QUICK if options.quick else FULL):
        if figure.name not in (options.only or names) or figure.name in options.skip:
            continue
        console.print(f"{figure.name} ...", style="dim")
        with tempfile.TemporaryDirectory(prefix="shmbus-deaths-") as directory:
            os.chdir(directory)  # where core files go
            try:
                samples = figure.measure()
            except NotMeasured as why:
                samples = {}
                failures.append(f"{figure.name}: not measured: {why}")
            finally:
                os.chdir(home)
        for name in figure.samples:
            limit = figure.limit_of(name)
            asserted = limit.always or not options.quick
            verdicts.append(Verdict(figure.name, name, samples.get(name, []), limit, asserted))

    console.print(report(verdicts))
    for failure in failures:
        console.print(failure, style="red", markup=False)
    if options.json:
        machine = {
            "cores": CORES,
            "linux": platform.release(),
            "python": platform.python_version(),
        }
        figures_ = [
            {
                "figure": v.figure,
                "sample": v.sample,
                "values": v.values,
                "p50_limit": v.limit.middle,
                "max_limit": v.limit.most,
                "unit": v.limit.unit,
                "kept": v.kept,
                "asserted": v.asserted,
            }
            for v in verdicts
        ]
        report_ = {"machine": machine, "figures": figures_, "failures": failures}
        options.json.write_text(json.dumps(report_, indent=1))
    return 1 if any(verdict.short for verdict in verdicts) else 0


if __name__ == "__main__":
    sys.exit(main())
