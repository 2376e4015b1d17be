"""Pools of two worker processes: small tasks, one by one and in chunks, arrays of 1 MiB, a worker
that is killed, and a map over a million items."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from statistics import median

from benchmark.claims import Bench, Claim, Figure, Runs, Sample, ratio
from benchmark.pools import SUBMIT, WORKERS, Opened, futures, multiprocessing, shmbus
from benchmark.roles import pools
from benchmark.roles.pools import ARRAY_FROM, ARRAY_TO, CHUNKS, Executors, chunks_of
from benchmark.stage import Role, perform
from shmbus import Executor

OURS, FUTURES, POOL = "shmbus.Executor", "ProcessPoolExecutor", "multiprocessing.Pool"
OPTIONAL = {
    "loky": ("loky", "opened"),
    "joblib": ("joblib", "opened"),
}
"""By its name, the package, after which a file in pools/ is named, and the function there."""

MILLION = 1_000_000
CHUNK = 100
PAUSE = 1e-3
"""Seconds that a slow consumer takes over each result."""
BOUND = 16.0
"""MiB by which the memory of a process may grow, over however many items it maps."""


def optional() -> dict[str, Opened]:
    return {
        name: getattr(import_module(f"benchmark.pools.{package}"), function)
        for name, (package, function) in OPTIONAL.items()
        if find_spec(package)
    }


def absent() -> Mapping[str, str]:
    return {
        name: f"pip install {package} (or '.[peers]')"
        for name, (package, _) in OPTIONAL.items()
        if not find_spec(package)
    }


def used(bench: Bench, opened: Opened) -> Sample:
    args = (opened, bench.scale.seconds / 2)
    (sample,) = perform([Role(pools.user, args, parent=True)])
    rates: Sample = sample
    return rates


def killed(bench: Bench, executors: Executors) -> Sample:
    args = (executors, bench.subdirectory(), int(10 * bench.scale.seconds))
    (took,) = perform([Role(pools.known_after, args, parent=True)])
    return {"p50": median(took), "most": max(took)}


def mapped(
    bench: Bench, opened: Opened, way: str, chunk: int = CHUNK, pause: float = 0.0
) -> Sample:
    items = int(bench.scale.seconds / PAUSE) if pause else bench.flood(MILLION).messages
    args = (opened, way, chunk, items, pause)
    (sample,) = perform([Role(pools.mapper, args, parent=True)])
    memory: Sample = sample
    return memory


def ahead(text: str, way: str, *endings: str) -> Claim:
    """That one way is ahead of all that others have, whose measures end so."""

    def value(runs: Runs) -> float:
        others = [
            median(values)
            for variant, measures in runs.items()
            if "shmbus" not in variant
            for measure, values in measures.items()
            if measure.endswith(endings)
        ]
        return median(runs[OURS][way]) / max(others)

    return Claim(f"{text}: {OURS} / the quickest of all others", value, 1)


def _executor(bench: Bench) -> Figure:
    openings: dict[str, Opened] = {
        OURS: shmbus.opened,
        FUTURES: futures.opened,
        POOL: multiprocessing.opened,
        **optional(),
    }
    one, many = (chunks_of("map", chunk) for chunk in CHUNKS)
    by_ones = (SUBMIT, chunks_of("", 1))
    small, to, from_ = "small tasks by submit and result", "1 MiB to a task", "1 MiB from a task"
    return Figure(
        "executor",
        {name: partial(used, bench, opened) for name, opened in openings.items()},
        [
            Claim(f"{small}: {OURS} / {FUTURES}", ratio(OURS, FUTURES, SUBMIT), 8),
            ahead(small, SUBMIT, *by_ones),
            ahead("small tasks by map", one, *by_ones),
            ahead("small tasks by map in chunks of 100", many, chunks_of("", 100)),
            Claim(f"{to}: {OURS} / {FUTURES}", ratio(OURS, FUTURES, ARRAY_TO), 8),
            ahead(to, ARRAY_TO, ARRAY_TO),
            Claim(f"{from_}: {OURS} / {FUTURES}", ratio(OURS, FUTURES, ARRAY_FROM), 8),
            ahead(from_, ARRAY_FROM, ARRAY_FROM),
        ],
        absent=absent(),
    )


def _death(bench: Bench) -> Figure:
    executors: dict[str, Executors] = {
        OURS: partial(Executor, WORKERS),
        FUTURES: partial(ProcessPoolExecutor, WORKERS),
    }
    return Figure(
        "executor_death",
        {name: partial(killed, bench, executor) for name, executor in executors.items()},
        [
            Claim(
                "SIGKILL of a worker to the error of its task, the most of all",
                lambda runs: max(runs[OURS]["most"]),
                100,
                at_most=True,
                unit="ms",
            )
        ],
    )


SINGLY, IN_CHUNKS, SLOWLY = OURS, f"{OURS}, chunks of {CHUNK}", f"{OURS}, a slow consumer"


def grown(variant: str, bench: Bench) -> Claim:
    return Claim(
        f"memory of a map over {bench.flood(MILLION).messages:,} items: {variant}",
        lambda runs: max(runs[variant]["growth"]),
        BOUND,
        at_most=True,
        always=True,
        unit="MiB",
    )


def _map(bench: Bench) -> Figure:
    return Figure(
        "executor_map",
        {
            SINGLY: partial(mapped, bench, shmbus.opened, "map", 1),
            IN_CHUNKS: partial(mapped, bench, shmbus.opened, "map"),
            SLOWLY: partial(mapped, bench, shmbus.opened, "map", 1, PAUSE),
            FUTURES: partial(mapped, bench, futures.opened, "map"),
            f"{POOL}.imap": partial(mapped, bench, multiprocessing.opened, "imap"),
        },
        [grown(variant, bench) for variant in (SINGLY, IN_CHUNKS, SLOWLY)],
    )


def figures(bench: Bench) -> list[Figure]:
    return [_executor(bench), _death(bench), _map(bench)]
