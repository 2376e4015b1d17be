#!/usr/bin/env python3
"""Measure this checkout against another, in turns, and show the ratios.

    python stress/compare.py OTHER [--rounds N] [-- (bench.py | deaths.py) ARGUMENT ...]

OTHER is a checkout with its own `.venv`, such as one of the commit before. Each round runs the
benchmark once here and once there, first the one and then the other. A ratio is of medians over all
rounds; what only one of both measures is left out. By default `bench.py --runs 1` runs.

    python stress/compare.py ../before --rounds 7 -- bench.py --only requests oneway
    python stress/compare.py ../before --rounds 3 -- deaths.py --only idle bus_down
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
from typing import Any

from rich.console import Console
from rich.table import Table

HERE = Path(__file__).resolve().parent.parent
Measures = dict[tuple[str, ...], list[float]]


def flat(samples: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], list[float]]]:
    """The lists of values in nested objects, and the path to each."""
    if isinstance(samples, dict):
        for name, inner in samples.items():
            yield from flat(inner, (*path, name))
    else:
        yield path, samples


def measure(checkout: Path, python: Path, command: list[str]) -> Measures:
    """One run of the benchmark of that checkout. Raises SystemExit where it measures nothing."""
    with tempfile.NamedTemporaryFile(suffix=".json") as report:
        script, *arguments = command
        ran = subprocess.run(
            [python, checkout / "stress" / script, *arguments, "--json", report.name],
            cwd=checkout,
            capture_output=True,
            text=True,
        )
        if not (text := Path(report.name).read_text()):
            sys.exit(f"{checkout}: {script} measured nothing:\n{ran.stdout[-2000:]}{ran.stderr}")
    found = json.loads(text)
    if "samples" in found:
        return dict(flat(found["samples"]))
    return {(one["figure"], one["sample"]): one["values"] for one in found["figures"]}


def table(ours: Measures, theirs: Measures) -> Table:
    """What both measured: medians, and this checkout's as a multiple of the other's."""
    result = Table("figure", "measure", "here", "there", "here / there", title="Medians")
    for path, here in ours.items():
        there = theirs.get(path)
        if not there or not here:
            continue
        a, b = median(here), median(there)
        ratio = f"{a / b:.2f}" if b else "-"
        result.add_row(path[0], ", ".join(path[1:]), f"{a:,.4g}", f"{b:,.4g}", ratio)
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
    python = options.other.resolve() / ".venv/bin/python"
    if not python.exists():
        parser.error(f"{python} is not there: make a .venv in it, and install it with .[dev]")
    if command[0] == "bench.py" and "--runs" not in command:
        command += ["--runs", "1"]

    checkouts = [(HERE, Path(sys.executable)), (options.other.resolve(), python)]
    found: dict[Path, Measures] = {checkout: {} for checkout, _ in checkouts}
    for round in range(options.rounds):
        for checkout, interpreter in checkouts[:: -1 if round % 2 else 1]:
            print(f"round {round + 1} of {options.rounds}: {checkout}", file=sys.stderr)
            for path, values in measure(checkout, interpreter, command).items():
                found[checkout].setdefault(path, []).extend(values)
    Console().print(table(*found.values()))


if __name__ == "__main__":
    main()
