#!/usr/bin/env python3
"""Measure the bus against its peers, a socket pair and its bare C kernel, and check the bounds.

    python stress/bench.py [--quick] [--only NAME ...] [--json FILE] [--plot FILE]

64-byte payloads, Python at both ends, two cores. Machines differ by a factor of three, so all but
the promises are ratios between variants that took turns in this very run: medians of 5 rounds,
each round one run of every variant in fresh processes. What is claimed of every run takes 10, and
a run from which the host of a virtual machine took more than 1 % of the cores is made again.

It ends by itself, with exit code 1 when a figure falls short or a variant does not run;
``--quick`` measures briefly, and asserts of times and rates only that they were measured.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))

from benchmark import claims, figures, plot
from benchmark.claims import FULL, QUICK, Bench, Claim, Figure, Scale
from benchmark.roles import bare
from benchmark.stage import CORES, RunFailed, stolen_seconds

# Running and reporting


@dataclass(frozen=True)
class Verdict:
    claim: Claim
    value: float
    asserted: bool

    @property
    def short(self) -> bool:
        return self.asserted and not self.claim.kept(self.value)


@dataclass
class Runs:
    """What all runs measured, by figure and variant."""

    samples: dict[str, dict[str, dict[str, list[float]]]] = field(default_factory=dict)
    stolen: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    """Share of the cores that the host took from each run, also from those made again."""
    failures: list[str] = field(default_factory=list)

    def add(self, figure: Figure, variant: str, scale: Scale) -> bool:
        """Run a variant once more: False where the host took too much of the cores to count it."""
        began, before = time.monotonic(), stolen_seconds()
        try:
            sample = figure.variants[variant]()
        except RunFailed as error:
            self.failures.append(f"{figure.name}: {variant}: {error}")
            return True
        share = (stolen_seconds() - before) / (time.monotonic() - began) / len(CORES)
        self.stolen[figure.name][variant].append(share)
        if figure.each and share > scale.stolen:
            return False
        for measure, value in sample.items():
            self.samples[figure.name][variant].setdefault(measure, []).append(value)
        return True


AGAIN = 60
"""How many runs of a figure that the host disturbed are made again."""


def run(chosen: list[Figure], scale: Scale, console: Console) -> Runs:
    """Every variant of each figure in turns."""
    runs = Runs()
    columns = (
        TextColumn("{task.description:<46}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    total = sum(figure.rounds(scale) * len(figure.variants) for figure in chosen)
    # Nothing of the display may run beside a measurement.
    with Progress(*columns, console=console, auto_refresh=False) as progress:
        task = progress.add_task("", total=total)
        for figure in chosen:
            runs.samples[figure.name] = {variant: {} for variant in figure.variants}
            runs.stolen[figure.name] = {variant: [] for variant in figure.variants}
            again = AGAIN
            for _ in range(figure.rounds(scale)):
                for variant in figure.variants:
                    progress.update(task, description=f"{figure.name}: {variant}", refresh=True)
                    known = len(runs.failures)
                    while not runs.add(figure, variant, scale):
                        if not again:
                            runs.failures.append(
                                f"{figure.name}: {variant}: the host took more than "
                                f"{scale.stolen:.0%} of the cores from too many runs"
                            )
                            break
                        again -= 1
                    for failure in runs.failures[known:]:
                        progress.console.print(failure, style="red", markup=False)
                    progress.update(task, advance=1, refresh=True)
    return runs


def judge(figure: Figure, runs: claims.Runs, quick: bool) -> list[Verdict]:
    verdicts = []
    for claim in figure.claims:
        try:
            value = claim.value(runs)
        except KeyError:  # a variant never ran: nothing was shown
            value = math.nan
        verdicts.append(Verdict(claim, value, asserted=claim.always or not quick))
    return verdicts


def number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def measured_table(runs: Runs) -> Table:
    table = Table("figure", "variant", "medians (least to most)", "host took", title="Measured")
    for name, variants in runs.samples.items():
        for variant, measures in variants.items():
            cells = [
                f"{measure} {number(median(values))} "
                f"({number(min(values))} to {number(max(values))})"
                for measure, values in measures.items()
            ]
            stolen = runs.stolen[name][variant]
            took = f"{max(stolen):.1%} at most" if stolen else ""
            table.add_row(name, variant, "  ".join(cells), took)
        table.add_section()
    return table


def verdict_table(verdicts: list[Verdict]) -> Table:
    table = Table("figure", "measured", "bound", "", title="Figures")
    for verdict in verdicts:
        claim = verdict.claim
        bound = f"{'at most' if claim.at_most else 'at least'} {number(claim.bound)} {claim.unit}"
        word = "[green]kept" if claim.kept(verdict.value) else "[red]short"
        if not verdict.asserted:
            word += "[/] (not asserted)"
        table.add_row(claim.text, f"{number(verdict.value)} {claim.unit}", bound, word)
    return table


def batch_table(medians: dict[str, claims.Sample]) -> Table:
    """What batching buys."""
    base = medians["no batch"]
    table = Table("messages a batch", "rate", "", "sender's CPU per message", "", title="Batching")
    for variant, sample in medians.items():
        table.add_row(
            variant.removeprefix("batch of "),
            f"{sample['rate']:,.0f}/s",
            f"{sample['rate'] / base['rate']:.2f} x",
            f"{sample['cpu'] * 1e3:.0f} ns",
            f"{sample['cpu'] / base['cpu']:.2f} x",
        )
    return table


def main(arguments: list[str] | None = None) -> int:
    names = [figure.name for figure in figures.every(Bench(QUICK, "", None))]
    parser = argparse.ArgumentParser(
        description="Measure the bus against its peers, a socket pair and its bare C kernel."
    )
    parser.add_argument(
        "--quick", action="store_true", help="measure briefly; only a lost message falls short"
    )
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=names, help=" ".join(names))
    parser.add_argument("--runs", type=int, help="rounds instead of 5 (or 1, with --quick)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every sample here")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw batching here, as SVG")
    options = parser.parse_args(arguments)

    console = Console()
    scale = QUICK if options.quick else FULL
    if options.runs:
        scale = scale._replace(runs=options.runs)
    with tempfile.TemporaryDirectory(prefix="shmbus-bench-") as directory:
        chosen = [
            figure
            for figure in figures.every(Bench(scale, directory, bare.build(directory)))
            if figure.name in (options.only or names)
        ]
        for figure in chosen:
            for variant, remedy in figure.absent.items():
                console.print(f"not measured: {figure.name}: {variant}: {remedy}", markup=False)
        runs = run(chosen, scale, console)

    verdicts = [v for f in chosen for v in judge(f, runs.samples[f.name], options.quick)]

    console.print(measured_table(runs))
    batching = {
        variant: {measure: median(values) for measure, values in measures.items()}
        for variant, measures in runs.samples.get("batching", {}).items()
    }
    if batching and all(batching.values()):
        console.print(batch_table(batching))
        if options.plot:
            options.plot.write_text(plot.batching(batching))
    console.print(verdict_table(verdicts))
    if options.json:
        report = {
            "machine": {
                "cores": CORES,
                "linux": platform.release(),
                "python": platform.python_version(),
            },
            "scale": scale._asdict(),
            "samples": runs.samples,
            "stolen": runs.stolen,
            "verdicts": [
                {
                    "figure": v.claim.text,
                    "value": None if math.isnan(v.value) else v.value,
                    "bound": v.claim.bound,
                    "kept": v.claim.kept(v.value),
                    "asserted": v.asserted,
                }
                for v in verdicts
            ],
            "failures": runs.failures,
        }
        options.json.write_text(json.dumps(report, indent=1))

    short = [verdict for verdict in verdicts if verdict.short]
    for verdict in short:
        claim = verdict.claim
        if math.isnan(verdict.value):
            word = "not measured"
        else:
            by = abs(verdict.value - claim.bound) / (abs(claim.bound) or 1.0)
            word = f"falls short by {by:.0%}"
        console.print(f"{word}: {claim.text}", style="red", markup=False)
    for failure in runs.failures:
        console.print(f"did not run: {failure.splitlines()[0]}", style="red", markup=False)
    return 1 if short or runs.failures else 0


if __name__ == "__main__":
    sys.exit(main())
