#!/usr/bin/env python3
"""Measure what people use otherwise beside the bus, in one run.

    python stress/peers.py [--quick] [--only NAME ...] [--rounds N] [--json FILE] [--markdown]

64-byte payloads, Python at both ends, two cores, everything in processes of its own: round trips,
messages received per second, and an event a millisecond at the last of four subscribers. All take
turns in each round, and the tables have the medians of all rounds. What is not installed is named,
with how to get it: `pip install -e '.[dev,peers]'`, and Debian's redis-server and nats-server.

It only reports: exit code 1 when something that is installed did not run.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parent))

from benchmark.claims import FULL, QUICK, Bench, Scale
from benchmark.peers import PEERS, Peer
from benchmark.peers.row import BATCHES, FAN_OUT, FIGURES, ONE_WAY, REQUEST, Row
from benchmark.stage import RunFailed

ROUNDS = 5
BY_HAND = "*"


@dataclass
class Runs:
    """What all rounds measured: by row, figure and measure."""

    samples: dict[str, dict[str, dict[str, list[float]]]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def add(self, row: Row, figure: str, bench: Bench) -> None:
        try:
            sample = row.figures[figure](bench)
        except RunFailed as error:
            self.failures.append(f"{row.name}: {figure}: {error}")
            return
        kept = self.samples.setdefault(row.name, {}).setdefault(figure, {})
        for measure, value in sample.items():
            kept.setdefault(measure, []).append(value)

    def values(self, row: Row, figure: str, measure: str) -> list[float]:
        return self.samples.get(row.name, {}).get(figure, {}).get(measure, [])


def run(rows: list[Row], rounds: int, scale: Scale, runs: Runs, console: Console) -> None:
    with tempfile.TemporaryDirectory(prefix="shmbus-peers-") as directory:
        bench = Bench(scale, directory, None)
        for number in range(rounds):
            for figure in FIGURES:
                for row in rows:
                    if figure not in row.figures:
                        continue
                    known, began = len(runs.failures), time.monotonic()
                    runs.add(row, figure, bench)
                    took = time.monotonic() - began
                    console.print(
                        f"round {number + 1} of {rounds}: {figure}: {row.name}, {took:.1f} s"
                    )
                    for failure in runs.failures[known:]:
                        console.print(failure, style="red", markup=False)


# Reporting

COLUMNS = (
    (REQUEST, "p50", "request p50, µs"),
    (REQUEST, "p99", "p99"),
    (ONE_WAY, "rate", "one-way, thousand/s"),
    (BATCHES, "rate", "in batches of 100"),
    (FAN_OUT, "p50", "at the last of 4, p50, µs"),
    (FAN_OUT, "p99", "p99"),
)


def number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def cell(runs: Runs, row: Row, figure: str, measure: str) -> str:
    """The median, with the least and the most of all rounds; of a p99 the median alone."""
    values = runs.values(row, figure, measure)
    if not values:
        return "failed" if figure in row.figures else "-"
    if measure == "rate":
        values = [value / 1000 for value in values]
    shown = number(median(values)) + (BY_HAND if figure in row.by_hand else "")
    if len(values) > 1 and measure != "p99":
        shown += f" ({number(min(values))} to {number(max(values))})"
    return shown


def lines(runs: Runs, rows: list[Row]) -> list[list[str]]:
    return [[row.name, *(cell(runs, row, *column[:2]) for column in COLUMNS)] for row in rows]


def table(runs: Runs, rows: list[Row]) -> Table:
    shown = Table("", title=f"Medians, least to most ({BY_HAND}: made by hand of what it has)")
    for *_, title in COLUMNS:
        shown.add_column(title, justify="right")
    for line in lines(runs, rows):
        shown.add_row(*line)
    return shown


def markdown(runs: Runs, rows: list[Row]) -> str:
    head = ["", *(title for *_, title in COLUMNS)]
    rule = ["---", *("--:" for _ in COLUMNS)]
    body = [head, rule, *lines(runs, rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in body)


def report(peers: list[Peer], runs: Runs) -> dict[str, Any]:
    return {
        "machine": {
            "cores": os.cpu_count(),
            "linux": platform.release(),
            "python": platform.python_version(),
        },
        "versions": {peer.name: peer.version() for peer in peers},
        "samples": runs.samples,
        "failures": runs.failures,
    }


def parsed(arguments: list[str] | None) -> argparse.Namespace:
    names = [peer.name for peer in PEERS]
    parser = argparse.ArgumentParser(description="Measure what people use otherwise.")
    parser.add_argument("--quick", action="store_true", help="measure briefly, one round")
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=names, help=" ".join(names))
    parser.add_argument("--rounds", type=int, help=f"instead of {ROUNDS} (or 1, with --quick)")
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="add every sample to those in this file"
    )
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    options = parsed(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # ends what runs, and removes it
    console = Console(stderr=options.markdown, highlight=False)
    peers: list[Peer] = []
    for peer in PEERS:
        if peer.name in (options.only or [peer.name]):
            if missing := peer.absent():
                console.print(f"not measured: {peer.name}: {missing}", markup=False)
            else:
                peers.append(peer)
    rows = [row for peer in peers for row in peer.rows()]
    runs = Runs()
    if options.json and options.json.exists():
        runs.samples = json.loads(options.json.read_text())["samples"]
    scale, rounds = (QUICK, 1) if options.quick else (FULL, ROUNDS)
    try:
        run(rows, options.rounds or rounds, scale, runs, console)
    finally:
        if options.json:
            options.json.write_text(json.dumps(report(peers, runs), indent=1))

    console.print(*(f"{row.name}: {row.options}" for row in rows), sep="\n", markup=False)
    if options.markdown:
        print(markdown(runs, rows))
    else:
        console.print(table(runs, rows))
    return 1 if runs.failures else 0


if __name__ == "__main__":
    sys.exit(main())
