"""Processes under a supervisor, beside the same ones started by hand."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from statistics import median

from benchmark.claims import Bench, Claim, Figure, Runs, Sample, metric, ratio
from benchmark.roles import supervised
from benchmark.stage import Role, perform

KILLED, HAND, UP = "killed", "by hand", "shmbus up"
FIFTY = len(supervised.NAMES)


def _killed(bench: Bench) -> Sample:
    rounds = max(3, int(10 * bench.scale.seconds))
    ((own, again, known),) = perform([Role(supervised.restarting, (bench.bus(), rounds))])
    beyond = median(a - b for a, b in zip(again, own, strict=True))
    return {"own": median(own), "again": median(again), "known": median(known), "beyond": beyond}


def _by_hand(bench: Bench) -> Sample:
    ((alone, start, stop),) = perform(
        [Role(supervised.many_by_hand, (bench.bus(),))], timeout=300.0
    )
    return {"alone": alone, "start": start, "stop": stop, "all": start + stop}


def _up(bench: Bench) -> Sample:
    file = str(Path(bench.subdirectory(), "fifty.toml"))
    ((start, stop),) = perform(
        [Role(supervised.many_supervised, (file, bench.bus()))], timeout=300.0
    )
    return {"start": start, "stop": stop, "all": start + stop}


def _of_own_starts(runs: Runs) -> float:
    return median(runs[UP]["all"]) / (FIFTY * median(runs[HAND]["alone"]))


def figures(bench: Bench) -> list[Figure]:
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
                    f"{FIFTY} processes started and stopped in order / {FIFTY} starts of one alone",
                    _of_own_starts,
                    1.0,
                    at_most=True,
                ),
                Claim(
                    f"{FIFTY} processes started and stopped in order / the same by hand",
                    ratio(UP, HAND, "all"),
                    1.25,
                    at_most=True,
                ),
            ],
            runs=1 if bench.scale.runs == 1 else 3,
        ),
    ]
