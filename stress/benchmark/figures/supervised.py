"""Processes under a supervisor, beside the same ones started by hand."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from statistics import median

from benchmark.claims import Bench, Claim, Figure, Runs, Sample, metric, ratio
from benchmark.roles import supervised
from benchmark.stage import Role, perform

KILLED, HAND, UP = "killed", "by hand", "shmbus up"


def _each(bench: Bench) -> int:
    """Processes in each of the five layers: fifty in all, where that is not only tried."""
    return 10 if bench.scale.runs > 1 else 2


def _killed(bench: Bench) -> Sample:
    rounds = int(10 * bench.scale.seconds) if bench.scale.runs > 1 else 1
    ((own, again, known),) = perform([Role(supervised.restarting, (bench.bus(), rounds))])
    beyond = median(a - b for a, b in zip(again, own, strict=True))
    return {"own": median(own), "again": median(again), "known": median(known), "beyond": beyond}


def _by_hand(bench: Bench) -> Sample:
    ((alone, start, stop),) = perform(
        [Role(supervised.many_by_hand, (bench.bus(), _each(bench)))], timeout=300.0
    )
    return {"alone": alone, "start": start, "stop": stop, "all": start + stop}


def _up(bench: Bench) -> Sample:
    file = str(Path(bench.subdirectory(), "fifty.toml"))
    ((start, stop),) = perform(
        [Role(supervised.many_supervised, (file, bench.bus(), _each(bench)))], timeout=300.0
    )
    return {"start": start, "stop": stop, "all": start + stop}


def _of_own_starts(count: int, runs: Runs) -> float:
    return median(runs[UP]["all"]) / (count * median(runs[HAND]["alone"]))


def figures(bench: Bench) -> list[Figure]:
    count = supervised.LAYERS * _each(bench)
    return [
        Figure(
            "restarted",
            {KILLED: partial(_killed, bench)},
            [
                Claim(
                    "SIGKILL to handling again, beyond the process's own start",
                    metric(KILLED, "beyond"),
                    150,
                    at_most=True,
                    unit="ms",
                )
            ],
        ),
        Figure(
            "fifty",
            {HAND: partial(_by_hand, bench), UP: partial(_up, bench)},
            [
                Claim(
                    f"{count} processes started and stopped in order / {count} starts of one alone",
                    partial(_of_own_starts, count),
                    1.0,
                    at_most=True,
                ),
                Claim(
                    f"{count} processes started and stopped in order / the same by hand",
                    ratio(UP, HAND, "all"),
                    1.25,
                    at_most=True,
                ),
            ],
            runs=1 if bench.scale.runs == 1 else 3,
        ),
    ]
