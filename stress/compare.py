#!/usr/bin/env python3
"""Measure this checkout against another, in turns, and show the ratios.

    python stress/compare.py OTHER [--rounds N] [-- (bench.py | deaths.py) ARGUMENT ...]

OTHER is a checkout with its own `.venv`, of the commit before, say. Each round runs the benchmark
once here and once there, first the one and then the other. A machine that others use drifts from
minute to minute, so what counts is the pair: the two runs of a round. Many short rounds tell more
than a few long ones. What only one of the two checkouts measures is left out. By default
`bench.py --runs 1` runs.

    python stress/compare.py ../before --rounds 7 -- bench.py --only requests oneway
    python stress/compare.py ../before --rounds 24 -- bench.py --quick --only requests
    python stress/compare.py ../before --rounds 40 -- deaths.py --quick --only idle
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

HERE = Path(__file__).resolve().parent.parent
Place = tuple[str, ...]
"""Where a measure stands in a report: the figure, then what of it."""


class Checkout(NamedTuple):
    """Whose benchmark runs, and with what interpreter."""

    root: Path
    python: Path


def flat(samples: Any, path: Place = ()) -> Iterator[tuple[Place, list[float]]]:
    """The lists of values in nested objects, and where each stands."""
    if isinstance(samples, dict):
        for name, inner in samples.items():
            yield from flat(inner, (*path, name))
    else:
        yield path, samples


def measure(checkout: Checkout, command: list[str]) -> dict[Place, float]:
    """The medians of one run of its benchmark. Raises SystemExit where it measures nothing."""
    with tempfile.NamedTemporaryFile(suffix=".json") as report:
        script, *arguments = command
        ran = subprocess.run(
            [checkout.python, checkout.root / "stress" / script, *arguments, "--json", report.name],
            cwd=checkout.root,
            capture_output=True,
            text=True,
        )
        if not (text := Path(report.name).read_text()):
            sys.exit(
                f"{checkout.root}: {script} measured nothing:\n{ran.stdout[-2000:]}{ran.stderr}"
            )
    found = json.loads(text)
    if "samples" in found:
        samples = dict(flat(found["samples"]))
    else:
        samples = {(one["figure"], one["sample"]): one["values"] for one in found["figures"]}
    return {path: median(values) for path, values in samples.items() if values}


class Pair(NamedTuple):
    """The two runs of a round, of one measure."""

    here: float
    there: float


def table(pairs: dict[Place, list[Pair]]) -> Table:
    """Medians, the median of the ratios of pairs, and in how many pairs this checkout's is more."""
    columns = ("figure", "measure", "here", "there", "here / there, in pairs", "more here")
    result = Table(*columns, title="Medians")
    for path, both in pairs.items():
        ratios = [pair.here / pair.there for pair in both if pair.there]
        result.add_row(
            path[0],
            ", ".join(path[1:]),
            f"{median(pair.here for pair in both):,.4g}",
            f"{median(pair.there for pair in both):,.4g}",
            f"{median(ratios):.2f}" if ratios else "-",
            f"{sum(pair.here > pair.there for pair in both)} of {len(both)}",
        )
    return result


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("other", type=Path, metavar="OTHER", help="another checkout, with a .venv")
    parser.add_argument("--rounds", type=int, default=5, help="of both (default: 5)")
    end = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    options = parser.parse_args(sys.argv[1:end])
    command = sys.argv[end + 1 :] or ["bench.py"]
    there = Checkout(options.other.resolve(), options.other.resolve() / ".venv/bin/python")
    if not there.python.exists():
        parser.error(f"{there.python} is not there: make a .venv, and install it with .[dev]")
    if command[0] == "bench.py" and "--runs" not in command:
        command += ["--runs", "1"]

    here = Checkout(HERE, Path(sys.executable))
    pairs: dict[Place, list[Pair]] = {}
    for round in range(options.rounds):
        found = {}
        for checkout in (here, there)[:: -1 if round % 2 else 1]:
            print(f"round {round + 1} of {options.rounds}: {checkout.root}", file=sys.stderr)
            found[checkout] = measure(checkout, command)
        for path, value in found[here].items():
            if path in found[there]:
                pairs.setdefault(path, []).append(Pair(value, found[there][path]))
    Console().print(table(pairs))


if __name__ == "__main__":
    main()
